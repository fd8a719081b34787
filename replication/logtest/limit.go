package logtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"vixp2p/replication"
)

var limitTests = []test{
	{"CutAtBlockEnd", testCutAtBlockEnd},
	{"CutInsideABlock", testCutInsideABlock},
	{"CutWithAnotherHash", testCutWithAnotherHash},
	{"CutInsideARun", testCutInsideARun},
	{"CutAtZero", testCutAtZero},
	{"NotAllowed", testNotAllowed},
	{"Lifted", testCutLifted},
	{"LoweredAndRaised", testCutLoweredAndRaised},
	{"TailSurvives", testCutTailSurvives},
	{"EitherOrder", testCutEitherOrder},
	{"IngestBeyond", testIngestBeyondCut},
	{"IngestAcross", testIngestAcrossCut},
	{"ForkBeforeTheCut", testForkBeforeCut},
	{"OwnLog", testCutOfOwnLog},
	{"OwnLogAfterReopening", testCutOfOwnLogReopened},
	{"AppendOfAReader", testAppendOfReader},
	{"GrantRefuses", testGrantRefuses},
	{"SetAsideFor", testSetAsideFor},
	{"Reopened", testCutReopened},
	{"ManyLogs", testCutManyLogs},
	{"LongLog", testCutLongLog},
}

// limits are the limits of some logs; all others count entire.
type limits map[replication.LogID]replication.LogLimit

func (l limits) of(g *replication.Genesis) replication.LogLimit {
	if limit, ok := l[g.LogID()]; ok {
		return limit
	}
	return replication.Unlimited
}

func cutAt(p replication.Position) replication.LogLimit {
	return replication.LogLimit{Allowed: true, Cut: &p, Err: replication.ErrRevoked}
}

var notAllowed = replication.LogLimit{Err: replication.ErrNotAllowed}

func (e *env) restrict(l limits) {
	e.Helper()
	if err := e.store.Restrict(context.Background(), l.of); err != nil {
		e.Fatalf("restrict: %v", err)
	}
}

// feed stores all of a writer's blocks as one run.
func (e *env) feed(w *Writer) {
	e.Helper()
	e.want(e.ingest(w.Run(e, 0, w.Len())), replication.Committed, w.Tip())
}

// listen hears of what happens from now on.
func (e *env) listen() *heard {
	h := &heard{}
	e.Cleanup(e.store.Subscribe(h.note))
	return h
}

// aside reads what was set aside of a log.
func (e *env) aside(id replication.LogID) (blocks []*replication.Block) {
	e.Helper()
	if err := e.store.ReadSetAside(id, 0, func(b *replication.Block) error {
		blocks = append(blocks, b)
		return nil
	}); err != nil {
		e.Fatalf("reading what was set aside: %v", err)
	}
	return blocks
}

// sound checks that the store finds nothing wrong with itself. With -short, once
// when the test ends: a store on disk reads all its files for it.
func (e *env) sound() {
	e.Helper()
	if !testing.Short() {
		e.verify()
	} else if !e.sounding {
		e.sounding = true
		e.Cleanup(e.verify)
	}
}

func (e *env) verify() {
	e.Helper()
	if err := e.store.Verify(context.Background(), func(f replication.Finding) { e.Errorf("verify: %+v", f) }); err != nil {
		e.Fatalf("verify: %v", err)
	}
}

// counts checks that exactly the first n blocks of a log count, as if the others
// had never come, and that set of them wait aside.
func (e *env) counts(w *Writer, n, set int, limit error) {
	e.Helper()
	info := e.log(w.Log)
	wantTip := w.Pos(n)
	if info.Tip != wantTip || info.Blocks != uint64(n) || !errors.Is(info.Limit, limit) {
		e.Fatalf("%d blocks up to %v (%v), want %d up to %v (%v)", info.Blocks, info.Tip, info.Limit, n, wantTip, limit)
	}
	if want := w.Pos(n+set).Seq - wantTip.Seq; info.SetAside != want {
		e.Errorf("%d operations are set aside, want %d", info.SetAside, want)
	}
	var hashes []replication.Hash
	for _, b := range e.aside(w.Log) {
		hashes = append(hashes, b.Hash)
	}
	for i := range set {
		if i >= len(hashes) || hashes[i] != w.Block(n+i).Hash {
			e.Fatalf("set aside are %d blocks, not blocks %d to %d", len(hashes), n, n+set)
		}
	}
	if len(hashes) != set {
		e.Errorf("%d blocks are set aside, want %d", len(hashes), set)
	}
	listed := slices.ContainsFunc(e.store.Logs(w.Space), func(i replication.LogInfo) bool { return i.Log == w.Log })
	if listed != (n > 0) {
		e.Errorf("the log is listed: %v, with %d blocks that count", listed, n)
	}
	arrived := 0
	for _, a := range e.arrivals(w.Space, 0, 1000) {
		if a.Block.Header.Log == w.Log {
			if arrived >= n || a.Block.Hash != w.Block(arrived).Hash {
				e.Fatalf("arrival %d is not block %d", a.Number, arrived)
			}
			arrived++
		}
	}
	if arrived != n {
		e.Errorf("%d blocks arrived, want %d", arrived, n)
	}
	for i := n; i < w.Len(); i++ {
		if r, ok := e.store.LastRun(w.Log, w.Pos(i)); ok {
			e.Errorf("the last run up to %d does not count", r.End.Seq)
		}
	}
	if n == 0 {
		_, err := e.store.ReadRun(w.Log, replication.Position{}, 0)
		e.wantErr("reading a log of which nothing counts", err, replication.ErrUnknownLog)
		return
	}
	e.everyBoundary(w, n)
	if r, err := e.store.ReadRun(w.Log, wantTip, 0); err != nil || len(r.Data) != 0 {
		e.Errorf("beyond the tip: %d bytes, %v", len(r.Data), err)
	}
	if r, err := e.store.RunCovering(w.Log, wantTip.Seq+1); err != nil || len(r.Data) != 0 {
		e.Errorf("a run covers what does not count: %d bytes, %v", len(r.Data), err)
	}
	if all, err := e.store.BytesAfter(w.Log, 0); err != nil || all != info.Bytes {
		e.Errorf("%d bytes, the log has %d (%v)", all, info.Bytes, err)
	}
	if rest, err := e.store.BytesAfter(w.Log, wantTip.Seq); err != nil || rest != 0 {
		e.Errorf("%d bytes after the tip (%v)", rest, err)
	}
}

func testCutAtBlockEnd(e *env) {
	w := e.writer(1).AddMany(5)
	for i := range 5 {
		e.want(e.ingest(w.Run(e, i, i+1)), replication.Committed, w.Pos(i+1))
	}
	before := e.log(w.Log)
	h := e.listen()
	cut := w.Pos(3)
	e.restrict(limits{w.Log: cutAt(cut)})
	e.counts(w, 3, 2, replication.ErrRevoked)
	after := e.log(w.Log)
	if after.Cut == nil || *after.Cut != cut || after.LastHLC != w.Block(2).Header.LastHLC {
		e.Errorf("%+v", after)
	}
	want := replication.Advance{
		Space: e.space, Log: w.Log, Origin: w.Origin, Prev: w.Pos(5), Tip: cut,
		Ops: 2, Bytes: before.Bytes - after.Bytes, Retreat: true,
	}
	if got := h.take(); len(got) != 1 || got[0] != want {
		e.Errorf("heard %+v, want %+v", got, want)
	}
	if e.store.Head() != 5 {
		e.Errorf("head %d, want 5", e.store.Head())
	}
	e.restrict(limits{w.Log: cutAt(cut)})
	if got := h.take(); len(got) != 0 {
		e.Errorf("the same limits again: %+v", got)
	}
	if at := e.append(Put("a", "1")); at.Arrival != 6 {
		e.Errorf("the next arrival is %d, want 6", at.Arrival)
	}
	e.sound()
}

func testCutInsideABlock(e *env) {
	w := e.writer(1)
	w.Add()
	w.Add(Put("a", "1"), Put("b", "1"), Put("c", "1"))
	w.Add()
	e.feed(w)
	e.restrict(limits{w.Log: cutAt(replication.Position{Seq: 3, Hash: w.Block(1).Hash})})
	e.counts(w, 1, 2, replication.ErrRevoked)
	e.sound()
}

func testCutWithAnotherHash(e *env) {
	w := e.writer(1).AddMany(4)
	e.feed(w)
	e.restrict(limits{w.Log: cutAt(replication.Position{Seq: 3, Hash: replication.Hash{1}})})
	e.counts(w, 2, 2, replication.ErrRevoked)
	e.sound()
}

// testCutInsideARun: what is left is served with the headers up to the next
// signature (design 4.4), and whoever receives that passes on the same.
func testCutInsideARun(e *env) {
	w := e.writer(1)
	w.Add()
	for range 4 {
		w.AddUnsigned()
	}
	w.AddMany(2)
	e.want(e.ingest(w.Run(e, 0, 1)), replication.Committed, w.Pos(1))
	e.want(e.ingest(w.Run(e, 1, 6)), replication.Committed, w.Pos(6))
	e.want(e.ingest(w.Run(e, 6, 7)), replication.Committed, w.Pos(7))
	l := limits{w.Log: cutAt(w.Pos(3))}
	e.restrict(l)
	check := func(e *env, set int, limit error) {
		e.Helper()
		e.counts(w, 3, set, limit)
		r, run := e.readRun(w.Log, w.Pos(1), 0)
		if r.End != w.Pos(3) || len(run.Blocks) != 2 || len(run.Tail) != 3 {
			e.Errorf("a run up to %v with %d bodies and a tail of %d", r.End, len(run.Blocks), len(run.Tail))
		}
		e.sound()
	}
	check(e, 4, replication.ErrRevoked)
	second, third := e.on(e.factory.New(e)), e.on(e.factory.New(e))
	e.copyTo(second, w.Log)
	check(second, 0, nil)
	third.restrict(l)
	second.copyTo(third, w.Log)
	check(third, 0, replication.ErrRevoked)
	e.reopen()
	check(e, 4, nil)
}

func testCutAtZero(e *env) {
	w, other := e.writer(1).AddMany(3), NewWriter(e.opts.Network, e.spaceNamed("other"), 2).AddMany(1)
	e.feed(w)
	e.feed(other)
	e.restrict(limits{w.Log: cutAt(replication.Position{})})
	e.counts(w, 0, 3, replication.ErrRevoked)
	if s := e.store.Spaces(); len(s) != 1 || s[0] != other.Space {
		e.Errorf("spaces %v", s)
	}
	r := e.ingest(w.Run(e, 0, 3))
	e.want(r, replication.Refused, replication.Position{})
	e.wantErr("a run of a log cut at 0", r.Err, replication.ErrRevoked)
	e.sound()
}

func testNotAllowed(e *env) {
	held, fresh := e.writer(1).AddMany(3), e.writer(2).AddMany(2)
	e.feed(held)
	e.restrict(limits{held.Log: notAllowed, fresh.Log: notAllowed})
	e.counts(held, 0, 3, replication.ErrNotAllowed)
	if info := e.log(held.Log); info.Cut != nil {
		e.Errorf("a log that is not allowed is cut: %+v", info)
	}
	for _, w := range []*Writer{held, fresh} {
		r := e.ingest(w.Run(e, 0, w.Len()))
		e.want(r, replication.Refused, replication.Position{})
		e.wantErr("a run that is not allowed", r.Err, replication.ErrNotAllowed)
	}
	if _, ok := e.store.Log(fresh.Log); ok {
		e.Error("a refused log is there")
	}
	e.wantErr("what was set aside of it", e.store.ReadSetAside(fresh.Log, 0, nil), replication.ErrUnknownLog)
	e.sound()
}

// testCutLifted: what was set aside comes back, as if it came anew.
func testCutLifted(e *env) {
	w := e.writer(1)
	w.Add()
	w.AddUnsigned()
	w.AddUnsigned()
	w.Add()
	e.feed(w)
	whole := e.log(w.Log)
	for _, n := range []int{2, 0} {
		e.restrict(limits{w.Log: cutAt(w.Pos(n))})
		e.counts(w, n, 4-n, replication.ErrRevoked)
		head := e.store.Head()
		h := e.listen()
		if err := e.store.Restrict(context.Background(), nil); err != nil {
			e.Fatal(err)
		}
		e.counts(w, 4, 0, nil)
		if info := e.log(w.Log); info != whole {
			e.Errorf("%+v, was %+v", info, whole)
		}
		if e.store.Head() != head+uint64(4-n) {
			e.Errorf("head %d after %d and %d blocks that came back", e.store.Head(), head, 4-n)
		}
		if again := e.arrivals(e.space, head, 1); len(again) != 4-n || again[0].Block.Hash != w.Block(n).Hash {
			e.Errorf("%d arrivals after the cut, want %d", len(again), 4-n)
		}
		ops, tip := uint64(0), w.Pos(n)
		for _, a := range h.take() {
			if a.Retreat || a.Prev != tip || a.Source != 0 || a.Arrival <= head {
				e.Errorf("heard %+v", a)
			}
			ops, tip = ops+a.Ops, a.Tip
		}
		if ops != uint64(4-n) || tip != w.Tip() {
			e.Errorf("heard of %d operations up to %v", ops, tip)
		}
		e.sound()
	}
	w.AddMany(1)
	e.want(e.ingest(w.Run(e, 4, 5)), replication.Committed, w.Tip())
	e.sound()
}

func testCutLoweredAndRaised(e *env) {
	w := e.writer(1)
	w.AddMany(2)
	w.AddUnsigned()
	w.AddUnsigned()
	w.AddMany(3)
	e.feed(w)
	for _, n := range []int{5, 3, 2, 0, 1, 3, 6, 4, 7} {
		e.restrict(limits{w.Log: cutAt(w.Pos(n))})
		e.counts(w, n, 7-n, replication.ErrRevoked)
		e.sound()
	}
	e.restrict(nil)
	e.counts(w, 7, 0, nil)
	w.AddMany(1)
	e.want(e.ingest(w.Run(e, 7, 8)), replication.Committed, w.Tip())
}

// testCutTailSurvives: a log that ended in headers ends in them again when a cut is
// lifted.
func testCutTailSurvives(e *env) {
	w := e.writer(1)
	w.Add()
	for range 4 {
		w.AddUnsigned()
	}
	w.Add()
	e.want(e.ingest(w.RunTail(e, 0, 4, 6)), replication.Committed, w.Pos(4))
	for _, n := range []int{2, 3, 1, 0} {
		e.restrict(limits{w.Log: cutAt(w.Pos(n))})
		e.counts(w, n, 4-n, replication.ErrRevoked)
		e.sound()
		e.reopen()
	}
	e.restrict(nil)
	e.counts(w, 4, 0, nil)
	e.sound()
	e.want(e.ingest(w.Run(e, 4, 6)), replication.Committed, w.Pos(6))
	e.sound()
}

// testCutEitherOrder: whether the blocks or the cut come first makes no difference
// to what peers see.
func testCutEitherOrder(e *env) {
	shape := func(seed uint64) *Writer {
		w := e.writer(seed)
		w.Add(Put("a", "1"), Put("b", "1"))
		w.AddUnsigned()
		w.AddUnsigned(Put("c", "1"), Put("d", "1"), Put("e", "1"))
		w.AddUnsigned()
		w.Add()
		return w
	}
	at := []replication.Position{{}}
	for seq := uint64(1); seq <= 8; seq++ {
		at = append(at, replication.Position{Seq: seq, Hash: replication.Hash{9}})
	}
	for i := range 5 {
		at = append(at, shape(uint64(len(at))).Pos(i+1))
	}
	blocksFirst, cutFirst := e, e.on(e.factory.New(e))
	l := limits{}
	var writers []*Writer
	for i, p := range at {
		w := shape(uint64(i))
		l[w.Log] = cutAt(p)
		writers = append(writers, w)
		blocksFirst.feed(w)
	}
	denied := shape(99)
	l[denied.Log] = notAllowed
	writers = append(writers, denied)
	blocksFirst.feed(denied)
	blocksFirst.restrict(l)
	cutFirst.restrict(l)
	for _, w := range writers {
		cutFirst.ingest(w.Run(e, 0, w.Len()))
	}
	a, b := blocksFirst.store.Logs(e.space), cutFirst.store.Logs(e.space)
	if len(a) != len(b) {
		e.Fatalf("%d logs and %d", len(a), len(b))
	}
	for i := range a {
		a[i].SetAside, a[i].SetAsideSince = 0, time.Time{}
		if *a[i].Cut != *b[i].Cut {
			e.Errorf("cuts %v and %v", a[i].Cut, b[i].Cut)
		}
		a[i].Cut, b[i].Cut = nil, nil
		if a[i] != b[i] {
			e.Errorf("%+v and %+v", a[i], b[i])
		}
		x, err := blocksFirst.store.ReadRun(a[i].Log, replication.Position{}, 0)
		y, err2 := cutFirst.store.ReadRun(a[i].Log, replication.Position{}, 0)
		if err != nil || err2 != nil || x.End != y.End || !bytes.Equal(x.Data, y.Data) {
			e.Errorf("runs of %d and %d bytes (%v, %v)", len(x.Data), len(y.Data), err, err2)
		}
	}
	blocksFirst.sound()
	cutFirst.sound()
}

func testIngestBeyondCut(e *env) {
	w := e.writer(1).AddMany(5)
	l := limits{w.Log: cutAt(w.Pos(3))}
	e.restrict(l)
	e.want(e.ingest(w.Run(e, 0, 2)), replication.Committed, w.Pos(2))
	if info := e.log(w.Log); !errors.Is(info.Limit, replication.ErrRevoked) || info.Cut == nil {
		e.Errorf("%+v", info)
	}
	e.want(e.ingest(w.Run(e, 2, 3)), replication.Committed, w.Pos(3))
	for _, from := range []int{3, 4} {
		r := e.ingest(w.Run(e, from, 5))
		e.want(r, replication.Refused, w.Pos(3))
		e.wantErr("beyond the cut", r.Err, replication.ErrRevoked)
	}
	e.want(e.ingest(w.Run(e, 0, 3)), replication.Duplicate, w.Pos(3))
	e.counts(w, 3, 0, replication.ErrRevoked)
	e.restrict(nil)
	e.want(e.ingest(w.Run(e, 3, 5)), replication.Committed, w.Pos(5))
	e.sound()
}

func testIngestAcrossCut(e *env) {
	w := e.writer(1)
	w.Add()
	for range 3 {
		w.AddUnsigned()
	}
	w.Add()
	e.restrict(limits{w.Log: cutAt(w.Pos(3))})
	e.want(e.ingest(w.Run(e, 0, 5)), replication.Committed, w.Pos(3))
	e.counts(w, 3, 0, replication.ErrRevoked)
	r := e.ingest(w.Run(e, 1, 5))
	e.want(r, replication.Refused, w.Pos(3))
	e.wantErr("nothing new before the cut", r.Err, replication.ErrRevoked)
	e.sound()
	e.restrict(nil)
	e.counts(w, 3, 0, nil)
	e.want(e.ingest(w.Run(e, 3, 5)), replication.Committed, w.Pos(5))
	e.everyBoundary(w, 5)
	e.sound()
}

func testForkBeforeCut(e *env) {
	w := e.writer(1).AddMany(5)
	f := w.Fork(1).AddMany(3)
	e.feed(w)
	e.restrict(limits{w.Log: cutAt(w.Pos(3))})
	r := e.ingest(f.Run(e, 1, 4))
	e.want(r, replication.Forked, w.Pos(3))
	if r.Proof == nil || r.Proof.Verify() != nil {
		e.Errorf("no proof that holds: %v", r.Err)
	}
	e.counts(w, 3, 2, replication.ErrRevoked)
	e.sound()
}

// testCutOfOwnLog: this node was revoked and admitted again: it goes on in a new log
// with the new certificate.
func testCutOfOwnLog(e *env) {
	grant := []byte("first")
	e.close()
	e.opts.Grant = func(replication.SpaceID) ([]byte, error) { return grant, nil }
	e.open()
	first := e.append(Put("a", "1"))
	second := e.append(Put("b", "1"))
	if g := e.blockAt(e.space, first.First).Header.Genesis; !bytes.Equal(g.Grant, grant) {
		e.Errorf("the grant is %q", g.Grant)
	}
	grant = []byte("second")
	e.restrict(limits{first.First.Log: cutAt(first.Pos)})
	if info := e.log(first.First.Log); info.Tip != first.Pos || info.SetAside != 1 {
		e.Errorf("%+v", info)
	}
	e.newEpoch(first.First.Log, first.Pos)
	logs := e.store.Logs(e.space)
	if len(logs) != 2 {
		e.Fatalf("%d logs", len(logs))
	}
	for _, l := range logs {
		if l.Log == first.First.Log {
			continue
		}
		if g := e.blockAt(e.space, replication.Dot{Log: l.Log, Seq: 1}).Header.Genesis; !bytes.Equal(g.Grant, grant) {
			e.Errorf("the new log's grant is %q", g.Grant)
		}
	}
	e.restrict(nil)
	if info := e.log(first.First.Log); info.Tip != second.Pos {
		e.Errorf("lifted: %+v", info)
	}
	if at := e.append(Put("c", "1")); at.First.Log == first.First.Log {
		e.Error("the log that was cut goes on")
	}
	e.sound()
}

// testCutOfOwnLogReopened: no seq is given twice, also before the limits are known
// again.
func testCutOfOwnLogReopened(e *env) {
	first := e.append(Put("a", "1"))
	last := e.append(Put("b", "1"))
	e.restrict(limits{first.First.Log: cutAt(first.Pos)})
	e.reopen()
	if at := e.append(Put("c", "1")); at.First.Log == first.First.Log || at.HLC <= last.HLC {
		e.Errorf("after reopening the append is at %v, %d after %d", at.First, at.HLC, last.HLC)
	}
	// A cut at the tip ends the log too.
	at := e.append(Put("d", "1"))
	e.restrict(limits{at.First.Log: cutAt(at.Pos)})
	if next := e.append(Put("e", "1")); next.First.Log == at.First.Log {
		e.Error("a log that was cut at its tip goes on")
	}
}

func testAppendOfReader(e *env) {
	own := e.append(Put("a", "1"))
	reader := func(g *replication.Genesis) replication.LogLimit {
		if g.Origin == e.self() {
			return notAllowed
		}
		return replication.Unlimited
	}
	if err := e.store.Restrict(context.Background(), reader); err != nil {
		e.Fatal(err)
	}
	for _, space := range []replication.SpaceID{e.space, e.spaceNamed("b"), e.space} {
		_, err := e.store.Append(context.Background(), replication.Batch{Space: space, Ops: []replication.Op{Put("a", "1")}})
		e.wantErr("an append of a reader", err, replication.ErrNotAllowed)
	}
	if len(e.store.Spaces()) != 0 || e.store.Head() != 1 {
		e.Errorf("spaces %v, head %d", e.store.Spaces(), e.store.Head())
	}
	info := e.log(own.First.Log)
	if info.SetAside != 1 || !errors.Is(info.Limit, replication.ErrNotAllowed) {
		e.Errorf("%+v", info)
	}
	if list := e.store.SetAside(); len(list) != 1 || list[0] != info {
		e.Errorf("set aside: %+v", list)
	}
	e.restrict(nil)
	if at := e.append(Put("b", "1")); at.First.Log == own.First.Log {
		e.Error("the log that was set aside goes on")
	}
	if len(e.store.Logs(e.space)) != 2 {
		e.Errorf("%d logs, want 2", len(e.store.Logs(e.space)))
	}
	e.sound()
}

func testGrantRefuses(e *env) {
	e.close()
	no := errors.New("no certificate yet")
	var grant []byte
	err := no
	e.opts.Grant = func(replication.SpaceID) ([]byte, error) { return grant, err }
	e.open()
	add := func() error {
		_, err := e.store.Append(context.Background(), replication.Batch{Space: e.space, Ops: []replication.Op{Put("a", "1")}})
		return err
	}
	e.wantErr("without a certificate", add(), no)
	grant, err = make([]byte, replication.MaxGrant+1), nil
	e.wantErr("with a grant that is too large", add(), replication.ErrTooLarge)
	if e.store.Head() != 0 || len(e.store.Spaces()) != 0 {
		e.Error("a refused append was stored")
	}
	grant = grant[:replication.MaxGrant]
	if err := add(); err != nil {
		e.Errorf("with a grant: %v", err)
	}
}

// testSetAsideFor: after 30 days what was set aside is removed; what counts stays,
// and can be served.
func testSetAsideFor(e *env) {
	w := e.writer(1)
	w.Add()
	for range 3 {
		w.AddUnsigned()
	}
	w.Add()
	other := e.writer(2).AddMany(2)
	e.feed(w)
	e.feed(other)
	l := limits{w.Log: cutAt(w.Pos(2)), other.Log: cutAt(replication.Position{})}
	e.restrict(l)
	since := e.log(w.Log).SetAsideSince
	if d := e.clock.Now().Sub(since); d < 0 || d >= time.Millisecond {
		e.Errorf("set aside %s ago", d)
	}
	var later []uint64
	if err := e.store.ReadSetAside(w.Log, 3, func(b *replication.Block) error {
		later = append(later, b.Header.FirstSeq)
		return nil
	}); err != nil || !slices.Equal(later, []uint64{4, 5}) {
		e.Errorf("set aside after 3: %d, %v", later, err)
	}
	e.clock.Advance(replication.SetAsideFor - 1)
	e.restrict(l)
	e.counts(w, 2, 3, replication.ErrRevoked)
	if info := e.log(w.Log); !info.SetAsideSince.Equal(since) {
		e.Errorf("set aside since %v, and since %v", since, info.SetAsideSince)
	}
	e.clock.Advance(1)
	e.restrict(l)
	e.counts(w, 2, 0, replication.ErrRevoked)
	e.counts(other, 0, 0, replication.ErrRevoked)
	e.sound()
	e.restrict(nil)
	e.counts(w, 2, 0, nil)
	e.want(e.ingest(w.Run(e, 2, 5)), replication.Committed, w.Tip())
	e.want(e.ingest(other.Run(e, 0, 2)), replication.Committed, other.Tip())
	e.restrict(l)
	e.clock.Advance(replication.SetAsideFor)
	e.reopen()
	e.counts(w, 2, 0, nil)
	e.sound()
}

func testCutReopened(e *env) {
	w := e.writer(1)
	w.Add()
	w.AddUnsigned()
	w.AddUnsigned()
	w.AddMany(2)
	e.feed(w)
	e.restrict(limits{w.Log: cutAt(w.Pos(2))})
	e.reopen()
	e.counts(w, 2, 3, nil)
	e.sound()
	e.restrict(limits{w.Log: cutAt(w.Pos(4))})
	e.counts(w, 4, 1, replication.ErrRevoked)
	e.reopen()
	// Without limits a run is stored; what waits aside of it is then there twice.
	e.want(e.ingest(w.Run(e, 4, 5)), replication.Committed, w.Tip())
	e.restrict(nil)
	e.counts(w, 5, 0, nil)
	e.sound()
}

func testCutManyLogs(e *env) {
	n := 300
	if testing.Short() {
		n = 40
	}
	l := limits{}
	var writers []*Writer
	for i := range n {
		w := e.writer(uint64(i)).AddMany(3)
		e.feed(w)
		writers = append(writers, w)
		if i%2 == 0 {
			l[w.Log] = cutAt(w.Pos(i % 3))
		}
	}
	h := e.listen()
	e.restrict(l)
	for _, a := range h.take() {
		if _, limited := l[a.Log]; !limited || !a.Retreat || a.Tip != *l[a.Log].Cut {
			e.Errorf("heard %+v", a)
		}
	}
	for i, w := range writers[:9] {
		if i%2 == 0 {
			e.counts(w, i%3, 3-i%3, replication.ErrRevoked)
		} else {
			e.counts(w, 3, 0, nil)
		}
	}
	e.sound()
	e.restrict(nil)
	if got := len(e.arrivals(e.space, 0, 1<<20)); got != 3*n {
		e.Errorf("%d arrivals, want %d", got, 3*n)
	}
	e.sound()
}

// testCutLongLog: one log of which more is set aside than one transaction holds.
func testCutLongLog(e *env) {
	blocks := 48
	if testing.Short() {
		blocks = 16
	}
	w := e.writer(1)
	w.Add()
	for i := range blocks {
		op := App("a", []byte(strings.Repeat(fmt.Sprint(i%10), 700<<10)))
		if i%2 == 0 {
			w.AddUnsigned(op)
		} else {
			w.Add(op)
		}
	}
	e.want(e.ingest(w.Run(e, 0, 1)), replication.Committed, w.Pos(1))
	for i := 1; i < w.Len(); i += 2 {
		e.want(e.ingest(w.Run(e, i, i+2)), replication.Committed, w.Pos(i+2))
	}
	h := e.listen()
	e.restrict(limits{w.Log: cutAt(w.Pos(2))})
	at, ops := w.Tip(), uint64(0)
	for _, a := range h.take() {
		if !a.Retreat || a.Prev != at {
			e.Errorf("heard %+v at %v", a, at)
		}
		at, ops = a.Tip, ops+a.Ops
	}
	if at != w.Pos(2) || ops != uint64(w.Len()-2) {
		e.Errorf("heard of %d operations down to %v", ops, at)
	}
	if info := e.log(w.Log); info.Tip != w.Pos(2) || info.SetAside != uint64(w.Len()-2) {
		e.Errorf("%+v", info)
	}
	e.sound()
	e.restrict(nil)
	if info := e.log(w.Log); info.Tip != w.Tip() || info.SetAside != 0 {
		e.Errorf("lifted: %+v", info)
	}
	e.sound()
}
