//go:build linux

package lan_test

import (
	"fmt"
	"strings"
	"testing"

	"vixp2p/test/internal/netns"
	"vixp2p/test/internal/proc"
)

// TestIPv6: two machines that have nothing but IPv6, the second in another subnet,
// where no multicast reaches the first. Over either transport the second one
// connects to an address that is given to it, and both converge.
func TestIPv6(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ scheme, off string }{{"tcp", "--quic"}, {"quic", "--tcp"}} {
		t.Run(c.scheme, func(t *testing.T) {
			t.Parallel()
			lab := netns.New(t)
			here, there := lab.Switch("here"), lab.Switch("there")
			router, one, two := lab.Host("router"), lab.Host("one"), lab.Host("two")
			router.Plug(here, "2a00:7:1::1/64")
			router.Plug(there, "2a00:7:2::1/64")
			router.Forward()
			one.Plug(here, "2a00:7:1::2/64")
			one.Route("default", "2a00:7:1::1")
			two.Plug(there, "2a00:7:2::2/64")
			two.Route("default", "2a00:7:2::1")

			a := one.Node("A", "--open", c.off, "off").Start()
			b := two.Node("B", "--open", c.off, "off", "--connect", fmt.Sprintf("%s://[2a00:7:1::2]:%d", c.scheme, a.Port)).Start()
			a.OK("put", "from/a", "1")
			b.OK("put", "from/b", "2")
			proc.Converged(t, a, b)
			if got := a.OK("get", "from/b") + b.OK("get", "from/a"); got != "21" {
				t.Errorf("after convergence the nodes read %q", got)
			}
			if text := b.OK("peers", "--json"); !strings.Contains(text, c.scheme+"://[2a00:7:1::2]:") {
				t.Errorf("B's peers: %s", text)
			}
		})
	}
}

// TestFindEachOtherByIPv6: on one segment, without an IPv4 address on either side,
// nothing but --id and --listen is needed.
func TestFindEachOtherByIPv6(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	lan := lab.Switch("lan")
	one, two := lab.Host("one"), lab.Host("two")
	one.Plug(lan, "fd07::1/64")
	two.Plug(lan, "fd07::2/64")
	a, b := one.Node("A", "--open").Start(), two.Node("B", "--open").Start()
	a.OK("put", "from", "a")
	proc.Converged(t, a, b)
	if got := b.OK("get", "from"); got != "a" {
		t.Errorf("B reads %q", got)
	}
}
