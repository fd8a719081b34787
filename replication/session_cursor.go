package replication

import (
	"slices"
	"time"
)

// reconcileAfter is how long after a space has settled the stored cursor is compared: a
// pass over all logs, for which nobody should wait who still compares frontiers. The
// peer cannot tell when it has, but by then it has, as a rule. It is short, because
// a loss at the peer is only noticed then.
const reconcileAfter = 20 * time.Millisecond

// StoredDifference is where what the store remembers that a peer stated differs from
// a frontier: its entry of each log of the frontier that it states differently,
// without a position where it states nothing. Logs that the frontier does not have are
// left out: positions of logs that are not held are not stored. In any order.
func StoredDifference(f *Frontier, stored []FrontierEntry) []FrontierEntry {
	var out []FrontierEntry
	stored = sortedEntries(stored)
	known := 0
	for _, e := range stored {
		held := f.Position(e.Log)
		if held.Seq == 0 {
			continue
		}
		known++
		if held != e.Pos {
			out = append(out, e)
		}
	}
	if known == f.Len() {
		return out
	}
	for e := range f.All() {
		_, found := slices.BinarySearchFunc(stored, e.Log, func(s FrontierEntry, log LogID) int { return s.Log.Compare(log) })
		if !found {
			out = append(out, FrontierEntry{Log: e.Log})
		}
	}
	return out
}

// reconcile brings the stored cursor in line with what the peer states. loaded is
// what was held when differing, the StoredDifference, was made; own is what is held
// now.
//
// Where the peer states less than what is stored it has lost data (design 6.6),
// unless the cursor learned of something, from another session of the same peer,
// that the peer wrote after it stated its frontier. So the peer is asked once
// more before it is told.
func (s *Session) reconcile(sp *spaceState, own, loaded *Frontier, differing []FrontierEntry) {
	stored := make(map[LogID]Position, len(differing)+len(sp.logs))
	for log := range sp.logs {
		stored[log] = loaded.Position(log)
	}
	for log := range sp.missing {
		stored[log] = loaded.Position(log)
	}
	for _, e := range differing {
		stored[e.Log] = e.Pos
	}
	for _, log := range sortedKeys(stored) {
		o, st := own.Position(log), stored[log]
		now := sp.peerPosition(log, o, sp.missing[log].want)
		switch {
		case st.Seq > now.Seq:
			sp.suspects = append(sp.suspects, FrontierEntry{Log: log, Pos: st})
		case o.Seq > 0 && now != st:
			s.save(sp, log, now)
		}
	}
	if len(sp.suspects) > 0 {
		s.reask(sp)
	}
}

// confirmLoss looks at the suspects in the answer to the question about them.
func (s *Session) confirmLoss(sp *spaceState, own *Frontier, states func(LogID) Position) {
	suspects := sp.suspects
	sp.suspects = nil
	for _, was := range suspects {
		if now := sp.peerPosition(was.Log, sp.tipOf(own, was.Log), states(was.Log)); was.Pos.Seq > now.Seq {
			s.lost(sp, DataLoss{Space: sp.info.ID, Log: was.Log, Was: was.Pos, Now: now})
		}
	}
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
// gets it again. Unlike in reconcile no second question is needed: all that is compared
// was stated in this session, before the question, or noted since. Where no room was left
// to note it the next answer tells.
func (s *Session) compareAgain(sp *spaceState, log LogID, own, peer Position) {
	since, noted := sp.since[log]
	if !noted && len(sp.since) >= maxMissingUnknown {
		return
	}
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
