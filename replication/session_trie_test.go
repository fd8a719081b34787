package replication

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// pair is two sessions with each other, each of a node that holds a frontier. What is
// pushed goes nowhere: only what they learn of each other is looked at.
type pair struct {
	t     testing.TB
	s     [2]*Session
	holds [2]*Frontier
	queue []sentTo
	now   time.Time

	entries, nodes, digests, opened int // in both directions
	roots, shared                   int // answers with a root, and with where the other's way down ended
	bytes                           int // about
	largest                         int // entries held of a peer's frontier
	losses                          int // that a side believes the other to have had
}

type sentTo struct {
	end int
	m   Message
}

var pairSpace = SpaceID{1}

func newPair(t testing.TB, a, b *Frontier, cfg SessionConfig) *pair {
	p := &pair{t: t, holds: [2]*Frontier{a, b}, now: time.Unix(0, 0)}
	for i := range p.s {
		p.s[i] = NewSession(cfg)
	}
	for i := range p.s {
		p.do(i, Started{Spaces: []SpaceInfo{{ID: pairSpace}}})
	}
	return p
}

// run delivers all messages until no more come.
func (p *pair) run() {
	for len(p.queue) > 0 {
		m := p.queue[0]
		p.queue = p.queue[1:]
		p.do(m.end, Received{Msg: m.m})
	}
}

func (p *pair) do(end int, ev Event) {
	out := append([]Effect(nil), p.s[end].Step(p.now, ev)...)
	p.largest = max(p.largest, p.s[end].DiffEntries())
	for _, e := range out {
		switch e := e.(type) {
		case Send:
			p.count(e.Msg)
			p.queue = append(p.queue, sentTo{1 - end, e.Msg})
		case LoadFrontier:
			p.do(end, LocalFrontier{Space: e.Space, Frontier: p.holds[end]})
		case DataLoss:
			p.losses++
		case CloseSession:
			p.t.Fatalf("a session ended: %s", e.Detail)
		}
	}
}

func (p *pair) count(m Message) {
	p.bytes += 60
	switch m := m.(type) {
	case *FrontierDiff:
		p.entries += len(m.Entries)
		p.nodes += len(m.Nodes)
		p.bytes += 90 * len(m.Entries)
		size := 133 * len(m.Entries)
		if !m.Whole.Empty() || len(m.Buckets) > 0 {
			p.shared++
			p.bytes += 34 + 2*len(m.Buckets)
			size += 48 + 2*len(m.Buckets)
		}
		for _, n := range m.Nodes {
			if n.Node == 0 {
				p.roots++
			}
			p.digests += len(n.Digests)
			p.bytes += 48 + 16*len(n.Digests)
			size += 48 + 16*len(n.Digests)
		}
		if size > 16_000 {
			p.t.Errorf("a part of %d bytes", size)
		}
	case *FrontierOpen:
		p.opened++
		p.bytes += 2*len(m.Buckets) + 80
		if len(m.Buckets) > MaxOpenBuckets {
			p.t.Errorf("%d buckets in one message", len(m.Buckets))
		}
	}
}

// check compares what both sides know with what they hold, and returns in how many
// logs they differ.
func (p *pair) check() (differ int) {
	p.t.Helper()
	for i, s := range p.s {
		own, peer := p.holds[i], p.holds[1-i]
		sp := s.spaces[pairSpace]
		if !sp.settled || sp.ask.own != nil || sp.load.running || s.diffEntries != 0 {
			p.t.Fatalf("end %d is not at rest: settled %v, asking %v", i, sp.settled, sp.ask.own != nil)
		}
		pending, missing, unknown := 0, 0, 0
		for e := range own.All() {
			at := peer.Position(e.Log)
			l, m := sp.logs[e.Log], sp.missing[e.Log]
			if at == e.Pos {
				if l != nil || m.want.Seq > 0 || !s.Acked(pairSpace, e.Log, e.Pos.Seq) {
					p.t.Fatalf("log %s is equal and passes for different", e.Log.Short())
				}
				continue
			}
			pending++
			if l == nil || l.base != at || s.Acked(pairSpace, e.Log, e.Pos.Seq) {
				p.t.Fatalf("log %s differs and passes for equal", e.Log.Short())
			}
			if at.Seq > e.Pos.Seq {
				missing++
				if m.have != e.Pos.Seq || m.want != at {
					p.t.Fatalf("log %s: the peer is ahead and it is not known: %+v", e.Log.Short(), m)
				}
			}
		}
		for e := range peer.All() {
			if own.Position(e.Log).Seq == 0 {
				unknown++
				if sp.missing[e.Log].want != e.Pos {
					p.t.Fatalf("log %s, unknown here, is not missing", e.Log.Short())
				}
			}
		}
		if len(sp.logs) != pending || len(sp.missing) != missing+unknown {
			p.t.Fatalf("%d logs differ and %d are missing, it knows of %d and %d", pending, missing+unknown, len(sp.logs), len(sp.missing))
		}
		differ = pending + unknown // the same on both sides
	}
	return differ
}

func randomLog(r *rand.Rand) (id LogID) {
	for i := 0; i < len(id); i += 8 {
		binary.BigEndian.PutUint64(id[i:], r.Uint64())
	}
	return id
}

func randomFrontier(r *rand.Rand, n int) []FrontierEntry {
	out := make([]FrontierEntry, n)
	for i := range out {
		out[i] = FrontierEntry{Log: randomLog(r), Base: 1, Pos: position(1 + r.Uint64N(9))}
	}
	return out
}

// vary changes n logs: one ahead, one behind, one cut short, one on another branch, one
// of one side alone.
func vary(r *rand.Rand, all []FrontierEntry, n int) []FrontierEntry {
	out := append([]FrontierEntry(nil), all...)
	for range n {
		if len(out) == 0 || r.IntN(5) == 0 {
			out = append(out, randomFrontier(r, 1)...)
			continue
		}
		switch i := r.IntN(len(out)); r.IntN(4) {
		case 0:
			out[i].Pos = position(out[i].Pos.Seq + 1 + r.Uint64N(9))
		case 1:
			out[i].Pos = position(1 + r.Uint64N(out[i].Pos.Seq))
		case 2:
			out[i].Pos.Hash[5] ^= 1
		case 3:
			out = append(out[:i], out[i+1:]...)
		}
	}
	return out
}

// TestExchangeFindsTheDifference: whatever two nodes hold, both learn in which logs
// they differ and in no other, at the cost of what differs.
func TestExchangeFindsTheDifference(t *testing.T) {
	rounds := map[int]int{0: 10, 1: 10, 30: 10, 33: 10, 400: 20, 4000: 4, 20_000: 1}
	if testing.Short() {
		rounds = map[int]int{0: 3, 1: 3, 30: 3, 33: 3, 400: 5, 4000: 1}
	}
	for n, rounds := range rounds {
		for _, mode := range []struct{ levels, shares bool }{{true, true}, {true, false}, {false, false}} {
			levels := mode.levels
			for round := range rounds {
				r := rand.New(rand.NewPCG(uint64(n), uint64(round)))
				a := randomFrontier(r, n)
				b := vary(r, a, []int{0, 1, 2, 10, 100, n, 3 * n}[r.IntN(7)])
				if r.IntN(10) == 0 {
					b = nil
				}
				cfg := SessionConfig{PeerLevels: levels, PeerShares: mode.shares}
				if r.IntN(2) == 0 {
					cfg.WholeEntries = 1
				}
				p := newPair(t, NewFrontier(a), NewFrontier(b), cfg)
				p.run()
				differ := p.check()
				few := n >= 400 && len(b) > 0 && 0 < differ && differ <= maxSharedNodes
				if mode.shares && few && (p.roots != 1 || p.shared != 1) || !mode.shares && p.shared > 0 {
					t.Errorf("%d logs of %d differ: %d roots are told, and %d times where the way down ended", differ, n, p.roots, p.shared)
				}
				if !levels && p.nodes+p.opened > 0 {
					t.Fatal("it goes down the levels of a peer that does not")
				}
				if !levels {
					continue
				}
				perLog := 48 + 16*min(256, n/256+2) + 90*32
				if most := 12_000 + 2*differ*perLog; p.bytes > most {
					t.Errorf("%d logs of %d differ: %d bytes, more than %d", differ, n, p.bytes, most)
				}
				if most := 20_000 + 2*(len(a)+len(b))*110; p.bytes > most {
					t.Errorf("%d logs of %d differ: %d bytes, more than all (%d)", differ, n, p.bytes, most)
				}
				if p.opened > 2*(2+65_536/MaxOpenBuckets) {
					t.Errorf("%d steps", p.opened)
				}
				if differ == 1 && p.largest > 4*32 {
					t.Errorf("one log differs and %d entries are held", p.largest)
				}
			}
		}
	}
}

// TestExchangeOfManyBuckets: more buckets differ than one message asks for.
func TestExchangeOfManyBuckets(t *testing.T) {
	if testing.Short() {
		t.Skip("60,000 logs")
	}
	r := rand.New(rand.NewPCG(1, 1))
	a := randomFrontier(r, 60_000)
	b := append([]FrontierEntry(nil), a...)
	for i := range 20_000 {
		b[i].Pos = position(b[i].Pos.Seq + 1)
	}
	p := newPair(t, NewFrontier(a), NewFrontier(b), SessionConfig{PeerLevels: true})
	p.run()
	if differ := p.check(); differ != 20_000 {
		t.Errorf("%d logs differ", differ)
	}
	if p.opened < 6 {
		t.Errorf("%d steps: the test is of none with many", p.opened)
	}
}

// TestExchangeKeepsWhatIsAnnouncedMeanwhile: what the peer announces between two steps,
// of a log that was equal in the first, is missing after the last one too.
func TestExchangeKeepsWhatIsAnnouncedMeanwhile(t *testing.T) {
	all := randomFrontier(rand.New(rand.NewPCG(1, 2)), 500)
	more := append([]FrontierEntry(nil), all...)
	more[0].Pos = Position{Seq: all[0].Pos.Seq + 5, Hash: Hash{1}}
	p := newPair(t, NewFrontier(all), NewFrontier(more), SessionConfig{PeerLevels: true})
	quiet := all[1]
	if bucketOf(quiet.Log)>>8 == bucketOf(all[0].Log)>>8 {
		t.Fatal("both logs are below one node")
	}
	announced := false
	for len(p.queue) > 0 {
		m := p.queue[0]
		p.queue = p.queue[1:]
		if _, ok := m.m.(*FrontierOpen); ok && m.end == 1 && !announced {
			announced = true
			told := &Announce{Space: pairSpace, Entries: []FrontierEntry{
				{Log: quiet.Log, Base: 1, Pos: Position{Seq: quiet.Pos.Seq + 3, Hash: Hash{2}}},
			}}
			p.do(0, Received{Msg: told, Tips: []Position{quiet.Pos}})
		}
		p.do(m.end, Received{Msg: m.m})
	}
	pr := p.s[0].Progress()
	if !announced || !pr[0].Settled || pr[0].MissingOps != 8 {
		t.Errorf("announced %v: %+v", announced, pr)
	}
}

// TestExchangeOfMovingFrontiers: while the two compare, both go on; each step is
// answered from what is held then, and no difference is overlooked. That holds also where
// they ask again at any time, and whatever of the one is under way at the other then.
func TestExchangeOfMovingFrontiers(t *testing.T) {
	shared, rounds := 0, uint64(300)
	if testing.Short() {
		rounds = 60
	}
	for seed := range rounds {
		r := rand.New(rand.NewPCG(seed, 3))
		a := randomFrontier(r, 600)
		cfg := SessionConfig{PeerLevels: true, WholeEntries: 1, PeerShares: r.IntN(4) > 0}
		p := newPair(t, NewFrontier(a), NewFrontier(vary(r, a, []int{2, 40}[r.IntN(2)])), cfg)
		calm, still := 1+r.IntN(30), r.IntN(4) // one end may keep still: it is told of what it asked before
		for len(p.queue) > 0 {
			m := p.queue[0]
			p.queue = p.queue[1:]
			p.do(m.end, Received{Msg: m.m})
			if r.IntN(20) == 0 && len(p.queue) < 100 {
				p.do(r.IntN(2), MeshExchange{})
			}
			if r.IntN(calm) > 0 {
				continue
			}
			end := r.IntN(2)
			if end == still {
				continue
			}
			log := a[r.IntN(len(a))].Log
			tip := position(p.holds[end].Position(log).Seq + 1 + r.Uint64N(3))
			p.advance(end, FrontierEntry{Log: log, Base: 1, Pos: tip})
		}
		for end := range p.s {
			p.do(end, MeshExchange{})
			p.run()
		}
		for i, s := range p.s {
			for e := range p.holds[i].All() {
				at := p.holds[1-i].Position(e.Log)
				if at.Seq < e.Pos.Seq && s.Acked(pairSpace, e.Log, e.Pos.Seq) {
					t.Fatalf("seed %d: end %d takes log %s for held up to %d, it is up to %d", seed, i, e.Log.Short(), e.Pos.Seq, at.Seq)
				}
				if m := p.s[1-i].spaces[pairSpace].missing[e.Log]; at.Seq < e.Pos.Seq && m.want != e.Pos {
					t.Fatalf("seed %d: end %d does not know that it lacks log %s up to %d: %+v", seed, 1-i, e.Log.Short(), e.Pos.Seq, m)
				}
			}
		}
		if p.losses > 0 {
			t.Fatalf("seed %d: %d positions pass for lost", seed, p.losses)
		}
		shared += p.shared
	}
	if shared < int(rounds)/6 {
		t.Errorf("%d ways down are shared: the test is of none", shared)
	}
}

// A peer that answers with digests that are never right is asked for all that it has,
// once, and no more.
func TestExchangeWithWrongDigestsEnds(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	own := NewFrontier(randomFrontier(r, 2000))
	h := newHarness(t, SessionConfig{PeerLevels: true})
	out := h.do(LocalFrontier{Space: SpaceID{1}, Frontier: own})
	ask := sent[*FrontierDigest](out)[0]
	if !ask.Levels {
		t.Fatal("the question is not of levels")
	}
	spoil := func(n FrontierNode) FrontierNode {
		n.Digests = append([]ChildDigest(nil), n.Digests...)
		for i := range n.Digests {
			n.Digests[i][3] ^= 1
		}
		return n
	}
	h.peer(&FrontierDigest{Space: SpaceID{1}, Round: ask.Round, Reply: true, Digest: Hash{1}, Logs: 1})
	out = h.peer(&FrontierDiff{Space: SpaceID{1}, Round: ask.Round, Last: true, Nodes: []FrontierNode{spoil(own.rootNode())}})
	for steps := 0; len(only[Settled](out)) == 0; steps++ {
		open := sent[*FrontierOpen](out)
		if len(open) != 1 || steps == 3 {
			t.Fatalf("%d steps, then %v", steps, out)
		}
		part := uint64(0)
		for i := range open[0].Nodes.All() {
			h.peer(&FrontierDiff{Space: SpaceID{1}, Round: ask.Round, Step: open[0].Step, Part: part, Nodes: []FrontierNode{spoil(own.at(i).message(i))}})
			part++
		}
		out = h.peer(&FrontierDiff{Space: SpaceID{1}, Round: ask.Round, Step: open[0].Step, Part: part, Last: true})
	}
	if len(h.s.order[0].logs) != 2000 {
		t.Errorf("%d of 2000 logs pass for lacking: it stated none", len(h.s.order[0].logs))
	}
}

// TestLevelsAreGivenUp: a peer that begins answers and does not end them is asked for
// its whole frontier after a while.
func TestLevelsAreGivenUp(t *testing.T) {
	own := NewFrontier(randomFrontier(rand.New(rand.NewPCG(7, 7)), 2000))
	h := newHarness(t, SessionConfig{PeerLevels: true, RetryAfter: time.Second, PingEvery: time.Second, CloseAfter: time.Hour})
	out := h.do(LocalFrontier{Space: SpaceID{1}, Frontier: own})
	wrong := make([]ChildDigest, 256)
	for i := range wrong {
		wrong[i][0] = 1
	}
	asked := 0
	for range 100 {
		for _, ask := range sent[*FrontierDigest](out) {
			asked++
			if ask.Levels != (asked <= maxLevelTries) {
				t.Fatalf("question %d: levels %v", asked, ask.Levels)
			}
			if !ask.Levels {
				return
			}
			h.peer(&FrontierDigest{Space: SpaceID{1}, Round: ask.Round, Reply: true, Digest: Hash{1}, Logs: 1})
			h.peer(&FrontierDiff{Space: SpaceID{1}, Round: ask.Round, Last: true, Nodes: []FrontierNode{{Present: allChildren, Digests: wrong}}})
		}
		if len(only[LoadFrontier](out)) > 0 {
			out = h.do(LocalFrontier{Space: SpaceID{1}, Frontier: own})
			continue
		}
		h.now = h.now.Add(time.Second)
		out = h.do(Tick{})
		for _, p := range sent[*Ping](out) {
			out = append(append([]Effect(nil), out...), h.peer(&Pong{Nonce: p.Nonce})...)
		}
	}
	t.Fatalf("asked %d times", asked)
}

// What no honest peer answers ends the session.
func TestLevelsViolations(t *testing.T) {
	own := NewFrontier(randomFrontier(rand.New(rand.NewPCG(9, 9)), 2000))
	other := NewFrontier(randomFrontier(rand.New(rand.NewPCG(10, 9)), 2000))
	somewhere := func(not ChildSet) FrontierEntry {
		for e := range other.All() {
			if !not.Has(byte(bucketOf(e.Log) >> 8)) {
				return e
			}
		}
		panic("none")
	}
	var first *innerNode
	for i := range 256 {
		if first = other.at(byte(i)); first != nil && i == 3 {
			break
		}
	}
	inner := first.message(3)
	three := ChildSet{}
	three.Add(3)
	root := FrontierNode{Present: three, Digests: []ChildDigest{{1}}} // only node 3 differs, and the peer has no other
	diff := func(step uint64, last bool, entries []FrontierEntry, nodes ...FrontierNode) *FrontierDiff {
		return &FrontierDiff{Space: SpaceID{1}, Round: 1, Step: step, Last: last, Entries: entries, Nodes: nodes}
	}
	for name, tt := range map[string]struct {
		msgs []Message
		want string
	}{
		"a root that was not asked for": {[]Message{diff(0, true, nil, root), diff(1, true, nil, root)}, "a root"},
		"a root and more":               {[]Message{diff(0, false, nil, root)}, "a root"},
		"two roots":                     {[]Message{diff(0, true, nil, root, root)}, "a root"},
		"an inner node at once":         {[]Message{diff(0, true, nil, inner)}, "was not asked for"},
		"digests that are too few":      {[]Message{diff(0, true, nil, FrontierNode{Present: three})}, "more or fewer"},
		"another node":                  {[]Message{diff(0, true, nil, root), diff(1, true, nil, other.at(4).message(4))}, "was not asked for"},
		"a node beyond the last":        {[]Message{diff(0, true, nil, root), diff(1, true, nil, FrontierNode{Node: 300})}, "was not asked for"},
		"a node twice":                  {[]Message{diff(0, true, nil, root), diff(1, true, nil, inner, inner)}, "came before"},
		"an entry of elsewhere":         {[]Message{diff(0, true, nil, root), diff(1, true, []FrontierEntry{somewhere(three)})}, "a bucket that was not asked for"},
		"an entry and the node": {[]Message{
			diff(0, true, nil, root), diff(1, false, first.leaves[0].entries), &FrontierDiff{Space: SpaceID{1}, Round: 1, Step: 1, Part: 1, Last: true, Nodes: []FrontierNode{inner}},
		}, "came before"},
		"an empty part": {[]Message{diff(0, true, nil, root), diff(1, false, nil)}, "an empty part"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, SessionConfig{PeerLevels: true, WholeEntries: 1})
			h.do(LocalFrontier{Space: SpaceID{1}, Frontier: own})
			var out []Effect
			for _, m := range tt.msgs {
				out = h.peer(m)
			}
			closed := only[CloseSession](out)
			if len(closed) != 1 || closed[0].Code != CodeProtocol || !strings.Contains(closed[0].Detail, tt.want) {
				t.Fatalf("want the session closed for %q, got %+v", tt.want, out)
			}
		})
	}
	h := newHarness(t, SessionConfig{WholeEntries: 1})
	h.do(LocalFrontier{Space: SpaceID{1}, Frontier: own})
	if out := h.peer(diff(0, true, nil, root)); len(only[CloseSession](out)) != 1 {
		t.Error("a root in answer to a question without levels is taken")
	}
}

// TestFrontierWith: a frontier after changes is the frontier of what results, and the
// one before stays what it was.
func TestFrontierWith(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	held := map[LogID]FrontierEntry{}
	list := func() (out []FrontierEntry) {
		for _, e := range held {
			out = append(out, e)
		}
		return out
	}
	var f *Frontier
	for i := range 150 {
		var changes []FrontierEntry
		for range r.IntN(20) {
			e := FrontierEntry{Log: LogID{byte(r.IntN(100))}, Base: 1, Pos: position(r.Uint64N(5))}
			if r.IntN(3) == 0 {
				e.Log = randomLog(r)
			}
			if i%50 == 49 {
				e.Pos = Position{}
			}
			changes = append(changes, e)
		}
		highest := map[LogID]FrontierEntry{}
		for _, e := range changes {
			if o, ok := highest[e.Log]; !ok || e.Pos.Seq > o.Pos.Seq {
				highest[e.Log] = e
			}
		}
		before, root := f, f.Root()
		f = f.With(changes)
		for log, e := range highest {
			if held[log] = e; e.Pos.Seq == 0 {
				delete(held, log)
			}
		}
		if i%50 == 49 {
			for log := range held {
				f = f.With([]FrontierEntry{{Log: log}})
				delete(held, log)
				break
			}
		}
		if f.Root() != NewFrontier(list()).Root() || f.Len() != len(held) {
			t.Fatalf("change %d: not the frontier of what is held", i)
		}
		if before.Root() != root || NewFrontier(before.entriesIn(region{all: true})).Root() != root {
			t.Fatal("the frontier before has changed")
		}
		for log, e := range held {
			if f.Position(log) != e.Pos {
				t.Fatal("a position differs")
			}
		}
	}
}

// A frontier that follows another shares all that is equal, so that many sessions can
// stand on frontiers of different times.
func TestFrontiersShare(t *testing.T) {
	f := NewFrontier(randomFrontier(rand.New(rand.NewPCG(3, 3)), 50_000))
	before := heapBytes()
	var kept []*Frontier
	for i := range 100 {
		f = f.With([]FrontierEntry{{Log: LogID{1}, Pos: position(uint64(i + 1))}})
		kept = append(kept, f)
	}
	if grown := int64(heapBytes()) - int64(before); grown > 100*20_000 {
		t.Errorf("100 frontiers that differ in one log keep %d bytes more", grown)
	}
	if kept[0].Root() == kept[99].Root() {
		t.Error("they are equal")
	}
}

func BenchmarkFrontier(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		entries := randomFrontier(rand.New(rand.NewPCG(4, 4)), n)
		f := NewFrontier(entries)
		b.Run(fmt.Sprintf("one block/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := uint64(1); b.Loop(); i++ {
				f = f.With([]FrontierEntry{{Log: entries[0].Log, Pos: position(i)}})
			}
		})
	}
}
