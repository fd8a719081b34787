package replication

import (
	"sort"
	"strings"
	"time"
)

// Session is one peer's replication state machine (design 6): Step(now, event)
// gives effects. It does no I/O, reads no clock and starts no goroutine; the same
// events give the same effects. It is not safe for concurrent use: a driver owns
// it.
//
// Per space the session first compares frontiers with the peer. From then on the
// space is settled and a log of which the session keeps no state is one of which
// the peer holds our tip ("absent = equal"), so that memory follows the
// difference between the two sides and not the count of logs.
//
// G2 is a property of this type: a position is stated to the peer only if an event
// told that it is durable here (LocalFrontier, CommitDone, Advanced, RunRead,
// Received.Tips, MeshGraft), and Acked repeats only what the peer stated.
type Session struct {
	cfg SessionConfig
	now time.Time
	out []Effect

	started bool
	closed  bool // invariant: no effect is added once it is set

	spaces map[SpaceID]*spaceState
	order  []*spaceState // all of spaces, in the order in which they were added
	// strangers are spaces that the peer asked about and that are not known here.
	// At most MaxPeerSpaces.
	strangers map[SpaceID]stranger
	saving    []*spaceState // spaces with saves of this step
	// diffEntries is the sum of the entries of all spaces' diffs.
	diffEntries int
	rounds      uint64            // questions asked so far
	askQueue    fifo[*spaceState] // spaces that wait for their first question
	asking      int               // questions in their first try; at most maxAsking

	sender
	receiver
	liveness
	mesh   meshLink
	gate   gate
	timers timerHeap
}

// Limits of what a peer can make a session keep (G8).
const (
	// MaxPeerSpaces bounds the spaces that a peer may ask about and that are not
	// known here.
	MaxPeerSpaces = 4096
	// MaxFrontierEntries bounds the entries that one exchange of a frontier states.
	MaxFrontierEntries = 200_000
	// MaxDiffEntries is how many entries go into one part of a FrontierDiff, so
	// that it stays below 16 KiB; MaxAckEntries likewise for a WalAck.
	MaxDiffEntries = 120
	MaxAckEntries  = 32
	// MaxDiffNodes bounds the nodes of one part, MaxOpenBuckets the buckets of a
	// FrontierOpen, so that each stays below 16 KiB.
	MaxDiffNodes   = 16
	MaxOpenBuckets = 7500
	// MaxDetailBytes bounds the text of a refusal.
	MaxDetailBytes = 200
	// MaxQueuedPulls bounds the OutboxPulls that wait for their answer.
	MaxQueuedPulls = 64
	// MaxUncommittedBytes and MaxUncommitted bound received runs that wait for
	// their commit. What goes beyond is dropped; the peer sends it again.
	MaxUncommittedBytes = 32 << 20
	MaxUncommitted      = 16_384

	maxReceivedDiffEntries = 512    // entries of one received part
	maxMissingUnknown      = 65_536 // logs that only the peer has, kept by name
	maxRefused             = 4096   // refusals of ours, kept for Progress
	maxAsking              = 8
	maxLevelTries          = 4  // questions in a row that go down the levels; the next asks for the whole frontier
	maxReads               = 2  // ReadRun effects and read runs that wait for room
	maxRewinds             = 16 // without progress; then only the retry timer rewinds
	maxCovers              = 2  // pushes in a row of a run that shows a fork, per log
	maxPings               = 16
)

// Defaults of SessionConfig.
const (
	DefaultWindowBytes  = 8 << 20
	DefaultWholeEntries = 32
	DefaultRetryAfter   = 5 * time.Second
	DefaultRetryMax     = 60 * time.Second
	DefaultPingEvery    = 5 * time.Second
	DefaultStaleAfter   = 15 * time.Second
	DefaultCloseAfter   = 45 * time.Second
	DefaultControlWait  = 30 * time.Second
)

// NewSession makes a session that waits for Started.
func NewSession(cfg SessionConfig) *Session {
	setDefault(&cfg.WindowBytes, DefaultWindowBytes)
	setDefault(&cfg.ReadBytes, MaxRunBytes)
	setDefault(&cfg.WholeEntries, DefaultWholeEntries)
	setDefault(&cfg.RetryAfter, DefaultRetryAfter)
	setDefault(&cfg.RetryMax, max(DefaultRetryMax, cfg.RetryAfter))
	setDefault(&cfg.PingEvery, DefaultPingEvery)
	setDefault(&cfg.StaleAfter, DefaultStaleAfter)
	setDefault(&cfg.CloseAfter, DefaultCloseAfter)
	setDefault(&cfg.ControlWait, DefaultControlWait)
	s := &Session{
		cfg:       cfg,
		spaces:    map[SpaceID]*spaceState{},
		strangers: map[SpaceID]stranger{},
	}
	s.receiver.init(cfg.Resume)
	return s
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Step advances the session. The result is valid until the next call; it is
// empty once the session is closed.
func (s *Session) Step(now time.Time, ev Event) []Effect {
	s.out = s.out[:0]
	if s.closed {
		return nil
	}
	s.now = now
	if stop, ok := ev.(Stop); ok {
		s.close(stop.Code, stop.Detail)
		return s.out
	}
	if start, ok := ev.(Started); ok && !s.started {
		s.start(start)
	}
	if !s.started {
		return nil
	}
	s.handle(ev)
	if !s.closed {
		s.checkGate()
		s.checkMesh()
		s.pump()
		s.flushSaves()
		s.flushAcks(false)
	}
	return s.out
}

func (s *Session) handle(ev Event) {
	switch ev := ev.(type) {
	case SpaceAdded:
		s.addSpace(ev.Space)
	case SpaceRefused:
		s.refuseSpace(ev.Space)
	case LocalFrontier:
		s.localFrontier(ev)
	case Advanced:
		s.advanced(ev)
	case Received:
		s.heard()
		s.receive(ev)
	case RunRead:
		s.runRead(ev)
	case CommitDone:
		s.commitDone(ev)
	case Pull:
		s.pull(ev)
	case Probe:
		s.ping()
	case TrustApplied:
		if s.gate.shut && s.gate.told {
			s.openGate()
		}
	case ForkKnown:
		if s.shares(ev.Space) {
			s.send(&ForkProofMsg{Space: ev.Space, Proof: ev.Proof})
		}
	case MeshPrune:
		s.send(&Prune{Logs: []LogID{ev.Log}})
	case MeshGraft:
		s.send(&Graft{Log: ev.Log, From: ev.From})
	case MeshDefault:
		s.meshDefault(ev.Lazy)
	case MeshHold:
		s.mesh.hold = ev.Hold
	case MeshExchange:
		s.exchange()
	case Tick:
		s.tick()
	}
}

func (s *Session) start(ev Started) {
	s.started = true
	s.startLiveness()
	s.ackTimer.fire = func() { s.flushAcks(true) }
	s.startMesh()
	s.startGate()
	s.announcePartial()
	for _, info := range ev.Spaces {
		s.addSpace(info)
	}
}

func (s *Session) receive(ev Received) {
	switch m := ev.Msg.(type) {
	case *FrontierDigest:
		if m.Reply {
			s.answered(m)
		} else {
			s.asked(m)
		}
	case *FrontierDiff:
		s.diffPart(m)
	case *FrontierOpen:
		s.openAsked(m)
	case *WalPush:
		s.walPush(m, ev.Held)
	case *WalAck:
		s.walAck(m)
	case *OutboxPull:
		s.outboxPull(m)
	case *Ping:
		s.send(&Pong{Nonce: m.Nonce})
	case *Pong:
		s.pong(m)
	case *ForkProofMsg:
		if s.shares(m.Space) {
			s.emit(ForkSeen{Space: m.Space, Proof: m.Proof})
		}
	case *Bye:
		s.closed = true
		s.out = append(s.out, CloseSession{Code: m.Code, Detail: m.Detail, FromPeer: true})
	case *Announce:
		s.announced(m, ev.Tips)
	case *Prune:
		s.pruned(m)
	case *Graft:
		s.grafted(m)
	case *Control, *Receipt:
		// Of trust (design 9.1, 6.8): understood, of no effect here.
	}
}

// Deadline is when the session wants a Tick; zero: never.
func (s *Session) Deadline() time.Time {
	if s.closed || len(s.timers) == 0 {
		return time.Time{}
	}
	return s.timers[0].at
}

// Acked tells whether the peer stated that it durably holds log up to seq.
//
// The caller must hold seq of that log durably and must have delivered every
// Advanced event up to it first: a log without a difference is not kept here, so
// that for it the answer is true for any seq. It is false until the space is
// settled.
func (s *Session) Acked(space SpaceID, log LogID, seq uint64) bool {
	sp := s.spaces[space]
	if sp == nil || !sp.settled {
		return false
	}
	l := sp.logs[log]
	return l == nil || seq <= l.acked.Seq
}

// Progress tells where replication of each space stands, spaces in the order in
// which they became known, logs by id; a space in which the peer does not take
// part, or that it may not have, is left out. A log that is paused because it
// forked, was cut or is not allowed is in Paused only; other paused logs are in
// PendingLogs, or in MissingOps, too.
func (s *Session) Progress() []Progress {
	out := make([]Progress, 0, len(s.order))
	for _, sp := range s.order {
		if !sp.declined {
			out = append(out, sp.progress())
		}
	}
	return out
}

func (sp *spaceState) progress() Progress {
	p := Progress{Space: sp.info.ID, Settled: sp.settled, MissingOps: sp.missingOps + sp.missingMore}
	for _, l := range sp.logs {
		if l.paused != CodeOK {
			p.Paused = append(p.Paused, l.pausedEffect())
		}
		if !l.pending() {
			continue
		}
		p.PendingLogs = append(p.PendingLogs, LogProgress{Log: l.id, Acked: higher(l.acked, l.base), Tip: l.tip})
	}
	for _, r := range sp.refused {
		p.Paused = append(p.Paused, r)
	}
	sort.Slice(p.PendingLogs, func(i, j int) bool { return p.PendingLogs[i].Log.Compare(p.PendingLogs[j].Log) < 0 })
	sort.Slice(p.Paused, func(i, j int) bool {
		if c := p.Paused[i].Log.Compare(p.Paused[j].Log); c != 0 {
			return c < 0
		}
		return !p.Paused[i].Local && p.Paused[j].Local
	})
	return p
}

// pending tells whether the peer has not stated that it holds our tip, of a log
// that it may still take.
func (l *logState) pending() bool {
	done := l.acked == l.tip || l.base.Seq >= l.tip.Seq && !l.covering()
	return !done && !countsAsSynced(l.paused)
}

// InStep tells whether all spaces are settled and nothing is pending or missing:
// what Progress says, at little cost.
func (s *Session) InStep() bool {
	for _, sp := range s.order {
		if sp.declined {
			continue
		}
		if !sp.settled || sp.missingOps+sp.missingMore > 0 {
			return false
		}
		for _, l := range sp.logs {
			if l.pending() {
				return false
			}
		}
	}
	return true
}

// EachSpace tells the sums of Progress, space by space: settled as there, the
// operations that are pending and those that are missing.
func (s *Session) EachSpace(tell func(space SpaceID, settled bool, pending, missing uint64)) {
	for _, sp := range s.order {
		if sp.declined {
			continue
		}
		pending := uint64(0)
		for _, l := range sp.logs {
			if at := higher(l.acked, l.base); l.pending() && at.Seq < l.tip.Seq {
				pending += l.tip.Seq - at.Seq
			}
		}
		tell(sp.info.ID, sp.settled, pending, sp.missingOps+sp.missingMore)
	}
}

// Partial is what to pass to the next session of the same peer instance, or nil.
func (s *Session) Partial() *Partial {
	if s.partial == nil || len(s.partial.Data) == 0 {
		return nil
	}
	return s.partial
}

// emit adds an effect, unless the session is closed.
func (s *Session) emit(e Effect) {
	if !s.closed {
		s.out = append(s.out, e)
	}
}

func (s *Session) send(m Message) {
	if !s.closed {
		s.sends++
		s.out = append(s.out, Send{Msg: m})
	}
}

// close ends the session in good order: what is durable here is still acked.
func (s *Session) close(code Code, detail string) {
	if s.closed {
		return
	}
	s.flushSaves()
	s.flushAcks(true)
	s.send(&Bye{Code: code, Detail: cutDetail(detail)})
	s.emit(CloseSession{Code: code, Detail: detail})
	s.closed = true
}

// violation ends the session because the peer broke the protocol.
func (s *Session) violation(detail string) { s.close(CodeProtocol, detail) }

// cutDetail bounds a text that goes on the wire, where it must be UTF-8.
func cutDetail(d string) string {
	return strings.ToValidUTF8(d[:min(len(d), MaxDetailBytes)], "")
}

func higher(a, b Position) Position {
	if b.Seq > a.Seq {
		return b
	}
	return a
}
