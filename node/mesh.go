package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/replication"
)

// mesh makes and keeps the sessions: at most one with each peer, at most
// MaxPeers in all.
type mesh struct {
	host      host.Host
	connector connector
	service   *protocols.Service
	book      *peerBook
	engine    func() *engine // the one in use
	network   replication.NetworkID
	names     *spaceNames
	members   *membership // nil in an open network
	label     string
	agent     string
	boot      protocols.BootNonce
	maxPeers  int
	messages  bool             // this node takes routed messages
	timeout   time.Duration    // of a handshake
	pause     time.Duration    // in place of partedPause, in tests
	now       func() time.Time // monotonic
	clock     func() time.Time // of the calendar, for skew
	log       *slog.Logger
	dialer    *dialer      // set before the first session, like addresses
	addresses *addressBook // who is met
	redial    bool         // peers that are remembered are dialled

	attempts                          atomic.Uint64 // handshakes begun as dialer
	handshakesStarted, handshakesDone atomic.Uint64
	refusals                          refusalLog
	gate                              *gate
	serves                            bool                                  // the node is a relay for others
	moves                             *network.NotifyBundle                 // set before serve, like attend
	attend                            func(ctx context.Context, id peer.ID) // see reach.attend
	met                               func()                                // likewise; hears of every new session
	wg                                sync.WaitGroup                        // dialled sessions
	mu                                sync.Mutex                            // guards below; taken before the book's
	closed                            bool
	order                             uint64
	inbound                           *pending        // handshakes that peers began, under way
	dismissing                        map[peer.ID]int // those of them that were refused
}

// serve answers peers that dial this node.
func (m *mesh) serve() {
	m.service.Handle(protocols.SyncProtocol, m.accept)
	m.service.Handle(protocols.HelloProtocol, m.probe)
	m.host.Network().Notify(m.moves)
}

// establish implements link: connection, Hello, session.
func (m *mesh) establish(ctx context.Context, t target, hint peer.ID, by time.Time, before uint64) (peer.ID, error) {
	expected := cmp.Or(t.ID, hint)
	if expected != "" {
		m.book.change(expected, func(r *peerRecord) { r.connecting++ })
		defer m.book.change(expected, func(r *peerRecord) { r.connecting-- })
	}
	by, err := m.dropStale(ctx, t, expected, by)
	if err != nil {
		return "", err
	}
	conn, err := m.connector.connect(ctx, t, hint, by)
	if err != nil {
		m.note(expected, err)
		return "", err
	}
	id := conn.RemotePeer()
	if s := m.book.live(id); s != nil && (relayed(conn) || !relayed(s.conn)) {
		return id, errLostRace
	}
	if m.book.heldAfter(id, before) {
		return id, &RefusedError{Peer: id, Cause: errHeld}
	}
	if until, why := m.gate.putOut(id); !until.IsZero() { // it was not known who answers there
		m.book.update(id, func(*peerRecord) {}) // status says why it is left alone
		m.giveUp(id)
		return id, &RefusedError{Peer: id, Cause: &putOutError{until: until, why: why}}
	}
	m.book.update(id, func(r *peerRecord) { r.handshakes, r.forgotten = r.handshakes+1, false })
	defer m.book.change(id, func(r *peerRecord) { r.handshakes-- })
	err = m.initiate(ctx, id, &t, before)
	if err != nil && !errors.Is(err, errLostRace) && !errors.Is(err, errHeld) {
		m.note(id, err)
	}
	return id, err
}

// refusedTells is for how long a refusal at one address of a peer tells why it is away
// better than silence at its others.
const refusedTells = time.Minute

// note keeps why there is no session with a peer, for status.
func (m *mesh) note(id peer.ID, err error) {
	m.members.heardRefusal(id, err)
	if id != "" {
		m.book.change(id, func(r *peerRecord) {
			if isTimeout(err) && m.now().Sub(r.refused) < refusedTells && !r.refused.IsZero() {
				return // where somebody refuses the machine is there: that tells more
			}
			if brokeAtOnce(err) && m.now().Sub(r.said) < gateMost && !r.said.IsZero() {
				return // why it refused this node before tells more
			}
			r.lastErr, r.refused, r.said = err.Error(), time.Time{}, time.Time{}
			if fromPeer(err) {
				r.said = m.now()
			}
			if isRefused(err) {
				r.refused = m.now()
			}
			if errors.Is(err, protocols.ErrDisconnect) {
				m.part(r)
			}
		})
	}
}

// giveUp closes connections to a peer that do not answer, so that the next attempt
// does not find and use them.
func (m *mesh) giveUp(id peer.ID) {
	if m.book.live(id) == nil {
		_ = m.host.Network().ClosePeer(id) // they are given up
	}
}

// busy implements link.
func (m *mesh) busy(id peer.ID) (connected, held bool, until time.Time) {
	connected, held, until = m.book.busy(id, m.now())
	if key, err := protocols.OriginOf(id); err == nil && m.members != nil && m.members.revoked(key) != nil {
		return connected, true, time.Time{} // until an admin admits it again
	}
	if out, _ := m.gate.putOut(id); !out.IsZero() && (!held || !until.IsZero()) && out.After(until) {
		held, until = true, out
	}
	return connected, held, until
}

// unhold implements link.
func (m *mesh) unhold(id peer.ID, before uint64) {
	if until, why := m.gate.putOut(id); !until.IsZero() {
		m.log.Info("a peer that was put out is let in before its time: this node's user connects to it", "peer", id.String(), "until", until.UTC(), "why", why)
	}
	m.gate.forgive(id) // this node's user wants it
	m.book.change(id, func(r *peerRecord) {
		r.held = r.held && r.heldAt > before
		r.forgotten = r.forgotten && r.held
		r.parted, r.rest = time.Time{}, time.Time{}
	})
}

// lastHold implements link.
func (m *mesh) lastHold() uint64 { return m.book.lastHold() }

// heldAfter implements link.
func (m *mesh) heldAfter(id peer.ID, before uint64) bool { return m.book.heldAfter(id, before) }

// self implements link.
func (m *mesh) self() peer.ID { return m.host.ID() }

// room implements link: automatic attempts leave half of the sessions to peers
// that dial this node, so that newcomers find room in a network of nodes that
// have found each other. Without any session there is always room.
func (m *mesh) room() int {
	_, connected := m.book.counts()
	return (m.maxPeers+1)/2 - connected
}

// shutdownRest is how long a peer is left alone that said that it shuts down.
const shutdownRest = time.Second

// partedPause is after how long a peer is asked whether its user still wants no
// session.
const partedPause = time.Minute

// part leaves a peer alone for a while whose user wants no session.
func (m *mesh) part(r *peerRecord) {
	r.parted = m.now().Add(cmp.Or(m.pause, partedPause))
}

// forgottenDetail is what a peer is told that this node's user forgot.
const forgottenDetail = "it has forgotten this node"

// disconnect ends the session with a peer, which is told the detail, and leaves it alone
// until a user asks for it again. A handshake under way ends without a session: start admits under
// the same lock.
func (m *mesh) disconnect(ctx context.Context, id peer.ID, detail string) error {
	m.mu.Lock()
	s, known := m.book.hold(id)
	m.mu.Unlock()
	switch {
	case !known:
		return fmt.Errorf("peer %s: %w", id, ErrNotConnected)
	case s == nil:
		return nil // it is not dialled any more
	}
	s.driver.Close(replication.CodeDisconnect, detail)
	select {
	case <-s.closed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the session with %s is ending: %w", id, context.Cause(ctx))
	}
}

// closing refuses new sessions from now on.
func (m *mesh) closing() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
}

// wait returns when every session has ended. The service must be closed first.
func (m *mesh) wait() { m.wg.Wait() }
