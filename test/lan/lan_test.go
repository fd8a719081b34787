//go:build linux

// Package lan_test runs nodes on machines of their own, network namespaces on a
// bridge, that find each other by nothing but multicast DNS. There is no route to
// anywhere else.
package lan_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/netns"
	"vixp2p/test/internal/proc"
)

func TestMain(m *testing.M) { proc.Main(m) }

// eventually waits for a condition that the network brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(proc.Patience); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, proc.Patience)
		}
	}
}

// has tells whether a key arrives at a node.
func has(n *proc.Node, key, value string) func() bool {
	return func() bool { return strings.TrimSpace(n.Run("get", key).Stdout) == value }
}

// status is what this package reads of the status of a node.
type status struct {
	Discovery struct {
		LAN struct {
			On      bool     `json:"on"`
			Why     string   `json:"why"`
			Service string   `json:"service"`
			Links   []string `json:"links"`
			Peers   int      `json:"peers"`
		} `json:"lan"`
	} `json:"discovery"`
	Counters struct {
		Attempts uint64 `json:"connect_attempts"`
	} `json:"counters"`
}

func statusOf(t *testing.T, n *proc.Node) (st status) {
	t.Helper()
	if err := json.Unmarshal([]byte(n.OK("status", "--json")), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// TestFindEachOther: two nodes that know nothing but their names, and one of
// another network that they leave alone.
func TestFindEachOther(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	lan := lab.Switch("lan")
	a, b, c := lab.Host("a"), lab.Host("b"), lab.Host("c")
	a.Plug(lan, "192.168.7.1/24")
	b.Plug(lan, "192.168.7.2/24", "fd07::2/64")
	c.Plug(lan, "192.168.7.3/24")
	stranger := c.Node("C", "--open", "--network-name", "other").Start()
	first := a.Node("A", "--open").Start()
	first.OK("put", "from", "a")
	time.Sleep(time.Second) // so that it has asked before the other one is there
	start := time.Now()
	second := b.Node("B", "--open").Start()
	eventually(t, "B has what A wrote", has(second, "from", "a"))
	t.Logf("started with nothing but --id and --listen, B has A's data %.2f s after its start", time.Since(start).Seconds())
	second.OK("put", "from", "b")
	eventually(t, "A has what B wrote", has(first, "from", "b"))

	eventually(t, "B hears A", func() bool { return statusOf(t, second).Discovery.LAN.Peers == 1 })
	if st := statusOf(t, second).Discovery.LAN; !st.On || st.Why != "" || len(st.Links) != 1 || st.Links[0] != "eth0" || st.Peers != 1 || !strings.HasPrefix(st.Service, "_vix-") {
		t.Errorf("status of B: %+v", st)
	}
	if st := statusOf(t, stranger); st.Counters.Attempts != 0 || st.Discovery.LAN.Peers != 0 {
		t.Errorf("the node of another network heard or dialled somebody: %+v", st)
	}
	if out := second.OK("status"); !strings.Contains(out, "asking on eth0; 1 heard") {
		t.Errorf("status says\n%s", out)
	}
}

// TestLoopbackOnly: a node that is not open has nothing to do with the LAN and
// says why.
func TestLoopbackOnly(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	lan := lab.Switch("lan")
	a, b := lab.Host("a"), lab.Host("b")
	a.Plug(lan, "192.168.7.1/24")
	b.Plug(lan, "192.168.7.2/24")
	open, private := a.Node("A", "--open").Start(), b.Node("B").Start()
	time.Sleep(3 * time.Second) // more than one question
	if st := statusOf(t, private).Discovery.LAN; st.On || !strings.Contains(st.Why, "loopback only") || !strings.Contains(st.Why, "--open") {
		t.Errorf("status of the private node: %+v", st)
	}
	if st := statusOf(t, open).Discovery.LAN; st.Peers != 0 {
		t.Errorf("the open node heard somebody: %+v", st)
	}
}

// TestAddressChanges: a node whose machine gets another address is back at once,
// not when its peers have missed it.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	lan := lab.Switch("lan")
	a, b := lab.Host("a"), lab.Host("b")
	eth := a.Plug(lan, "192.168.7.1/24")
	b.Plug(lan, "192.168.7.2/24")
	first, second := a.Node("A", "--open").Start(), b.Node("B", "--open").Start()
	first.OK("put", "k", "before")
	eventually(t, "they find each other", has(second, "k", "before"))
	eth.Readdress("192.168.7.99/24")
	start := time.Now()
	first.OK("put", "k", "after")
	eventually(t, "B has what A wrote from its new address", has(second, "k", "after"))
	t.Logf("A has another address: its next write is at B %.2f s later", time.Since(start).Seconds())
	eventually(t, "A says that it listens on the new address alone", func() bool {
		at := first.OK("status")
		return !strings.Contains(at, "192.168.7.1/") && strings.Contains(at, "192.168.7.99/")
	})
	second.OK("put", "k", "back")
	eventually(t, "A has what B wrote", has(first, "k", "back"))
}

// TestLeavesAndReturns: a cable is out for 20 s; both sides write meanwhile.
func TestLeavesAndReturns(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	lan := lab.Switch("lan")
	a, b, c := lab.Host("a"), lab.Host("b"), lab.Host("c")
	eth := a.Plug(lan, "192.168.7.1/24")
	b.Plug(lan, "192.168.7.2/24")
	c.Plug(lan, "192.168.7.3/24")
	first, second, third := a.Node("A", "--open").Start(), b.Node("B", "--open").Start(), c.Node("C", "--open").Start()
	first.OK("put", "k", "before")
	for _, n := range []*proc.Node{second, third} {
		eventually(t, "they find each other", has(n, "k", "before"))
	}
	eth.Unplug()
	first.OK("put", "a", "alone")
	second.OK("put", "b", "without a")
	time.Sleep(20 * time.Second)
	if has(first, "b", "without a")() {
		t.Fatal("the cable was not out")
	}
	eth.Replug()
	start := time.Now()
	eventually(t, "B has what A wrote alone", has(second, "a", "alone"))
	eventually(t, "A has what it missed", has(first, "b", "without a"))
	t.Logf("the cable is back in after 20 s: both sides have all %.2f s later", time.Since(start).Seconds())
	eventually(t, "C has all", has(third, "a", "alone"))
}
