package logtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"vixp2p/replication"
)

var appendTests = []test{
	{"ReadBack", testReadBack},
	{"BatchIsOneBlock", testBatchIsOneBlock},
	{"GroupCommitSharesABlock", testGroupCommit},
	{"FullBlockStartsAnother", testFullBlock},
	{"Limits", testAppendLimits},
	{"LargestOperation", testLargestOperation},
	{"TimesAscend", testTimesAscend},
	{"TimesFollowPeers", testTimesFollowPeers},
	{"OrderWithoutResolver", testOrderWithoutResolver},
	{"CancelledContext", testCancelledContext},
	{"BlocksAreSigned", testBlocksAreSigned},
	{"Concurrent", testConcurrentAppends},
}

func testReadBack(e *env) {
	other := e.writer(1).AddMany(3)
	self := e.append(Put("a", "1")).First
	replaced := []replication.Dot{self, {Log: other.Log, Seq: 1}, {Log: other.Log, Seq: 3}}
	slices.SortFunc(replaced, replication.Dot.Compare)
	in := []replication.Op{
		Put("a", "2"),
		{Kind: replication.KindPut, Key: []byte("b"), Payload: nil, Flags: 5, Expiry: 9, Content: []byte("ref")},
		Delete("a", replaced...),
		App("chat", []byte{0, 1, 2}),
		{Kind: replication.KindApp, Name: "keyed", Key: []byte("k"), Critical: true},
		{Kind: 77, Payload: []byte("of a later version")},
	}
	at := e.append(in...)
	if at.First != (replication.Dot{Log: self.Log, Seq: 2}) {
		e.Errorf("the batch is at %v, want seq 2 of the same log", at.First)
	}
	e.reopen()
	b := e.blockAt(e.space, at.First)
	if b.End() != at.Pos {
		e.Errorf("the block ends at %v, the answer was %v", b.End(), at.Pos)
	}
	got := e.ops(b)
	if len(got) != len(in) || got[0].HLC != at.HLC {
		e.Fatalf("%d operations from %d, want %d from %d", len(got), got[0].HLC, len(in), at.HLC)
	}
	for i := range in {
		w, g := in[i], got[i]
		w.HLC, w.Order = g.HLC, g.Order
		if len(w.Payload) == 0 {
			w.Payload = g.Payload
		}
		if !reflect.DeepEqual(w, g) {
			e.Errorf("operation %d: got %+v, want %+v", i, g, w)
		}
	}
	info := e.log(at.First.Log)
	if info.Tip != at.Pos || info.Origin != e.self() || info.Space != e.space || info.Base != 1 || info.LastHLC != got[5].HLC {
		e.Errorf("log info %+v", info)
	}
}

func testBatchIsOneBlock(e *env) {
	ops := make([]replication.Op, replication.MaxOpsPerBlock)
	for i := range ops {
		ops[i] = Put(fmt.Sprint(i), "v")
	}
	at := e.append(ops...)
	b := e.blockAt(e.space, at.First)
	if b.Header.FirstSeq != at.First.Seq || b.Header.Count != uint64(len(ops)) {
		e.Errorf("the batch became a block of %d from %d", b.Header.Count, b.Header.FirstSeq)
	}
}

// gate is a Resolver that holds up the committer until it is released, at the
// latest when the test ends.
type gate struct {
	entered, released  chan struct{}
	onEntry, onRelease sync.Once
}

func newGate(e *env) *gate {
	g := &gate{entered: make(chan struct{}), released: make(chan struct{})}
	e.Cleanup(g.release)
	return g
}

func (g *gate) hold() {
	g.onEntry.Do(func() { close(g.entered) })
	<-g.released
}

func (g *gate) release() { g.onRelease.Do(func() { close(g.released) }) }

func (g *gate) Resolve(replication.SpaceID, replication.Dot, []replication.Op, []replication.Condition) error {
	g.hold()
	return nil
}
func (g *gate) Settle(replication.SpaceID, replication.LogID, uint64)  {}
func (g *gate) Discard(replication.SpaceID, replication.LogID, uint64) {}

// testGroupCommit: while the committer is held up, appends queue; they must then
// share blocks (design 4.3), each batch in one.
func testGroupCommit(e *env) {
	const writers, size = 64, 3
	for start := time.Now(); ; {
		g := newGate(e)
		var wg sync.WaitGroup
		at := make([]replication.Appended, writers)
		for i := range at {
			wg.Go(func() {
				b := replication.Batch{Space: e.space, Resolver: g}
				for k := range size {
					b.Ops = append(b.Ops, Put(fmt.Sprint(i, "/", k), "v"))
				}
				var err error
				if at[i], err = e.store.Append(context.Background(), b); err != nil {
					e.Errorf("append: %v", err)
				}
			})
			if i == 0 {
				await(e, g.entered)
			}
		}
		g.release()
		wg.Wait()
		blocks := map[replication.Position]int{}
		for _, a := range at {
			blocks[a.Pos]++
			b := e.blockAt(e.space, a.First)
			if b.End() != a.Pos || a.First.Seq+size-1 > b.Header.LastSeq() {
				e.Fatalf("the batch at %v is not inside the block up to %v", a.First, b.End())
			}
		}
		if len(blocks) <= writers/2 {
			return
		}
		if time.Since(start) > deadline {
			e.Fatalf("%d concurrent appends made %d blocks", writers, len(blocks))
		}
	}
}

// testFullBlock: two batches that do not fit together get a block each, whether or
// not they share a transaction.
func testFullBlock(e *env) {
	g := newGate(e)
	big := strings.Repeat("x", 600<<10)
	var wg sync.WaitGroup
	at := make([]replication.Appended, 4)
	for i := range at {
		wg.Go(func() {
			var err error
			at[i], err = e.store.Append(context.Background(), replication.Batch{
				Space: e.space, Resolver: g, Ops: []replication.Op{Put(fmt.Sprint(i), big)},
			})
			if err != nil {
				e.Errorf("append: %v", err)
			}
		})
		if i == 0 {
			await(e, g.entered)
		}
	}
	g.release()
	wg.Wait()
	seen := map[uint64]bool{}
	for _, a := range at {
		if seen[a.First.Seq] || a.Pos.Seq != a.First.Seq {
			e.Errorf("batches of 600 KiB share a block: %+v", at)
		}
		seen[a.First.Seq] = true
	}
	if info := e.log(at[0].First.Log); info.Tip.Seq != 4 || info.Blocks != 4 {
		e.Errorf("%+v", info)
	}
}

func testAppendLimits(e *env) {
	dots := make([]replication.Dot, replication.MaxSupersedes+1)
	for i := range dots {
		dots[i] = replication.Dot{Log: replication.LogID{1}, Seq: uint64(i + 1)}
	}
	many := make([]replication.Op, replication.MaxOpsPerBlock+1)
	for i := range many {
		many[i] = Put("k", "")
	}
	for _, tc := range []struct {
		name string
		ops  []replication.Op
		want error
	}{
		{"no operation", nil, replication.ErrInvalid},
		{"payload", []replication.Op{Put("k", strings.Repeat("x", replication.MaxRawBody))}, replication.ErrTooLarge},
		{"noise", []replication.Op{App("a", bytes.Repeat([]byte{1, 7, 3}, replication.MaxRawBody/3))}, replication.ErrTooLarge},
		{"batch", []replication.Op{Put("a", strings.Repeat("x", 600<<10)), Put("b", strings.Repeat("y", 600<<10))}, replication.ErrTooLarge},
		{"count", many, replication.ErrTooLarge},
		{"key", []replication.Op{Put(strings.Repeat("k", replication.MaxKey+1), "")}, replication.ErrTooLarge},
		{"superseded", []replication.Op{Delete("k", dots...)}, replication.ErrTooLarge},
		{"superseded out of order", []replication.Op{Delete("k", dots[1], dots[0])}, replication.ErrInvalid},
		{"superseded twice", []replication.Op{Delete("k", dots[0], dots[0])}, replication.ErrInvalid},
		{"put without key", []replication.Op{Put("", "v")}, replication.ErrInvalid},
		{"name missing", []replication.Op{App("", nil)}, replication.ErrInvalid},
		{"name too long", []replication.Op{App(strings.Repeat("n", replication.MaxAppName+1), nil)}, replication.ErrInvalid},
		{"one bad of two", []replication.Op{Put("k", "v"), Put("", "v")}, replication.ErrInvalid},
	} {
		_, err := e.store.Append(context.Background(), replication.Batch{Space: e.space, Ops: tc.ops})
		if !errors.Is(err, tc.want) {
			e.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if e.store.Head() != 0 || len(e.store.Spaces()) != 0 {
		e.Errorf("refused batches left something: head %d", e.store.Head())
	}
	if at := e.append(Put("k", "v")); at.First.Seq != 1 {
		e.Errorf("refused batches used up seqs: %+v", at)
	}
}

func testLargestOperation(e *env) {
	// Nothing but the operation's own framing comes on top of the payload.
	at := e.append(App("a", bytes.Repeat([]byte{7}, replication.MaxRawBody-32)))
	if got := e.opAt(at.First); len(got.Payload) != replication.MaxRawBody-32 {
		e.Errorf("%d bytes came back", len(got.Payload))
	}
	e.readRun(at.First.Log, replication.Position{}, 0)
}

// testTimesAscend: whatever the wall clock does, and over a restart (design 4.5).
func testTimesAscend(e *env) {
	other := e.spaceNamed("other")
	last := replication.HLC(0)
	check := func(space replication.SpaceID) {
		e.Helper()
		at := e.appendTo(space, Put("a", "1"), Put("b", "2"))
		if at.HLC <= last {
			e.Fatalf("time %d after %d", at.HLC, last)
		}
		last = at.HLC + 1 // the second operation's
		if ops := e.ops(e.blockAt(space, at.First)); ops[0].HLC != at.HLC || ops[1].HLC != last {
			e.Fatalf("times %d and %d, want from %d on", ops[0].HLC, ops[1].HLC, at.HLC)
		}
	}
	for _, d := range []time.Duration{0, time.Hour, -2 * time.Hour, time.Millisecond} {
		e.clock.Advance(d)
		check(e.space)
		check(other)
		e.clock.Advance(-time.Minute)
		e.reopen()
	}
	check(e.space)
}

// testTimesFollowPeers: a peer's time is adopted if it is at most a minute ahead.
func testTimesFollowPeers(e *env) {
	ahead := func(seed uint64, d time.Duration) replication.HLC {
		w := e.writer(seed)
		o := Put("k", "v")
		o.HLC = replication.HLCAt(e.clock.Now().Add(d))
		w.Add(o)
		e.want(e.ingest(w.Run(e, 0, 1)), replication.Committed, w.Tip())
		return o.HLC
	}
	near := ahead(1, 50*time.Second)
	if at := e.append(Put("k", "v")); at.HLC <= near {
		e.Errorf("local time %d does not follow a peer's %d", at.HLC, near)
	}
	far := ahead(2, 2*time.Minute)
	if at := e.append(Put("k", "v")); at.HLC >= far {
		e.Errorf("local time %d follows a peer that is two minutes ahead (%d)", at.HLC, far)
	}
}

func testOrderWithoutResolver(e *env) {
	at := e.append(Put("k", "v"), App("a", nil))
	b := e.ops(e.blockAt(e.space, at.First))
	if b[0].Order != uint64(b[0].HLC) || b[1].Order != 0 {
		e.Errorf("orders %d and %d at time %d", b[0].Order, b[1].Order, b[0].HLC)
	}
	o := Put("k", "v")
	o.Order = uint64(b[0].HLC) + 1<<20
	got := e.opAt(e.append(o).First)
	if got.Order != o.Order+1 {
		e.Errorf("order %d, want just above %d", got.Order, o.Order)
	}
	head := e.store.Head()
	o.Order = uint64(got.HLC) + 2*replication.MaxOrderLead
	if _, err := e.store.Append(context.Background(), replication.Batch{Space: e.space, Ops: []replication.Op{o}}); err == nil {
		e.Error("an operation that is void by its order was acknowledged")
	}
	if e.store.Head() != head {
		e.Error("an operation that is void by its order was stored")
	}
}

func testCancelledContext(e *env) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.store.Append(ctx, replication.Batch{Space: e.space, Ops: []replication.Op{Put("a", "1")}}); !errors.Is(err, context.Canceled) {
		e.Errorf("append with a cancelled context: %v", err)
	}
	// A context that ends while the committer is held up gives up waiting only.
	g := newGate(e)
	ctx, cancel = context.WithCancel(context.Background())
	errs := make(chan error, 2)
	blocked := replication.Batch{Space: e.space, Ops: []replication.Op{Put("b", "1")}, Resolver: g}
	go func() { _, err := e.store.Append(context.Background(), blocked); errs <- err }()
	await(e, g.entered)
	go func() {
		_, err := e.store.Append(ctx, replication.Batch{Space: e.space, Ops: []replication.Op{Put("c", "1")}})
		errs <- err
	}()
	cancel()
	if err := await(e, errs); !errors.Is(err, context.Canceled) {
		e.Errorf("waiting append: %v", err)
	}
	g.release()
	if err := await(e, errs); err != nil {
		e.Errorf("held up append: %v", err)
	}
}

// testBlocksAreSigned: a run ends at every block that was written here, so that a
// peer gets what it asks for and no more.
func testBlocksAreSigned(e *env) {
	at := e.append(Put("a", "1"))
	e.append(Put("b", "2"))
	r, run := e.readRun(at.First.Log, replication.Position{}, 1)
	if r.End != at.Pos || len(run.Blocks) != 1 {
		e.Errorf("the shortest run ends at %v, want %v", r.End, at.Pos)
	}
	g := run.Genesis()
	if g == nil || g.Origin != e.self() || g.Network != e.opts.Network || g.Space != e.space || g.PrevLog != (replication.LogID{}) {
		e.Errorf("genesis %+v", g)
	}
}

// testConcurrentAppends: every answer is true, and all that was written is there
// once, whatever runs beside.
func testConcurrentAppends(e *env) {
	const writers, rounds = 16, 20
	spaces := []replication.SpaceID{e.space, e.spaceNamed("b"), e.spaceNamed("c")}
	foreign := e.writer(1).AddMany(rounds)
	type ack struct {
		key string
		at  replication.Appended
	}
	acks := make([][]ack, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for k := range rounds {
				key := fmt.Sprintf("%d/%d", i, k)
				at, err := e.store.Append(context.Background(), replication.Batch{Space: spaces[i%3], Ops: []replication.Op{Put(key, "v"), Put(key, "w")}})
				if err != nil {
					e.Errorf("append: %v", err)
					return
				}
				acks[i] = append(acks[i], ack{key, at})
			}
		})
	}
	// Those who do not wait for their answer get no other's later.
	const impatient = "impatient"
	wg.Go(func() {
		for range rounds * writers {
			ctx, cancel := context.WithCancel(context.Background())
			go cancel()
			if _, err := e.store.Append(ctx, replication.Batch{Space: e.space, Ops: []replication.Op{Put(impatient, "v")}}); err != nil && !errors.Is(err, context.Canceled) {
				e.Errorf("append with a context that ends: %v", err)
			}
		}
	})
	wg.Go(func() {
		for k := range rounds {
			if r := e.ingest(foreign.Run(e, k, k+1)); r.Code != replication.Committed {
				e.Errorf("ingest: %s %v", r.Code, r.Err)
			}
		}
	})
	wg.Go(func() {
		for range rounds {
			for _, l := range e.store.Logs(e.space) {
				if r, err := e.store.ReadRun(l.Log, replication.Position{}, 0); err != nil || len(r.Data) == 0 {
					e.Errorf("read: %v", err)
				}
			}
		}
	})
	wg.Wait()
	found := map[replication.Dot]string{}
	for _, space := range spaces {
		for _, a := range e.arrivals(space, 0, 1<<20) {
			for i, o := range e.ops(a.Block) {
				d := replication.Dot{Log: a.Block.Header.Log, Seq: a.Block.Header.FirstSeq + uint64(i)}
				if _, twice := found[d]; twice {
					e.Fatalf("%v is there twice", d)
				}
				found[d] = string(o.Key)
			}
		}
	}
	maybe := 0
	for _, key := range found {
		if key == impatient {
			maybe++
		}
	}
	if want := writers*rounds*2 + rounds; len(found)-maybe != want {
		e.Errorf("%d operations, want %d", len(found)-maybe, want)
	}
	for i := range acks {
		for _, a := range acks[i] {
			next := replication.Dot{Log: a.at.First.Log, Seq: a.at.First.Seq + 1}
			if found[a.at.First] != a.key || found[next] != a.key {
				e.Errorf("%s was acknowledged at %v, where %q is", a.key, a.at.First, found[a.at.First])
			}
		}
	}
}
