package replication

import "time"

// Session is one peer's replication state machine. It is not safe for
// concurrent use; a driver owns it.
type Session struct{ cfg SessionConfig }

// NewSession makes a session that waits for Started.
func NewSession(cfg SessionConfig) *Session { return &Session{cfg: cfg} }

// Step advances the session. The result is valid until the next call.
func (s *Session) Step(now time.Time, ev Event) []Effect { return nil }

// Deadline is when the session wants a Tick; zero: never.
func (s *Session) Deadline() time.Time { return time.Time{} }

// Acked tells whether the peer stated that it durably holds log up to seq.
func (s *Session) Acked(space SpaceID, log LogID, seq uint64) bool { return false }

// Progress tells where replication of each space stands.
func (s *Session) Progress() []Progress { return nil }

// Partial is what to pass to the next session of the same peer instance.
func (s *Session) Partial() *Partial { return nil }
