package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// inOwnNetwork is set in the process that runs a test in a network of its own.
const inOwnNetwork = "VIX_TEST_OWN_NETWORK"

// ownNetwork runs the test once more in a process whose network has one interface,
// v0 with 10.9.0.1/24 and fd09::1/64, and is cut off from the machine's. It is true
// in that process.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inOwnNetwork) != "" {
		run(t, "ip link set lo up")
		run(t, "ip link add v0 type veth peer name v1")
		run(t, "ip addr add 10.9.0.1/24 dev v0")
		run(t, "ip addr add fd09::1/64 dev v0 nodad")
		run(t, "ip link set v1 up")
		run(t, "ip link set v0 up")
		run(t, "ip route add 224.0.0.0/4 dev v0")
		return true
	}
	unable := func(reason string) {
		if os.Getenv("CI") != "" {
			t.Fatal(reason)
		}
		t.Skip("NOT TESTED: " + reason)
	}
	if os.Geteuid() != 0 {
		unable("a network of its own needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		unable("the command ip is missing: install the package iproute2")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), inOwnNetwork+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // a parent that dies is a thread
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		unable("this system makes no network namespaces")
	}
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("in a network of its own: %v", err)
	}
	return false
}

func run(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// mdnsEar counts what an mdns heard.
type mdnsEar struct {
	mu     sync.Mutex // guards below
	heard  map[string]int
	texts  map[string][]string
	failed error
}

func (e *mdnsEar) ear() lanEar {
	e.heard, e.texts = map[string]int{}, map[string][]string{}
	return lanEar{
		heard: func(instance string, texts []string) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.heard[instance]++
			e.texts[instance] = texts
		},
		failed: func(err error) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.failed = err
		},
	}
}

func (e *mdnsEar) of(instance string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[instance]
}

func (e *mdnsEar) says(instance string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.texts[instance]
}

func (e *mdnsEar) why() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failed
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// TestMDNS: two that announce themselves on a link hear each other again in each
// interval and themselves never, also during a flood, and leave nothing behind.
func TestMDNS(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	before := runtime.NumGoroutine()
	links, err := lanLinks()
	if err != nil {
		t.Fatal(err)
	}
	var v0 []lanLink
	for _, l := range links {
		if l.Name == "v0" {
			v0 = append(v0, l)
		}
	}
	if len(v0) != 1 || len(v0[0].addrs()) != 2 || !v0[0].has(netip.MustParseAddr("10.9.0.77")) {
		t.Fatalf("links %+v", links)
	}
	const service = "_vix-test._udp"
	start := func(name string, e *mdnsEar) (stop func()) {
		m, err := openMDNS(announcement{
			service: service, instance: name, port: 9, texts: []string{dnsaddr + name}, ips: v0[0].addrs()[:1],
			links: v0, every: 200 * time.Millisecond,
		}, e.ear())
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	var a, b, c mdnsEar
	stopA, stopB := start("a", &a), start("b", &b)
	eventually(t, "a hears b ten times", func() bool { return a.of("b") >= 10 })
	eventually(t, "b hears a ten times", func() bool { return b.of("a") >= 10 })
	if a.of("a") != 0 || b.of("b") != 0 {
		t.Error("it hears itself")
	}
	if got := fmt.Sprint(a.says("b")); got != "[dnsaddr=b]" {
		t.Errorf("a heard %s", got)
	}

	flood := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { pour(t, service, flood) })
	eventually(t, "the flood arrives", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.heard) > 3*maxRoundEntries })
	n := a.of("b")
	eventually(t, "a hears b during a flood", func() bool { return a.of("b") >= n+5 })
	begin := time.Now()
	stopB()
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("the end took %s during a flood", d)
	}
	close(flood)
	wg.Wait()

	// Without IPv6 on the link, and then without the link.
	run(t, "ip link set v0 mtu 1200") // IPv6 needs 1280
	stopC := start("c", &c)
	eventually(t, "a hears c by IPv4", func() bool { return a.of("c") >= 2 })
	if err := a.why(); err != nil {
		t.Errorf("with IPv4 alone: %v", err)
	}
	run(t, "ip link del v0")
	eventually(t, "it is told that nobody can be asked", func() bool { err := a.why(); return err != nil && strings.Contains(err.Error(), "udp4") })
	stopA()
	stopC()
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

// pour announces an instance after the other that does not exist, until stop is
// closed.
func pour(t *testing.T, service string, stop <-chan struct{}) {
	conn, err := net.Dial("udp4", "224.0.0.251:5353")
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if i%100 == 0 {
			time.Sleep(time.Millisecond) // more than it can take, and not all that two cores can
		}
		_, _ = conn.Write(dnsAnswer(fmt.Sprintf("bogus%d.%s.local", i, service)))
	}
}

// dnsAnswer is a message with the SRV, TXT and A records of an instance.
func dnsAnswer(name string) []byte {
	var owner []byte
	for _, label := range strings.Split(name, ".") {
		owner = append(append(owner, byte(len(label))), label...)
	}
	owner = append(owner, 0)
	msg := []byte{0, 0, 0x84, 0, 0, 0, 0, 3, 0, 0, 0, 0}
	for _, r := range []struct {
		kind uint16
		data []byte
	}{
		{33, append([]byte{0, 0, 0, 0, 0, 1}, owner...)}, {16, []byte("\x04text")}, {1, []byte{10, 9, 0, 9}},
	} {
		msg = append(msg, owner...)
		msg = binary.BigEndian.AppendUint16(msg, r.kind)
		msg = append(msg, 0, 1, 0xff, 0, 0, 0) // for half a lifetime
		msg = binary.BigEndian.AppendUint16(msg, uint16(len(r.data)))
		msg = append(msg, r.data...)
	}
	return msg
}
