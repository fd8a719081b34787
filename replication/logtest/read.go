package logtest

import (
	"bytes"
	"errors"
	"slices"
	"sort"

	"vixp2p/replication"
)

var readTests = []test{
	{"RunsEndAtSignatures", testRunsEndAtSignatures},
	{"RunsKeepToMaxBytes", testRunsKeepToMaxBytes},
	{"NothingBeyondTheTip", testReadBeyondTip},
	{"LastRun", testLastRun},
	{"UnknownLog", testReadUnknownLog},
	{"NotOnOurBranch", testReadNotOnBranch},
	{"RunCovering", testRunCovering},
	{"BytesAfter", testBytesAfter},
	{"SignaturesSurviveForwarding", testForwarding},
	{"LogsAndSpaces", testLogsAndSpaces},
}

// unsignedMiddles writes n blocks of which every step-th is signed.
func unsignedMiddles(w *Writer, n, step int) *Writer {
	for i := 1; i <= n; i++ {
		w.AddSpec(Spec{Unsigned: i%step != 0})
	}
	return w
}

func testRunsEndAtSignatures(e *env) {
	w := unsignedMiddles(e.writer(1), 20, 5)
	for i := 0; i < 20; i += 5 {
		e.want(e.ingest(w.Run(e, i, i+5)), replication.Committed, w.Pos(i+5))
	}
	for i := range 20 {
		r, _ := e.readRun(w.Log, w.Pos(i), 1)
		if want := w.Pos(i/5*5 + 5); r.End != want {
			e.Errorf("the shortest run from block %d ends at %d, want %d", i, r.End.Seq, want.Seq)
		}
		r, _ = e.readRun(w.Log, w.Pos(i), 0)
		if r.End != w.Tip() {
			e.Errorf("the longest run from block %d ends at %d", i, r.End.Seq)
		}
	}
	e.everyBoundary(w, 20)
}

func testRunsKeepToMaxBytes(e *env) {
	w := e.writer(1).AddMany(30)
	for i := range 30 {
		e.want(e.ingest(w.Run(e, i, i+1)), replication.Committed, w.Pos(i+1))
	}
	two := len(w.Raw(1, 3))
	for _, tc := range []struct{ maxBytes, blocks int }{{1, 1}, {two - 1, 1}, {two, 2}, {two + 1, 2}, {0, 29}, {1 << 30, 29}} {
		_, run := e.readRun(w.Log, w.Pos(1), tc.maxBytes)
		if len(run.Blocks) != tc.blocks {
			e.Errorf("at most %d bytes: %d blocks, want %d", tc.maxBytes, len(run.Blocks), tc.blocks)
		}
	}
	r, _ := e.readRun(w.Log, w.Pos(1), 0)
	if !bytes.Equal(r.Data, w.Raw(1, 30)) {
		e.Error("a run is not the bytes that were written, although every signature was verified")
	}
}

func testReadBeyondTip(e *env) {
	w := e.writer(1).AddMany(4)
	e.want(e.ingest(w.Run(e, 0, 2)), replication.Committed, w.Pos(2))
	for _, after := range []replication.Position{w.Pos(2), w.Pos(3), w.Pos(4)} {
		r, err := e.store.ReadRun(w.Log, after, 0)
		if err != nil || r.Data != nil || r.From != after || r.End != after || r.Ops != 0 {
			e.Errorf("after %d: %+v %v", after.Seq, r, err)
		}
	}
}

// testLastRun: what was just committed is in memory, the newest block alone. That it is
// what would be read is checked wherever a run is read.
func testLastRun(e *env) {
	w := e.writer(1).AddMany(3)
	own := e.append(Put("a", "1"))
	for i := range 3 {
		e.want(e.ingest(w.Run(e, i, i+1)), replication.Committed, w.Pos(i+1))
		if r, ok := e.store.LastRun(w.Log, w.Pos(i)); !ok || r.End != w.Pos(i+1) || !bytes.Equal(r.Data, w.Raw(i, i+1)) {
			e.Errorf("block %d was just committed, and is not the last run: %v %v", i, r.End, ok)
		}
	}
	if r, ok := e.store.LastRun(own.First.Log, replication.Position{}); !ok || r.End != own.Pos {
		e.Errorf("of another log: %v %v", r.End, ok)
	}
	e.append(Put("a", "2"))
	for _, x := range []struct {
		log   replication.LogID
		after replication.Position
	}{{w.Log, w.Pos(0)}, {w.Log, w.Pos(1)}, {w.Log, w.Pos(3)}, {w.Log, replication.Position{Seq: 2}}, {own.First.Log, replication.Position{}}, {e.writer(2).Log, w.Pos(0)}} {
		if r, ok := e.store.LastRun(x.log, x.after); ok {
			e.Errorf("after %d of %s: a last run up to %d that is not the newest block alone", x.after.Seq, x.log.Short(), r.End.Seq)
		}
	}
}

func testReadUnknownLog(e *env) {
	id := e.writer(1).Log
	if _, err := e.store.ReadRun(id, replication.Position{}, 0); !errors.Is(err, replication.ErrUnknownLog) {
		e.Errorf("ReadRun: %v", err)
	}
	if _, err := e.store.RunCovering(id, 1); !errors.Is(err, replication.ErrUnknownLog) {
		e.Errorf("RunCovering: %v", err)
	}
	if _, err := e.store.BytesAfter(id, 0); !errors.Is(err, replication.ErrUnknownLog) {
		e.Errorf("BytesAfter: %v", err)
	}
	if _, ok := e.store.Log(id); ok {
		e.Error("Log knows it")
	}
	if _, ok := e.store.ForkProofOf(id); ok {
		e.Error("ForkProofOf knows it")
	}
}

func testReadNotOnBranch(e *env) {
	w := e.writer(1)
	w.Add(Put("a", "1"), Put("b", "2"))
	w.AddMany(2)
	e.want(e.ingest(w.Run(e, 0, 3)), replication.Committed, w.Tip())
	for _, tc := range []struct {
		after replication.Position
		held  replication.Hash
	}{
		{replication.Position{Seq: 2, Hash: replication.Hash{1}}, w.Pos(1).Hash},
		{replication.Position{Seq: 4, Hash: replication.Hash{1}}, w.Pos(3).Hash},
		{replication.Position{Seq: 1, Hash: w.Pos(1).Hash}, replication.Hash{}}, // inside a block
	} {
		_, err := e.store.ReadRun(w.Log, tc.after, 0)
		var forked *replication.ForkedError
		if !errors.Is(err, replication.ErrForked) || !errors.As(err, &forked) {
			e.Fatalf("after %v: %v", tc.after, err)
		}
		if forked.Log != w.Log || forked.Seq != tc.after.Seq || forked.Held != tc.held {
			e.Errorf("after %v: %+v", tc.after, forked)
		}
	}
}

func testRunCovering(e *env) {
	w := e.writer(1)
	w.Add(Put("a", "1"), Put("b", "2"), Put("c", "3"))
	w.AddUnsigned(Put("a", "1"), Put("b", "2"))
	w.AddMany(2)
	e.want(e.ingest(w.Run(e, 0, 4)), replication.Committed, w.Tip())
	for seq, block := range map[uint64]int{1: 0, 2: 0, 3: 0, 4: 1, 5: 1, 6: 2, 7: 3} {
		r, err := e.store.RunCovering(w.Log, seq)
		if err != nil {
			e.Fatal(err)
		}
		run := e.verifyRun(w.Log, r)
		if r.From != w.Pos(block) || run.Blocks[0].Hash != w.Block(block).Hash {
			e.Errorf("the run that covers %d starts after %d", seq, r.From.Seq)
		}
	}
	if r, err := e.store.RunCovering(w.Log, 8); err != nil || r.Data != nil {
		e.Errorf("beyond the tip: %+v %v", r, err)
	}
}

func testBytesAfter(e *env) {
	w := e.writer(1)
	for i := range 10 {
		w.Add(App("a", make([]byte, 100*i+1)))
		e.want(e.ingest(w.Run(e, i, i+1)), replication.Committed, w.Tip())
	}
	check := func() {
		e.Helper()
		for i := range 11 {
			n, err := e.store.BytesAfter(w.Log, w.Pos(i).Seq)
			if want := uint64(len(w.Raw(i, 10))); err != nil || n != want {
				e.Errorf("after block %d: %d bytes, %v, want %d", i, n, err, want)
			}
		}
		if n := e.log(w.Log).Bytes; n != uint64(len(w.Raw(0, 10))) {
			e.Errorf("the log says %d bytes", n)
		}
	}
	check()
	e.reopen()
	check()
	at := e.append(Put("a", "1"))
	e.append(Put("b", "2"))
	n, err := e.store.BytesAfter(at.First.Log, 0)
	if err != nil || n != e.log(at.First.Log).Bytes {
		e.Errorf("own log: %d bytes, %v, want %d", n, err, e.log(at.First.Log).Bytes)
	}
}

// testForwarding: any holder can serve any other from any position (design 4.4):
// a log that goes through three stores in other cuts stays servable.
func testForwarding(e *env) {
	w := unsignedMiddles(e.writer(1), 24, 4)
	e.want(e.ingest(w.Run(e, 0, 12)), replication.Committed, w.Pos(12))
	e.want(e.ingest(w.Run(e, 9, 24)), replication.Committed, w.Pos(24))
	second := e.on(e.factory.New(e))
	e.copyTo(second, w.Log)
	second.everyBoundary(w, 24)
	third := e.on(e.factory.New(e))
	second.copyTo(third, w.Log)
	third.everyBoundary(w, 24)
	if third.log(w.Log).Tip != w.Tip() {
		e.Errorf("the third store is at %v", third.log(w.Log).Tip)
	}
}

func testLogsAndSpaces(e *env) {
	other := e.spaceNamed("other")
	want := map[replication.SpaceID][]replication.LogID{}
	for seed := range uint64(12) {
		space := []replication.SpaceID{e.space, other}[seed%2]
		w := NewWriter(e.opts.Network, space, seed).AddMany(1)
		e.want(e.ingest(w.Run(e, 0, 1)), replication.Committed, w.Tip())
		want[space] = append(want[space], w.Log)
	}
	want[e.space] = append(want[e.space], e.append(Put("a", "1")).First.Log)
	check := func() {
		e.Helper()
		if got := e.store.Spaces(); len(got) != 2 || !slices.Contains(got, e.space) || !slices.Contains(got, other) {
			e.Errorf("spaces %v", got)
		}
		for space, ids := range want {
			sort.Slice(ids, func(i, j int) bool { return ids[i].Compare(ids[j]) < 0 })
			var got []replication.LogID
			for _, l := range e.store.Logs(space) {
				got = append(got, l.Log)
				if info := e.log(l.Log); info != l || l.Space != space {
					e.Errorf("Logs says %+v, Log %+v", l, info)
				}
			}
			if !slices.Equal(got, ids) {
				e.Errorf("logs %v, want %v", got, ids)
			}
		}
	}
	check()
	e.reopen()
	check()
	if got := e.store.Logs(e.spaceNamed("empty")); len(got) != 0 {
		e.Errorf("an empty space has logs %v", got)
	}
}
