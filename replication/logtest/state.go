package logtest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"vixp2p/replication"
)

var stateTests = []test{
	{"Cursors", testCursors},
	{"CursorsOfManyPeers", testListCursors},
	{"Meta", testMeta},
	{"Closed", testClosed},
	{"CloseAnswersWhatIsQueued", testCloseAnswers},
	{"VerifyFindsNothing", testVerifyFindsNothing},
}

// testCursors: entries are merged by log, may go down, and survive a Close.
func testCursors(e *env) {
	peer, other := e.writer(1).Origin, e.writer(2).Origin
	inst := replication.Instance{1}
	a := replication.FrontierEntry{Log: replication.LogID{1}, Base: 1, Pos: replication.Position{Seq: 5, Hash: replication.Hash{5}}}
	b := replication.FrontierEntry{Log: replication.LogID{2}, Base: 1, Pos: replication.Position{Seq: 7, Hash: replication.Hash{7}}}
	load := func(p replication.OriginKey, i replication.Instance) []replication.FrontierEntry {
		e.Helper()
		got, err := e.store.LoadCursor(p, i)
		if err != nil {
			e.Fatal(err)
		}
		slices.SortFunc(got, func(x, y replication.FrontierEntry) int { return x.Log.Compare(y.Log) })
		return got
	}
	if got := load(peer, inst); got != nil {
		e.Errorf("an unknown peer instance has %v", got)
	}
	e.store.SaveCursor(peer, inst, []replication.FrontierEntry{b})
	e.store.SaveCursor(peer, inst, []replication.FrontierEntry{a})
	if got := load(peer, inst); !slices.Equal(got, []replication.FrontierEntry{a, b}) {
		e.Errorf("before it is durable: %v", got)
	}
	e.append(Put("k", "v"))
	a.Pos = replication.Position{Seq: 3, Hash: replication.Hash{3}}
	e.store.SaveCursor(peer, inst, []replication.FrontierEntry{a})
	e.reopen()
	if got := load(peer, inst); !slices.Equal(got, []replication.FrontierEntry{a, b}) {
		e.Errorf("after reopening: %v", got)
	}
	if got := load(peer, replication.Instance{2}); got != nil {
		e.Errorf("another instance has %v", got)
	}
	if got := load(other, inst); got != nil {
		e.Errorf("another peer has %v", got)
	}
}

func testListCursors(e *env) {
	if list, err := e.store.ListCursors(); err != nil || len(list) != 0 {
		e.Errorf("%v %v", list, err)
	}
	entry := []replication.FrontierEntry{{Log: replication.LogID{1}, Pos: replication.Position{Seq: 1, Hash: replication.Hash{1}}}}
	var want []replication.CursorInfo
	for i := range byte(4) {
		e.clock.Advance(time.Minute)
		info := replication.CursorInfo{Peer: e.writer(uint64(i % 2)).Origin, Instance: replication.Instance{i}, Updated: e.clock.Now()}
		e.store.SaveCursor(info.Peer, info.Instance, entry)
		want = append(want, info)
	}
	e.clock.Advance(time.Minute)
	want[1].Updated = e.clock.Now()
	e.store.SaveCursor(want[1].Peer, want[1].Instance, entry)
	want = append(append(want[:1:1], want[2:]...), want[1])
	check := func() {
		e.Helper()
		got, err := e.store.ListCursors()
		if err != nil {
			e.Fatal(err)
		}
		if !slices.EqualFunc(got, want, func(a, b replication.CursorInfo) bool {
			return a.Peer == b.Peer && a.Instance == b.Instance && a.Updated.Equal(b.Updated)
		}) {
			e.Errorf("got %v, want %v", got, want)
		}
	}
	check()
	e.reopen()
	check()
}

func testMeta(e *env) {
	ctx := context.Background()
	get := func(name string) []byte {
		e.Helper()
		v, err := e.store.Meta(name)
		if err != nil {
			e.Fatal(err)
		}
		return v
	}
	set := func(name string, v []byte) {
		e.Helper()
		if err := e.store.SetMeta(ctx, name, v); err != nil {
			e.Fatal(err)
		}
	}
	if v := get("a"); v != nil {
		e.Errorf("an unset value is %q", v)
	}
	big := bytes.Repeat([]byte{1, 2, 3, 4}, 16<<10)
	value := []byte("1")
	set("a", value)
	value[0] = 'x'
	set("b/with/path", big)
	set("c", []byte("old"))
	set("c", []byte("new"))
	check := func() {
		e.Helper()
		if string(get("a")) != "1" || !bytes.Equal(get("b/with/path"), big) || string(get("c")) != "new" {
			e.Errorf("got %q, %d bytes, %q", get("a"), len(get("b/with/path")), get("c"))
		}
	}
	check()
	e.reopen()
	check()
	e.wantErr("a value of more than 64 KiB", e.store.SetMeta(ctx, "a", append(big, 1)), replication.ErrTooLarge)
	check()
	if e.store.Head() != 0 {
		e.Error("values arrive")
	}
}

func testClosed(e *env) {
	w := e.writer(1).AddMany(1)
	at := e.append(Put("a", "1"))
	s := e.store
	e.close()
	if err := s.Close(); err != nil {
		e.Errorf("second close: %v", err)
	}
	ctx := context.Background()
	_, err := s.Append(ctx, replication.Batch{Space: e.space, Ops: []replication.Op{Put("a", "1")}})
	e.wantErr("Append", err, replication.ErrClosed)
	ch := make(chan replication.IngestResult, 1)
	s.Ingest(1, w.Run(e, 0, 1), func(r replication.IngestResult) { ch <- r })
	if r := await(e, ch); r.Code != replication.Refused || !errors.Is(r.Err, replication.ErrClosed) {
		e.Errorf("Ingest: %s %v", r.Code, r.Err)
	}
	_, err = s.ReadRun(at.First.Log, replication.Position{}, 0)
	e.wantErr("ReadRun", err, replication.ErrClosed)
	_, err = s.RunCovering(at.First.Log, 1)
	e.wantErr("RunCovering", err, replication.ErrClosed)
	_, err = s.ReadArrivals(e.space, 0, 1)
	e.wantErr("ReadArrivals", err, replication.ErrClosed)
	_, err = s.LoadCursor(w.Origin, replication.Instance{})
	e.wantErr("LoadCursor", err, replication.ErrClosed)
	_, err = s.ListCursors()
	e.wantErr("ListCursors", err, replication.ErrClosed)
	e.wantErr("SetMeta", s.SetMeta(ctx, "a", nil), replication.ErrClosed)
	_, err = s.Meta("a")
	e.wantErr("Meta", err, replication.ErrClosed)
	e.wantErr("Verify", s.Verify(ctx, func(replication.Finding) {}), replication.ErrClosed)
	s.SaveCursor(w.Origin, replication.Instance{}, nil)
	e.open()
	if e.store.Head() != 1 {
		e.Errorf("head %d after the attempts", e.store.Head())
	}
}

// testCloseAnswers: whatever was queued before Close is answered, one way or the
// other, and what was answered as durable is.
func testCloseAnswers(e *env) {
	w := e.writer(1).AddMany(20)
	ch := make(chan replication.IngestResult, 40)
	for i := range 20 {
		e.store.Ingest(1, w.Run(e, i, i+1), func(r replication.IngestResult) { ch <- r })
	}
	e.close()
	durable := replication.Position{}
	for range 20 {
		switch r := await(e, ch); r.Code {
		case replication.Committed:
			durable = r.Tip
		default:
			e.wantErr(r.Code.String(), r.Err, replication.ErrClosed)
		}
	}
	e.open()
	if info, _ := e.store.Log(w.Log); info.Tip.Seq < durable.Seq {
		e.Errorf("answered up to %d, held up to %d", durable.Seq, info.Tip.Seq)
	}
}

func testVerifyFindsNothing(e *env) {
	w := unsignedMiddles(e.writer(1), 12, 4)
	e.want(e.ingest(w.RunTail(e, 0, 10, 12)), replication.Committed, w.Pos(10))
	e.append(Put("a", "1"))
	e.append(Put("b", "1"))
	err := e.store.Verify(context.Background(), func(f replication.Finding) {
		e.Errorf("found %+v", f)
	})
	if err != nil {
		e.Error(err)
	}
}
