package routing

import "time"

// Verdict is what a node answers to a message that a neighbour pushed; the numbers
// are those of the wire.
type Verdict uint8

const (
	// Stored: it is durable here, or at the recipient if that is here.
	Stored Verdict = 1
	// Duplicate: it was here already, or is not needed here.
	Duplicate Verdict = 2
	// Acked: the recipient has acknowledged it already; the ack follows.
	Acked Verdict = 3
	// Expired: its lifetime is over by the clock here.
	Expired Verdict = 4
	// Invalid: it is malformed, forged or does not open. It would be in vain to
	// push it again.
	Invalid Verdict = 5
	// Busy: too much comes at once. Nothing should be pushed for a while.
	Busy Verdict = 6
	// Full: there is no room for this message. Others may be pushed.
	Full Verdict = 7
	// Spent: it may cross no further link, and the recipient is not here.
	Spent Verdict = 8
)

func (v Verdict) String() string {
	switch v {
	case Stored:
		return "stored"
	case Duplicate:
		return "duplicate"
	case Acked:
		return "acked"
	case Expired:
		return "expired"
	case Invalid:
		return "invalid"
	case Busy:
		return "busy"
	case Full:
		return "full"
	case Spent:
		return "ttl used up"
	}
	return "unknown verdict"
}

// Event is what happens to a Router.
type Event interface{ isEvent() }

type (
	// LinkUp: there is a session with a neighbour that takes messages.
	LinkUp struct {
		Peer    PeerKey
		Relayed bool
	}
	// LinkDown: it ended.
	LinkDown struct{ Peer PeerKey }
	// Submit: a text of this node, signed.
	Submit struct{ Msg *Message }
	// Received: a neighbour pushed a message, whose signature was verified.
	Received struct {
		Peer PeerKey
		Push uint64 // names the push in the Answer
		Hops uint8  // links crossed, this one included
		Msg  *Message
		// Text and Room of a text to this node: what it says, and whether the inbox
		// has room for it.
		Text []byte
		Room bool
	}
	// Answered: a neighbour answered a Send.
	Answered struct {
		Peer    PeerKey
		Push    uint64
		Verdict Verdict
		Retry   time.Duration // of Busy and Full; 0: not told
	}
	// Committed: a Persist is durable, or failed and changed nothing.
	Committed struct {
		Batch uint64
		Err   error
	}
	// Lost: the stored bytes of a message cannot be read, so that a Send is not
	// carried out.
	Lost struct {
		Key Key
		Err error // why; nil: there are none
	}
	// SetRoute and RemoveRoute change the routes by hand.
	SetRoute struct {
		Route Route
	}
	// RemoveRoute forgets what Table.Remove forgets.
	RemoveRoute struct{ Target PeerKey }
	// Tick: the time of Deadline has come.
	Tick struct{}
)

func (LinkUp) isEvent()      {}
func (LinkDown) isEvent()    {}
func (Submit) isEvent()      {}
func (Received) isEvent()    {}
func (Answered) isEvent()    {}
func (Committed) isEvent()   {}
func (Lost) isEvent()        {}
func (SetRoute) isEvent()    {}
func (RemoveRoute) isEvent() {}
func (Tick) isEvent()        {}

// Effect is what a Router wants done, in order.
type Effect interface{ isEffect() }

type (
	// Persist: make all of it durable in one transaction and then say Committed.
	// Nothing that depends on it was told to anybody yet.
	Persist struct {
		Batch uint64
		Ops   []StoreOp
	}
	// Send: push a stored message to a neighbour and say Answered when it answers.
	Send struct {
		Peer PeerKey
		Push uint64
		Key  Key
		Hops uint8
	}
	// Answer: answer a neighbour's push.
	Answer struct {
		Peer    PeerKey
		Push    uint64
		Verdict Verdict
		Retry   time.Duration
	}
	// Report: something became of a text of this node.
	Report struct {
		ID    ID
		State Outcome
		// At is where, of OutcomeSpent.
		At PeerKey
		// Err is why, of OutcomeFailed and perhaps OutcomeLost.
		Err error
	}
)

func (Persist) isEffect() {}
func (Send) isEffect()    {}
func (Answer) isEffect()  {}
func (Report) isEffect()  {}

// Outcome is what became of a text of this node.
type Outcome uint8

const (
	OutcomeStored    Outcome = iota + 1 // it is durable here
	OutcomeFailed                       // it is not, and forgotten
	OutcomeDelivered                    // the recipient holds it durably
	OutcomeExpired                      // its lifetime is over without that
	OutcomeSpent                        // a hop told that its TTL is used up there
	OutcomeLost                         // its stored bytes were lost here; other copies may still arrive
)

// Final tells the last outcome of a text: no Report about it follows.
func (o Outcome) Final() bool {
	return o != OutcomeStored && o != OutcomeSpent
}

// StoreOp is one change of the durable state.
type StoreOp interface{ isStoreOp() }

type (
	// PutHeld keeps a message.
	PutHeld struct{ Held Held }
	// SetHops changes what is kept with a message that is held.
	SetHops struct {
		Key  Key
		Hops uint8
		Via  PeerKey
	}
	// DropHeld forgets a message; it need not be there.
	DropHeld struct{ Key Key }
	// PutSeen remembers that a text to this node has come.
	PutSeen struct {
		Key   Key
		Until time.Time
	}
	// DropSeen forgets that.
	DropSeen struct{ Key Key }
	// PutInbox hands a text to this node's user.
	PutInbox struct {
		Msg  *Message
		Text []byte
	}
)

func (PutHeld) isStoreOp()  {}
func (SetHops) isStoreOp()  {}
func (DropHeld) isStoreOp() {}
func (PutSeen) isStoreOp()  {}
func (DropSeen) isStoreOp() {}
func (PutInbox) isStoreOp() {}

// Held is a message in custody, with what is kept beside it.
type Held struct {
	Msg *Message
	// Hops is how many links it had crossed on the best way here; 0: made here.
	Hops uint8
	// Via is the neighbour that it came from; zero: made here.
	Via PeerKey
	// Order is its place in the order of arrival.
	Order uint64
}

// Seen is a text to this node that has come, remembered until that time.
type Seen struct {
	Key   Key
	Until time.Time
}

// State is the durable state with which a Router begins.
type State struct {
	Held []Held
	Seen []Seen
}
