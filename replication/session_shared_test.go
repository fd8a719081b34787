package replication

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

// wayDown is a session that goes down the levels of a peer whose frontier differs in one
// log, step by step, while the peer asks too.
type wayDown struct {
	*harness
	own      *Frontier
	answered []*FrontierDiff // to the peer's question
}

func (w *wayDown) take(out []Effect) []Effect {
	for _, m := range sent[*FrontierDiff](out) {
		if m.Round == 7 {
			w.answered = append(w.answered, m)
		}
	}
	for _, l := range only[LoadFrontier](out) {
		if !l.Stored {
			w.take(w.do(LocalFrontier{Space: l.Space, Frontier: w.own}))
		}
	}
	return out
}

func (w *wayDown) says(m Message) []Effect { return w.take(w.peer(m)) }

func (w *wayDown) asks(f *Frontier) {
	w.says(&FrontierDigest{Space: SpaceID{1}, Round: 7, Digest: f.Root(), Logs: uint64(f.Len()), Levels: true})
}

func (w *wayDown) states(step uint64, entries []FrontierEntry, nodes ...FrontierNode) []Effect {
	return w.says(&FrontierDiff{Space: SpaceID{1}, Round: 1, Step: step, Last: true, Entries: entries, Nodes: nodes})
}

// TestWayDownServesThePeerToo: where the session's own way down ended is told to a peer
// whose question states the very frontier that it was of, whenever it asks; any other
// question is answered by the root, at once where the answer was put off in vain.
func TestWayDownServesThePeerToo(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	all := randomFrontier(r, 3000)
	own := NewFrontier(all)
	changed := bucketOf(all[0].Log)
	var below, elsewhere FrontierEntry // equal logs: below the node that differs, and not
	for _, e := range all[1:] {
		switch b := bucketOf(e.Log); {
		case b == changed:
		case b>>8 == changed>>8:
			below = e
		default:
			elsewhere = e
		}
	}
	peer := own
	for n := uint64(1); ; n++ { // the lower digest goes down
		peer = own.With([]FrontierEntry{ahead(all[0], n)})
		if o, p := own.Root(), peer.Root(); bytes.Compare(o[:], p[:]) < 0 {
			break
		}
	}
	inner := byte(changed >> 8)
	moved, movedBelow := peer.With([]FrontierEntry{ahead(elsewhere, 1)}), peer.With([]FrontierEntry{ahead(below, 1)})
	root := func(f *Frontier) func(*wayDown) {
		return func(w *wayDown) { w.states(0, nil, f.rootNode()) }
	}
	node := func(f *Frontier) func(*wayDown) {
		return func(w *wayDown) { w.states(1, nil, f.at(inner).message(inner)) }
	}
	end := func(w *wayDown) { w.states(2, peer.leaf(changed)) }
	asks := func(f *Frontier) func(*wayDown) { return func(w *wayDown) { w.asks(f) } }
	unanswered := func(w *wayDown) {
		if len(w.answered) > 0 {
			w.t.Fatal("the question is answered before the way down has ended")
		}
	}
	answered := func(w *wayDown) {
		if len(w.answered) == 0 {
			w.t.Fatal("the question waits in vain")
		}
	}
	silence := func(w *wayDown) {
		for range 30 {
			w.now = w.now.Add(time.Second)
			for _, p := range sent[*Ping](w.take(w.do(Tick{}))) {
				w.says(&Pong{Nonce: p.Nonce})
			}
		}
	}
	for name, c := range map[string]struct {
		steps  []func(*wayDown)
		shared bool
	}{
		"asked before the root":   {[]func(*wayDown){asks(peer), unanswered, root(peer), node(peer), unanswered, end}, true},
		"asked on the way":        {[]func(*wayDown){root(peer), asks(peer), unanswered, node(peer), end}, true},
		"asked afterwards":        {[]func(*wayDown){root(peer), node(peer), end, asks(peer)}, true},
		"moved before the root":   {[]func(*wayDown){asks(peer), root(moved), answered}, false},
		"moved on the way":        {[]func(*wayDown){root(peer), asks(moved), answered}, false},
		"moved below":             {[]func(*wayDown){root(peer), asks(peer), node(movedBelow), answered}, false},
		"moved before the end":    {[]func(*wayDown){root(peer), node(peer), asks(moved), answered, end}, false},
		"moved afterwards":        {[]func(*wayDown){root(peer), node(peer), end, asks(moved)}, false},
		"moved below, afterwards": {[]func(*wayDown){root(peer), node(movedBelow), end, asks(peer)}, false},
		"no end":                  {[]func(*wayDown){asks(peer), root(peer), unanswered, silence}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := SessionConfig{PeerLevels: true, PeerShares: true, WholeEntries: 1, PingEvery: time.Second}
			w := &wayDown{harness: newHarness(t, cfg), own: own}
			w.take(w.do(LocalFrontier{Space: SpaceID{1}, Frontier: own}))
			for _, step := range c.steps {
				step(w)
			}
			answered(w)
			m := w.answered[0]
			if !c.shared {
				if len(m.Nodes) != 1 || m.Nodes[0].Node != 0 || len(m.Buckets) > 0 || !m.Whole.Empty() {
					t.Fatalf("the answer is not the root: %+v", m)
				}
				return
			}
			if len(w.answered) != 1 || !m.Last || !m.Whole.Empty() || len(m.Buckets) != 1 || m.Buckets[0] != changed || len(m.Entries) != len(own.leaf(changed)) {
				t.Fatalf("the answer is not what is in bucket %04x: %+v", changed, w.answered)
			}
		})
	}
}

// TestWayDownToldLater: what has changed here since the way down ended, also what was
// taken back, is told beside where it ended.
func TestWayDownToldLater(t *testing.T) {
	all := randomFrontier(rand.New(rand.NewPCG(13, 13)), 3000)
	own := NewFrontier(all)
	peer := own.With([]FrontierEntry{ahead(all[0], 1)})
	differs, inner := bucketOf(all[0].Log), byte(bucketOf(all[0].Log)>>8)
	for name, c := range map[string]struct {
		now     []FrontierEntry
		buckets int
	}{
		"grown":       {[]FrontierEntry{ahead(all[1], 1)}, 2},
		"taken back":  {[]FrontierEntry{{Log: all[1].Log}}, 2},
		"too much":    {randomFrontier(rand.New(rand.NewPCG(14, 13)), 2*maxSharedBuckets), 0},
		"as much now": {nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := &wayDown{harness: newHarness(t, SessionConfig{PeerLevels: true, PeerShares: true, WholeEntries: 1}), own: own}
			w.take(w.do(LocalFrontier{Space: SpaceID{1}, Frontier: own}))
			w.states(0, nil, peer.rootNode())
			w.states(1, nil, peer.at(inner).message(inner))
			w.states(2, peer.leaf(differs))
			w.own = own.With(c.now)
			w.asks(peer)
			m := w.answered[0]
			if len(m.Buckets) != c.buckets || (c.buckets == 0) != (len(m.Nodes) == 1) {
				t.Fatalf("%d buckets and %d nodes, want %d", len(m.Buckets), len(m.Nodes), c.buckets)
			}
			for _, e := range m.Entries {
				if w.own.Position(e.Log) != e.Pos {
					t.Errorf("log %s is not held like that", e.Log.Short())
				}
			}
			if name == "taken back" && len(m.Entries) != len(own.leaf(differs))+len(w.own.leaf(bucketOf(all[1].Log))) {
				t.Errorf("%d entries", len(m.Entries))
			}
		})
	}
}

// What a peer may not say of where its way down ended.
func TestSharedWayDownViolations(t *testing.T) {
	own := NewFrontier(randomFrontier(rand.New(rand.NewPCG(9, 9)), 2000))
	other := randomFrontier(rand.New(rand.NewPCG(10, 9)), 1)
	bucket := bucketOf(other[0].Log)
	for name, c := range map[string]struct {
		levels bool
		m      FrontierDiff
		ok     bool
	}{
		"as it is sent":  {true, FrontierDiff{Buckets: []uint16{bucket}, Entries: other}, true},
		"nothing there":  {true, FrontierDiff{Buckets: []uint16{bucket}}, true},
		"without levels": {false, FrontierDiff{Buckets: []uint16{bucket}, Entries: other}, false},
		"of elsewhere":   {true, FrontierDiff{Buckets: []uint16{bucket + 1}, Entries: other}, false},
		"with a root":    {true, FrontierDiff{Buckets: []uint16{bucket}, Nodes: []FrontierNode{own.rootNode()}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, SessionConfig{PeerLevels: c.levels})
			h.do(LocalFrontier{Space: SpaceID{1}, Frontier: own})
			c.m.Space, c.m.Round, c.m.Last = SpaceID{1}, 1, true
			out := h.peer(&c.m)
			if closed := only[CloseSession](out); c.ok == (len(closed) > 0) || c.ok == (len(only[Settled](out)) == 0) {
				t.Errorf("%+v", out)
			}
		})
	}
}

// ahead is an entry n operations later.
func ahead(e FrontierEntry, n uint64) FrontierEntry {
	e.Pos = position(e.Pos.Seq + n)
	return e
}

// advance lets one end hold an entry of a log.
func (p *pair) advance(end int, e FrontierEntry) {
	at := p.holds[end].Position(e.Log)
	p.holds[end] = p.holds[end].With([]FrontierEntry{e})
	p.do(end, Advanced{Advance: Advance{Space: pairSpace, Log: e.Log, Prev: at, Tip: e.Pos, Ops: e.Pos.Seq - at.Seq}})
}

// Two nodes that held the same and write while their questions are under way do not wait
// for each other.
func TestEqualQuestionsDoNotWait(t *testing.T) {
	all := randomFrontier(rand.New(rand.NewPCG(12, 12)), 400)
	f := NewFrontier(all)
	p := newPair(t, f, f, SessionConfig{PeerLevels: true, PeerShares: true, WholeEntries: 1})
	for end := range 2 {
		p.advance(end, ahead(all[end], 1))
	}
	p.run()
	for end, s := range p.s {
		if !s.spaces[pairSpace].settled {
			t.Errorf("end %d waits", end)
		}
	}
}
