package kv

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
)

var (
	testNetwork = replication.OpenNetwork("kv test")
	testSpace   = replication.SpaceOf(testNetwork, replication.DefaultSpace)
)

// testContext ends a test that would hang.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// tempDir is a directory for the test, in memory where there is such a place: the
// tests open hundreds of databases.
func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "vix-kv-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func testKey(n uint64) ed25519.PrivateKey {
	seed := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	return ed25519.NewKeyFromSeed(seed[:])
}

// seededReader is randomness that a test can replay.
type seededReader struct{ *rand.ChaCha8 }

func seeded(n uint64) seededReader {
	return seededReader{rand.NewChaCha8(sha256.Sum256(binary.BigEndian.AppendUint64(nil, n)))}
}

// newStore opens a store in memory for the node with a number.
func newStore(t testing.TB, node uint64) *memlog.Store {
	return openStore(t, node, &memlog.Disk{})
}

func openStore(t testing.TB, node uint64, disk *memlog.Disk) *memlog.Store {
	t.Helper()
	s, err := memlog.Open(memlog.Options{
		Network: testNetwork, Key: testKey(node), Now: time.Now, Rand: seeded(node), Disk: disk,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// openView opens a view and closes it with the test.
func openView(t testing.TB, store replication.Store, dir string) *View {
	t.Helper()
	v := openViewWith(t, Options{Dir: dir, Store: store, BootID: "boot"})
	return v
}

func openViewWith(t testing.TB, o Options) *View {
	t.Helper()
	v, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// author writes the blocks of one log by hand, so that tests can write what no
// committer would.
type author struct {
	key  ed25519.PrivateKey
	gen  replication.Genesis
	log  replication.LogID
	next uint64
	prev replication.Hash
}

func newAuthor(origin uint64, epoch byte) *author {
	a := &author{key: testKey(origin), next: 1}
	a.gen = replication.Genesis{Network: testNetwork, Space: testSpace, Epoch: replication.Epoch{epoch}}
	copy(a.gen.Origin[:], a.key.Public().(ed25519.PublicKey))
	a.log = a.gen.LogID()
	return a
}

func (a *author) dot(seq uint64) replication.Dot { return replication.Dot{Log: a.log, Seq: seq} }

// block writes one block of operations whose HLCs ascend. mangle may change the
// body and header before the hash is made.
func (a *author) block(ops []replication.Op, mangle func(h *replication.Header, body []byte) []byte) []byte {
	body := replication.EncodeBody(a.log, ops)
	h := replication.Header{
		Log: a.log, FirstSeq: a.next, Count: uint64(len(ops)), Prev: a.prev,
		RawLen: uint64(len(body)), FirstHLC: ops[0].HLC, LastHLC: ops[len(ops)-1].HLC,
	}
	if a.next == 1 {
		h.Genesis = &a.gen
	}
	if mangle != nil {
		body = mangle(&h, body)
	}
	h.BodyLen, h.BodyHash = uint64(len(body)), sha256.Sum256(body)
	header := replication.AppendHeader(nil, &h)
	hash := replication.Hash(sha256.Sum256(header))
	a.next, a.prev = h.LastSeq()+1, hash
	return replication.AppendBlock(nil, header, replication.SignBlock(a.key, hash), body)
}

// ingest commits raw blocks of a log that follow from.
func ingest(t testing.TB, s replication.Store, a *author, from replication.Position, raw []byte) replication.Position {
	t.Helper()
	run, err := replication.VerifyRun(replication.RunSource{
		Network: testNetwork, Log: a.log, Origin: &a.gen.Origin, Space: a.gen.Space, From: from,
	}, raw)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan replication.IngestResult, 1)
	s.Ingest(1, run, func(r replication.IngestResult) { done <- r })
	r := <-done
	if r.Err != nil || r.Code != replication.Committed {
		t.Fatalf("ingest: %v %v", r.Code, r.Err)
	}
	return run.End()
}

func put(key, value string) replication.Op {
	return replication.Op{Kind: replication.KindPut, Key: []byte(key), Payload: []byte(value)}
}

func del(key string) replication.Op {
	return replication.Op{Kind: replication.KindDelete, Key: []byte(key)}
}

// write appends one batch through the view's resolver.
func write(t testing.TB, s replication.Store, v *View, ops ...replication.Op) replication.Appended {
	t.Helper()
	ctx := testContext(t)
	if err := v.Admit(ctx, testSpace); err != nil {
		t.Fatal(err)
	}
	at, err := s.Append(ctx, replication.Batch{Space: testSpace, Ops: ops, Resolver: v})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// wantValue checks what Get returns; "" means absent.
func wantValue(t testing.TB, v *View, key, want string) Entry {
	t.Helper()
	e, ok, err := v.Get(testContext(t), testSpace, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	if ok != (want != "") || !bytes.Equal(e.Value, []byte(want)) {
		t.Fatalf("key %q is %q (%v), want %q", key, e.Value, ok, want)
	}
	return e
}

// settled waits until the view has applied all that the store holds.
func settled(t testing.TB, s replication.Store, v *View) {
	t.Helper()
	if err := v.WaitApplied(testContext(t), testSpace, s.Head()); err != nil {
		t.Fatal(err)
	}
}

// rests waits until the view has applied all and rests: after settled, the apply
// goroutine may still be on its way to another look, which takes whatever is written
// meanwhile. It looks at one space after the other: when it has applied a block of
// another one and wants nothing of this one, twice in a row, it is past that look.
func rests(t testing.TB, s replication.Store, v *View) {
	t.Helper()
	settled(t, s, v)
	other := replication.SpaceOf(testNetwork, "other")
	for idle := 0; idle < 2; {
		if _, err := s.Append(testContext(t), replication.Batch{Space: other, Ops: []replication.Op{put("k", "v")}, Resolver: v}); err != nil {
			t.Fatal(err)
		}
		if err := v.WaitApplied(testContext(t), other, s.Head()); err != nil {
			t.Fatal(err)
		}
		v.mu.RLock()
		dirty := v.spaces[testSpace].dirty
		v.mu.RUnlock()
		if idle++; dirty {
			idle = 0
		}
	}
}

// waitGeneration waits until the view is of a generation or a later one.
func waitGeneration(ctx context.Context, v *View, generation uint64) error {
	for {
		v.mu.RLock()
		reached, changed, closed := v.generation >= generation, v.changed, v.closed
		v.mu.RUnlock()
		if reached {
			return nil
		}
		if closed {
			return replication.ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
