package node

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
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
		{"a node", "/ip4/198.18.0.1/tcp/%d", Config{MaxPeers: DefaultMaxPeers}, 256},
		{"a node, IPv6", "/ip6/2001:db8::1/tcp/%d", Config{MaxPeers: DefaultMaxPeers}, 256},
		{"a node, through one relay", relayed, Config{MaxPeers: DefaultMaxPeers}, 256},
		{"a relay", "/ip4/198.18.0.1/udp/%d/quic-v1", Config{MaxPeers: DefaultRelayReservations, RelayService: true}, 1024},
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
