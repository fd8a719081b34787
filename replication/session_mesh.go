package replication

import (
	"fmt"
	"time"
)

// The session's part in the mesh (design 6.4). Which peer pushes which log to this
// node is decided across sessions, by Mesh; a session carries that to its peer, and
// does what the peer asks for in the same way.
//
// A log that the peer does not want to be pushed, a lazy one, is announced instead:
// AnnounceAfter after it has advanced, the peer is told of the position. Whoever
// hears of a position answers with a WalAck, at once with what it holds and once more
// when it has reached what it heard of; so the outbox, receipts and status are the
// same on lazy links as on others. An announcement without an answer is repeated like
// a push, and after a few in vain the log is pushed all the same: a mistake on either
// side costs bytes, and never keeps a write from anybody.

// AnnounceAfter is for how long announcements are gathered.
const AnnounceAfter = 50 * time.Millisecond

const (
	// maxAnnounces is how often a position is announced without an answer before it
	// is pushed.
	maxAnnounces = 3
	// maxLinkModes bounds the logs of which it is remembered how the peer wants them,
	// in each of two generations. Of one that is forgotten it has to say it again.
	maxLinkModes = 4096
)

// meshLink is what the two sides of a session agreed on.
type meshLink struct {
	// lazyLogs is what the peer asked for: to announce all logs, but for those that
	// modes has.
	lazyLogs bool
	modes    linkModes
	hold     bool // push what is written here in logs that are lazy in general (MeshHold)

	announces     []*logState // lazy logs to announce, each once
	announceTimer timer

	askedLazy bool // this side asked for announcements of all logs
	// wantsEager: it is to take that back, once the peer knows what is here. eagerTimer
	// ends the wait for a space that does not settle.
	wantsEager bool
	eagerTimer timer
	watching   bool // CaughtUp is still to be said
}

// linkModes remembers of the logs that were of use last whether they are lazy.
type linkModes struct{ young, old map[LogID]bool }

// peek tells a log's mode; get also remembers that it was of use.
func (m *linkModes) peek(log LogID) (lazy, known bool) {
	if lazy, known = m.young[log]; !known {
		lazy, known = m.old[log]
	}
	return lazy, known
}

func (m *linkModes) get(log LogID) (lazy, known bool) {
	if lazy, known = m.peek(log); known {
		if _, young := m.young[log]; !young {
			m.set(log, lazy)
		}
	}
	return lazy, known
}

func (m *linkModes) set(log LogID, lazy bool) {
	if m.young == nil || len(m.young) >= maxLinkModes {
		m.old, m.young = m.young, map[LogID]bool{}
	}
	m.young[log] = lazy
}

func (s *Session) startMesh() {
	s.mesh.announceTimer.fire = s.announce
	s.mesh.eagerTimer.fire = s.askEager
	s.mesh.watching = s.cfg.Mesh && !s.cfg.StartLazy
	if s.cfg.StartLazy {
		s.meshDefault(true)
	}
}

// lazy tells whether the peer wants a log announced. The control space is pushed on
// all links: it is small, and what it says is worth more than the bytes. So is what a
// peer asks for by pulls.
func (s *Session) lazy(sp *spaceState, log LogID) bool {
	lazy, known := s.mesh.modes.get(log)
	return s.lazyAs(sp, lazy, known)
}

func (s *Session) lazyAs(sp *spaceState, lazy, known bool) bool {
	if s.cfg.PeerPullOnly || sp.info.ID == s.cfg.Control && s.cfg.Control != (SpaceID{}) {
		return false
	}
	if known {
		return lazy
	}
	return s.mesh.lazyLogs
}

// pruned takes the peer's wish to have logs announced.
func (s *Session) pruned(m *Prune) {
	for _, log := range m.Logs {
		if log == (LogID{}) {
			s.peerWantsLazy(true)
		} else {
			s.setMode(log, true)
		}
	}
}

// grafted takes the peer's wish to be pushed a log after what it holds of it.
func (s *Session) grafted(m *Graft) {
	if !validPosition(m.From) {
		s.violation("a graft from a position that has a seq and no hash, or a hash and no seq")
		return
	}
	if m.Log == (LogID{}) {
		s.peerWantsLazy(false)
		return
	}
	s.setMode(m.Log, false)
	if l := s.logOf(m.Log); l != nil {
		s.peerHolds(l, m.From)
		s.enqueue(l)
	}
}

// logOf is the log in which the sides differ, in whatever settled space it is.
func (s *Session) logOf(log LogID) *logState {
	for _, sp := range s.order {
		if l := sp.logs[log]; l != nil && sp.settled {
			return l
		}
	}
	return nil
}

func (s *Session) setMode(log LogID, lazy bool) {
	s.mesh.modes.set(log, lazy)
	if l := s.logOf(log); l != nil {
		s.setLazy(l, s.lazy(l.sp, log))
	}
}

// peerWantsLazy takes the peer's wish for all logs that it does not name.
func (s *Session) peerWantsLazy(lazy bool) {
	if s.mesh.lazyLogs == lazy {
		return
	}
	s.mesh.lazyLogs = lazy
	s.emit(PeerLazy{Lazy: lazy})
	s.applyModes()
}

// holds pushes a write of this node although it is of a log that is lazy in general.
func (s *Session) holds(l *logState, ev Advanced) {
	if _, known := s.mesh.modes.get(l.id); s.mesh.hold && ev.Source == 0 && !known {
		l.lazy = false
	}
}

func (s *Session) applyModes() {
	for _, sp := range s.order {
		change := map[LogID]bool{}
		for id, l := range sp.logs {
			mode, known := s.mesh.modes.peek(id)
			if lazy := s.lazyAs(sp, mode, known); lazy != l.lazy {
				change[id] = lazy
			}
		}
		for _, id := range sortedKeys(change) {
			s.setLazy(sp.logs[id], change[id])
		}
	}
}

// setLazy changes how a log goes to the peer. What is under way stays under way.
func (s *Session) setLazy(l *logState, lazy bool) {
	if l.lazy == lazy {
		return
	}
	l.lazy = lazy
	if lazy && l.paused == CodeOK && !l.covering() {
		l.hasRun, l.run = false, RunBytes{}
	}
	l.told, l.unanswered = Position{}, 0
	s.enqueue(l)
}

// clearModes pushes everything again: the peer pulls.
func (s *Session) clearModes() {
	if s.mesh.lazyLogs || s.mesh.modes.young != nil {
		s.mesh.modes = linkModes{}
		s.peerWantsLazy(false)
		s.applyModes()
	}
}

// announceSoon puts a lazy log into the next announcement, if the peer has not been
// told of all of it.
func (s *Session) announceSoon(l *logState) {
	if l.announcing || !l.toAnnounce() {
		return
	}
	l.announcing = true
	s.mesh.announces = append(s.mesh.announces, l)
	if s.mesh.announceTimer.place == 0 {
		s.after(&s.mesh.announceTimer, AnnounceAfter)
	}
}

func (l *logState) toAnnounce() bool {
	return l.lazy && l.sp.settled && !l.gone && l.paused == CodeOK && l.tip.Seq > max(l.base.Seq, l.told.Seq)
}

// toCheck tells whether the peer stated a place that only a look into the log shows to
// be on our branch or another. On other links the read of what follows tells.
func (l *logState) toCheck() bool {
	return l.unsure && l.sent == l.base && l.base.Seq > l.acked.Seq && l.base.Seq < l.tip.Seq && len(l.flights) == 0
}

// checked notes that what was read follows the place.
func (l *logState) checked() {
	l.unsure = false
	if l.sent == l.base {
		l.acked = higher(l.acked, l.base)
	}
}

// announce tells the peer of what has advanced, space by space.
func (s *Session) announce() {
	list := s.mesh.announces
	s.mesh.announces = nil
	bySpace := map[*spaceState]*Announce{}
	for _, l := range list {
		l.announcing = false
		if !l.toAnnounce() {
			continue
		}
		m := bySpace[l.sp]
		if m == nil || len(m.Entries) == MaxDiffEntries {
			m = &Announce{Space: l.sp.info.ID}
			bySpace[l.sp] = m
			s.send(m)
		}
		m.Entries = append(m.Entries, FrontierEntry{Log: l.id, Base: 1, Pos: l.tip})
		l.told, l.toldSends = l.tip, s.sends
		if l.timer.place == 0 {
			s.after(&l.timer, s.jitter(l.delay))
		}
	}
}

// announceAgain is the retry timer of a lazy log.
func (s *Session) announceAgain(l *logState) {
	if len(l.flights) > 0 && l.flights[0].sends > s.ponged || l.toldSends > s.ponged {
		s.after(&l.timer, l.delay) // the peer has not read it yet
		return
	}
	s.unflight(l, len(l.flights)) // from before it was lazy
	l.sent = l.base
	l.told = Position{}
	l.delay = s.backoff(l.delay)
	if l.unanswered++; l.unanswered > maxAnnounces {
		s.setMode(l.id, false)
		return
	}
	s.announceSoon(l)
}

// heardOf notes that the peer has said something of a log: it knows what it was told,
// and gets the log as it wants. It is told again after a long while.
func (s *Session) heardOf(l *logState) {
	if l.lazy && !l.gone && l.paused == CodeOK {
		l.unanswered = 0
		if len(l.flights) == 0 {
			s.after(&l.timer, s.jitter(s.cfg.RetryMax))
		}
	}
}

// announced takes the peer's statement that positions became durable there. tips is
// what is durable here of the same logs.
func (s *Session) announced(m *Announce, tips []Position) {
	if len(m.Entries) > maxReceivedDiffEntries {
		s.violation(fmt.Sprintf("an announcement of more than %d entries", maxReceivedDiffEntries))
		return
	}
	sp := s.spaces[m.Space]
	if sp == nil || sp.declined || !s.shares(m.Space) {
		return // we have said nothing about the space, or not that we take part
	}
	for i := range m.Entries {
		e := &m.Entries[i]
		if !validPosition(e.Pos) || e.Pos.Seq == 0 {
			s.violation("an announcement without a position")
			return
		}
		if e.Branch.IsZero() && e.Log != (LogID{}) && i < len(tips) { // other branches are for later versions (design 4.8)
			s.announcedLog(sp, e, tips[i])
		}
	}
}

func (s *Session) announcedLog(sp *spaceState, e *FrontierEntry, tip Position) {
	answered := false
	sp.noteStated(e.Log, e.Pos)
	if l := sp.logs[e.Log]; l != nil {
		answered = l.told.Seq >= e.Pos.Seq // our announcement crosses its own
		s.peerHolds(l, e.Pos)
		s.heardOf(l)
		s.enqueue(l)
	}
	a := AckEntry{Space: sp.info.ID, Log: e.Log, Pos: tip}
	if e.Pos.Seq > tip.Seq {
		if r := sp.refused[e.Log]; countsAsSynced(r.Code) {
			a.Code, a.Detail = r.Code, r.Detail
		} else {
			sp.want(e.Log, tip.Seq, e.Pos)
			s.emit(Ahead{Space: sp.info.ID, Log: e.Log, Seq: e.Pos.Seq})
		}
	}
	if !answered {
		s.ack(a)
	}
}

// reached tells the peer that we hold now what it had stated of a log that came from
// elsewhere, so that it need not push or announce it.
func (s *Session) reached(sp *spaceState, ev Advanced, want Position) {
	if ev.FromPeer || want.Seq == 0 || ev.Tip.Seq < want.Seq || !sp.settled || s.commits[ev.Log] != nil {
		return
	}
	s.ack(AckEntry{Space: sp.info.ID, Log: ev.Log, Pos: ev.Tip})
}

// askAhead tells the mesh of what the peer has and will not push by itself.
func (s *Session) askAhead(sp *spaceState, log LogID, seq uint64) {
	if s.mesh.askedLazy {
		s.emit(Ahead{Space: sp.info.ID, Log: log, Seq: seq})
	}
}

// tellOwed tells the mesh what the peer will push of a space by itself, while that is
// waited for: of other logs it is nobody to wait for.
func (s *Session) tellOwed(sp *spaceState) {
	if !s.mesh.watching || s.mesh.askedLazy || !sp.settled {
		return
	}
	e := Owes{Space: sp.info.ID, More: sp.missingMore > 0}
	for _, log := range sortedKeys(sp.missing) {
		if len(e.Logs) == maxOwed {
			e.More = true
			break
		}
		e.Logs = append(e.Logs, Dot{Log: log, Seq: sp.missing[log].want.Seq})
	}
	s.emit(e)
}

// meshDefault asks the peer to announce, or to push, all logs that are not named.
func (s *Session) meshDefault(lazy bool) {
	s.mesh.watching = !lazy
	s.mesh.wantsEager = !lazy && s.mesh.askedLazy
	switch {
	case s.mesh.wantsEager:
		s.after(&s.mesh.eagerTimer, s.cfg.RetryAfter)
	case lazy && !s.mesh.askedLazy:
		s.mesh.askedLazy = true
		s.send(&Prune{Logs: []LogID{{}}})
	}
}

// askEager asks the peer to push again. What is here by now it hears first.
func (s *Session) askEager() {
	s.stopTimer(&s.mesh.eagerTimer)
	if s.mesh.wantsEager {
		s.mesh.wantsEager, s.mesh.askedLazy = false, false
		s.flushAcks(true)
		s.send(&Graft{})
		for _, sp := range s.order {
			s.tellOwed(sp)
		}
	}
}

// checkMesh does what waits for the comparison of frontiers: it asks the peer to push,
// and tells once that everything that the peer stated is here.
func (s *Session) checkMesh() {
	if !s.mesh.watching && !s.mesh.wantsEager || s.gate.shut || len(s.order) == 0 {
		return
	}
	missing := false
	for _, sp := range s.order {
		if !sp.declined && !sp.settled {
			return
		}
		missing = missing || !sp.declined && sp.missingOps+sp.missingMore > 0
	}
	s.askEager()
	if s.mesh.watching && !missing {
		s.mesh.watching = false
		s.emit(CaughtUp{})
	}
}

// exchange compares the frontiers of all spaces once more, a safety net for links on
// which little is said.
func (s *Session) exchange() {
	for _, sp := range s.order {
		if sp.settled && !sp.load.running && sp.ask.round == 0 && !s.heldBack(sp.info.ID) {
			s.reask(sp)
		}
	}
}

// comparedLazy begins a lazy log at the comparison of frontiers: both sides know of each
// other by that, so it is announced only if it still differs after a while.
func (s *Session) comparedLazy(l *logState) {
	if l.lazy {
		l.told = l.tip
		s.after(&l.timer, s.jitter(l.delay))
	}
}

// ackSince tells a peer that was asked to announce of what has come from elsewhere
// while the frontiers were exchanged: it was answered without that, and would push it
// once it is asked to.
func (s *Session) ackSince(sp *spaceState, log LogID, own, peer Position) {
	if a := sp.since[log]; s.mesh.askedLazy && peer.Seq > 0 && peer.Seq <= own.Seq && a.tip.Seq > a.peer.Seq {
		s.ack(AckEntry{Space: sp.info.ID, Log: log, Pos: own})
	}
}

// maxEarlyAcks bounds the logs of a space of which acks are noted before it is settled.
const maxEarlyAcks = 4096

// ackedEarly notes what the peer states while the comparison is under way, so that it
// is not pushed what it has got from elsewhere meanwhile.
func (s *Session) ackedEarly(sp *spaceState, e *AckEntry) {
	a, ok := sp.since[e.Log]
	if e.Code == CodeOK && !sp.declined && (ok || len(sp.since) < maxEarlyAcks) {
		a.stated = higher(a.stated, e.Pos)
		sp.since[e.Log] = a
	}
}
