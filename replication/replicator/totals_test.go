package replicator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
	"vixp2p/replication/replicator"
)

// counting is a store that counts how often cursors are read.
type counting struct {
	*memlog.Store
	loads int
}

func (s *counting) LoadCursor(peer replication.OriginKey, instance replication.Instance) ([]replication.FrontierEntry, error) {
	s.loads++
	return s.Store.LoadCursor(peer, instance)
}

// The totals say what the status says in full, whatever state members are in, and
// read no cursor again of a member that said nothing new.
func TestTotals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		check := func(what string, pending, missing uint64, settled bool) {
			t.Helper()
			synctest.Wait()
			var full uint64
			all, err := a.r.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range all {
				full += st.PendingOps
			}
			for range 2 {
				got, err := a.r.Totals(t.Context())
				if err != nil || got.PendingOps != pending || got.MissingOps[space] != missing || got.Settled != settled || full != pending {
					t.Errorf("%s: %+v, %v; by the status %d are pending", what, got, err, full)
				}
			}
		}
		check("alone", 0, 0, true)
		at := a.append(3, 10)
		check("alone, with something", 0, 0, true)
		b := play(a, "B")
		check("B is here, and has not said anything", 3, 0, false)
		o := newOrigin(9)
		o.push("x")
		o.push("y")
		b.settle(replication.FrontierEntry{Log: o.log, Pos: o.pos})
		check("B lacks all", 3, 2, true)
		b.ack(at.First.Log, at.Pos)
		check("B has all", 0, 2, true)
		a.append(4, 10)
		check("B lacks what is new", 4, 2, true)
		c := play(a, "C")
		c.settle(replication.FrontierEntry{Log: at.First.Log, Pos: at.Pos})
		check("C too", 8, 2, true)
		time.Sleep(time.Second) // until what both have stated is in their cursors
		b.c.cut()
		<-b.peer.Done()
		check("B is away", 8, 0, true)
		a.append(5, 10)
		check("and more is written", 18, 0, true)
		c.c.cut()
		<-c.peer.Done()
		check("both are away", 18, 0, true)
		a.close()
		a.open()
		check("after a restart", 18, 0, true)

		store := &counting{Store: a.store.(*memlog.Store)}
		if err := a.r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.start(store)
		for i := range uint64(10) {
			if got, err := a.r.Totals(t.Context()); err != nil || got.PendingOps != 18+2*i {
				t.Fatalf("%+v, %v", got, err)
			}
			a.append(1, 10)
		}
		if store.loads != 2 {
			t.Errorf("cursors were read %d times", store.loads)
		}
		b = play(a, "B", func(info *replicator.PeerInfo) { info.Instance[1]++ })
		check("another B", 22+19, 0, false)
		b.settle()
		check("another B has nothing", 22+19, 0, true)
	})
}

// TestTotalsWhileASessionEnds: a session that has ended, and still says goodbye, does not
// know of newer writes; they are pending all the same.
func TestTotalsWhileASessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		pa, _, c := connect(a, b)
		a.append(1, 10)
		arrives(t, a, b)
		synctest.Wait()
		c.stall(true)
		for range 5 { // more than the path takes
			a.append(1000, 500)
		}
		synctest.Wait()
		pa.Close(replication.CodeDisconnect, "")
		synctest.Wait()
		a.append(1, 10)
		sum, err := a.r.Totals(t.Context())
		if err != nil || sum.PendingOps != 5001 {
			t.Errorf("%+v, %v", sum, err)
		}
	})
}
