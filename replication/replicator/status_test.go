package replicator_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
	"vixp2p/replication/replicator"
)

func (n *node) statusOf(other *node) replicator.PeerStatus {
	n.t.Helper()
	all, err := n.r.Status(context.Background())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, st := range all {
		if st.Key == other.key() {
			return st
		}
	}
	n.t.Fatalf("%s knows nothing of %s", n.name, other.name)
	return replicator.PeerStatus{}
}

func TestStatusConnectedAndAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		pa, pb, _ := connect(a, b)
		start := time.Now()
		time.Sleep(6 * time.Second)
		a.append(3, 100)
		synctest.Wait()
		st := a.statusOf(b)
		if !st.Connected || st.Stale || !st.InStep() || st.PendingBytes != 0 || st.ID != "B" || st.Label != "B" {
			t.Errorf("in step: %+v", st)
		}
		if !st.LastAck.Equal(start.Add(6*time.Second)) || !st.Since.Equal(start) {
			t.Errorf("last ack %s, since %s", st.LastAck, st.Since)
		}
		if len(st.Spaces) != 1 || st.Spaces[0].Space != space || !st.Spaces[0].Settled {
			t.Errorf("spaces: %+v", st.Spaces)
		}
		if c := st.Counters; c.OpsOut != 3 || c.RunsOut != 1 || c.AcksIn != 1 || c.BytesOut < 300 {
			t.Errorf("counters: %+v", c)
		}
		if c := b.statusOf(a).Counters; c.OpsIn != 3 || c.RunsIn != 1 || c.AcksOut != 1 || c.BytesIn < 300 {
			t.Errorf("the other's counters: %+v", c)
		}

		pa.Close(replication.CodeDisconnect, "enough")
		<-pa.Done()
		<-pb.Done()
		var end *replicator.EndError
		if !errors.As(pb.Err(), &end) || end.Code != replication.CodeDisconnect || end.Detail != "enough" || !end.FromPeer {
			t.Errorf("the other's session ended with %v", pb.Err())
		}
		if st := a.statusOf(b); st.Connected || st.PendingOps != 0 {
			t.Errorf("away, in step: %+v", st)
		}
		at := a.append(2, 100)
		a.append(5, 100)
		size, err := a.store.BytesAfter(at.First.Log, 3)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if st := a.statusOf(b); st.Connected || st.PendingOps != 7 || st.PendingBytes != size {
				t.Errorf("away: %d ops in %d bytes, not 7 in %d", st.PendingOps, st.PendingBytes, size)
			}
			a.restart() // it is all known from the disk
		}
	})
}

// Who asks whether a peer is there hears it as soon as the peer says anything, and
// not from what it said before.
func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		pa, pb, cable := connect(a, b)
		time.Sleep(time.Second)
		asked := func() (bool, time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			began := time.Now()
			return pa.Answers(ctx), time.Since(began)
		}
		if ok, took := asked(); !ok || took != 0 {
			t.Errorf("a peer that is there: %v after %s", ok, took)
		}
		cable.stall(true)
		if ok, took := asked(); ok || took != 2*time.Second {
			t.Errorf("a peer that is silent: %v after %s", ok, took)
		}
		cable.stall(false)
		pb.Close(replication.CodeDisconnect, "")
		<-pa.Done()
		if ok, took := asked(); ok || took != 0 {
			t.Errorf("a session that has ended: %v after %s", ok, took)
		}
	})
}

// What a session lacks shows while it lacks it, in both directions.
func TestStatusWhileBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		at := a.append(4, 100)
		s := play(a, "S")
		o := newOrigin(9)
		first := o.push("x")
		o.push("y")
		s.settle(replication.FrontierEntry{Log: o.log, Pos: o.pos})
		synctest.Wait()
		st, ok := s.peer.Status(t.Context())
		if !ok || st.PendingOps != 4 || st.PendingBytes == 0 || st.MissingOps != 2 || st.InStep() {
			t.Errorf("behind: %v %+v", ok, st)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var behind *replicator.NotSyncedError
		if err := a.r.WaitSynced(ctx, 1, nil); !errors.As(err, &behind) || behind.Connected != 1 || len(behind.Behind) != 1 || behind.Behind[0] != "S" {
			t.Errorf("the wait to be in step: %v", err)
		}
		s.say(first)
		s.ack(at.First.Log, at.Pos)
		synctest.Wait()
		if st, _ := s.peer.Status(t.Context()); st.PendingOps != 0 || st.MissingOps != 1 {
			t.Errorf("later: %+v", st)
		}
	})
}

func TestWaitSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newNode(t, "A"), newNode(t, "B"), newNode(t, "C")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var alone *replicator.NotSyncedError
		if err := a.r.WaitSynced(ctx, 1, nil); !errors.As(err, &alone) || alone.Connected != 0 {
			t.Errorf("alone: %v", err)
		}
		got := make(chan error, 1)
		go func() { got <- a.r.WaitSynced(t.Context(), 1, nil) }()
		still(t, got)
		a.append(3, 10)
		connect(a, b)
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		if b.digest() != a.digest() {
			t.Error("in step, but the frontiers differ")
		}
		// One peer that is behind suffices; a stale one does not count.
		pc, _, path := connect(a, c)
		synctest.Wait()
		path.stall(true)
		a.append(1, 10)
		go func() { got <- a.r.WaitSynced(t.Context(), 1, nil) }()
		still(t, got)
		(&conn{out: path.in}).stall(true) // now nothing comes from C either
		start := time.Now()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		if st, ok := pc.Status(t.Context()); !ok || !st.Stale || time.Since(start) > 15*time.Second {
			t.Errorf("in step after %s with C's session %v: %+v", time.Since(start), ok, st)
		}
	})
}

// A wait for two peers in step is for both at one moment: one that was connected
// and behind, and went, does not count.
func TestWaitSyncedCountsPeersAtOneMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newNode(t, "A"), newNode(t, "B"), newNode(t, "C")
		connect(a, b)
		pc, _, path := connect(a, c)
		if err := a.r.WaitSynced(t.Context(), 2, nil); err != nil {
			t.Fatal(err)
		}
		path.stall(true)
		a.append(1, 10)
		got := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() { got <- a.r.WaitSynced(ctx, 2, nil) }()
		still(t, got)
		path.cut()
		<-pc.Done()
		var short *replicator.NotSyncedError
		if err := <-got; !errors.As(err, &short) || short.Connected != 1 || short.Want != 2 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with one of two peers: %v", err)
		}
		// Two sessions with one member are one peer.
		connect(a, b)
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := a.r.WaitSynced(ctx, 2, nil); !errors.As(err, &short) || short.Connected != 1 {
			t.Errorf("with two sessions of one peer: %v", err)
		}
	})
}

// What else must hold, holds for what is in step: if something is written or a
// peer goes while it is waited for, everything is looked at again.
func TestWaitSyncedWithAnotherCondition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		_, _, path := connect(a, b)
		asked := 0
		err := a.r.WaitSynced(t.Context(), 1, func(context.Context) error {
			switch asked++; asked {
			case 1:
				a.append(1, 10)
			case 2: // the first byte of something new comes from B
				cut := false
				path.in.set(func() {
					path.in.tamper = func(m replication.Message) []replication.Message {
						if push, ok := m.(*replication.WalPush); ok && !cut {
							cut = true
							half := *push
							half.Data = half.Data[:1]
							m = &half
						}
						return []replication.Message{m}
					}
				})
				b.append(1, 10)
				synctest.Wait()
			}
			return nil
		})
		if err != nil || asked != 3 || a.digest() != b.digest() {
			t.Errorf("in step after %d looks: %v", asked, err)
		}
		bad := errors.New("unreadable")
		if err := a.r.WaitSynced(t.Context(), 1, func(context.Context) error { return bad }); !errors.Is(err, bad) {
			t.Errorf("the other condition failed, and the wait gave %v", err)
		}
	})
}

// An instance that was met is known from then on, whatever it stated: its outbox
// shows, also after a restart.
func TestStatusOfAMemberThatStatedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		pa, pb, c := connect(a, b)
		if err := a.r.WaitSynced(t.Context(), 1, nil); err != nil {
			t.Fatal(err)
		}
		c.cut()
		<-pa.Done()
		<-pb.Done()
		a.append(3, 100)
		for range 2 {
			if st := a.statusOf(b); st.PendingOps != 3 || st.PendingBytes == 0 || st.InStep() || !st.LastAck.IsZero() || st.Durability != replicator.Strict {
				t.Errorf("away: %+v", st)
			}
			a.restart()
		}
		// It is back, and nothing was compared yet: what it stated last shows.
		back := play(a, "B", func(info *replicator.PeerInfo) { info.Key, info.Instance = b.key(), b.store.Info().Instance })
		synctest.Wait()
		if st := a.statusOf(b); !st.Connected || st.Settled() || st.PendingOps != 3 || st.PendingBytes == 0 {
			t.Errorf("before frontiers were compared: %+v", st)
		}
		back.settle()
		synctest.Wait()
		if st := a.statusOf(b); !st.Settled() || st.PendingOps != 3 {
			t.Errorf("afterwards: %+v", st)
		}
	})
}

// The last ack of a member is not forgotten when its session ends, nor when the
// next one begins.
func TestLastAckOutlivesTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		pa, pb, c := connect(a, b)
		a.append(1, 10)
		synctest.Wait()
		at := a.statusOf(b).LastAck
		if at.IsZero() {
			t.Fatal("no ack")
		}
		time.Sleep(time.Minute)
		c.cut()
		<-pa.Done()
		<-pb.Done()
		if st := a.statusOf(b); !st.LastAck.Equal(at) {
			t.Errorf("away: %s, not %s", st.LastAck, at)
		}
		connect(a, b)
		synctest.Wait()
		if st := a.statusOf(b); !st.LastAck.Equal(at) || !st.Connected {
			t.Errorf("back: %s, not %s", st.LastAck, at)
		}
	})
}

// restless is a store that seems to grow during the first looks at it.
type restless struct {
	*memlog.Store
	looks atomic.Uint64
}

func (s *restless) Head() uint64 { return s.Store.Head() + min(s.looks.Add(1), 7) }

func TestWaitSyncedLooksAgainWhenSomethingMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		store := &restless{Store: a.store.(*memlog.Store)}
		if err := a.r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.start(store)
		connect(a, b)
		synctest.Wait() // in step: from now on only the head moves
		at := time.Now()
		if err := a.r.WaitSynced(within(t), 1, nil); err != nil {
			t.Fatal(err)
		}
		// A look is one before and one after: they differ until the seventh.
		if n := store.looks.Load(); n != 8 || time.Since(at) > 0 {
			t.Errorf("it looked %d times at the head, in %s", n, time.Since(at))
		}
	})
}

// slowCursor is a store whose LoadCursor waits for a gate.
type slowCursor struct {
	*memlog.Store
	gate chan struct{}
}

func (s *slowCursor) LoadCursor(key replication.OriginKey, of replication.Instance) ([]replication.FrontierEntry, error) {
	<-s.gate
	return s.Store.LoadCursor(key, of)
}

// A session comes in step, and before it says so another WaitSynced asks it: the
// one that asked earlier hears of it all the same.
func TestWaitSyncedWhileAnotherAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		if err := a.r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		store := &slowCursor{a.store.(*memlog.Store), make(chan struct{})}
		hold := make(chan struct{})
		var held atomic.Bool
		a.o.Observe = func(_ *replicator.Peer, e replication.Effect) {
			if _, ok := e.(replication.RTT); ok && !held.Swap(true) {
				<-hold // the actor can do nothing else
			}
		}
		a.start(store)
		wait := func() chan error {
			done := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				done <- a.r.WaitSynced(ctx, 1, nil)
			}()
			synctest.Wait()
			return done
		}
		connect(a, b)
		first := wait()
		eventually(t, "hold", held.Load)
		close(store.gate) // now it would come in step
		synctest.Wait()
		second := wait()
		at := time.Now()
		close(hold)
		for i, done := range []chan error{second, first} {
			if err := <-done; err != nil || time.Since(at) > 0 {
				t.Errorf("wait %d ended with %v after %s", 2-i, err, time.Since(at))
			}
		}
	})
}

func TestSpacesOfPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		photos := replication.SpaceInfo{ID: replication.SpaceOf(network, "photos"), Name: "photos"}
		diary := replication.SpaceInfo{ID: replication.SpaceOf(network, "diary"), Name: "diary"}
		a := newNode(t, "A")
		b := newNode(t, "B", func(o *replicator.Options) {
			o.OnSpace = func(s replication.SpaceInfo) bool { return s.Name != "diary" }
		})
		connect(a, b)
		synctest.Wait()
		for _, s := range []replication.SpaceInfo{photos, diary} {
			a.r.AddSpace(s)
			if _, err := a.store.Append(t.Context(), replication.Batch{Space: s.ID, Ops: makeOps(1, 10)}); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "a shared space", func() bool { return len(b.store.Logs(photos.ID)) == 1 })
		time.Sleep(time.Minute)
		if len(b.store.Logs(diary.ID)) != 0 {
			t.Error("B took part in a space that it did not want")
		}
		// A knows that it waits in vain there, and what is written there later does
		// not change that.
		if _, err := a.store.Append(t.Context(), replication.Batch{Space: diary.ID, Ops: makeOps(1, 10)}); err != nil {
			t.Fatal(err)
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.r.WaitSynced(soon, 1, nil); err != nil {
			t.Error(err)
		}
		if st := a.statusOf(b); !st.InStep() || len(st.Spaces) != 2 {
			t.Errorf("status: %+v", st)
		}
		// It takes part after all.
		b.r.AddSpace(diary)
		eventually(t, "the space", func() bool { return len(b.store.Logs(diary.ID)) == 1 })
		// A space that appears with its first write needs no announcement.
		quick := replication.SpaceOf(network, "quick")
		if _, err := a.store.Append(t.Context(), replication.Batch{Space: quick, Ops: makeOps(1, 10)}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a new space", func() bool { return len(b.store.Logs(quick)) == 1 })
	})
}

// What a peer stated of one space is no loss in another.
func TestReconnectIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		for i := range 3 {
			s := replication.SpaceInfo{ID: replication.SpaceOf(network, string(rune('x'+i))), Name: string(rune('x' + i))}
			a.r.AddSpace(s)
			if _, err := a.store.Append(t.Context(), replication.Batch{Space: s.ID, Ops: makeOps(2, 10)}); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			pa, pb, c := connect(a, b)
			if err := a.r.WaitSynced(t.Context(), 1, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			c.cut()
			<-pa.Done()
			<-pb.Done()
		}
		if n := a.r.Counters().DataLosses + b.r.Counters().DataLosses; n != 0 {
			t.Errorf("%d losses are reported", n)
		}
	})
}

func TestPullOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		at := a.append(3, 10)
		ca, cb := newConns()
		info := b.info()
		info.PullOnly = true
		if _, err := a.r.Attach(info, ca); err != nil {
			t.Fatal(err)
		}
		pb := b.attach(a, cb)
		time.Sleep(time.Minute)
		if b.tip(at.First.Log) != 0 {
			t.Fatal("A pushed without being asked")
		}
		if err := pb.Pull(t.Context(), space, 0, 0); err != nil {
			t.Fatal(err)
		}
		eventually(t, "what was pulled", func() bool { return b.tip(at.First.Log) == 3 })
		ca.cut()
		if err := pb.Pull(t.Context(), space, 0, 0); err == nil {
			t.Error("a pull over a broken connection succeeded")
		}
	})
}
