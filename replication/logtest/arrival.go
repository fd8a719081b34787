package logtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"vixp2p/replication"
)

var arrivalTests = []test{
	{"OrderOverLogsAndSpaces", testArrivalOrder},
	{"Steps", testArrivalSteps},
	{"Random", testArrivalsRandom},
	{"Subscribe", testSubscribe},
	{"SubscribeBeforeAnswer", testSubscribeBeforeAnswer},
	{"SubscribeCancel", testSubscribeCancel},
	{"ReadsWhatItHears", testReadInSubscriber},
}

// testArrivalOrder: numbers count the blocks of all spaces without a gap, in the
// order in which they became durable, and stay over a restart.
func testArrivalOrder(e *env) {
	spaces := []replication.SpaceID{e.space, e.spaceNamed("b")}
	var want [2][]replication.Hash
	number := uint64(0)
	for i := range 30 {
		space := spaces[i%2]
		if i%3 == 0 {
			at := e.appendTo(space, Put(fmt.Sprint(i), "v"))
			if number++; at.Arrival != number {
				e.Fatalf("append %d has arrival %d, want %d", i, at.Arrival, number)
			}
			want[i%2] = append(want[i%2], at.Pos.Hash)
			continue
		}
		w := NewWriter(e.opts.Network, space, uint64(i)).AddMany(i % 4)
		w.Add()
		e.want(e.ingest(w.Run(e, 0, w.Len())), replication.Committed, w.Tip())
		e.want(e.ingest(w.Run(e, 0, w.Len())), replication.Duplicate, w.Tip())
		number += uint64(w.Len())
		for k := range w.Len() {
			want[i%2] = append(want[i%2], w.Block(k).Hash)
		}
		if e.store.Head() != number {
			e.Fatalf("head %d, want %d", e.store.Head(), number)
		}
	}
	check := func() {
		e.Helper()
		numbers := map[uint64]bool{}
		for i, space := range spaces {
			var got []replication.Hash
			last := uint64(0)
			for _, a := range e.arrivals(space, 0, 2000) {
				if a.Number <= last || numbers[a.Number] {
					e.Fatalf("arrival %d after %d", a.Number, last)
				}
				last = a.Number
				numbers[last] = true
				got = append(got, a.Block.Hash)
				if a.Origin != e.log(a.Block.Header.Log).Origin || !a.Block.HasBody() {
					e.Fatalf("arrival %d: origin %s", a.Number, a.Origin)
				}
			}
			if !slices.Equal(got, want[i]) {
				e.Errorf("space %d: another order than that of the answers", i)
			}
		}
		if uint64(len(numbers)) != number || e.store.Head() != number {
			e.Errorf("%d numbers, head %d, want %d", len(numbers), e.store.Head(), number)
		}
	}
	check()
	e.reopen()
	check()
}

// testArrivalSteps: from every number, in steps of any size, nothing is left out.
func testArrivalSteps(e *env) {
	other := e.spaceNamed("other")
	for i := range 12 {
		e.append(Put("k", fmt.Sprint(i)))
		if i%3 == 0 {
			e.appendTo(other, Put("k", "v"))
		}
	}
	all := e.arrivals(e.space, 0, 1<<30)
	if len(all) != 12 {
		e.Fatalf("%d arrivals, want 12", len(all))
	}
	for _, maxBytes := range []int{0, 1, 300, 700, 1 << 30} {
		for after := range e.store.Head() + 2 {
			var want, got []uint64
			for _, a := range all {
				if a.Number > after {
					want = append(want, a.Number)
				}
			}
			for _, a := range e.arrivals(e.space, after, maxBytes) {
				got = append(got, a.Number)
			}
			if !slices.Equal(got, want) {
				e.Fatalf("after %d in steps of %d bytes: %v, want %v", after, maxBytes, got, want)
			}
		}
	}
	if part, err := e.store.ReadArrivals(e.space, 0, 1); err != nil || len(part) != 1 {
		e.Errorf("the smallest step has %d arrivals, %v", len(part), err)
	}
	if part, err := e.store.ReadArrivals(e.spaceNamed("empty"), 0, 1); err != nil || len(part) != 0 {
		e.Errorf("an empty space has %d arrivals, %v", len(part), err)
	}
}

// testArrivalsRandom: whatever is written, cut and comes back in whatever order, what
// arrives are the blocks that count, each log's in its order, and from every number the
// same ones.
func testArrivalsRandom(e *env) {
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	spaces := []replication.SpaceID{e.space, e.spaceNamed("b")}
	var writers []*Writer
	stored := map[replication.LogID]int{} // blocks
	for i := range 6 {
		writers = append(writers, NewWriter(e.opts.Network, spaces[i%2], uint64(i)))
	}
	l := limits{}
	counted := func(w *Writer) int {
		n := stored[w.Log]
		if limit, ok := l[w.Log]; ok {
			n = min(n, int(limit.Cut.Seq))
		}
		return n
	}
	check := func() {
		e.Helper()
		for i, space := range spaces {
			all := e.arrivals(space, 0, 1<<30)
			seen := map[replication.LogID]int{}
			for k, a := range all {
				if k > 0 && a.Number <= all[k-1].Number {
					e.Fatalf("arrival %d after %d", a.Number, all[k-1].Number)
				}
				seen[a.Block.Header.Log]++
				if got := a.Block.Header.FirstSeq; got != uint64(seen[a.Block.Header.Log]) {
					e.Fatalf("log %s: seq %d arrives as block %d", a.Block.Header.Log.Short(), got, seen[a.Block.Header.Log])
				}
			}
			for k, w := range writers {
				if k%2 == i && seen[w.Log] != counted(w) {
					e.Fatalf("of log %d arrive %d blocks, %d count", k, seen[w.Log], counted(w))
				}
			}
			after := rnd.Uint64N(e.store.Head() + 1)
			rest := slices.IndexFunc(all, func(a replication.Arrival) bool { return a.Number > after })
			if rest < 0 {
				rest = len(all)
			}
			part := e.arrivals(space, after, 1<<rnd.IntN(16))
			if !slices.EqualFunc(part, all[rest:], func(a, b replication.Arrival) bool { return a.Number == b.Number && a.Block.Hash == b.Block.Hash }) {
				e.Fatalf("after %d arrive %d blocks, of all %d", after, len(part), len(all)-rest)
			}
		}
	}
	for range rounds {
		w := writers[rnd.IntN(len(writers))]
		switch rnd.IntN(6) {
		case 0: // a cut, lower or higher
			if n := stored[w.Log]; n > 0 {
				l[w.Log] = cutAt(w.Pos(rnd.IntN(n + 1)))
				e.restrict(l)
			}
		case 1:
			clear(l)
			e.restrict(l)
		case 2:
			e.reopen()
			e.restrict(l)
		default:
			if _, limited := l[w.Log]; limited {
				continue
			}
			n := 1 + rnd.IntN(50)
			from := w.Len()
			for range n {
				if w.Len() == 0 || rnd.IntN(8) > 0 {
					w.Add()
				} else {
					w.Add(App("big", make([]byte, 9<<10)))
				}
			}
			e.want(e.ingest(w.Run(e, from, w.Len())), replication.Committed, w.Tip())
			stored[w.Log] = w.Len()
		}
		check()
	}
	e.sound()
}

// heard collects advances.
type heard struct {
	mu  sync.Mutex // guards all
	all []replication.Advance
}

func (h *heard) note(a replication.Advance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, a)
}

func (h *heard) take() []replication.Advance {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.all
	h.all = nil
	return all
}

// testSubscribe: one advance per log and commit, which agrees with the answer.
func testSubscribe(e *env) {
	h := &heard{}
	defer e.store.Subscribe(h.note)()
	first := e.append(Put("a", "1"), Put("b", "1"))
	second := e.append(Put("c", "1"))
	id := first.First.Log
	bytes := func(after uint64) uint64 {
		n, err := e.store.BytesAfter(id, after)
		if err != nil {
			e.Fatal(err)
		}
		return n
	}
	want := []replication.Advance{
		{Space: e.space, Log: id, Origin: e.self(), Tip: first.Pos, Arrival: 1, Ops: 2, Bytes: bytes(0) - bytes(2)},
		{Space: e.space, Log: id, Origin: e.self(), Prev: first.Pos, Tip: second.Pos, Arrival: 2, Ops: 1, Bytes: bytes(2)},
	}
	if got := h.take(); !slices.Equal(got, want) {
		e.Errorf("appends: got %+v, want %+v", got, want)
	}
	w := e.writer(1).AddMany(5)
	e.ingestFrom(42, w.Run(e, 0, 3))
	e.ingestFrom(42, w.Run(e, 0, 3)) // a duplicate is no advance
	e.ingestFrom(43, w.Run(e, 4, 5)) // nor is a gap
	e.ingestFrom(44, w.Run(e, 1, 5)) // an overlap counts what is new
	after3, err := e.store.BytesAfter(w.Log, 3)
	if err != nil {
		e.Fatal(err)
	}
	want = []replication.Advance{
		{Space: e.space, Log: w.Log, Origin: w.Origin, Tip: w.Pos(3), Arrival: 5, Ops: 3, Bytes: e.log(w.Log).Bytes - after3, Source: 42},
		{Space: e.space, Log: w.Log, Origin: w.Origin, Prev: w.Pos(3), Tip: w.Pos(5), Arrival: 7, Ops: 2, Bytes: after3, Source: 44},
	}
	if got := h.take(); !slices.Equal(got, want) {
		e.Errorf("runs: got %+v, want %+v", got, want)
	}
}

// testSubscribeBeforeAnswer: who has an answer has heard of the advance.
func testSubscribeBeforeAnswer(e *env) {
	h := &heard{}
	defer e.store.Subscribe(h.note)()
	w := e.writer(1).AddMany(50)
	ch := make(chan error, 1)
	for i := range 50 {
		e.append(Put("k", "v"))
		if n := len(h.take()); n != 1 {
			e.Fatalf("when the append returned, %d advances had been told", n)
		}
		e.store.Ingest(1, w.Run(e, i, i+1), func(replication.IngestResult) {
			if n := len(h.take()); n != 1 {
				ch <- fmt.Errorf("when the run was answered, %d advances had been told", n)
				return
			}
			ch <- nil
		})
		if err := await(e, ch); err != nil {
			e.Fatal(err)
		}
	}
}

func testSubscribeCancel(e *env) {
	a, b := &heard{}, &heard{}
	cancelA := e.store.Subscribe(a.note)
	cancelB := e.store.Subscribe(b.note)
	e.append(Put("k", "1"))
	cancelA()
	cancelA()
	e.append(Put("k", "2"))
	cancelB()
	e.append(Put("k", "3"))
	if x, y := len(a.take()), len(b.take()); x != 1 || y != 2 {
		e.Errorf("heard %d and %d advances, want 1 and 2", x, y)
	}
}

// testReadInSubscriber: what is told is there to be read.
func testReadInSubscriber(e *env) {
	var problems []string
	cancel := e.store.Subscribe(func(a replication.Advance) {
		if info, ok := e.store.Log(a.Log); !ok || info.Tip.Seq < a.Tip.Seq {
			problems = append(problems, fmt.Sprintf("log at %d, told %d", info.Tip.Seq, a.Tip.Seq))
		}
		if r, err := e.store.ReadRun(a.Log, a.Prev, 0); err != nil || r.End.Seq < a.Tip.Seq {
			problems = append(problems, fmt.Sprintf("run up to %d, told %d, %v", r.End.Seq, a.Tip.Seq, err))
		}
		if e.store.Head() < a.Arrival {
			problems = append(problems, "the head lags behind")
		}
	})
	w := e.writer(1).AddMany(3)
	e.append(Put("k", "1"))
	e.ingest(w.Run(e, 0, 3))
	cancel()
	for _, p := range problems {
		e.Error(p)
	}
}
