// Package simnet_test runs whole nodes, with real QUIC, TLS, Hello, Kademlia and
// Badger, on a simulated network in virtual time.
package simnet_test

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/x/rate"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"

	"vixp2p/node"
)

var hosts = flag.Int("hosts", 200, "how many hosts the swarm has")

const (
	// maxConns is the most connections of a host: it refuses to make or take more.
	// Of them maxPeers may be sessions, so that newcomers and lookups find room.
	maxConns   = 16
	maxPeers   = 8
	writers    = 20
	startEvery = 100 * time.Millisecond // hosts do not all start at one moment
	port       = 8000
	latency    = 25 * time.Millisecond
	mbps       = 1_000_000
)

func ipOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{1, 0, byte(i >> 8), byte(i&0xff + 1)}) }

func addrOf(i int) string { return fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", ipOf(i), port) }

// sourceIP is that of the host's one interface.
type sourceIP struct{ ip net.IP }

func (s *sourceIP) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) { return s.ip, nil }

// newHost is a libp2p host on the simulated network that holds itself to maxConns.
func newHost(t *testing.T, nw *simnet.Simnet, i int) host.Host {
	t.Helper()
	link := simnet.NodeBiDiLinkSettings{
		Downlink: simnet.LinkSettings{BitsPerSecond: 20 * mbps},
		Uplink:   simnet.LinkSettings{BitsPerSecond: 20 * mbps},
	}
	most := rcmgr.LimitVal(maxConns)
	limits := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{Conns: most, ConnsInbound: most, ConnsOutbound: most},
	}.Build(rcmgr.InfiniteLimits)
	resources, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithConnRateLimiters(&rate.Limiter{}), rcmgr.WithLimitPerSubnet(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	low, high := maxPeers, maxConns-3
	if i == 0 {
		low, high = 2, 4 // all come through here first
	}
	connections, err := connmgr.NewConnManager(low, high, connmgr.WithGracePeriod(time.Second), connmgr.WithSilencePeriod(500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	source := &sourceIP{ip: ipOf(i).AsSlice()}
	h, err := libp2p.New(
		libp2p.ListenAddrStrings(addrOf(i)),
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.QUICReuse(
			func(l fx.Lifecycle, k quic.StatelessResetKey, tk quic.TokenGeneratorKey, o ...quicreuse.Option) (*quicreuse.ConnManager, error) {
				cm, err := quicreuse.NewConnManager(k, tk, o...)
				if err == nil {
					l.Append(fx.StopHook(cm.Close)) // libp2p leaves one that it did not make open
				}
				return cm, err
			},
			quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return source, nil }),
			quicreuse.OverrideListenUDP(func(_ string, a *net.UDPAddr) (net.PacketConn, error) { return nw.NewEndpoint(a, link), nil })),
		libp2p.ResourceManager(resources),
		libp2p.ConnectionManager(connections),
		libp2p.SwarmOpts(swarm.WithUDPBlackHoleSuccessCounter(nil), swarm.WithIPv6BlackHoleSuccessCounter(nil)),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.Ping(false),
	)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestRendezvous: hosts that know nothing but one address, each with at most 16
// connections, find each other through the network's distributed hash table, and
// what some write arrives at all.
func TestRendezvous(t *testing.T) {
	if testing.Short() {
		t.Skip("a swarm of this size is for the plain run")
	}
	dir := t.TempDir()
	began := time.Now()
	synctest.Test(t, func(t *testing.T) { swarmConverges(t, dir, *hosts) })
	t.Logf("%d hosts took %s of real time", *hosts, time.Since(began).Round(100*time.Millisecond))
}

// closeSwarm closes nodes, then their hosts, then the network between them.
func closeSwarm(t *testing.T, nw *simnet.Simnet, nodes []*node.Node, hosts []host.Host) {
	for _, x := range nodes {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, h := range hosts {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	nw.Close()
}

// swarmConverges runs in virtual time.
func swarmConverges(t *testing.T, dir string, n int) {
	start := time.Now()
	nw := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(latency)}
	nw.Start()
	var all []host.Host
	var nodes []*node.Node
	defer func() { closeSwarm(t, nw, nodes, all) }()
	for i := range n {
		h := newHost(t, nw, i)
		all = append(all, h)
		cfg := node.Config{
			DataDir: filepath.Join(dir, fmt.Sprint(i)), Label: fmt.Sprint(i), Host: h,
			Durability: node.Relaxed, MaxPeers: maxPeers, DHT: node.DHTServer, NoDiscovery: true,
			PingEvery: 20 * time.Second, StaleAfter: time.Minute,
		}
		if i > 0 {
			cfg.DHTBootstrap = []string{addrOf(0)}
		} else {
			cfg.MaxPeers = 2 // its connections are for who comes in
		}
		x, err := node.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, x)
		time.Sleep(startEvery)
	}
	for i := range writers {
		if _, err := nodes[i*n/writers].Space("").Put(t.Context(), fmt.Sprintf("from/%d", i), []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	for {
		time.Sleep(5 * time.Second)
		st := look(t, all, nodes)
		t.Logf("after %s: %d of %d hosts have all %d writes; %d sessions, at most %d connections each", time.Since(start), st.complete, n, writers, st.sessions, st.connections)
		if st.connections > maxConns {
			t.Fatalf("a host has %d connections", st.connections)
		}
		if st.complete == n {
			if len(st.digests) != 1 {
				t.Errorf("they show %d different states", len(st.digests))
			}
			return
		}
		if time.Since(start) > 20*time.Minute {
			t.Fatal("the swarm does not converge in 20 minutes")
		}
	}
}

// state is where a swarm stands.
type state struct {
	complete    int // hosts that have every write
	sessions    int
	connections int // most of one host
	digests     map[string]bool
}

func look(t *testing.T, all []host.Host, nodes []*node.Node) state {
	t.Helper()
	st := state{digests: map[string]bool{}}
	for i, x := range nodes {
		digest, keys, err := x.Space("").Digest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if keys == writers {
			st.complete++
		}
		st.digests[digest] = true
		st.sessions += x.Counters().PeersConnected
		st.connections = max(st.connections, len(all[i].Network().Conns()))
	}
	st.sessions /= 2
	return st
}
