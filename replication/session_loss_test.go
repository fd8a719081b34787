package replication

import (
	"testing"
	"time"
)

// TestNoLossWithoutRoomForNotes: of a log of which the peer's statement was not noted,
// because it states very many while a question to it is open, an answer from before the
// statement tells no loss.
func TestNoLossWithoutRoomForNotes(t *testing.T) {
	s, now := NewSession(SessionConfig{}), time.Unix(0, 0)
	log := LogID{1}
	at := func(seq uint64) Position { return Position{Seq: seq, Hash: Hash{byte(seq)}} }
	holds := func(seq uint64) *Frontier {
		return (*Frontier)(nil).With([]FrontierEntry{{Log: log, Base: 1, Pos: at(seq)}})
	}
	var do func(ev Event)
	do = func(ev Event) {
		t.Helper()
		load := false
		for _, e := range s.Step(now, ev) {
			switch e := e.(type) {
			case DataLoss:
				t.Errorf("a loss: %+v", e)
			case LoadFrontier:
				load = true
			}
		}
		if load {
			do(LocalFrontier{Space: pairSpace, Frontier: holds(5)})
		}
	}
	answer := func(round, seq uint64) {
		t.Helper()
		f := holds(seq)
		do(Received{Msg: &FrontierDigest{Space: pairSpace, Round: round, Reply: true, Digest: f.Root(), Logs: 1}})
		do(Received{Msg: &FrontierDiff{Space: pairSpace, Round: round, Last: true, Entries: []FrontierEntry{{Log: log, Base: 1, Pos: at(seq)}}}})
	}
	do(Started{Spaces: []SpaceInfo{{ID: pairSpace}}})
	answer(1, 3)
	do(MeshExchange{})
	sp := s.spaces[pairSpace]
	if !sp.settled || sp.ask.round != 2 {
		t.Fatalf("settled %v, round %d", sp.settled, sp.ask.round)
	}
	for i := range maxMissingUnknown {
		sp.noteStated(LogID{2, byte(i), byte(i >> 8)}, at(1))
	}
	do(Received{Msg: &WalAck{Entries: []AckEntry{{Space: pairSpace, Log: log, Pos: at(5)}}}})
	answer(2, 3)
	if !s.Acked(pairSpace, log, 5) {
		t.Error("what the peer stated is forgotten")
	}
	do(MeshExchange{})
	if sp.ask.round != 3 {
		t.Fatalf("round %d", sp.ask.round)
	}
}
