//go:build linux

package nat

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/netns"
)

// A home router that maps ports: a node that is allowed to ask has both its ports
// forwarded, shows it, and is reached there by a node that the router has never
// heard of. What it was given ends soon after it.
func TestPortMapping(t *testing.T) {
	t.Parallel()
	netns.NeedGateway(t)
	lab := netns.New(t)
	w := &internet{t: t, lab: lab, net: lab.Switch("internet")}
	at := w.site(netns.Cone)
	gateway := at.router.Gateway(at.wan, at.lan)
	a := at.host.Node("A", "--open", "--port-mapping", "on").Start()

	s := until(t, a, "the router forwards both ports", func(s status) bool { return len(s.Reach.Mapped) == 2 })
	if !s.Reach.PortMapping || !s.Reach.Gateway {
		t.Errorf("status: %+v", s.Reach)
	}
	var tcp string
	for _, addr := range s.Reach.Mapped {
		if !strings.HasPrefix(addr, "/ip4/"+at.ip+"/") {
			t.Errorf("it claims to be mapped at %s, and the router is %s", addr, at.ip)
		}
		if rest, ok := strings.CutPrefix(addr, "/ip4/"+at.ip+"/tcp/"); ok {
			tcp = fmt.Sprintf("%s:%s", at.ip, rest)
		}
	}
	if text := a.OK("status"); !strings.Contains(text, "port mapping") || !strings.Contains(text, s.Reach.Mapped[0]) {
		t.Errorf("status says\n%s", text)
	}
	for _, proto := range []string{"tcp", "udp"} {
		if rules := gateway.Rules(); !strings.Contains(rules, "-p "+proto) {
			t.Errorf("the router has no rule for %s:\n%s", proto, rules)
		}
	}

	hub := lab.Host("hub")
	hub.Plug(w.net, "44.1.1.20/24")
	b := hub.Node("B", "--open", "--connect", tcp).Start()
	s = until(t, a, "somebody from outside", func(s status) bool { live, _ := connected(s); return live })
	if p := s.Peers[0]; p.Direction != "in" || p.Relayed || !strings.Contains(p.Addr, "44.1.1.20") {
		t.Errorf("A's session: %+v", p)
	}
	replicate(t, a, b)

	// A node that dies takes nothing back: the router forgets it by itself.
	leases := gateway.Leases()
	if len(leases) != 2 {
		t.Errorf("the router keeps %d forwards", len(leases))
	}
	for forward, end := range leases {
		if left := time.Until(end); left > 61*time.Second {
			t.Errorf("%s for another %v: an hour later somebody else may have that port", forward, left)
		}
	}
}

// Without a router that maps ports the node says so and goes on.
func TestNoGateway(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	w := &internet{t: t, lab: lab, net: lab.Switch("internet")}
	a := w.site(netns.Cone).host.Node("A", "--open", "--port-mapping", "on").Start()
	if s := statusOf(t, a); !s.Reach.PortMapping || s.Reach.Gateway || len(s.Reach.Mapped) > 0 {
		t.Errorf("status: %+v", s.Reach)
	}
	if text := a.OK("status"); !strings.Contains(text, "no router that maps ports was found") {
		t.Errorf("status says\n%s", text)
	}
}
