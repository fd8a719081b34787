package node

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/protocols"
)

// connFrom is a connection of which only the remote side is known.
type connFrom struct {
	network.Conn
	addr ma.Multiaddr
}

func (c connFrom) RemoteMultiaddr() ma.Multiaddr { return c.addr }

// TestPendingHandshakesAreBounded: of one peer, of one address under any number of
// identities, and in all.
func TestPendingHandshakesAreBounded(t *testing.T) {
	maxPeers, p, nr := 64, newPending(), 0
	fill := func(id func() peer.ID, host string) (n int) {
		var prefix netip.Prefix
		if host != "" {
			prefix = netip.MustParsePrefix(host)
		}
		for p.enter(id(), prefix, maxPeers) {
			n++
		}
		return n
	}
	another := func() peer.ID {
		nr++
		return peer.ID(fmt.Sprint("stranger", nr))
	}
	one := func() peer.ID { return "one" }
	if n := fill(one, "10.0.0.1/32"); n != maxPendingPeer {
		t.Errorf("one peer has %d handshakes under way", n)
	}
	if n := fill(another, "10.0.0.1/32"); n != 2*maxPeers/pendingShare-maxPendingPeer {
		t.Errorf("other peers of that address have %d", n)
	}
	if !p.enter("honest", netip.MustParsePrefix("10.0.0.2/32"), maxPeers) {
		t.Error("somebody at another address does not get through")
	}
	if fill(another, ""); p.total != 2*maxPeers {
		t.Errorf("%d handshakes in all", p.total)
	}
	p.leave("one", netip.MustParsePrefix("10.0.0.1/32"))
	if !p.enter("one", netip.MustParsePrefix("10.0.0.1/32"), maxPeers) {
		t.Error("a place that is free again is not given")
	}
	for id, n := range p.peers {
		for range n {
			p.leave(id, netip.Prefix{})
		}
	}
	if p.total != 0 || len(p.peers) != 0 {
		t.Errorf("%d handshakes are left of nobody: %v", p.total, p.peers)
	}
	if maxPeers, p = 1, newPending(); fill(another, "10.0.0.1/32") != leastPendingHost || fill(another, "") == 0 {
		t.Errorf("a node of few peers has %+v", p)
	}
}

// TestRemoteHost: an IPv6 address stands for its /64, and this machine for nobody.
func TestRemoteHost(t *testing.T) {
	relay := numbered(t, 1).String()
	for addr, want := range map[string]string{
		"/ip4/203.0.113.7/tcp/1":                               "203.0.113.7/32",
		"/ip6/::ffff:203.0.113.7/tcp/1":                        "203.0.113.7/32",
		"/ip6/2001:db8:1:2:3:4:5:6/udp/1/quic-v1":              "2001:db8:1:2::/64",
		"/ip6zone/eth0/ip6/fe80::1:2/tcp/1":                    "fe80::/64",
		"/ip4/203.0.113.7/tcp/1/p2p/" + relay + "/p2p-circuit": "203.0.113.7/32",
		"/ip4/127.0.0.9/tcp/1":                                 "invalid Prefix",
		"/ip6/::1/tcp/1":                                       "invalid Prefix",
		"/p2p/" + relay + "/p2p-circuit":                       "invalid Prefix",
	} {
		if got := remoteHost(connFrom{addr: ma.StringCast(addr)}); got.String() != want {
			t.Errorf("%s counts as %s, want %s", addr, got, want)
		}
	}
}

// TestHonestPeerGetsThrough: while strangers keep every handshake open that they
// are given, a peer that means it has its session on the first try.
func TestHonestPeerGetsThrough(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A", MaxPeers: 8, HelloTimeout: time.Minute}) // so that none of them ends before all are there
	for nr := range 4 {
		s := strangerHost(t)
		if err := s.Connect(deadline(t), peer.AddrInfo{ID: a.id, Addrs: a.host.Addrs()}); err != nil {
			t.Fatal(err)
		}
		for range 10 { // far more than it may have
			st, err := s.NewStream(deadline(t), a.id, protocols.SyncProtocol)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = st.Write(nil) // sends the name of the protocol; it may be cut already
		}
		until(t, "the stranger holds what it is given", func() bool {
			a.mesh.mu.Lock()
			defer a.mesh.mu.Unlock()
			return a.mesh.inbound.total == (nr+1)*maxPendingPeer
		})
	}
	b := open(t, Config{Label: "B"})
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Errorf("an honest peer is kept out: %v", err)
	}
}
