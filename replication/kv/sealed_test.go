package kv

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/logtest"
	"vixp2p/replication/memlog"
	"vixp2p/replication/sealed"
)

// gate is a logtest.Keys that can also say that this node may not read, or does not
// know yet what is encrypted.
type gate struct {
	logtest.Keys
	err atomic.Pointer[error]
}

func shut(err error) *gate {
	g := &gate{}
	g.err.Store(&err)
	return g
}

func (g *gate) OpenFor(space replication.SpaceID) (replication.Open, error) {
	if err := g.err.Load(); err != nil {
		return nil, *err
	}
	return g.Keys.OpenFor(space)
}

func openSealedView(t *testing.T, s replication.Store, dir string, o replication.Opener) *View {
	return openViewWith(t, Options{Dir: dir, Store: s, Opener: o, BootID: "boot", retryMin: time.Hour})
}

// sealedBlock writes one put in a block that is sealed under key; nil: not sealed.
func (a *author) sealedBlock(t *testing.T, s replication.Store, key *sealed.Key, name, value string) {
	t.Helper()
	from := replication.Position{Seq: a.next - 1, Hash: a.prev}
	o := put(name, value)
	o.HLC = replication.HLC(a.next) << 20
	o.Order = uint64(o.HLC)
	ingest(t, s, a, from, a.block([]replication.Op{o}, func(h *replication.Header, body []byte) []byte {
		if key == nil {
			return body
		}
		return key.Seal(h, body)
	}))
}

// stopsWith waits until the view of the space waits for something.
func stopsWith(t *testing.T, v *View, want error) error {
	t.Helper()
	ctx := testContext(t)
	for {
		v.mu.RLock()
		var err error
		if sp := v.spaces[testSpace]; sp != nil {
			err = sp.err
		}
		changed := v.changed
		v.mu.RUnlock()
		if errors.Is(err, want) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the view has %v, want %v", err, want)
		}
	}
}

// A space without its keys waits, says for which, shows what came before, and goes on
// when they arrive.
func TestWaitsForKey(t *testing.T) {
	old, next := logtest.ContentKey(1), logtest.ContentKey(2)
	s, a, keys := newStore(t, 1), newAuthor(2, 1), &logtest.Keys{}
	keys.Encrypt(testSpace)
	v := openSealedView(t, s, tempDir(t), keys)
	a.sealedBlock(t, s, old, "a", "1")
	err := stopsWith(t, v, replication.ErrNoKey)
	var missing *replication.NoKeyError
	if !errors.As(err, &missing) || missing.KeyID != old.ID() || missing.Log != a.log || missing.Seq != 1 {
		t.Errorf("it waits with %v", err)
	}
	if _, _, err := v.Get(testContext(t), testSpace, []byte("a")); !errors.Is(err, replication.ErrNoKey) {
		t.Errorf("a read of a space of which nothing is known: %v", err)
	}
	if err := v.Admit(testContext(t), testSpace); !errors.Is(err, replication.ErrNoKey) {
		t.Errorf("a write to it: %v", err)
	}
	if st := v.Stats(testSpace); !errors.Is(st.Err, replication.ErrNoKey) || st.Behind == 0 {
		t.Errorf("stats: %+v", st)
	}

	keys.Encrypt(testSpace, old)
	v.KeysChanged()
	settled(t, s, v)
	wantValue(t, v, "a", "1")

	// The next key is missing: what came before is read, what came after waits.
	a.sealedBlock(t, s, next, "a", "2")
	a.sealedBlock(t, s, old, "b", "3")
	_ = stopsWith(t, v, replication.ErrNoKey)
	wantValue(t, v, "a", "1")
	wantValue(t, v, "b", "")
	waiting, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	if err := v.WaitApplied(waiting, testSpace, s.Head()); !errors.Is(err, replication.ErrNoKey) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait for all: %v", err)
	}
	keys.Encrypt(testSpace, old, next)
	v.KeysChanged()
	settled(t, s, v)
	wantValue(t, v, "a", "2")
	wantValue(t, v, "b", "3")
	if st := v.Stats(testSpace); st.Err != nil || st.Siblings != 3 || st.Generation != 1 {
		t.Errorf("stats: %+v", st)
	}
	if err := v.Verify(testContext(t), VerifyOptions{Deep: true}, func(f replication.Finding) { t.Errorf("verify: %+v", f) }); err != nil {
		t.Error(err)
	}
}

// Other spaces go on while one waits, and so does Verify.
func TestWaitingDelaysNobody(t *testing.T) {
	other := replication.SpaceOf(testNetwork, "other")
	s, a, keys := newStore(t, 1), newAuthor(2, 1), &logtest.Keys{}
	keys.Encrypt(testSpace)
	a.sealedBlock(t, s, logtest.ContentKey(1), "a", "1")
	v := openSealedView(t, s, tempDir(t), keys)
	_ = stopsWith(t, v, replication.ErrNoKey)
	ctx := testContext(t)
	if err := v.Admit(ctx, other); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, replication.Batch{Space: other, Ops: []replication.Op{put("k", "v")}, Resolver: v}); err != nil {
		t.Fatal(err)
	}
	if e, ok, err := v.Get(ctx, other, []byte("k")); !ok || err != nil || string(e.Value) != "v" {
		t.Errorf("%+v %v %v", e, ok, err)
	}
	if err := v.Verify(ctx, VerifyOptions{Deep: true}, func(f replication.Finding) { t.Errorf("verify: %+v", f) }); err != nil {
		t.Errorf("verify: %v", err)
	}
	if err := v.Rebuild(ctx); err != nil {
		t.Errorf("rebuild: %v", err)
	}
}

// A node that carries a space and may not read it builds nothing of it and says so.
func TestNotReader(t *testing.T) {
	s, a := newStore(t, 1), newAuthor(2, 1)
	g := shut(&replication.NotReaderError{Space: testSpace})
	a.sealedBlock(t, s, logtest.ContentKey(1), "key", "the plain text")
	dir := tempDir(t)
	v := openSealedView(t, s, dir, g)
	_ = stopsWith(t, v, replication.ErrNotReader)
	if _, _, err := v.Get(testContext(t), testSpace, []byte("key")); !errors.Is(err, replication.ErrNotReader) {
		t.Errorf("a read: %v", err)
	}
	if err := v.WaitApplied(testContext(t), testSpace, s.Head()); !errors.Is(err, replication.ErrNotReader) {
		t.Errorf("a wait: %v", err)
	}
	w, err := v.Watch(testContext(t), testSpace, nil, v.Begin())
	if err == nil {
		_, err = w.Next(testContext(t))
	}
	if !errors.Is(err, replication.ErrNotReader) {
		t.Errorf("a watch: %v", err)
	}
	if st := v.Stats(testSpace); !errors.Is(st.Err, replication.ErrNotReader) || st.Keys != 0 {
		t.Errorf("stats: %+v", st)
	}
}

// Whether a block counts: sealed in an encrypted space, not sealed in another, and one
// that does not open under the key that it names is void alone.
func TestVoidBySeal(t *testing.T) {
	key, keys := logtest.ContentKey(1), &logtest.Keys{}
	for _, encrypted := range []bool{true, false} {
		s, a := newStore(t, 1), newAuthor(2, 1)
		if encrypted {
			keys.Encrypt(testSpace, key)
		} else {
			keys = &logtest.Keys{}
		}
		v := openSealedView(t, s, tempDir(t), keys)
		a.sealedBlock(t, s, key, "sealed", "1")
		a.sealedBlock(t, s, nil, "plain", "2")
		from := replication.Position{Seq: a.next - 1, Hash: a.prev}
		bent := put("bent", "3")
		bent.HLC, bent.Order = 99<<20, 99<<20
		ingest(t, s, a, from, a.block([]replication.Op{bent}, func(h *replication.Header, body []byte) []byte {
			body = key.Seal(h, body)
			body[30] ^= 1
			return body
		}))
		a.sealedBlock(t, s, key, "sealed after", "4")
		a.sealedBlock(t, s, nil, "plain after", "5")
		settled(t, s, v)
		has := map[bool]string{}
		has[encrypted], has[!encrypted] = "1", ""
		wantValue(t, v, "sealed", has[true])
		wantValue(t, v, "bent", "")
		if encrypted {
			wantValue(t, v, "plain", "")
			wantValue(t, v, "sealed after", "4")
		} else {
			wantValue(t, v, "plain", "2")
			wantValue(t, v, "plain after", "5")
		}
	}
}

// The declaration that a space is encrypted may come after its blocks: the state is
// then what it would be had it come first, at once and after a restart.
func TestDeclaredLater(t *testing.T) {
	key := logtest.ContentKey(1)
	s, a := newStore(t, 1), newAuthor(2, 1)
	dir, keys := tempDir(t), &logtest.Keys{}
	v := openSealedView(t, s, dir, keys)
	a.sealedBlock(t, s, key, "sealed", "1")
	a.sealedBlock(t, s, nil, "plain", "2")
	settled(t, s, v)
	wantValue(t, v, "sealed", "")
	wantValue(t, v, "plain", "2")

	keys.Encrypt(testSpace, key)
	v.KeysChanged()
	if err := waitGeneration(testContext(t), v, 2); err != nil {
		t.Fatal(err)
	}
	wantValue(t, v, "sealed", "1")
	wantValue(t, v, "plain", "")
	check := func() {
		t.Helper()
		if err := v.Verify(testContext(t), VerifyOptions{Deep: true}, func(f replication.Finding) { t.Errorf("verify: %+v", f) }); err != nil {
			t.Error(err)
		}
	}
	check()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}

	// While it is not known what is encrypted, nothing is thrown away.
	g := shut(&replication.NoKeyError{Space: testSpace})
	v = openSealedView(t, s, dir, g)
	_ = stopsWith(t, v, replication.ErrNoKey)
	g.Encrypt(testSpace, key)
	g.err.Store(nil)
	v.KeysChanged()
	wantValue(t, v, "sealed", "1")
	if v.Generation() != 2 {
		t.Errorf("generation %d after a start at which the keys came later", v.Generation())
	}
	check()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}

	// And what changed while it was closed is seen at the next start.
	v = openSealedView(t, s, dir, &logtest.Keys{})
	if err := waitGeneration(testContext(t), v, 3); err != nil {
		t.Fatal(err)
	}
	wantValue(t, v, "sealed", "")
	wantValue(t, v, "plain", "2")
	check()
}

// A Watch tells of sealed writes like of any other.
func TestWatchSealed(t *testing.T) {
	key, keys := logtest.ContentKey(1), &logtest.Keys{}
	keys.Encrypt(testSpace, key)
	s, a := newStore(t, 1), newAuthor(2, 1)
	v := openSealedView(t, s, tempDir(t), keys)
	w, err := v.Watch(testContext(t), testSpace, nil, v.Begin())
	if err != nil {
		t.Fatal(err)
	}
	a.sealedBlock(t, s, nil, "void", "0")
	a.sealedBlock(t, s, key, "a", "1")
	if e, err := w.Next(testContext(t)); err != nil || string(e.Key) != "a" || string(e.Value) != "1" {
		t.Errorf("%+v, %v", e, err)
	}
}

// This node's own writes: sealed in the store, and read at once.
func TestOwnWritesSealed(t *testing.T) {
	keys := &logtest.Keys{}
	keys.Encrypt(testSpace, logtest.ContentKey(1))
	s, err := memlog.Open(memlog.Options{
		Network: testNetwork, Key: testKey(1), Now: time.Now, Rand: seeded(1), Disk: &memlog.Disk{}, Sealer: keys,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	v := openSealedView(t, s, tempDir(t), keys)
	write(t, s, v, put("a", "the plain text"))
	wantValue(t, v, "a", "the plain text")
	write(t, s, v, put("a", "another"))
	settled(t, s, v)
	if e := wantValue(t, v, "a", "another"); e.Conflicts != 0 {
		t.Errorf("%d conflicts with itself", e.Conflicts)
	}
	arrivals, err := s.ReadArrivals(testSpace, 0, 1<<20)
	if err != nil || len(arrivals) != 2 {
		t.Fatal(len(arrivals), err)
	}
	for _, at := range arrivals {
		if len(at.Block.Header.KeyID) == 0 || bytes.Contains(at.Block.Body, []byte("plain")) {
			t.Errorf("block %d is not sealed", at.Number)
		}
	}
}
