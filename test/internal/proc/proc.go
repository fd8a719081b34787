// Package proc runs the real program for tests: builds it once, starts nodes,
// kills them, runs commands against them. Everything stays on loopback.
package proc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "vixp2p/node" // see readSources
)

// Patience is how long a test waits for a condition before it fails. It is far
// beyond what a slow machine needs: no test measures time with it.
const Patience = 2 * time.Minute

// maxShown is how much of a node's log a failed test shows, in bytes.
const maxShown = 64 << 10

var build struct {
	once sync.Once
	path string
	err  error
}

// Main is what a package's TestMain calls: it removes the program after the
// tests.
func Main(m *testing.M) {
	code := m.Run()
	if build.path != "" {
		_ = os.RemoveAll(filepath.Dir(build.path))
	}
	os.Exit(code)
}

// Binary is the path of the program, built on first use.
func Binary(t testing.TB) string {
	t.Helper()
	build.once.Do(func() {
		dir, err := os.MkdirTemp("", "vix-node-test-")
		if err != nil {
			build.err = err
			return
		}
		build.path = filepath.Join(dir, "vix-node")
		if err := readSources(); err != nil {
			build.err = err
			return
		}
		out, err := exec.Command("go", "build", "-o", build.path, "vixp2p/cmd/node").CombinedOutput()
		if err != nil {
			build.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// readSources lets go test know what the result depends on: it keeps results of
// tests whose packages, and the files that they read, have not changed, and does
// not see what a test builds. The library is imported for the same reason; the
// program cannot be.
func readSources() error {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(strings.TrimSpace(string(gomod))), "cmd", "node", "*.go"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("the program's sources are not in cmd/node")
	}
	for _, f := range files {
		if _, err := os.ReadFile(f); err != nil {
			return err
		}
	}
	return nil
}

// Port finds a free TCP and UDP port below the range from which the kernel picks
// ports for outgoing connections, so that a node can be restarted on it.
func Port(t testing.TB) int {
	t.Helper()
	for range 200 {
		p := 10000 + rand.IntN(20000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", p))
		_ = l.Close()
		if err != nil {
			continue
		}
		_ = u.Close()
		return p
	}
	t.Fatal("no free port on loopback")
	return 0
}

// Node is one data directory, and the process that runs on it, if any.
type Node struct {
	Dir, Label string
	Port       int
	Host       string // on which it listens alone; empty: where its network may

	t      testing.TB
	args   []string
	prefix []string // see In

	cmd    *exec.Cmd
	stderr *tail
	PeerID string
	exited chan struct{} // closed when the process has ended
}

// New describes a node that does not run. Further flags of run follow.
func New(t testing.TB, label string, args ...string) *Node {
	t.Helper()
	return &Node{t: t, Dir: filepath.Join(t.TempDir(), label), Label: label, Port: Port(t), args: args}
}

// In lets the node, and the commands on it, run by way of another command: what
// stands before the program's name, such as ip netns exec NAME.
func (n *Node) In(prefix ...string) *Node {
	n.prefix = prefix
	return n
}

// Addr is what others give to --connect.
func (n *Node) Addr() string { return fmt.Sprintf("127.0.0.1:%d", n.Port) }

// Start runs the node and waits for its ready line.
func (n *Node) Start(extra ...string) *Node {
	n.t.Helper()
	args := append([]string{"run", "--id", n.Label, "--data-dir", n.Dir, "--listen", n.listen(), "--quiet", "--log-level", "info"}, n.args...)
	return n.start(append(args, extra...))
}

func (n *Node) listen() string {
	if n.Host == "" {
		return fmt.Sprint(n.Port)
	}
	return net.JoinHostPort(n.Host, fmt.Sprint(n.Port))
}

// StartRelay runs a relay in place of a node and waits for its ready line.
func (n *Node) StartRelay(extra ...string) *Node {
	n.t.Helper()
	args := append([]string{"relay", "--data-dir", n.Dir, "--listen", fmt.Sprint(n.Port)}, n.args...)
	return n.start(append(args, extra...))
}

// start runs a command that prints a ready line.
func (n *Node) start(args []string) *Node {
	n.t.Helper()
	args = append(append(slices.Clone(n.prefix), Binary(n.t)), args...)
	n.cmd = exec.Command(args[0], args[1:]...)
	n.stderr = &tail{}
	n.cmd.Stderr = n.stderr
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	ready := make(chan string, 1)
	exited := make(chan struct{})
	n.exited = exited
	cmd := n.cmd
	go func() {
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			if strings.HasPrefix(sc.Text(), "ready ") {
				ready <- sc.Text()
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		close(exited)
	}()
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if n.t.Failed() {
			text := n.stderr.String()
			n.t.Logf("--- stderr of %s (%s)\n%s", n.Label, n.Dir, text[max(0, len(text)-maxShown):])
		}
	})
	select {
	case line := <-ready:
		for _, f := range strings.Fields(line) {
			if v, ok := strings.CutPrefix(f, "peer_id="); ok {
				n.PeerID = v
			}
		}
		if n.PeerID == "" {
			n.t.Fatalf("%s: ready line without a peer id: %q", n.Label, line)
		}
	case <-exited:
		n.t.Fatalf("%s ended before it was ready:\n%s", n.Label, n.stderr.String())
	case <-time.After(Patience):
		n.t.Fatalf("%s was not ready in %v:\n%s", n.Label, Patience, n.stderr.String())
	}
	return n
}

// Kill ends the process at once, as kill -9 does.
func (n *Node) Kill() {
	n.t.Helper()
	_ = n.cmd.Process.Kill()
	<-n.exited
}

// Stop asks the process to end and waits; it must exit with 0.
func (n *Node) Stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	select {
	case <-n.exited:
	case <-time.After(Patience):
		n.t.Fatalf("%s did not stop in %v", n.Label, Patience)
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		n.t.Fatalf("%s ended with %d:\n%s", n.Label, code, n.stderr.String())
	}
}

// Running tells whether the process has not ended.
func (n *Node) Running() bool {
	select {
	case <-n.exited:
		return false
	default:
		return n.cmd != nil
	}
}

// Pid is the process's ID.
func (n *Node) Pid() int { return n.cmd.Process.Pid }

// Resident is the memory that the process keeps resident, in MiB (Linux).
func (n *Node) Resident() float64 { return n.memory("VmRSS") }

// Anonymous is the part of it that is no page of a file, in MiB (Linux).
func (n *Node) Anonymous() float64 { return n.memory("RssAnon") }

func (n *Node) memory(field string) float64 {
	n.t.Helper()
	for line := range strings.Lines(n.proc("status")) {
		var kib float64
		if _, err := fmt.Sscanf(line, field+": %f kB", &kib); err == nil {
			return kib / 1024
		}
	}
	n.t.Fatalf("no %s in the process status", field)
	return 0
}

// userHZ is in how many parts of a second Linux tells processor time, always.
const userHZ = 100

// CPU is the processor time that the process has used (Linux).
func (n *Node) CPU() time.Duration {
	n.t.Helper()
	stat := n.proc("stat")
	// The name of the program, in parentheses, may hold anything.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var user, system int64
	if len(fields) > 12 {
		user, _ = strconv.ParseInt(fields[11], 10, 64)
		system, _ = strconv.ParseInt(fields[12], 10, 64)
	}
	return time.Duration(user+system) * time.Second / userHZ
}

// proc reads a file of the process in /proc.
func (n *Node) proc(name string) string {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", n.cmd.Process.Pid, name))
	if err != nil {
		n.t.Skip("NOT MEASURED: memory and processor time of a process need /proc")
	}
	return string(text)
}

// Stderr is what the process has logged, the last part of it.
func (n *Node) Stderr() string { return n.stderr.String() }

// Result of a command.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run runs a command on the node's directory.
func (n *Node) Run(args ...string) Result {
	n.t.Helper()
	return n.RunInput(nil, args...)
}

// RunInput is Run with standard input.
func (n *Node) RunInput(in io.Reader, args ...string) Result {
	n.t.Helper()
	return execIn(n.t, n.prefix, in, append(args, "--data-dir", n.Dir)...)
}

// Exec runs the program with these arguments.
func Exec(t testing.TB, in io.Reader, args ...string) Result {
	t.Helper()
	return execIn(t, nil, in, args...)
}

func execIn(t testing.TB, prefix []string, in io.Reader, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*Patience)
	defer cancel()
	line := append(append(slices.Clone(prefix), Binary(t)), args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// OK is Run that must exit with 0; it returns standard output.
func (n *Node) OK(args ...string) string {
	n.t.Helper()
	r := n.Run(args...)
	if r.Code != 0 {
		n.t.Fatalf("%s: vix-node %s: exit %d\n%s%s", n.Label, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Status as of design 10, the part that tests use.
type Status struct {
	PeerID   string `json:"peer_id"`
	Instance string `json:"instance"`
	Peers    []struct {
		PeerID     string `json:"peer_id"`
		State      string `json:"state"`
		PendingOps uint64 `json:"pending_ops"`
		MissingOps uint64 `json:"missing_ops"`
	} `json:"peers"`
	Spaces map[string]struct {
		Ops            uint64 `json:"ops"`
		Bytes          uint64 `json:"bytes"`
		Keys           uint64 `json:"keys"`
		Conflicts      uint64 `json:"conflicts"`
		Logs           uint64 `json:"logs"`
		FrontierDigest string `json:"frontier_digest"`
		ViewDigest     string `json:"view_digest"`
	} `json:"spaces"`
}

// Status asks the running node.
func (n *Node) Status() Status {
	n.t.Helper()
	var s Status
	if err := json.Unmarshal([]byte(n.OK("status", "--json")), &s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// Synced waits until the node has peers Connected peers and nothing is pending
// or missing with any of them.
func (n *Node) Synced(peers int) {
	n.t.Helper()
	n.OK("wait", "--peers", fmt.Sprint(peers), "--synced", "--timeout", Patience.String())
}

// Converged waits until all nodes show equal digests of the default space and
// returns the statuses. It asks again after each full round of waits: in a chain
// a node can be in step with its neighbours before these have heard the rest.
func Converged(t testing.TB, nodes ...*Node) []Status {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for {
		var all []Status
		for _, n := range nodes {
			n.Synced(1)
			all = append(all, n.Status())
		}
		same := true
		for _, s := range all[1:] {
			a, b := all[0].Spaces["default"], s.Spaces["default"]
			same = same && a.ViewDigest == b.ViewDigest && a.FrontierDigest == b.FrontierDigest
		}
		if same {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("no convergence in %v:\n%+v", Patience, all)
		}
	}
}

// maxTail is how many bytes of a log are kept.
const maxTail = 1 << 20

// tail keeps the last maxTail bytes written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

func (b *tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if over := len(b.buf) - maxTail; over > 0 {
		b.buf = append(b.buf[:0], b.buf[over:]...)
	}
	return len(p), nil
}

func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf)
}
