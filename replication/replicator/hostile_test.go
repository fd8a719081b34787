package replicator_test

import (
	"crypto/sha256"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
	"vixp2p/replication/replicator"
)

func sha(b []byte) [32]byte { return sha256.Sum256(b) }

// ackFor returns the ack of a log.
func (s *script) ackFor(log replication.LogID) replication.AckEntry {
	s.t.Helper()
	for {
		for _, e := range hear[*replication.WalAck](s).Entries {
			if e.Log == log {
				return e
			}
		}
	}
}

// A run that does not verify pauses its log; the session and all else go on.
func TestGarbageRunsPauseTheirLogOnly(t *testing.T) {
	garble := map[string]struct {
		change func(*replication.WalPush)
		code   replication.Code
	}{
		"signature": {func(m *replication.WalPush) {
			b, _, err := replication.ParseBlock(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			sig := append([]byte(nil), b.Sig...)
			sig[3] ^= 1
			m.Data = replication.AppendBlock(nil, b.HeaderRaw, sig, b.Body)
		}, replication.CodeBadRun},
		"body": {func(m *replication.WalPush) {
			m.Data = append([]byte(nil), m.Data...)
			m.Data[len(m.Data)-1] ^= 1
		}, replication.CodeBadRun},
		"unsigned": {func(m *replication.WalPush) {
			b, _, _ := replication.ParseBlock(m.Data)
			m.Data = replication.AppendBlock(nil, b.HeaderRaw, nil, b.Body)
			m.Total = uint64(len(m.Data))
		}, replication.CodeBadRun},
		"noise": {func(m *replication.WalPush) {
			m.Data = make([]byte, 4000)
			m.Total = 4000
		}, replication.CodeBadRun},
		"other log": {func(m *replication.WalPush) { m.Log[0] ^= 1 }, replication.CodeBadRun},
		"not from the start": {func(m *replication.WalPush) {
			o := newOrigin(77)
			m.Log = o.log
			o.push("first")
			*m = *o.push("second")
		}, replication.CodeGap},
	}
	for name, g := range garble {
		t.Run(name, func(t *testing.T) {
			a, honest := newNode(t, "A"), newNode(t, "B")
			connect(a, honest)
			bad := play(a, "evil")
			bad.settle()
			push := newOrigin(9).push("x")
			g.change(push)
			bad.say(push)
			if e := bad.ackFor(push.Log); e.Code != g.code || e.Pos.Seq != 0 {
				t.Errorf("the answer to the garbled run is %s at %d, not %s", e.Code, e.Pos.Seq, g.code)
			}
			// The same session still brings good runs.
			good := newOrigin(10)
			bad.say(good.push("y"))
			if e := bad.ackFor(good.log); e.Code != replication.CodeOK || e.Pos != good.pos {
				t.Errorf("the answer to a good run is %s at %d", e.Code, e.Pos.Seq)
			}
			honest.append(5, 10)
			arrives(t, a, honest)
			if honest.tip(good.log) != 1 || honest.tip(push.Log) != 0 {
				t.Error("the honest peer holds something else than the good run")
			}
			st, _ := bad.peer.Status(within(t))
			if g.code != replication.CodeGap && (len(st.Paused) != 1 || st.Paused[0].Log != push.Log || !st.Paused[0].Local) {
				t.Errorf("paused: %+v", st.Paused)
			}
		})
	}
}

// Answers keep the order of the runs of a log though bad ones are known at once.
func TestPipelinedRunsOfAnUnknownLog(t *testing.T) {
	a := newNode(t, "A")
	s := play(a, "S")
	s.settle()
	o := newOrigin(9)
	for i := range 50 {
		push := o.push("x")
		if i == 25 {
			bad := *push
			bad.Data = append([]byte(nil), push.Data...)
			bad.Data[len(bad.Data)-1] ^= 1
			bad.End.Hash[0] ^= 1 // or the session would see a repetition in the good one
			s.say(&bad)
		}
		s.say(push)
	}
	eventually(t, "commit of all", func() bool { return a.tip(o.log) == 50 })
	// The commit counts where it is answered, which is after it can be read.
	eventually(t, "count of all", func() bool {
		c := a.r.Counters()
		return c.RunsIn >= 50 && c.OpsIn == 50
	})
}

// Runs that follow one which waits for its commit are verified meanwhile, and a
// refusal does not overtake the answer that is due before it.
func TestAnswersKeepTheOrderOfTheRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		gate := a.gated(2)
		s := play(a, "S")
		s.settle()
		o := newOrigin(9)
		first, second, bad := o.push("x"), o.push("y"), o.push("z")
		bad.Data[len(bad.Data)-1] ^= 1
		s.say(first, second, bad)
		var acks []replication.AckEntry
		go func() {
			for len(acks) == 0 || acks[len(acks)-1].Code == replication.CodeOK {
				acks = append(acks, s.ackFor(o.log))
			}
		}()
		time.Sleep(time.Minute / 2)
		synctest.Wait()
		if len(acks) != 0 {
			t.Fatalf("acks before any commit: %+v", acks)
		}
		gate.gate <- struct{}{}
		synctest.Wait()
		gate.gate <- struct{}{}
		synctest.Wait()
		if len(acks) != 2 && len(acks) != 3 || acks[0].Code != replication.CodeOK || acks[len(acks)-1].Code != replication.CodeBadRun {
			t.Errorf("acks: %+v", acks)
		}
		if a.tip(o.log) != 2 {
			t.Errorf("%d ops are here, not 2", a.tip(o.log))
		}
	})
}

// The memory of a run is held until it is committed, that of pieces until their
// run is whole or given up.
func TestMemoryIsHeldAsLongAsItIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		gate := a.gated(2)
		s := play(a, "S")
		s.settle()
		holds := func(what string, n int) {
			t.Helper()
			synctest.Wait()
			if got := s.account.InUse(); got != n {
				t.Errorf("%s: %d bytes are held, not %d", what, got, n)
			}
		}
		piece := func(m *replication.WalPush, from, to int) *replication.WalPush {
			p := *m
			p.Offset, p.Data = uint64(from), m.Data[from:to]
			return &p
		}
		o, other := newOrigin(9), newOrigin(10)
		m := o.push("some payload")
		n := len(m.Data)
		s.say(piece(m, 0, 50))
		holds("a first piece", 50)
		s.say(piece(m, 0, 50))
		holds("the same again", 50)
		s.say(piece(m, 60, n))
		holds("a piece after a hole", 50)
		s.say(piece(m, 50, n))
		holds("a whole run that waits for its commit", n)
		gate.gate <- struct{}{}
		holds("a committed run", 0)
		s.say(m)
		gate.gate <- struct{}{}
		holds("a duplicate", 0)
		s.say(piece(o.push("a second one"), 0, 40))
		holds("a piece", 40)
		next := other.push("of another log")
		s.say(piece(next, 0, 30))
		holds("a piece of another run", 30)
		strange := *next
		strange.Space[0] ^= 1
		s.say(&strange)
		holds("a run of a space that is not here", 30)
		s.c.cut()
		<-s.peer.Done()
		holds("a session that ended", 0)
	})
}

// What waits for a peer that reads nothing is bounded.
func TestSlowReaderHoldsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, slow := newNode(t, "A"), newNode(t, "S")
		p, _, path := connect(a, slow)
		synctest.Wait()
		path.stall(true)
		for range 60 {
			a.append(1000, 250)
		}
		time.Sleep(time.Second)
		if st, ok := p.Status(t.Context()); !ok || st.QueuedBytes < 1<<20 || st.QueuedBytes > 2<<20+2*run {
			t.Errorf("%d of %d bytes are queued", st.QueuedBytes, st.PendingBytes)
		}
	})
}

// A peer whose disk takes nothing holds up its own session alone: it is sent a window,
// and that again more and more seldom, it holds two at most and stays connected, and the
// others have everything at once.
func TestSlowDiskHoldsUpItsOwnSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, slow := newNode(t, "A"), newNode(t, "B"), newNode(t, "S")
		disk := slow.gated(0)
		let := sync.OnceFunc(func() { close(disk.gate) })
		t.Cleanup(let)
		connect(a, b)
		ca, cs := newConns()
		ca.account, cs.account = a.r.Budget().Open(), slow.r.Budget().Open()
		p := a.attach(slow, ca)
		slow.attach(a, cs)
		synctest.Wait()
		start := time.Now()
		for range 60 {
			a.append(1000, 250)
		}
		arrives(t, a, b)
		if took := time.Since(start); took > time.Second {
			t.Errorf("the other peer had to wait for %s", took)
		}
		time.Sleep(time.Minute)
		st, ok := p.Status(t.Context())
		if held := cs.account.InUse(); !ok || !st.Connected || st.Stale || held == 0 || held > 2*replication.DefaultWindowBytes || st.QueuedBytes > 2<<20+2*run {
			t.Errorf("after a minute: %v, %d bytes wait for the slow disk, %d for the way there: %+v", ok, held, st.QueuedBytes, st)
		}
		let()
		arrives(t, a, slow)
	})
}

// A connection that can no longer be written may still say why.
func TestReasonIsReadAfterAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		s := play(a, "S")
		s.settle()
		synctest.Wait()
		s.c.stall(true)
		s.say(&replication.Bye{Code: replication.CodeBusy, Detail: "full"})
		s.c.in.set(func() { s.c.in.err = errCut })
		a.append(1, 10)
		time.Sleep(time.Second)
		s.c.stall(false)
		<-s.peer.Done()
		var end *replicator.EndError
		if !errors.As(s.peer.Err(), &end) || end.Code != replication.CodeBusy || !end.FromPeer {
			t.Errorf("the session ended with %v", s.peer.Err())
		}
		// Without a reason it does not wait for long.
		s = play(a, "T")
		s.settle()
		synctest.Wait()
		s.c.in.set(func() { s.c.in.err = errCut })
		start := time.Now()
		a.append(1, 10)
		<-s.peer.Done()
		if !errors.Is(s.peer.Err(), errCut) || time.Since(start) != 2*time.Second {
			t.Errorf("after %s it ended with %v", time.Since(start), s.peer.Err())
		}
	})
}

// lingering is a connection whose Read takes its time to return after Close.
type lingering struct {
	*conn
	returned atomic.Bool
}

func (c *lingering) Read() (replication.Message, func(), error) {
	m, release, err := c.conn.Read()
	if err != nil {
		time.Sleep(time.Second)
		c.returned.Store(true)
	}
	return m, release, err
}

func TestDoneMeansThatNothingRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		ca, _ := newConns()
		c := &lingering{conn: ca}
		p := a.attach(b, c)
		p.Close(replication.CodeDisconnect, "")
		<-p.Done()
		if !c.returned.Load() {
			t.Error("the reader still runs")
		}
	})
}

func TestSlowReaderIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, slow := newNode(t, "A"), newNode(t, "B"), newNode(t, "S")
		connect(a, b)
		p, _, ca := connect(a, slow)
		if err := a.r.WaitSynced(t.Context(), 1, nil); err != nil {
			t.Fatal(err)
		}
		ca.stall(true)
		start := time.Now()
		for range 30 {
			a.append(1000, 250)
		}
		<-p.Done()
		var end *replicator.EndError
		if !errors.As(p.Err(), &end) || end.Code != replication.CodeSlowReader {
			t.Fatalf("the session with the slow reader ended with %v", p.Err())
		}
		if took := time.Since(start); took < 30*time.Second || took > 32*time.Second {
			t.Errorf("it ended after %s", took)
		}
		arrives(t, a, b) // nobody else waits for it
	})
}

func TestPeerThatSaysNothingGoesStaleAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stale time.Duration
		start := time.Now()
		a := newNode(t, "A", func(o *replicator.Options) {
			o.Observe = func(_ *replicator.Peer, e replication.Effect) {
				if s, ok := e.(replication.StateChanged); ok && s.Stale {
					stale = time.Since(start)
				}
			}
		})
		s := play(a, "mute")
		pings := 0
		go func() {
			for {
				m, _, err := s.c.Read()
				if err != nil {
					return
				}
				if _, ok := m.(*replication.Ping); ok {
					pings++
				}
			}
		}()
		<-s.peer.Done()
		if took := time.Since(start); took != 45*time.Second || stale != 15*time.Second {
			t.Errorf("stale after %s, ended after %s", stale, took)
		}
		var end *replicator.EndError
		if !errors.As(s.peer.Err(), &end) || end.Code != replication.CodeStale {
			t.Errorf("it ended with %v", s.peer.Err())
		}
		synctest.Wait()
		if pings != 8 {
			t.Errorf("%d pings in 45 s, not 8", pings)
		}
	})
}

func TestIdleSessionsStayConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		pa, _, _ := connect(a, b)
		time.Sleep(10 * time.Minute)
		st, ok := pa.Status(t.Context())
		if !ok || !st.Connected || st.Stale || !st.InStep() {
			t.Errorf("after ten idle minutes: %v %+v", ok, st)
		}
		if time.Since(st.Heard) > 5*time.Second {
			t.Errorf("last heard %s ago", time.Since(st.Heard))
		}
	})
}

// slowLooks is a store that answers about one log only when it may.
type slowLooks struct {
	*memlog.Store
	log  replication.LogID
	gate chan struct{} // closed: it may
}

func (s *slowLooks) Log(id replication.LogID) (replication.LogInfo, bool) {
	if id == s.log {
		<-s.gate
	}
	return s.Store.Log(id)
}

// Proofs of forks hold their part of the budget until they were looked at, so that
// a flood of them waits in the transport and not in memory.
func TestForkProofsHoldTheirBudget(t *testing.T) {
	a := newNode(t, "A")
	o := newOrigin(9)
	store := &slowLooks{Store: a.store.(*memlog.Store), log: o.log, gate: make(chan struct{})}
	if err := a.r.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	a.start(store)
	look := sync.OnceFunc(func() { close(store.gate) })
	t.Cleanup(look)
	s := play(a, "S")
	proof := &replication.ForkProofMsg{Space: space, Proof: replication.ForkProof{
		Log: o.log, Origin: o.gen.Origin, A: make([]byte, 600<<10), B: make([]byte, 600<<10),
	}}
	const held, flood = 1200 << 10, 60
	go func() {
		for range flood {
			if s.c.Write(proof) != nil {
				return
			}
		}
	}()
	eventually(t, "a full account", func() bool { return s.account.InUse() > replicator.DefaultBudget/2-2*held })
	if n := s.account.InUse(); n%held != 0 || n > replicator.DefaultBudget/2+replication.MaxRunBytes {
		t.Errorf("%d proofs hold %d bytes", n/held, n)
	}
	look()
	// The last one is looked at before what follows it.
	push := o.push("x")
	s.say(push)
	if e := s.ackFor(o.log); e.Pos != push.End {
		t.Errorf("the push was answered with %+v", e)
	}
	eventually(t, "an empty account", func() bool { return s.account.InUse() == 0 })
}

// What a peer can cause with every message does not fill the log.
func TestWarningsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines strings.Builder
		a := newNode(t, "A")
		if err := a.r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, err := replicator.New(replicator.Options{Store: a.store, Spaces: known, Logger: slog.New(slog.NewTextHandler(&lines, nil))})
		if err != nil {
			t.Fatal(err)
		}
		a.r = r
		s := play(a, "S")
		warnings := func() int { return strings.Count(lines.String(), "level=WARN") }
		i := 0
		bad := func(n int) {
			for range n {
				i++
				s.say(&replication.WalPush{
					Space: space, Log: replication.LogID{byte(i), byte(i >> 8), 1}, End: replication.Position{Seq: 1, Hash: replication.Hash{1}},
					Total: 1, Data: []byte{1},
				})
			}
			synctest.Wait()
		}
		bad(25) // within what a peer may have checked at once
		if n := warnings(); n != 10 {
			t.Errorf("%d lines for 25 bad runs", n)
		}
		time.Sleep(10 * time.Second)
		bad(1)
		if n := warnings(); n != 11 || !strings.Contains(lines.String(), "left_out_before=15") {
			t.Errorf("%d lines later: %s", n, lines.String()[max(0, lines.Len()-300):])
		}
		bad(7)
		s.c.cut()
		<-s.peer.Done()
		if !strings.Contains(lines.String(), "count=7") {
			t.Errorf("at the end: %s", lines.String()[max(0, lines.Len()-300):])
		}
	})
}
