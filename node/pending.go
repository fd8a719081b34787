package node

import (
	"net/netip"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Bounds on handshakes that others began and that are under way at one time, each
// of which may take Config.HelloTimeout. One goes on in a few round trips, so that
// the bounds of a peer and of an address are no matter for who means it; they keep
// some strangers from holding all places by saying nothing.
const (
	// pendingShare is 1/pendingShare of all places: what one address may hold, but
	// leastPendingHost at least. leastPending is the least number of all places, of
	// which there are two for each session of Config.MaxPeers.
	pendingShare     = 8
	leastPendingHost = 8
	leastPending     = 32
	// maxPendingPeer is for one peer ID: one handshake of a session, one of the
	// session that moves to a direct connection, a probe, and one to spare.
	maxPendingPeer = 4
)

// pending counts handshakes under way that others began. A peer ID costs nothing
// and an address does, so that both are bounded; of this machine's own addresses
// (loopback) the peer ID alone, since its users need no address of their own to
// keep a node busy. Peers that come through one relay share the relay's address,
// and so do those behind one NAT.
//
// Invariant: every count is above 0, and the sum of each map is at most total.
type pending struct {
	total int
	peers map[peer.ID]int
	hosts map[netip.Prefix]int
}

func newPending() *pending {
	return &pending{peers: map[peer.ID]int{}, hosts: map[netip.Prefix]int{}}
}

// enter counts a handshake of a peer from a host (not valid: not known, or exempt)
// at a node of maxPeers sessions; false if there are too many.
func (p *pending) enter(id peer.ID, host netip.Prefix, maxPeers int) bool {
	all := max(2*maxPeers, leastPending)
	switch {
	case p.total >= all, p.peers[id] >= maxPendingPeer:
		return false
	case host.IsValid() && p.hosts[host] >= max(all/pendingShare, leastPendingHost):
		return false
	}
	p.total++
	p.peers[id]++
	if host.IsValid() {
		p.hosts[host]++
	}
	return true
}

// leave ends what enter counted.
func (p *pending) leave(id peer.ID, host netip.Prefix) {
	p.total--
	if p.peers[id]--; p.peers[id] == 0 {
		delete(p.peers, id)
	}
	if !host.IsValid() {
		return
	}
	if p.hosts[host]--; p.hosts[host] == 0 {
		delete(p.hosts, host)
	}
}

// remoteHost is who answers for a connection: its IPv4 address, or the /64 network
// of an IPv6 address, of which one machine has all. Not valid: this machine, or not
// known.
func remoteHost(c network.Conn) netip.Prefix {
	_, ip, err := hostOf(c.RemoteMultiaddr())
	if err != nil || ip.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	host, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address has fewer bits
	}
	return host
}

// enter counts a handshake that a peer began, until the function that it returns is
// called. An error is for the log: the peer gets no answer.
func (m *mesh) enter(c network.Conn) (leave func(), err error) {
	if id := c.RemotePeer(); m.gate.keepsAway(id) {
		m.turnOut(c)
		return nil, errKeptAway
	}
	return m.enterJoin(c)
}

// enterJoin is enter for a joiner, who may be kept away as a member.
func (m *mesh) enterJoin(c network.Conn) (leave func(), err error) {
	id, host := c.RemotePeer(), remoteHost(c)
	if !m.gate.hello(id) {
		m.gate.offence(id, nil)
		m.named("handshake refused", c, errTooManyHellos)
		m.turnOut(c)
		return nil, errTooManyHellos
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.inbound.enter(id, host, m.maxPeers) {
		return nil, errTooManyHandshakes
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.inbound.leave(id, host)
	}, nil
}
