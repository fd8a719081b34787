//go:build linux

// Package hostile attacks a node, in a process of its own, from another process, while
// honest peers work through it: design 7, G8.
package hostile

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vixp2p/node"
	"vixp2p/test/internal/proc"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(attackVar); name != "" {
		os.Exit(attackMain(name))
	}
	proc.Main(m)
}

const (
	// maxMemory is what the attacked node may hold, in MiB of RssAnon.
	maxMemory = 256
	// leastShare of their undisturbed rate honest peers must keep in an attack, if
	// shareVar is set: rates are reported, and on a machine that others use they are no
	// test.
	leastShare = 0.5
	shareVar   = "VIX_HOSTILE_SHARE"
)

// TestHostilePeers: whatever a peer does, the node stays up and within its memory,
// honest peers go on through it, and its log names who did it.
func TestHostilePeers(t *testing.T) {
	calm, storm := 800*time.Millisecond, 2500*time.Millisecond
	if testing.Short() {
		calm, storm = 400*time.Millisecond, time.Second
	}
	victim := proc.New(t, "victim").Start()
	pair := newPair(t, victim)
	peak := watchMemory(t, victim)
	for _, a := range attacks {
		if testing.Short() && !a.short {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			peak.Store(0)
			before := pair.measure(t, calm)
			running := begin(t, a.name, victim)
			during := pair.measure(t, storm)
			written := pair.written.Load()
			waitFor(t, "honest peers go on during the attack", func() bool { return pair.written.Load() >= written+4*batchOps })
			did := running.end(t)
			t.Logf("undisturbed %s", before)
			t.Logf("attacked    %s", during)
			t.Logf("node: at most %d MiB; attacker: %s", peak.Load(), did)
			if during.tooLow(before) && os.Getenv(shareVar) != "" {
				t.Errorf("honest peers have %.0f operations for a second of processor time that was left to them, of %.0f before", during.perAvailable, before.perAvailable)
			}
			if mib := peak.Load(); mib >= maxMemory {
				t.Errorf("the node held %d MiB, more than %d", mib, maxMemory)
			}
			if !victim.Running() {
				t.Fatalf("the node is gone:\n%s", victim.Stderr())
			}
			if a.log != "" {
				waitFor(t, "the log names the attacker", func() bool { return named(victim.Stderr(), running.id, a.log) })
			}
			t.Run("newcomer", pair.newcomer)
		})
	}
	pair.finish(t)
}

// named tells whether a line of a log has all of these.
func named(log string, parts ...string) bool {
	for line := range strings.Lines(log) {
		n := 0
		for _, p := range parts {
			if strings.Contains(line, p) {
				n++
			}
		}
		if n == len(parts) {
			return true
		}
	}
	return false
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// watchMemory keeps the highest memory of a node, in MiB.
func watchMemory(t *testing.T, n *proc.Node) *atomic.Int64 {
	peak, done := new(atomic.Int64), make(chan struct{})
	n.Anonymous() // skips where it cannot be read
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if n.Running() {
				peak.Store(max(peak.Load(), int64(n.Anonymous())))
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		all.Wait()
	})
	return peak
}

// running is an attack under way.
type running struct {
	id    string
	cmd   *exec.Cmd
	stdin io.Closer
	rest  *bufio.Reader
}

// begin starts an attack and returns when it is under way.
func begin(t *testing.T, name string, victim *proc.Node) *running {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", attackVar+"="+name, targetVar+"="+fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", victim.Port, victim.PeerID))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &running{cmd: cmd, stdin: stdin, rest: bufio.NewReader(stdout)}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line, err := r.rest.ReadString('\n')
	if _, scan := fmt.Sscanf(line, "begun %s", &r.id); scan != nil {
		t.Fatalf("the attack did not begin: %q, %v\n%s", line, err, errs.String())
	}
	return r
}

// end stops an attack and returns what it did.
func (r *running) end(t *testing.T) string {
	t.Helper()
	_ = r.stdin.Close()
	stuck := time.AfterFunc(proc.Patience, func() { _ = r.cmd.Process.Kill() })
	defer stuck.Stop()
	var did []string
	for {
		line, err := r.rest.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" {
			did = append(did, line)
		}
		if err != nil {
			break
		}
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the attacker: %v", err)
	}
	return strings.Join(did, ", ")
}

// pair is two honest nodes in this process, connected through the attacked one alone:
// one writes, the other reads.
type pair struct {
	victim         *proc.Node
	writer, reader *node.Node
	written        atomic.Int64 // operations that the attacked node has acknowledged
	stop           context.CancelFunc
	writing        sync.WaitGroup
	newcomers      int
}

// batchOps of valueBytes each are one write of the honest peers.
const batchOps, valueBytes = 16, 256

func newPair(t *testing.T, victim *proc.Node) *pair {
	t.Helper()
	p := &pair{victim: victim, writer: join(t, "writer", victim), reader: join(t, "reader", victim)}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	for w := range 4 {
		p.writing.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := p.write(ctx, w, i); err != nil && ctx.Err() == nil {
					t.Errorf("an honest write: %v", err)
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		p.stop()
		p.writing.Wait()
	})
	waitFor(t, "the first writes", func() bool { return p.written.Load() > 0 })
	return p
}

// write writes a batch and waits until the attacked node holds it.
func (p *pair) write(ctx context.Context, w, i int) error {
	value := make([]byte, valueBytes)
	random(value)
	written, err := p.writer.Space("").Batch(ctx, func(b *node.Batch) error {
		for k := range batchOps {
			b.Put(fmt.Sprintf("honest/%d/%d/%d", w, i%64, k), value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := written.WaitReplicated(ctx, 1); err != nil {
		return err
	}
	p.written.Add(batchOps)
	return nil
}

// join opens an honest node that is connected to the attacked one.
func join(t *testing.T, label string, victim *proc.Node) *node.Node {
	t.Helper()
	n, err := node.Open(t.Context(), node.Config{
		Label: label, DataDir: t.TempDir(), Connect: []string{victim.Addr()}, NoQUIC: true,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", label, err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), proc.Patience)
	defer cancel()
	if err := n.Wait(ctx, node.WaitOptions{Peers: 1}); err != nil {
		t.Fatalf("%s: %v", label, err)
	}
	return n
}

// newcomer: a peer that was never there before has a session, and what is written now
// arrives there.
func (p *pair) newcomer(t *testing.T) {
	t.Helper()
	p.newcomers++
	n := join(t, fmt.Sprint("newcomer", p.newcomers), p.victim)
	ctx, cancel := context.WithTimeout(t.Context(), proc.Patience)
	defer cancel()
	key := fmt.Sprint("for/", p.newcomers)
	if _, err := n.Space("").Put(ctx, key, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the newcomer's write arrives", func() bool {
		e, err := p.reader.Space("").Get(ctx, key)
		return err == nil && string(e.Value) == "hello"
	})
	// What one writes after having seen another value wins, whatever its clock said: at
	// the latest once all that the attacker wrote is here.
	waitFor(t, "the newcomer's own write wins", func() bool {
		if _, err := n.Space("").Put(ctx, "contested", []byte(key)); err != nil {
			t.Fatal(err)
		}
		e, err := n.Space("").Get(ctx, "contested")
		return err == nil && string(e.Value) == key
	})
}

// finish ends the load: all of it arrives at the reader.
func (p *pair) finish(t *testing.T) {
	t.Helper()
	p.stop()
	p.writing.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), proc.Patience)
	defer cancel()
	var want, got string
	for want == "" || want != got {
		var err error
		if want, _, err = p.writer.Space("").Digest(ctx); err != nil {
			t.Fatal(err)
		}
		if got, _, err = p.reader.Space("").Digest(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// rate is how fast honest operations became durable at the attacked node.
type rate struct {
	perSecond float64
	// perNode is for a second of the node's own processor time, whatever it was spent
	// on.
	perNode float64
	// perAvailable is for a second of processor time that the node and the honest peers
	// used or left idle: what the attacker's process and others on this machine took is
	// not counted, and what an attack makes the node waste is.
	perAvailable float64
}

func (r rate) String() string {
	return fmt.Sprintf("%6.0f ops/s, %6.0f a second of the node's processor time, %6.0f a second of what was available", r.perSecond, r.perNode, r.perAvailable)
}

// tooLow tells whether r is less than honest peers must keep of the rate before.
func (r rate) tooLow(before rate) bool {
	return r.perAvailable < leastShare*before.perAvailable && r.perSecond < leastShare*before.perSecond
}

// measure counts for a while.
func (p *pair) measure(t *testing.T, d time.Duration) rate {
	t.Helper()
	began, ops, cpu, busy, own := time.Now(), p.written.Load(), p.victim.CPU(), machineBusy(t), ownCPU()
	time.Sleep(d) // the length of the measurement
	wall, n := time.Since(began).Seconds(), float64(p.written.Load()-ops)
	spent := (p.victim.CPU() - cpu).Seconds()
	others := max(0, (machineBusy(t)-busy).Seconds()-spent-(ownCPU()-own).Seconds())
	available := max(wall*float64(runtime.NumCPU())-others, spent, 0.01)
	return rate{perSecond: n / wall, perNode: n / max(spent, 0.01), perAvailable: n / available}
}

// ownCPU is the processor time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// machineBusy is the processor time of the whole machine that was not idle.
func machineBusy(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Skip("NOT MEASURED: processor time needs /proc")
	}
	var user, nice, system, idle, iowait, irq, softirq, steal int64
	if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+nice+system+irq+softirq+steal) * 10 * time.Millisecond
}
