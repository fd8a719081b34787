package kv

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"vixp2p/replication"
)

var _ replication.Resolver = (*View)(nil)

// Resolve fills in what the keyed operations of one batch supersede: the dots of
// the key's siblings as this node sees them, the highest ranked MaxSupersedes of
// them, including those of operations that the committer resolved before. What
// the caller set there is replaced. A delete of a key without siblings names
// nothing and changes nothing.
//
// The order of an operation is one above the highest order that it names, or its
// HLC if that is more; but never so far above its HLC that the operation would
// be void: then it gets the highest order that counts. So a key that was written
// under a clock far ahead can be overwritten at once; what the capped order
// loses is only its rank against a third write, concurrent and under such a
// clock too.
//
// It returns replication.ErrConflict if a condition does not hold before the
// batch, and ErrNotReady while the view is catching up (see Admit).
func (v *View) Resolve(space replication.SpaceID, first replication.Dot, ops []replication.Op, conds []replication.Condition) (err error) {
	batch := map[string][]*overlayOp{} // what the overlay has, then also this batch's own
	for i := range ops {
		if isWrite(&ops[i]) {
			batch[string(ops[i].Key)] = nil
		}
	}
	for _, c := range conds {
		batch[string(c.Key)] = nil
	}
	if len(batch) == 0 {
		return nil
	}
	for key := range batch {
		batch[key] = v.overlay.of(space, []byte(key), true)
	}
	r, err := v.readNow(space)
	if err != nil {
		return err
	}
	defer r.finish(&err)
	for _, c := range conds {
		if err := r.holds(c, batch[string(c.Key)]); err != nil {
			return err
		}
	}
	var mine []*overlayOp
	for i := range ops {
		o := &ops[i]
		if !isWrite(o) {
			continue
		}
		sibs, _, err := r.siblings(o.Key, batch[string(o.Key)], replication.MaxSupersedes)
		if err != nil {
			return err
		}
		supersede(o, sibs)
		staged := &overlayOp{
			at: overlayAt(space, o.Key), del: o.Kind == replication.KindDelete,
			sibling: sibling{
				dot:   replication.Dot{Log: first.Log, Seq: first.Seq + uint64(i)},
				order: o.Order, hlc: o.HLC, value: bytes.Clone(o.Payload),
			},
			supersedes: o.Supersedes,
		}
		mine = append(mine, staged)
		batch[string(o.Key)] = append(batch[string(o.Key)], staged)
	}
	v.overlay.stage(first.Log, mine)
	return nil
}

func isWrite(o *replication.Op) bool {
	return o.Kind == replication.KindPut || o.Kind == replication.KindDelete
}

// supersede makes an operation name its key's siblings, and rank above them.
func supersede(o *replication.Op, sibs []sibling) {
	highest := uint64(0)
	dots := make([]replication.Dot, 0, len(sibs))
	for i := range sibs {
		highest = max(highest, sibs[i].order)
		dots = append(dots, sibs[i].dot)
	}
	slices.SortFunc(dots, replication.Dot.Compare)
	o.Supersedes = dots
	limit := uint64(o.HLC) + replication.MaxOrderLead - 1
	if limit < uint64(o.HLC) {
		limit = math.MaxUint64
	}
	o.Order = uint64(o.HLC)
	if highest >= o.Order {
		o.Order = limit
		if highest < limit {
			o.Order = highest + 1
		}
	}
}

// holds checks one condition.
func (r *reader) holds(c replication.Condition, ops []*overlayOp) error {
	sibs, _, err := r.siblings(c.Key, ops, len(c.Dots)+1) // one more would differ
	if err != nil {
		return err
	}
	want := slices.Clone(c.Dots)
	slices.SortFunc(want, replication.Dot.Compare)
	have := make([]replication.Dot, 0, len(sibs))
	for i := range sibs {
		have = append(have, sibs[i].dot)
	}
	slices.SortFunc(have, replication.Dot.Compare)
	if !slices.Equal(want, have) {
		return fmt.Errorf("key %q is no longer as it was read: read it again and decide anew: %w", c.Key, replication.ErrConflict)
	}
	return nil
}

// Settle makes the operations of a log up to through visible to reads: they are
// durable.
func (v *View) Settle(_ replication.SpaceID, log replication.LogID, through uint64) {
	v.overlay.settle(log, through)
}

// Discard forgets the operations of a log from from on: they never happened.
func (v *View) Discard(_ replication.SpaceID, log replication.LogID, from uint64) {
	v.overlay.discard(log, from)
}
