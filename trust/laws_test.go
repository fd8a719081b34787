package trust_test

import (
	"errors"
	"slices"
	"testing"

	"vixp2p/replication"
	"vixp2p/trust"
)

func (w *world) evaluate(logs []trust.ControlLog) *trust.State {
	return trust.Evaluate(w.root.id[:], logs)
}

// shuffled gives the same blocks in another order, logs in several parts and some
// of it twice.
func (w *world) shuffled() (out []trust.ControlLog) {
	for _, l := range w.logs {
		parts := make([]trust.ControlLog, 1+w.rnd.IntN(3))
		for i := range parts {
			parts[i] = trust.ControlLog{Log: l.Log, Origin: l.Origin, Grant: l.Grant}
		}
		for _, b := range l.Blocks {
			for range 1 + w.rnd.IntN(2) {
				p := &parts[w.rnd.IntN(len(parts))]
				at := w.rnd.IntN(len(p.Blocks) + 1)
				p.Blocks = slices.Insert(p.Blocks, at, b)
			}
		}
		out = append(out, parts...)
	}
	w.rnd.Shuffle(len(out), func(i, k int) { out[i], out[k] = out[k], out[i] })
	return out
}

// TestOrderDoesNotMatter: any order of arrival, and any repetition, gives the same
// state.
func TestOrderDoesNotMatter(t *testing.T) {
	worlds(t, 400, func(t *testing.T, w *world) {
		want := w.evaluate(w.logs).Digest()
		for range 3 {
			if got := w.evaluate(w.shuffled()).Digest(); got != want {
				t.Errorf("another order gives %s, want %s", got, want)
			}
		}
	})
}

// TestGrowingLogs: logs that arrive block by block, interleaved as it happens, end
// in the same state, and each state on the way is what the oracle says of the
// prefixes. (A log's blocks arrive in order.)
func TestGrowingLogs(t *testing.T) {
	worlds(t, 15, func(t *testing.T, w *world) {
		whole := w.logs
		want := w.evaluate(whole).Digest()
		w.logs = slices.Clone(whole)
		for i := range w.logs {
			w.logs[i].Blocks = nil
		}
		for {
			var open []int
			for i := range whole {
				if len(w.logs[i].Blocks) < len(whole[i].Blocks) {
					open = append(open, i)
				}
			}
			if len(open) == 0 {
				break
			}
			i := pick(w, open)
			w.logs[i].Blocks = whole[i].Blocks[:len(w.logs[i].Blocks)+1]
			if w.chance(10) {
				checkWorld(t, w, w.evaluate(w.logs))
			}
		}
		if got := w.evaluate(w.logs).Digest(); got != want {
			t.Errorf("grown to %s, want %s", got, want)
		}
	})
}

// genesisOf is the genesis block of a control log of a world.
func (w *world) genesisOf(l *trust.ControlLog) *replication.Genesis {
	g := &replication.Genesis{Network: w.network, Space: w.control, Origin: l.Origin, Grant: l.Grant}
	for n := range len(w.logs) + 1 {
		g.Epoch = replication.Epoch{15: byte(n)}
		if g.LogID() == l.Log {
			return g
		}
	}
	panic("a log without its epoch")
}

// cutLogs are the logs as a node keeps them that applies a state's limits: what is
// not allowed or beyond a cut is gone, and logs of which nothing is left are too.
func (w *world) cutLogs(s *trust.State) (out []trust.ControlLog) {
	for _, l := range w.logs {
		limit := s.LogLimit(w.genesisOf(&l))
		if !limit.Allowed {
			continue
		}
		l.Blocks = slices.Clone(l.Blocks)
		if limit.Cut != nil {
			l.Blocks = slices.DeleteFunc(l.Blocks, func(b trust.ControlBlock) bool { return b.End > limit.Cut.Seq })
		}
		if len(l.Blocks) > 0 {
			out = append(out, l)
		}
	}
	return out
}

// TestWhatIsCutNeverMattered: a node that set aside what the state cuts comes to
// the same state as one that still has it, or never had it.
func TestWhatIsCutNeverMattered(t *testing.T) {
	dropped := 0
	worlds(t, 400, func(t *testing.T, w *world) {
		s := w.evaluate(w.logs)
		left := w.cutLogs(s)
		dropped += len(w.logs) - len(left)
		if got := w.evaluate(left).Digest(); got != s.Digest() {
			t.Errorf("after the cuts %s, want %s", got, s.Digest())
		}
	})
	if dropped == 0 {
		t.Error("nothing was ever cut")
	}
}

// operations writes the statements of a world down and reads them again, among
// operations that are none or void.
func (w *world) operations(t *testing.T) []trust.ControlLog {
	out := slices.Clone(w.logs)
	for i := range out {
		out[i].Blocks = slices.Clone(out[i].Blocks)
		for k, b := range out[i].Blocks {
			var ops []replication.Op
			for _, s := range b.Statements {
				op, err := trust.Op(s)
				if err != nil {
					t.Fatalf("%T: %v", s, err)
				}
				if op.Kind != replication.KindApp || op.Critical || replication.CheckOp(&op) != nil {
					t.Fatalf("%T makes a wrong operation: %+v", s, op)
				}
				ops = append(ops, op)
				void := op
				switch w.rnd.IntN(6) {
				case 0:
					void.Payload = append(slices.Clone(op.Payload), 0xff)
				case 1:
					void.Payload = op.Payload[:len(op.Payload)-1]
				case 2:
					void.Name = "vix/later"
				case 3:
					void.Name = "chat"
				case 4:
					void = replication.Op{Kind: replication.KindPut, Key: []byte("key"), Payload: op.Payload}
				case 5:
					void.Key = []byte("key")
				}
				ops = append(ops, void)
			}
			out[i].Blocks[k] = trust.BlockOf(b.End, ops)
		}
	}
	return out
}

// TestStatementsAsOperations: written into operations and read back the statements
// say the same, and junk between them nothing.
func TestStatementsAsOperations(t *testing.T) {
	worlds(t, 100, func(t *testing.T, w *world) {
		want := w.evaluate(w.logs).Digest()
		if got := w.evaluate(w.operations(t)).Digest(); got != want {
			t.Errorf("as operations %s, want %s", got, want)
		}
	})
}

// TestWhoMayNotSpeakChangesNothing: without the logs of those who may not write
// the control space everything is the same.
func TestWhoMayNotSpeakChangesNothing(t *testing.T) {
	worlds(t, 200, func(t *testing.T, w *world) {
		s := w.evaluate(w.logs)
		may := slices.DeleteFunc(slices.Clone(w.logs), func(l trust.ControlLog) bool {
			return errors.Is(s.LogLimit(w.genesisOf(&l)).Err, replication.ErrNotAllowed)
		})
		if got := w.evaluate(may).Digest(); got != s.Digest() {
			t.Errorf("without them %s, want %s", got, s.Digest())
		}
	})
}

// standing are the keys and generations that have a session's rights.
func standing(s *trust.State) map[peer]bool {
	out := map[peer]bool{}
	for _, m := range s.Members() {
		if !m.Revoked {
			out[peer{m.Key, m.Generation}] = true
		}
	}
	return out
}

// adminLog is the index of the log of some admin that stands, or -1.
func (w *world) adminLog(s *trust.State) int {
	for i, l := range w.logs {
		limit := s.LogLimit(w.genesisOf(&l))
		if len(l.Blocks) > 0 && l.Origin != w.root.id && limit.Allowed && limit.Cut == nil {
			return i
		}
	}
	return -1
}

// withStatement adds a block with one statement to a log.
func (w *world) withStatement(log int, st trust.Statement) []trust.ControlLog {
	logs := slices.Clone(w.logs)
	logs[log].Blocks = append(slices.Clone(logs[log].Blocks), trust.ControlBlock{End: 1000, Statements: []trust.Statement{st}})
	return logs
}

// TestOneMoreStatement: what one more word of an admin can do, and what not.
func TestOneMoreStatement(t *testing.T) {
	tried := 0
	worlds(t, 200, func(t *testing.T, w *world) {
		before := w.evaluate(w.logs)
		i := w.adminLog(before)
		if i < 0 {
			return
		}
		tried++
		subject, gen := pick(w, w.people).id, w.generation()

		// A revocation takes from its subject alone, and gives nobody anything.
		r := w.revocation(subject, gen, func(replication.OriginKey) []replication.LogID { return nil })
		after := w.evaluate(w.withStatement(i, r))
		was, is := before.Members(), standing(after)
		for _, m := range was {
			if p := (peer{m.Key, m.Generation}); is[p] == m.Revoked && m.Key != subject {
				t.Errorf("a revocation of %s changes %s", subject, m.Key)
			}
		}
		for p := range is {
			if p.key == subject && p.gen == gen && !standing(before)[p] {
				t.Error("a revocation lets its subject in")
			}
		}

		// A certificate takes nothing from anybody, and gives to its subject alone.
		issuer := w.logs[i]
		who := slices.IndexFunc(w.people, func(a *actor) bool { return a.id == issuer.Origin })
		issuerGen, _ := trust.GrantGeneration(issuer.Grant)
		c := w.certify(w.people[who], issuerGen, subject, gen, w.grants()...)
		after = w.evaluate(w.withStatement(i, c))
		for _, p := range w.people {
			for _, space := range []replication.SpaceID{w.control, w.standard, w.notes} {
				b, a := before.MayCarry(p.id, space, now, nil), after.MayCarry(p.id, space, now, nil)
				if b && !a || a && !b && p.id != subject {
					t.Errorf("a certificate for %s changes %s from %v to %v", subject, p.name, b, a)
				}
			}
			for gen := uint64(1); gen <= 3; gen++ {
				g := &replication.Genesis{Network: w.network, Space: w.notes, Origin: p.id, Epoch: replication.Epoch{1}, Grant: bareGrant(gen)}
				b, a := before.LogLimit(g), after.LogLimit(g)
				if b.Allowed && !a.Allowed || b.Allowed != a.Allowed && p.id != subject {
					t.Errorf("a certificate for %s changes the logs of %s", subject, p.name)
				}
			}
		}
	})
	if tried == 0 {
		t.Error("no admin ever stood")
	}
}

// TestDigestTellsStatesApart: a state that answers differently has another digest.
func TestDigestTellsStatesApart(t *testing.T) {
	worlds(t, 200, func(t *testing.T, w *world) {
		s := w.evaluate(w.logs)
		i := w.adminLog(s)
		if i < 0 {
			return
		}
		seen := map[replication.Hash]string{s.Digest(): "nothing"}
		for what, st := range map[string]trust.Statement{
			"space":      &trust.SpaceStatement{Name: "new"},
			"invite":     &trust.Invite{Public: replication.OriginKey{1}, Grants: []trust.Grant{{Role: trust.RoleReader}}},
			"revocation": &trust.Revocation{Subject: replication.OriginKey{2}, Generation: 1, Version: 1},
			"keys":       &trust.KeysStatement{Space: w.standard, ID: [32]byte{1}, Generation: 1, Wraps: []trust.Wrap{{Recipient: [32]byte{1}, Sealed: []byte{1}}}},
		} {
			d := w.evaluate(w.withStatement(i, st)).Digest()
			if other, ok := seen[d]; ok {
				t.Errorf("%s and %s have one digest", what, other)
			}
			seen[d] = what
		}
		if d := w.evaluate(w.withStatement(0, &trust.NetworkStatement{Name: "a new name", Version: 9})).Digest(); d == s.Digest() {
			t.Error("another network name has the same digest")
		}
	})
}
