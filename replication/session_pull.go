package replication

import "fmt"

// pullState is an OutboxPull on its way to be answered (design 6.5). The answer
// ends with the first run that reaches a limit, or when nothing is left.
type pullState struct {
	id       uint64
	space    SpaceID // zero: all
	maxOps   uint64  // 0: no limit
	maxBytes uint64
	ops      uint64 // sent so far
	bytes    uint64
}

func (s *Session) outboxPull(m *OutboxPull) {
	for _, p := range s.pulls.items[s.pulls.head:] {
		if p.id == m.ID {
			return
		}
	}
	if s.pulls.len() == MaxQueuedPulls {
		s.violation(fmt.Sprintf("more than %d outbox pulls wait for their answer", MaxQueuedPulls))
		return
	}
	s.clearModes() // what is asked for is pushed
	s.pulls.push(&pullState{id: m.ID, space: m.Space, maxOps: m.MaxOps, maxBytes: m.MaxBytes})
}

// pull asks the peer.
func (s *Session) pull(ev Pull) {
	s.pullID++
	s.send(&OutboxPull{ID: s.pullID, Space: ev.Space, MaxOps: ev.MaxOps, MaxBytes: ev.MaxBytes})
}

// currentPull is the one that is being answered.
func (s *Session) currentPull() *pullState {
	if s.pulls.len() == 0 {
		return nil
	}
	return s.pulls.items[s.pulls.head]
}

func (p *pullState) covers(sp *spaceState) bool {
	return p.space == SpaceID{} || p.space == sp.info.ID
}

// mayPush: a peer that wants to be asked gets nothing else.
func (s *Session) mayPush(sp *spaceState) bool {
	if !s.cfg.PeerPullOnly {
		return true
	}
	p := s.currentPull()
	return p != nil && p.covers(sp)
}

// countPull counts a run as part of the current answer, and tells whether the
// answer ends with it.
func (s *Session) countPull(sp *spaceState, ops, bytes uint64) (id uint64, end bool) {
	p := s.currentPull()
	if p == nil || !p.covers(sp) {
		return 0, false
	}
	p.ops += ops
	p.bytes += bytes
	if (p.maxOps > 0 && p.ops >= p.maxOps) || (p.maxBytes > 0 && p.bytes >= p.maxBytes) {
		s.pulls.pop()
		return p.id, true
	}
	return p.id, false
}

// endPull ends the current answer if nothing is left for it.
func (s *Session) endPull() bool {
	p := s.currentPull()
	if p == nil || s.reads > 0 || len(s.ready) > 0 || s.heldBack(p.space) {
		return false
	}
	for _, sp := range s.order {
		if !p.covers(sp) {
			continue
		}
		// A space that the peer does not answer for does not hold it up for long.
		if sp.queue.len() > 0 || (!sp.settled && !sp.declined && sp.ask.tries < 2) {
			return false
		}
	}
	s.pulls.pop()
	s.send(&WalPush{Space: p.space, Pull: p.id, PullEnd: true})
	return true
}
