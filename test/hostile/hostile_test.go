//go:build linux

// Package hostile attacks a node, in a process of its own, from another process, while
// honest peers work through it: design 7, G8.
package hostile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/internal/usage"
	"vixp2p/node"
	"vixp2p/test/internal/proc"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(ordersVar); text != "" {
		os.Exit(attackMain(text))
	}
	proc.Main(m)
}

const (
	// maxMemory is what the attacked node may hold, in MiB of RssAnon.
	maxMemory = 256
	// leastShare of their rate for a second of the node's processor time honest peers
	// must keep in an attack, if shareVar is set, for which is measured longer: rates are
	// reported, and on a machine that others use they are no test. It is compared with their rate undisturbed, or
	// beside a process that takes a core and leaves the node alone, where that is lower:
	// on two cores that alone makes each operation dearer.
	leastShare = 0.5
	shareVar   = "VIX_HOSTILE_SHARE"
	// longest is how long an attack may take to be worth its name.
	longest = proc.Patience
)

// TestHostilePeers: whatever a peer does, the node stays up and within its memory,
// honest peers go on through it, and its log names who did it. In an open network
// anybody is a peer; in one of members it is a member that turned bad, or one that is
// none.
func TestHostilePeers(t *testing.T) {
	t.Run("open", func(t *testing.T) {
		todo := planned(open)
		attackAll(t, openWorld(t), todo)
	})
	t.Run("members", func(t *testing.T) {
		todo := planned(member, outside)
		attackAll(t, membersWorld(t, len(todo)), todo)
	})
}

// plan is an attack and who attacks.
type plan struct {
	attack
	as where
}

func (p plan) String() string {
	if p.as == outside {
		return p.name + ", not a member"
	}
	return p.name
}

// planned are the attacks by these.
func planned(as ...where) (out []plan) {
	for _, a := range attacks {
		for _, who := range as {
			if a.where&who != 0 && (!testing.Short() || a.short&who != 0) {
				out = append(out, plan{a, who})
			}
		}
	}
	return out
}

// attackAll lets a world go through attacks, and says in the end what honest peers
// kept.
func attackAll(t *testing.T, w *world, todo []plan) {
	w.victim.Start()
	pair := newPair(t, w)
	peak := watchMemory(t, w.victim)
	table := &strings.Builder{}
	for _, a := range todo {
		t.Run(a.String(), func(t *testing.T) {
			peak.Store(0)
			pair.goThrough(t, a, table)
			fmt.Fprintf(table, ", at most %3d MiB\n", peak.Load())
			if mib := peak.Load(); mib >= maxMemory {
				t.Errorf("the node held %d MiB, more than %d", mib, maxMemory)
			}
			t.Run("newcomer", pair.newcomer)
		})
	}
	pair.finish(t)
	t.Logf("what honest peers kept of their rate undisturbed, and of that beside a busy core:\n%s", table)
}

// goThrough lets the node be attacked, and adds to a table what honest peers kept.
func (p *pair) goThrough(t *testing.T, a plan, table io.Writer) {
	calm, storm := windows()
	victim := p.world.victim
	p.calm = append(p.calm, p.measure(t, calm))
	load := begin(t, orders{Attack: busy, Target: "/p2p/" + victim.PeerID})
	p.beside = append(p.beside, p.measure(t, calm))
	load.end(t)
	// What an attack leaves behind does not make the next one look better.
	before, beside := median(p.calm), median(p.beside)
	running := begin(t, p.world.orders(t, a.attack, a.as))
	enough := running.enough
	if a.amount == 0 || testing.Short() {
		enough = nil
	}
	during := p.measure(t, storm)
	if enough != nil {
		// Honest peers go on more slowly: what tens of seconds of all that they can write
		// do to the node's memory is not the attack's.
		p.slow.Store(true)
		select {
		case <-enough:
		case <-time.After(longest):
			t.Errorf("the attacker has not done in %s what the attack's name says", longest)
		}
		p.slow.Store(false)
	}
	written := p.written.Load()
	waitFor(t, "honest peers go on during the attack", func() bool { return p.written.Load() >= written+4*batchOps })
	if a.log != "" {
		waitFor(t, "the log names the attacker", func() bool { return named(victim.Stderr(), running.id, a.log) })
	}
	t.Logf("attacker: %s", running.end(t))
	t.Logf("undisturbed %s", before)
	t.Logf("beside load %s", beside)
	t.Logf("attacked    %s", during)
	fmt.Fprintf(table, "%-36s %4.0f%% %4.0f%% a second, %4.0f%% %4.0f%% a second of the node's processor time, of which the attack took %3.0f%% of a core",
		a, 100*during.perSecond/before.perSecond, 100*during.perSecond/beside.perSecond,
		100*during.perNode/before.perNode, 100*during.perNode/beside.perNode, 100*during.wasted(before))
	if during.perNode < leastShare*min(before.perNode, beside.perNode) && os.Getenv(shareVar) != "" {
		t.Errorf("honest peers have %.0f operations for a second of the node's processor time, of %.0f undisturbed", during.perNode, before.perNode)
	}
	if !victim.Running() {
		t.Fatalf("the node is gone:\n%s", victim.Stderr())
	}
}

// windows are how long is measured. Badger merges its tables for a second or two at a
// time, which short ones hit or miss.
func windows() (calm, storm time.Duration) {
	switch {
	case os.Getenv(shareVar) != "":
		return 4 * time.Second, 12 * time.Second
	case testing.Short():
		return 300 * time.Millisecond, time.Second
	}
	return time.Second, 3 * time.Second
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
	for end := time.Now().Add(proc.Patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, proc.Patience)
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
	id     string
	cmd    *exec.Cmd
	stdin  io.Closer
	enough chan struct{} // closed when it has done what its name says
	said   chan string   // what it did, once it has ended
}

// begin starts an attack and returns when it is under way.
func begin(t *testing.T, o orders) *running {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", ordersVar+"="+string(text))
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
	r := &running{cmd: cmd, stdin: stdin, enough: make(chan struct{}), said: make(chan string, 1)}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	if _, scan := fmt.Sscanf(line, "begun %s", &r.id); scan != nil {
		t.Fatalf("the attack did not begin: %q, %v\n%s", line, err, errs.String())
	}
	go func() {
		var did []string
		for {
			line, err := lines.ReadString('\n')
			if line = strings.TrimSpace(line); line == "enough" {
				close(r.enough)
			} else if line != "" {
				did = append(did, line)
			}
			if err != nil {
				r.said <- strings.Join(did, ", ")
				return
			}
		}
	}()
	return r
}

// end stops an attack and returns what it did.
func (r *running) end(t *testing.T) string {
	t.Helper()
	_ = r.stdin.Close()
	stuck := time.AfterFunc(proc.Patience, func() { _ = r.cmd.Process.Kill() })
	defer stuck.Stop()
	did := <-r.said
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the attacker: %v", err)
	}
	return did
}

// pair is two honest nodes in this process, connected through the attacked one alone:
// one writes, the other reads.
type pair struct {
	world          *world
	writer, reader *node.Node
	calm           []rate       // undisturbed
	beside         []rate       // beside load that leaves the node alone
	written        atomic.Int64 // operations that the attacked node has acknowledged
	slow           atomic.Bool  // they pause after each write
	stop           context.CancelFunc
	writing        sync.WaitGroup
	newcomers      int
}

// batchOps of valueBytes each are one write of the honest peers, of which so many are
// under way at one time.
const writers, batchOps, valueBytes = 8, 16, 256

func newPair(t *testing.T, w *world) *pair {
	t.Helper()
	p := &pair{world: w, writer: join(t, "writer", w), reader: join(t, "reader", w)}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	for w := range writers {
		p.writing.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if p.slow.Load() {
					pause(ctx, 20*time.Millisecond)
				}
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
func join(t *testing.T, label string, w *world) *node.Node {
	t.Helper()
	n, err := node.Open(t.Context(), node.Config{
		Label: label, DataDir: w.directory(t), Connect: []string{w.victim.Addr()}, NoQUIC: true,
		Listen: []string{"127.0.0.1:0"}, NoDiscovery: true,
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
	n := join(t, fmt.Sprint("newcomer", p.newcomers), p.world)
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
	// node is the node's processor time for a second.
	node float64
	// perAvailable is for a second of processor time that the node and the honest peers
	// used or left idle: what the attacker's process and others on this machine took is
	// not counted, and what an attack makes the node waste is.
	perAvailable float64
}

func (r rate) String() string {
	return fmt.Sprintf("%6.0f ops/s, %6.0f a second of the node's processor time (%.2f of a core), %6.0f a second of what was available", r.perSecond, r.perNode, r.node, r.perAvailable)
}

// wasted is the node's processor time for a second beyond what its honest operations
// cost undisturbed.
func (r rate) wasted(undisturbed rate) float64 {
	return max(0, r.node-r.perSecond/undisturbed.perNode)
}

// median is the middle of each figure.
func median(all []rate) rate {
	middle := func(of func(rate) float64) float64 {
		var list []float64
		for _, r := range all {
			list = append(list, of(r))
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	return rate{
		perSecond:    middle(func(r rate) float64 { return r.perSecond }),
		perNode:      middle(func(r rate) float64 { return r.perNode }),
		node:         middle(func(r rate) float64 { return r.node }),
		perAvailable: middle(func(r rate) float64 { return r.perAvailable }),
	}
}

// measure counts for a while.
func (p *pair) measure(t *testing.T, d time.Duration) rate {
	t.Helper()
	victim := p.world.victim
	began, ops, cpu, busy, own := time.Now(), p.written.Load(), victim.CPU(), machineBusy(t), usage.ProcessorTime(t)
	time.Sleep(d) // the length of the measurement
	wall, n := time.Since(began).Seconds(), float64(p.written.Load()-ops)
	spent := (victim.CPU() - cpu).Seconds()
	others := max(0, (machineBusy(t)-busy).Seconds()-spent-(usage.ProcessorTime(t)-own).Seconds())
	available := max(wall*float64(runtime.NumCPU())-others, spent, 0.01)
	return rate{perSecond: n / wall, perNode: n / max(spent, 0.01), node: spent / wall, perAvailable: n / available}
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
