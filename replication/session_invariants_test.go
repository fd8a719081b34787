package replication

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// checkSession checks what must be true of a session between two steps.
func checkSession(t testing.TB, s *Session) {
	t.Helper()
	flying, flights, reading := 0, 0, 0
	for _, sp := range s.order {
		if sp.declined && sp.settled {
			t.Fatal("a space in which the peer does not take part is settled")
		}
		if (sp.ask.own != nil) && sp.ask.round == 0 || sp.diff.held > 0 && sp.ask.round == 0 {
			t.Fatal("a frontier is kept, and no question is open")
		}
		if sp.held != nil && sp.ask.round == 0 {
			t.Fatal("an answer waits for the end of a way down that nobody goes")
		}
		room := 0
		for _, part := range sp.diff.entries {
			room += cap(part)
		}
		if room != sp.diff.held {
			t.Fatalf("there is room for %d entries of the peer's frontier, counted %d", room, sp.diff.held)
		}
		missing := uint64(0)
		for _, m := range sp.missing {
			if m.want.Seq <= m.have {
				t.Fatalf("missing: have %d, want %d", m.have, m.want.Seq)
			}
			missing += m.want.Seq - m.have
		}
		if missing != sp.missingOps {
			t.Fatalf("missing ops are %d, counted %d", missing, sp.missingOps)
		}
		if len(sp.saves) != 0 {
			t.Fatal("a statement of the peer was not saved")
		}
		queued := map[*logState]bool{}
		for _, l := range sp.queue.items[sp.queue.head:] {
			if queued[l] {
				t.Fatal("a log is queued twice")
			}
			queued[l] = true
		}
		for _, l := range sp.logs {
			checkLog(t, l, queued[l])
			if l.reading {
				reading++
			}
			for _, f := range l.flights {
				flying += f.bytes
				flights++
			}
		}
	}
	switch {
	case flying != s.inFlight:
		t.Fatalf("%d bytes are under way, counted %d", flying, s.inFlight)
	case s.inFlight > s.cfg.WindowBytes && flights > 1:
		t.Fatalf("%d bytes are under way in a window of %d", s.inFlight, s.cfg.WindowBytes)
	case s.reads > maxReads || reading > s.reads || len(s.ready) > maxReads:
		t.Fatalf("%d reads, %d of logs, %d ready", s.reads, reading, len(s.ready))
	case s.partial != nil && (len(s.partial.Data) >= int(s.partial.Total) || s.partial.Total > MaxRunBytes):
		t.Fatalf("a partial of %d of %d bytes", len(s.partial.Data), s.partial.Total)
	case s.cfg.AckDelay == 0 && len(s.acks) > 0:
		t.Fatal("an ack was not sent")
	}
	for i, tm := range s.timers {
		if tm.place != i+1 {
			t.Fatal("a timer is not where it thinks that it is")
		}
	}
}

func checkLog(t testing.TB, l *logState, queued bool) {
	t.Helper()
	switch {
	case l.gone:
		t.Fatal("a log that is gone is still kept")
	case queued != l.queued:
		t.Fatalf("queued is %v, in the queue %v", l.queued, queued)
	case l.sp.settled && l.sendable() && !queued:
		t.Fatalf("a log with something to send is not queued: %+v", l)
	case l.acked.Seq > l.tip.Seq:
		t.Fatalf("acked %d beyond the tip %d", l.acked.Seq, l.tip.Seq)
	case l.acked == l.tip && l.paused == CodeOK && !l.reading:
		t.Fatal("a log without a difference is kept")
	case len(l.flights) > 0 && l.timer.place == 0:
		t.Fatal("a push without an ack has no retry")
	case l.lazy && l.sp.settled && l.paused == CodeOK && !l.covering() && !l.reading && l.tip.Seq > l.base.Seq && !l.announcing && l.timer.place == 0:
		t.Fatalf("a lazy log of which the peer is not told: tip %d base %d told %d flights %d reading %v hasRun %v queued %v cover %v", l.tip.Seq, l.base.Seq, l.told.Seq, len(l.flights), l.reading, l.hasRun, l.queued, l.covering())
	case len(l.flights) > 0 && l.flights[len(l.flights)-1].end != l.sent:
		t.Fatal("the last push does not end where the next one starts")
	}
	for i := 1; i < len(l.flights); i++ {
		if l.flights[i].from != l.flights[i-1].end {
			t.Fatal("pushes that do not follow each other")
		}
	}
}

// FuzzSessionStep feeds a session what a peer, a store and a clock may say, in any
// order and from few names, so that they meet. It must not panic, keep its
// invariants, and state nothing that it was not told to be durable.
func FuzzSessionStep(f *testing.F) {
	for _, seed := range []string{
		"",
		"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16",
		"start \x04ab\x04ba\x08cc\x01dd\x02\x02ee\x03ff\x05\x05\x05gg\x06hh\x07ii\x0b\x0bjj\x0ckk",
		// Down the levels of a frontier, two steps and to the end.
		"C\xe7\xdc\x00A\xa1\x9eJ\xff\xa2\xee\xb0\xe7\x9dI\x97\x11\x02\xed\xbf\xd1\xe0\\\xb6\xfe\xa4\x92\x1b\xe8nj\x85\xb5\xd9NGk&\xcbRJ(\x85\xf3_\xa6r%\x05\xfa-*\xc5\x01\xacHֳZ6",
		"\x01\x01\x01\x02\x02\x02\x03\x03\x03\x04\x04\x04\x05\x05\x05\x06\x06\x06\x07\x07\x07\x08\x08\x08",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fz := newFuzzSession(t, data)
		for range 2000 {
			if !fz.step() {
				return
			}
		}
	})
}

// fuzzSession makes events from bytes.
type fuzzSession struct {
	t       testing.TB
	data    []byte
	s       *Session
	now     time.Time
	durable map[LogID]uint64 // the highest position told as durable
	closed  bool
	reads   []ReadRun
	loads   []LoadFrontier
	commits []CommitRun
	asked   FrontierDigest // the session's last question
	opened  FrontierOpen   // and the last step down from it
}

func newFuzzSession(t testing.TB, data []byte) *fuzzSession {
	f := &fuzzSession{t: t, data: data, now: time.Unix(0, 0), durable: map[LogID]uint64{}}
	b := f.byte()
	cfg := SessionConfig{WindowBytes: 20 + int(f.byte()), ReadBytes: 10, PeerPullOnly: b&1 > 0}
	if b&2 > 0 {
		cfg.PieceBytes = 3
	}
	if b&4 > 0 {
		cfg.AckDelay = 100 * time.Millisecond
	}
	if b&8 > 0 {
		cfg.Resume = &Partial{Log: f.log(), End: f.pos(3), Total: 10, Data: make([]byte, 4)}
	}
	if b&16 > 0 {
		cfg.Control = SpaceID{1, 1} // no data space of space()
	}
	if b&64 > 0 {
		cfg.PeerLevels, cfg.PeerShares, cfg.WholeEntries = true, true, 1
	}
	if b&32 > 0 {
		cfg.Carries = func(id SpaceID) bool { return id != SpaceID{2} }
	}
	cfg.Mesh, cfg.StartLazy = b&64 > 0, b&128 > 0
	f.s = NewSession(cfg)
	f.do(Started{Spaces: []SpaceInfo{{ID: f.space()}}})
	return f
}

func (f *fuzzSession) byte() byte {
	if len(f.data) == 0 {
		return 0
	}
	b := f.data[0]
	f.data = f.data[1:]
	return b
}

// space is one of three, or the control space.
func (f *fuzzSession) space() SpaceID {
	b := f.byte()
	if b >= 192 && f.s != nil && f.s.cfg.Control != (SpaceID{}) {
		return f.s.cfg.Control
	}
	return SpaceID{b % 3}
}
func (f *fuzzSession) log() LogID { return LogID{f.byte() % 4} }

// pos is a position; one seq in eight is of another branch.
func (f *fuzzSession) pos(seq byte) Position {
	if seq == 0 {
		return Position{}
	}
	p := Position{Seq: uint64(seq), Hash: Hash{1, seq}}
	if f.byte()%8 == 7 {
		p.Hash[2] = 1
	}
	return p
}

func (f *fuzzSession) anyPos() Position { return f.pos(f.byte() % 12) }

// run is two positions that can bound a run, but for one in 64.
func (f *fuzzSession) run() (from, end Position) {
	if f.byte()%64 == 63 {
		return f.anyPos(), f.anyPos()
	}
	from = f.anyPos()
	return from, f.pos(byte(from.Seq) + 1 + f.byte()%4)
}

func (f *fuzzSession) entries() []FrontierEntry {
	var out []FrontierEntry
	for range f.byte() % 5 {
		out = append(out, FrontierEntry{Log: f.log(), Pos: f.pos(1 + f.byte()%10)})
	}
	return out
}

// told notes what the store says that it holds.
func (f *fuzzSession) told(log LogID, p Position) { f.durable[log] = max(f.durable[log], p.Seq) }

func (f *fuzzSession) step() bool {
	if len(f.data) == 0 {
		return false
	}
	switch b := f.byte(); b % 24 {
	case 0:
		f.now = f.now.Add(time.Duration(f.byte()) * 20 * time.Millisecond)
		f.do(Tick{})
	case 1:
		if len(f.loads) > 0 {
			ev := LocalFrontier{Space: f.loads[0].Space}
			held := f.entries()
			for _, e := range held {
				f.told(e.Log, e.Pos)
			}
			ev.Frontier = NewFrontier(held)
			if f.loads[0].Stored {
				ev.Stored = StoredDifference(ev.Frontier, f.entries())
			}
			f.loads = f.loads[1:]
			f.do(ev)
		}
	case 2:
		if len(f.reads) > 0 {
			f.runRead(f.reads[0])
		}
	case 3:
		if len(f.commits) > 0 {
			c := f.commits[0]
			f.commits = f.commits[1:]
			f.commitDone(c.Space, c.Log)
		}
	case 4:
		if space := f.space(); f.s.shares(space) { // of nothing
			f.commitDone(space, f.log())
		}
	case 5, 6:
		prev := f.byte() % 8
		ev := Advanced{Advance: Advance{Space: f.space(), Log: f.log(), Prev: f.pos(prev), Tip: f.pos(prev + 1 + f.byte()%4)}, FromPeer: b&32 > 0}
		f.told(ev.Log, ev.Tip)
		f.do(ev)
	case 7:
		f.do(SpaceAdded{Space: SpaceInfo{ID: f.space()}})
	case 8:
		f.do(Pull{})
	case 9:
		f.do(TrustApplied{})
		f.do(SpaceRefused{Space: f.space()})
	case 20:
		f.meshEvent()
	default:
		ev := Received{Msg: f.message(), Held: uint64(b % 4)}
		if m, ok := ev.Msg.(*Announce); ok {
			for _, e := range m.Entries {
				tip := f.anyPos()
				f.told(e.Log, tip)
				ev.Tips = append(ev.Tips, tip)
			}
		}
		f.do(ev)
	}
	return !f.closed
}

func (f *fuzzSession) meshEvent() {
	switch f.byte() % 5 {
	case 0:
		f.do(MeshPrune{Log: f.log()})
	case 1:
		ev := MeshGraft{Log: f.log(), From: f.anyPos()}
		f.told(ev.Log, ev.From)
		f.do(ev)
	case 2:
		f.do(MeshDefault{Lazy: f.byte()%2 == 0})
	case 3:
		f.do(MeshHold{Hold: f.byte()%2 == 0})
	case 4:
		f.do(MeshExchange{})
	}
}

func (f *fuzzSession) runRead(r ReadRun) {
	f.reads = f.reads[1:]
	ev := RunRead{Space: r.Space, Log: r.Log}
	switch f.byte() % 6 {
	case 0:
		ev.Err = ErrForked
	case 1:
		ev.Err = ErrDamaged
	case 2:
		ev.Run = RunBytes{From: r.After, End: r.After}
	default:
		ev.Run = RunBytes{From: r.After, End: f.pos(byte(r.After.Seq) + 1 + f.byte()%4), Ops: 1, Data: make([]byte, 1+f.byte()%40)}
		f.told(ev.Log, ev.Run.End)
	}
	f.do(ev)
}

func (f *fuzzSession) commitDone(space SpaceID, log LogID) {
	ev := CommitDone{Space: space, Log: log, Code: Code(32 + f.byte()%9)}
	ev.Result.Code, ev.Result.Tip = IngestCode(f.byte()%5), f.anyPos()
	if ev.Result.Code == Forked && f.byte()%2 == 0 {
		ev.Result.Proof = &ForkProof{Log: log}
	}
	f.told(log, ev.Result.Tip)
	f.do(ev)
}

func (f *fuzzSession) message() Message {
	switch f.byte() % 15 {
	case 13:
		m := &FrontierDiff{Space: f.asked.Space, Round: f.asked.Round, Step: f.opened.Step, Last: f.byte()%4 > 0}
		states := NewFrontier(f.entries())
		if f.byte()%8 > 0 && f.opened.Round != f.asked.Round {
			m.Step, m.Last = 0, true
			m.Nodes = []FrontierNode{states.rootNode()}
			return m
		}
		for i := range f.opened.Nodes.All() {
			if n := states.at(i); n != nil {
				m.Nodes = append(m.Nodes, n.message(i))
			}
		}
		return m
	case 14:
		m := &FrontierOpen{Space: f.space(), Round: uint64(f.byte() % 4), Step: uint64(1 + f.byte()%3)}
		switch bucket := bucketOf(f.log()); f.byte() % 4 {
		case 0:
			m.Whole.Add(byte(bucket >> 8))
		case 1:
			m.Buckets = []uint16{bucket}
		default:
			m.Nodes = allChildren
		}
		return m
	case 0:
		m := &FrontierDigest{Space: f.asked.Space, Round: f.asked.Round, Reply: f.byte()%2 == 0}
		switch f.byte() % 4 {
		case 0:
			m.Digest = f.asked.Digest
		case 1:
			m.Space, m.Round = f.space(), uint64(f.byte()%4)
		default:
			m.Digest = FrontierRoot(f.entries())
		}
		m.Levels = !m.Reply && f.byte()%2 == 0
		return m
	case 1:
		m := &FrontierDiff{Space: f.asked.Space, Round: f.asked.Round, Step: f.opened.Step * uint64(f.byte()%2), Part: uint64(f.byte() % 8 / 7), Entries: f.entries()}
		m.Last = len(m.Entries) == 0 || f.byte()%4 > 0
		if m.Step == 0 && f.byte()%4 == 0 {
			m.Buckets = []uint16{bucketOf(f.log())}
		}
		return m
	case 2, 3, 4:
		m := &WalPush{Space: f.space(), Log: f.log(), Total: uint64(1 + f.byte()%30), PullEnd: f.byte()%8 == 0}
		m.From, m.End = f.run()
		if f.byte()%2 == 0 {
			m.Offset = uint64(f.byte()) % m.Total
		}
		m.Data = make([]byte, min(m.Total-m.Offset, 1+uint64(f.byte())))
		return m
	case 5, 6:
		e := AckEntry{Space: f.space(), Log: f.log(), Pos: f.anyPos()}
		if f.byte()%2 == 0 {
			e.Code = Code(32 + f.byte()%9)
		}
		if f.byte()%4 == 0 {
			e.PartialFrom, e.PartialEnd = f.run()
			e.PartialBytes = uint64(f.byte() % 30)
		}
		return &WalAck{Entries: []AckEntry{e}}
	case 7:
		if f.s.pulls.len() == MaxQueuedPulls && f.byte()%16 > 0 {
			break
		}
		return &OutboxPull{ID: uint64(f.byte()), Space: f.space(), MaxOps: uint64(f.byte() % 8), MaxBytes: uint64(f.byte() % 40)}
	case 8:
		return &Pong{Nonce: uint64(f.byte() % 8)}
	case 9:
		return &Announce{Space: f.space(), Entries: f.entries()}
	case 10:
		if f.byte()%3 == 0 {
			return &Prune{Logs: []LogID{{}}}
		}
		return &Prune{Logs: []LogID{f.log()}}
	case 11:
		if f.byte()%3 == 0 {
			return &Graft{}
		}
		return &Graft{Log: f.log(), From: f.anyPos()}
	}
	return &Ping{Nonce: 1}
}

// do steps the session and checks what comes out.
func (f *fuzzSession) do(ev Event) {
	for _, e := range f.s.Step(f.now, ev) {
		if f.closed {
			f.t.Fatalf("%T after the session was closed", e)
		}
		f.checkShared(e)
		switch e := e.(type) {
		case Send:
			f.checkStatement(e.Msg)
			if m, ok := e.Msg.(*FrontierDigest); ok && !m.Reply {
				f.asked = *m
			}
			if m, ok := e.Msg.(*FrontierOpen); ok {
				f.opened = *m
			}
		case LoadFrontier:
			f.loads = append(f.loads, e)
		case ReadRun:
			f.reads = append(f.reads, e)
		case CommitRun:
			f.commits = append(f.commits, e)
		case CloseSession:
			f.closed = true
		}
	}
	if f.closed {
		return
	}
	checkSession(f.t, f.s)
	if len(f.s.strangers) > 3 || len(f.s.pulls.items) > 2*MaxQueuedPulls+64 || f.s.uncommittedBytes > MaxUncommittedBytes {
		f.t.Fatal("what the peer makes the session keep is not bounded")
	}
	if _, tick := ev.(Tick); tick && !f.s.Deadline().After(f.now) {
		f.t.Fatal("a tick left a deadline that has passed")
	}
	f.s.Progress()
}

// checkShared: nothing is said or done about a space that the peer may not have, but
// for a refusal, and nothing about a data space before the control space.
func (f *fuzzSession) checkShared(e Effect) {
	check := func(space SpaceID, refusal bool) {
		if !f.s.carries(space) && !refusal || f.s.heldBack(space) {
			f.t.Fatalf("%+v is about a space that is not shared now", e)
		}
	}
	switch e := e.(type) {
	case Send:
		switch m := e.Msg.(type) {
		case *FrontierDigest:
			check(m.Space, false)
		case *FrontierDiff:
			check(m.Space, false)
			if !f.s.cfg.PeerShares && (len(m.Buckets) > 0 || !m.Whole.Empty()) {
				f.t.Fatal("a peer is told where a way down ended and does not take that")
			}
		case *FrontierOpen:
			check(m.Space, false)
			if !f.s.cfg.PeerLevels {
				f.t.Fatal("a peer that does not go down the levels is asked to")
			}
		case *Announce:
			check(m.Space, false)
		case *WalPush:
			check(m.Space, m.Total == 0) // the end of an answer names the space of its pull
		case *WalAck:
			for _, a := range m.Entries {
				check(a.Space, a.Code == CodeNotAllowed && a.Pos.Seq == 0)
			}
		}
	case LoadFrontier:
		check(e.Space, false)
	case ReadRun:
		check(e.Space, false)
	case CommitRun:
		check(e.Space, false)
	case AddSpace:
		check(e.Space.ID, false)
	}
}

func (f *fuzzSession) checkStatement(m Message) {
	claim := func(log LogID, p Position) {
		if p.Seq > f.durable[log] {
			f.t.Fatalf("G2: states %d of a log that is durable up to %d", p.Seq, f.durable[log])
		}
	}
	switch m := m.(type) {
	case *WalAck:
		for _, e := range m.Entries {
			claim(e.Log, e.Pos)
		}
	case *FrontierDiff:
		for _, e := range m.Entries {
			claim(e.Log, e.Pos)
		}
	case *Announce:
		for _, e := range m.Entries {
			claim(e.Log, e.Pos)
		}
	case *Graft:
		claim(m.Log, m.From)
	}
}

// TestSessionRandom is the fuzz target on long random inputs.
func TestSessionRandom(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 200
	}
	for seed := range uint64(n) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 200+r.IntN(4000))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			f := newFuzzSession(t, data)
			for f.step() {
			}
		})
		if t.Failed() {
			return
		}
	}
}
