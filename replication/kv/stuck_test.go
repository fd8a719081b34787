package kv

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
)

// disordered is a store that gives the blocks of one log in another order than
// the log's, as a broken arrival index does.
type disordered struct {
	*memlog.Store
	space  replication.SpaceID
	broken atomic.Bool
	reads  atomic.Int64 // of the space, while it is broken
}

func (s *disordered) ReadArrivals(space replication.SpaceID, after uint64, maxBytes int) ([]replication.Arrival, error) {
	list, err := s.Store.ReadArrivals(space, 0, 1<<30)
	if err != nil {
		return nil, err
	}
	if n := len(list); space == s.space && n >= 3 && s.broken.Load() {
		s.reads.Add(1)
		list[n-2].Block, list[n-1].Block = list[n-1].Block, list[n-2].Block
	}
	for len(list) > 0 && list[0].Number <= after {
		list = list[1:]
	}
	return list, nil
}

// TestStoreOutOfOrder: a store that breaks the order of a log stops that space,
// with an error that names the store, and no other; the view is rebuilt once to
// make sure, and not again.
func TestStoreOutOfOrder(t *testing.T) {
	s := &disordered{Store: newStore(t, 1), space: testSpace}
	s.broken.Store(true)
	ctx := testContext(t)
	a := newAuthor(2, 1)
	var at replication.Position
	for i := range 3 {
		o := put(fmt.Sprint(i), "x")
		o.HLC = replication.HLC(i + 1)
		o.Order = uint64(o.HLC)
		at = ingest(t, s, a, at, a.block([]replication.Op{o}, nil))
	}
	v := openViewWith(t, Options{Dir: tempDir(t), Store: s, BootID: "boot", retryMin: time.Millisecond, stuckPause: time.Millisecond})
	var stuck *StuckError
	until(t, v, func() bool { return errors.As(v.Stats(testSpace).Err, &stuck) })
	if stuck.Space != testSpace || stuck.Log != a.log || stuck.Arrival == 0 || !strings.Contains(stuck.Error(), "the store") {
		t.Errorf("the error is %v", stuck)
	}
	before := s.reads.Load()
	until(t, v, func() bool { return s.reads.Load() >= before+5 }) // it is tried again
	if g := v.Generation(); g > 2 {
		t.Errorf("generation %d: rebuilt again and again", g)
	}
	calls := map[string]func() error{
		"get":    func() error { _, _, err := v.Get(ctx, testSpace, []byte("0")); return err },
		"admit":  func() error { return v.Admit(ctx, testSpace) },
		"wait":   func() error { return v.WaitApplied(ctx, testSpace, s.Head()) },
		"digest": func() error { _, err := v.Summary(ctx, testSpace); return err },
	}
	for name, call := range calls {
		var damage *replication.DamageError // would name the view's files
		if err := call(); !errors.As(err, &stuck) || !errors.Is(err, replication.ErrDamaged) || errors.As(err, &damage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var found []replication.Finding
	if err := v.Verify(ctx, VerifyOptions{}, func(f replication.Finding) { found = append(found, f) }); err != nil {
		t.Error(err)
	}
	if n := len(found); n == 0 || found[n-1].Log != a.log || !strings.Contains(found[n-1].Problem, "the store") {
		t.Errorf("findings %+v", found)
	}
	other := replication.SpaceOf(testNetwork, "other")
	if _, err := s.Append(ctx, replication.Batch{Space: other, Ops: []replication.Op{put("k", "v")}, Resolver: v}); err != nil {
		t.Fatal(err)
	}
	if e, ok, err := v.Get(ctx, other, []byte("k")); !ok || err != nil || string(e.Value) != "v" {
		t.Errorf("another space: %v", err)
	}
	s.broken.Store(false)
	until(t, v, func() bool { return v.Stats(testSpace).Err == nil })
	settled(t, s, v)
	wantValue(t, v, "2", "x")
	if g := v.Generation(); g > 2 {
		t.Errorf("generation %d", g)
	}
}

// until waits until something holds that changes with the view.
func until(t *testing.T, v *View, holds func() bool) {
	t.Helper()
	ctx := testContext(t)
	for {
		v.mu.RLock()
		changed := v.changed
		v.mu.RUnlock()
		if holds() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("what is awaited does not come")
		}
	}
}

// TestRebuildsBackOff: damage that comes back after each rebuild is not rebuilt
// without a pause, which reads tell of; what is remembered of it is bounded.
func TestRebuildsBackOff(t *testing.T) {
	s := newStore(t, 1)
	v := openViewWith(t, Options{Dir: tempDir(t), Store: s, BootID: "boot", retryMin: time.Hour})
	ctx := testContext(t)
	write(t, s, v, put("k", "v"))
	settled(t, s, v)
	damage := func() {
		g := v.Generation()
		v.askRebuild(rebuild{generation: g, why: &replication.DamageError{File: "here", Problem: "test"}})
		if err := waitGeneration(ctx, v, g+1); err != nil {
			t.Fatal(err)
		}
	}
	damage() // the first is repaired at once
	wantValue(t, v, "k", "v")
	damage()
	if _, _, err := v.Get(ctx, testSpace, []byte("k")); !errors.Is(err, replication.ErrDamaged) {
		t.Errorf("while the next rebuild waits: %v", err)
	}
	if st := v.Stats(testSpace); !errors.Is(st.Err, replication.ErrDamaged) {
		t.Errorf("status: %+v", st)
	}
	if err := v.Rebuild(ctx); err != nil { // whoever asks need not wait
		t.Fatal(err)
	}
	wantValue(t, v, "k", "v")
	for i := range 2 * maxDamage {
		v.mu.Lock()
		v.noteDamageLocked(fmt.Errorf("damage %d", i))
		v.noteDamageLocked(fmt.Errorf("damage %d", i))
		v.mu.Unlock()
	}
	found := 0
	if err := v.Verify(ctx, VerifyOptions{}, func(replication.Finding) { found++ }); err != nil || found != maxDamage {
		t.Errorf("%d findings, %v", found, err)
	}
}

func TestRebuildPauses(t *testing.T) {
	var b rebuildPause
	now := time.Unix(0, 0)
	for i, want := range []time.Duration{0, 1, 2, 4, 8} {
		if got := b.next(now, time.Second); got != want*time.Second {
			t.Errorf("rebuild %d waits %v", i, got)
		}
		now = now.Add(want * time.Second)
	}
	for range 20 {
		now = now.Add(b.next(now, time.Second))
	}
	if got := b.next(now, time.Second); got != rebuildMax {
		t.Errorf("the longest pause is %v", got)
	}
	if got := b.next(now.Add(rebuildMax+rebuildCalm), time.Second); got != 0 {
		t.Errorf("after a calm time it waits %v", got)
	}
}
