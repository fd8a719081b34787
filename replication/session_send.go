package replication

import (
	"errors"
	"time"
)

// sender is the half of a session that pushes what the peer lacks.
type sender struct {
	active fifo[*spaceState] // spaces with a queue, each once: round-robin
	ready  []*logState       // logs with a run that was read and waits for room; at most maxReads
	reads  int               // ReadRun effects without an answer
	// inFlight counts the bytes pushed and not acked: at most WindowBytes, or one
	// run.
	inFlight int
	// peerPartial is the run of which the peer holds the first bytes.
	peerPartial *partialRef
	pulls       fifo[*pullState] // answered in order; at most MaxQueuedPulls
}

// logState is one log in which the two sides differ, or of which something is
// under way. The outbox of the peer is the sum of these: a cursor each, and the
// store behind it (design 2).
type logState struct {
	id LogID
	sp *spaceState

	tip   Position // ours, durable
	acked Position // the peer stated it and it is on our branch: what Acked repeats
	base  Position // the peer stated it, perhaps of another branch: where a retry starts
	sent  Position // where the next push starts; pushed up to it, or stated by the peer
	// flights are pushes without an ack, ascending. Invariant, but for a flight
	// that shows a fork: base.Seq <= flights[0].from.Seq, each starts where the one
	// before ends, the last one ends at sent.
	flights []flight

	run       RunBytes // read and not yet pushed, if hasRun
	hasRun    bool
	reading   bool
	readAfter Position
	readCover bool
	queued    bool
	gone      bool // no longer in the space's logs

	cover  bool // sent turned out to be of another branch
	covers int  // runs pushed to show that; beyond maxCovers only now and then

	paused   Code // CodeOK: not paused
	detail   string
	local    bool
	probe    bool // paused, but one run may go out to see whether it still is
	rewound  bool // since the last progress, to rewoundTo
	rewindTo Position
	rewinds  int // since the last progress

	timer timer
	delay time.Duration // of the next retry

	// Of the mesh (session_mesh.go): the peer wants the log announced, and was told
	// of told, with so many messages sent up to then.
	lazy       bool
	announcing bool // in meshLink.announces
	told       Position
	toldSends  uint64
	unanswered int  // repeats of the announcement since the peer spoke of the log
	unsure     bool // the peer stated base in this session, perhaps of another branch
}

// flight is one run under way to the peer.
type flight struct {
	from, end Position
	bytes     int
	sends     uint64 // messages sent up to it
	cover     bool   // shows a fork; nothing follows it before its answer
}

type partialRef struct {
	space     SpaceID
	log       LogID
	from, end Position
	bytes     uint64
}

func (s *Session) addLog(sp *spaceState, id LogID, tip, acked, base Position) *logState {
	l := &logState{id: id, sp: sp, tip: tip, acked: acked, base: base, sent: base}
	l.delay = s.cfg.RetryAfter
	l.timer.fire = func() { s.retry(l) }
	l.lazy = s.lazy(sp, id)
	sp.logs[id] = l
	return l
}

// dropIfEqual forgets a log in which the sides are equal and nothing is under way.
func (s *Session) dropIfEqual(l *logState) {
	if l.acked != l.tip || l.paused != CodeOK {
		return
	}
	s.unflight(l, len(l.flights))
	s.stopTimer(&l.timer)
	l.hasRun, l.run, l.cover = false, RunBytes{}, false
	if !l.reading {
		l.gone = true
		delete(l.sp.logs, l.id)
	}
}

// unflight takes the first n flights off the window.
func (s *Session) unflight(l *logState, n int) {
	for _, f := range l.flights[:n] {
		s.inFlight -= f.bytes
	}
	l.flights = append(l.flights[:0], l.flights[n:]...)
}

// logAdvanced takes the growth of a log of a settled space. want is what the peer
// stated of it beyond our tip before, zero if it did not.
func (s *Session) logAdvanced(sp *spaceState, ev Advanced, want Position) {
	l := sp.logs[ev.Log]
	if l == nil {
		if ev.FromPeer || want == ev.Tip {
			return // the peer holds our tip
		}
		base := higher(ev.Prev, want)
		l = s.addLog(sp, ev.Log, ev.Tip, ev.Prev, base)
		s.holds(l, ev)
		s.enqueue(l)
		return
	}
	l.tip = higher(l.tip, ev.Tip)
	if ev.FromPeer {
		s.peerHolds(l, ev.Tip)
	} else if l.base == l.tip {
		s.peerHolds(l, l.tip) // the peer stated what we hold now
	}
	s.enqueue(l)
}

// sendable tells whether a run of l may be read for the peer.
func (l *logState) sendable() bool {
	switch {
	case !l.sp.settled, l.gone, l.reading, l.hasRun:
		return false
	case l.paused != CodeOK && (!l.probe || len(l.flights) > 0):
		return false
	case len(l.flights) > 0 && l.flights[0].cover:
		return false
	case l.lazy && l.paused == CodeOK && !l.covering():
		return l.toCheck()
	}
	return l.covering() || l.tip.Seq > l.sent.Seq
}

// covering tells that what the peer stated is not on our branch, so that the next
// push is the run that covers that place: it lets the peer build the proof.
func (l *logState) covering() bool {
	return l.cover || (l.sent.Seq == l.tip.Seq && l.sent.Hash != l.tip.Hash)
}

func (s *Session) enqueue(l *logState) {
	s.announceSoon(l)
	if l.queued || !l.sendable() {
		return
	}
	l.queued = true
	l.sp.queue.push(l)
	s.activate(l.sp)
}

func (s *Session) activate(sp *spaceState) {
	if !sp.active && sp.queue.len() > 0 {
		sp.active = true
		s.active.push(sp)
	}
}

// pump pushes what was read and reads more, while the window and the pulls allow.
func (s *Session) pump() {
	for {
		s.pushReady()
		if s.reads+len(s.ready) < maxReads && s.roomToRead() {
			if l := s.nextToRead(); l != nil {
				s.read(l)
				continue
			}
		}
		if !s.endPull() {
			return
		}
	}
}

// roomToRead: every read is assumed to give ReadBytes; one may always go.
func (s *Session) roomToRead() bool {
	return s.inFlight+s.reads == 0 || s.inFlight+(s.reads+1)*s.cfg.ReadBytes <= s.cfg.WindowBytes
}

// nextToRead takes the next log in turn: spaces by turns, in each its logs.
func (s *Session) nextToRead() *logState {
	for turns := s.active.len(); turns > 0; turns-- {
		sp := s.active.pop()
		sp.active = false
		if !s.mayPush(sp) {
			s.activate(sp)
			continue
		}
		for sp.queue.len() > 0 {
			l := sp.queue.pop()
			l.queued = false
			if l.sendable() {
				s.activate(sp)
				return l
			}
		}
	}
	return nil
}

func (s *Session) read(l *logState) {
	cover := l.covering()
	if cover && l.covers == maxCovers {
		s.pause(l, CodeForked, "the peer holds another branch", true)
		return
	}
	l.reading, l.readAfter, l.readCover = true, l.sent, cover
	s.reads++
	limit := s.cfg.ReadBytes
	if p := s.currentPull(); p != nil && p.maxBytes > 0 {
		limit = int(min(uint64(limit), p.maxBytes-p.bytes))
	}
	if l.lazy && l.paused == CodeOK && !cover {
		limit = 1 // to check a place, not to be sent
	}
	s.emit(ReadRun{Space: l.sp.info.ID, Log: l.id, After: l.sent, MaxBytes: limit, Covering: cover})
}

func (s *Session) runRead(ev RunRead) {
	if s.reads == 0 {
		return
	}
	s.reads--
	sp := s.spaces[ev.Space]
	if sp == nil {
		return
	}
	l := sp.logs[ev.Log]
	if l == nil || !l.reading {
		return
	}
	l.reading = false
	defer func() {
		s.dropIfEqual(l)
		s.enqueue(l)
	}()
	if l.readAfter != l.sent || l.readCover != l.covering() {
		return // rewound, or acked beyond it meanwhile
	}
	switch {
	case ev.Err != nil:
		s.readFailed(l, ev.Err)
	case l.lazy && l.paused == CodeOK && !l.readCover:
		l.checked()
	case len(ev.Run.Data) == 0:
		s.pause(l, CodeDamaged, "the log's blocks beyond what the peer holds are not there", true)
	case l.readCover:
		l.hasRun, l.run = true, ev.Run
		s.ready = append(s.ready, l)
	case ev.Run.From != l.sent || ev.Run.End.Seq <= ev.Run.From.Seq:
		s.pause(l, CodeDamaged, "what was read does not follow what was asked for", true)
	default:
		l.tip = higher(l.tip, ev.Run.End) // it may be told only later
		if l.sent == l.base {
			l.acked = higher(l.acked, l.base) // it is on our branch
		}
		l.hasRun, l.run = true, ev.Run
		s.ready = append(s.ready, l)
	}
}

func (s *Session) readFailed(l *logState, err error) {
	l.unsure = false
	switch {
	case errors.Is(err, ErrForked) && !l.readCover:
		l.cover = true
	default:
		s.pause(l, CodeDamaged, err.Error(), true)
	}
}

// pushReady sends the runs that were read, in order, as far as the window goes.
func (s *Session) pushReady() {
	for len(s.ready) > 0 {
		l := s.ready[0]
		if l.hasRun && !l.gone && s.mayPush(l.sp) {
			if n := len(l.run.Data); s.inFlight > 0 && s.inFlight+n > s.cfg.WindowBytes {
				return
			}
		}
		s.ready[0] = nil
		s.ready = s.ready[1:]
		if !l.hasRun || l.gone {
			continue
		}
		run := l.run
		l.hasRun, l.run = false, RunBytes{}
		if s.mayPush(l.sp) {
			s.push(l, run)
		}
		s.enqueue(l)
	}
	s.ready = nil
}

// push sends one run, whole or in pieces, from where the peer's partial ends.
func (s *Session) push(l *logState, run RunBytes) {
	total := uint64(len(run.Data))
	cover := l.covering()
	offset := s.resumeAt(l, run)
	pull, end := s.countPull(l.sp, run.Ops, total-offset)
	m := WalPush{Space: l.sp.info.ID, Log: l.id, From: run.From, End: run.End, Total: total, Pull: pull}
	for offset < total {
		n := total - offset
		if s.cfg.PieceBytes > 0 {
			n = min(n, uint64(s.cfg.PieceBytes))
		}
		piece := m
		piece.Offset, piece.Data = offset, run.Data[offset:offset+n:offset+n]
		offset += n
		piece.PullEnd = end && offset == total
		s.send(&piece)
	}
	l.flights = append(l.flights, flight{from: run.From, end: run.End, bytes: int(total), sends: s.sends, cover: cover})
	s.inFlight += int(total)
	if cover {
		l.cover = false
		l.covers++
	}
	l.sent = run.End
	if l.timer.place == 0 {
		s.after(&l.timer, s.jitter(l.delay))
	}
}

func (s *Session) resumeAt(l *logState, run RunBytes) uint64 {
	p := s.peerPartial
	if p == nil || p.space != l.sp.info.ID || p.log != l.id || p.from != run.From || p.end != run.End {
		return 0
	}
	s.peerPartial = nil
	if p.bytes >= uint64(len(run.Data)) {
		return 0
	}
	return p.bytes
}

// rewind takes everything back that is under way and starts again after to.
func (s *Session) rewind(l *logState, to Position) {
	s.unflight(l, len(l.flights))
	l.hasRun, l.run = false, RunBytes{}
	l.base, l.sent, l.cover = to, to, false
	l.told = Position{}
	if l.acked.Seq > to.Seq {
		l.acked = Position{} // until it shows that to is on our branch
	}
	s.stopTimer(&l.timer)
	s.enqueue(l)
}

// retry is the timer of a log: a push was not answered, or a pause may be over.
func (s *Session) retry(l *logState) {
	if l.gone {
		return
	}
	if l.mayPass() {
		l.probe = true
		l.covers = min(l.covers, maxCovers-1)
		l.delay = s.backoff(l.delay)
		s.rewind(l, l.base)
		return
	}
	if l.lazy && l.paused == CodeOK && !l.covering() {
		s.announceAgain(l)
		return
	}
	if len(l.flights) == 0 {
		return
	}
	if l.flights[0].sends > s.ponged {
		s.after(&l.timer, l.delay) // the peer has not read it yet
		return
	}
	l.delay = s.backoff(l.delay)
	l.rewound, l.rewinds = false, 0
	s.rewind(l, l.base)
}

// progress: the peer took something, so retries start over.
func (s *Session) progress(l *logState) {
	l.delay = s.cfg.RetryAfter
	l.rewound, l.rewinds = false, 0
	l.paused, l.detail, l.local, l.probe = CodeOK, "", false, false
	s.stopTimer(&l.timer)
	if len(l.flights) > 0 || l.lazy {
		s.after(&l.timer, s.jitter(l.delay))
	}
}

// mayPass tells whether a pause is worth trying again: a full disk and damage pass,
// and a peer that has not answered our view of a fork may not have got it. What the
// peer may not take by its trust state is either cut here too, as soon as both know
// the same control logs, or taken.
func (l *logState) mayPass() bool {
	switch l.paused {
	case CodeNoSpace, CodeDamaged, CodeRevoked, CodeNotAllowed:
		return true
	}
	return l.paused == CodeForked && l.local
}

// pause stops one log (design 6.7); the session goes on.
func (s *Session) pause(l *logState, code Code, detail string, local bool) {
	report := l.paused != code
	l.paused, l.detail, l.local, l.probe = code, cutDetail(detail), local, false
	if report {
		s.emit(l.pausedEffect())
		if code == CodeRevoked {
			s.askControl()
		}
	}
	s.unflight(l, len(l.flights))
	l.hasRun, l.run, l.cover = false, RunBytes{}, false
	l.sent = l.base
	s.stopTimer(&l.timer)
	if l.mayPass() {
		s.after(&l.timer, s.jitter(l.delay))
	}
}

func (l *logState) pausedEffect() LogPaused {
	return LogPaused{Space: l.sp.info.ID, Log: l.id, Code: l.paused, Detail: l.detail, Local: l.local}
}
