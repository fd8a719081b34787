// Package sim runs many nodes in one goroutine and in virtual time: each is a
// crashable log (package memlog) and a replication session per link, driven by
// the few lines of node.go. Links drop, repeat, reorder and delay messages, go
// one-way and break; nodes crash between any two steps, come back, lose their
// directory, fill their disk or take no part in a space (design 13.2). Every second
// seed is a network of members, of which some are revoked (members.go).
//
// After every step the guarantees are checked against what the simulation, which
// sees all disks, knows to be true. Everything follows from the seed.
package sim

import (
	"container/heap"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"vixp2p/replication"
)

// Config says what to simulate.
type Config struct {
	Seed  uint64
	Trace io.Writer // one line per thing that happens; nil: none
	Fault Fault
	// Peace leaves out all faults of nodes and links, and links that close a circle.
	Peace bool
	// Quiet leaves out the checks of what is sent, so that a false statement must
	// show in what a peer concludes from it.
	Quiet bool
}

// Fault is a mistake that the drivers make on purpose, so that a test can see that
// the simulation finds it.
type Fault int

const (
	NoFault        Fault = iota
	AckTooEarly          // a run counts as committed before it is
	NoResend             // what was pushed once is never pushed again
	ForgetAdvances       // every tenth advance is not told to a session
	AppendTooEarly       // a write is acknowledged when it is queued
	CarryAll             // sessions give every space to every member
	ForgetCuts           // the stores of some members take what does not count
)

// Result sums up a run.
type Result struct {
	Nodes, Steps, Writes, Crashes, Breaks int
	Forks                                 int // pairs of neighbours that ended on different branches
	Declined                              int // sessions that knew of a space in which the peer takes no part
	// Of networks of members: nodes revoked and admitted again, and at the end
	// operations that are set aside; runs that were refused.
	Revoked, Readmitted, SetAside, Refused int
	Messages, Lost, Duplicates             int // duplicates: runs received that were there already
	Opened, Shared                         int // steps down the levels of a frontier, and ways down that served both
	Announced, Pruned, Grafted             int // messages of the mesh
	Virtual                                time.Duration
	Healed                                 time.Duration // from the heal until all were equal
}

// Times of a run, virtual.
const (
	turmoil   = 20 * time.Second
	healLimit = 90 * time.Second // G6: bound of the convergence after the heal
)

// world is all nodes and links, and the knowledge to judge them by.
type world struct {
	cfg    Config
	rng    *rand.Rand
	now    time.Time
	start  time.Time
	queue  eventHeap
	order  uint64
	nodes  []*node
	links  []*link
	spaces []replication.SpaceID // of data
	*members
	calm  bool // the heal has begun: no more faults
	odds  odds
	truth truth
	res   Result
	err   error
}

// odds are drawn once per seed, so that seeds differ in kind.
type odds struct {
	drop, repeat, reorder float64
	delay, jitter         time.Duration
	crash, cut, oneWay    float64 // per second and node or link
	wipe, full            float64
	write                 time.Duration // mean time between writes of a node
	flush                 time.Duration // at most, from queued to durable
	fsync                 time.Duration // exactly, in place of flush; 0: flush holds
	pull, piece           bool
	window, read          int
	ackDelay              time.Duration
	lazy                  bool // advances are gathered before they are told
	whole                 int  // SessionConfig.WholeEntries
	levels                float64
	degree                int // sessions that are eager for cold logs
	exchange              time.Duration
}

type event struct {
	at    time.Time
	order uint64
	fn    func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].order < h[j].order
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

// Run simulates one seed. The error says which guarantee did not hold, and when.
func Run(cfg Config) (Result, error) {
	w := newWorld(cfg)
	w.run(turmoil)
	if w.err == nil {
		w.heal()
	}
	w.res.Virtual = w.now.Sub(w.start)
	if w.err != nil {
		return w.res, fmt.Errorf("seed %d, %s after the start, step %d: %w", cfg.Seed, w.res.Virtual, w.res.Steps, w.err)
	}
	return w.res, nil
}

func newWorld(cfg Config) *world {
	w := &world{
		cfg: cfg,
		rng: rand.New(rand.NewPCG(cfg.Seed, 0x76697830)),
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	w.start = w.now
	w.truth.init()
	w.odds = drawOdds(w.rng)
	if cfg.Peace {
		w.odds.peace()
	}
	if cfg.Seed%2 == 0 {
		w.foundMembers()
	} else {
		w.foundOpen()
	}
	w.res.Nodes = len(w.nodes)
	for _, n := range w.nodes {
		n.open()
		n.writeLater()
	}
	for _, l := range w.links {
		l.connectLater()
	}
	w.chaosLater()
	if w.members != nil {
		w.troubleLater()
	} else if !cfg.Peace && w.chance(0.2) {
		w.after(w.some(turmoil), w.fork)
	}
	return w
}

// foundOpen makes an open network: everybody may do everything.
func (w *world) foundOpen() {
	network := replication.OpenNetwork("sim")
	for i := range 1 + w.rng.IntN(2) {
		w.spaces = append(w.spaces, replication.SpaceOf(network, fmt.Sprint("space", i)))
	}
	for i := range 3 + w.rng.IntN(5) {
		w.nodes = append(w.nodes, newNode(w, i, network, w.newKey(byte(i))))
	}
	for i := 1; i < len(w.nodes); i++ { // a tree, and a few more links
		w.link(w.nodes[w.rng.IntN(i)], w.nodes[i])
	}
	for range w.rng.IntN(len(w.nodes)) {
		if w.cfg.Peace {
			break
		}
		a, b := w.rng.IntN(len(w.nodes)), w.rng.IntN(len(w.nodes))
		if a != b {
			w.link(w.nodes[a], w.nodes[b])
		}
	}
	w.declineSome()
}

func (w *world) newKey(i byte) ed25519.PrivateKey {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], w.cfg.Seed)
	seed[31] = i
	return ed25519.NewKeyFromSeed(seed[:])
}

func drawOdds(r *rand.Rand) odds {
	pick := func(max float64) float64 {
		if r.IntN(3) == 0 {
			return 0
		}
		return max * r.Float64()
	}
	ms := func(max int) time.Duration { return time.Duration(1+r.IntN(max)) * time.Millisecond }
	o := odds{
		drop: pick(0.15), repeat: pick(0.15), reorder: pick(0.3), delay: ms(40), jitter: ms(60),
		crash: pick(0.3), cut: pick(0.4), oneWay: pick(0.2), full: pick(0.05),
		write: 200*time.Millisecond + ms(1500), flush: ms(30),
		pull: r.IntN(4) == 0, piece: r.IntN(3) == 0, lazy: r.IntN(2) == 0,
	}
	if r.IntN(4) == 0 {
		o.wipe = 0.15
	}
	if r.IntN(2) == 0 {
		o.window, o.read = 200+r.IntN(3000), 200+r.IntN(3000)
	}
	if r.IntN(3) == 0 {
		o.ackDelay = ms(100)
	}
	if r.IntN(3) > 0 {
		o.levels, o.whole = []float64{0.5, 1}[r.IntN(2)], 1
	}
	o.degree, o.exchange = 1+r.IntN(4), 2*time.Second+ms(60_000)
	return o
}

func (o *odds) peace() {
	o.drop, o.repeat, o.reorder = 0, 0, 0
	o.crash, o.cut, o.oneWay, o.wipe, o.full = 0, 0, 0, 0, 0
}

func (w *world) after(d time.Duration, fn func()) {
	w.order++
	heap.Push(&w.queue, event{w.now.Add(d), w.order, fn})
}

// some is a random duration up to d.
func (w *world) some(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d) + 1)) }

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) step() {
	e := heap.Pop(&w.queue).(event)
	w.now = e.at
	w.res.Steps++
	e.fn()
}

func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for w.err == nil && len(w.queue) > 0 && !w.queue[0].at.After(end) {
		w.step()
	}
	if w.err == nil {
		w.now = end
	}
}

func (w *world) fail(format string, a ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, a...)
		w.trace("FAILED: %v", w.err)
	}
}

func (w *world) trace(format string, a ...any) {
	if w.cfg.Trace == nil {
		return
	}
	fmt.Fprintf(w.cfg.Trace, "%10.4f "+format+"\n", append([]any{w.now.Sub(w.start).Seconds()}, a...)...)
}

// chaosLater lets the faults of the next tenth of a second happen.
func (w *world) chaosLater() {
	const every = 100 * time.Millisecond
	w.after(every, func() {
		if w.calm {
			return
		}
		for _, n := range w.nodes {
			if n.store != nil && w.chance(w.odds.crash/10) {
				n.crash()
			}
			if n.store != nil && w.chance(w.odds.full/10) {
				n.fillDisk()
			}
		}
		for _, l := range w.links {
			if w.chance(w.odds.cut / 10) {
				l.cut("cut")
			}
			if w.chance(w.odds.oneWay / 10) {
				l.block()
			}
		}
		w.chaosLater()
	})
}

// heal ends all faults and checks that every write reaches every node (G6).
func (w *world) heal() {
	w.trace("heal")
	w.calm = true
	for _, n := range w.nodes {
		n.disk.SetFull(false)
		n.open()
		n.takePart()
	}
	if w.members != nil {
		w.healMembers()
	}
	for _, l := range w.links {
		l.blocked, l.down = [2]bool{}, false
		l.connectLater()
	}
	healed := w.now
	for w.err == nil && !w.equal() {
		if w.now.Sub(healed) > healLimit || len(w.queue) == 0 {
			w.fail("G6: not all nodes hold the same %s after the heal\n%s", w.now.Sub(healed), w.state())
			return
		}
		w.step()
	}
	w.res.Healed = w.now.Sub(healed)
	// Acks and statements settle too.
	for w.err == nil && !w.settled() {
		if w.now.Sub(healed) > 2*healLimit || len(w.queue) == 0 {
			w.fail("G6: all nodes hold the same, but not all sessions know it, or a fork is not found\n%s", w.state())
			return
		}
		w.step()
	}
	if w.err == nil {
		w.checkAll()
	}
}
