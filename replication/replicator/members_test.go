package replicator_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

var (
	control = replication.SpaceOf(network, "control")
	other   = replication.SpaceOf(network, "other") // known to nobody
)

func withControl(o *replicator.Options) { o.Control = control }

func without(spaces ...replication.SpaceID) func(*replicator.PeerInfo) {
	return func(info *replicator.PeerInfo) {
		info.Carries = func(id replication.SpaceID) bool {
			for _, s := range spaces {
				if s == id {
					return false
				}
			}
			return true
		}
	}
}

// settleControl answers the question about the control space as an equal.
func (s *script) settleControl() {
	s.t.Helper()
	q := hear[*replication.FrontierDigest](s)
	if q.Space != control {
		s.t.Fatalf("the first question is about space %s", q.Space)
	}
	s.say(&replication.FrontierDigest{Space: control, Round: q.Round, Reply: true, Digest: q.Digest, Logs: q.Logs})
}

// cutAt limits one log and leaves the others.
func cutAt(log replication.LogID, at replication.Position) replication.Limiter {
	return func(g *replication.Genesis) replication.LogLimit {
		if g.LogID() == log {
			return replication.LogLimit{Allowed: true, Cut: &at, Err: replication.ErrRevoked}
		}
		return replication.Unlimited
	}
}

func (n *node) restrict(fn replication.Limiter) {
	n.t.Helper()
	if err := n.store.Restrict(context.Background(), fn); err != nil {
		n.t.Fatal(err)
	}
}

// A peer that pushes in a space that it may not have, and asks about it, gets the
// same answers as about a space that nobody has, and nothing else.
func TestPeerHearsNothingOfASpaceThatItMayNotHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A", withControl)
		a.append(3, 10)
		s := play(a, "S", without(space, other))
		s.settleControl()
		var heard []replication.Message
		go func() {
			for {
				m, _, err := s.c.Read()
				if err != nil {
					return
				}
				heard = append(heard, m)
			}
		}()
		for i, id := range []replication.SpaceID{space, other} {
			push := newOrigin(byte(9 + i)).push("x")
			push.Space = id
			piece := *push
			piece.Data = push.Data[:10]
			s.say(&replication.FrontierDigest{Space: id, Name: "default", Round: 1}, push, &piece,
				&replication.OutboxPull{ID: uint64(i), Space: id},
				&replication.ForkProofMsg{Space: id, Proof: replication.ForkProof{Log: a.store.Logs(space)[0].Log}})
		}
		synctest.Wait()
		a.append(2, 10) // later writes are not pushed either
		synctest.Wait()
		var answers [2][]replication.AckEntry
		for _, m := range heard {
			switch m := m.(type) {
			case *replication.WalAck:
				for _, e := range m.Entries {
					i := 0
					if e.Space == other {
						i = 1
					}
					e.Space = replication.SpaceID{}
					if (e.Log != replication.LogID{}) {
						e.Log = replication.LogID{1}
					}
					answers[i] = append(answers[i], e)
				}
			case *replication.WalPush:
				if m.Total > 0 || !m.PullEnd {
					t.Errorf("it hears %T of space %s", m, m.Space)
				}
			default:
				t.Errorf("it hears %T%+v", m, m)
			}
		}
		if len(answers[0]) < 2 || len(answers[0]) != len(answers[1]) {
			t.Fatalf("the answers are %+v and of an unknown space %+v", answers[0], answers[1])
		}
		for i, e := range answers[0] {
			if e != answers[1][i] || e.Code != replication.CodeNotAllowed {
				t.Errorf("answer %+v, of an unknown space %+v", e, answers[1][i])
			}
		}
		if c := a.r.Counters(); c.RunsIn != 0 || a.tip(newOrigin(9).log) != 0 {
			t.Errorf("its runs were looked at: %+v", c)
		}
		st, _ := s.peer.Status(t.Context())
		if len(st.Spaces) != 1 || st.Spaces[0].Space != control || st.PendingOps != 0 {
			t.Errorf("status counts %+v", st.Spaces)
		}
		if len(a.store.Spaces()) != 1 {
			t.Errorf("spaces are %v", a.store.Spaces())
		}
		s.c.cut()
		<-s.peer.Done()
	})
}

func TestControlGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var apply func()
		a := newNode(t, "A", withControl, func(o *replicator.Options) {
			o.ApplyTrust = func(applied func()) { apply = applied }
		})
		a.append(3, 10)
		s := play(a, "S")
		s.say(&replication.FrontierDigest{Space: space, Round: 1})
		s.settleControl()
		synctest.Wait()
		if st, _ := s.peer.Status(t.Context()); apply == nil || st.Settled() {
			t.Fatalf("data begins before the trust state is applied: %+v", st)
		}
		s.c.in.set(func() {
			if n := len(s.c.in.queue); n > 0 {
				t.Errorf("%d messages before the trust state is applied", n)
			}
		})
		apply()
		q := hear[*replication.FrontierDigest](s)
		if q.Space != space || !q.Reply {
			t.Errorf("then it hears %+v", q)
		}
		s.c.cut()
		<-s.peer.Done()
	})
}

func TestMembersComeInStep(t *testing.T) {
	a, b := newNode(t, "A", withControl), newNode(t, "B", withControl)
	for _, n := range []*node{a, b} {
		n.append(3, 10)
		if _, err := n.store.Append(within(t), replication.Batch{Space: control, Ops: makeOps(2, 10)}); err != nil {
			t.Fatal(err)
		}
	}
	connect(a, b)
	arrives(t, a, b)
	if err := a.r.WaitSynced(within(t), 1, nil); err != nil {
		t.Error(err)
	}
	if len(b.store.Logs(control)) != 2 {
		t.Error("the control space did not arrive")
	}
}

// The store's limit decides what is refused, with its code and reason.
func TestLimitRefusesRuns(t *testing.T) {
	a := newNode(t, "A")
	no, cut, yes := newOrigin(9), newOrigin(10), newOrigin(11)
	runs := []*replication.WalPush{cut.push("a"), cut.push("b"), cut.push("c")}
	why := errors.New("it was never admitted")
	a.restrict(func(g *replication.Genesis) replication.LogLimit {
		switch g.LogID() {
		case no.log:
			return replication.LogLimit{Err: errors.Join(why, replication.ErrNotAllowed)}
		case cut.log:
			return replication.LogLimit{Allowed: true, Cut: &runs[1].End, Err: replication.ErrRevoked}
		}
		return replication.Unlimited
	})
	s := play(a, "S")
	s.settle()
	s.say(no.push("x"))
	if e := s.ackFor(no.log); e.Code != replication.CodeNotAllowed || e.Pos.Seq != 0 {
		t.Errorf("the answer to who may not write is %+v", e)
	}
	s.say(yes.push("y"))
	if e := s.ackFor(yes.log); e.Code != replication.CodeOK {
		t.Errorf("the answer to who may is %+v", e)
	}
	// One run across the cut: the part before it is taken.
	all := *runs[0]
	for _, r := range runs[1:] {
		all.End, all.Data = r.End, append(append([]byte(nil), all.Data...), r.Data...)
	}
	all.Total = uint64(len(all.Data))
	s.say(&all)
	if e := s.ackFor(cut.log); e.Code != replication.CodeRevoked || e.Pos != runs[1].End {
		t.Errorf("the answer to a run across the cut is %+v", e)
	}
	st, _ := s.peer.Status(within(t))
	if len(st.Paused) != 2 || st.MissingOps != 0 {
		t.Errorf("status has %d missing and these paused: %+v", st.MissingOps, st.Paused)
	}
}

// A cut ends the sessions that know of the log, and the next ones agree without
// taking it for a loss.
func TestCutIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var losses atomic.Int32 // reported at A, or at B once it knows of the cut
		count := func(o *replicator.Options) {
			o.Observe = func(_ *replicator.Peer, e replication.Effect) {
				if _, ok := e.(replication.DataLoss); ok {
					losses.Add(1)
				}
			}
		}
		a, b := newNode(t, "A", count), newNode(t, "B")
		o := newOrigin(9)
		_, at, _ := o.block("counts")
		o.pos = replication.Position{}
		s := play(a, "S")
		s.settle()
		o = newOrigin(9)
		s.say(o.push("counts"), o.push("does not"), o.push("nor this"))
		connect(a, b)
		eventually(t, "arrival at B", func() bool { return b.tip(o.log) == 3 })
		if err := a.r.WaitReplicated(within(t), space, replication.Dot{Log: o.log, Seq: 3}, 1); err != nil {
			t.Fatal(err)
		}
		// Somebody waits for a second copy of what will be cut.
		waited := make(chan error, 1)
		go func() { waited <- a.r.WaitReplicated(within(t), space, replication.Dot{Log: o.log, Seq: 2}, 5) }()
		synctest.Wait()
		live := a.r.Peers()
		a.restrict(cutAt(o.log, at))
		if err := <-waited; !errors.Is(err, replication.ErrRevoked) {
			t.Errorf("the wait for a write that was cut ended with %v", err)
		}
		if err := a.r.WaitReplicated(within(t), space, replication.Dot{Log: o.log, Seq: 2}, 1); !errors.Is(err, replication.ErrRevoked) {
			t.Errorf("a wait for a write beyond the cut: %v", err)
		}
		for _, p := range live {
			<-p.Done()
			if end, ok := errors.AsType[*replicator.EndError](p.Err()); !ok || end.Code != replication.CodeTrustChanged {
				t.Errorf("the session ended with %v", p.Err())
			}
		}
		eventually(t, "no session at B", func() bool { return len(b.r.Peers()) == 0 })

		// B has not heard of the cut: what it pushes is refused, and it sees why.
		_, pb, _ := connect(a, b)
		eventually(t, "a pause at B", func() bool {
			st, _ := pb.Status(within(t))
			return len(st.Paused) == 1 && st.Paused[0].Code == replication.CodeRevoked && !st.Paused[0].Local && st.PendingOps == 0
		})
		for _, n := range []*node{a, b} {
			if err := n.r.WaitSynced(within(t), 1, nil); err != nil {
				t.Error(err)
			}
		}
		if a.tip(o.log) != 1 {
			t.Errorf("A counts %d operations", a.tip(o.log))
		}
		// Then it does.
		b.restrict(cutAt(o.log, at))
		<-pb.Done()
		count(&b.o)
		b.restart()
		b.restrict(cutAt(o.log, at))
		connect(a, b)
		arrives(t, a, b)
		if err := b.r.WaitSynced(within(t), 1, nil); err != nil {
			t.Error(err)
		}
		// What B stated before it heard of the cut is no receipt, what it states now is.
		if err := a.r.WaitReplicated(within(t), space, replication.Dot{Log: o.log, Seq: 1}, 1); err != nil {
			t.Error(err)
		}
		if n := losses.Load(); n != 0 {
			t.Errorf("%d losses were reported", n)
		}
	})
}

// What is pending towards a member that is away counts the spaces that it may have.
func TestPendingCountsWhatAMemberMayHave(t *testing.T) {
	var may atomic.Bool
	a := newNode(t, "A", func(o *replicator.Options) {
		o.Carries = func(_ replication.OriginKey, id replication.SpaceID) bool { return id == space || may.Load() }
	})
	b := newNode(t, "B")
	pa, _, _ := connect(a, b)
	if err := a.r.WaitSynced(within(t), 1, nil); err != nil {
		t.Fatal(err)
	}
	pa.Close(replication.CodeDisconnect, "")
	<-pa.Done()
	a.append(3, 10)
	if _, err := a.store.Append(within(t), replication.Batch{Space: other, Ops: makeOps(4, 10)}); err != nil {
		t.Fatal(err)
	}
	check := func(want uint64) {
		t.Helper()
		for range 2 { // the second answer is remembered
			if sum, err := a.r.Totals(within(t)); err != nil || sum.PendingOps != want {
				t.Errorf("totals: %d pending (%v), not %d", sum.PendingOps, err, want)
			}
		}
		all, err := a.r.Status(within(t))
		if err != nil || len(all) != 1 || all[0].PendingOps != want {
			t.Errorf("status: %+v (%v), not %d pending", all, err, want)
		}
	}
	check(3)
	may.Store(true)
	check(7)
	log := a.store.Logs(space)[0].Log
	a.restrict(cutAt(log, replication.Position{}))
	check(4)
	may.Store(false)
	check(0)
	if _, err := a.store.Append(within(t), replication.Batch{Space: other, Ops: makeOps(1, 10)}); err != nil {
		t.Fatal(err)
	}
	check(0)
}

// What one stated that may not have the space any more is no receipt.
func TestReceiptsOfWhoMayNotHaveTheSpaceDoNotCount(t *testing.T) {
	var may atomic.Bool
	may.Store(true)
	a := newNode(t, "A", func(o *replicator.Options) {
		o.Carries = func(replication.OriginKey, replication.SpaceID) bool { return may.Load() }
	})
	b := newNode(t, "B")
	pa, _, _ := connect(a, b)
	at := a.append(1, 10)
	if err := a.r.WaitReplicated(within(t), space, at.First, 1); err != nil {
		t.Fatal(err)
	}
	pa.Close(replication.CodeTrustChanged, "")
	<-pa.Done()
	if err := a.r.WaitReplicated(within(t), space, at.First, 1); err != nil {
		t.Errorf("what it stated does not count: %v", err)
	}
	may.Store(false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.r.WaitReplicated(ctx, space, at.First, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("it counts: %v", err)
	}
}
