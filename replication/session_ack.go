package replication

// walAck takes the peer's statements about logs that we push to it.
func (s *Session) walAck(m *WalAck) {
	for i := range m.Entries {
		e := &m.Entries[i]
		if !validPosition(e.Pos) || !validPosition(e.PartialFrom) || !validPosition(e.PartialEnd) {
			s.violation("an ack with a position that has a seq and no hash, or a hash and no seq")
			return
		}
		if e.Branch.IsZero() { // other branches are for later versions (design 4.8)
			s.ackEntry(e)
		}
	}
}

func (s *Session) ackEntry(e *AckEntry) {
	sp := s.spaces[e.Space]
	if sp == nil {
		return
	}
	if e.Log == (LogID{}) {
		if e.Code == CodeNotAllowed {
			s.spaceDeclined(sp)
		}
		return
	}
	l := sp.logs[e.Log]
	if e.PartialEnd.Seq > 0 {
		s.partialHeld(l, e)
	}
	if !sp.settled {
		s.ackedEarly(sp, e)
		return
	}
	if l == nil {
		return // the peer holds our tip: an ack repeats what is known
	}
	switch e.Code {
	case CodeOK:
		s.peerHolds(l, e.Pos)
	case CodeGap, CodeUnknownLog:
		s.gap(l, e.Pos)
	default:
		s.peerHolds(l, e.Pos)
		if !l.gone {
			s.pause(l, e.Code, e.Detail, false)
		}
	}
	s.dropIfEqual(l)
	s.heardOf(l)
	s.enqueue(l)
}

// partialHeld notes of which run the peer holds the first bytes, and sends the
// rest if that run is under way.
func (s *Session) partialHeld(l *logState, e *AckEntry) {
	s.peerPartial = nil
	if e.PartialBytes > 0 {
		s.peerPartial = &partialRef{space: e.Space, log: e.Log, from: e.PartialFrom, end: e.PartialEnd, bytes: e.PartialBytes}
	}
	if l == nil {
		return
	}
	for i, f := range l.flights {
		if f.from == e.PartialFrom && f.end == e.PartialEnd && i == 0 {
			s.rewindOnce(l, f.from)
			return
		}
	}
}

// peerHolds takes the peer's statement that it holds pos durably. It never takes
// back what was stated before.
func (s *Session) peerHolds(l *logState, pos Position) {
	l.sp.statedSince(l, pos)
	switch {
	case pos == l.tip:
		s.ackTo(l, pos)
	case pos.Seq <= l.acked.Seq:
		// An old statement.
	default:
		s.peerStates(l, pos)
	}
	s.dropIfEqual(l)
}

// ackTo: the peer holds our log up to pos, our tip or the end of a push.
func (s *Session) ackTo(l *logState, pos Position) {
	if pos == l.acked {
		return
	}
	n := 0
	for n < len(l.flights) && l.flights[n].end.Seq <= pos.Seq {
		n++
	}
	s.unflight(l, n)
	l.acked = pos
	l.base = higher(l.base, pos)
	l.sent = higher(l.sent, pos)
	s.save(l.sp, l.id, l.base)
	s.progress(l)
}

// peerStates takes a position that may be of another branch.
func (s *Session) peerStates(l *logState, pos Position) {
	for i, f := range l.flights {
		if f.end == pos && !f.cover {
			s.ackTo(l, pos)
			return
		}
		if f.end.Seq == pos.Seq {
			// Another branch ends here: reading after it will tell.
			s.rewind(l, pos)
			return
		}
		if f.end.Seq > pos.Seq {
			if i > 0 {
				s.unflight(l, i)
				l.base = higher(l.base, l.flights[0].from)
				s.progress(l)
			}
			return
		}
	}
	if pos.Seq > l.sent.Seq {
		// Further than what we sent it: from another peer.
		s.unflight(l, len(l.flights))
		l.base, l.unsure = pos, true
		s.save(l.sp, l.id, pos)
		s.skipTo(l, pos)
		s.progress(l)
	}
}

// skipTo goes on after pos; nothing before it is under way any more.
func (s *Session) skipTo(l *logState, pos Position) {
	s.unflight(l, len(l.flights))
	l.sent, l.cover = pos, false
	l.hasRun, l.run = false, RunBytes{}
}

// gap: what we pushed does not follow what the peer holds, which is pos.
func (s *Session) gap(l *logState, pos Position) {
	if pos == l.tip || pos.Seq >= l.sent.Seq {
		s.peerHolds(l, pos)
		return
	}
	if l.paused != CodeOK && !l.probe {
		return
	}
	s.rewindOnce(l, pos)
}

// rewindOnce rewinds unless that was done to the same place since the peer last
// took something: the other runs that were under way meet the same gap. What goes
// wrong then, or too often, the retry timer puts right.
func (s *Session) rewindOnce(l *logState, pos Position) {
	if (l.rewound && l.rewindTo == pos) || l.rewinds >= maxRewinds {
		return
	}
	l.rewound, l.rewindTo = true, pos
	l.rewinds++
	s.rewind(l, pos)
}
