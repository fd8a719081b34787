package node

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
)

// What is different for a session over a relayed connection: it sends runs in
// small pieces, since the relay may cut it after 128 KiB; being cut then is no
// failure; and it moves to a direct connection as soon as there is one.

const (
	// foreignRelayData is what a relay that follows libp2p's defaults carries on one
	// connection in each direction.
	foreignRelayData = 128 << 10
	// pieceParts: a relay's limit holds at least so many pieces, so that little is
	// sent twice; pieces of less than minPiece would cost more than they save.
	pieceParts, minPiece, maxPiece = 8, 4 << 10, 256 << 10
	// movedEnough is how many bytes of runs show that a session which a relay cut
	// was of use. Less is a failure: it would be made again and again for nothing.
	movedEnough = minPiece
)

// relayed tells whether a connection goes through a relay.
func relayed(c network.Conn) bool { return isRelayed(c.RemoteMultiaddr()) }

// pieceBytes is replicator.PeerInfo.PieceBytes for a connection.
func pieceBytes(c network.Conn) int {
	if !relayed(c) {
		return 0
	}
	limit, ok := c.Stat().Extra[client.StatLimitData].(uint64)
	if !ok || limit == 0 {
		limit = foreignRelayData
	}
	return int(min(max(limit/pieceParts, minPiece), maxPiece))
}

// cutByRelay tells that a session which has ended was relayed and of use: the
// next one goes on where it was.
func (s *session) cutByRelay() bool {
	return relayed(s.conn) && s.driver.MovedBytes() >= movedEnough
}

// relayed tells whether the target is an address through a relay.
func (t target) relayed() bool { return t.Addr != nil && isRelayed(t.Addr) }

// relayed implements link.
func (m *mesh) relayed(id peer.ID) bool {
	s := m.book.live(id)
	return s != nil && relayed(s.conn)
}

// direct are the peers with a session over a connection that is not relayed.
func (m *mesh) direct() []peer.ID {
	m.book.mu.Lock()
	defer m.book.mu.Unlock()
	var ids []peer.ID
	for id, r := range m.book.records {
		if r.session.alive() && !relayed(r.session.conn) {
			ids = append(ids, id)
		}
	}
	return ids
}

// connected hears of every new connection.
func (m *mesh) connected(_ network.Network, c network.Conn) {
	if relayed(c) {
		return
	}
	if s := m.book.live(c.RemotePeer()); s != nil {
		m.moveIfRelayed(s)
	}
}

// moveIfRelayed moves a session to a direct connection if it is relayed and there
// is one: the side that began it begins another one, and of two with one initiator
// the newer wins (design 7.3).
func (m *mesh) moveIfRelayed(s *session) {
	if s.endpoint == "" || !relayed(s.conn) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	best := m.directTo(s.id)
	if best == nil || m.closed || s.moving {
		return
	}
	s.moving = true
	m.wg.Go(func() { m.move(s, best) })
}

// directTo is a connection to a peer that is not relayed; nil: there is none.
func (m *mesh) directTo(id peer.ID) network.Conn {
	if best := pickConn(m.host.Network().ConnsToPeer(id)); best != nil && !relayed(best) {
		return best
	}
	return nil
}

// move begins another session in place of a relayed one, by way of a direct connection.
// Of several that a peer dials at one time it gives all but one up: if this was one of
// those, the next is used, of which nothing was heard meanwhile.
func (m *mesh) move(s *session, by network.Conn) {
	ctx, cancel := context.WithTimeout(m.dialer.ctx, 2*m.timeout)
	defer cancel()
	for {
		err := m.initiate(ctx, s.id, s.dialled, anyHold)
		if err != nil && ctx.Err() == nil {
			m.log.Debug("a session stays with its relay", "peer", s.id.String(), "err", err)
		}
		m.mu.Lock()
		next := m.directTo(s.id)
		if err == nil || ctx.Err() != nil || next == nil || next == by || !s.alive() {
			s.moving = false
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		by = next
	}
}

// wishDirect lets hole punching begin for a session that came through a relay.
func (m *mesh) wishDirect(s *session) {
	if s.endpoint != "" || !relayed(s.conn) || m.attend == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.wg.Go(func() {
		m.attend(channelContext{context.Background(), s.driver.Done()}, s.id)
	})
}

// relayError: the relay of an address cannot be reached, for the reason in it.
type relayError struct{ cause error }

func (e *relayError) Error() string { return e.cause.Error() }
func (e *relayError) Unwrap() error { return e.cause }

// reachRelay connects to the relay of an address. QUIC goes first whatever the
// address says: from there the relay sees the port that a hole can be punched
// for. What the address says need not be the only way to the relay.
func (c *connector) reachRelay(ctx context.Context, addr ma.Multiaddr, by time.Time) error {
	transport, relay, ok := splitCircuit(addr)
	if !ok {
		return errors.New("it is no address through one relay")
	}
	if conn := pickConn(c.host.Network().ConnsToPeer(relay)); conn != nil && !relayed(conn) {
		return nil
	}
	t := target{ID: relay, Schemes: []string{schemeQUIC, schemeTCP}}
	for _, part := range transport {
		switch part.Protocol().Code {
		case ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			t.Host = part.Value()
		case ma.P_TCP, ma.P_UDP:
			if n, err := strconv.ParseUint(part.Value(), 10, 16); err == nil {
				t.Port = uint16(n)
			}
		}
	}
	t.Key = endpointKey(schemeQUIC, t.Host, t.Port)
	if _, err := c.connect(ctx, t, relay, by); err != nil {
		return &relayError{err}
	}
	return nil
}
