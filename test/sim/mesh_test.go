package sim

import (
	"iter"
	"math/rand/v2"
	"testing"
	"time"

	"vixp2p/replication"
)

// Delays of the meshes below.
const (
	meshFsync   = 5 * time.Millisecond
	leastDelay  = 10 * time.Millisecond
	mostDelay   = 60 * time.Millisecond
	writePeriod = 200 * time.Millisecond
)

// newMeshWorld makes nodes of an open network that are linked as pairs say, each link with
// a delay of its own, and lets all sessions settle. Nothing fails, and a node writes
// only when it is told to.
func newMeshWorld(t *testing.T, seed uint64, nodes int, pairs [][2]int) *world {
	t.Helper()
	w := &world{cfg: Config{Seed: seed, Peace: true}, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.start = w.now
	w.truth.init()
	w.odds = odds{fsync: meshFsync}
	network := replication.OpenNetwork("mesh")
	w.spaces = []replication.SpaceID{replication.SpaceOf(network, "space")}
	for i := range nodes {
		w.nodes = append(w.nodes, newNode(w, i, network, w.newKey(byte(i))))
	}
	for _, p := range pairs {
		w.link(w.nodes[p[0]], w.nodes[p[1]]).latency = leastDelay + w.some(mostDelay-leastDelay)
	}
	for _, n := range w.nodes {
		n.open()
	}
	for _, l := range w.links {
		l.connectLater()
	}
	w.run(5 * time.Second)
	if w.err != nil || !w.settled() {
		t.Fatalf("the sessions do not settle: %v", w.err)
	}
	return w
}

// meshSeeds are a few, with -short one.
func meshSeeds() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for seed := uint64(1); seed <= 3; seed++ {
			if !yield(seed) || testing.Short() {
				return
			}
		}
	}
}

// full is all pairs of n nodes; regular a random mesh in which each has degree many.
func full(n int) (pairs [][2]int) {
	for i := range n {
		for j := range i {
			pairs = append(pairs, [2]int{i, j})
		}
	}
	return pairs
}

func regular(seed uint64, n, degree int) [][2]int {
	r := rand.New(rand.NewPCG(seed, 8))
	for {
		var ends []int
		for i := range n * degree {
			ends = append(ends, i/degree)
		}
		r.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
		seen := map[[2]int]bool{}
		var pairs [][2]int
		for len(ends) > 1 {
			// Take the last end and a random other one that it may be joined to.
			a := ends[len(ends)-1]
			ends = ends[:len(ends)-1]
			found := false
			for try := 0; try < 50 && !found; try++ {
				k := r.IntN(len(ends))
				b := ends[k]
				if p := [2]int{min(a, b), max(a, b)}; a != b && !seen[p] {
					seen[p], found = true, true
					pairs = append(pairs, p)
					ends = append(ends[:k], ends[k+1:]...)
				}
			}
			if !found {
				break
			}
		}
		if len(pairs) == n*degree/2 {
			return pairs
		}
	}
}

// append writes one block at a node and returns how many bytes it takes on the way.
func (w *world) append(t *testing.T, n *node, payload int) (end replication.Dot, bytes int) {
	t.Helper()
	b := replication.Batch{Space: w.spaces[0], Ops: []replication.Op{{
		Kind: replication.KindPut, Key: []byte("k"), Payload: make([]byte, payload), Supersedes: n.mirror.view.live("k"),
	}}}
	done := false
	n.store.AppendAsync(b, func(at replication.Appended, err error) {
		if err != nil {
			t.Errorf("append: %v", err)
		}
		end, done = at.First, true
	})
	n.flushLater()
	for !done && w.err == nil {
		w.step()
	}
	run, err := n.store.RunCovering(end.Log, end.Seq)
	if err != nil {
		t.Fatal(err)
	}
	return end, len(run.Data)
}

// durable tells how many nodes hold a write.
func (w *world) durable(d replication.Dot) (n int) {
	for _, x := range w.nodes {
		if x.mirror.frontier[d.Log].Seq >= d.Seq {
			n++
		}
	}
	return n
}

// awaitDurable runs until all nodes that are up hold a write, and returns when.
func (w *world) awaitDurable(t *testing.T, d replication.Dot, nodes int, limit time.Duration) time.Time {
	t.Helper()
	for end := w.now.Add(limit); w.durable(d) < nodes; w.step() {
		if w.err != nil || w.now.After(end) {
			t.Fatalf("%d of %d nodes hold %s/%d after %s: %v\n%s", w.durable(d), nodes, d.Log.Short(), d.Seq, limit, w.err, w.state())
		}
	}
	return w.now
}

// TestMeshCarriesOnce: 20 nodes, of which each has a session with each other, and one
// that writes 50 blocks: no node receives more than 1.1 times the payload, the first
// block, of whose log nobody knows anything, included.
func TestMeshCarriesOnce(t *testing.T) {
	const nodes, blocks = 20, 50
	for seed := range meshSeeds() {
		w := newMeshWorld(t, seed, nodes, full(nodes))
		writer := w.nodes[w.rng.IntN(nodes)]
		for _, n := range w.nodes {
			n.received = 0
		}
		before := w.res
		payload, first, most, sum := 0, 0, 0, 0
		for i := range blocks {
			at := w.now
			d, n := w.append(t, writer, 1000)
			payload += n
			w.run(writePeriod - w.now.Sub(at))
			if got := w.durable(d); got < nodes {
				t.Errorf("seed %d, block %d: only %d nodes have it after %s", seed, i, got, writePeriod)
			}
			if i == 0 {
				for _, n := range w.nodes {
					first = max(first, n.received)
				}
				first = first / n
			}
		}
		for _, n := range w.nodes {
			if n != writer {
				most = max(most, n.received)
				sum += n.received
			}
		}
		if w.err != nil {
			t.Fatal(w.err)
		}
		t.Logf("seed %d: %.3f times the payload on average, %.3f at most; %d times the first block; %d announcements, %d prunes, %d grafts in %d messages", seed,
			float64(sum)/float64(payload*(nodes-1)), float64(most)/float64(payload), first,
			w.res.Announced-before.Announced, w.res.Pruned-before.Pruned, w.res.Grafted-before.Grafted, w.res.Messages-before.Messages)
		if float64(most) > 1.1*float64(payload) {
			t.Errorf("seed %d: a node received %d bytes for a payload of %d", seed, most, payload)
		}
		w.run(5 * time.Second)
		if !w.settled() {
			t.Errorf("seed %d: not all sessions know that their peers hold everything\n%s", seed, w.state())
		}
	}
}

// TestMeshIsQuick: one write in a log of which nobody knows anything is durable on all
// of 100 nodes, each with 6 sessions, in little more than the time of the fastest ways.
func TestMeshIsQuick(t *testing.T) {
	const nodes, degree = 100, 6
	for seed := range meshSeeds() {
		w := newMeshWorld(t, seed, nodes, regular(seed, nodes, degree))
		writer := w.nodes[w.rng.IntN(nodes)]
		began := w.now
		d, _ := w.append(t, writer, 256)
		took := w.awaitDurable(t, d, nodes, time.Minute).Sub(began)
		best := w.fastest(writer)
		t.Logf("seed %d: %s on all nodes, the fastest ways take %s: %.2f times", seed, took, best, float64(took)/float64(best))
		if took > best*3/2 {
			t.Errorf("seed %d: it took %s, the fastest ways take %s", seed, took, best)
		}
	}
}

// fastest is how long a write takes to become durable on the node that is farthest
// from its writer, over the way of the least delays and fsyncs.
func (w *world) fastest(writer *node) time.Duration {
	at := map[*node]time.Duration{writer: meshFsync}
	for changed := true; changed; {
		changed = false
		for _, l := range w.links {
			for i, a := range l.ends {
				from, ok := at[a]
				if !ok {
					continue
				}
				b := l.ends[1-i]
				if d, ok := at[b]; !ok || from+l.latency+meshFsync < d {
					at[b], changed = from+l.latency+meshFsync, true
				}
			}
		}
	}
	longest := time.Duration(0)
	for _, d := range at {
		longest = max(longest, d)
	}
	return longest
}

// TestMeshCatchesUpFromOne: a node that has nothing gets sessions with many at one
// moment, who all have everything. It receives it about once.
func TestMeshCatchesUpFromOne(t *testing.T) {
	const nodes = 9
	for seed := range meshSeeds() {
		w := newMeshWorld(t, seed, nodes+1, full(nodes))
		payload := 0
		for i := range 4 * nodes {
			_, n := w.append(t, w.nodes[i%nodes], 2000)
			payload += n
		}
		w.run(5 * time.Second)
		late := w.nodes[nodes]
		for _, n := range w.nodes[:nodes] {
			l := w.link(n, late)
			l.latency = leastDelay + w.some(mostDelay-leastDelay)
			l.connectLater()
		}
		w.run(10 * time.Second)
		if w.err != nil || !w.settled() {
			t.Fatalf("seed %d: the node does not catch up: %v\n%s", seed, w.err, w.state())
		}
		t.Logf("seed %d: %.2f times", seed, float64(late.received)/float64(payload))
		if float64(late.received) > 1.2*float64(payload) {
			t.Errorf("seed %d: %d bytes were received for %d", seed, late.received, payload)
		}
	}
}

// TestMeshHearsOthersInABacklog: a node that has much to catch up with from one takes a
// new write of another, in a log that was quiet, after the usual wait: the one with the
// backlog has not stated it, and is not waited for.
func TestMeshHearsOthersInABacklog(t *testing.T) {
	for seed := range meshSeeds() {
		w := newMeshWorld(t, seed, 5, full(5)) // who writes pushes to two, whatever others ask for
		behind, busy, quiet := w.nodes[0], w.nodes[1], w.nodes[2]
		for _, n := range w.nodes {
			w.append(t, n, 100)
		}
		w.run(5 * time.Second)
		for _, l := range w.links {
			if l.ends[0] == behind || l.ends[1] == behind || l.ends[0] == busy || l.ends[1] == busy {
				l.end()
			}
		}
		var last replication.Dot
		for range 400 {
			last, _ = w.append(t, busy, 1000)
		}
		w.odds.window, w.odds.read = 1000, 1000 // a run at a time
		slow, other := w.linkOf(behind, busy), w.linkOf(behind, quiet)
		slow.down = false
		slow.connectLater()
		w.run(2 * time.Second)
		other.down = false
		other.connectLater()
		w.run(2 * time.Second)
		began := w.now
		d, _ := w.append(t, quiet, 100)
		took := w.awaitDurable(t, d, 4, time.Minute).Sub(began)
		if behind.mirror.frontier[last.Log].Seq == last.Seq {
			t.Errorf("seed %d: the backlog was over by then", seed)
		}
		t.Logf("seed %d: the write took %s", seed, took)
		if took > replication.GraftAfter+500*time.Millisecond {
			t.Errorf("seed %d: the write took %s", seed, took)
		}
	}
}

// TestMeshOutlivesItsSource: the node from which another has a log dies in the middle
// of a stream of writes. What it has not passed on comes from another at once, without
// the wait for a timer.
func TestMeshOutlivesItsSource(t *testing.T) {
	const nodes = 12
	for seed := range meshSeeds() {
		w := newMeshWorld(t, seed, nodes, full(nodes))
		writer, reader := w.nodes[0], w.nodes[1]
		for range 5 {
			w.append(t, writer, 1000)
			w.run(writePeriod)
		}
		// From now on there is no direct way, so that the log comes through somebody.
		w.linkOf(writer, reader).end()
		var d replication.Dot
		for range 5 {
			d, _ = w.append(t, writer, 1000)
			w.run(writePeriod)
		}
		source := w.sourceOf(reader, d.Log)
		if source == nil || source == writer {
			t.Fatalf("seed %d: nobody brings the log", seed)
		}
		grafted := w.res.Grafted
		source.store.Crash()
		source.remove()
		w.run(200 * time.Millisecond) // the sessions end; who was pruned is asked
		if w.res.Grafted == grafted {
			t.Errorf("seed %d: nobody was asked to push instead of the source", seed)
		}
		for i := range 5 {
			began := w.now
			d, _ = w.append(t, writer, 1000)
			took := w.awaitDurable(t, d, nodes-1, 10*time.Second).Sub(began)
			if took > time.Second {
				t.Errorf("seed %d: write %d took %s after the source had died", seed, i, took)
			}
		}
	}
}

// TestMeshWithASlowSource: the session that brings a log becomes slow, and one that
// announces is ahead: it is asked after a second without progress, and brings the log
// from then on.
func TestMeshWithASlowSource(t *testing.T) {
	w := newMeshWorld(t, 1, 4, full(4))
	writer, reader := w.nodes[0], w.nodes[1]
	for range 3 {
		w.append(t, writer, 1000)
		w.run(writePeriod)
	}
	w.linkOf(writer, reader).end()
	var d replication.Dot
	for range 3 {
		d, _ = w.append(t, writer, 1000)
		w.run(writePeriod)
	}
	source := w.sourceOf(reader, d.Log)
	slow := w.linkOf(source, reader)
	slow.latency = 4 * time.Second
	d, _ = w.append(t, writer, 1000)
	began := w.now
	w.awaitDurable(t, d, 4, 10*time.Second)
	if took := w.now.Sub(began); took < time.Second || took > 1500*time.Millisecond {
		t.Errorf("it took %s; the other was to be asked after a second", took)
	}
	if now := w.sourceOf(reader, d.Log); now == source {
		t.Error("the slow one is still the source")
	}
	began = w.now
	d, _ = w.append(t, writer, 1000)
	w.awaitDurable(t, d, 4, 10*time.Second)
	if took := w.now.Sub(began); took > time.Second {
		t.Errorf("the next write took %s", took)
	}
}

// TestMeshOfTwo: two nodes say nothing of the mesh to each other.
func TestMeshOfTwo(t *testing.T) {
	w := newMeshWorld(t, 1, 2, full(2))
	for i := range 20 {
		w.append(t, w.nodes[i%2], 500)
		w.run(20 * time.Millisecond)
	}
	w.run(10 * time.Second)
	if w.err != nil || !w.settled() {
		t.Fatal(w.err, w.state())
	}
	if w.res.Pruned+w.res.Grafted+w.res.Announced+w.res.Duplicates > 0 {
		t.Errorf("%+v", w.res)
	}
}

// TestMeshOfLiars: of a reader's sessions some say of themselves that they are ahead,
// and push nothing. Asking them costs time, and the log comes from who has it.
func TestMeshOfLiars(t *testing.T) {
	w := newMeshWorld(t, 1, 6, full(6))
	writer, reader := w.nodes[0], w.nodes[1]
	for range 3 {
		w.append(t, writer, 1000)
		w.run(writePeriod)
	}
	liars := w.nodes[2:5]
	w.linkOf(writer, reader).end()
	d, _ := w.append(t, writer, 1000)
	w.run(time.Second)
	for _, n := range liars {
		l := w.linkOf(n, reader)
		l.blocked = [2]bool{l.ends[0] == n, l.ends[1] == n} // what it does push is lost
		w.lie(n, reader, d.Log, 1<<60)
	}
	w.run(5 * time.Second)
	for i := range 5 {
		d, _ := w.append(t, writer, 1000)
		for _, n := range liars {
			w.lie(n, reader, d.Log, 1<<60+uint64(i))
		}
		at := w.now
		for w.err == nil && reader.mirror.frontier[d.Log].Seq < d.Seq {
			if w.step(); w.now.Sub(at) > 10*time.Second {
				t.Fatalf("the write does not arrive\n%s", w.state())
			}
		}
		t.Logf("write %d took %s", i, w.now.Sub(at))
	}
	if w.err != nil {
		t.Fatal(w.err)
	}
}

func (w *world) linkOf(a, b *node) *link {
	for _, l := range w.links {
		if l.ends == [2]*node{a, b} || l.ends == [2]*node{b, a} {
			return l
		}
	}
	return nil
}

// end takes a link away for good.
func (l *link) end() {
	l.down = true
	l.cut("ended")
}

// sourceOf is the node that brought the last of a log to a reader.
func (w *world) sourceOf(reader *node, log replication.LogID) *node {
	var best *node
	most := uint64(0)
	for _, p := range reader.peers {
		if at := p.brought[log]; at > most {
			best, most = p.other(), at
		}
	}
	return best
}

// lie lets a node announce what it does not have.
func (w *world) lie(from, to *node, log replication.LogID, seq uint64) {
	for _, p := range to.peers {
		if p.other() == from {
			to.receive(p, &replication.Announce{Space: w.spaces[0], Entries: []replication.FrontierEntry{
				{Log: log, Base: 1, Pos: replication.Position{Seq: seq, Hash: replication.Hash{9}}},
			}})
		}
	}
}
