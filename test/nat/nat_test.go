//go:build linux

// Package nat tests how nodes behind NATs reach each other: real programs in
// network namespaces, with routers between them.
package nat

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/netns"
	"vixp2p/test/internal/proc"
)

func TestMain(m *testing.M) { proc.Main(m) }

// internet is a network with a relay, and sites behind NATs.
type internet struct {
	t     *testing.T
	lab   *netns.Lab
	net   *netns.Switch
	relay *proc.Node
	sites int
}

const relayIP = "44.1.1.10"

func newInternet(t *testing.T, relayArgs ...string) *internet {
	t.Helper()
	lab := netns.New(t)
	w := &internet{t: t, lab: lab, net: lab.Switch("internet")}
	host := lab.Host("relay")
	host.Plug(w.net, relayIP+"/24")
	w.relay = host.Node("relay", relayArgs...).StartRelay()
	return w
}

func (w *internet) relayAddr() string { return fmt.Sprintf("%s:%d", relayIP, w.relay.Port) }

// site is a host behind a router with NAT.
type site struct {
	host, router *netns.Host
	wan, lan     *netns.Link // of the router
	ip           string      // the router's, outside
}

const inside = "10.0.0.2"

func (w *internet) site(kind netns.NAT) *site {
	w.t.Helper()
	w.sites++
	s := &site{router: w.lab.Host(fmt.Sprintf("router%d", w.sites)), host: w.lab.Host(fmt.Sprintf("site%d", w.sites)), ip: fmt.Sprintf("44.1.1.%d", 100+w.sites)}
	s.wan = s.router.Plug(w.net, s.ip+"/24")
	lan := w.lab.Switch(fmt.Sprintf("lan%d", w.sites))
	s.lan = s.router.Plug(lan, "10.0.0.1/24")
	s.router.Masquerade(s.wan, kind)
	s.host.Plug(lan, inside+"/24")
	s.host.Route("default", "10.0.0.1")
	return s
}

// status is the part of a node's status that these tests look at.
type status struct {
	Peers []struct {
		PeerID    string `json:"peer_id"`
		State     string `json:"state"`
		Direction string `json:"direction"`
		Addr      string `json:"addr"`
		Relayed   bool   `json:"relayed"`
	} `json:"peers"`
	Counters struct {
		Handshakes uint64 `json:"handshakes_completed"`
	} `json:"counters"`
	Reach struct {
		Reachability string   `json:"reachability"`
		Confirmed    []string `json:"confirmed"`
		AutoNAT      bool     `json:"autonat"`
		PortMapping  bool     `json:"port_mapping"`
		Gateway      bool     `json:"gateway"`
		Mapped       []string `json:"mapped"`
		Relays       []struct {
			Addrs      []string `json:"addrs"`
			LimitBytes uint64   `json:"limit_bytes"`
			Error      string   `json:"error"`
		} `json:"relays"`
		HolePunching bool   `json:"hole_punching"`
		Punched      uint64 `json:"punched"`
		PunchFailed  uint64 `json:"punch_failed"`
	} `json:"reach"`
}

func statusOf(t *testing.T, n *proc.Node) (s status) {
	t.Helper()
	if err := json.Unmarshal([]byte(n.OK("status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// until waits for a condition on a node's status.
func until(t *testing.T, n *proc.Node, what string, ok func(s status) bool) status {
	t.Helper()
	deadline := time.Now().Add(proc.Patience)
	for {
		s := statusOf(t, n)
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s: not in %v:\n%+v", n.Label, what, proc.Patience, s)
		}
		time.Sleep(50 * time.Millisecond) // between two looks
	}
}

// circuit waits until a node has a place at its relay and returns its address
// there.
func circuit(t *testing.T, n *proc.Node) string {
	t.Helper()
	s := until(t, n, "has a place at its relay", func(s status) bool {
		return len(s.Reach.Relays) == 1 && len(s.Reach.Relays[0].Addrs) > 0
	})
	return s.Reach.Relays[0].Addrs[0]
}

// connected tells how the session with the only peer goes.
func connected(s status) (live, relayed bool) {
	if len(s.Peers) != 1 || s.Peers[0].State != "Connected" {
		return false, false
	}
	return true, s.Peers[0].Relayed
}

// pair starts two nodes behind the sites that use the relay; the second one knows
// the first one's address there.
func (w *internet) pair(a, b *site, args ...string) (*proc.Node, *proc.Node) {
	w.t.Helper()
	args = append([]string{"--open", "--relay", w.relayAddr()}, args...)
	na := a.host.Node("A", args...).Start()
	nb := b.host.Node("B", append(args, "--connect", circuit(w.t, na))...).Start()
	return na, nb
}

// replicate writes at both and waits until both have both.
func replicate(t *testing.T, a, b *proc.Node) {
	t.Helper()
	a.OK("put", "from/a", "1")
	b.OK("put", "from/b", "2")
	proc.Converged(t, a, b)
	if got := a.OK("get", "from/b") + b.OK("get", "from/a"); got != "21" {
		t.Fatalf("after convergence the nodes read %q", got)
	}
}

// Two nodes behind port-restricted cones meet at the relay, punch holes, and their
// session moves to the direct connection.
func TestTwoCones(t *testing.T) {
	t.Parallel()
	w := newInternet(t)
	a, b := w.pair(w.site(netns.Cone), w.site(netns.Cone))
	began := time.Now()
	for _, n := range []*proc.Node{a, b} {
		s := until(t, n, "a direct session", func(s status) bool { live, relayed := connected(s); return live && !relayed })
		// By QUIC, whose port the relay has seen, at the other router.
		if !strings.HasPrefix(s.Peers[0].Addr, "quic://44.1.1.10") || strings.Contains(s.Peers[0].Addr, relayIP+":") {
			t.Errorf("%s reaches its peer at %s", n.Label, s.Peers[0].Addr)
		}
	}
	t.Logf("direct after %v", time.Since(began).Round(time.Millisecond))
	replicate(t, a, b)
}

// Behind symmetric NATs no hole can be punched: the session stays with the relay,
// and replicates.
func TestTwoSymmetric(t *testing.T) {
	t.Parallel()
	w := newInternet(t)
	a, b := w.pair(w.site(netns.Symmetric), w.site(netns.Symmetric))
	until(t, a, "a relayed session", func(s status) bool { live, relayed := connected(s); return live && relayed })
	replicate(t, a, b)
	for _, n := range []*proc.Node{a, b} { // at some moment it may just begin anew
		until(t, n, "a relayed session still", func(s status) bool { live, relayed := connected(s); return live && relayed })
	}
}

// Over a relay with libp2p's default limits, 128 KiB and 2 minutes a connection,
// 20 MB arrive by going on where each connection was cut. The keys of both sides
// arrive: each one is sender and receiver.
func TestForeignRelay(t *testing.T) {
	t.Parallel()
	w := newInternet(t, "--relay-data", "128K", "--relay-duration", "120")
	a, b := w.pair(w.site(netns.Symmetric), w.site(netns.Symmetric), "--hole-punching", "off")
	until(t, b, "a relayed session", func(s status) bool { live, relayed := connected(s); return live && relayed })
	began := time.Now()
	value := make([]byte, 1<<20-64)
	for i := range 20 {
		n := []*proc.Node{a, b}[i%2]
		if _, err := rand.Read(value); err != nil {
			t.Fatal(err)
		}
		if r := n.RunInput(bytes.NewReader(value), "put", fmt.Sprintf("large/%d", i), "-"); r.Code != 0 {
			t.Fatalf("put: %+v", r)
		}
	}
	for _, n := range []*proc.Node{a, b} {
		for key := 1; key <= 20; key++ { // each in its time: all take longer than one may
			until(t, n, fmt.Sprint(key, " of 20 keys"), func(status) bool { return strings.Count(n.OK("ls", "large/"), "\n") >= key })
		}
	}
	took := time.Since(began)
	// At this moment the relay may just have cut the session.
	s := until(t, b, "a relayed session to the end", func(s status) bool { live, relayed := connected(s); return live && relayed })
	t.Logf("20 MB after %v over %d sessions", took.Round(time.Millisecond), s.Counters.Handshakes)
	if s.Counters.Handshakes < 80 {
		t.Errorf("20 MB over %d sessions: the relay's limit was not in the way", s.Counters.Handshakes)
	}
	proc.Converged(t, a, b)
}

// A port that the router forwards by hand: --advertise tells others about it, and a
// peer that never heard of it otherwise comes in there.
func TestAdvertise(t *testing.T) {
	t.Parallel()
	w := newInternet(t)
	at := w.site(netns.Cone)
	const outside = 4444
	hub := w.lab.Host("hub")
	hub.Plug(w.net, "44.1.1.20/24")
	b := hub.Node("B", "--open").Start()

	a := at.host.Node("A", "--open", "--advertise", fmt.Sprintf("%s:%d", at.ip, outside), "--connect", fmt.Sprintf("44.1.1.20:%d", b.Port))
	at.router.PortForward(at.wan, outside, inside, a.Port)
	a.Start()
	until(t, b, "a session with A", func(s status) bool { live, _ := connected(s); return live })
	replicate(t, a, b)

	// A dials nobody any more, so that B comes to A: where A said that it is.
	a.Kill()
	a.Start("--no-connect")
	s := until(t, b, "a session that B began", func(s status) bool {
		live, _ := connected(s)
		return live && s.Peers[0].Direction == "out"
	})
	if want := fmt.Sprintf("%s:%d", at.ip, outside); !strings.Contains(s.Peers[0].Addr, want) {
		t.Errorf("B reaches A at %s, want %s", s.Peers[0].Addr, want)
	}
	a.OK("put", "after", "3")
	proc.Converged(t, a, b)
}

// A member that relays for others is found by those who are connected to it, and
// what is behind a NAT is reached there.
func TestMemberRelays(t *testing.T) {
	t.Parallel()
	w := newInternet(t)
	hub := w.lab.Host("hub")
	hub.Plug(w.net, "44.1.1.20/24")
	m := hub.Node("M", "--open", "--relay-service").Start()
	connect := []string{"--open", "--connect", fmt.Sprintf("quic://44.1.1.20:%d", m.Port)}

	a := w.site(netns.Symmetric).host.Node("A", connect...).Start()
	addr := circuit(t, a)
	if !strings.Contains(addr, m.PeerID) {
		t.Fatalf("A is reached at %s, not through M", addr)
	}
	b := w.site(netns.Symmetric).host.Node("B", append(connect, "--connect", addr)...).Start()
	until(t, b, "a session with M and a relayed one with A", func(s status) bool {
		direct, relayed := 0, 0
		for _, p := range s.Peers {
			if p.State == "Connected" && p.Relayed {
				relayed++
			} else if p.State == "Connected" {
				direct++
			}
		}
		return direct == 1 && relayed == 1
	})
	replicate(t, a, b)
}
