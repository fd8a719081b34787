//go:build linux

package nat

import (
	"fmt"
	"strings"
	"testing"

	"vixp2p/test/internal/netns"
	"vixp2p/test/internal/proc"
)

// What AutoNAT finds shows in the status: a node asks its peers, which really dial
// back, at the address at which they see it. Behind a router that lets nobody in
// it is private; with the port forwarded the same node is public, as is a machine
// with a public address.
func TestVerdict(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	w := &internet{t: t, lab: lab, net: lab.Switch("internet")}
	// By QUIC alone, where all four see one address: sessions by TCP, to addresses that
	// are remembered, come from another port each.
	args := []string{"--open", "--tcp", "off"}
	var hubs []*proc.Node
	for i := range 4 /* libp2p believes four who see the same address */ {
		ip := fmt.Sprintf("44.1.1.%d", 20+i)
		host := lab.Host(fmt.Sprintf("hub%d", i))
		host.Plug(w.net, ip+"/24")
		n := host.Node(fmt.Sprintf("H%d", i), append([]string{"--discovery", "off"}, args...)...).Start()
		hubs = append(hubs, n)
		args = append(args, "--connect", fmt.Sprintf("quic://%s:%d", ip, n.Port))
	}
	at := w.site(netns.Cone)
	a := at.host.Node("A", args...).Start()

	s := until(t, a, "private", func(s status) bool { return s.Reach.Reachability == "private" })
	if !s.Reach.AutoNAT || len(s.Reach.Confirmed) > 0 {
		t.Errorf("the status of a private node: %+v", s.Reach)
	}
	if text := a.OK("status"); !strings.Contains(text, "not directly: others have tried in vain") {
		t.Errorf("status says\n%s", text)
	}

	a.Stop()
	at.router.PortForward(at.wan, a.Port, inside, a.Port)
	a.Start()
	for _, n := range []*proc.Node{a, hubs[0]} {
		s = until(t, n, "public", func(s status) bool { return s.Reach.Reachability == "public" })
		if len(s.Reach.Confirmed) == 0 {
			t.Errorf("%s: public, and no address is confirmed: %+v", n.Label, s.Reach)
		}
		if text := n.OK("status"); !strings.Contains(text, "yes: others have reached "+s.Reach.Confirmed[0]) {
			t.Errorf("status of %s says\n%s", n.Label, text)
		}
	}
}
