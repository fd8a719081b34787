package replicator

import (
	"testing"

	"vixp2p/replication"
)

func pos(seq uint64) replication.Position {
	return replication.Position{Seq: seq, Hash: replication.Hash{byte(seq)}}
}

func TestMailboxMergesAdvancesOfOneLog(t *testing.T) {
	m := newMailbox(7)
	grow := func(log byte, from, to, source uint64) {
		m.advance(replication.Advance{
			Log: replication.LogID{log}, Prev: pos(from), Tip: pos(to), Ops: to - from, Bytes: 10 * (to - from), Source: source,
		})
	}
	grow(1, 0, 2, 7)
	grow(2, 4, 5, 0)
	grow(1, 2, 3, 7)
	grow(1, 3, 9, 0)
	grow(3, 0, 1, 7)
	grow(3, 1, 2, 7)
	got := m.takeAdvances()
	want := []replication.Advanced{
		{Advance: replication.Advance{Log: replication.LogID{1}, Prev: pos(0), Tip: pos(9), Ops: 9, Bytes: 90}},
		{Advance: replication.Advance{Log: replication.LogID{2}, Prev: pos(4), Tip: pos(5), Ops: 1, Bytes: 10}},
		{Advance: replication.Advance{Log: replication.LogID{3}, Prev: pos(0), Tip: pos(2), Ops: 2, Bytes: 20, Source: 7}, FromPeer: true},
	}
	if len(got) != len(want) {
		t.Fatalf("%d advances, not %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("advance %d is\n%+v, not\n%+v", i, got[i], want[i])
		}
	}
	if rest := m.takeAdvances(); len(rest) != 0 {
		t.Errorf("%d advances are left", len(rest))
	}
}

func TestMailboxRefusesAfterItsEnd(t *testing.T) {
	m := newMailbox(7)
	if !m.post(item{call: func() {}}) {
		t.Fatal("an open mailbox refuses")
	}
	if left := m.close(); len(left) != 1 {
		t.Errorf("%d items were left, not 1", len(left))
	}
	m.advance(replication.Advance{Log: replication.LogID{1}})
	if m.post(item{call: func() {}}) || len(m.takeItems()) != 0 || len(m.takeAdvances()) != 0 {
		t.Error("a closed mailbox takes something")
	}
}
