package kv

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/replication"
)

// flights is an applier whose commits wait for the test.
type flights struct {
	*applier
	store replication.Store
	// answer gives what the next commit under way comes to; nil: it is written.
	answer chan error
}

func newFlights(t *testing.T, store replication.Store) *flights {
	t.Helper()
	o, err := Options{Dir: tempDir(t), Store: store}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	d, err := openDatabase(o.Dir, 1, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	f := &flights{store: store, answer: make(chan error, 1)}
	if f.applier, err = newApplier(d, testSpace, ranker{store.Log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(f.answer)
		_ = f.land() // of a test that failed
		f.close()
	})
	f.room = func() error { return <-f.answer }
	return f
}

// stage applies so many of the next blocks and commits nothing.
func (f *flights) stage(t *testing.T, n int) {
	t.Helper()
	list := readBatch(f.store, nil, testSpace, f.cur.arrival).blocks[:n]
	if err := f.preload(list); err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if err := f.block(&list[i]); err != nil {
			t.Fatal(err)
		}
	}
}

// start has a commit under way.
func (f *flights) start(t *testing.T) {
	t.Helper()
	if err := f.begin(nil); err != nil {
		t.Fatal(err)
	}
}

// finish ends the commit under way, and commits the rest.
func (f *flights) finish(t *testing.T) {
	t.Helper()
	f.answer <- nil
	if err := f.land(); err != nil {
		t.Fatal(err)
	}
	f.answer <- nil
	if err := f.commit(); err != nil {
		t.Fatal(err)
	}
}

// want checks all records, and the seqs of the siblings of a key.
func (f *flights) want(t *testing.T, key string, seqs ...uint64) {
	t.Helper()
	f.d.show()
	snap, _ := f.d.snapshot()
	defer snap.close()
	if err := scanAll(context.Background(), snap.Txn, f.rank); err != nil {
		t.Error(err)
	}
	rec, err := loadKey(snap.Txn, testSpace, []byte(key))
	if err != nil || rec.n != uint64(len(seqs)) {
		t.Fatalf("key %q has %d siblings, want %d (%v)", key, rec.n, len(seqs), err)
	}
	for i, seq := range seqs[:len(rec.sibs)] {
		if rec.sibs[i].dot.Seq != seq {
			t.Errorf("sibling %d of %q is %v, want %d", i, key, rec.sibs[i].dot, seq)
		}
	}
}

// feedOps commits each list of operations as a block of one log, at rising clocks.
func feedOps(t *testing.T, s replication.Store, a *author, blocks ...[]replication.Op) {
	t.Helper()
	var at replication.Position
	hlc := replication.HLC(0)
	for _, ops := range blocks {
		for i := range ops {
			hlc++
			ops[i].HLC, ops[i].Order = hlc, uint64(hlc)
		}
		at = ingest(t, s, a, at, a.block(ops, nil))
	}
}

func over(o replication.Op, dots ...replication.Dot) replication.Op {
	o.Supersedes = dots
	return o
}

// TestCommitUnderWayIsSeen: blocks that are applied while the commit before is held up
// replace and delete what that writes, also when nothing that is merely kept is in memory.
func TestCommitUnderWayIsSeen(t *testing.T) {
	for _, forget := range []bool{false, true} {
		s, a := newStore(t, 1), newAuthor(2, 1)
		f := newFlights(t, s)
		feedOps(t, s, a,
			[]replication.Op{put("over", "1"), put("gone", "2"), put("beside", "3")},
			[]replication.Op{over(put("over", "4"), a.dot(1)), over(del("gone"), a.dot(2)), put("beside", "6")},
			[]replication.Op{over(put("over", "7"), a.dot(4)), over(put("gone", "8"), a.dot(2))})
		f.stage(t, 1)
		f.start(t)
		if forget {
			f.forget()
		}
		f.stage(t, 1) // the first is not written yet
		f.answer <- nil
		f.start(t)
		if forget {
			f.forget()
		}
		f.stage(t, 1)
		f.finish(t)
		f.want(t, "over", 7)
		f.want(t, "gone", 8)
		f.want(t, "beside", 6, 3)
		if f.saved.siblings != 4 || f.saved.keys != 3 || f.saved.conflicts != 1 {
			t.Errorf("counts %+v", f.saved.tally)
		}
	}
}

// TestCommitUnderWayIsAwaited: where siblings have records of their own, what is under way
// is not in memory.
func TestCommitUnderWayIsAwaited(t *testing.T) {
	s, a := newStore(t, 1), newAuthor(2, 1)
	f := newFlights(t, s)
	var many, more []replication.Op
	var all []replication.Dot
	for i := range uint64(2 * maxInline) {
		many = append(many, put("k", fmt.Sprint(i)))
		all = append(all, a.dot(i+1))
	}
	more = append(more, over(put("k", "last"), all[1:]...))
	feedOps(t, s, a, many, more)
	f.stage(t, 1)
	f.start(t)
	f.answer <- nil // staging what follows waits for it
	f.stage(t, 1)
	f.answer <- nil
	if err := f.commit(); err != nil {
		t.Fatal(err)
	}
	f.want(t, "k", 2*uint64(maxInline)+1, 1)
}

// TestCommitUnderWayFails: what was staged meanwhile is not written either; applied again,
// everything is there once.
func TestCommitUnderWayFails(t *testing.T) {
	s, a := newStore(t, 1), newAuthor(2, 1)
	f := newFlights(t, s)
	feedOps(t, s, a,
		[]replication.Op{put("k", "1"), put("first", "2")},
		[]replication.Op{over(put("k", "3"), a.dot(1))},
		[]replication.Op{over(put("k", "4"), a.dot(3)), put("last", "5")})
	f.stage(t, 1)
	f.answer <- nil
	if err := f.commit(); err != nil {
		t.Fatal(err)
	}
	saved := f.saved
	f.stage(t, 1)
	f.start(t)
	f.stage(t, 1)
	full := errors.New("full")
	f.answer <- full
	if err := f.begin(nil); !errors.Is(err, full) {
		t.Fatalf("the next commit: %v", err)
	}
	f.discard()
	if f.saved != saved || f.cur != saved || f.staged() {
		t.Errorf("it goes on from %+v, not from %+v", f.cur, saved)
	}
	f.want(t, "k", 1)
	f.want(t, "last")
	f.stage(t, 1)
	f.start(t)
	f.stage(t, 1)
	f.finish(t)
	f.want(t, "k", 4)
	f.want(t, "first", 2)
	f.want(t, "last", 5)
}

// TestSlowAndFailingCommits feeds random histories at once, so that there is always more
// to apply, to a view whose commits are slow and fail now and then, and compares it with
// the pure function.
func TestSlowAndFailingCommits(t *testing.T) {
	for name, sh := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, maxBatch := range []int64{1, 24 << 10} {
				rnd := rand.New(rand.NewPCG(uint64(i), 7))
				h := makeHistory(rnd, sh)
				store := newStore(t, 100)
				newFeeder(h, rnd).feed(t, store, math.MaxInt)
				var asked atomic.Int64
				v := openViewWith(t, Options{
					Dir: tempDir(t), Store: store, maxBatch: maxBatch, retryMin: time.Microsecond,
					FreeBytes: func(string) (uint64, error) {
						n := asked.Add(1)
						for range n % 7 * 20 {
							runtime.Gosched()
						}
						if n%11 == 0 {
							return 0, nil
						}
						return math.MaxUint64, nil
					},
				})
				settled(t, store, v)
				checkState(t, v, h)
				if v.Generation() != 1 {
					t.Errorf("generation %d", v.Generation())
				}
			}
		})
	}
}
