package kv

import (
	"bytes"
	"cmp"
	"slices"

	"vixp2p/replication"
)

// ranker orders siblings by (order, HLC, origin, epoch, seq) (design 5.1), all
// taken from the operations and their log's genesis, so that every node names
// the same winner.
type ranker struct {
	log func(replication.LogID) (replication.LogInfo, bool)
}

// compare is positive if a ranks above b.
func (r ranker) compare(a, b *sibling) int {
	if c := cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.hlc, b.hlc)); c != 0 {
		return c
	}
	if a.dot.Log != b.dot.Log {
		// A log that the store does not know has no origin here; that happens only
		// to operations that wait in the committer, all of one log.
		la, _ := r.log(a.dot.Log)
		lb, _ := r.log(b.dot.Log)
		if c := cmp.Or(bytes.Compare(la.Origin[:], lb.Origin[:]), bytes.Compare(la.Epoch[:], lb.Epoch[:])); c != 0 {
			return c
		}
	}
	return cmp.Compare(a.dot.Seq, b.dot.Seq)
}

// sort puts the winner first.
func (r ranker) sort(s []sibling) {
	if len(s) > 1 {
		slices.SortFunc(s, func(a, b sibling) int { return r.compare(&b, &a) })
	}
}

// top collects the highest ranked of any number of siblings in bounded memory.
type top struct {
	ranker
	limit int
	best  []sibling // at most 2*limit, in no order
}

// add takes a sibling that it may keep.
func (t *top) add(s sibling) {
	t.best = append(t.best, s)
	if len(t.best) >= 2*t.limit {
		t.cut()
	}
}

// take returns the highest ranked, winner first.
func (t *top) take() []sibling {
	t.cut()
	return t.best
}

func (t *top) cut() {
	t.sort(t.best)
	if len(t.best) > t.limit {
		clear(t.best[t.limit:])
		t.best = t.best[:t.limit]
	}
}
