//go:build linux

// Package registry_test runs nodes on machines of their own, network namespaces in
// subnets of their own, that know nothing of each other but a registry. There is
// no route to anywhere else.
package registry_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/netns"
	"vixp2p/test/internal/proc"
)

func TestMain(m *testing.M) { proc.Main(m) }

// serve runs a registry on a host; the returned function ends it as kill -9 does.
func serve(t *testing.T, h *netns.Host, args ...string) (kill func()) {
	t.Helper()
	args = append(h.Prefix(), append([]string{proc.Binary(t), "registry", "--listen", ":8080", "--log-level", "warn"}, args...)...)
	cmd := exec.Command(args[0], args[1:]...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	kill = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready listen=") {
		kill()
		t.Fatalf("the registry is not ready: %q, %v\n%s", line, err, errs.String())
	}
	return kill
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(proc.Patience); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, proc.Patience)
		}
	}
}

// has tells whether a key has arrived at a node.
func has(n *proc.Node, key, value string) func() bool {
	return func() bool { return strings.TrimSpace(n.Run("get", key).Stdout) == value }
}

// TestNodesWithOnlyARegistry: five nodes, each in a subnet of its own where no
// multicast reaches the others, converge through a registry. It is killed: they go
// on. It comes back: a sixth joins. A machine that gets another address is found
// there.
func TestNodesWithOnlyARegistry(t *testing.T) {
	t.Parallel()
	lab := netns.New(t)
	router := lab.Host("router")
	router.Forward()
	links := map[string]*netns.Link{}
	host := func(i int, label string) *netns.Host {
		h, sw := lab.Host(label), lab.Switch("lan-"+label)
		router.Plug(sw, fmt.Sprintf("10.7.%d.1/24", i))
		links[label] = h.Plug(sw, fmt.Sprintf("10.7.%d.2/24", i))
		h.Route("default", fmt.Sprintf("10.7.%d.1", i))
		return h
	}
	office := host(0, "reg")
	file := t.TempDir() + "/registry.json"
	kill := serve(t, office, "--file", file)

	const url = "http://10.7.0.2:8080/p2p/v1"
	start := time.Now()
	lap := func(what string) {
		t.Logf("%s: %.1f s", what, time.Since(start).Seconds())
		start = time.Now()
	}
	var nodes []*proc.Node
	var first *netns.Host
	for i, label := range []string{"a", "b", "c", "d", "e"} {
		h := host(i+1, label)
		if first == nil {
			first = h
		}
		nodes = append(nodes, h.Node(strings.ToUpper(label), "--open", "--registry", url, "--boot-interval", "1").Start())
	}
	for i, n := range nodes {
		n.OK("put", fmt.Sprint("k", i), "1")
	}
	proc.Converged(t, nodes...)
	lap("five nodes start and converge")

	kill()
	nodes[0].OK("put", "while it is away", "1")
	proc.Converged(t, nodes...)
	lap("they go on without the registry")

	serve(t, office, "--file", file)
	nodes = append(nodes, host(6, "f").Node("F", "--open", "--registry", url, "--boot-interval", "1").Start())
	proc.Converged(t, nodes...)
	lap("the registry is back, and a sixth joins")

	// The first machine moves within its subnet. A newcomer that hears of nothing
	// but the registry is connected with it there.
	links["a"].Readdress("10.7.1.99/24")
	first.Route("default", "10.7.1.1")
	nodes[0].OK("put", "moved", "1")
	for _, n := range nodes {
		eventually(t, "the write from the new address arrives", has(n, "moved", "1"))
	}
	lap("a write from a machine with another address is everywhere")
	eventually(t, "the registry has all six, and the new address", func() bool {
		text := list(t, office)
		return strings.Contains(text, "/ip4/10.7.1.99/tcp/") && strings.Count(text, `"host"`) == 6
	})
	if text := list(t, office); strings.Contains(text, "10.7.1.2/") || strings.Contains(text, `"10.7.1.2"`) || strings.Contains(text, "127.0.0.1") {
		t.Errorf("the registry lists %s", text)
	}
	lap("the registry has its new address")
}

// list is what somebody on the host sees at the registry there. The request is
// written by hand: an HTTP client connects on a thread of its own choice.
func list(t *testing.T, h *netns.Host) string {
	t.Helper()
	var conn net.Conn
	var err error
	h.Do(func() { conn, err = net.Dial("tcp", "10.7.0.2:8080") })
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /peers?limit=200 HTTP/1.0\r\n\r\n")
	text, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(text), "HTTP/1.0 200 ") {
		t.Fatalf("%s, %v", text, err)
	}
	return string(text)
}
