package replicator_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

// relaxed makes a scripted peer one that does not fsync.
func relaxed(info *replicator.PeerInfo) { info.Relaxed = true }

// What a member states that does not fsync is no receipt: while it is connected,
// afterwards, and after a restart of this node. It gets its writes all the same.
func TestRelaxedMemberGivesNoReceipts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		b := play(a, "B", relaxed)
		b.settle()
		at := a.append(1, 10)
		hear[*replication.WalPush](b)
		got := a.replicated(t.Context(), at, 1)
		b.ack(at.First.Log, at.Pos)
		still(t, got)
		still(t, a.replicated(t.Context(), at, 1))
		if st, _ := b.peer.Status(t.Context()); st.PendingOps != 0 || st.Durability != replicator.Relaxed || !st.InStep() {
			t.Errorf("status: %+v", st)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var short *replicator.NotReplicatedError
		if err := <-a.replicated(ctx, at, 1); !errors.As(err, &short) || len(short.Acked) != 0 || short.Relaxed != 1 || !strings.Contains(err.Error(), "relaxed") {
			t.Errorf("the wait ended with %v", err)
		}
		b.c.cut()
		<-b.peer.Done()
		still(t, a.replicated(t.Context(), at, 1))
		a.restart()
		still(t, a.replicated(t.Context(), at, 1))
		b = play(a, "B", relaxed)
		still(t, a.replicated(t.Context(), at, 1))
		b.settle(replication.FrontierEntry{Log: at.First.Log, Pos: at.Pos})
		still(t, a.replicated(t.Context(), at, 1))
	})
}

// The same instance may change its mind between two starts. What counts is what a
// member stated that fsyncs, and that fsyncs now.
func TestDurabilityOfAMemberChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		holds := func(at replication.Appended) replication.FrontierEntry {
			return replication.FrontierEntry{Log: at.First.Log, Pos: at.Pos}
		}
		leave := func(s *script) {
			time.Sleep(time.Second) // until what it has stated is in the cursor
			s.c.cut()
			<-s.peer.Done()
		}
		yes := func(what string, at replication.Appended) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := <-a.replicated(ctx, at, 1); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		first := a.append(1, 10)
		b := play(a, "B", relaxed)
		b.settle(holds(first))
		still(t, a.replicated(t.Context(), first, 1))
		leave(b)

		// It comes back and fsyncs: not before it has stated it again, and then also
		// while it is away, and after a restart.
		b = play(a, "B")
		still(t, a.replicated(t.Context(), first, 1))
		b.settle(holds(first))
		yes("stated again", first)
		leave(b)
		yes("away", first)
		a.restart()
		yes("away, after a restart", first)

		// Relaxed again: nothing counts, a wait under way included.
		got := a.replicated(t.Context(), first, 2)
		still(t, got)
		b = play(a, "B", relaxed)
		c := play(a, "C")
		c.settle(holds(first))
		still(t, got)
		b.settle(holds(first))
		still(t, got)
		leave(b)
		leave(c)
		a.restart()
		still(t, a.replicated(t.Context(), first, 2)) // C's word alone
		yes("of C", first)
		second := a.append(1, 10)
		b = play(a, "B", relaxed)
		b.settle(holds(second))
		leave(b)
		a.restart()
		still(t, a.replicated(t.Context(), second, 1))
		b = play(a, "B")
		still(t, a.replicated(t.Context(), second, 1))
		b.settle(holds(second))
		yes("stated at last", second)
	})
}

// Two real nodes: the peer's data arrives, the receipt does not.
func TestRelaxedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		ca, cb := newConns()
		info := b.info()
		info.Relaxed = true
		if _, err := a.r.Attach(info, ca); err != nil {
			t.Fatal(err)
		}
		b.attach(a, cb)
		at := a.append(3, 10)
		if err := a.r.WaitSynced(t.Context(), 1, nil); err != nil {
			t.Fatal(err)
		}
		if b.tip(at.First.Log) != 3 {
			t.Error("B has not got the writes")
		}
		still(t, a.replicated(t.Context(), at, 1))
		mine := b.append(1, 10)
		if err := <-b.replicated(t.Context(), mine, 1); err != nil {
			t.Error("A fsyncs:", err)
		}
	})
}
