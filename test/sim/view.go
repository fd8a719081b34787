package sim

import (
	"crypto/sha256"
	"sort"
	"time"

	"vixp2p/replication"
)

// view is the pure function of design 5.2, "puts on k that no op on k names",
// kept as sets, so that it cannot depend on an order.
type view struct {
	keys   map[string]*register
	digest [32]byte // over all live puts
}

type register struct {
	puts, named map[replication.Dot]bool
}

func newView() view { return view{keys: map[string]*register{}} }

func (v *view) apply(d replication.Dot, o *replication.Op) {
	r := v.keys[string(o.Key)]
	if r == nil {
		r = &register{puts: map[replication.Dot]bool{}, named: map[replication.Dot]bool{}}
		v.keys[string(o.Key)] = r
	}
	flip := func(d replication.Dot) {
		h := sha256.Sum256(append(append(append([]byte{}, d.Log[:]...), uint64Bytes(d.Seq)...), o.Key...))
		addHash(&v.digest, h)
	}
	for _, s := range o.Supersedes {
		if r.puts[s] && !r.named[s] {
			flip(s)
		}
		r.named[s] = true
	}
	if o.Kind == replication.KindPut {
		r.puts[d] = true
		if !r.named[d] {
			flip(d)
		}
	}
}

// live is the siblings of a key, ordered.
func (v *view) live(key string) []replication.Dot {
	r := v.keys[key]
	if r == nil {
		return nil
	}
	var dots []replication.Dot
	for d := range r.puts {
		if !r.named[d] {
			dots = append(dots, d)
		}
	}
	sort.Slice(dots, func(i, j int) bool { return dots[i].Compare(dots[j]) < 0 })
	return dots
}

// writeLater lets a node write from time to time until the heal.
func (n *node) writeLater() {
	w := n.w
	w.after(w.some(2*w.odds.write), func() {
		if w.calm {
			return
		}
		if n.store != nil {
			n.write()
		}
		n.writeLater()
	})
}

var keys = []string{"a", "b", "c", "d"}

func (n *node) write() {
	w := n.w
	spaces := n.dataSpaces()
	if len(spaces) == 0 {
		return
	}
	b := replication.Batch{Space: spaces[w.rng.IntN(len(spaces))].ID}
	for range 1 + w.rng.IntN(4) {
		key := keys[w.rng.IntN(len(keys))]
		o := replication.Op{Kind: replication.KindPut, Key: []byte(key), Supersedes: n.mirror.view.live(key)}
		if w.chance(0.2) {
			o.Kind = replication.KindDelete
		} else {
			o.Payload = make([]byte, w.rng.IntN(300))
		}
		b.Ops = append(b.Ops, o)
	}
	w.res.Writes++
	if w.cfg.Fault == AppendTooEarly {
		n.acknowledgeEarly(b.Space, len(b.Ops))
	}
	n.store.AppendAsync(b, func(at replication.Appended, err error) {
		w.checkAppend(n, b.Space, err)
		if err != nil {
			w.trace("%s: append: %v", n, err)
			return
		}
		w.trace("%s appended %s up to %d", n, at.First.Log.Short(), at.Pos.Seq)
		n.mirror.acked[at.First.Log] = at.Pos
	})
	n.ifAlive(w.some(time.Millisecond), n.flushLater)
}

// acknowledgeEarly is the mistake of AppendTooEarly: it counts a write that is
// only queued as the next of the log that the node wrote last.
func (n *node) acknowledgeEarly(space replication.SpaceID, ops int) {
	for _, i := range n.store.Logs(space) {
		if at := n.mirror.acked[i.Log]; at.Seq > 0 {
			at.Seq += uint64(ops)
			n.mirror.acked[i.Log] = at
			return
		}
	}
}

func sortedLogs(m map[replication.LogID]replication.Position) []replication.LogID {
	ids := make([]replication.LogID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i].Compare(ids[j]) < 0 })
	return ids
}
