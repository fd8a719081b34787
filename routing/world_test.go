package routing_test

import (
	"container/heap"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"vixp2p/routing"
)

// world is nodes, links between them and a clock: everything that happens follows
// from the seed.
type world struct {
	t     testing.TB
	seed  uint64
	rng   *rand.Rand
	now   time.Time
	nodes []*simNode
	links map[[2]int]int // live links: the number of this life of the link
	lives int
	queue eventQueue
	count uint64
	// Faults of every link: probabilities that a frame is lost or comes twice, and
	// the longest delay.
	loss, twice float64
	delay       time.Duration
	limits      routing.Limits
	tap         func(from, to int, m *routing.Message)
	ids         uint64
}

// simNode is a Router with its durable store, which survives a crash.
type simNode struct {
	index   int
	key     ed25519.PrivateKey
	pub     routing.PeerKey
	up      bool
	life    int // counts starts
	router  *routing.Router
	held    map[routing.Key]routing.Held
	seen    map[routing.Key]time.Time
	inbox   []routing.Key
	texts   map[routing.Key]string
	reports map[routing.ID][]routing.Report
	full    bool // the disk
}

// simEvent happens at a node at a time, unless the node or the link has had
// another life since.
type simEvent struct {
	at   time.Time
	seq  uint64
	node int
	life int
	link int // 0: none
	peer int
	do   func(n *simNode)
}

type eventQueue []*simEvent

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(*simEvent)) }
func (q *eventQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// answerPatience is after how long a driver gives up a stream on which no answer
// comes, and opens another.
const answerPatience = 30 * time.Second

func newWorld(t testing.TB, seed uint64, nodes int) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), now: started, links: map[[2]int]int{}, delay: 20 * time.Millisecond}
	for i := range nodes {
		key := identity(byte(100 + i))
		n := &simNode{
			index: i, key: key, pub: keyOf(key), held: map[routing.Key]routing.Held{}, seen: map[routing.Key]time.Time{},
			texts: map[routing.Key]string{}, reports: map[routing.ID][]routing.Report{},
		}
		w.nodes = append(w.nodes, n)
		w.start(n)
	}
	return w
}

func (w *world) failf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d at %v: %s", w.seed, w.now.Sub(started), fmt.Sprintf(format, args...))
}

func (w *world) start(n *simNode) {
	n.up = true
	n.life++
	state := routing.State{}
	for _, h := range n.held {
		state.Held = append(state.Held, h)
	}
	for k, until := range n.seen {
		state.Seen = append(state.Seen, routing.Seen{Key: k, Until: until})
	}
	n.router = routing.NewRouter(routing.Config{Self: n.pub, Limits: w.limits, Sign: func(h routing.Header) (*routing.Message, error) {
		return routing.New(network, n.key, h, nil)
	}}, w.now, state)
}

// crash forgets all that is not durable, and cuts the links.
func (w *world) crash(i int) {
	for j := range w.nodes {
		w.unlink(i, j)
	}
	n := w.nodes[i]
	n.up = false
	n.life++
	n.router = nil
}

func (w *world) restart(i int) { w.start(w.nodes[i]) }

func pair(i, j int) [2]int { return [2]int{min(i, j), max(i, j)} }

func (w *world) link(i, j int) {
	a, b := w.nodes[i], w.nodes[j]
	if i == j || w.links[pair(i, j)] != 0 || !a.up || !b.up {
		return
	}
	w.lives++
	w.links[pair(i, j)] = w.lives
	w.step(a, routing.LinkUp{Peer: b.pub})
	w.step(b, routing.LinkUp{Peer: a.pub})
}

func (w *world) unlink(i, j int) {
	a, b := w.nodes[i], w.nodes[j]
	if w.links[pair(i, j)] == 0 {
		return
	}
	delete(w.links, pair(i, j))
	w.step(a, routing.LinkDown{Peer: b.pub})
	w.step(b, routing.LinkDown{Peer: a.pub})
}

func (w *world) line() {
	for i := range len(w.nodes) - 1 {
		w.link(i, i+1)
	}
}

func (w *world) indexOf(k routing.PeerKey) int {
	for i, n := range w.nodes {
		if n.pub == k {
			return i
		}
	}
	w.failf("no node %s", k)
	return 0
}

// send makes a text and hands it to its sender's router.
func (w *world) send(from, to int, ttl uint8, lifetime time.Duration) routing.ID {
	m := w.text(from, to, ttl, lifetime)
	w.step(w.nodes[from], routing.Submit{Msg: m})
	return m.ID
}

func (w *world) text(from, to int, ttl uint8, lifetime time.Duration) *routing.Message {
	w.ids++
	var id routing.ID
	binary.BigEndian.PutUint64(id[8:], w.ids)
	id[0] = 0x77
	h := routing.Header{
		Kind: routing.Text, ID: id, From: w.nodes[from].pub, To: w.nodes[to].pub, TTL: ttl,
		Created: uint64(w.now.UnixMilli()), Lifetime: uint64(lifetime.Milliseconds()),
	}
	// Sealing is not what is tested here.
	m, err := routing.New(network, w.nodes[from].key, h, func([]byte) ([]byte, error) {
		return fmt.Appendf(make([]byte, 0, 200), "%064d", w.ids), nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) at(d time.Duration, n *simNode, link, peer int, do func(*simNode)) {
	w.count++
	heap.Push(&w.queue, &simEvent{w.now.Add(d), w.count, n.index, n.life, link, peer, do})
}

// soon is a random delay.
func (w *world) soon() time.Duration {
	return time.Duration(1 + w.rng.Int64N(int64(w.delay)))
}

// step hands an event to a node and carries its effects out.
func (w *world) step(n *simNode, ev routing.Event) {
	if !n.up {
		return
	}
	for _, e := range n.router.Step(w.now, ev) {
		switch e := e.(type) {
		case routing.Persist:
			w.at(w.soon()/10+1, n, 0, 0, func(n *simNode) { w.step(n, routing.Committed{Batch: e.Batch, Err: w.commit(n, e.Ops)}) })
		case routing.Send:
			w.push(n, e)
		case routing.Answer:
			w.answer(n, e)
		case routing.Report:
			n.reports[e.ID] = append(n.reports[e.ID], e)
			if e.State == routing.OutcomeDelivered {
				w.checkDelivered(n, e.ID)
			}
		}
	}
}

func (w *world) commit(n *simNode, ops []routing.StoreOp) error {
	if n.full {
		return fmt.Errorf("the disk is full")
	}
	for _, op := range ops {
		switch op := op.(type) {
		case routing.PutHeld:
			n.held[op.Held.Msg.Key()] = op.Held
		case routing.SetHops:
			if h, ok := n.held[op.Key]; ok {
				h.Hops, h.Via = op.Hops, op.Via
				n.held[op.Key] = h
			}
		case routing.DropHeld:
			delete(n.held, op.Key)
		case routing.PutSeen:
			n.seen[op.Key] = op.Until
		case routing.DropSeen:
			delete(n.seen, op.Key)
		case routing.PutInbox:
			key := op.Msg.Key()
			if _, twice := n.texts[key]; twice {
				w.failf("node %d shows %s twice", n.index, key.ID)
			}
			n.texts[key] = string(op.Text)
			n.inbox = append(n.inbox, key)
		}
	}
	return nil
}

// push carries a message over a link, or not.
func (w *world) push(n *simNode, e routing.Send) {
	to := w.nodes[w.indexOf(e.Peer)]
	life := w.links[pair(n.index, to.index)]
	if life == 0 {
		return
	}
	h, ok := n.held[e.Key]
	if !ok {
		w.failf("node %d sends what it does not hold durably", n.index)
	}
	if w.tap != nil {
		w.tap(n.index, to.index, h.Msg)
	}
	deliver := func(to *simNode) {
		raw, err := routing.Parse(h.Msg.Raw)
		if err == nil {
			err = raw.Verify(network)
		}
		if err != nil {
			w.failf("%v", err)
		}
		w.step(to, routing.Received{Peer: n.pub, Push: e.Push, Hops: e.Hops, Msg: raw, Text: raw.Body, Room: !to.full})
	}
	if w.rng.Float64() < w.loss {
		// The driver notices that no answer comes, and opens another stream.
		w.at(answerPatience, n, life, to.index, func(n *simNode) {
			w.step(n, routing.LinkDown{Peer: to.pub})
			w.step(n, routing.LinkUp{Peer: to.pub})
		})
		return
	}
	w.at(w.soon(), to, life, n.index, deliver)
	if w.rng.Float64() < w.twice {
		w.at(w.soon()*3, to, life, n.index, deliver)
	}
}

// answer carries a verdict back. What it says about storing must be true.
func (w *world) answer(n *simNode, e routing.Answer) {
	to := w.nodes[w.indexOf(e.Peer)]
	life := w.links[pair(n.index, to.index)]
	if life == 0 {
		return
	}
	w.at(w.soon(), to, life, n.index, func(to *simNode) {
		w.step(to, routing.Answered{Peer: n.pub, Push: e.Push, Verdict: e.Verdict, Retry: e.Retry})
	})
}

// checkDelivered: an acknowledgement is never false.
func (w *world) checkDelivered(n *simNode, id routing.ID) {
	for _, other := range w.nodes {
		if _, ok := other.texts[routing.Key{From: n.pub, ID: id}]; ok {
			return
		}
	}
	w.failf("%s is said to be delivered and is nowhere", id)
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 3_000_000 {
			w.failf("it does not come to rest")
		}
		next := end
		var due *simNode
		for _, n := range w.nodes {
			if n.up {
				if at := n.router.Deadline(); !at.IsZero() && at.Before(next) {
					next, due = at, n
				}
			}
		}
		if len(w.queue) > 0 && !w.queue[0].at.After(next) {
			e := heap.Pop(&w.queue).(*simEvent)
			w.now = later(w.now, e.at)
			n := w.nodes[e.node]
			if n.up && n.life == e.life && (e.link == 0 || w.links[pair(e.node, e.peer)] == e.link) {
				e.do(n)
			}
			continue
		}
		w.now = later(w.now, next)
		if due == nil {
			return
		}
		w.step(due, routing.Tick{})
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// got tells how often a node got a text.
func (w *world) got(from, to int, id routing.ID) bool {
	_, ok := w.nodes[to].texts[routing.Key{From: w.nodes[from].pub, ID: id}]
	return ok
}

func (w *world) outcome(from int, id routing.ID, state routing.Outcome) (routing.Report, bool) {
	for _, r := range w.nodes[from].reports[id] {
		if r.State == state {
			return r, true
		}
	}
	return routing.Report{}, false
}

// copies counts the stores that hold a text, or all texts.
func (w *world) copies() (n int) {
	for _, node := range w.nodes {
		for _, h := range node.held {
			if h.Msg.Kind == routing.Text {
				n++
			}
		}
	}
	return n
}
