package node

import (
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"
)

func openRelay(t *testing.T, cfg RelayConfig) *Relay {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	if cfg.Listen == nil {
		cfg.Listen = []string{"127.0.0.1:0"}
	}
	r, err := OpenRelay(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// at is where a relay listens, as host:port.
func at(t *testing.T, r *Relay) string {
	t.Helper()
	for _, a := range r.Addrs() {
		if port, ok := strings.CutPrefix(a, tcp4); ok {
			return net.JoinHostPort("127.0.0.1", port)
		}
	}
	t.Fatalf("the relay listens on %v", r.Addrs())
	return ""
}

func statusOf(t *testing.T, n *Node) Status {
	t.Helper()
	st, err := n.Status(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// place waits until a node has a place at its relay and returns its address there.
func place(t *testing.T, n *Node) (addr string) {
	t.Helper()
	until(t, "a place at the relay", func() bool {
		relays := statusOf(t, n).Reach.Relays
		if len(relays) == 1 && len(relays[0].Addrs) > 0 {
			addr = relays[0].Addrs[0]
		}
		return addr != ""
	})
	return addr
}

// Two nodes meet at a relay that allows 64 KiB a connection, and 1 MB of each
// arrives; the relay's end and its return are survived.
func TestRelay(t *testing.T) {
	t.Parallel()
	dir, here := t.TempDir(), steadyAddr(t)
	limits := RelayLimits{Data: MinRelayData}
	relay := openRelay(t, RelayConfig{DataDir: dir, Limits: limits, Listen: []string{here}})
	// Without a transport in common they cannot reach each other otherwise.
	a := open(t, Config{Label: "A", Open: true, Listen: []string{"127.0.0.1:0"}, Relays: []string{here}, NoTCP: true})
	b := open(t, Config{Label: "B", Connect: []string{place(t, a)}, NoQUIC: true})
	noise := make([]byte, 16<<10) // which does not pack
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	value := string(noise)
	for i := range 32 {
		put(t, a, "a"+string(rune('A'+i)), value+string(rune('A'+i)))
		put(t, b, "b"+string(rune('A'+i)), value+string(rune('a'+i)))
	}
	converge(t, 64, a, b)
	until(t, "both sides tell that the session is relayed", func() bool {
		for _, n := range []*Node{a, b} {
			if peers := statusOf(t, n).Peers; len(peers) != 1 || !peers[0].Relayed || peers[0].State != Connected {
				return false
			}
		}
		return true
	})
	if st := relay.Status(); st.Reservations != 1 || st.CircuitsTotal < 2 || st.Bytes < MinRelayData {
		t.Errorf("the relay tells %+v", st)
	}

	if err := relay.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "A knows that it has no place any more", func() bool {
		relays := statusOf(t, a).Reach.Relays
		return len(relays) == 1 && len(relays[0].Addrs) == 0 && relays[0].Error != ""
	})
	again := openRelay(t, RelayConfig{DataDir: dir, Limits: limits, Listen: []string{here}})
	if again.ID() != relay.ID() {
		t.Errorf("the relay comes back as %s, not as %s", again.ID(), relay.ID())
	}
	put(t, a, "after", "1")
	converge(t, 65, a, b)
}

// A relay has its directory to itself.
func TestRelayLocksItsDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openRelay(t, RelayConfig{DataDir: dir})
	if _, err := OpenRelay(t.Context(), RelayConfig{DataDir: dir, Listen: []string{"127.0.0.1:0"}}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second relay on the directory: %v", err)
	}
}

// A directory is a node's or a relay's for life: neither takes the other's identity.
func TestRoleOfADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var wrong *RoleError
	relay := openRelay(t, RelayConfig{DataDir: dir})
	for range 2 {
		if _, err := Open(t.Context(), Config{DataDir: dir, Offline: true}); !errors.As(err, &wrong) || !wrong.Relay {
			t.Errorf("a node on the relay's directory: %v", err)
		}
		if err := CheckNodeDir(dir); !errors.As(err, &wrong) || !wrong.Relay {
			t.Errorf("the relay's directory: %v", err)
		}
		if err := relay.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if again := openRelay(t, RelayConfig{DataDir: dir}); again.ID() != relay.ID() {
		t.Errorf("the relay comes back as %s, not as %s", again.ID(), relay.ID())
	}

	dir = t.TempDir()
	n := open(t, Config{DataDir: dir})
	for _, lost := range []string{"", formatFile, networkFile} {
		if lost != "" {
			if err := os.Remove(filepath.Join(dir, lost)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := OpenRelay(t.Context(), RelayConfig{DataDir: dir, Listen: []string{"127.0.0.1:0"}}); !errors.As(err, &wrong) || wrong.Relay {
			t.Errorf("a relay on the node's directory, %q lost: %v", lost, err)
		}
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if again := open(t, Config{DataDir: dir}); again.ID() != n.ID() {
		t.Errorf("the node comes back as %s, not as %s", again.ID(), n.ID())
	}
	if err := errors.Join(CheckNodeDir(dir), CheckNodeDir(t.TempDir()), CheckNodeDir(filepath.Join(dir, "none"))); err != nil {
		t.Error(err)
	}
}

// A session over a relay moves to a direct address as soon as there is one.
func TestMovesToDirect(t *testing.T) {
	t.Parallel()
	relay := openRelay(t, RelayConfig{})
	a := open(t, Config{Label: "A", Open: true, Listen: []string{"127.0.0.1:0"}, Relays: []string{at(t, relay)}})
	b := open(t, Config{Label: "B", Connect: []string{place(t, a)}, NoDiscovery: true})
	until(t, "a session", func() bool { peers := statusOf(t, b).Peers; return len(peers) == 1 && peers[0].State == Connected })
	put(t, a, "k", "v")
	converge(t, 1, a, b)
	// B hears of A's addresses by identify, and dials them by itself.
	until(t, "a direct session on both sides", func() bool {
		for _, n := range []*Node{a, b} {
			if peers := statusOf(t, n).Peers; len(peers) != 1 || peers[0].Relayed || peers[0].State != Connected {
				return false
			}
		}
		return true
	})
	until(t, "the relay is free", func() bool { return relay.Status().Circuits == 0 })
	put(t, b, "k2", "v")
	converge(t, 2, a, b)
}

// A direct connection that comes up by itself, as after hole punching, takes the
// session over: neither side dials.
func TestMovesToNewConnection(t *testing.T) {
	t.Parallel()
	relay := openRelay(t, RelayConfig{})
	a := open(t, Config{Label: "A", Open: true, NoConnect: true, Listen: []string{"127.0.0.1:0"}, Relays: []string{at(t, relay)}})
	var log logBuffer
	b := open(t, Config{Label: "B", NoConnect: true, Logger: log.logger()})
	if _, _, err := b.Connect(deadline(t), place(t, a)); err != nil {
		t.Fatal(err)
	}
	if peers := statusOf(t, b).Peers; len(peers) != 1 || !peers[0].Relayed {
		t.Fatalf("B has %+v, and should have a relayed session", peers)
	}
	direct, err := ma.NewMultiaddr(addr(t, b, tcp4))
	if err != nil {
		t.Fatal(err)
	}
	ctx := network.WithForceDirectDial(deadline(t), "test")
	if err := a.host.Connect(ctx, peer.AddrInfo{ID: b.host.ID(), Addrs: []ma.Multiaddr{direct}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the session moves", func() bool {
		peers := statusOf(t, b).Peers
		return len(peers) == 1 && !peers[0].Relayed && peers[0].State == Connected && peers[0].Direction == "out"
	})
	put(t, a, "k", "v")
	converge(t, 1, a, b)
	until(t, "the relay is free", func() bool { return relay.Status().Circuits == 0 })
	// A relayed connection that breaks meanwhile, as on a busy machine, is told as such. If
	// A is quicker to end the relayed session than B to begin the other, B is just connected.
	begun := func() int {
		return log.count("level=INFO", `msg="session moved"`) + log.count("level=INFO", "msg=connected")
	}
	until(t, "the log tells of both sessions", func() bool { return begun() >= 2 })
	if n := begun(); !log.has("the connection broke") && (n != 2 || log.has("level=INFO", "msg=disconnected")) {
		t.Errorf("the log does not tell in one line that the session has moved: %d lines in all", n)
	}
}

// A node that listens on loopback only does nothing to be reached from elsewhere.
func TestLoopbackIsNotReached(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{"closed": {}, "open": {Open: true, Listen: []string{"127.0.0.1:0", "/ip6/::1/udp/0/quic-v1"}}} {
		n := open(t, cfg)
		r := statusOf(t, n).Reach
		if r.AutoNAT || r.RelayClient || r.HolePunching || r.PortMapping || r.Service != nil || len(r.Relays) > 0 {
			t.Errorf("%s: a node on loopback does %+v", name, r)
		}
		for _, p := range n.host.Mux().Protocols() {
			for _, never := range []string{"autonat", "dcutr", "relay/0.2.0/hop"} {
				if strings.Contains(string(p), never) {
					t.Errorf("%s: a node on loopback serves %s", name, p)
				}
			}
		}
	}
}

func TestReachConfig(t *testing.T) {
	t.Parallel()
	const id = "12D3KooWGzBm2Rk4JtC3TrZ7bUoMRE6yNfkWmBxNqbuBZ5gQm9ma"
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Open: true, Relays: []string{"192.0.2.1:4001", "quic://192.0.2.1:4001", "/dns4/example.com/tcp/4001/p2p/" + id}}, ""},
		{Config{Relays: []string{"192.0.2.1:4001"}}, "--open"},
		{Config{Open: true, Relays: []string{"192.0.2.1"}}, "host:port"},
		{Config{Open: true, Relays: []string{"/ip4/192.0.2.1/tcp/4001/p2p/" + id + "/p2p-circuit/p2p/" + id}}, "itself reached through a relay"},
		{Config{Open: true, Relays: []string{"192.0.2.1:1"}, NoRelay: true}, "leave one of the two out"},
		{Config{Open: true, Relays: []string{"h:1", "h:2", "h:3", "h:4", "h:5", "h:6", "h:7", "h:8", "h:9"}}, "at most 8"},
		{Config{PortMapping: true}, "nothing to map"},
		{Config{PortMapping: true, Open: true, Listen: []string{"127.0.0.1:0"}}, "nothing to map"},
		{Config{PortMapping: true, Open: true}, ""},
		{Config{RelayService: true, RelayLimits: RelayLimits{Data: 100}}, "at least 65536"},
		{Config{RelayService: true, RelayLimits: RelayLimits{Duration: time.Millisecond}}, "at least 1s"},
		{Config{RelayService: true, RelayLimits: RelayLimits{Circuits: -1}}, "serves nobody"},
		{Config{Connect: []string{"/ip4/192.0.2.1/tcp/4001/p2p/" + id + "/p2p-circuit"}}, "names the peer"},
	} {
		err := c.cfg.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.cfg.Relays, err, c.want)
		}
	}
}

// TestLostPlacePauses: a relay that grants places and ends the connection is asked
// again after relayRetry, then ever later.
func TestLostPlacePauses(t *testing.T) {
	t.Parallel()
	r := openRelay(t, RelayConfig{})
	n := open(t, Config{Label: "A", Open: true, Relays: []string{at(t, r)}})
	place(t, n)
	for _, pause := range []time.Duration{relayRetry, 2 * relayRetry} {
		began := time.Now()
		if err := r.host.Network().ClosePeer(n.id); err != nil {
			t.Fatal(err)
		}
		until(t, "the place is lost", func() bool { return len(statusOf(t, n).Reach.Relays[0].Addrs) == 0 })
		place(t, n)
		if took := time.Since(began); took < pause {
			t.Errorf("a lost place is asked for again after %s, want %s", took, pause)
		}
	}
}

// TestPausesOfRelays: they double up to a maximum, whether the relay refuses or
// drops what it gave; a place that holds ends that, and so does another network.
func TestPausesOfRelays(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := &relayPlace{id: "R"}
	r := &relayClient{places: map[string]*relayPlace{"R": p}, wake: make(chan struct{}, 1)}
	grant := func() { p.since, p.until, p.err = now, now.Add(time.Hour), nil }
	for i, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
		if i%2 == 0 {
			grant()
			now = now.Add(time.Second)
			r.lost("R", now)
		} else {
			p.fail(now, errors.New("it is full"))
		}
		if got := p.next.Sub(now); got != want*time.Second || !p.until.IsZero() {
			t.Errorf("pause %d is %s, want %d s", i, got, want)
		}
	}
	grant()
	now = now.Add(relayHeld)
	r.lost("R", now)
	if got := p.next.Sub(now); got != relayRetry {
		t.Errorf("after a place that held the pause is %s", got)
	}
	r.lost("R", now.Add(time.Second)) // there is none to lose
	if got := p.next.Sub(now); got != relayRetry {
		t.Errorf("the pause has grown to %s", got)
	}
	if r.changed(); !p.next.IsZero() || p.failures != 0 {
		t.Errorf("on another network it waits until %s", p.next)
	}
}

// TestMemberIsARelay: a member that relays for others is asked for a place when its
// session begins, also if it has told what it can do long before, and without any
// other occasion to look.
func TestMemberIsARelay(t *testing.T) {
	t.Parallel()
	m := open(t, Config{Label: "M", NoConnect: true, RelayService: true})
	// A relay that nobody reaches is the reason to look for others at all.
	a := open(t, Config{Label: "A", NoConnect: true, Open: true, Listen: []string{"127.0.0.1:0"}, Relays: []string{"127.0.0.1:1"}})
	client := a.reach.client
	client.mu.Lock()
	client.every = time.Hour
	client.mu.Unlock()
	until(t, "the other relay pauses for long", func() bool {
		client.mu.Lock()
		defer client.mu.Unlock()
		for _, p := range client.places {
			if p.failures > 0 && !p.asking {
				p.next = time.Now().Add(time.Hour)
				return true
			}
		}
		return false
	})
	info := peer.AddrInfo{ID: m.id, Addrs: m.host.Addrs()}
	if err := a.host.Connect(deadline(t), info); err != nil {
		t.Fatal(err)
	}
	until(t, "it is known what M can do", func() bool {
		has, err := a.host.Peerstore().SupportsProtocols(m.id, proto.ProtoIDv2Hop)
		return err == nil && len(has) > 0
	})
	client.look() // in vain; from now on only with an occasion
	until(t, "A has looked", func() bool { return len(client.wake) == 0 })
	if _, _, err := a.Connect(deadline(t), addr(t, m, tcp4)); err != nil {
		t.Fatal(err)
	}
	until(t, "a place at M", func() bool {
		for _, r := range statusOf(t, a).Reach.Relays {
			if r.PeerID == m.ID() && len(r.Addrs) > 0 {
				return true
			}
		}
		return false
	})
}
