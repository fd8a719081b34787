package replication

// reconcile brings the stored cursor in line with what the peer states. Positions
// of logs that we do not hold are not stored.
//
// Where the peer states less than what is stored it has lost data (design 6.6),
// unless the cursor learned of something, from another session of the same peer,
// that the peer wrote after it stated its frontier. So the peer is asked once
// more before it is told.
func (s *Session) reconcile(sp *spaceState, own, peer, stored []FrontierEntry) {
	if len(sp.suspects) > 0 {
		s.confirmLoss(sp, own, peer)
		return
	}
	walkFrontiers(own, peer, sortedEntries(stored), func(log LogID, o, p, st Position) {
		now := sp.peerPosition(log, o, p)
		switch {
		case st.Seq > now.Seq:
			sp.suspects = append(sp.suspects, FrontierEntry{Log: log, Pos: st})
		case o.Seq > 0 && now != st:
			s.save(sp, log, now)
		}
	})
	if len(sp.suspects) > 0 {
		s.reask(sp)
	}
}

func (s *Session) confirmLoss(sp *spaceState, own, peer []FrontierEntry) {
	suspects := sp.suspects
	sp.suspects = nil
	walkFrontiers(own, peer, suspects, func(log LogID, o, p, was Position) {
		if now := sp.peerPosition(log, o, p); was.Seq > now.Seq {
			s.lost(sp, DataLoss{Space: sp.info.ID, Log: log, Was: was, Now: now})
		}
	})
}

// lost reports a loss, but of the control space: there the peer may have cut a log by
// what this side only learns in this session, and what it has lost it gets again.
func (s *Session) lost(sp *spaceState, loss DataLoss) {
	if sp.info.ID != s.cfg.Control || s.cfg.Control == (SpaceID{}) {
		s.emit(loss)
	}
	s.save(sp, loss.Log, loss.Now)
}

// compareAgain takes what a later answer states of a log. Everything that the peer
// had stated when it was asked is in that answer, unless it has lost it: then it
// gets it again.
func (s *Session) compareAgain(sp *spaceState, log LogID, own, peer Position) {
	since := sp.since[log]
	now := higher(higher(peer, since.peer), since.stated)
	l, was := sp.logs[log], own // absent = equal
	if l != nil {
		was = higher(l.acked, l.base)
	}
	if now.Seq >= was.Seq {
		return
	}
	s.lost(sp, DataLoss{Space: sp.info.ID, Log: log, Was: was, Now: now})
	if l == nil {
		s.enqueue(s.addLog(sp, log, own, Position{}, now))
	} else {
		s.rewind(l, now)
	}
}

// statedSince notes what the peer states while a question to it is open.
func (sp *spaceState) statedSince(l *logState, pos Position) { sp.noteStated(l.id, pos) }

// noteStated is statedSince for any log: that of one in which the sides are equal may
// be what it is compared with once we have reached it.
func (sp *spaceState) noteStated(log LogID, pos Position) {
	if sp.ask.round == 0 && !sp.load.running {
		return
	}
	a, ok := sp.since[log]
	if !ok && len(sp.since) >= maxMissingUnknown {
		return
	}
	a.stated = higher(a.stated, pos)
	sp.since[log] = a
}

// peerPosition is what the peer of a settled space stated of a log, of which we
// hold own and its diff, if there was one, says peer.
func (sp *spaceState) peerPosition(log LogID, own, peer Position) Position {
	if l := sp.logs[log]; l != nil {
		own = higher(l.acked, l.base)
	}
	return higher(own, peer)
}

// save notes what the peer states for the cursor; the last word on a log holds.
func (s *Session) save(sp *spaceState, log LogID, pos Position) {
	if len(sp.saves) == 0 {
		s.saving = append(s.saving, sp)
	}
	if n := len(sp.saves); n > 0 && sp.saves[n-1].Log == log {
		sp.saves = sp.saves[:n-1]
	}
	sp.saves = append(sp.saves, FrontierEntry{Log: log, Pos: pos})
}

// flushSaves emits one SaveCursor per space for everything of this step.
func (s *Session) flushSaves() {
	for _, sp := range s.saving {
		s.emit(SaveCursor{Space: sp.info.ID, Entries: sp.saves})
		sp.saves = nil
	}
	s.saving = s.saving[:0]
}
