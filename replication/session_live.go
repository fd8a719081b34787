package replication

import "time"

// liveness is what a session knows of the peer being there (design 7.5).
type liveness struct {
	sends      uint64 // messages sent so far
	ponged     uint64 // the peer has read at least so many of them
	timerOrder uint64
	lastHeard  time.Time
	stale      bool
	pings      []pinged // unanswered, oldest first, at most maxPings
	nonce      uint64

	pingTimer, staleTimer, closeTimer timer
}

type pinged struct {
	nonce uint64
	at    time.Time
	sends uint64 // messages sent before it
}

func (s *Session) startLiveness() {
	s.lastHeard = s.now
	s.pingTimer.fire = s.ping
	s.staleTimer.fire = s.checkStale
	s.closeTimer.fire = s.checkClose
	s.after(&s.pingTimer, s.cfg.PingEvery)
	s.after(&s.staleTimer, s.cfg.StaleAfter)
	s.after(&s.closeTimer, s.cfg.CloseAfter)
}

func (s *Session) ping() {
	s.nonce++
	if len(s.pings) == maxPings {
		s.pings = append(s.pings[:0], s.pings[1:]...)
	}
	s.pings = append(s.pings, pinged{nonce: s.nonce, at: s.now, sends: s.sends})
	s.send(&Ping{Nonce: s.nonce})
	s.after(&s.pingTimer, s.cfg.PingEvery)
}

// Pinged is the number of the newest ping, which its Pong has too.
func (s *Session) Pinged() uint64 { return s.nonce }

// pong proves that the peer has read everything that was sent before the ping:
// what it has not answered a while later it will not answer. A retry waits for
// that proof, so that a slow link is not filled with repeats.
func (s *Session) pong(m *Pong) {
	for i, p := range s.pings {
		if p.nonce == m.Nonce {
			s.ponged = max(s.ponged, p.sends)
			s.emit(RTT{Value: s.now.Sub(p.at)})
			s.pings = append(s.pings[:0], s.pings[i+1:]...)
			return
		}
	}
}

func (s *Session) heard() {
	s.lastHeard = s.now
	if s.stale {
		s.stale = false
		s.emit(StateChanged{Stale: false})
		s.after(&s.staleTimer, s.cfg.StaleAfter)
	}
}

func (s *Session) checkStale() {
	if rest := s.cfg.StaleAfter - s.now.Sub(s.lastHeard); rest > 0 {
		s.after(&s.staleTimer, rest)
		return
	}
	s.stale = true
	s.emit(StateChanged{Stale: true})
}

func (s *Session) checkClose() {
	if rest := s.cfg.CloseAfter - s.now.Sub(s.lastHeard); rest > 0 {
		s.after(&s.closeTimer, rest)
		return
	}
	s.close(CodeStale, "nothing was heard from the peer for "+s.cfg.CloseAfter.String())
}
