package replication

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// meshScript drives a mesh with sessions 1, 2, 3... that have caught up.
type meshScript struct {
	t   *testing.T
	now time.Time
	m   *Mesh
}

func newMeshScript(t *testing.T, cfg MeshConfig, sessions int) *meshScript {
	s := &meshScript{t: t, now: time.Unix(0, 0), m: NewMesh(cfg)}
	s.m.AddSpace(s.now, meshSpace)
	for id := uint64(1); id <= uint64(sessions); id++ {
		s.m.Attach(s.now, id, nil)
		s.m.CaughtUp(s.now, id)
	}
	return s
}

func meshLogID(i int) LogID { return LogID{1, byte(i), byte(i >> 8)} }

var logA, meshSpace = meshLogID(0), SpaceID{1}

// want compares what the mesh does, as words: "2 prune, 3 graft".
func (s *meshScript) want(do []MeshAction, want string) {
	s.t.Helper()
	var got []string
	for _, a := range do {
		what := ""
		switch ev := a.Event.(type) {
		case MeshPrune:
			what = "prune"
		case MeshGraft:
			what = "graft"
		case MeshDefault:
			what = map[bool]string{true: "lazy", false: "eager"}[ev.Lazy]
		case MeshHold:
			what = map[bool]string{true: "hold", false: "let go"}[ev.Hold]
		case MeshExchange:
			what = "exchange"
		}
		got = append(got, fmt.Sprint(a.Session, " ", what))
	}
	if g := strings.Join(got, ", "); g != want {
		s.t.Errorf("got %q, want %q", g, want)
	}
	checkMesh(s.t, s.m)
}

// after lets time pass, with a Tick at every deadline, and collects what is done.
func (s *meshScript) after(d time.Duration) (do []MeshAction) {
	for end := s.now.Add(d); ; {
		at := s.m.Deadline()
		if at.IsZero() || at.After(end) {
			s.now = end
			return do
		}
		s.now = at
		do = append(do, s.m.Tick(s.now)...)
		checkMesh(s.t, s.m)
	}
}

func (s *meshScript) advanced(seq, id uint64) []MeshAction {
	return s.m.Advanced(s.now, meshSpace, logA, seq, id)
}
func (s *meshScript) duplicate(id uint64) []MeshAction { return s.m.Duplicate(s.now, logA, id) }
func (s *meshScript) ahead(id, seq, held uint64) []MeshAction {
	return s.m.Ahead(s.now, logA, id, seq, held)
}

// checkMesh checks what must be true of a mesh between two calls.
func checkMesh(t testing.TB, m *Mesh) {
	t.Helper()
	if len(m.logs) > maxMeshLogs || m.recent.Len() != len(m.logs) || len(m.order) != len(m.peers) {
		t.Fatalf("%d logs, %d in order; %d sessions, %d in order", len(m.logs), m.recent.Len(), len(m.peers), len(m.order))
	}
	aheads := map[uint64]int{}
	for _, l := range m.logs {
		if l.source != 0 {
			if k := l.link(l.source); m.peers[l.source] == nil || k != nil && k.pruned {
				t.Fatal("the source of a log has ended, or is pruned")
			}
		}
		if l.source == 0 && len(l.links) == 0 && !l.own {
			t.Fatal("a log is kept of which nothing is known")
		}
		if len(l.links) > len(m.peers) {
			t.Fatalf("%d links with %d sessions", len(l.links), len(m.peers))
		}
		ahead := false
		for _, k := range l.links {
			if m.peers[k.id] == nil {
				t.Fatal("a session is remembered that has ended")
			}
			if k.ahead > 0 {
				ahead = true
				aheads[k.id]++
			}
		}
		if ahead != (l.timer.place > 0) {
			t.Fatalf("somebody is ahead: %v, the timer is set: %v", ahead, l.timer.place > 0)
		}
	}
	for id, p := range m.peers {
		if len(p.owes) > maxOwed || (p.owes != nil || p.owesMore) && (p.lazy || p.caughtUp) {
			t.Fatalf("session %d is to bring %d logs; lazy %v, caught up %v", id, len(p.owes), p.lazy, p.caughtUp)
		}
		if p.ahead != aheads[id] || p.ahead > maxAhead {
			t.Fatalf("session %d is ahead in %d logs, counted %d", id, aheads[id], p.ahead)
		}
	}
	for i, tm := range m.timers {
		if tm.place != i+1 {
			t.Fatal("a timer is not where it thinks that it is")
		}
	}
}

// TestMeshPrunes: who repeats what another brings is pruned, once, and not who is the
// only one, brings it, or was asked for it.
func TestMeshPrunes(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 3)
	s.want(s.duplicate(2), "") // nobody is known to bring it
	s.want(s.advanced(1, 1), "")
	s.want(s.duplicate(1), "") // its own repeat
	s.want(s.duplicate(2), "2 prune")
	s.want(s.duplicate(2), "") // under way before it heard of it
	s.want(s.advanced(2, 2), "")
	s.want(s.duplicate(1), "") // 2 was quicker with what was under way, and will not go on
	s.want(s.duplicate(3), "3 prune")

	// It pushes on: it knows no Prune, or it was lost. It hears it ever more rarely.
	said := 0
	for range 600 {
		s.after(time.Second)
		said += len(s.duplicate(2))
	}
	if said < 5 || said > 16 {
		t.Errorf("a session that pushes on hears of it %d times in ten minutes", said)
	}
}

// TestMeshOfOwnLogs: nobody pushes to this node what it writes itself.
func TestMeshOfOwnLogs(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 3)
	s.want(s.advanced(1, 0), "")
	s.want(s.duplicate(2), "2 prune")
	s.want(s.duplicate(3), "3 prune")
	s.want(s.m.Detach(s.now, 2), "")
}

// TestMeshGrafts: a session that is ahead is asked after a second without progress, the
// next one if that brings nothing, and who was asked is not pruned for it.
func TestMeshGrafts(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 4)
	s.m.RTT(3, 300*time.Millisecond)
	s.advanced(1, 1)
	s.duplicate(2)
	s.after(time.Hour)
	s.want(s.ahead(2, 2, 1), "")
	s.want(s.ahead(3, 2, 1), "")
	s.want(s.after(999*time.Millisecond), "")
	s.want(s.after(time.Millisecond), "2 graft")
	s.want(s.after(900*time.Millisecond), "")
	s.want(s.after(400*time.Millisecond), "3 graft")
	s.want(s.advanced(2, 3), "")
	s.want(s.duplicate(3), "")
	s.want(s.duplicate(1), "1 prune")
	s.want(s.after(time.Hour), "")
}

// TestMeshWaitsForProgress: a log that arrives, be it slowly, is not asked for twice;
// but bytes that never become a commit are no progress for long.
func TestMeshWaitsForProgress(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 2)
	s.advanced(1, 1)
	s.ahead(2, 9, 1)
	for seq := uint64(2); seq < 9; seq++ {
		s.want(s.after(900*time.Millisecond), "")
		s.want(s.advanced(seq, 1), "")
	}
	began := s.now
	var do []MeshAction
	for len(do) == 0 && s.now.Sub(began) < time.Hour {
		s.m.Arriving(s.now, 1, logA)
		do = s.after(500 * time.Millisecond)
	}
	s.want(do, "2 graft")
	if took := s.now.Sub(began); took < maxArriving || took > maxArriving+2*time.Second {
		t.Errorf("a run that never ends was waited for %s", took)
	}
}

// TestMeshLosesItsSource: when the session ends that brings a log, another is asked at
// once: one that is ahead, or else one that was pruned.
func TestMeshLosesItsSource(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 4)
	s.advanced(1, 1)
	s.duplicate(2)
	s.duplicate(3)
	s.ahead(3, 2, 1)
	s.want(s.m.Detach(s.now, 1), "3 graft, 2 graft")
	s.advanced(2, 3)
	s.want(s.duplicate(2), "2 prune")
	s.want(s.m.Detach(s.now, 3), "2 graft")
	s.advanced(3, 2)
	s.want(s.m.Detach(s.now, 2), "") // nobody is left who had it
	s.want(s.m.Detach(s.now, 4), "")
	if len(s.m.logs) > 0 || s.m.Deadline() != s.m.exchange.at {
		t.Error("something is kept without sessions")
	}
}

// TestMeshOfWhatIsRefused: who brings what cannot be taken is not the source.
func TestMeshOfWhatIsRefused(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 2)
	s.advanced(1, 1)
	s.duplicate(2)
	s.want(s.m.Refused(s.now, logA, 1), "2 graft")
	s.advanced(2, 2)
	s.want(s.m.Refused(s.now, logA, 2), "")
	if len(s.m.logs) > 0 {
		t.Error("the log is kept")
	}
}

// TestMeshOfALiar: one that says that it is ahead and brings nothing is asked a few
// times, ever more rarely, and then no more until it says so again.
func TestMeshOfALiar(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 3)
	s.advanced(1, 1)
	s.ahead(2, 1<<60, 1)
	s.want(s.after(time.Hour), "2 graft, 2 graft, 2 graft, 2 graft, 2 graft")
	s.want(s.advanced(2, 3), "")
}

// TestMeshDegree: of many sessions a few are eager, of all with the same probability;
// when one of these ends another takes its place.
func TestMeshDegree(t *testing.T) {
	const sessions, rounds = 20, 400
	r := rand.New(rand.NewPCG(1, 2))
	eager := map[uint64]int{}
	for range rounds {
		s := newMeshScript(t, MeshConfig{Rand: r.Int64N}, 0)
		lazy := map[uint64]bool{}
		take := func(do []MeshAction) {
			for _, a := range do {
				if ev, ok := a.Event.(MeshDefault); ok {
					lazy[a.Session] = ev.Lazy
				}
			}
		}
		for id := uint64(1); id <= sessions; id++ {
			start, do := s.m.Attach(s.now, id, nil)
			lazy[id] = start
			take(do)
			if !lazy[id] {
				take(s.m.CaughtUp(s.now, id))
			}
			n := 0
			for id := range lazy {
				if !lazy[id] {
					n++
				}
			}
			if want := map[bool]int{true: int(id), false: DefaultMeshDegree}[id <= DefaultMeshFew]; n != want {
				t.Fatalf("of %d sessions %d are eager, not %d", id, n, want)
			}
		}
		for id := range lazy {
			if !lazy[id] {
				eager[id]++
			}
		}
		for _, p := range s.m.eager() {
			take(s.m.Detach(s.now, p.id))
			checkMesh(t, s.m)
			break
		}
		if n := len(s.m.eager()); n != DefaultMeshDegree {
			t.Fatalf("%d are eager after one has ended", n)
		}
	}
	for id := uint64(1); id <= sessions; id++ {
		if want := rounds * DefaultMeshDegree / sessions; eager[id] < want*6/10 || eager[id] > want*14/10 {
			t.Errorf("session %d was eager %d times, not about %d", id, eager[id], want)
		}
	}
}

// TestMeshOneAtATime: of sessions that begin together one brings what it has, then the
// next; one that brings nothing for a second is not waited for.
func TestMeshOneAtATime(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 0)
	for id := uint64(1); id <= 4; id++ {
		lazy, do := s.m.Attach(s.now, id, nil)
		if s.want(do, ""); lazy != (id > 1) {
			t.Fatalf("session %d begins as lazy: %v", id, lazy)
		}
	}
	for range 20 {
		s.want(s.after(900*time.Millisecond), "")
		s.m.Arriving(s.now, 1, logA)
	}
	// What the others announce of other logs can wait, too.
	s.want(s.m.Ahead(s.now, meshLogID(5), 2, 3, 0), "")
	s.want(s.after(900*time.Millisecond), "")
	s.m.Arriving(s.now, 1, logA)
	s.want(s.after(900*time.Millisecond), "")
	s.want(s.m.CaughtUp(s.now, 1), "2 eager")
	s.want(s.m.CaughtUp(s.now, 2), "3 eager")
	s.want(s.after(time.Second), "4 eager") // 3 says nothing
	s.want(s.after(time.Second), "2 graft") // neither does 4
	s.want(s.m.Detach(s.now, 4), "")
}

// TestMeshIsNotHeldUpByABacklog: whoever brings a backlog without end does not keep away
// what others have.
func TestMeshIsNotHeldUpByABacklog(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 0)
	s.m.Attach(s.now, 1, nil)
	s.m.Attach(s.now, 2, nil)
	s.want(s.m.Ahead(s.now, logA, 2, 3, 0), "")
	var do []MeshAction
	for range 80 {
		do = append(do, s.after(500*time.Millisecond)...)
		s.m.Arriving(s.now, 1, meshLogID(5))
		if len(do) > 0 {
			break
		}
	}
	s.want(do, "2 graft")
	if waited := s.now.Sub(time.Unix(0, 0)); waited > maxArriving+GraftAfter {
		t.Errorf("after %s", waited)
	}
}

// TestMeshWaitsForWhatIsOwed: of a log that is no part of a backlog, an announcement is
// followed after the usual wait, however long the backlog is. Of one that is, or may be,
// it waits.
func TestMeshWaitsForWhatIsOwed(t *testing.T) {
	many := make([]Dot, maxOwed+1)
	for i := range many {
		many[i] = Dot{Log: LogID{3, byte(i), byte(i >> 8), byte(i >> 16)}, Seq: 1}
	}
	for what, c := range map[string]struct {
		owes  []Dot
		more  bool
		waits bool
	}{
		"nothing":             {nil, false, false},
		"another log":         {[]Dot{{meshLogID(5), 9}}, false, false},
		"less of it":          {[]Dot{{logA, 2}}, false, false},
		"more of it":          {[]Dot{{logA, 3}}, false, true},
		"others":              {[]Dot{{meshLogID(5), 9}}, true, true},
		"more than are noted": {many, false, true},
	} {
		t.Run(what, func(t *testing.T) {
			s := newMeshScript(t, MeshConfig{}, 0)
			s.m.Attach(s.now, 1, nil)
			s.m.Attach(s.now, 2, nil)
			s.want(s.m.Owes(s.now, 1, c.owes, c.more), "")
			s.want(s.m.Owes(s.now, 2, []Dot{{logA, 9}}, true), "") // which is lazy
			s.want(s.m.Ahead(s.now, logA, 2, 3, 2), "")
			var do []MeshAction
			for range 7 { // less than two waits
				s.m.Arriving(s.now, 1, meshLogID(5))
				do = append(do, s.after(GraftAfter/4)...)
			}
			s.want(do, map[bool]string{true: "", false: "2 graft"}[c.waits])
			s.want(s.m.CaughtUp(s.now, 1), "2 eager")
		})
	}
}

// TestMeshTakesABacklog: a lazy session that is ahead in very many logs is asked for all
// of it, and then to announce again. One that brings nothing is not waited for.
func TestMeshTakesABacklog(t *testing.T) {
	s := newMeshScript(t, MeshConfig{Degree: 1, Few: 1}, 3)
	tell := func(id uint64) (do []MeshAction) {
		for i := range 3 * maxAhead {
			do = append(do, s.m.Ahead(s.now, meshLogID(100+i), id, 1, 0)...)
		}
		return do
	}
	s.want(tell(2), "2 eager")
	s.want(s.m.CaughtUp(s.now, 2), "2 lazy")
	s.want(tell(2), "") // too soon: logs one by one
	s.want(tell(3), "3 eager")
	for i := range 3 * maxAhead {
		s.m.Advanced(s.now, meshSpace, meshLogID(100+i), 1, 2)
	}
	s.want(s.after(time.Second), "3 lazy")
	s.want(tell(3), "")
}

// TestMeshHolds: what is written here is pushed to two at least.
func TestMeshHolds(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 3)
	s.want(s.m.PeerLazy(s.now, 1, true), "")
	s.want(s.m.PeerLazy(s.now, 2, true), "1 hold")
	s.want(s.m.PeerLazy(s.now, 3, true), "2 hold")
	s.want(s.m.PeerLazy(s.now, 2, false), "2 let go")
	s.want(s.m.Detach(s.now, 2), "3 hold")
}

// TestMeshCountsWhoMayHaveASpace: who may not have a space is no way for its logs: it
// does not count among those to whom a write goes, and is not told to bring a log less.
func TestMeshCountsWhoMayHaveASpace(t *testing.T) {
	other := SpaceID{2}
	without := func(space SpaceID) bool { return space != meshSpace }
	s := newMeshScript(t, MeshConfig{}, 0)
	s.m.Attach(s.now, 1, without)
	s.m.Attach(s.now, 2, without)
	s.m.Attach(s.now, 3, nil)
	s.m.Attach(s.now, 4, nil)
	s.m.Attach(s.now, 5, nil)
	s.want(s.m.PeerLazy(s.now, 4, true), "")
	s.want(s.m.PeerLazy(s.now, 5, true), "4 hold") // 1 and 2 are no use
	s.want(s.m.PeerLazy(s.now, 3, true), "3 hold")
	s.want(s.m.PeerLazy(s.now, 1, true), "")
	s.want(s.m.AddSpace(s.now, other), "1 hold") // in which 2 is one way
	s.want(s.m.AddSpace(s.now, other), "")
	s.want(s.m.Detach(s.now, 3), "5 hold")

	s = newMeshScript(t, MeshConfig{Degree: 4, Few: 4}, 0)
	for id := uint64(1); id <= 5; id++ {
		carries := without
		if id%2 == 1 {
			carries = nil
		}
		s.m.Attach(s.now, id, carries)
		s.m.CaughtUp(s.now, id)
	}
	s.want(s.advanced(1, 1), "3 prune")
	s.want(s.m.Detach(s.now, 1), "3 graft, 5 eager")
}

// TestMeshExchanges: frontiers are compared again where little is said.
func TestMeshExchanges(t *testing.T) {
	s := newMeshScript(t, MeshConfig{Degree: 1, Few: 1, ExchangeEvery: time.Minute}, 3)
	s.m.PeerLazy(s.now, 1, true)
	s.want(s.after(2*time.Minute+time.Second), "1 exchange, 2 exchange, 3 exchange, 1 exchange")
}

// TestMeshKeepsTheRecent: what is kept is bounded, and of the logs in which something
// happened last.
func TestMeshKeepsTheRecent(t *testing.T) {
	s := newMeshScript(t, MeshConfig{}, 2)
	for i := range 3 * maxMeshLogs {
		s.m.Advanced(s.now, meshSpace, meshLogID(i), 1, 1)
		s.m.Advanced(s.now, meshSpace, logA, uint64(i+1), 1)
	}
	checkMesh(t, s.m)
	if s.m.logs[logA] == nil || s.m.logs[meshLogID(maxMeshLogs)] != nil {
		t.Error("the wrong logs are kept")
	}
	s.want(s.m.Duplicate(s.now, meshLogID(maxMeshLogs), 2), "")
	s.m.Forget(logA)
	checkMesh(t, s.m)
}

// TestMeshRandom: nothing that sessions say, in any order, breaks a mesh.
func TestMeshRandom(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := newMeshScript(t, MeshConfig{Degree: 1 + r.IntN(3), Few: 1 + r.IntN(5), Rand: r.Int64N}, 0)
		next := uint64(0)
		for range 500 {
			id, log := 1+r.Uint64N(next+1), meshLogID(r.IntN(4))
			switch r.IntN(13) {
			case 0:
				if len(s.m.peers) < 8 {
					next++
					s.m.Attach(s.now, next, nil)
				}
			case 1:
				if r.IntN(3) == 0 {
					s.m.Detach(s.now, id)
				}
			case 2, 3:
				s.m.Advanced(s.now, meshSpace, log, r.Uint64N(20), r.Uint64N(next+1))
			case 4, 5:
				s.m.Duplicate(s.now, log, id)
			case 6, 7:
				s.m.Ahead(s.now, log, id, r.Uint64N(20), r.Uint64N(20))
			case 8:
				s.m.Refused(s.now, log, id)
			case 11:
				s.m.Owes(s.now, id, []Dot{{log, r.Uint64N(20)}}, r.IntN(8) == 0)
			case 9:
				s.m.CaughtUp(s.now, id)
				s.m.PeerLazy(s.now, id, r.IntN(2) == 0)
			case 10:
				s.m.Arriving(s.now, id, log)
				s.m.RTT(id, time.Duration(r.IntN(1000))*time.Millisecond)
				if r.IntN(8) == 0 {
					s.m.Forget(log)
				}
			default:
				s.after(time.Duration(r.IntN(1500)) * time.Millisecond)
			}
			checkMesh(t, s.m)
		}
	}
}
