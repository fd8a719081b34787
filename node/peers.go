package node

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/replication"
)

// State is where a peer stands, as this node sees it.
type State string

const (
	// Disconnected: there is no session; if an address is known, the dialer
	// tries again.
	Disconnected State = "Disconnected"
	// Connecting: its endpoint is being dialled.
	Connecting State = "Connecting"
	// Handshaking: connected, and Hello is under way.
	Handshaking State = "Handshaking"
	// Connected: there is a live session.
	Connected State = "Connected"
	// Stale: there is a session, and nothing was heard for Config.StaleAfter.
	Stale State = "Stale"
	// Closed: one side's user ended the session. That side does not dial until its
	// user asks for it or it starts again; the other one asks now and then whether
	// that has happened.
	Closed State = "Closed"
)

const (
	// maxPeerRecords bounds the peers that are remembered; beyond it the one
	// that was seen least recently and has no session is forgotten.
	maxPeerRecords = 1024
	// maxInstances is how many instances of one peer are remembered, to tell a
	// restart with a new history from copies that run at one time.
	maxInstances = 8
)

// peerBook is what is known of each peer, beside its live session.
type peerBook struct {
	mu      sync.Mutex // guards everything below
	records map[peer.ID]*peerRecord
	holds   uint64        // how often a user wanted no session any more, with anyone
	changed chan struct{} // closed and replaced after each change
}

type peerRecord struct {
	label      string
	connecting int  // dials to its known endpoints under way
	handshakes int  // under way
	stale      bool // of the live session
	held       bool // this node's user ended the session: no automatic dial
	forgotten  bool // likewise, and it is not shown until its next session
	// heldAt is when that was, by the book's count of holds; of use while held.
	heldAt uint64
	// parted: the peer's user ended the last session, so that there is no automatic
	// dial before this; zero: that is not so.
	parted time.Time
	// rest: the peer said that it shuts down; before this it would only say so again.
	rest     time.Time
	session  *session
	addr     string // of the newest session
	outbound bool
	seen     time.Time
	lastErr  string    // why the last session or attempt ended, until the next session
	refused  time.Time // when lastErr is that an address refused; zero: it is something else
	said     time.Time // likewise, that the peer said why
	// instances that this identity had, the newest last, each once.
	instances []replication.Instance
	copies    bool // an older instance came back: copies of one directory run
	// displaced counts sessions that the peer ended in favour of another one
	// that this node does not have, in a row.
	displaced int
	cut       bool // the last session was of use, and a relay cut it
	skew      time.Duration
}

func newPeerBook() *peerBook {
	return &peerBook{records: map[peer.ID]*peerRecord{}, changed: make(chan struct{})}
}

// update changes a peer's record, which it makes if it is new.
func (b *peerBook) update(id peer.ID, fn func(r *peerRecord)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn(b.recordLocked(id))
	b.tellLocked()
}

// change is update for a peer that is known already.
func (b *peerBook) change(id peer.ID, fn func(r *peerRecord)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.records[id]; r != nil {
		fn(r)
		b.tellLocked()
	}
}

// tellLocked wakes whoever waits for a change.
func (b *peerBook) tellLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *peerBook) recordLocked(id peer.ID) *peerRecord {
	if r := b.records[id]; r != nil {
		return r
	}
	if len(b.records) >= maxPeerRecords {
		var oldest peer.ID
		var at time.Time
		for other, r := range b.records {
			idle := r.session == nil && r.handshakes == 0 && r.connecting == 0
			if idle && (!r.held || r.forgotten) && (oldest == "" || r.seen.Before(at)) {
				oldest, at = other, r.seen
			}
		}
		delete(b.records, oldest)
	}
	r := &peerRecord{}
	b.records[id] = r
	return r
}

// meet notes the instance of a peer's new session and tells whether that shows,
// for the first time, that copies of its directory run: an instance that was
// replaced has come back. A restart with a new history never goes back.
func (r *peerRecord) meet(instance replication.Instance) (copies bool) {
	at := slices.Index(r.instances, instance)
	if at == len(r.instances)-1 && at >= 0 {
		return false
	}
	if at >= 0 {
		copies = !r.copies
		r.copies = true
		r.instances = slices.Delete(r.instances, at, at+1)
	}
	r.instances = append(r.instances, instance)
	if len(r.instances) > maxInstances {
		r.instances = slices.Delete(r.instances, 0, 1)
	}
	return copies
}

func (r *peerRecord) state() State {
	switch {
	case r.session != nil && r.stale:
		return Stale
	case r.session != nil:
		return Connected
	case r.handshakes > 0:
		return Handshaking
	case r.connecting > 0:
		return Connecting
	case r.held, !r.parted.IsZero():
		return Closed
	}
	return Disconnected
}

// live returns the session with a peer, or nil.
func (b *peerBook) live(id peer.ID) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.records[id]; r != nil && r.session.alive() {
		return r.session
	}
	return nil
}

// arrivalPatience is for a session whose handshake the peer has finished to
// arrive here.
const arrivalPatience = time.Second

// waitLive waits a moment for a session with a peer; false if none comes.
func (b *peerBook) waitLive(ctx context.Context, id peer.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, arrivalPatience)
	defer cancel()
	for {
		b.mu.Lock()
		r, changed := b.records[id], b.changed
		live := r != nil && r.session.alive()
		b.mu.Unlock()
		if live {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// session returns the session with a peer, or nil. It may have ended, as long as the
// node has not drawn its conclusions from the end.
func (b *peerBook) session(id peer.ID) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.records[id]; r != nil {
		return r.session
	}
	return nil
}

// busy tells whether a peer has a session that is not stale, or must be left
// alone, and until when. Until the end of a session has been looked at, it may be one
// that says that the peer is to be left alone.
func (b *peerBook) busy(id peer.ID, now time.Time) (connected, held bool, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.records[id]
	if r == nil {
		return false, false, time.Time{}
	}
	connected = r.session != nil && !(r.stale && r.session.alive())
	until = r.parted
	if r.rest.After(until) {
		until = r.rest
	}
	if r.held || !now.Before(until) {
		return connected, r.held, time.Time{}
	}
	return connected, true, until
}

// hold notes that this node's user wants no session with a peer any more, and
// returns the one that there is. known is false of a peer without a record.
func (b *peerBook) hold(id peer.ID) (s *session, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.records[id]
	if r == nil {
		return nil, false
	}
	b.holds++
	r.held, r.heldAt = true, b.holds
	b.tellLocked()
	return r.session, true
}

// anyHold comes before every hold, whenever it was.
const anyHold = 0

// lastHold is the newest hold so far, of any peer.
func (b *peerBook) lastHold() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.holds
}

// held is nil, or errHeld if a peer is held since later than what lastHold gave.
func (b *peerBook) held(id peer.ID, before uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.records[id]; r != nil && r.held && r.heldAt > before {
		return heldError{forgotten: r.forgotten}
	}
	return nil
}

func (b *peerBook) heldAfter(id peer.ID, before uint64) bool { return b.held(id, before) != nil }

// parted tells whether the peer's user ended the session last.
func (b *peerBook) parted(id peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.records[id]
	return r != nil && !r.parted.IsZero()
}

// sessions are the live ones.
func (b *peerBook) sessions() (list []*session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.records {
		if r.session.alive() {
			list = append(list, r.session)
		}
	}
	return list
}

// counts are the peers that are known and those with a session.
func (b *peerBook) counts() (total, connected int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.records {
		if !r.forgotten {
			total++
		}
		if r.session != nil {
			connected++
		}
	}
	return total, connected
}

// find is findPeer among the peers of the book.
func (b *peerBook) find(name string) (peer.ID, error) { return findPeer(name, maps.All(b.labels())) }

// labels are those of all peers of the book.
func (b *peerBook) labels() map[peer.ID]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	labels := make(map[peer.ID]string, len(b.records))
	for id, r := range b.records {
		if !r.forgotten {
			labels[id] = r.label
		}
	}
	return labels
}

// knows tells whether a peer was met, or is remembered.
func (b *peerBook) knows(id peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.records[id] != nil && !b.records[id].forgotten
}
