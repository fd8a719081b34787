package replicator

import (
	"sync"

	"vixp2p/replication"
)

// item is what reaches an actor besides messages and time. Exactly one field is
// set.
type item struct {
	event replication.Event
	call  func() // runs on the actor, with the session at rest
}

// mailbox is how others reach an actor. Putting something in never blocks.
//
// It is bounded: advances by the number of logs that moved, answers by the
// effects that the session has outstanding, calls by those who wait for them.
type mailbox struct {
	source uint64        // of this session, as in Advance.Source
	wake   chan struct{} // holds a token while there may be something to take

	mu     sync.Mutex // guards below
	moved  map[replication.LogID]int
	ahead  []replication.Advanced // in the order in which the logs first moved
	items  []item
	closed bool
}

func newMailbox(source uint64) *mailbox {
	return &mailbox{source: source, wake: make(chan struct{}, 1), moved: map[replication.LogID]int{}}
}

// advance notes that a log grew. Advances of one log are merged: from the
// first one's Prev to the last one's Tip, and FromPeer only if all were.
func (m *mailbox) advance(a replication.Advance) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	fromPeer := a.Source == m.source
	if i, ok := m.moved[a.Log]; ok {
		have := &m.ahead[i]
		a.Prev = have.Prev
		a.Ops += have.Ops
		a.Bytes += have.Bytes
		have.Advance = a
		have.FromPeer = have.FromPeer && fromPeer
	} else {
		m.moved[a.Log] = len(m.ahead)
		m.ahead = append(m.ahead, replication.Advanced{Advance: a, FromPeer: fromPeer})
	}
	m.signal()
}

// post puts in an item; false if the session has ended.
func (m *mailbox) post(it item) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.items = append(m.items, it)
	m.signal()
	return true
}

// takeItems empties the mailbox but for advances. Take these afterwards and use
// them first: then every advance that came before an item is known before it.
func (m *mailbox) takeItems() []item {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = nil
	return items
}

// takeAdvances empties the mailbox of advances.
func (m *mailbox) takeAdvances() []replication.Advanced {
	m.mu.Lock()
	defer m.mu.Unlock()
	ahead := m.ahead
	m.ahead = nil
	clear(m.moved)
	return ahead
}

// close refuses everything from now on and returns what was not taken.
func (m *mailbox) close() []item {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	items := m.items
	m.ahead, m.items, m.moved = nil, nil, nil
	return items
}

func (m *mailbox) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
