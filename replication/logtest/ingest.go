package logtest

import (
	"crypto/ed25519"
	"errors"
	"strings"

	"vixp2p/replication"
	"vixp2p/replication/compress"
)

var ingestTests = []test{
	{"Committed", testIngestCommitted},
	{"Duplicate", testIngestDuplicate},
	{"Gap", testIngestGap},
	{"UnknownLogNeedsGenesis", testIngestUnknownLog},
	{"Overlap", testIngestOverlap},
	{"Unverified", testIngestUnverified},
	{"LargestRun", testIngestLargestRun},
	{"VoidBody", testIngestVoidBody},
	{"HeaderOnlyTail", testIngestTail},
	{"TailIsFilled", testIngestTailFilled},
	{"TailIsFilledByParts", testIngestTailFilledByParts},
	{"KeepsItsOwnBytes", testIngestCopies},
	{"ManySources", testIngestManySources},
}

func testIngestCommitted(e *env) {
	w := e.writer(1).AddMany(3)
	e.want(e.ingest(w.Run(e, 0, 3)), replication.Committed, w.Tip())
	e.reopen()
	info := e.log(w.Log)
	want := replication.LogInfo{
		Log: w.Log, Space: e.space, Origin: w.Origin, Epoch: w.Epoch, Base: 1, Tip: w.Tip(), LastHLC: w.Block(2).Header.LastHLC, Blocks: 3,
		Bytes: uint64(len(w.Raw(0, 3)) - 2*ed25519.SignatureSize), // the two that were not verified are gone
	}
	if info != want {
		e.Errorf("got %+v, want %+v", info, want)
	}
	w.AddMany(2)
	e.want(e.ingest(w.Run(e, 3, 5)), replication.Committed, w.Tip())
	for i, a := range e.arrivals(e.space, 0, 1) {
		if a.Origin != w.Origin || a.Block.Hash != w.Block(i).Hash {
			e.Errorf("arrival %d is not block %d", a.Number, i)
		}
	}
}

func testIngestDuplicate(e *env) {
	w := e.writer(1).AddMany(4)
	e.want(e.ingest(w.Run(e, 0, 4)), replication.Committed, w.Tip())
	head := e.store.Head()
	for _, part := range [][2]int{{0, 4}, {0, 1}, {2, 3}, {3, 4}} {
		e.want(e.ingest(w.Run(e, part[0], part[1])), replication.Duplicate, w.Tip())
	}
	e.reopen()
	e.want(e.ingest(w.Run(e, 0, 4)), replication.Duplicate, w.Tip())
	if e.store.Head() != head {
		e.Errorf("duplicates arrived: head %d, want %d", e.store.Head(), head)
	}
}

func testIngestGap(e *env) {
	w := e.writer(1).AddMany(5)
	e.want(e.ingest(w.Run(e, 0, 2)), replication.Committed, w.Pos(2))
	e.want(e.ingest(w.Run(e, 3, 5)), replication.Gap, w.Pos(2))
	e.reopen()
	e.want(e.ingest(w.Run(e, 4, 5)), replication.Gap, w.Pos(2))
	e.want(e.ingest(w.Run(e, 2, 5)), replication.Committed, w.Pos(5))
}

func testIngestUnknownLog(e *env) {
	w := e.writer(1).AddMany(2)
	e.want(e.ingest(w.Run(e, 1, 2)), replication.Gap, replication.Position{})
	if _, ok := e.store.Log(w.Log); ok || len(e.store.Spaces()) != 0 {
		e.Error("a refused run left a log")
	}
}

// testIngestOverlap: a run may begin before our tip; what is new of it counts.
func testIngestOverlap(e *env) {
	w := e.writer(1).AddMany(2)
	w.AddUnsigned()
	w.AddMany(3)
	e.want(e.ingest(w.Run(e, 0, 4)), replication.Committed, w.Pos(4))
	e.want(e.ingest(w.Run(e, 1, 5)), replication.Committed, w.Pos(5))
	e.want(e.ingest(w.Run(e, 0, 6)), replication.Committed, w.Pos(6))
	e.everyBoundary(w, 6)
	if got := e.arrivals(e.space, 0, 1<<20); len(got) != 6 {
		e.Errorf("%d arrivals, want 6", len(got))
	}
}

func testIngestUnverified(e *env) {
	w := e.writer(1).AddMany(1)
	good := w.Run(e, 0, 1)
	forged := &replication.VerifiedRun{Space: good.Space, Log: good.Log, Origin: good.Origin, Blocks: good.Blocks}
	for _, run := range []*replication.VerifiedRun{forged, {}, nil} {
		if r := e.ingest(run); r.Code != replication.Refused || !errors.Is(r.Err, replication.ErrInvalid) {
			e.Errorf("an unverified run: %s %v", r.Code, r.Err)
		}
	}
	if e.store.Head() != 0 {
		e.Error("an unverified run was stored")
	}
}

func testIngestLargestRun(e *env) {
	w := e.writer(1)
	for range replication.MaxRunBlocks - 1 {
		w.AddUnsigned(App("a", []byte(strings.Repeat("x", 6500))))
	}
	w.Add()
	if n := len(w.Raw(0, w.Len())); n > replication.MaxRunBytes || n < replication.MaxRunBytes*9/10 {
		e.Fatalf("the run has %d bytes, which is not near the limit", n)
	}
	e.want(e.ingest(w.Run(e, 0, w.Len())), replication.Committed, w.Tip())
	r, _ := e.readRun(w.Log, replication.Position{}, 0)
	if r.End != w.Tip() || r.Ops != replication.MaxRunBlocks {
		e.Errorf("the run came back up to %v with %d operations", r.End, r.Ops)
	}
}

// testIngestVoidBody: a body that does not decode is stored, acked and forwarded
// like any other (design 4.2).
func testIngestVoidBody(e *env) {
	w := e.writer(1)
	w.Add()
	w.AddSpec(Spec{Void: true})
	w.AddSpec(Spec{Ops: []replication.Op{Put("k", strings.Repeat("text ", 1000))}, Zstd: true})
	e.want(e.ingest(w.Run(e, 0, 3)), replication.Committed, w.Tip())
	as := e.arrivals(e.space, 0, 1)
	if len(as) != 3 {
		e.Fatalf("%d arrivals, want 3", len(as))
	}
	var void *replication.VoidError
	if _, err := compress.Ops(as[1].Block); !errors.As(err, &void) {
		e.Errorf("the void body reads as %v", err)
	}
	if ops := e.ops(as[2].Block); len(ops) != 1 || len(ops[0].Payload) != 5000 {
		e.Error("the packed body does not read")
	}
	e.readRun(w.Log, replication.Position{}, 0)
}

// testIngestTail: headers without bodies follow the last body up to a signature
// (design 4.4); they are stored and served with the run.
func testIngestTail(e *env) {
	w := e.writer(1)
	w.AddMany(2)
	for range 4 {
		w.AddUnsigned()
	}
	w.Add()
	e.want(e.ingest(w.Run(e, 0, 2)), replication.Committed, w.Pos(2))
	e.want(e.ingest(w.RunTail(e, 2, 4, 7)), replication.Committed, w.Pos(4))
	check := func() {
		e.Helper()
		e.everyBoundary(w, 4)
		r, run := e.readRun(w.Log, w.Pos(3), 1)
		if r.End != w.Pos(4) || len(run.Blocks) != 1 || len(run.Tail) != 3 {
			e.Errorf("a run up to %v with %d bodies and a tail of %d", r.End, len(run.Blocks), len(run.Tail))
		}
		if r, err := e.store.ReadRun(w.Log, w.Pos(4), 0); err != nil || r.Data != nil {
			e.Errorf("beyond the last body there is %+v, %v", r, err)
		}
		if got := e.arrivals(e.space, 0, 1<<20); len(got) != 4 {
			e.Errorf("%d arrivals, want 4", len(got))
		}
	}
	check()
	e.reopen()
	check()
	e.want(e.ingest(w.RunTail(e, 2, 4, 7)), replication.Duplicate, w.Pos(4))
	e.want(e.ingest(w.RunTail(e, 2, 3, 7)), replication.Duplicate, w.Pos(4))
	e.want(e.ingest(w.RunTail(e, 3, 6, 7)), replication.Committed, w.Pos(6))
	e.everyBoundary(w, 6)
}

// testIngestTailFilled: the bodies of a tail come later, with more behind.
func testIngestTailFilled(e *env) {
	w := e.writer(1)
	w.Add()
	for range 3 {
		w.AddUnsigned()
	}
	w.AddMany(2)
	e.want(e.ingest(w.RunTail(e, 0, 2, 5)), replication.Committed, w.Pos(2))
	e.want(e.ingest(w.Run(e, 2, 6)), replication.Committed, w.Pos(6))
	e.everyBoundary(w, 6)
	e.reopen()
	e.everyBoundary(w, 6)
}

// testIngestTailFilledByParts: whatever becomes durable can be passed on from
// every boundary, also where the bodies of a tail are too large for one run.
func testIngestTailFilledByParts(e *env) {
	big := App("a", []byte(strings.Repeat("x", 900<<10)))
	w := e.writer(1)
	w.Add()
	w.AddUnsigned(big)
	w.AddUnsigned(big)
	w.AddUnsigned(big)
	w.Add(big)
	e.want(e.ingest(w.RunTail(e, 0, 2, 5)), replication.Committed, w.Pos(2))
	// A run of blocks 2 and 3 does not exist, as no run reaches from 2 to a
	// signature with its bodies; with a tail it does.
	r := e.ingest(w.RunTail(e, 2, 3, 5))
	switch r.Code {
	case replication.Refused:
		e.want(r, replication.Refused, w.Pos(2))
		e.everyBoundary(w, 2)
	default:
		e.want(r, replication.Committed, w.Pos(3))
		e.everyBoundary(w, 3)
	}
}

// testIngestCopies: the caller's bytes are his again once the answer is there.
func testIngestCopies(e *env) {
	w := e.writer(1).AddMany(3)
	raw := w.Raw(0, 3)
	run, err := replication.VerifyRun(w.Source(0), raw)
	if err != nil {
		e.Fatal(err)
	}
	e.want(e.ingest(run), replication.Committed, w.Tip())
	clear(raw)
	e.everyBoundary(w, 3)
	a := e.arrivals(e.space, 0, 1<<20)
	clear(a[0].Block.HeaderRaw)
	clear(a[0].Block.Body)
	e.everyBoundary(w, 3)
}

// testIngestManySources: answers of all sources come, each once.
func testIngestManySources(e *env) {
	const sources, runs = 5, 10
	type answer struct {
		source, run int
		r           replication.IngestResult
	}
	ch := make(chan answer, 2*sources*runs)
	writers := make([]*Writer, sources)
	for i := range writers {
		writers[i] = e.writer(uint64(i)).AddMany(runs)
	}
	for k := range runs {
		for i, w := range writers {
			e.store.Ingest(uint64(i), w.Run(e, k, k+1), func(r replication.IngestResult) { ch <- answer{i, k, r} })
		}
	}
	next := make([]int, sources)
	for range sources * runs {
		a := await(e, ch)
		if a.run != next[a.source] {
			e.Errorf("source %d: run %d is answered where %d is due", a.source, a.run, next[a.source])
		}
		next[a.source]++
		e.want(a.r, replication.Committed, writers[a.source].Pos(a.run+1))
	}
	e.reopen()
	if len(ch) != 0 {
		e.Error("an answer came twice")
	}
}

// everyBoundary reads from each of the first n boundaries of what w wrote to the
// end: a run exists from every one, verifies, and leads to the next.
func (e *env) everyBoundary(w *Writer, n int) {
	e.Helper()
	for i := range n {
		for _, maxBytes := range []int{0, 1, 500} {
			for at := w.Pos(i); at != w.Pos(n); {
				r, _ := e.readRun(w.Log, at, maxBytes)
				if r.From != at || r.End.Seq <= at.Seq {
					e.Fatalf("a run from %v to %v, read from %v", r.From, r.End, at)
				}
				at = r.End
			}
		}
	}
}
