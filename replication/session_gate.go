package replication

// The control space goes first (design 9.1): the trust state decides what of the data
// spaces is taken, and a node that has been away should know who was revoked before
// it takes or gives anything. So until the control space is settled, nothing that the
// peer stated of it is missing here, and the limits that follow are applied, no data
// space is asked about, answered about, named or pushed.
//
// That order saves work and does not decide anything: whether a block counts never
// depends on when it arrives, and a cut that comes later takes back what came before
// it. So a control space that cannot get in step (a full disk here, damage there)
// shows as any log does that is paused or missing, and after ControlWait the data
// spaces begin anyway.

// gate holds the data spaces back.
type gate struct {
	shut  bool
	told  bool // ControlInStep was said
	timer timer
	// early are the peer's questions about data spaces while the gate is shut, of
	// each space the last one, in the order of the first; at most MaxPeerSpaces. What
	// goes beyond is dropped: the peer asks again.
	early []*FrontierDigest
	place map[SpaceID]int // in early
}

func (s *Session) startGate() {
	if s.cfg.Control == (SpaceID{}) {
		return
	}
	s.gate.shut = true
	s.gate.place = map[SpaceID]int{}
	s.gate.timer.fire = s.waitedEnough
	s.after(&s.gate.timer, s.cfg.ControlWait)
	s.addSpace(SpaceInfo{ID: s.cfg.Control})
}

// heldBack tells whether nothing may be said about a space yet.
func (s *Session) heldBack(space SpaceID) bool { return s.gate.shut && space != s.cfg.Control }

// carries tells whether the peer may have a space.
func (s *Session) carries(space SpaceID) bool {
	return s.cfg.Carries == nil || space == s.cfg.Control || s.cfg.Carries(space)
}

// shares tells whether a space may be spoken of with the peer now.
func (s *Session) shares(space SpaceID) bool { return s.carries(space) && !s.heldBack(space) }

// keep keeps a question for later.
func (g *gate) keep(m *FrontierDigest) {
	i, known := g.place[m.Space]
	switch {
	case known && g.early[i].Round < m.Round:
		g.early[i] = m
	case !known && len(g.early) < MaxPeerSpaces:
		g.place[m.Space] = len(g.early)
		g.early = append(g.early, m)
	}
}

// checkGate tells once that the control space is in step.
func (s *Session) checkGate() {
	if s.gate.shut && !s.gate.told && s.controlInStep() {
		s.gate.told = true
		s.emit(ControlInStep{})
	}
}

func (s *Session) controlInStep() bool {
	sp := s.spaces[s.cfg.Control]
	return sp.settled && sp.missingOps+sp.missingMore == 0
}

func (s *Session) waitedEnough() {
	sp := s.spaces[s.cfg.Control]
	s.emit(ControlLate{Settled: sp.settled, Missing: sp.missingOps + sp.missingMore})
	s.openGate()
}

func (s *Session) openGate() {
	s.stopTimer(&s.gate.timer)
	early := s.gate.early
	s.gate = gate{}
	if p := s.partial; p != nil && p.Space != s.cfg.Control {
		s.announcePartial()
	}
	for _, sp := range s.order {
		if sp.info.ID != s.cfg.Control {
			s.askQueue.push(sp)
		}
	}
	for _, m := range early {
		s.asked(m)
	}
	s.askNext()
}

// askControl compares the control spaces again, where one side knows of a revocation
// and the other may not (design 9.4).
func (s *Session) askControl() {
	sp := s.spaces[s.cfg.Control]
	if sp != nil && !sp.declined && !sp.load.ask {
		s.reask(sp)
	}
}
