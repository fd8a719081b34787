//go:build linux

package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/proc"
)

// socket is a UDP socket on a host.
func socket(t *testing.T, h *Host, addr string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	h.Do(func() {
		a, err := net.ResolveUDPAddr("udp", addr)
		if err == nil {
			c, err = net.ListenUDP("udp", a)
		}
		if err != nil {
			t.Errorf("%s: %v", h.label, err)
		}
	})
	if c == nil {
		t.FailNow()
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t *testing.T, from *net.UDPConn, to string) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(to)); err != nil {
		t.Fatal(err)
	}
}

// heard waits for a packet and returns where it seems to come from.
func heard(t *testing.T, c *net.UDPConn) netip.AddrPort {
	t.Helper()
	from, err := read(c, 10*time.Second)
	if err != nil {
		t.Fatalf("%v hears nothing: %v", c.LocalAddr(), err)
	}
	return from
}

func read(c *net.UDPConn, patience time.Duration) (netip.AddrPort, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, from, err := c.ReadFromUDPAddrPort(make([]byte, 16))
	return from, err
}

// deaf checks that a packet which was sent has not come: one that was sent after
// it, and takes the same way, has.
func deaf(t *testing.T, c *net.UDPConn) {
	t.Helper()
	if from, err := read(c, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%v hears %v (%v), and should not", c.LocalAddr(), from, err)
	}
}

// behind makes a host behind a router with NAT: 10.0.0.2, seen as outside.
func behind(lab *Lab, internet *Switch, outside string, kind NAT) (host, router *Host, wan *Link) {
	lan := lab.Switch("lan")
	router, host = lab.Host("router"), lab.Host("behind")
	wan = router.Plug(internet, outside+"/24")
	router.Plug(lan, "10.0.0.1/24")
	router.Masquerade(wan, kind)
	host.Plug(lan, "10.0.0.2/24")
	host.Route("default", "10.0.0.1")
	return host, router, wan
}

func TestNAT(t *testing.T) {
	lab := New(t)
	internet := lab.Switch("internet")
	one, two := lab.Host("one"), lab.Host("two")
	one.Plug(internet, "44.1.1.1/24")
	two.Plug(internet, "44.1.1.2/24")
	atOne, atTwo := socket(t, one, "44.1.1.1:7000"), socket(t, two, "44.1.1.2:7000")

	t.Run("cone", func(t *testing.T) {
		host, router, wan := behind(lab, internet, "44.1.1.100", Cone)
		s := socket(t, host, "10.0.0.2:9001")
		send(t, atTwo, "44.1.1.100:9001") // unasked, and it must not spoil the mapping
		send(t, s, "44.1.1.1:7000")
		send(t, s, "44.1.1.2:7000")
		want := netip.MustParseAddrPort("44.1.1.100:9001")
		if a, b := heard(t, atOne), heard(t, atTwo); a != want || b != want {
			t.Errorf("the two see %v and %v, want both %v", a, b, want)
		}
		send(t, atOne, want.String())
		heard(t, s)
		deaf(t, s) // of the packet that came unasked

		inside := socket(t, host, "10.0.0.2:9002")
		router.PortForward(wan, 9100, "10.0.0.2", 9002)
		send(t, atTwo, "44.1.1.100:9100")
		heard(t, inside)
	})
	t.Run("symmetric", func(t *testing.T) {
		host, _, _ := behind(lab, internet, "44.1.1.101", Symmetric)
		s := socket(t, host, "10.0.0.2:9001")
		send(t, s, "44.1.1.1:7000")
		send(t, s, "44.1.1.2:7000")
		a, b := heard(t, atOne), heard(t, atTwo)
		if a == b || a.Addr() != netip.MustParseAddr("44.1.1.101") || b.Addr() != a.Addr() {
			t.Errorf("the two see %v and %v, want two ports of 44.1.1.101", a, b)
		}
		send(t, atTwo, a.String()) // the wrong one
		send(t, atOne, a.String())
		if from := heard(t, s); from.Addr() != netip.MustParseAddr("44.1.1.1") {
			t.Errorf("a stranger's packet came in from %v", from)
		}
	})
}

func TestCablesAndAddresses(t *testing.T) {
	lab := New(t)
	lan := lab.Switch("lan")
	a, b := lab.Host("a"), lab.Host("b")
	cable := a.Plug(lan, "192.168.1.2/24", "2a00:1::2/64")
	b.Plug(lan, "192.168.1.3/24", "2a00:1::3/64")
	at := socket(t, a, "[::]:7000")
	from := socket(t, b, "[::]:7000")

	send(t, from, "192.168.1.2:7000")
	heard(t, at)
	send(t, from, "[2a00:1::2]:7000")
	heard(t, at)

	cable.Unplug()
	send(t, from, "192.168.1.2:7000")
	deaf(t, at)
	cable.Replug()
	cable.Readdress("192.168.1.22/24")
	send(t, from, "192.168.1.22:7000")
	heard(t, at)
}

// What a killed test leaves, processes too, the next one removes.
func TestSweep(t *testing.T) {
	New(t)
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	left := strings.Replace((&Lab{}).name("left"), "-"+strconv.Itoa(os.Getpid())+"-", "-"+strconv.Itoa(ended.Process.Pid)+"-", 1)
	if out, err := exec.Command("ip", "netns", "add", left).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	running := exec.Command("ip", "netns", "exec", left, "sleep", "3600")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	// ip enters the namespace before it becomes sleep; until then it is nobody's.
	for give := time.Now().Add(proc.Patience); ; time.Sleep(10 * time.Millisecond) {
		out, err := exec.Command("ip", "netns", "pids", left).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if len(out) > 0 {
			break
		}
		if time.Now().After(give) {
			t.Fatalf("no process in %s within %v", left, proc.Patience)
		}
	}
	New(t)
	if _, err := os.Stat(filepath.Join(where, left)); err == nil {
		t.Errorf("%s is still there", left)
	}
	if err := running.Wait(); err == nil {
		t.Error("its process ended by itself")
	}
}

func TestMain(m *testing.M) { proc.Main(m) }

// Nodes run on the hosts, and the commands reach them there.
func TestNodes(t *testing.T) {
	lab := New(t)
	lan := lab.Switch("lan")
	one, two := lab.Host("one"), lab.Host("two")
	one.Plug(lan, "192.168.1.2/24")
	two.Plug(lan, "192.168.1.3/24")
	a := one.Node("A", "--open", "--listen", "0.0.0.0:9001").Start()
	b := two.Node("B", "--open", "--connect", "192.168.1.2:9001").Start()
	a.OK("put", "k", "v")
	proc.Converged(t, a, b)
	if got := b.OK("get", "k"); got != "v" {
		t.Errorf("B reads %q", got)
	}
}
