package replicator_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

// A connection that is cut again and again, each time after a few messages,
// still gets everything across, and restarts of both nodes do no harm.
func TestCutsAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		rng := rand.New(rand.NewPCG(1, 2))
		for round := range 60 {
			a.append(1+rng.IntN(200), 200)
			b.append(1+rng.IntN(50), 200)
			pa, pb, c := connect(a, b)
			var left atomic.Int64
			left.Store(int64(3 + rng.IntN(30)))
			cut := func(m replication.Message) []replication.Message {
				if left.Add(-1) == 0 {
					c.cut()
				}
				return []replication.Message{m}
			}
			c.out.set(func() { c.out.tamper = cut })
			c.in.set(func() { c.in.tamper = cut })
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
			c.cut()
			<-pa.Done()
			<-pb.Done()
			var end *replicator.EndError
			if err := pa.Err(); !errors.As(err, &end) || end.Cause == nil {
				t.Fatalf("a cut session ended with %v", err)
			}
			switch round % 10 {
			case 3:
				a.restart()
			case 7:
				b.restart()
			}
		}
		connect(a, b)
		if err := a.r.WaitSynced(t.Context(), 1, nil); err != nil {
			t.Fatal(err)
		}
		arrives(t, a, b)
	})
}

// A path that is cut after less than a run makes progress nevertheless.
func TestPartialRunSurvivesTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A", small), newNode(t, "B", small)
		for range 5 {
			a.append(1000, 250)
		}
		sessions := 0
		for ; b.store.Head() == 0; sessions++ {
			if sessions == 100 {
				t.Fatal("no progress in 100 sessions")
			}
			pa, pb, c := connect(a, b)
			bytes := 0
			c.out.set(func() {
				c.out.tamper = func(m replication.Message) []replication.Message {
					if p, ok := m.(*replication.WalPush); ok {
						if bytes += len(p.Data); bytes > 128<<10 {
							c.cutAfter()
							return nil
						}
					}
					return []replication.Message{m}
				}
			})
			time.Sleep(time.Second) // all that can happen has happened
			c.cut()
			<-pa.Done()
			<-pb.Done()
		}
		if sessions < 5 {
			t.Errorf("a run of 1.25 MiB came in %d sessions of 128 KiB", sessions)
		}
		connect(a, b)
		if err := b.r.WaitSynced(t.Context(), 1, nil); err != nil {
			t.Fatal(err)
		}
		arrives(t, a, b)
	})
}

func small(o *replicator.Options) { o.PieceBytes = 32 << 10 }

func TestCloseLeavesNothing(t *testing.T) {
	a, b, c := newNode(t, "A"), newNode(t, "B"), newNode(t, "C")
	for range 100 {
		a.append(1000, 200)
	}
	_, pb, _ := connect(a, b)
	_, _, stalled := connect(a, c)
	stalled.stall(true)
	go func() { _ = a.r.WaitSynced(context.Background(), 1, nil) }() // the close ends it
	eventually(t, "bytes at B", func() bool { return b.store.Head() > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := a.r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := a.r.Attach(b.info(), stalled); !errors.Is(err, replication.ErrClosed) {
		t.Errorf("an attach after the close: %v", err)
	}
	<-pb.Done()
	for _, n := range []*node{b, c} {
		if err := n.r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	noGoroutines(t)
}

func TestCloseSaysBye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newNode(t, "A"), newNode(t, "B"), newNode(t, "C")
		_, pb, _ := connect(a, b)
		pc, _, stalled := connect(a, c)
		synctest.Wait()
		stalled.stall(true)
		for range 5 { // more than the path to C takes
			a.append(1000, 500)
		}
		synctest.Wait()
		start := time.Now()
		a.close()
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("the close took %s, not the time that a stalled peer is waited for", took)
		}
		<-pb.Done()
		var end *replicator.EndError
		if !errors.As(pb.Err(), &end) || end.Code != replication.CodeShutdown || !end.FromPeer {
			t.Errorf("B's session ended with %v", pb.Err())
		}
		if !errors.As(pc.Err(), &end) || end.Code != replication.CodeShutdown || end.FromPeer {
			t.Errorf("the session with C ended with %v", pc.Err())
		}
		a.open()
		connect(a, b)
		arrives(t, a, b)
	})
}

// TestCloseAcknowledges: who closes a node because a write has arrived does not leave the
// writer without a receipt for it.
func TestCloseAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		gate := b.gated(10)
		connect(a, b)
		synctest.Wait()
		at := a.append(1, 10)
		got := a.replicated(t.Context(), at, 1)
		synctest.Wait() // the run is on its way to B's disk
		closed := make(chan error, 1)
		go func() { closed <- b.r.Close(context.Background()) }()
		synctest.Wait()
		gate.gate <- struct{}{}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		select {
		case err := <-got:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("A has no receipt")
		}
	})
}

func TestCloseTellsOfAStoreThatDoesNotAnswer(t *testing.T) {
	a := newNode(t, "A")
	gate := a.gated(1)
	s := play(a, "S")
	s.settle()
	s.say(newOrigin(9).push("x"))
	eventually(t, "a received run", func() bool { return a.r.Counters().BytesIn > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := a.r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the close says %v", err)
	}
	gate.gate <- struct{}{}
	if err := a.r.Close(within(t)); err != nil {
		t.Error(err)
	}
}

// A peer that leaves runs unfinished holds memory of its own share only.
func TestStalledPeersDoNotHoldTheBudget(t *testing.T) {
	a := newNode(t, "A", func(o *replicator.Options) { o.Budget = replicator.NewBudget(4 * run) })
	b := newNode(t, "B")
	for range 20 {
		b.append(1000, 250)
	}
	for i := range 12 {
		s := play(a, string(rune('c'+i)))
		s.settle()
		s.say(&replication.WalPush{
			Space: space, Log: replication.LogID{byte(i)}, End: replication.Position{Seq: 9, Hash: replication.Hash{1}},
			Total: run, Data: make([]byte, run-1),
		})
	}
	connect(a, b)
	arrives(t, a, b)
}

func TestForkProofIsPassedOn(t *testing.T) {
	a, b := newNode(t, "A"), newNode(t, "B")
	s := play(a, "S")
	s.settle()
	one, two := newOrigin(9), newOrigin(9)
	s.say(one.push("left"), one.push("left"))
	eventually(t, "two ops", func() bool { return a.tip(one.log) == 2 })
	connect(a, b)
	arrives(t, a, b)
	s.say(two.push("right"))
	for e := s.ackFor(one.log); e.Code != replication.CodeForked; e = s.ackFor(one.log) {
		if e.Code != replication.CodeOK {
			t.Fatalf("the answer to another branch is %s", e.Code)
		}
	}
	eventually(t, "proof at B", func() bool {
		p, ok := b.store.ForkProofOf(one.log)
		return ok && p.Verify() == nil
	})
	// A forked log does not keep the two from being in step.
	for _, n := range []*node{a, b} {
		if err := n.r.WaitSynced(within(t), 1, nil); err != nil {
			t.Errorf("%s: %v", n.name, err)
		}
	}
	// A false proof is not believed.
	honest := a.append(1, 10)
	s.say(&replication.ForkProofMsg{Space: space, Proof: replication.ForkProof{Log: honest.First.Log, Origin: a.key(), A: []byte{1}, B: []byte{2}}})
	s.say(&replication.Ping{Nonce: 7})
	hear[*replication.Pong](s)
	if _, ok := a.store.ForkProofOf(honest.First.Log); ok {
		t.Error("a proof that does not hold was kept")
	}
}
