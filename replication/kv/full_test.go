package kv

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
)

// TestFullDiskOnTheWay: commits fail now and then, in the middle of blocks too,
// and the view goes on where it was.
func TestFullDiskOnTheWay(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	h := makeHistory(rnd, shapes["crowded"])
	store := openStore(t, 100, &memlog.Disk{})
	var asked atomic.Int64
	v := openViewWith(t, Options{
		Dir: tempDir(t), Store: store, maxBatch: 1, retryMin: time.Microsecond,
		FreeBytes: func(string) (uint64, error) {
			if asked.Add(1)%5 == 0 {
				return 0, nil
			}
			return math.MaxUint64, nil
		},
	})
	newFeeder(h, rnd).feed(t, store, 1<<20)
	settled(t, store, v)
	checkState(t, v, h)
	if v.Generation() != 1 {
		t.Errorf("generation %d", v.Generation())
	}
}

// TestHalfABlock: of a block that needs several transactions nothing is seen
// before the last, also when the process ends on the way.
func TestHalfABlock(t *testing.T) {
	const n = 10
	s := newStore(t, 1)
	dir := tempDir(t)
	var room atomic.Int64
	room.Store(1) // commits
	o := Options{
		Dir: dir, Store: s, BootID: "boot", maxBatch: 1, memTable: smallTable, retryMin: time.Millisecond,
		FreeBytes: func(string) (uint64, error) {
			if room.Add(-1) < 0 {
				return 0, nil
			}
			return math.MaxUint64, nil
		},
	}
	v := openViewWith(t, o)
	write(t, s, v, put("before", "x"))
	settled(t, s, v)
	a := newAuthor(2, 1)
	var ops []replication.Op
	for i := range n {
		p := put(fmt.Sprint(i), "x")
		p.HLC = replication.HLC(i + 1)
		p.Order = uint64(p.HLC)
		ops = append(ops, p)
	}
	room.Store(n / 2)
	ingest(t, s, a, replication.Position{}, a.block(ops, nil))
	for !errors.Is(v.Stats(testSpace).Err, replication.ErrNoSpace) {
		waitChange(t, v)
	}
	sum, err := v.Summary(testContext(t), testSpace)
	if err != nil || sum.Keys != 1 || len(sum.Frontier) != 1 {
		t.Errorf("half a block is seen: %+v, %v", sum, err)
	}
	if _, ok, err := v.Get(testContext(t), testSpace, []byte("0")); ok || err != nil {
		t.Errorf("a key of half a block is seen, %v", err)
	}
	txn := v.d.latest()
	c, err := loadCursor(txn, testSpace)
	txn.Discard()
	if err != nil || c.part == 0 {
		t.Errorf("nothing of the block is written: %+v, %v", c, err)
	}
	killed := copyDir(t, dir)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	room.Store(math.MaxInt64)
	for _, o.Dir = range []string{dir, killed} {
		v := openViewWith(t, o)
		sum, err := v.Summary(testContext(t), testSpace)
		if err != nil || sum.Keys != n+1 || v.Generation() != 1 {
			t.Errorf("after reopening: generation %d, %+v, %v", v.Generation(), sum, err)
		}
	}
}

// TestSnapshotKeepsItsState: what a reader sees stays as long as it reads,
// whatever is written and compacted meanwhile; then it goes.
func TestSnapshotKeepsItsState(t *testing.T) {
	const keys = 40
	s := newStore(t, 1)
	v := openSmall(t, s, tempDir(t))
	round := func(n int) {
		var ops []replication.Op
		for k := range keys {
			ops = append(ops, put(fmt.Sprint(k), fmt.Sprintf("%d %4000d", n, k)))
		}
		write(t, s, v, ops...)
		settled(t, s, v)
	}
	earlier, _ := v.d.snapshot()
	round(0)
	snap, ok := v.d.snapshot()
	if !ok {
		t.Fatal("no snapshot")
	}
	for n := range 60 { // more than one level of the tree
		round(n + 1)
	}
	earlier.close() // now snap is the oldest
	if err := v.d.db.Flatten(2); err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		rec, err := loadKey(snap.Txn, testSpace, fmt.Append(nil, k))
		if err != nil || rec.n != 1 || string(rec.sibs[0].value) != fmt.Sprintf("0 %4000d", k) {
			t.Errorf("key %d changed under a reader: %+v, %v", k, rec.n, err)
		}
	}
	snap.close()
	if len(v.d.marks) != 1 {
		t.Errorf("%d states are kept for nobody", len(v.d.marks))
	}
}
