package node

import (
	"fmt"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/protocols"
)

// How many connections one address may have and make at once: docs/operations.md
// tells these figures. Peers behind one NAT, or that come through one relay, have
// one address.
func TestConnectionsOfOneAddress(t *testing.T) {
	relayed := "/ip4/198.18.0.1/udp/4001/quic-v1/p2p/12D3KooWGzBm2Rk4JtC3TrZ7bUoMRE6yNfkWmBxNqbuBZ5gQm9ma/p2p-circuit"
	for _, c := range []struct {
		name, from string
		cfg        Config
		want       int
	}{
		{"a node", "/ip4/198.18.0.1/tcp/%d", Config{MaxPeers: DefaultMaxPeers}, 120},
		{"a node, IPv6", "/ip6/2001:db8::1/tcp/%d", Config{MaxPeers: DefaultMaxPeers}, 120},
		{"a node, through one relay", relayed, Config{MaxPeers: DefaultMaxPeers}, 120},
		{"a relay", "/ip4/198.18.0.1/udp/%d/quic-v1", Config{MaxPeers: DefaultRelayReservations, RelayService: true}, 664},
	} {
		rm, err := newResourceManager(&c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for ; got < 4096; got++ {
			text := c.from
			if text != relayed {
				text = fmt.Sprintf(c.from, 1024+got)
			}
			addr, err := ma.NewMultiaddr(text)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := rm.OpenConnection(network.DirInbound, false, addr); err != nil {
				break
			}
		}
		if got != c.want {
			t.Errorf("%s lets in %d connections of one address at once, want %d", c.name, got, c.want)
		}
		if err := rm.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What one peer may hold: connections, streams in all and of each protocol, and
// memory. Another peer has as much.
func TestLimitsOfOnePeer(t *testing.T) {
	cfg := Config{MaxPeers: DefaultMaxPeers}
	rm, err := newResourceManager(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	conns := func(id peer.ID) (n int) {
		for ; n < 1000; n++ {
			c, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast("/ip4/127.0.0.1/tcp/1"))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.SetPeer(id); err != nil {
				c.Done()
				break
			}
		}
		return n
	}
	streams := func(id peer.ID, proto protocol.ID) (n int) {
		for ; n < 1000; n++ {
			s, err := rm.OpenStream(id, network.DirInbound)
			if err != nil {
				break
			}
			if proto != "" && s.SetProtocol(proto) != nil {
				s.Done()
				break
			}
		}
		return n
	}
	memory := func(id peer.ID) (mib int) {
		err := rm.ViewPeer(id, func(s network.PeerScope) error {
			for s.ReserveMemory(1<<20, network.ReservationPriorityAlways) == nil {
				mib++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return mib
	}
	for _, id := range []peer.ID{"one", "two"} {
		if n := conns(id); n != 8 {
			t.Errorf("%d connections of %s", n, id)
		}
		got := []int{streams(id, protocols.SyncProtocol), streams(id, protocols.HelloProtocol), streams(id, protocols.JoinProtocol), streams(id, protocols.MsgProtocol)}
		if !slices.Equal(got, []int{8, 4, 2, 4}) {
			t.Errorf("streams of %s by protocol: %v", id, got)
		}
		if n := 18 + streams(id, ""); n != DefaultMaxPeers+32 {
			t.Errorf("%d streams of %s in all", n, id)
		}
		if mib := memory(id); mib != 48 {
			t.Errorf("%d MiB of %s", mib, id)
		}
	}
}

// A relay for others has room for what it offers, beside all else.
func TestLimitsOfARelay(t *testing.T) {
	plain, cfg := hostLimits(DefaultMaxPeers), Config{MaxPeers: DefaultMaxPeers, RelayService: true}
	limits, err := cfg.RelayLimits.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	scaled := hostLimits(DefaultMaxPeers)
	limits.scale(&scaled)
	if scaled.System.ConnsInbound != plain.System.ConnsInbound+DefaultRelayReservations || scaled.System.Memory <= plain.System.Memory {
		t.Errorf("the limits of a relay: %+v", scaled.System)
	}
	for name := range plain.Service {
		if scaled.Service[name] != plain.Service[name] {
			t.Errorf("the limits of %s changed", name)
		}
	}
}
