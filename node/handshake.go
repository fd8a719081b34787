package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/replication"
)

// Errors that reset a stream unread: whoever causes them does not wait for an
// answer. See pending and gate for the bounds.
var (
	errTooManyHandshakes = errors.New("too many handshakes at one time")
	errTooManyHellos     = errors.New("it begins one handshake after the other")
	errKeptAway          = errors.New("it was refused a moment ago, and is not heard yet")
)

// errClosedAtOnce: the far side ended a connection before anything was said.
var errClosedAtOnce = errors.New("the connection was closed at once: the peer does not accept it, perhaps because it refused this node a moment ago: its log tells why")

// errHeld: this node's user wants no session with the peer. It says nothing against
// the endpoint. The peer is told the code of ErrDisconnect.
var errHeld error = heldError{}

type heldError struct{ forgotten bool }

func (e heldError) Error() string {
	if e.forgotten {
		return "this node's user has forgotten it: connect to it to have a session again"
	}
	return "this node's user has asked to disconnect from it: connect to it to have a session again"
}

// Is makes every heldError match errHeld.
func (heldError) Is(target error) bool { return target == errHeld }

func (e heldError) Unwrap() error {
	detail := ""
	if e.forgotten {
		detail = forgottenDetail
	}
	return protocols.Refuse(replication.CodeDisconnect, detail)
}

// fullError: this node has as many sessions as it may. The peer is told that it is
// busy, in words from its side.
type fullError struct{ sessions, max int }

func (e *fullError) Error() string {
	return fmt.Sprintf("this node has its %s (--max-peers %d): disconnect one, or allow more", sessionsText(e.sessions), e.max)
}

func (e *fullError) Unwrap() error {
	return protocols.Refuse(replication.CodeBusy, fmt.Sprintf("it has its %s already", sessionsText(e.sessions)))
}

func sessionsText(n int) string {
	if n == 1 {
		return "1 session"
	}
	return fmt.Sprintf("%d sessions", n)
}

// brokeAtOnce tells an attempt that the far side ended without a word: what it said
// before tells more.
func brokeAtOnce(err error) bool {
	return errors.Is(err, errClosedAtOnce) || errors.Is(err, network.ErrReset) || errors.Is(err, syscall.ECONNRESET)
}

// RefusedError: the peer and this node do not make a session.
type RefusedError struct {
	Peer  peer.ID
	Cause error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("no session with %s: %v", e.Peer, e.Cause)
}
func (e *RefusedError) Unwrap() error { return e.Cause }

// initiate runs the handshake as the dialer and starts the session, unless the peer
// is held since later than before (see peerBook.lastHold).
func (m *mesh) initiate(ctx context.Context, id peer.ID, dialled *target, before uint64) error {
	m.handshakesStarted.Add(1)
	opening, cancel := context.WithTimeout(ctx, m.timeout)
	st, release, err := m.service.Open(opening, id, protocols.SyncProtocol)
	cancel()
	// A connection that has ended is known to libp2p a moment later than to who uses it.
	if err != nil && ctx.Err() == nil && pickConn(m.host.Network().ConnsToPeer(id)) == nil {
		return &RefusedError{Peer: id, Cause: errClosedAtOnce}
	}
	if err != nil {
		m.giveUp(id)
		return &RefusedError{Peer: id, Cause: fmt.Errorf("it does not answer to %s (%w): is it a vix node?", protocols.SyncProtocol, err)}
	}
	stop := context.AfterFunc(ctx, func() { st.Reset() })
	budget := newAccountBudget(m.engine().budget)
	hello := m.hello(id, budget)
	hello.Attempt = m.attempts.Add(1)
	hello.Verdict = func(p protocols.PeerHello) error { return m.verdict(p, before) }
	sess, err := protocols.Initiate(st, hello)
	if !stop() && err == nil {
		err = ctx.Err() // the stream was reset at the last moment
	}
	if err == nil {
		var s *session
		if s, err = m.start(sess, st, dialled, budget, before); err == nil {
			m.wg.Go(func() {
				m.watch(s)
				release()
			})
			m.moveIfRelayed(s)
			return nil
		}
	}
	release()
	switch {
	case errors.Is(err, protocols.ErrDuplicate):
		// The other one was dialled by the peer and arrives here in a moment.
		if m.book.waitLive(ctx, id) {
			return errLostRace
		}
	case errors.Is(err, protocols.ErrHelloTimeout) || ctx.Err() != nil:
		m.giveUp(id)
	}
	return &RefusedError{Peer: id, Cause: err}
}

// accept runs the handshake as the responder, and the session to its end.
func (m *mesh) accept(st network.Stream) error {
	leave, err := m.enter(st.Conn())
	if err != nil {
		return err
	}
	id, before := st.Conn().RemotePeer(), m.book.lastHold()
	m.handshakesStarted.Add(1)
	budget := newAccountBudget(m.engine().budget)
	sess, err := protocols.Respond(st, m.hello(id, budget))
	if err != nil {
		m.refused(st, err)
		leave()
		return err
	}
	leave()
	s, err := m.start(sess, st, nil, budget, before)
	if err != nil {
		m.refused(st, err)
		return nil // start has told the peer
	}
	m.watch(s)
	return nil
}

// probe answers a peer that asks whether it would be let in.
func (m *mesh) probe(st network.Stream) error {
	leave, err := m.enter(st.Conn())
	if err != nil {
		return err
	}
	id := st.Conn().RemotePeer()
	defer leave()
	sess, err := protocols.Respond(st, m.hello(id, nil))
	if err != nil {
		m.refused(st, err)
		return err
	}
	m.gate.welcome(id)
	return sess.Close()
}

// hello is what this node shows to a peer, and how it decides on it.
func (m *mesh) hello(id peer.ID, budget *accountBudget) protocols.HelloConfig {
	cfg := protocols.HelloConfig{
		Network: m.network, Self: m.host.ID(), Peer: id,
		Instance: m.engine().store.Info().Instance, Boot: m.boot,
		Label: m.label, Agent: m.agent,
		Features: []string{protocols.FeatureTrie, protocols.FeatureTrieShared},
		Timeout:  m.timeout, Now: m.clock,
	}
	if m.members == nil {
		cfg.Spaces = m.names.list()
	} else { // the session names them to those who carry them
		cfg.Certificate = m.members.certificate()
		cfg.Admit = func(key replication.OriginKey) error { return m.members.revoked(key) }
	}
	cfg.Verdict = func(p protocols.PeerHello) error {
		if p.Has(protocols.FeatureAgain) {
			return m.verdict(p, anyHold) // it may come only if this side's user allows it
		}
		return m.verdict(p, m.book.lastHold())
	}
	if m.book.parted(id) {
		cfg.Features = append(cfg.Features, protocols.FeatureAgain)
	}
	if m.engine().store.Info().Relaxed {
		cfg.Features = append(cfg.Features, protocols.FeatureRelaxed)
	}
	if m.messages {
		cfg.Features = append(cfg.Features, protocols.FeatureMsg)
	}
	if budget != nil {
		cfg.Budget = budget
	}
	return cfg
}

// verdict refuses what start would refuse, in time for the peer to hear it
// before the session begins, and a peer that is held since later than before.
func (m *mesh) verdict(p protocols.PeerHello, before uint64) error {
	if m.members != nil {
		if _, err := m.members.check(p.PeerInfo); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.book.held(p.ID, before); err != nil {
		return err
	}
	meta := p.Meta
	meta.Order = m.order + 1
	return m.admitLocked(p.ID, meta)
}

// admitLocked decides on a session: an error matches ErrShutdown, ErrDuplicate
// or ErrBusy of package protocols.
func (m *mesh) admitLocked(id peer.ID, meta protocols.SessionMeta) error {
	if m.closed {
		return protocols.Refuse(replication.CodeShutdown, "")
	}
	if m.engine().isRetired() {
		return protocols.Refuse(replication.CodeBusy, "it repairs its data at this moment")
	}
	if have := m.book.live(id); have != nil {
		// A peer dials only if it has no session. So a session that is older than
		// any handshake under way is no crossed dial: the peer has lost it, and
		// this side has not noticed yet.
		crossed := m.now().Sub(have.since) < 2*m.timeout
		if crossed && protocols.KeepWhich(have.meta, meta) == protocols.KeepFirst {
			return protocols.Refuse(replication.CodeDuplicate, "")
		}
		return nil
	}
	if _, connected := m.book.counts(); connected >= m.maxPeers {
		return &fullError{sessions: connected, max: m.maxPeers}
	}
	return nil
}

// refused draws the conclusions from an inbound handshake that did not become a
// session.
func (m *mesh) refused(st network.Stream, err error) {
	m.members.heardRefusal(st.Conn().RemotePeer(), err)
	if errors.Is(err, protocols.ErrDuplicate) || errors.Is(err, protocols.ErrDisconnect) {
		return // crossed dials, or what our user asked for: nothing is wrong
	}
	m.named("handshake refused", st.Conn(), err)
	if !isOffence(err) {
		return
	}
	m.gate.offence(st.Conn().RemotePeer(), nil)
	m.dismiss(st.Conn())
}

// isOffence tells whether a handshake that failed speaks against the peer: it is not
// one of this network, or does not follow the protocol. A node that is busy, shuts
// down or waits in vain has nothing to say against it.
func isOffence(err error) bool {
	return slices.ContainsFunc([]error{
		protocols.ErrOtherNetwork, protocols.ErrOtherMajor, protocols.ErrProtocol,
		protocols.ErrNoCertificate, protocols.ErrCertExpired, protocols.ErrCertRevoked,
	}, func(e error) bool { return errors.Is(err, e) }) && !fromPeer(err)
}

// fromPeer tells whether an error is what the peer said.
func fromPeer(err error) bool {
	said, ok := errors.AsType[*protocols.CodeError](err)
	return ok && said.FromPeer
}

// dismiss closes a connection that a peer began and that nothing else needs, once
// the peer had time to read why.
func (m *mesh) dismiss(c network.Conn) {
	id := c.RemotePeer()
	m.mu.Lock()
	m.dismissing[id]++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.dismissing[id]--; m.dismissing[id] == 0 {
			delete(m.dismissing, id)
		}
	}()
	select {
	case <-time.After(protocols.ByeTimeout):
	case <-m.dialer.ctx.Done():
		return
	}
	m.turnOut(c)
}

// turnOut closes the connections that a peer began, unless it has a session, a handshake
// under way that was not refused, or may use this node as a relay.
func (m *mesh) turnOut(c network.Conn) {
	id := c.RemotePeer()
	m.mu.Lock()
	needed := m.serves || m.inbound.peers[id] > m.dismissing[id] || m.book.live(id) != nil
	m.mu.Unlock()
	if needed {
		return
	}
	// Also those that a dial of several addresses at one time has left.
	for _, c := range append(m.host.Network().ConnsToPeer(id), c) {
		if c.Stat().Direction == network.DirInbound {
			_ = c.Close() // it is given up
		}
	}
}

// named logs what a peer did: one line for each peer and kind in a minute.
func (m *mesh) named(what string, c network.Conn, err error) {
	id := c.RemotePeer().String()
	if !m.refusals.fresh(fmt.Sprint(what, id, protocols.CodeOf(err)), m.now()) {
		return
	}
	args := []any{"peer", id, "addr", readable(c.RemoteMultiaddr()), "err", err}
	if n := m.refusals.takeLeftOut(); n > 0 {
		args = append(args, "left_out_before", n)
	}
	m.log.Warn(what, args...)
}
