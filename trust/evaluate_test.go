package trust_test

import (
	"flag"
	"math/rand/v2"
	"testing"

	"vixp2p/replication"
	"vixp2p/trust"
)

// worldCount and worldSeed choose the random worlds: go test ./trust -worlds 20000,
// or -seed N -worlds 1 to see one again.
var (
	worldCount = flag.Uint64("worlds", 0, "random worlds per test; 0: some hundred")
	worldSeed  = flag.Uint64("seed", 0, "seed of the first random world")
)

// worlds runs fn over many random worlds, each of its own seed.
func worlds(t *testing.T, n uint64, fn func(t *testing.T, w *world)) {
	if testing.Short() {
		n = n/20 + 5
	}
	if *worldCount > 0 {
		n = *worldCount
	}
	for seed := *worldSeed; seed < *worldSeed+n; seed++ {
		fn(t, makeWorld(rand.New(rand.NewPCG(seed, 9))))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestEvaluateIsWhatTheDesignSays compares every answer with the oracle's.
func TestEvaluateIsWhatTheDesignSays(t *testing.T) {
	seen := map[string]int{}
	worlds(t, 400, func(t *testing.T, w *world) {
		s := trust.Evaluate(w.root.id[:], w.logs)
		checkWorld(t, w, s)
		w.tally(s, seen)
	})
	// What never happens is not tested.
	for _, what := range []string{
		"refused: no certificate", "refused: another network", "refused: out of its validity", "refused: revoked",
		"let in", "let in by another certificate than the shown one", "log: not allowed", "log: all", "log: cut", "log: cut to nothing",
		"control log: all", "control log: cut", "control log: not allowed",
		"member: standing", "member: revoked", "member: expired", "member: not yet valid", "member again",
		"invite: revoked", "invite: used", "admin by its grant alone", "admin revoked by an admin in vain",
	} {
		if seen[what] == 0 && *worldCount == 0 && !testing.Short() {
			t.Errorf("no world in which this happens: %s", what)
		}
	}
	t.Log(seen)
}

// tally counts what occurs in a world.
func (w *world) tally(s *trust.State, seen map[string]int) {
	for _, c := range w.shown {
		_, err := s.CheckPeer(c.Encode(), c.Leaf.Subject, now)
		switch {
		case err != nil:
			seen["refused: "+kind(err).Error()]++
		case c.Leaf.ValidAt(now) != nil:
			seen["let in by another certificate than the shown one"]++
		default:
			seen["let in"]++
		}
		for _, space := range []replication.SpaceID{w.notes, w.control} {
			what := "log: "
			if space == w.control {
				what = "control log: "
			}
			switch l := s.LogLimit(&replication.Genesis{Network: w.network, Space: space, Origin: c.Leaf.Subject, Epoch: replication.Epoch{1}, Grant: c.Encode()}); {
			case !l.Allowed:
				what += "not allowed"
			case l.Cut == nil:
				what += "all"
			case l.Cut.Seq == 0 && space != w.control:
				what += "cut to nothing"
			default:
				what += "cut"
			}
			seen[what]++
		}
	}
	for _, m := range s.Members() {
		seen["member: "+string(m.Status(now))]++
		for _, r := range s.Revocations() {
			if r.Subject == m.Key && r.Generation < m.Generation && !m.Revoked {
				seen["member again"]++
			}
		}
	}
	for _, i := range s.Invites() {
		if i.Revoked {
			seen["invite: revoked"]++
		}
		if len(i.UsedBy) > 0 {
			seen["invite: used"]++
		}
	}
	o := newOracle(w)
	for _, x := range o.all {
		if x.by.gen > 0 && len(o.adminGrants(o.rootAll, x.by)) > 0 {
			seen["admin by its grant alone"]++
		}
		if r, ok := x.st.(*trust.Revocation); ok && x.by.gen > 0 {
			if who := (peer{r.Subject, r.Generation}); o.isAdmin(who) && len(o.inForce(who, true)) == 0 {
				seen["admin revoked by an admin in vain"]++
			}
		}
	}
}
