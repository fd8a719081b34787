package replication

import "time"

// The frontier exchange of a space (design 6.3), robust against loss, repetition
// and reordering of messages:
//
//	asker                                answerer
//	FrontierDigest{round, digest}   ->   loads its frontier
//	                                <-   FrontierDigest{reply, round, digest}
//	                                <-   FrontierDiff{round, part}...  if the digests differ
//	FrontierOpen{round, step}       ->   and so on: session_trie.go
//	                                <-   FrontierDiff{round, step, part}...
//
// Both sides ask. Of two that would go down the levels one does, and tells the other
// where that ended: see putOff.
//
// Equal digests settle the space at once, on both sides. Otherwise the asker learns
// what the peer states in the buckets of the trie that differ, and what differs then
// gets a logState. All is compared with the frontier that the question stated, which
// is shared with other sessions, and with what advanced since. An unanswered or half
// answered question is asked again under a new round.

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
	// held is the peer's question while its answer is put off; found is where our last way
	// down ended.
	held  *question
	found found
	// reconcileTimer fires once, a while after the space has settled: the stored cursor is
	// compared then.
	reconcileTimer timer
	// since is what advanced, and what the peer stated, after the frontier on which
	// an open question or a load under way stands. It may tell again what that
	// frontier has.
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
	round  uint64    // 0: none open
	own    *Frontier // that it states; nil if none is open
	levels bool      // it goes down the levels
	sends  uint64    // messages sent up to it
	tries  int       // questions in a row without an answer
	first  bool      // counts in Session.asking
	delay  time.Duration
	timer  timer
}

// question is what the peer asked.
type question struct {
	round  uint64
	digest Hash
	levels bool
}

// load is a LoadFrontier under way and what it is for.
type load struct {
	running   bool
	stored    bool // it brings what the store remembers of the peer
	ask       bool
	answer    *question
	open      *FrontierOpen // to answer
	reconcile bool          // the stored cursor with what the peer states
}

// advanceSince is how far a log grew since a point in time.
type advanceSince struct {
	tip    Position // ours; zero if it did not advance
	peer   Position // the highest that the peer brought; zero if it brought none
	stated Position // the highest that the peer stated, perhaps of another branch
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
	sp.reconcileTimer.fire = func() {
		sp.load.reconcile = true
		s.loadFrontier(sp)
	}
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
		sp.load.running, sp.load.stored = true, sp.load.reconcile
		s.emit(LoadFrontier{Space: sp.info.ID, Stored: sp.load.stored})
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
	sp.ask.round, sp.ask.own = 0, nil
	s.dropDiff(sp)
	s.answerHeld(sp)
	sp.load.ask = true
	s.loadFrontier(sp)
	s.firstTryOver(sp)
}

// answered takes the reply to our question.
func (s *Session) answered(m *FrontierDigest) {
	sp := s.spaces[m.Space]
	if sp == nil || sp.ask.round == 0 || sp.ask.round != m.Round {
		return
	}
	if m.Digest == sp.ask.own.Root() {
		s.compared(sp, sp.ask.own, region{}, nil)
		return
	}
	s.after(&sp.ask.timer, sp.ask.delay) // the diff is on its way
}

// localFrontier serves everything that the load was for.
func (s *Session) localFrontier(ev LocalFrontier) {
	sp := s.spaces[ev.Space]
	if sp == nil || !sp.load.running {
		return
	}
	ld := sp.load
	sp.load = load{}
	own := sp.withSince(ev.Frontier)
	if ld.answer != nil && !s.putOff(sp, ld.answer, own) {
		s.answer(sp, *ld.answer, own)
		if own.Root() == ld.answer.digest && !sp.settled {
			// The peer stated exactly what we hold: its question answers ours.
			ld.ask = false
			clear(sp.since)
			s.compared(sp, own, region{}, nil)
		}
	}
	if ld.open != nil {
		s.answerOpen(sp, ld.open, own)
	}
	if ld.ask {
		s.sendAsk(sp, own)
	}
	switch {
	case ld.reconcile && ld.stored:
		s.reconcile(sp, own, ev.Frontier, ev.Stored)
	case ld.reconcile: // the load had begun before that was wanted
		sp.load.reconcile = true
		s.loadFrontier(sp)
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
func (sp *spaceState) withSince(f *Frontier) *Frontier {
	var grown []FrontierEntry
	for log, a := range sp.since {
		if e := f.trunk(log); a.tip.Seq > e.Pos.Seq {
			grown = append(grown, FrontierEntry{Log: log, Base: max(e.Base, 1), Pos: a.tip})
		}
	}
	return f.With(grown)
}

// tipOf is how far a log is held: by the frontier of a question and what was told
// since.
func (sp *spaceState) tipOf(own *Frontier, log LogID) Position {
	return higher(own.Position(log), sp.since[log].tip)
}

func (s *Session) answer(sp *spaceState, q question, own *Frontier) {
	s.send(&FrontierDigest{Space: sp.info.ID, Name: sp.info.Name, Round: q.round, Reply: true, Digest: own.Root(), Logs: uint64(own.Len())})
	if own.Root() == q.digest {
		return
	}
	parts := s.diffParts(sp, q.round, 0)
	levels := q.levels && !q.digest.IsZero()
	if levels && s.cfg.PeerShares && sp.found.root == q.digest {
		if where, ok := sp.found.from(own); ok {
			parts.within(own, &where)
			parts.end()
			return
		}
	}
	switch {
	case levels && own.Len() > s.cfg.WholeEntries:
		parts.node(own.rootNode())
	default:
		for e := range own.All() {
			parts.entry(e)
		}
	}
	parts.end()
}

func (s *Session) sendAsk(sp *spaceState, own *Frontier) {
	s.rounds++
	a := &sp.ask
	a.round, a.own = s.rounds, own
	a.levels = s.cfg.PeerLevels && a.tries < maxLevelTries
	a.tries++
	s.dropDiff(sp)
	clear(sp.since) // the question states it all; from here on what comes later
	s.send(&FrontierDigest{Space: sp.info.ID, Name: sp.info.Name, Round: a.round, Digest: own.Root(), Logs: uint64(own.Len()), Levels: a.levels})
	a.sends = s.sends
	s.after(&a.timer, s.jitter(a.delay))
}

func (s *Session) askDone(sp *spaceState) {
	s.stopTimer(&sp.ask.timer)
	sp.ask.round, sp.ask.own, sp.ask.tries = 0, nil, 0
	sp.ask.delay = s.cfg.RetryAfter
	s.dropDiff(sp)
	sp.load.ask = false
	s.firstTryOver(sp)
}

func (s *Session) settled(sp *spaceState) {
	sp.settled, sp.declined = true, false
	s.emit(Settled{Space: sp.info.ID})
	for _, id := range sortedKeys(sp.logs) {
		s.enqueue(sp.logs[id])
	}
}

// compared takes what the peer states, in answer to a question that stated own:
// these entries where the two differ, and elsewhere the same as own.
func (s *Session) compared(sp *spaceState, own *Frontier, differ region, peer []FrontierEntry) {
	s.askDone(sp)
	s.answerHeld(sp)
	first := !sp.settled
	sp.clearMissing()
	peer = sortedEntries(peer)
	walkFrontiers(sp.heldIn(own, differ), peer, nil, func(log LogID, o, p, _ Position) {
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
	for _, log := range sp.moved() {
		tip := sp.tipOf(own, log)
		if said := sp.since[log].stated; said.Seq > tip.Seq && !countsAsSynced(sp.refused[log].Code) {
			sp.want(log, tip.Seq, said) // after the step of the answer that its bucket was in
		}
		if differ.has(bucketOf(log)) {
			continue
		}
		if at := own.Position(log); first {
			s.compareEqual(sp, log, tip, at)
		} else {
			s.compareAgain(sp, log, tip, at)
		}
	}
	if len(sp.suspects) > 0 {
		s.confirmLoss(sp, own, func(log LogID) Position {
			if !differ.has(bucketOf(log)) {
				return own.Position(log)
			}
			return positionIn(peer, log)
		})
	}
	if first {
		s.settled(sp)
	}
	s.tellOwed(sp)
	if first && own.Len() > 0 {
		s.after(&sp.reconcileTimer, s.jitter(reconcileAfter))
	}
	sp.forgetSince()
}

// heldIn is what we hold in a region, ascending by log.
func (sp *spaceState) heldIn(own *Frontier, where region) []FrontierEntry {
	held := own.entriesIn(where)
	for i := range held {
		held[i].Pos = sp.tipOf(own, held[i].Log)
	}
	for log, a := range sp.since { // sorted below
		if own.Position(log).Seq == 0 && a.tip.Seq > 0 && where.has(bucketOf(log)) {
			held = append(held, FrontierEntry{Log: log, Pos: a.tip})
		}
	}
	return sortedEntries(held)
}

// moved is the logs that the sides may hold differently although the question stated
// what the peer holds, in order.
func (sp *spaceState) moved() []LogID {
	logs := make(map[LogID]bool, len(sp.since)+len(sp.logs))
	for log := range sp.since {
		logs[log] = true
	}
	for log := range sp.logs {
		logs[log] = true
	}
	return sortedKeys(logs)
}

// compareEqual takes the first statement about a log of which the peer held at when
// we did.
func (s *Session) compareEqual(sp *spaceState, log LogID, own, at Position) {
	known := higher(at, sp.since[log].peer) // and on our branch
	if peer := higher(known, sp.since[log].stated); peer != own && known != own {
		s.comparedLazy(s.addLog(sp, log, own, known, peer))
	}
	s.ackSince(sp, log, own, at)
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
	s.comparedLazy(s.addLog(sp, log, own, known, peer))
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
		a.tip = higher(a.tip, ev.Tip)
		if ev.FromPeer {
			a.peer = higher(a.peer, ev.Tip)
		}
		sp.since[ev.Log] = a
	}
	if sp.found.moved++; sp.found.moved > maxSharedBuckets {
		sp.found = found{}
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
