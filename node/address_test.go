package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

func TestParseTarget(t *testing.T) {
	const id = "12D3KooWGzBm2Rk4JtC3TrZ7bUoMRE6yNfkWmBxNqbuBZ5gQm9ma"
	const relayed = "/ip4/192.0.2.1/tcp/9001/p2p/" + id + "/p2p-circuit"
	for _, c := range []struct{ in, key, err string }{
		{in: "127.0.0.1:9001", key: "tcp://127.0.0.1:9001"},
		{in: " Example.COM:9001 ", key: "tcp://example.com:9001"},
		{in: "tcp://127.0.0.1:9001", key: "tcp://127.0.0.1:9001"},
		{in: "quic://127.0.0.1:9001", key: "quic://127.0.0.1:9001"},
		{in: "[::1]:9001", key: "tcp://[::1]:9001"},
		{in: "/ip4/127.0.0.1/tcp/9001", key: "tcp://127.0.0.1:9001"},
		{in: "/ip4/127.0.0.1/udp/9001/quic-v1", key: "quic://127.0.0.1:9001"},
		{in: "/dns4/example.com/tcp/9001/p2p/" + id, key: "tcp://example.com:9001"},
		{in: "", err: "is not host:port"},
		{in: "9001", err: "is not host:port"},
		{in: "127.0.0.1", err: "is not host:port"},
		{in: ":9001", err: "names no host"},
		{in: "127.0.0.1:0", err: "names no port"},
		{in: "[fe80::1%eth0.100]:9001", key: "tcp://[fe80::1%eth0.100]:9001"},
		{in: "Bücher.local:9001", key: "tcp://bücher.local:9001"},
		{in: "my_host-2:9001", key: "tcp://my_host-2:9001"},
		{in: "[ 127.0.0.1]:9001", err: `" 127.0.0.1" is neither a host name nor an IP address: use host:port`},
		{in: "tcp://user@example.com:9001", err: `"user@example.com" is neither`},
		{in: "[fe80::1%\x1b]:9001", err: "is neither a host name nor"},
		{in: "/dns4/a host/tcp/9001", err: `"a host" is not a host name`},
		{in: "/ip6zone/eth 0/ip6/fe80::1/tcp/9001", err: `"eth 0" is not the name of an interface`},
		{in: "127.0.0.1:http", err: "not a port number"},
		{in: "127.0.0.1:70000", err: "not a port number"},
		{in: "udp://127.0.0.1:9001", err: `scheme "udp" is not known`},
		{in: "/ip4/127.0.0.1", err: "neither a TCP nor a QUIC"},
		{in: "/ip4/300.0.0.1/tcp/1", err: "use host:port or a multiaddr"},
		{in: "/p2p/" + id, err: "names a peer and no address"},
		{in: "/ip6zone/eth0/ip6/fe80::1/tcp/9001", key: "tcp://[fe80::1]:9001"},
		{in: "/dns/example.com/udp/9001/quic-v1", key: "quic://example.com:9001"},
		{in: relayed, key: "relay://" + relayed},
		{in: relayed + "/p2p/" + id, key: "relay://" + relayed + "/p2p/" + id},
		{in: "/ip4/127.0.0.1/tcp/9001/ws", err: "does not speak the transport /ws, only TCP and QUIC: use host:port"},
		{in: "/dns4/example.com/tcp/443/wss/p2p/" + id, err: "does not speak the transport /wss"},
		{in: "/ip4/127.0.0.1/udp/9001/quic-v1/webtransport", err: "does not speak the transport /webtransport"},
		{in: "/ip4/127.0.0.1/udp/9001/webrtc-direct", err: "does not speak the transport /webrtc-direct"},
		{in: "/ip4/127.0.0.1/udp/9001/quic", err: "not /quic-v1"},
		{in: "/ip4/127.0.0.1/udp/9001", err: "no /quic-v1 after it"},
		{in: "/ip4/127.0.0.1/tcp/0", err: "names no port"},
		{in: "/dnsaddr/example.com", err: "/dnsaddr stands for a list"},
		{in: "/dns4/example.com", err: "neither a TCP nor a QUIC"},
		{in: "/unix/tmp/socket", err: "/unix has no place"},
		{in: "/tcp/9001/ip4/127.0.0.1", err: "neither a TCP nor a QUIC"},
		{in: "/ip4/127.0.0.1/tcp/9001/p2p/nonsense", err: "use host:port or a multiaddr"},
		{in: "/ip4/127.0.0.1/tcp/9001/p2p-circuit", err: "a way through a relay"},
		{in: "/ip4/127.0.0.1/tcp/9001/ws/p2p/" + id + "/p2p-circuit", err: "of the relay: this node does not speak"},
	} {
		got, err := parseTarget(c.in)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, want one with %q", c.in, err, c.err)
			}
		case err != nil:
			t.Errorf("%q: %v", c.in, err)
		case got.Key != c.key:
			t.Errorf("%q: key %q, want %q", c.in, got.Key, c.key)
		case strings.HasSuffix(c.in, id) != (got.ID.String() == id):
			t.Errorf("%q: peer %q", c.in, got.ID)
		}
	}
}

// TestListenNeedsOpen: an open network is for this machine alone unless its user
// says otherwise (design 9.7).
func TestListenNeedsOpen(t *testing.T) {
	for _, c := range []struct {
		in     string
		closed bool // refused without Open
		bad    bool // refused in any case
	}{
		{in: "9001"}, {in: "0"},
		{in: "127.0.0.1:9001"}, {in: "[::1]:0"}, {in: "localhost:9001"},
		{in: "/ip4/127.0.0.1/tcp/9001"}, {in: "/ip6/::1/udp/9001/quic-v1"},
		{in: "0.0.0.0:9001", closed: true}, {in: "[::]:9001", closed: true}, {in: ":9001", closed: true},
		{in: "192.0.2.1:9001", closed: true}, {in: "[::ffff:192.0.2.1]:9001", closed: true},
		{in: "/ip4/0.0.0.0/tcp/9001", closed: true}, {in: "/dns4/example.com/tcp/1", closed: true},
		{in: "65536", bad: true}, {in: "-1", bad: true}, {in: "abc", bad: true},
		{in: "example.com:9001", bad: true}, {in: "127.0.0.1:x", bad: true}, {in: "/nonsense", bad: true},
		{in: "/ip4/127.0.0.1/udp/0/quic-v1/webtransport", bad: true}, {in: "/ip4/127.0.0.1/tcp/0/ws", bad: true},
		{in: "/ip4/127.0.0.1/udp/0", bad: true}, {in: "/ip4/127.0.0.1", bad: true}, {in: "/p2p-circuit", bad: true},
		{in: "/ip4/127.0.0.1/tcp/0"}, {in: "/ip6/::1/udp/0/quic-v1"},
	} {
		_, err := parseListen(c.in, false)
		if (err != nil) != (c.closed || c.bad) {
			t.Errorf("%q without open: %v", c.in, err)
		}
		if c.closed && !errors.Is(err, ErrNeedsOpen) {
			t.Errorf("%q without open: %v, want ErrNeedsOpen", c.in, err)
		}
		if _, err := parseListen(c.in, true); (err != nil) != c.bad {
			t.Errorf("%q with open: %v", c.in, err)
		}
	}
	spec, err := parseListen("9001", true)
	if err != nil || !spec.hosts[0].IsUnspecified() {
		t.Errorf("a port in an open node: %+v, %v", spec, err)
	}
}

// TestRankDials: on this machine and the LAN TCP goes first, because QUIC would
// win every race and is the slower one there; elsewhere libp2p decides.
func TestRankDials(t *testing.T) {
	addrs := func(list ...string) (out []ma.Multiaddr) {
		for _, s := range list {
			out = append(out, ma.StringCast(s))
		}
		return out
	}
	delays := func(list []network.AddrDelay) map[string]time.Duration {
		out := map[string]time.Duration{}
		for _, d := range list {
			out[d.Addr.String()] = d.Delay
		}
		return out
	}
	const tcp, quic, far = "/ip4/192.168.1.2/tcp/9001", "/ip4/192.168.1.2/udp/9001/quic-v1", "/ip4/1.2.3.4/udp/9001/quic-v1"
	got := delays(rankDials(addrs(quic, tcp, far)))
	if len(got) != 3 || got[tcp] != 0 || got[quic] != tcpHeadStart || got[far] != 0 {
		t.Errorf("delays %v", got)
	}
	if got := delays(rankDials(addrs(quic))); got[quic] != 0 {
		t.Errorf("QUIC alone waits %v", got)
	}
}
