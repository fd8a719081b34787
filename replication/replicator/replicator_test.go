package replicator_test

import (
	"testing"
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
