//go:build linux

// Package nat tests how nodes behind NATs reach each other: real programs in
// network namespaces, with routers between them.
package nat

import (
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
	wan          *netns.Link
	ip           string // the router's, outside
}

const inside = "10.0.0.2"

func (w *internet) site(kind netns.NAT) *site {
	w.t.Helper()
	w.sites++
	s := &site{router: w.lab.Host(fmt.Sprintf("router%d", w.sites)), host: w.lab.Host(fmt.Sprintf("site%d", w.sites)), ip: fmt.Sprintf("44.1.1.%d", 100+w.sites)}
	s.wan = s.router.Plug(w.net, s.ip+"/24")
	lan := w.lab.Switch(fmt.Sprintf("lan%d", w.sites))
	s.router.Plug(lan, "10.0.0.1/24")
	s.router.Masquerade(s.wan, kind)
	s.host.Plug(lan, inside+"/24")
	s.host.Route("default", "10.0.0.1")
	return s
}

// status is the part of a node's status that these tests look at.
type status struct {
	Peers []struct {
		PeerID  string `json:"peer_id"`
		State   string `json:"state"`
		Addr    string `json:"addr"`
		Relayed bool   `json:"relayed"`
	} `json:"peers"`
	Counters struct {
		Handshakes uint64 `json:"handshakes_completed"`
	} `json:"counters"`
	Reach struct {
		Reachability string `json:"reachability"`
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
	w := newInternet(t)
	a, b := w.pair(w.site(netns.Cone), w.site(netns.Cone))
	began := time.Now()
	for _, n := range []*proc.Node{a, b} {
		s := until(t, n, "a direct session", func(s status) bool { live, relayed := connected(s); return live && !relayed })
		if !strings.Contains(s.Peers[0].Addr, "44.1.1.10") || strings.Contains(s.Peers[0].Addr, relayIP+":") {
			t.Errorf("%s reaches its peer at %s", n.Label, s.Peers[0].Addr)
		}
	}
	t.Logf("direct after %v", time.Since(began).Round(time.Millisecond))
	replicate(t, a, b)
}

// Behind symmetric NATs no hole can be punched: the session stays with the relay,
// and replicates.
func TestTwoSymmetric(t *testing.T) {
	w := newInternet(t)
	a, b := w.pair(w.site(netns.Symmetric), w.site(netns.Symmetric))
	until(t, a, "a relayed session", func(s status) bool { live, relayed := connected(s); return live && relayed })
	replicate(t, a, b)
	for _, n := range []*proc.Node{a, b} {
		if live, relayed := connected(statusOf(t, n)); !live || !relayed {
			t.Errorf("%s: session %v, relayed %v", n.Label, live, relayed)
		}
	}
}
