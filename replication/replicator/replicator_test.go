package replicator_test

import (
	"context"
	"sync/atomic"
	"testing"

	"vixp2p/replication"
)

func TestChainForwards(t *testing.T) {
	a, b, c := newNode(t, "A"), newNode(t, "B"), newNode(t, "C")
	at := a.append(3, 100)
	connect(a, b)
	connect(b, c)
	arrives(t, a, b, c)
	c.append(2, 100)
	a.append(1, 100)
	arrives(t, a, b, c)
	if got := c.tip(at.First.Log); got != 4 {
		t.Fatalf("C holds %d ops of A's log, not 4", got)
	}
	for _, n := range []*node{a, b, c} {
		if err := n.r.WaitSynced(within(t), 1, nil); err != nil {
			t.Errorf("%s: %v", n.name, err)
		}
	}
}

func TestBulkCatchUp(t *testing.T) {
	a, b := newNode(t, "A"), newNode(t, "B")
	for range 60 {
		a.append(1000, 100)
	}
	connect(a, b)
	if err := b.r.WaitSynced(within(t), 1, nil); err != nil {
		t.Fatal(err)
	}
	arrives(t, a, b)
	if got := b.r.Counters(); got.OpsIn != 60_000 || got.Duplicates != 0 || got.Refused != 0 {
		t.Errorf("B counts %+v", got)
	}
	if got := a.r.Counters(); got.Resends != 0 {
		t.Errorf("A counts %+v", got)
	}
}

// readsCounted counts the runs that are read from the disk.
type readsCounted struct {
	replication.Store
	reads atomic.Int64
}

func (s *readsCounted) ReadRun(log replication.LogID, after replication.Position, maxBytes int) (replication.RunBytes, error) {
	s.reads.Add(1)
	return s.Store.ReadRun(log, after, maxBytes)
}

// TestWhatIsNewIsNotReadBack: what becomes durable while peers are in step is pushed
// from memory, also where it is passed on.
func TestWhatIsNewIsNotReadBack(t *testing.T) {
	a, b, c := newNode(t, "A"), newNode(t, "B"), newNode(t, "C")
	var stores [2]*readsCounted
	for i, n := range []*node{a, b} {
		if err := n.r.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		stores[i] = &readsCounted{Store: n.store}
		n.start(stores[i])
	}
	a.append(1, 100)
	connect(a, b)
	connect(b, c)
	arrives(t, a, b, c)
	for _, n := range []*node{a, b, c} {
		if err := n.r.WaitSynced(within(t), 1, nil); err != nil {
			t.Fatalf("%s: %v", n.name, err)
		}
	}
	before := [2]int64{stores[0].reads.Load(), stores[1].reads.Load()}
	for range 20 {
		a.append(1, 100)
		arrives(t, a, b, c)
	}
	for i, s := range stores {
		if n := s.reads.Load() - before[i]; n > 0 {
			t.Errorf("%c read %d of 20 runs back", "AB"[i], n)
		}
	}
}
