package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests run the program itself, built once: what a script would see.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vix-node-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "vix-node")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	code := 1
	if err := build.Run(); err == nil {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// patience is how long a test waits for what must come.
const patience = 2 * time.Minute

// result is what a command did.
type result struct {
	args     []string
	out, err string
	code     int
}

// command prepares the program in an environment without surprises.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return commandFor(ctx, env, args...)
}

// commandFor is a command that is ended with ctx.
func commandFor(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(plainEnv(os.Environ()), env...)
	cmd.WaitDelay = time.Second
	return cmd
}

// vix runs a command to its end.
func vix(t *testing.T, args ...string) result {
	t.Helper()
	return vixIn(t, nil, "", args...)
}

// vixIn runs a command with a standard input and environment variables.
func vixIn(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	cmd := command(t, env, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	_ = cmd.Run()
	return result{args, out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// ok asserts exit 0 and nothing on the error output.
func (r result) ok(t *testing.T) result {
	t.Helper()
	if r.code != 0 || r.err != "" {
		t.Fatalf("vix-node %s: exit %d\nout: %s\nerr: %s", strings.Join(r.args, " "), r.code, r.out, r.err)
	}
	return r
}

// fails asserts an exit code and one sentence that contains each of the words.
func (r result) fails(t *testing.T, code int, words ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
	want := 1
	if code == exitUsage {
		want = 2
	}
	if r.code != code || len(lines) != want || !strings.HasPrefix(lines[0], "vix-node: ") {
		t.Errorf("vix-node %s: exit %d, want %d and %d lines\nout: %s\nerr: %s", strings.Join(r.args, " "), r.code, code, want, r.out, r.err)
	}
	if code == exitUsage && !strings.HasSuffix(lines[len(lines)-1], "--help' for how to use it.") {
		t.Errorf("vix-node %s: no hint in %q", strings.Join(r.args, " "), r.err)
	}
	for _, w := range words {
		if !strings.Contains(lines[0], w) {
			t.Errorf("vix-node %s: %q does not say %q", strings.Join(r.args, " "), lines[0], w)
		}
	}
}

// object reads the only JSON line of an output.
func (r result) object(t *testing.T) map[string]any {
	t.Helper()
	list := r.objects(t)
	if len(list) != 1 {
		t.Fatalf("vix-node %s: %d JSON lines, want 1: %s", strings.Join(r.args, " "), len(list), r.out)
	}
	return list[0]
}

func (r result) objects(t *testing.T) (list []map[string]any) {
	t.Helper()
	for line := range strings.Lines(r.out) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("vix-node %s: %q is not a JSON object: %v", strings.Join(r.args, " "), line, err)
		}
		list = append(list, v)
	}
	return list
}

// keys are the member names of the first JSON line in their order.
func (r result) keys(t *testing.T) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(r.out))
	if _, err := dec.Token(); err != nil {
		t.Fatalf("%v: %q", err, r.out)
	}
	var names []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			t.Fatalf("%v: %q", err, r.out)
		}
		names = append(names, name.(string))
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			t.Fatalf("%v: %q", err, r.out)
		}
	}
	return strings.Join(names, " ")
}

// proc is a command under way.
type proc struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of its standard output, closed at its end
	stdin io.WriteCloser

	mu     sync.Mutex // guards stderr
	stderr bytes.Buffer
	done   chan struct{}
}

// background starts a command that is ended with the test, however long that takes.
func background(t *testing.T, env []string, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, cmd: commandFor(context.Background(), env, args...), lines: make(chan string, 10000), done: make(chan struct{})}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.Write(b)
}

func (p *proc) errText() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// line waits for the next line of output.
func (p *proc) line() string {
	p.t.Helper()
	select {
	case l, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("%v ended early: %s", p.cmd.Args[1:], p.errText())
		}
		return l
	case <-time.After(patience):
		p.t.Fatalf("%v prints nothing: %s", p.cmd.Args[1:], p.errText())
		return ""
	}
}

// signal sends one, and end waits for the exit code.
func (p *proc) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *proc) end() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("%v does not end: %s", p.cmd.Args[1:], p.errText())
		return -1
	}
}

// running is a node that serves.
type running struct {
	*proc
	dir, peerID string
	addr        string // 127.0.0.1:port
}

// runNode starts a node in a directory, a new one if dir is empty, and waits
// until it is ready.
func runNode(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	args = append([]string{"run", "--data-dir", dir, "--quiet", "--log-level", "debug"}, args...)
	if !strings.Contains(strings.Join(args, " "), "--listen") {
		args = append(args, "--listen", "0")
	}
	n := &running{proc: background(t, nil, args...), dir: dir}
	n.ready(n.line())
	return n
}

func (n *running) ready(line string) {
	n.t.Helper()
	var listen string
	if _, err := fmt.Sscanf(line, "ready peer_id=%s listen=%s", &n.peerID, &listen); err != nil {
		n.t.Fatalf("the first line is %q: %v", line, err)
	}
	for _, a := range strings.Split(listen, ",") {
		if port, ok := strings.CutPrefix(a, "/ip4/127.0.0.1/tcp/"); ok {
			n.addr = "127.0.0.1:" + port
		}
	}
}

// vix runs a command on the node's directory.
func (n *running) vix(args ...string) result {
	n.t.Helper()
	return vix(n.t, append(args, "--data-dir", n.dir)...)
}

// runsOut runs a command whose time is up before it succeeds, each time with more of it,
// until it has had enough to hear all that it is to say: exit 1, and these words.
func (n *running) runsOut(args []string, words ...string) (r result) {
	n.t.Helper()
	for limit := 300 * time.Millisecond; limit < patience; limit *= 2 {
		r = n.vix(append(slices.Clone(args), "--timeout", limit.String())...)
		if r.code != 1 || !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(r.err, w) }) {
			break
		}
	}
	r.fails(n.t, 1, words...)
	return r
}

// stop ends the node cleanly.
func (n *running) stop() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	if code := n.end(); code != 0 {
		n.t.Errorf("the node ended with exit %d: %s", code, n.errText())
	}
}
