package node

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"vixp2p/replication/replicator"
)

// remember puts the peer of a session into the address book, and its addresses to
// those that are dialled when the session ends. dialled is the address that led
// to it; empty: it dialled. named is what it says about where it listens.
func (m *mesh) remember(s *session, dialled string, named []ma.Multiaddr) {
	m.addresses.meet(s.id, s.info.Label, dialled, plausible(named, s.conn), m.now())
	if !m.redial {
		return
	}
	for _, addr := range m.addresses.addrs(s.id) {
		for _, f := range rememberedAt(s.id, addr) {
			m.dialer.learn(f)
		}
	}
}

// ended writes a peer into the address book when its session has ended, with the
// time of that. One without an entry gets one: the book may have been full of
// connected peers.
func (m *mesh) ended(s *session) {
	if m.addresses.left(s.id, m.now()) {
		return
	}
	dialled := ""
	if s.dialled != nil {
		dialled = s.dialled.String()
	}
	m.remember(s, dialled, m.listens(s.conn))
}

// recall makes the peers of the address book known, and the members that stated
// something once and are not in it, as far as there is room.
func (m *mesh) recall() {
	for _, e := range m.addresses.list() {
		m.book.update(e.ID, func(r *peerRecord) { r.label, r.seen = e.Label, e.Last })
	}
	members, err := replicator.Known(m.engine().store)
	if err != nil {
		m.log.Warn("members that were met earlier are not listed", "err", err)
	}
	room := maxPeerRecords - len(m.book.labels())
	for _, c := range slices.Backward(members) {
		id, err := peerIDOf(c.Peer)
		if err != nil || id == m.self() || m.book.knows(id) {
			continue
		}
		if room--; room < 0 {
			return
		}
		m.book.update(id, func(r *peerRecord) { r.seen = c.Updated })
	}
}

// rememberLoop hears what peers say about where they listen, which may come after
// their session has begun, until ctx ends.
func (m *mesh) rememberLoop(ctx context.Context) error {
	sub, err := m.host.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return err
	}
	m.wg.Go(func() {
		defer sub.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-sub.Out():
				if !ok {
					return
				}
				who := e.(event.EvtPeerIdentificationCompleted)
				if s := m.book.live(who.Peer); s != nil {
					m.remember(s, "", who.ListenAddrs)
				}
			}
		}
	})
	return nil
}

// listens is where a connected peer listens, as far as it has told.
func (m *mesh) listens(conn network.Conn) []ma.Multiaddr {
	return slices.DeleteFunc(m.host.Peerstore().Addrs(conn.RemotePeer()), conn.RemoteMultiaddr().Equal)
}

// plausible are the addresses that a peer names at which this node might reach it,
// judged by the connection that there is: those of the same host first. Nobody is
// reached at another machine's loopback, nor at the private addresses of somebody
// who comes from the internet.
func plausible(named []ma.Multiaddr, conn network.Conn) []string {
	_, here, _ := hostOf(conn.RemoteMultiaddr())
	type claim struct {
		text string
		rank int
	}
	var claims []claim
	for _, a := range named {
		if _, ok := multiaddrKey(a); !ok {
			continue
		}
		_, ip, err := hostOf(a)
		c := claim{a.String(), 1}
		switch {
		case isRelayed(a):
			c.rank = 2
		case err != nil: // a name
		case ip == here && !isRelayed(conn.RemoteMultiaddr()):
			c.rank = 0
		case !reachable(ip, a, here):
			continue
		}
		claims = append(claims, c)
	}
	slices.SortStableFunc(claims, func(a, b claim) int { return cmp.Compare(a.rank, b.rank) })
	var out []string
	for _, c := range claims {
		out = append(out, c.text)
	}
	return out
}

// reachable tells whether an address may lead to a peer whose connection comes
// from here, which is not valid if that is not known.
func reachable(ip netip.Addr, a ma.Multiaddr, here netip.Addr) bool {
	switch {
	case ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast():
		return false
	case ip.IsLoopback():
		return here.IsLoopback()
	case manet.IsPrivateAddr(a):
		return here.IsPrivate() || here.IsLoopback() || here.IsLinkLocalUnicast()
	}
	return true
}
