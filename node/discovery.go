package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// DiscoveryStatus tells how the node looks for peers beside those that are named
// to it.
type DiscoveryStatus struct {
	LAN      LANStatus
	DHT      DHTStatus
	Registry RegistryStatus
}

// discovery finds members and notices when the network changes.
type discovery struct {
	n        *Node
	lan      *lan // nil: switched off
	dht      *dht
	registry *registrySource // nil: none is configured
}

func newDiscovery(n *Node) *discovery {
	d := &discovery{n: n, dht: newDHT(n.id, n.log)}
	d.dht.connected, d.dht.now = n.mesh.book.connected, time.Now
	d.dht.usable, d.dht.open = d.usable, d.openTable
	for _, s := range n.cfg.DHTBootstrap {
		if t, err := parseTarget(s); err == nil { // Config.check saw to that
			d.dht.bootstrap = append(d.dht.bootstrap, t)
		}
	}
	d.dht.wanting = func() bool { return n.mesh.room() > 0 }
	if n.cfg.Registry != "" {
		d.registry = n.newRegistrySource()
	}
	if n.cfg.NoDiscovery {
		return d
	}
	d.lan = newLAN(n.network, n.id, n.cfg.DiscoveryInterval, n.log)
	d.lan.listening, d.lan.connected, d.lan.now = n.host.Network().ListenAddresses, n.mesh.book.connected, time.Now
	return d
}

// run implements source: it looks for members until ctx ends.
func (d *discovery) run(ctx context.Context, offer func(found)) {
	if d.n.cfg.NoConnect {
		offer = func(found) {} // others may find this node
	}
	watch := netwatch{look: new(interfaces).look, clocks: systemClocks(time.Now()), changed: d.changed}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { watch.run(ctx) })
	if d.lan != nil {
		wg.Go(func() { d.lan.run(ctx, offer) })
	}
	wg.Go(func() {
		if mode, why := d.dhtMode(); mode == DHTOff {
			d.dht.tell(func(st *DHTStatus) { st.Why = why })
		} else {
			d.dht.run(ctx, mode, offer)
		}
	})
	if d.registry != nil && (d.registry.dials || d.registry.announces) {
		wg.Go(func() {
			addresses, stop := d.n.addressChanges()
			defer stop()
			d.registry.run(ctx, addresses, offer)
		})
	}
}

// beyond tells that other machines can reach this node.
func (d *discovery) beyond() bool {
	return slices.ContainsFunc(d.n.host.Network().ListenAddresses(), reachesBeyond)
}

// dhtMode is the part that this node takes in the distributed hash table, and why
// if it takes none.
func (d *discovery) dhtMode() (mode DHTMode, why string) {
	switch cfg := &d.n.cfg; {
	case cfg.DHT == DHTOff:
		return DHTOff, "it is switched off (--dht off)"
	case cfg.DHT != DHTDefault:
		return cfg.DHT, ""
	case cfg.NoConnect:
		return DHTOff, "this node connects to nobody (--no-connect)"
	case len(cfg.DHTBootstrap) == 0 && !d.beyond():
		return DHTOff, "this node listens on loopback only and no --dht-bootstrap is given; --dht auto switches it on"
	}
	return DHTAuto, ""
}

func (d *discovery) openTable(mode DHTMode) (dhtTable, error) {
	table, err := openKad(d.n.host, d.n.network, mode, d.n.cfg.MaxPeers, d.usable)
	if err != nil {
		return nil, err
	}
	table.own, table.needed = d.n.cfg.Host == nil, d.n.mesh.book.busyWith
	return table, nil
}

// usable tells whether an address that a member told can lead to another one from
// here: an IP address that needs no interface named (see dialable), or a loopback
// address while this node has nothing else itself. Names would make this node look up
// what strangers like.
func (d *discovery) usable(a ma.Multiaddr) bool {
	_, ip, err := hostOf(a)
	if err != nil {
		return false
	}
	if d.beyond() {
		return dialable(ip)
	}
	return ip.IsLoopback()
}

// busyWith tells whether a peer has a session, or one is being made.
func (b *peerBook) busyWith(id peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.records[id]
	return r != nil && (r.session.alive() || r.handshakes > 0 || r.connecting > 0)
}

// changed draws the conclusions when the network has changed or the machine has
// slept: what cannot live on is ended, and everything that looks for peers looks
// at once.
func (d *discovery) changed(c netChange) {
	n := d.n
	n.log.Info("looking for peers again", "why", c.what, "slept", c.slept)
	var own []ma.Multiaddr
	if n.cfg.Host == nil { // else it may stand on another network
		var err error
		if own, err = manet.InterfaceMultiaddrs(); err != nil {
			n.log.Warn("cannot list the addresses of this machine", "err", err)
		}
	}
	n.mesh.dropLost(ipsOf(own), c.slept >= n.cfg.StaleAfter)
	if d.lan != nil {
		d.lan.changed()
	}
	if d.registry != nil {
		d.registry.changed()
	}
	d.dht.changed()
	n.reach.ads.changed()
	if places := n.reach.places.Load(); places != nil {
		places.changed()
	}
	n.dialer.networkChanged()
}

func ipsOf(addrs []ma.Multiaddr) map[netip.Addr]bool {
	ips := map[netip.Addr]bool{}
	for _, a := range addrs {
		if _, ip, err := hostOf(a); err == nil {
			ips[ip] = true
		}
	}
	return ips
}

// dropLost closes connections that cannot go on, so that what they carried is made
// again now and not when it is found to be silent: every one from an address that
// this machine has no longer, with or without a session (a relay's, the hash
// table's, a second one of a dial that crossed, which the next dial would use and
// wait for an answer in vain), and after a sleep in which their peers gave them up
// those of all sessions. It cannot judge one whose local address is not known,
// such as QUIC from a socket of all addresses: QUIC may move such a one, and else
// silence ends it.
func (m *mesh) dropLost(own map[netip.Addr]bool, all bool) {
	for _, c := range m.host.Network().Conns() {
		_, ip, err := hostOf(c.LocalMultiaddr())
		gone := err == nil && len(own) > 0 && !ip.IsUnspecified() && !own[ip]
		session := m.book.live(c.RemotePeer()) != nil
		if !gone && !(all && session) {
			continue
		}
		level := slog.LevelDebug
		if session {
			level = slog.LevelInfo
		}
		m.log.Log(m.dialer.ctx, level, "a connection is made again: the network has changed", "peer", c.RemotePeer().String(), "local", fmt.Sprint(ip))
		_ = c.Close() // it is given up
	}
}

// Discovery tells how the node looks for peers.
func (n *Node) Discovery() DiscoveryStatus {
	var st DiscoveryStatus
	switch {
	case n.cfg.Offline:
		st.LAN.Why = "this node uses no network"
	case n.discovery.lan == nil:
		st.LAN.Why = "it is switched off (--discovery off)"
	default:
		st.LAN = n.discovery.lan.snapshot()
	}
	if n.discovery == nil {
		st.DHT = DHTStatus{Mode: DHTOff, Why: st.LAN.Why}
		return st
	}
	st.DHT = n.discovery.dht.snapshot()
	if n.discovery.registry != nil {
		st.Registry = n.discovery.registry.snapshot()
	}
	return st
}
