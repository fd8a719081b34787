package kv

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
)

// increment adds one to a counter by conditional puts until one holds.
func increment(ctx context.Context, s replication.Store, v *View, key string) error {
	for {
		if err := v.Admit(ctx, testSpace); err != nil {
			return err
		}
		e, ok, err := v.Get(ctx, testSpace, []byte(key))
		if err != nil {
			return err
		}
		n, cond := 0, replication.Condition{Key: []byte(key)}
		if ok {
			cond.Dots = []replication.Dot{e.Dot}
			if n, err = strconv.Atoi(string(e.Value)); err != nil {
				return err
			}
		}
		_, err = s.Append(ctx, replication.Batch{
			Space: testSpace, Resolver: v, If: []replication.Condition{cond},
			Ops: []replication.Op{put(key, strconv.Itoa(n+1)), put(fmt.Sprintf("%s/%d", key, n+1), "x")},
		})
		if !errors.Is(err, replication.ErrConflict) {
			return err
		}
	}
}

// TestConcurrentWriters: counters lose no increment, plain writers never conflict
// with each other, and batches are whole.
func TestConcurrentWriters(t *testing.T) {
	const writers, each = 8, 40
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	ctx := testContext(t)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := increment(ctx, s, v, "counter"); err != nil {
					t.Error(err)
					return
				}
				write(t, s, v, put("shared", fmt.Sprint(w, i)), put(fmt.Sprintf("own/%d", w), fmt.Sprint(i)))
				if e, ok, err := v.Get(ctx, testSpace, fmt.Appendf(nil, "own/%d", w)); err != nil || !ok || string(e.Value) != fmt.Sprint(i) {
					t.Errorf("own write %d of writer %d reads as %q, %v", i, w, e.Value, err)
				}
			}
		})
	}
	wg.Wait()
	settled(t, s, v)
	if e := wantValue(t, v, "counter", fmt.Sprint(writers*each)); e.Conflicts != 0 {
		t.Error("the counter has conflicts")
	}
	sum, err := v.Summary(ctx, testSpace)
	if err != nil || sum.Conflicts != 0 || sum.Keys != writers*each+1+writers+1 {
		t.Errorf("%d keys, %d conflicts, %v", sum.Keys, sum.Conflicts, err)
	}
	if v.overlay.size != 0 || len(v.overlay.logs) != 0 || len(v.overlay.keys) != 0 {
		t.Errorf("the overlay still holds %d bytes", v.overlay.size)
	}
}

// TestOthersWritesCountWhenApplied: a write of another node that the view has not
// applied is not superseded, it becomes a sibling; one that it has applied is.
func TestOthersWritesCountWhenApplied(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	a := newAuthor(2, 1)
	theirs := func(value string, hlc replication.HLC) []byte {
		o := put("k", value)
		o.HLC, o.Order = hlc, uint64(hlc)
		return a.block([]replication.Op{o}, nil)
	}
	at := ingest(t, s, a, replication.Position{}, theirs("1", 1))
	settled(t, s, v)
	write(t, s, v, put("k", "ours"))
	if e := wantValue(t, v, "k", "ours"); e.Conflicts != 0 {
		t.Error("an applied write was not superseded")
	}
	ingest(t, s, a, at, theirs("2", 2))
	settled(t, s, v)
	if e := wantValue(t, v, "k", "ours"); e.Conflicts != 1 {
		t.Error("a concurrent write is not a sibling")
	}
	write(t, s, v, put("k", "both"))
	if e := wantValue(t, v, "k", "both"); e.Conflicts != 0 {
		t.Error("the next write does not resolve the conflict")
	}
}

// TestOrderNeverVoid: whatever clocks others have, a key can be overwritten, and
// with clocks in reach the new write ranks above what it replaces.
func TestOrderNeverVoid(t *testing.T) {
	now := replication.HLCAt(time.Now())
	for _, highest := range []uint64{0, uint64(now) - 1, uint64(now), uint64(now) + 1, uint64(now) + 1<<31,
		uint64(now) + replication.MaxOrderLead - 2, uint64(now) + replication.MaxOrderLead, 1 << 63, math.MaxUint64} {
		o := put("k", "v")
		o.HLC = now
		supersede(&o, []sibling{{dot: replication.Dot{Seq: 1}, order: highest}})
		if o.OrderVoid() || o.Order < uint64(now) {
			t.Errorf("over an order of %d: order %d at %d", highest, o.Order, now)
		}
		if highest < uint64(now)+replication.MaxOrderLead-2 && o.Order <= highest {
			t.Errorf("order %d does not rank above %d", o.Order, highest)
		}
	}
	o := put("k", "v")
	o.HLC = math.MaxUint64
	supersede(&o, []sibling{{order: math.MaxUint64}})
	if o.OrderVoid() {
		t.Error("the order overflowed")
	}
}

// TestOrderAcrossClocks: a write that names another ranks above it whatever the
// clocks say (design 5.1): on a device whose clock starts in 1970, and over a
// write of a device whose clock is a century ahead.
func TestOrderAcrossClocks(t *testing.T) {
	at := func(year int) replication.HLC {
		return replication.HLCAt(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
	}
	for _, tc := range []struct{ writer, written int }{{1970, 2026}, {2026, 2126}, {1970, 2126}, {2026, 2026}} {
		o := put("k", "v")
		o.HLC = at(tc.writer)
		supersede(&o, []sibling{{dot: replication.Dot{Seq: 1}, order: uint64(at(tc.written))}})
		if o.OrderVoid() || o.Order <= uint64(at(tc.written)) {
			t.Errorf("a write in %d over one of %d: order %d, void %v", tc.writer, tc.written, o.Order, o.OrderVoid())
		}
	}
}

// TestSupersedesTheHighestRanked: of more siblings than an operation can name it
// names the highest.
func TestSupersedesTheHighestRanked(t *testing.T) {
	const extra = 100
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	a := newAuthor(2, 1)
	var ops []replication.Op
	for i := range replication.MaxSupersedes + extra {
		o := put("k", fmt.Sprint(i))
		o.HLC = replication.HLC(i + 1)
		o.Order = uint64(o.HLC)
		ops = append(ops, o)
	}
	ingest(t, s, a, replication.Position{}, a.block(ops, nil))
	settled(t, s, v)
	write(t, s, v, put("k", "one"))
	for range 2 {
		list, err := v.Siblings(testContext(t), testSpace, []byte("k"), 3)
		if err != nil || len(list) != 3 || list[0].Conflicts != extra || string(list[1].Value) != fmt.Sprint(extra-1) {
			t.Fatalf("%d siblings, %v", len(list), err)
		}
		settled(t, s, v)
	}
	write(t, s, v, put("k", "two"))
	settled(t, s, v)
	if e := wantValue(t, v, "k", "two"); e.Conflicts != 0 {
		t.Errorf("%d conflicts are left", e.Conflicts)
	}
	if n := countRecords(v); n[prefixSibling] != 0 {
		t.Errorf("records %v", n)
	}
}

// TestDiscard: what the committer resolved and could not commit leaves no trace,
// and its numbers can be used again.
func TestDiscard(t *testing.T) {
	disk := &memlog.Disk{}
	s := openStore(t, 1, disk)
	v := openView(t, s, tempDir(t))
	write(t, s, v, put("k", "1"))
	disk.SetFull(true)
	_, err := s.Append(testContext(t), replication.Batch{Space: testSpace, Ops: []replication.Op{put("k", "lost"), put("l", "lost")}, Resolver: v})
	if err == nil {
		t.Fatal("a full disk took a write")
	}
	wantValue(t, v, "k", "1")
	wantValue(t, v, "l", "")
	disk.SetFull(false)
	write(t, s, v, put("k", "2"))
	settled(t, s, v)
	if e := wantValue(t, v, "k", "2"); e.Conflicts != 0 {
		t.Error("the write after conflicts with the one before")
	}
	if v.overlay.size != 0 {
		t.Errorf("the overlay still holds %d bytes", v.overlay.size)
	}
}

// TestStagedIsInvisible: reads see an operation from Settle on, not before.
func TestStagedIsInvisible(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	log := replication.LogID{1}
	ops := []replication.Op{put("k", "v")}
	if err := v.Resolve(testSpace, replication.Dot{Log: log, Seq: 1}, ops, nil); err != nil {
		t.Fatal(err)
	}
	wantValue(t, v, "k", "")
	again := []replication.Op{put("k", "w")}
	if err := v.Resolve(testSpace, replication.Dot{Log: log, Seq: 2}, again, nil); err != nil {
		t.Fatal(err)
	}
	if want := []replication.Dot{{Log: log, Seq: 1}}; !slices.Equal(again[0].Supersedes, want) {
		t.Errorf("the second operation names %v", again[0].Supersedes)
	}
	v.Settle(testSpace, log, 1)
	wantValue(t, v, "k", "v")
	v.Discard(testSpace, log, 2)
	v.Settle(testSpace, log, 1)
	wantValue(t, v, "k", "v")
}

// TestCloseEndsAdmit: who waits for room in the overlay of a view that is closed hears
// of that, as the view makes none any more.
func TestCloseEndsAdmit(t *testing.T) {
	s := newStore(t, 1)
	var full atomic.Bool
	v := openViewWith(t, Options{
		Dir: tempDir(t), Store: s, OverlayBytes: 1000, retryMin: time.Millisecond,
		FreeBytes: func(string) (uint64, error) {
			if full.Load() {
				return 0, nil
			}
			return math.MaxUint64, nil
		},
	})
	full.Store(true)
	for i := 0; v.overlaySize() < 1000; i++ {
		write(t, s, v, put(fmt.Sprint(i), "x"))
	}
	done := make(chan error, 1)
	go func() { done <- v.Admit(testContext(t), testSpace) }()
	for waits := false; !waits; runtime.Gosched() {
		v.mu.RLock()
		waits = v.hurry > 0
		v.mu.RUnlock()
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, replication.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestAdmitWaits: a full overlay holds writers up until the view catches up.
func TestAdmitWaits(t *testing.T) {
	s := newStore(t, 1)
	free := make(chan bool, 1)
	free <- true
	v := openViewWith(t, Options{
		Dir: tempDir(t), Store: s, OverlayBytes: 1000, retryMin: time.Millisecond,
		FreeBytes: func(string) (uint64, error) {
			ok := <-free
			free <- ok
			if !ok {
				return 0, nil
			}
			return math.MaxUint64, nil
		},
	})
	<-free
	free <- false // the disk is full: nothing is applied
	for i := 0; v.overlaySize() < 1000; i++ {
		write(t, s, v, put(fmt.Sprint(i), "x"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := v.Admit(ctx, testSpace); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a full overlay admits: %v", err)
	}
	wantValue(t, v, "0", "x") // reads go on
	for !errors.Is(v.Stats(testSpace).Err, replication.ErrNoSpace) {
		waitChange(t, v)
	}
	// Only now: while the first blocks are being applied nothing is said to be behind.
	if st := v.Stats(testSpace); st.Behind == 0 {
		t.Errorf("stats do not tell: %+v", st)
	}
	<-free
	free <- true
	if err := v.Admit(testContext(t), testSpace); err != nil {
		t.Fatal(err)
	}
	settled(t, s, v)
	if st := v.Stats(testSpace); st.Err != nil || st.Behind != 0 || st.Keys == 0 {
		t.Errorf("stats after: %+v", st)
	}
}

func (v *View) overlaySize() int {
	v.overlay.mu.Lock()
	defer v.overlay.mu.Unlock()
	return v.overlay.size
}

// waitChange waits until something about the view changes.
func waitChange(t *testing.T, v *View) {
	t.Helper()
	v.mu.RLock()
	changed := v.changed
	v.mu.RUnlock()
	select {
	case <-changed:
	case <-testContext(t).Done():
		t.Fatal("nothing changes")
	}
}

// TestConverge: two nodes with views write the same keys, exchange their logs,
// and show the same (G5).
func TestConverge(t *testing.T) {
	var stores [2]*memlog.Store
	var views [2]*View
	for i := range stores {
		stores[i] = newStore(t, uint64(i+1))
		views[i] = openView(t, stores[i], tempDir(t))
	}
	exchange := func() {
		for i := range stores {
			from, to := stores[i], stores[1-i]
			for _, info := range from.Logs(testSpace) {
				held, _ := to.Log(info.Log)
				run, err := from.ReadRun(info.Log, held.Tip, 0)
				if err != nil {
					t.Fatal(err)
				}
				if len(run.Data) > 0 {
					a := &author{log: info.Log, gen: replication.Genesis{Space: testSpace, Origin: info.Origin}}
					ingest(t, to, a, run.From, run.Data)
				}
			}
		}
	}
	for round := range 20 {
		for i, v := range views {
			for k := range 10 {
				key := fmt.Sprint("key ", (round+k)%15)
				if (round+i+k)%4 == 0 {
					write(t, stores[i], v, del(key))
				} else {
					write(t, stores[i], v, put(key, fmt.Sprint(round, i, k)))
				}
			}
		}
		exchange()
		exchange()
		var sums [2]Summary
		for i, v := range views {
			settled(t, stores[i], v)
			var err error
			if sums[i], err = v.Summary(testContext(t), testSpace); err != nil {
				t.Fatal(err)
			}
			if err := v.Verify(testContext(t), VerifyOptions{}, func(f replication.Finding) { t.Errorf("%+v", f) }); err != nil {
				t.Fatal(err)
			}
		}
		if sums[0].Digest != sums[1].Digest || sums[0].Conflicts == 0 || replication.FrontierRoot(sums[0].Frontier) != replication.FrontierRoot(sums[1].Frontier) {
			t.Fatalf("round %d: %+v and %+v", round, sums[0], sums[1])
		}
	}
}

// TestUpgradeNeeded: a critical operation of an unknown kind stops the space, and
// no other; what came before stays applied.
func TestUpgradeNeeded(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	a := newAuthor(2, 1)
	before, strange := put("k", "v"), replication.Op{Kind: 99, Critical: true, HLC: 2}
	before.HLC, before.Order = 1, 1
	at := ingest(t, s, a, replication.Position{}, a.block([]replication.Op{before}, nil))
	settled(t, s, v)
	ingest(t, s, a, at, a.block([]replication.Op{strange}, nil))
	ctx := testContext(t)
	if err := v.WaitApplied(ctx, testSpace, s.Head()); !errors.Is(err, replication.ErrUpgradeNeeded) {
		t.Fatalf("wait: %v", err)
	}
	if _, _, err := v.Get(ctx, testSpace, []byte("k")); !errors.Is(err, replication.ErrUpgradeNeeded) {
		t.Errorf("get: %v", err)
	}
	if err := v.Admit(ctx, testSpace); !errors.Is(err, replication.ErrUpgradeNeeded) {
		t.Errorf("admit: %v", err)
	}
	if st := v.Stats(testSpace); !errors.Is(st.Err, replication.ErrUpgradeNeeded) || st.Keys != 1 {
		t.Errorf("stats: %+v", st)
	}
	other := replication.SpaceOf(testNetwork, "other")
	if _, err := s.Append(ctx, replication.Batch{Space: other, Ops: []replication.Op{put("k", "v")}, Resolver: v}); err != nil {
		t.Fatal(err)
	}
	if e, ok, err := v.Get(ctx, other, []byte("k")); !ok || err != nil || string(e.Value) != "v" {
		t.Errorf("another space: %v", err)
	}
}

// TestRebuildUnderLoad: readers and writers go on while the view is rebuilt again
// and again; nobody reads half a state.
func TestRebuildUnderLoad(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	ctx := testContext(t)
	for i := range 300 {
		write(t, s, v, put(fmt.Sprintf("fixed/%03d", i), "x"))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			value := fmt.Sprint(i)
			for {
				if err := v.Admit(ctx, testSpace); err != nil {
					t.Error(err)
					return
				}
				_, err := s.Append(ctx, replication.Batch{Space: testSpace, Ops: []replication.Op{put("moving", value)}, Resolver: v})
				if err == nil {
					break
				}
				if !errors.Is(err, ErrNotReady) {
					t.Error(err)
					return
				}
			}
			e, ok, err := v.Get(ctx, testSpace, []byte("moving"))
			if err != nil || !ok || string(e.Value) != value || e.Conflicts != 0 {
				t.Errorf("after writing %s: %q, %d conflicts, %v", value, e.Value, e.Conflicts, err)
				return
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			n := 0
			err := v.List(ctx, testSpace, []byte("fixed/"), func(Entry) error { n++; return nil })
			if err != nil && !errors.Is(err, ErrNotReady) || err == nil && n != 300 {
				t.Errorf("a list of %d keys, %v", n, err)
				return
			}
		}
	})
	for range 5 {
		if err := v.Rebuild(ctx); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if v.Generation() != 6 {
		t.Errorf("generation %d", v.Generation())
	}
}
