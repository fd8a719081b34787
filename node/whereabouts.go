package node

import (
	"cmp"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// whereabouts is where this node is reached.
type whereabouts struct {
	addrs []string // multiaddrs, the best first
	port  uint16   // TCP; 0: none
	local bool     // from this machine only
}

func (w whereabouts) equal(o whereabouts) bool {
	return w.port == o.port && w.local == o.local && slices.Equal(w.addrs, o.addrs)
}

// transports names what the addresses speak, for a registry's readers.
func (w whereabouts) transports() string {
	var list []string
	for _, scheme := range []string{schemeTCP, schemeQUIC} {
		if slices.ContainsFunc(w.addrs, func(s string) bool {
			addr, err := ma.NewMultiaddr(s)
			return err == nil && !isRelayed(addr) && isTCP(addr) == (scheme == schemeTCP)
		}) {
			list = append(list, scheme)
		}
	}
	return strings.Join(list, ",")
}

// whereabouts are the addresses at which others reach this node: those that it
// advertises or that were found out about it, then those that it listens on. Where
// it listens on loopback only, these.
func (n *Node) whereabouts() whereabouts {
	said, own := n.saidAddrs(), n.ownAddrs()
	slices.SortStableFunc(said, byReach)
	slices.SortStableFunc(own, byReach)
	w := whereabouts{local: true}
	var near []ma.Multiaddr
	for _, a := range slices.Concat(said, own) {
		if _, ok := multiaddrKey(a); !ok {
			continue
		}
		if _, ip, err := hostOf(a); err == nil && !dialable(ip) {
			if ip.IsLoopback() {
				near = append(near, a)
			}
			continue
		}
		w.local = false
		w.add(a)
	}
	if w.local {
		for _, a := range near {
			w.add(a)
		}
	}
	return w
}

// saidAddrs are the addresses that are not this machine's own: as they were
// configured, as seen from outside, or at relays. A caller's own host says all of
// its addresses.
func (n *Node) saidAddrs() []ma.Multiaddr {
	said := n.reach.ads.addrs()
	for _, a := range n.host.Addrs() {
		// Of private addresses the host may name some that are gone: see ownAddrs.
		if n.cfg.Host != nil || isRelayed(a) || manet.IsPublicAddr(a) {
			said = append(said, a)
		}
	}
	return said
}

// ownAddrs are those that the node listens on.
func (n *Node) ownAddrs() []ma.Multiaddr {
	if n.cfg.Host != nil {
		return nil
	}
	return listeningAt(n.host)
}

func (w *whereabouts) add(a ma.Multiaddr) {
	if s := a.String(); !slices.Contains(w.addrs, s) {
		w.addrs = append(w.addrs, s)
	}
	if p, err := a.ValueForProtocol(ma.P_TCP); err == nil && w.port == 0 && !isRelayed(a) {
		_, w.port, _ = splitHostPort("x:" + p)
	}
}

// byReach sorts by how many others an address is of use to: public ones, then those
// through a relay, then private ones; and these as byPreference.
func byReach(a, b ma.Multiaddr) int {
	rank := func(m ma.Multiaddr) int {
		switch {
		case isRelayed(m):
			return 1
		case manet.IsPublicAddr(m):
			return 0
		}
		return 2
	}
	return cmp.Or(rank(a)-rank(b), byPreference(a, b))
}

// addressChanges tells when the host's addresses change, until the returned
// function is called.
func (n *Node) addressChanges() (<-chan any, func()) {
	sub, err := n.host.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.BufSize(1))
	if err != nil { // the host is closing: nothing changes any more
		return nil, func() {}
	}
	return sub.Out(), func() { _ = sub.Close() }
}
