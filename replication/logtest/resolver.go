package logtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"vixp2p/replication"
)

var resolverTests = []test{
	{"OrderOfCalls", testResolverCalls},
	{"SeesOwnBlock", testResolverSeesOwnBlock},
	{"RefusalConcernsOneBatch", testResolverRefusal},
	{"DiscardsWhatGrewTooLarge", testResolverDiscard},
	{"ConditionsNeedAResolver", testConditionsNeedResolver},
	{"ConditionsArePassed", testConditionsArePassed},
}

// recorder is a Resolver that notes its calls and does what resolve says.
type recorder struct {
	mu      sync.Mutex // guards calls
	calls   []string
	resolve func(first replication.Dot, ops []replication.Op, conds []replication.Condition) error
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

func (r *recorder) Resolve(_ replication.SpaceID, first replication.Dot, ops []replication.Op, conds []replication.Condition) error {
	r.note("resolve %d+%d", first.Seq, len(ops))
	if r.resolve == nil {
		return nil
	}
	return r.resolve(first, ops, conds)
}

func (r *recorder) Settle(_ replication.SpaceID, _ replication.LogID, through uint64) {
	r.note("settle %d", through)
}

func (r *recorder) Discard(_ replication.SpaceID, _ replication.LogID, from uint64) {
	r.note("discard %d", from)
}

func (e *env) appendWith(r replication.Resolver, ops ...replication.Op) (replication.Appended, error) {
	return e.store.Append(context.Background(), replication.Batch{Space: e.space, Ops: ops, Resolver: r})
}

func testResolverCalls(e *env) {
	other := replication.Dot{Log: replication.LogID{9}, Seq: 4}
	r := &recorder{}
	var log replication.LogID
	r.resolve = func(first replication.Dot, ops []replication.Op, _ []replication.Condition) error {
		log = first.Log
		for i := range ops {
			if ops[i].HLC == 0 {
				e.Error("an operation without its time is resolved")
			}
		}
		ops[0].Supersedes = []replication.Dot{other}
		ops[0].Order = uint64(ops[0].HLC) + 5
		return nil
	}
	at, err := e.appendWith(r, Put("a", "1"), Put("b", "2"))
	if err != nil {
		e.Fatal(err)
	}
	if got := r.take(); !slices.Equal(got, []string{"resolve 1+2", "settle 2"}) {
		e.Errorf("when the append returned, the calls were %q", got)
	}
	if log != at.First.Log {
		e.Errorf("resolved in log %s, written in %s", log.Short(), at.First.Log.Short())
	}
	op := e.opAt(at.First)
	if !slices.Equal(op.Supersedes, []replication.Dot{other}) || op.Order != uint64(op.HLC)+5 {
		e.Errorf("what was resolved is not what is written: %+v", op)
	}
}

// testResolverSeesOwnBlock: batches that share a block are resolved in the order
// of their seqs, before the block is durable.
func testResolverSeesOwnBlock(e *env) {
	const n = 8
	g := newGate(e)
	next := uint64(1)
	r := &recorder{}
	r.resolve = func(first replication.Dot, ops []replication.Op, _ []replication.Condition) error {
		g.hold()
		if first.Seq != next { // one goroutine calls: no lock needed
			e.Errorf("resolved at %d, want %d", first.Seq, next)
		}
		next = first.Seq + uint64(len(ops))
		if first.Seq > 1 { // what the batch before wrote
			ops[0].Supersedes = []replication.Dot{{Log: first.Log, Seq: first.Seq - 1}}
		}
		return nil
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := e.appendWith(r, Put("k", "v")); err != nil {
				e.Errorf("append: %v", err)
			}
		})
		if i == 0 {
			await(e, g.entered)
		}
	}
	g.release()
	wg.Wait()
	calls := r.take()
	settled := 0
	for _, c := range calls {
		var seq, count int
		if n, _ := fmt.Sscanf(c, "settle %d", &seq); n == 1 {
			if seq <= settled {
				e.Errorf("settled %d after %d", seq, settled)
			}
			settled = seq
		} else if n, _ := fmt.Sscanf(c, "resolve %d+%d", &seq, &count); n != 2 || seq <= settled {
			e.Errorf("%q after settle %d", c, settled)
		}
	}
	if settled != n {
		e.Errorf("settled through %d: %q", settled, calls)
	}
	id := e.store.Logs(e.space)[0].Log
	for seq := uint64(2); seq <= n; seq++ {
		if got := e.opAt(replication.Dot{Log: id, Seq: seq}).Supersedes; !slices.Equal(got, []replication.Dot{{Log: id, Seq: seq - 1}}) {
			e.Errorf("operation %d supersedes %v", seq, got)
		}
	}
}

func testResolverRefusal(e *env) {
	r := &recorder{}
	r.resolve = func(_ replication.Dot, ops []replication.Op, _ []replication.Condition) error {
		if string(ops[0].Key) == "bad" {
			return fmt.Errorf("key bad: %w", replication.ErrConflict)
		}
		return nil
	}
	if _, err := e.appendWith(r, Put("a", "1")); err != nil {
		e.Fatal(err)
	}
	if _, err := e.appendWith(r, Put("bad", "1"), Put("c", "1")); !errors.Is(err, replication.ErrConflict) {
		e.Errorf("refused append: %v", err)
	}
	at, err := e.appendWith(r, Put("b", "1"))
	if err != nil || at.First.Seq != 2 {
		e.Errorf("after a refused batch: %+v %v", at, err)
	}
	if info := e.log(at.First.Log); info.Tip.Seq != 2 {
		e.Errorf("%+v", info)
	}
}

// testResolverDiscard: a batch that no longer fits once its superseded writes are
// filled in.
func testResolverDiscard(e *env) {
	r := &recorder{}
	r.resolve = func(_ replication.Dot, ops []replication.Op, _ []replication.Condition) error {
		if len(ops[0].Payload) > 1000 {
			for i := range replication.MaxSupersedes {
				ops[0].Supersedes = append(ops[0].Supersedes, replication.Dot{Log: replication.LogID{1, byte(i >> 8), byte(i)}, Seq: 1})
			}
		}
		return nil
	}
	if _, err := e.appendWith(r, Put("a", "1")); err != nil {
		e.Fatal(err)
	}
	r.take()
	_, err := e.appendWith(r, Put("b", strings.Repeat("x", replication.MaxRawBody-1000)))
	if !errors.Is(err, replication.ErrTooLarge) {
		e.Errorf("a batch that grew too large: %v", err)
	}
	if got := r.take(); !slices.Equal(got, []string{"resolve 2+1", "discard 2"}) {
		e.Errorf("the calls were %q", got)
	}
	at, err := e.appendWith(r, Put("c", "1"))
	if err != nil || at.First.Seq != 2 {
		e.Errorf("after a refused batch: %+v %v", at, err)
	}
	if got := r.take(); !slices.Equal(got, []string{"resolve 2+1", "settle 2"}) {
		e.Errorf("the calls were %q", got)
	}
}

func testConditionsNeedResolver(e *env) {
	_, err := e.store.Append(context.Background(), replication.Batch{
		Space: e.space, Ops: []replication.Op{Put("a", "1")}, If: []replication.Condition{{Key: []byte("a")}},
	})
	if !errors.Is(err, replication.ErrInvalid) {
		e.Errorf("a condition that nobody checks: %v", err)
	}
	if e.store.Head() != 0 {
		e.Error("it was written nevertheless")
	}
}

func testConditionsArePassed(e *env) {
	want := []replication.Condition{{Key: []byte("a"), Dots: []replication.Dot{{Log: replication.LogID{1}, Seq: 2}}}, {Key: []byte("b")}}
	r := &recorder{}
	r.resolve = func(_ replication.Dot, _ []replication.Op, conds []replication.Condition) error {
		if len(conds) != 2 || string(conds[0].Key) != "a" || !slices.Equal(conds[0].Dots, want[0].Dots) || string(conds[1].Key) != "b" {
			return fmt.Errorf("got conditions %v", conds)
		}
		return nil
	}
	_, err := e.store.Append(context.Background(), replication.Batch{Space: e.space, Ops: []replication.Op{Put("a", "1")}, If: want, Resolver: r})
	if err != nil {
		e.Error(err)
	}
}
