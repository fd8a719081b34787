package replication

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// harness steps a session at a standing clock.
type harness struct {
	t   testing.TB
	s   *Session
	now time.Time
}

func newHarness(t testing.TB, cfg SessionConfig) *harness {
	h := &harness{t: t, s: NewSession(cfg), now: time.Unix(0, 0)}
	h.do(Started{Spaces: []SpaceInfo{{ID: SpaceID{1}}}})
	return h
}

func (h *harness) do(ev Event) []Effect {
	h.t.Helper()
	out := append([]Effect(nil), h.s.Step(h.now, ev)...)
	if !h.s.closed {
		checkSession(h.t, h.s)
	}
	return out
}

func (h *harness) peer(m Message) []Effect {
	h.t.Helper()
	return h.do(Received{Msg: m})
}

// only returns the effects of one type.
func only[E Effect](effects []Effect) []E {
	var out []E
	for _, e := range effects {
		if e, ok := e.(E); ok {
			out = append(out, e)
		}
	}
	return out
}

// sent returns the messages of one type.
func sent[M Message](effects []Effect) []M {
	var out []M
	for _, e := range only[Send](effects) {
		if m, ok := e.Msg.(M); ok {
			out = append(out, m)
		}
	}
	return out
}

// manyEntries is logs 0 to n-1 at seq.
func manyEntries(n int, seq uint64) []FrontierEntry {
	out := make([]FrontierEntry, n)
	for i := range out {
		binary.BigEndian.PutUint32(out[i].Log[:], uint32(i))
		out[i].Pos = Position{Seq: seq, Hash: Hash{1, byte(seq)}}
	}
	return out
}

// settle compares frontiers: ours and the peer's.
func (h *harness) settle(own, peer []FrontierEntry) []Effect {
	h.t.Helper()
	out := h.do(LocalFrontier{Space: SpaceID{1}, Frontier: NewFrontier(own)})
	ask := sent[*FrontierDigest](out)[0]
	out = h.peer(&FrontierDigest{Space: SpaceID{1}, Round: ask.Round, Reply: true, Digest: FrontierRoot(peer)})
	if len(only[Settled](out)) > 0 {
		return out
	}
	for part := uint64(0); ; part++ {
		n := min(len(peer), MaxDiffEntries)
		out = h.peer(&FrontierDiff{Space: SpaceID{1}, Round: ask.Round, Part: part, Last: n == len(peer), Entries: peer[:n]})
		if peer = peer[n:]; len(peer) == 0 {
			break
		}
	}
	if len(only[Settled](out)) == 0 {
		h.t.Fatal("not settled")
	}
	return append(slices.Clone(out), h.do(LocalFrontier{Space: SpaceID{1}, Frontier: NewFrontier(own)})...)
}

func position(seq uint64) Position {
	if seq == 0 {
		return Position{}
	}
	return Position{Seq: seq, Hash: Hash{1, byte(seq)}}
}

func TestSessionViolations(t *testing.T) {
	one := SpaceID{1}
	push := func(change func(*WalPush)) Message {
		m := &WalPush{Space: one, From: position(1), End: position(2), Total: 4, Data: make([]byte, 4)}
		change(m)
		return m
	}
	bad := Position{Seq: 3}
	tests := map[string]struct {
		msg  Message
		want string
	}{
		"run too long":       {push(func(m *WalPush) { m.Total = MaxRunBytes + 1 }), "a run of"},
		"piece beyond end":   {push(func(m *WalPush) { m.Offset = 1 }), "4 bytes at offset 1"},
		"offset overflows":   {push(func(m *WalPush) { m.Offset = 1 << 63 }), "at offset"},
		"empty piece":        {push(func(m *WalPush) { m.Data = nil }), "0 bytes"},
		"run goes backwards": {push(func(m *WalPush) { m.End = m.From }), "does not end after"},
		"end has no hash":    {push(func(m *WalPush) { m.End = bad }), "does not end after"},
		"start has no hash":  {push(func(m *WalPush) { m.From = Position{Seq: 1} }), "does not end after"},
		"ack has no hash":    {&WalAck{Entries: []AckEntry{{Space: one, Pos: bad}}}, "an ack with a position"},
		"partial has no hash": {
			&WalAck{Entries: []AckEntry{{Space: one, PartialEnd: bad}}}, "an ack with a position",
		},
		"entry has no hash": {
			&FrontierDiff{Space: one, Round: 1, Last: true, Entries: []FrontierEntry{{Pos: bad}}}, "without a position",
		},
		"entry is empty": {
			&FrontierDiff{Space: one, Round: 1, Last: true, Entries: []FrontierEntry{{}}}, "without a position",
		},
		"part is empty": {&FrontierDiff{Space: one, Round: 1}, "an empty part"},
		"part is too large": {
			&FrontierDiff{Space: one, Round: 1, Entries: manyEntries(maxReceivedDiffEntries+1, 1)}, "more than 512 in one part",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, SessionConfig{})
			h.do(LocalFrontier{Space: one})
			out := h.peer(tt.msg)
			closed := only[CloseSession](out)
			if len(closed) != 1 || closed[0].Code != CodeProtocol || !strings.Contains(closed[0].Detail, tt.want) {
				t.Fatalf("want the session closed for %q, got %+v", tt.want, out)
			}
			if bye := sent[*Bye](out); len(bye) != 1 || bye[0].Code != CodeProtocol {
				t.Fatal("the peer is not told")
			}
			if out := h.do(Tick{}); len(out) != 0 {
				t.Fatalf("effects after the end: %v", out)
			}
		})
	}
}

func TestSessionBoundsSpaces(t *testing.T) {
	h := newHarness(t, SessionConfig{})
	ask := func(i int) []Effect {
		var id SpaceID
		binary.BigEndian.PutUint32(id[4:], uint32(i+1))
		return h.peer(&FrontierDigest{Space: id, Round: 1})
	}
	for i := range MaxPeerSpaces {
		if n := len(only[AddSpace](ask(i))); n != 1 {
			t.Fatalf("space %d: %d AddSpace", i, n)
		}
	}
	if out := ask(0); len(out) != 0 {
		t.Fatalf("a known stranger: %v", out)
	}
	if len(only[CloseSession](ask(MaxPeerSpaces))) != 1 {
		t.Fatal("one space more did not end the session")
	}
}

func TestSessionBoundsPulls(t *testing.T) {
	h := newHarness(t, SessionConfig{PeerPullOnly: true})
	for i := range MaxQueuedPulls {
		h.peer(&OutboxPull{ID: uint64(i)})
		h.peer(&OutboxPull{ID: uint64(i)}) // repeated: the same one
	}
	if len(only[CloseSession](h.peer(&OutboxPull{ID: MaxQueuedPulls}))) != 1 {
		t.Fatal("one pull more did not end the session")
	}
}

func TestSessionBoundsFrontierDiff(t *testing.T) {
	h := newHarness(t, SessionConfig{})
	h.do(LocalFrontier{Space: SpaceID{1}})
	entries := manyEntries(maxReceivedDiffEntries, 1)
	for part := uint64(0); ; part++ {
		out := h.peer(&FrontierDiff{Space: SpaceID{1}, Round: 1, Part: part, Entries: entries})
		if len(only[CloseSession](out)) == 1 {
			return
		}
		if part > MaxFrontierEntries/maxReceivedDiffEntries {
			t.Fatal("a diff without end did not end the session")
		}
	}
}

// A peer may state many logs that are unknown here: they are kept by name only up
// to a limit, and counted beyond. When the named ones are here, the frontiers are
// compared again.
// Entries that are not kept take no room: they are counted nowhere.
func TestSessionKeepsNoRoomForOtherBranches(t *testing.T) {
	h := newHarness(t, SessionConfig{})
	h.do(LocalFrontier{Space: SpaceID{1}})
	entries := make([]FrontierEntry, maxReceivedDiffEntries)
	for i := range entries {
		entries[i] = FrontierEntry{Log: LogID{byte(i), byte(i >> 8), 1}, Branch: Hash{1}, Pos: position(1)}
	}
	for part := range uint64(10) {
		h.peer(&FrontierDiff{Space: SpaceID{1}, Round: 1, Part: part, Entries: entries})
	}
	entries[0].Branch = Hash{}
	h.peer(&FrontierDiff{Space: SpaceID{1}, Round: 1, Part: 10, Entries: entries})
	if d := &h.s.order[0].diff; len(d.entries) != 1 || h.s.DiffEntries() != 1 {
		t.Errorf("%d parts of %d entries are kept, of one entry", len(d.entries), h.s.DiffEntries())
	}
}

func TestSessionBoundsMissing(t *testing.T) {
	h := newHarness(t, SessionConfig{})
	const extra = 100
	peer := manyEntries(maxMissingUnknown+extra, 2)
	h.settle(nil, peer)
	sp := h.s.order[0]
	if len(sp.missing) != maxMissingUnknown || h.s.Progress()[0].MissingOps != 2*uint64(len(peer)) {
		t.Fatalf("%d kept by name, %d ops missing", len(sp.missing), h.s.Progress()[0].MissingOps)
	}
	if len(sp.logs) != 0 {
		t.Fatalf("state for %d unknown logs", len(sp.logs))
	}
	var out []Effect
	for _, e := range peer[:maxMissingUnknown] {
		// Stepped without the checks, which look at all of it.
		out = h.s.Step(h.now, Advanced{Advance: Advance{Space: SpaceID{1}, Log: e.Log, Tip: e.Pos, Ops: 2}, FromPeer: true})
	}
	if len(only[LoadFrontier](out)) != 1 {
		t.Fatal("not compared again")
	}
	out = h.do(LocalFrontier{Space: SpaceID{1}, Frontier: NewFrontier(peer[:maxMissingUnknown])})
	ask := sent[*FrontierDigest](out)[0]
	if got := h.s.Progress()[0].MissingOps; got != 2*extra {
		t.Fatalf("%d ops missing, want %d", got, 2*extra)
	}
	h.peer(&FrontierDigest{Space: SpaceID{1}, Round: ask.Round, Reply: true, Digest: ask.Digest})
	if got := h.s.Progress()[0].MissingOps; got != 0 {
		t.Fatalf("%d ops missing where both hold the same", got)
	}
}

// What waits for its commit is bounded; more is dropped and comes again.
func TestSessionBoundsUncommitted(t *testing.T) {
	h := newHarness(t, SessionConfig{})
	h.settle(nil, nil)
	data := make([]byte, MaxRunBytes)
	n := 0
	for i := range uint64(100) {
		out := h.peer(&WalPush{Space: SpaceID{1}, From: position(i), End: position(i + 1), Total: uint64(len(data)), Data: data})
		n += len(only[CommitRun](out))
	}
	if want := MaxUncommittedBytes / MaxRunBytes; n != want {
		t.Fatalf("%d commits under way, want %d", n, want)
	}
	h.do(CommitDone{Space: SpaceID{1}, Result: IngestResult{Tip: position(1)}})
	if out := h.peer(&WalPush{Space: SpaceID{1}, From: position(100), End: position(101), Total: uint64(len(data)), Data: data}); len(only[CommitRun](out)) != 1 {
		t.Fatal("no room after a commit")
	}
}

// A refusal's text and count are bounded.
func TestSessionBoundsRefusals(t *testing.T) {
	h := newHarness(t, SessionConfig{})
	h.settle(nil, nil)
	for i := range maxRefused + 10 {
		var log LogID
		binary.BigEndian.PutUint32(log[:], uint32(i))
		h.s.Step(h.now, Received{Msg: &WalPush{Space: SpaceID{1}, Log: log, End: position(1), Total: 1, Data: []byte{1}}})
		out := h.s.Step(h.now, CommitDone{
			Space: SpaceID{1}, Log: log, Code: CodeBadRun,
			Result: IngestResult{Code: Refused, Err: fmt.Errorf("%1000d", 1)},
		})
		if e := sent[*WalAck](out)[0].Entries[0]; e.Code != CodeBadRun || len(e.Detail) != MaxDetailBytes {
			t.Fatalf("%+v", e)
		}
	}
	sp := h.s.order[0]
	if len(sp.refused) != maxRefused || len(sp.missing) != maxRefused+10 || len(h.s.commits) != 0 {
		t.Fatalf("kept %d refusals, %d missing, %d commits", len(sp.refused), len(sp.missing), len(h.s.commits))
	}
}

// A text that goes on the wire is cut between characters: protobuf refuses others.
func TestSessionDetailStaysText(t *testing.T) {
	h := newHarness(t, SessionConfig{})
	out := h.do(Stop{Code: CodeShutdown, Detail: "x" + strings.Repeat("\u00e4", MaxDetailBytes)})
	if d := sent[*Bye](out)[0].Detail; !utf8.ValidString(d) || len(d) != MaxDetailBytes-1 {
		t.Fatalf("%d bytes, %q", len(d), d)
	}
}

// Memory follows the difference between the two sides, not the count of logs.
func TestSessionMemoryFollowsDifference(t *testing.T) {
	const logs = 100_000
	own := manyEntries(logs, 1)
	peer := append([]FrontierEntry(nil), own...)
	for i := range 10 {
		own[i*1000].Pos = position(2)
		peer[i*1000+1].Pos = position(3)
	}
	before := heapBytes()
	h := newHarness(t, SessionConfig{})
	h.settle(own, peer)
	runtime.KeepAlive(own)
	sp := h.s.order[0]
	if len(sp.logs) != 20 || len(sp.missing) != 10 {
		t.Fatalf("%d logs, %d missing", len(sp.logs), len(sp.missing))
	}
	if grown := int64(heapBytes()) - int64(before); grown > 1<<20 {
		t.Fatalf("a session of %d logs with 20 differences keeps %d bytes", logs, grown)
	}
	runtime.KeepAlive(h)
	runtime.KeepAlive(peer)
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A frontier goes out in parts that stay below 16 KiB.
func TestSessionDiffParts(t *testing.T) {
	h := newHarness(t, SessionConfig{})
	own := manyEntries(2*MaxDiffEntries+1, 1)
	h.do(LocalFrontier{Space: SpaceID{1}, Frontier: NewFrontier(own)})
	h.peer(&FrontierDigest{Space: SpaceID{1}, Round: 9})
	parts := sent[*FrontierDiff](h.do(LocalFrontier{Space: SpaceID{1}, Frontier: NewFrontier(own)}))
	if len(parts) != 3 || !parts[2].Last || parts[1].Last || len(parts[0].Entries) != MaxDiffEntries || len(parts[2].Entries) != 1 {
		t.Fatalf("%d parts", len(parts))
	}
	for i, p := range parts {
		if p.Part != uint64(i) || p.Round != 9 {
			t.Fatalf("part %d is %d of round %d", i, p.Part, p.Round)
		}
	}
}

// Questions of many spaces go out a few at a time; a space that the peer does not
// answer for holds up nobody.
func TestSessionAsksFewAtATime(t *testing.T) {
	h := &harness{t: t, s: NewSession(SessionConfig{RetryAfter: time.Second, PingEvery: time.Second}), now: time.Unix(0, 0)}
	var ev Started
	for i := range 3 * maxAsking {
		ev.Spaces = append(ev.Spaces, SpaceInfo{ID: SpaceID{byte(i + 1)}})
	}
	asked := map[SpaceID]int{}
	var run func(out []Effect)
	run = func(out []Effect) {
		for _, e := range only[LoadFrontier](out) {
			asked[e.Space]++
			run(h.do(LocalFrontier{Space: e.Space}))
		}
		for _, p := range sent[*Ping](out) {
			run(h.peer(&Pong{Nonce: p.Nonce}))
		}
	}
	run(h.do(ev))
	if len(asked) != maxAsking {
		t.Fatalf("%d asked at once", len(asked))
	}
	for range 10 {
		h.now = h.now.Add(time.Second)
		run(h.do(Tick{}))
	}
	if len(asked) != len(ev.Spaces) {
		t.Fatalf("%d of %d spaces asked", len(asked), len(ev.Spaces))
	}
}

// Two sessions that are given the same do the same, whatever the order of a map.
func TestSessionDeterministic(t *testing.T) {
	run := func() string {
		var b strings.Builder
		h := newHarness(t, SessionConfig{})
		h.do(LocalFrontier{Space: SpaceID{1}})
		for _, e := range manyEntries(50, 1) {
			h.do(Advanced{Advance: Advance{Space: SpaceID{1}, Log: e.Log, Tip: e.Pos}})
		}
		h.peer(&FrontierDigest{Space: SpaceID{1}, Round: 1, Reply: true})
		for range 50 {
			for _, r := range only[ReadRun](h.s.out) {
				fmt.Fprintln(&b, r.Log.Short())
				h.do(RunRead{Space: r.Space, Log: r.Log, Run: RunBytes{From: r.After, End: position(1), Data: []byte{1}}})
			}
		}
		for _, p := range h.s.Progress()[0].PendingLogs {
			fmt.Fprintln(&b, p.Log.Short())
		}
		return b.String()
	}
	first := run()
	for range 5 {
		if run() != first {
			t.Fatal("not the same again")
		}
	}
	if strings.Count(first, "\n") < 60 {
		t.Fatalf("too little happened:\n%s", first)
	}
}

// TestSessionKeepsLocalFaultsToItself: what is wrong at this side is told here in
// full and to the peer by its code alone: the text names local files.
func TestSessionKeepsLocalFaultsToItself(t *testing.T) {
	for code, told := range map[Code]bool{CodeBadRun: true, CodeNotAllowed: true, CodeNoSpace: false, CodeInternal: false, CodeDamaged: false} {
		h := newHarness(t, SessionConfig{})
		h.settle(nil, nil)
		h.s.Step(h.now, Received{Msg: &WalPush{Space: SpaceID{1}, Log: LogID{1}, End: position(1), Total: 1, Data: []byte{1}}})
		out := h.s.Step(h.now, CommitDone{
			Space: SpaceID{1}, Log: LogID{1}, Code: code,
			Result: IngestResult{Code: Refused, Err: fmt.Errorf("the text")},
		})
		if e := sent[*WalAck](out)[0].Entries[0]; e.Code != code || (e.Detail != "") != told {
			t.Errorf("%v: the peer is told %q", code, e.Detail)
		}
		var paused *LogPaused
		for _, e := range out {
			if p, ok := e.(LogPaused); ok {
				paused = &p
			}
		}
		if paused == nil || paused.Detail != "the text" {
			t.Errorf("%v: this side is told %+v", code, paused)
		}
	}
}

// Questions that come before the control space is in step are kept up to a bound, the
// last one of each space, and none breaks the protocol.
func TestEarlyQuestionsAreBounded(t *testing.T) {
	control := SpaceID{0xff}
	h := newHarness(t, SessionConfig{Control: control})
	ask := func(i int, round uint64) {
		var id SpaceID
		binary.BigEndian.PutUint32(id[4:], uint32(i)+1)
		if out := h.peer(&FrontierDigest{Space: id, Round: round}); len(out) > 0 {
			t.Fatalf("an early question is answered with %+v", out)
		}
	}
	for round := uint64(1); round < 3; round++ {
		for i := range MaxPeerSpaces + 100 {
			ask(i, round)
		}
	}
	if n := len(h.s.gate.early); n != MaxPeerSpaces || len(h.s.gate.place) != n {
		t.Errorf("%d questions are kept", n)
	}
	h.do(LocalFrontier{Space: control})
	h.peer(&FrontierDigest{Space: control, Round: 1, Reply: true})
	out := h.do(TrustApplied{})
	if n := len(only[AddSpace](out)); n != MaxPeerSpaces {
		t.Errorf("%d spaces are met afterwards", n)
	}
	if h.s.gate.early != nil || h.s.gate.place != nil {
		t.Error("they are still kept")
	}
}
