package replication

import "fmt"

// Which spaces are shared: a question about a space that is not known here either
// makes it known or is answered with a refusal, and a refusal of the peer takes the
// space out of what is compared, pushed and waited for. About a space that the peer
// may not have it gets the same answer whether it is known here or not.

const notGranted = "the space is not granted to this peer, as far as this node knows"

// stranger is a space that is not known here, with the peer's last question.
type stranger struct {
	question
	refused bool // the node does not take part in it
}

// asked notes the peer's question; the answer follows from our frontier.
func (s *Session) asked(m *FrontierDigest) {
	switch {
	case s.heldBack(m.Space):
		s.gate.keep(m)
		return
	case !s.carries(m.Space):
		s.ack(AckEntry{Space: m.Space, Code: CodeNotAllowed, Detail: notGranted})
		return
	}
	q := question{round: m.Round, digest: m.Digest, levels: m.Levels}
	sp := s.spaces[m.Space]
	if sp == nil {
		s.askedUnknown(m, q)
		return
	}
	sp.asked = true
	if sp.held != nil && sp.held.round < q.round {
		sp.held = nil // nobody waits for that answer any more
	}
	if sp.load.answer == nil || sp.load.answer.round < q.round {
		sp.load.answer = &q
	}
	if sp.declined { // it takes part after all
		sp.declined = false
		sp.load.ask = true
	}
	s.loadFrontier(sp)
}

func (s *Session) askedUnknown(m *FrontierDigest, q question) {
	old, known := s.strangers[m.Space]
	if !known && len(s.strangers) == MaxPeerSpaces {
		s.violation(fmt.Sprintf("the peer asked about more than %d spaces that are not known here", MaxPeerSpaces))
		return
	}
	if !known || old.round < q.round {
		old.question = q
		s.strangers[m.Space] = old
	}
	switch {
	case !known:
		s.emit(AddSpace{Space: SpaceInfo{ID: m.Space, Name: m.Name}})
	case old.refused:
		s.refuseSpace(m.Space)
	}
}

// refuseSpace answers the peer's question about a space in which this node does
// not take part.
func (s *Session) refuseSpace(id SpaceID) {
	st, asked := s.strangers[id]
	if !asked {
		return
	}
	st.refused = true
	s.strangers[id] = st
	s.ack(AckEntry{Space: id, Code: CodeNotAllowed, Detail: "this node does not take part in the space"})
}

// spaceDeclined takes the peer's word that it does not take part in a space: there
// is nothing to compare, to push or to wait for. Who has asked about it takes part:
// the word is from before.
func (s *Session) spaceDeclined(sp *spaceState) {
	if sp.settled || sp.declined || sp.asked {
		return
	}
	sp.declined = true
	s.askDone(sp)
	sp.forgetSince()
}
