package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"vixp2p/replication"
)

// reader reads one space in one snapshot.
type reader struct {
	v       *View
	snap    snapshot
	space   replication.SpaceID
	unfault func()
}

// serving is a database that can serve a space, until the next retreat.
type serving struct {
	*database
	space    *spaceState // nil: nothing was ever written there
	retreats uint64      // told of so far
}

// current tells whether the space, which is known, did not go back since.
func (s *serving) current() bool { return s.space.back.told.Load() == s.retreats }

// await returns the database once it can serve a space: it has caught up with
// what the store held when the view was opened or rebuilt, and with every retreat
// that the store has told of.
func (v *View) await(ctx context.Context, space replication.SpaceID) (serving, error) {
	for {
		v.mu.RLock()
		s, err := v.readyLocked(space)
		changed := v.changed
		v.mu.RUnlock()
		if err != nil || s.database != nil {
			return s, err
		}
		if err := v.hurried(ctx, changed); err != nil {
			return serving{}, fmt.Errorf("the key-value view is not ready: %w", err)
		}
	}
}

// readyLocked returns no database and no error if it is worth waiting.
func (v *View) readyLocked(space replication.SpaceID) (serving, error) {
	if v.closed {
		return serving{}, replication.ErrClosed
	}
	if v.d == nil || !v.checked {
		return serving{}, v.failed
	}
	sp := v.spaces[space]
	switch {
	case sp == nil:
		return serving{v.d, nil, 0}, nil
	case sp.hopes():
		return serving{}, nil
	case errors.Is(sp.err, replication.ErrUpgradeNeeded), sp.unreadable():
		return serving{}, sp.err
	case sp.upTo >= v.target && !sp.back.pending():
		return serving{v.d, sp, sp.back.told.Load()}, nil
	}
	return serving{}, sp.err
}

// read opens a reader on what await returned; false if that was retired, or the
// space went back, meanwhile: await again. What the caller took from the overlay
// in between belongs to the reader's state.
func (v *View) read(s serving, space replication.SpaceID) (*reader, bool) {
	snap, ok := s.snapshot()
	if !ok {
		return nil, false
	}
	if !v.serves(s, space) {
		snap.close()
		return nil, false
	}
	return &reader{v: v, snap: snap, space: space, unfault: faultsPanic()}, true
}

// serves tells whether the space did not go back since await returned s.
func (v *View) serves(s serving, space replication.SpaceID) bool {
	if s.space != nil {
		return s.current()
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	sp := v.spaces[space]
	return sp == nil || sp.back.told.Load() == 0
}

// readNow is await and read without waiting: ErrNotReady instead.
func (v *View) readNow(space replication.SpaceID) (*reader, error) {
	v.mu.RLock()
	s, err := v.readyLocked(space)
	v.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	if s.database != nil {
		if r, ok := v.read(s, space); ok {
			return r, nil
		}
	}
	return nil, ErrNotReady
}

// finish closes the reader. Deferred, it turns what damage does to a read into
// an error, and has the view rebuilt.
func (r *reader) finish(err *error) {
	r.caught(recover(), err)
	r.snap.close()
	r.unfault()
}

// caught turns a recovered panic or a bad record into a *DamageError and has the
// view rebuilt.
func (r *reader) caught(p any, err *error) {
	dir := r.snap.d.dir
	switch {
	case p != nil:
		*err = &replication.DamageError{File: dir, Problem: fmt.Sprintf("the view's database failed on it (%s)", firstLine(fmt.Sprint(p)))}
	case errors.Is(*err, errRecord):
		*err = &replication.DamageError{File: dir, Problem: (*err).Error()}
	default:
		return
	}
	r.v.askRebuild(rebuild{generation: r.snap.d.generation, why: *err})
}

// siblings returns a key's effective siblings, winner first, at most limit of
// them, and their number: what the snapshot holds with the overlay operations
// ops, which were taken before the snapshot was opened.
func (r *reader) siblings(key []byte, ops []*overlayOp, limit int) ([]sibling, uint64, error) {
	rec, err := readKey(r.snap.record, r.space, key)
	if err != nil {
		return nil, 0, err
	}
	return r.effective(key, rec, ops, limit)
}

func (r *reader) effective(key []byte, rec keyRecord, ops []*overlayOp, limit int) ([]sibling, uint64, error) {
	ops, err := r.unapplied(ops)
	if err != nil {
		return nil, 0, err
	}
	if len(ops) == 0 && (!rec.large || limit <= 1) {
		return rec.sibs[:min(limit, len(rec.sibs))], rec.n, nil
	}
	gone := map[replication.Dot]struct{}{}
	for _, o := range ops {
		for _, d := range o.supersedes {
			gone[d] = struct{}{}
		}
	}
	best := top{ranker: r.v.rank, limit: max(limit, 1)}
	n := uint64(0)
	live := func(s sibling) error {
		if _, ok := gone[s.dot]; !ok {
			n++
			best.add(s)
		}
		return nil
	}
	for _, o := range ops {
		if !o.del {
			_ = live(o.sibling) // it returns nil
		}
	}
	if rec.large {
		err = scanSiblings(r.snap.Txn, r.space, hashKey(key), live)
	} else {
		for _, s := range rec.sibs {
			_ = live(s)
		}
	}
	return best.take(), n, err
}

// unapplied leaves out what the snapshot has applied.
func (r *reader) unapplied(ops []*overlayOp) ([]*overlayOp, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	var out []*overlayOp
	var log replication.LogID
	var applied uint64
	for _, o := range ops {
		if o.dot.Log != log {
			rec, _, err := loadLog(r.snap.Txn, r.space, o.dot.Log)
			if err != nil {
				return nil, err
			}
			log, applied = o.dot.Log, rec.seq
		}
		if o.dot.Seq > applied {
			out = append(out, o)
		}
	}
	return out, nil
}

// entry makes what callers get of a sibling.
func (r *reader) entry(key []byte, s sibling, n uint64) (Entry, error) {
	if err := loadValue(r.snap.Txn, r.space, &s); err != nil {
		return Entry{}, err
	}
	return r.v.entryOf(key, &s, n), nil
}

// entryOf makes what callers get of a sibling, of n, whose value is there. The value is
// the caller's: a copy, unless it was read for this alone.
func (v *View) entryOf(key []byte, s *sibling, n uint64) Entry {
	info, _ := v.store.Log(s.dot.Log)
	value := s.value
	if !s.apart {
		value = bytes.Clone(value)
	}
	return Entry{
		Key: key, Value: value, Dot: s.dot, Origin: info.Origin,
		HLC: s.hlc, Order: s.order, Conflicts: n - 1,
	}
}
