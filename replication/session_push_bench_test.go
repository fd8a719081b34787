package replication

import (
	"testing"
	"time"
)

// pushPair is two sessions with a store each that is a counter: logs grow, runs are
// read and commit at once.
type pushPair struct {
	tb       testing.TB
	sessions [2]*Session
	run      []byte
	acks     int // that the writer has heard
}

func newPushPair(tb testing.TB, run []byte) *pushPair {
	p := &pushPair{tb: tb, run: run}
	for i := range p.sessions {
		p.sessions[i] = NewSession(SessionConfig{})
	}
	for i := range p.sessions {
		p.do(i, Started{Spaces: []SpaceInfo{{ID: SpaceID{1}}}})
	}
	return p
}

// do tells one session something and carries out what follows, until nothing does.
func (p *pushPair) do(at int, ev Event) {
	for _, e := range append([]Effect(nil), p.sessions[at].Step(time.Unix(1, 0), ev)...) {
		switch e := e.(type) {
		case LoadFrontier:
			p.do(at, LocalFrontier{Space: e.Space})
		case ReadRun:
			seq := e.After.Seq + 1
			p.do(at, RunRead{Space: e.Space, Log: e.Log, Run: RunBytes{From: e.After, End: position(seq), Ops: 1, Data: p.run}})
		case CommitRun:
			tip := position(e.From.Seq + 1)
			p.do(at, Advanced{Advance: Advance{Space: e.Space, Log: e.Log, Prev: e.From, Tip: tip, Ops: 1}, FromPeer: true})
			p.do(at, CommitDone{Space: e.Space, Log: e.Log, Result: IngestResult{Tip: tip}})
		case Send:
			if _, ok := e.Msg.(*WalAck); ok {
				p.acks++
			}
			p.do(1-at, Received{Msg: e.Msg})
		case CloseSession:
			p.tb.Fatalf("a session ended: %+v", e)
		}
	}
}

// grow lets the writer's log grow by one operation.
func (p *pushPair) grow(seq uint64) {
	p.do(0, Advanced{Advance: Advance{Space: SpaceID{1}, Log: LogID{1}, Prev: position(seq - 1), Tip: position(seq), Ops: 1, Bytes: uint64(len(p.run))}})
}

// BenchmarkSessionPush takes one block through both sessions, from its commit at
// the writer to the ack that it hears.
func BenchmarkSessionPush(b *testing.B) {
	p := newPushPair(b, make([]byte, 500))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		p.grow(uint64(n))
	}
	if p.acks != n {
		b.Fatalf("%d blocks were acked of %d", p.acks, n)
	}
}
