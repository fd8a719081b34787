package replication

import (
	"fmt"
	"time"
)

// The frontier exchange of a space (design 6.3), robust against loss, repetition
// and reordering of messages:
//
//	asker                                answerer
//	FrontierDigest{round, digest}   ->   loads its frontier
//	                                <-   FrontierDigest{reply, round, digest}
//	                                <-   FrontierDiff{round, part}...  if the digests differ
//
// Equal digests settle the space at once, on both sides. Otherwise the asker
// loads its frontier again when it has the whole diff, and what differs then gets
// a logState. While a question is open only what advances meanwhile is kept (since),
// not a copy of the frontier. An unanswered or half answered question is
// asked again under a new round.

// spaceState is the session's view of one space.
type spaceState struct {
	info SpaceInfo
	// settled: frontiers were compared. Invariant from then on: the peer holds
	// our tip of every log that is not in logs.
	settled bool
	// declined: the peer said that it does not take part in the space. Nothing is
	// exchanged until it asks about the space itself. Invariant: not settled.
	declined bool
	// asked: the peer has asked about the space, so that it takes part in it.
	asked bool

	logs   map[LogID]*logState
	queue  fifo[*logState] // logs with something to send, each once
	active bool            // in Session.active

	ask  ask
	load load
	diff diff
	// since is what advanced, and what the peer stated, after the frontier on which
	// an open question or a load under way stands.
	since map[LogID]advanceSince

	// What the peer states and we do not hold. Logs that we do not know at all
	// are kept by name only up to maxMissingUnknown; missingMore counts the rest.
	missing        map[LogID]missingLog
	missingUnknown int
	missingOps     uint64 // invariant: sum over missing of want.Seq - have
	missingMore    uint64

	suspects []FrontierEntry // stored positions above what the peer stated; asked again

	refused map[LogID]LogPaused // refusals of ours, at most maxRefused
	saves   []FrontierEntry     // for SaveCursor at the end of the step
}

// ask is our own question.
type ask struct {
	round     uint64 // 0: none open
	digest    Hash
	sends     uint64 // messages sent up to it
	tries     int
	first     bool // counts in Session.asking
	delay     time.Duration
	timer     timer
	reconcile bool // the stored cursor differs from our frontier
	// lossIfEqual is what the peer has lost of the suspects if the digests match.
	lossIfEqual []DataLoss
}

// question is what the peer asked.
type question struct {
	round  uint64
	digest Hash
}

// load is a LoadFrontier under way and what it is for.
type load struct {
	running   bool
	ask       bool
	answer    *question
	compare   bool // with diff
	reconcile bool // the stored cursor with what the peer states
}

// diff is the peer's frontier while it arrives in parts.
type diff struct {
	round   uint64
	next    uint64
	entries []FrontierEntry
	done    bool
}

// advanceSince is how far a log grew since a point in time.
type advanceSince struct {
	prev, tip Position // ours: then and now; zero if it did not advance
	peer      Position // the highest that the peer brought; zero if it brought none
	stated    Position // the highest that the peer stated, perhaps of another branch
}

type missingLog struct {
	have uint64   // our tip
	want Position // what the peer states; want.Seq > have
}

func (s *Session) addSpace(info SpaceInfo) {
	if !s.carries(info.ID) {
		return
	}
	if sp := s.spaces[info.ID]; sp != nil {
		if sp.info.Name == "" {
			sp.info.Name = info.Name
		}
		return
	}
	sp := &spaceState{
		info:    info,
		logs:    map[LogID]*logState{},
		since:   map[LogID]advanceSince{},
		missing: map[LogID]missingLog{},
		refused: map[LogID]LogPaused{},
	}
	sp.ask.delay = s.cfg.RetryAfter
	sp.ask.timer.fire = func() { s.askAgain(sp) }
	s.spaces[info.ID] = sp
	s.order = append(s.order, sp)
	if s.heldBack(info.ID) {
		return
	}
	s.askQueue.push(sp)
	if st, ok := s.strangers[info.ID]; ok {
		delete(s.strangers, info.ID)
		sp.asked = true
		if !st.refused { // else the peer waits for no answer: it must be asked
			sp.load.answer = &st.question
			s.loadFrontier(sp)
		}
	}
	s.askNext()
}

// askNext starts questions, few at a time: each costs a pass over the space.
func (s *Session) askNext() {
	for s.asking < maxAsking && s.askQueue.len() > 0 {
		sp := s.askQueue.pop()
		if sp.settled || sp.declined {
			continue
		}
		s.asking++
		sp.ask.first = true
		sp.load.ask = true
		s.loadFrontier(sp)
	}
}

// firstTryOver gives the place of sp to another space's first question.
func (s *Session) firstTryOver(sp *spaceState) {
	if sp.ask.first {
		sp.ask.first = false
		s.asking--
		s.askNext()
	}
}

func (s *Session) loadFrontier(sp *spaceState) {
	if !sp.load.running {
		sp.load.running = true
		s.emit(LoadFrontier{Space: sp.info.ID})
	}
}

// askAgain repeats a question that was not answered in time.
func (s *Session) askAgain(sp *spaceState) {
	if sp.ask.sends > s.ponged {
		// The peer has not read the question yet.
		s.after(&sp.ask.timer, sp.ask.delay)
		return
	}
	sp.ask.delay = s.backoff(sp.ask.delay)
	s.reask(sp)
}

func (s *Session) reask(sp *spaceState) {
	s.stopTimer(&sp.ask.timer)
	sp.ask.round = 0
	s.dropDiff(sp)
	sp.load.ask, sp.load.compare = true, false
	s.loadFrontier(sp)
	s.firstTryOver(sp)
}

// answered takes the reply to our question.
func (s *Session) answered(m *FrontierDigest) {
	sp := s.spaces[m.Space]
	if sp == nil || sp.ask.round == 0 || sp.ask.round != m.Round {
		return
	}
	if m.Digest == sp.ask.digest {
		s.settleEqual(sp)
		return
	}
	s.after(&sp.ask.timer, sp.ask.delay) // the diff is on its way
}

// DiffEntries is how many entries of the peer's frontiers are held because their
// exchange is under way, over all spaces: some 130 bytes each. Its driver bounds the
// sum over all sessions.
func (s *Session) DiffEntries() int { return s.diffEntries }

// dropDiff forgets what has arrived of the peer's frontier.
func (s *Session) dropDiff(sp *spaceState) {
	s.diffEntries -= len(sp.diff.entries)
	sp.diff = diff{}
}

func (s *Session) diffPart(m *FrontierDiff) {
	sp := s.spaces[m.Space]
	if sp == nil || sp.ask.round == 0 || sp.ask.round != m.Round {
		return
	}
	d := &sp.diff
	if d.round != m.Round {
		s.dropDiff(sp)
		d.round = m.Round
	}
	if d.done || m.Part != d.next {
		return // a repeated part, or one is missing and we ask again
	}
	if len(m.Entries) > maxReceivedDiffEntries || len(d.entries)+len(m.Entries) > MaxFrontierEntries {
		s.violation(fmt.Sprintf("a frontier difference of more than %d entries, or more than %d in one part", MaxFrontierEntries, maxReceivedDiffEntries))
		return
	}
	if len(m.Entries) == 0 && !m.Last {
		s.violation("an empty part of a frontier difference that is not the last")
		return
	}
	for _, e := range m.Entries {
		if e.Branch.IsZero() { // other branches are for later versions (design 4.8)
			if !validPosition(e.Pos) || e.Pos.Seq == 0 {
				s.violation("a frontier entry without a position")
				return
			}
			d.entries = append(d.entries, e)
			s.diffEntries++
		}
	}
	d.next++
	s.after(&sp.ask.timer, sp.ask.delay)
	if m.Last {
		d.done = true
		sp.load.compare = true
		s.loadFrontier(sp)
	}
}

// localFrontier serves everything that the load was for.
func (s *Session) localFrontier(ev LocalFrontier) {
	sp := s.spaces[ev.Space]
	if sp == nil || !sp.load.running {
		return
	}
	ld := sp.load
	sp.load = load{}
	own := sortedEntries(sp.withSince(ev.Entries))
	var root Hash
	if ld.ask || ld.answer != nil {
		root = FrontierRoot(own)
	}
	if ld.answer != nil {
		s.answer(sp, *ld.answer, own, root)
		if root == ld.answer.digest && !sp.settled {
			// The peer stated exactly what we hold: its question answers ours.
			ld = load{reconcile: true}
			clear(sp.since)
			sp.ask.reconcile = false
			s.settleEqual(sp)
		}
	}
	if ld.ask {
		s.sendAsk(sp, own, root, ev.Stored)
	}
	if ld.compare {
		s.compare(sp, own, ev.Stored)
	} else if ld.reconcile {
		s.reconcile(sp, own, nil, ev.Stored)
	}
	sp.forgetSince()
}

// forgetSince drops what no open question and no load needs any more.
func (sp *spaceState) forgetSince() {
	if (sp.settled || sp.declined) && !sp.load.running && sp.ask.round == 0 {
		clear(sp.since)
	}
}

// withSince is the loaded frontier brought up to what was told meanwhile.
func (sp *spaceState) withSince(entries []FrontierEntry) []FrontierEntry {
	if len(sp.since) == 0 {
		return entries
	}
	out := append(make([]FrontierEntry, 0, len(entries)+len(sp.since)), entries...)
	seen := 0
	for i := range out {
		a, ok := sp.since[out[i].Log]
		if !ok {
			continue
		}
		seen++
		out[i].Pos = higher(out[i].Pos, a.tip)
	}
	if seen < len(sp.since) {
		held := make(map[LogID]bool, seen)
		for i := range out {
			if _, ok := sp.since[out[i].Log]; ok {
				held[out[i].Log] = true
			}
		}
		for id, a := range sp.since { // sorted by the caller
			if !held[id] && a.tip.Seq > 0 {
				out = append(out, FrontierEntry{Log: id, Base: 1, Pos: a.tip})
			}
		}
	}
	return out
}

func (s *Session) answer(sp *spaceState, q question, own []FrontierEntry, root Hash) {
	s.send(&FrontierDigest{Space: sp.info.ID, Name: sp.info.Name, Round: q.round, Reply: true, Digest: root, Logs: uint64(len(own))})
	if root == q.digest {
		return
	}
	for part := uint64(0); ; part++ {
		n := min(len(own), MaxDiffEntries)
		last := n == len(own)
		s.send(&FrontierDiff{Space: sp.info.ID, Round: q.round, Part: part, Last: last, Entries: own[:n:n]})
		if last {
			return
		}
		own = own[n:]
	}
}

func (s *Session) sendAsk(sp *spaceState, own []FrontierEntry, root Hash, stored []FrontierEntry) {
	s.rounds++
	a := &sp.ask
	a.round, a.digest = s.rounds, root
	a.tries++
	a.reconcile = differ(own, stored)
	s.dropDiff(sp)
	a.lossIfEqual = nil
	walkFrontiers(own, nil, sp.suspects, func(log LogID, o, _, was Position) {
		if was.Seq > o.Seq {
			a.lossIfEqual = append(a.lossIfEqual, DataLoss{Space: sp.info.ID, Log: log, Was: was, Now: o})
		}
	})
	clear(sp.since) // the question states it all; from here on what comes later
	s.send(&FrontierDigest{Space: sp.info.ID, Name: sp.info.Name, Round: a.round, Digest: root, Logs: uint64(len(own))})
	a.sends = s.sends
	s.after(&a.timer, s.jitter(a.delay))
}

// settleEqual: the peer holds what we held when since began.
func (s *Session) settleEqual(sp *spaceState) {
	reconcile, ifEqual := sp.ask.reconcile, sp.ask.lossIfEqual
	s.askDone(sp)
	if sp.settled {
		sp.clearMissing()
		for _, loss := range ifEqual {
			s.lost(sp, loss)
		}
		sp.suspects = nil
		sp.forgetSince()
		return
	}
	for _, id := range sortedKeys(sp.since) {
		a := sp.since[id]
		if at := higher(a.prev, a.peer); at != a.tip {
			s.addLog(sp, id, a.tip, at, at)
		}
	}
	s.settled(sp)
	if reconcile {
		sp.load.reconcile = true
		s.loadFrontier(sp)
	} else {
		sp.forgetSince()
	}
}

func (s *Session) askDone(sp *spaceState) {
	s.stopTimer(&sp.ask.timer)
	sp.ask.round = 0
	sp.ask.reconcile, sp.ask.lossIfEqual = false, nil
	sp.ask.delay = s.cfg.RetryAfter
	s.dropDiff(sp)
	sp.load.ask, sp.load.compare = false, false
	s.firstTryOver(sp)
}

func (s *Session) settled(sp *spaceState) {
	sp.settled, sp.declined = true, false
	s.emit(Settled{Space: sp.info.ID})
	for _, id := range sortedKeys(sp.logs) {
		s.enqueue(sp.logs[id])
	}
}

// compare takes the complete diff against what we hold.
func (s *Session) compare(sp *spaceState, own, stored []FrontierEntry) {
	peer := sortedEntries(sp.diff.entries)
	s.askDone(sp)
	first := !sp.settled
	sp.clearMissing()
	walkFrontiers(own, peer, nil, func(log LogID, o, p, _ Position) {
		switch {
		case o.Seq == 0:
		case first:
			s.compareLog(sp, log, o, p)
			s.ackSince(sp, log, o, p)
		default:
			s.compareAgain(sp, log, o, p)
		}
		if p.Seq > o.Seq && !countsAsSynced(sp.refused[log].Code) {
			sp.want(log, o.Seq, p)
			s.askAhead(sp, log, p.Seq)
		}
	})
	if first {
		s.settled(sp)
	}
	if first || len(sp.suspects) > 0 {
		s.reconcile(sp, own, peer, stored)
	}
}

func (s *Session) compareLog(sp *spaceState, log LogID, own, peer Position) {
	known := Position{} // stated by the peer and on our branch
	if a := sp.since[log]; a.peer.Seq > 0 {
		known = a.peer
	}
	peer = higher(higher(peer, known), sp.since[log].stated)
	if peer == own || known == own {
		return
	}
	s.compared(s.addLog(sp, log, own, known, peer))
}

// advanced takes the growth of a log.
func (s *Session) advanced(ev Advanced) {
	sp := s.spaces[ev.Space]
	if sp == nil || ev.Tip.Seq == 0 || ev.Retreat { // after a retreat the driver ends the session
		return
	}
	if sp.declined && !sp.load.running {
		return
	}
	if !sp.settled || sp.load.running || sp.ask.round != 0 {
		a := sp.since[ev.Log]
		if a.tip.Seq == 0 {
			a.prev = ev.Prev
		}
		a.tip = higher(a.tip, ev.Tip)
		if ev.FromPeer {
			a.peer = higher(a.peer, ev.Tip)
		}
		sp.since[ev.Log] = a
	}
	delete(sp.refused, ev.Log) // whatever it was, the log goes on
	want := sp.got(ev.Log, ev.Tip.Seq, ev.Ops, ev.FromPeer)
	if ev.FromPeer && want.Seq <= ev.Tip.Seq {
		s.save(sp, ev.Log, ev.Tip)
	}
	if sp.settled {
		s.logAdvanced(sp, ev, want)
	}
	s.reached(sp, ev, want)
	if sp.settled && sp.missingMore > 0 && len(sp.missing) <= len(sp.refused) && sp.ask.round == 0 && !sp.load.ask {
		s.reask(sp) // more was missing than is kept by name, and but for what is refused that is here: compare again
	}
}
