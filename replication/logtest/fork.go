package logtest

import (
	"errors"

	"vixp2p/replication"
)

var forkTests = []test{
	{"ProofOnce", testForkProofOnce},
	{"OurBranchGoesOn", testForkOurBranchGoesOn},
	{"Places", testForkPlaces},
	{"TailIsContradicted", testForkOfTail},
	{"ForeignProof", testForkForeignProof},
	{"OtherLogsAreNotTouched", testForkIsOneLog},
	{"OwnLog", testForkOfOwnLog},
	{"OwnLogByProof", testForkOfOwnLogByProof},
}

func testForkProofOnce(e *env) {
	w := e.writer(1).AddMany(3)
	f := w.Fork(1).AddMany(4)
	e.want(e.ingest(w.Run(e, 0, 3)), replication.Committed, w.Tip())
	r := e.ingest(f.Run(e, 1, 5))
	e.want(r, replication.Forked, w.Tip())
	if r.Proof == nil {
		e.Fatal("no proof")
	}
	if err := r.Proof.Verify(); err != nil || r.Proof.Log != w.Log || r.Proof.Origin != w.Origin {
		e.Errorf("the proof does not hold: %v", err)
	}
	if r := e.ingest(f.Run(e, 0, 5)); r.Code != replication.Forked || r.Proof != nil {
		e.Errorf("the second time: %s, proof %v", r.Code, r.Proof != nil)
	}
	e.reopen()
	if !e.log(w.Log).Forked {
		e.Error("the log is not marked as forked")
	}
	p, ok := e.store.ForkProofOf(w.Log)
	if !ok || p.Verify() != nil {
		e.Errorf("kept proof: %v %v", ok, p.Verify())
	}
	if first, err := e.store.RecordFork(p); first || err != nil {
		e.Errorf("recorded again: %v %v", first, err)
	}
	if r := e.ingest(f.Run(e, 1, 2)); r.Code != replication.Forked || r.Proof != nil {
		e.Errorf("after reopening: %s, proof %v", r.Code, r.Proof != nil)
	}
}

// testForkOurBranchGoesOn: the first branch is kept and only the other is refused
// (design 4.8).
func testForkOurBranchGoesOn(e *env) {
	w := e.writer(1).AddMany(5)
	f := w.Fork(1).AddMany(4)
	e.want(e.ingest(w.Run(e, 0, 3)), replication.Committed, w.Pos(3))
	e.want(e.ingest(f.Run(e, 1, 5)), replication.Forked, w.Pos(3))
	e.want(e.ingest(f.Run(e, 4, 5)), replication.Gap, w.Pos(3))
	e.want(e.ingest(w.Run(e, 0, 3)), replication.Duplicate, w.Pos(3))
	e.want(e.ingest(w.Run(e, 3, 5)), replication.Committed, w.Pos(5))
	e.everyBoundary(w, 5)
}

// testForkPlaces: wherever the branches part, and however the run lies to our
// blocks, the answer comes with a proof that holds.
func testForkPlaces(e *env) {
	wide := func(n int) (ops []replication.Op) {
		for range n {
			ops = append(ops, Put("wide", "v"))
		}
		return ops
	}
	for i, tc := range []struct {
		name     string
		common   int // blocks that both have
		fork     func(*Writer)
		from, to int // blocks of the fork that are sent
	}{
		{"from the start", 0, func(f *Writer) { f.AddMany(4) }, 0, 4},
		{"run starts at the parting", 2, func(f *Writer) { f.AddMany(2) }, 2, 4},
		{"run starts before", 2, func(f *Writer) { f.AddMany(2) }, 1, 4},
		{"run starts behind", 2, func(f *Writer) { f.AddMany(3) }, 3, 5},
		{"run starts at our tip", 2, func(f *Writer) { f.AddMany(4) }, 4, 6},
		{"shorter than ours", 2, func(f *Writer) { f.AddMany(1) }, 2, 3},
		{"block over ours", 1, func(f *Writer) { f.Add(wide(3)...) }, 1, 2},
		{"starts inside our wide block", 1, func(f *Writer) { f.AddMany(3) }, 2, 4},
		{"same content, other time", 3, func(f *Writer) { f.AddMany(1) }, 3, 4},
	} {
		w := e.writer(uint64(i)).AddMany(1)
		if tc.name == "starts inside our wide block" {
			w.Add(wide(3)...)
		}
		w.AddMany(4 - w.Len())
		f := w.Fork(tc.common)
		tc.fork(f)
		e.want(e.ingest(w.Run(e, 0, 4)), replication.Committed, w.Tip())
		r := e.ingest(f.Run(e, tc.from, tc.to))
		e.want(r, replication.Forked, w.Tip())
		if r.Proof == nil {
			e.Errorf("%s: no proof (%v)", tc.name, r.Err)
		} else if err := r.Proof.Verify(); err != nil {
			e.Errorf("%s: %v", tc.name, err)
		}
	}
}

// testForkOfTail: the headers of a tail are signed as well.
func testForkOfTail(e *env) {
	w := e.writer(1)
	w.Add()
	w.AddUnsigned()
	w.AddUnsigned()
	w.Add()
	f := w.Fork(3).AddMany(1)
	e.want(e.ingest(w.RunTail(e, 0, 2, 4)), replication.Committed, w.Pos(2))
	r := e.ingest(f.Run(e, 2, 4))
	e.want(r, replication.Forked, w.Pos(2))
	if r.Proof == nil || r.Proof.Verify() != nil {
		e.Errorf("no proof that holds: %v", r.Err)
	}
}

func testForkForeignProof(e *env) {
	w := e.writer(1).AddMany(2)
	f := w.Fork(1).AddMany(1)
	good := replication.ForkProof{Log: w.Log, Origin: w.Origin, A: w.Raw(1, 2), B: f.Raw(1, 2)}
	same := good
	same.B = good.A
	if _, err := e.store.RecordFork(good); err == nil {
		e.Error("a proof for a log that is not here was recorded")
	}
	e.want(e.ingest(w.Run(e, 0, 2)), replication.Committed, w.Tip())
	stranger := e.writer(2)
	for name, p := range map[string]replication.ForkProof{
		"no contradiction": same,
		"other origin":     {Log: w.Log, Origin: stranger.Origin, A: good.A, B: good.B},
		"garbage":          {Log: w.Log, Origin: w.Origin, A: good.A, B: []byte("garbage")},
		"empty":            {Log: w.Log, Origin: w.Origin},
	} {
		if first, err := e.store.RecordFork(p); err == nil || first {
			e.Errorf("%s: recorded %v %v", name, first, err)
		}
	}
	if e.log(w.Log).Forked {
		e.Fatal("marked as forked without a proof")
	}
	if first, err := e.store.RecordFork(good); !first || err != nil {
		e.Fatalf("recorded %v %v", first, err)
	}
	if first, err := e.store.RecordFork(good); first || err != nil {
		e.Errorf("recorded again: %v %v", first, err)
	}
	if p, ok := e.store.ForkProofOf(w.Log); !ok || p.Verify() != nil || !e.log(w.Log).Forked {
		e.Error("the proof was not kept")
	}
	if r := e.ingest(f.Run(e, 1, 2)); r.Code != replication.Forked || r.Proof != nil {
		e.Errorf("%s, proof %v", r.Code, r.Proof != nil)
	}
}

func testForkIsOneLog(e *env) {
	w, other := e.writer(1).AddMany(2), e.writer(2).AddMany(2)
	f := w.Fork(1).AddMany(1)
	e.want(e.ingest(w.Run(e, 0, 2)), replication.Committed, w.Tip())
	e.want(e.ingest(f.Run(e, 1, 2)), replication.Forked, w.Tip())
	e.want(e.ingest(other.Run(e, 0, 2)), replication.Committed, other.Tip())
	e.append(Put("a", "1"))
	if e.log(other.Log).Forked {
		e.Error("another log is marked as forked")
	}
}

// testForkOfOwnLog: a copied machine wrote too. Our branch stays, and our next
// append starts a new epoch.
func testForkOfOwnLog(e *env) {
	at := e.append(Put("a", "1"))
	r, run := e.readRun(at.First.Log, replication.Position{}, 0)
	twin := Continue(e, e.opts.Key, run.Genesis(), r.Data).AddMany(1)
	mine := e.append(Put("b", "2"))
	res := e.ingest(twin.Run(e, 1, 2))
	e.want(res, replication.Forked, mine.Pos)
	if res.Proof == nil {
		e.Fatal("no proof")
	}
	e.newEpoch(at.First.Log, mine.Pos)
}

func testForkOfOwnLogByProof(e *env) {
	at := e.append(Put("a", "1"))
	r, run := e.readRun(at.First.Log, replication.Position{}, 0)
	twin := Continue(e, e.opts.Key, run.Genesis(), r.Data).AddMany(1)
	twin2 := twin.Fork(1).AddMany(1)
	first, err := e.store.RecordFork(replication.ForkProof{
		Log: twin.Log, Origin: twin.Origin, A: twin.Raw(1, 2), B: twin2.Raw(1, 2),
	})
	if !first || err != nil {
		e.Fatalf("recorded %v %v", first, err)
	}
	e.newEpoch(at.First.Log, at.Pos)
}

// newEpoch appends and checks that this starts a new epoch, which names the log
// before, and which goes on over a restart.
func (e *env) newEpoch(old replication.LogID, tip replication.Position) {
	e.Helper()
	at := e.append(Put("n", "1"))
	if at.First.Log == old || at.First.Seq != 1 {
		e.Fatalf("the next append is at %v", at.First)
	}
	g := e.blockAt(e.space, at.First).Header.Genesis
	if g == nil || g.PrevLog != old || g.PrevPos != tip {
		e.Errorf("genesis %+v, want the log before at %v", g, tip)
	}
	e.reopen()
	if next := e.append(Put("n", "2")); next.First != (replication.Dot{Log: at.First.Log, Seq: 2}) {
		e.Errorf("after reopening, the append is at %v", next.First)
	}
	if info := e.log(old); info.Tip != tip {
		e.Errorf("the old log is at %v, want %v", info.Tip, tip)
	}
}

// wantErr checks an error by its sentinel.
func (e *env) wantErr(what string, err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s: %v, want %v", what, err, want)
	}
}
