package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"strings"

	"vixp2p/replication"
)

// EventKind is what became of a key.
type EventKind string

const (
	EventPut      EventKind = "put"      // it has one live write
	EventDelete   EventKind = "delete"   // it has none
	EventConflict EventKind = "conflict" // it has several
	// EventReset: the cursor belongs to another history. Events follow from where
	// the view is now: read the state again, then go on.
	EventReset EventKind = "reset"
)

// Cause is why a key changed, if not because it was written.
type Cause string

// CauseRevocation: a cut took back writes of the key (design 5.5).
const CauseRevocation Cause = "revocation"

// Event tells that a key was written, or that a cut took back writes of it.
type Event struct {
	Kind EventKind
	// Cause is empty for a write.
	Cause Cause
	// Cursor resumes after this event.
	Cursor replication.Cursor
	// Entry is the key's winner as of some time after the write; in a delete it
	// has the key alone, in a reset nothing.
	Entry
}

// Watcher follows a space in arrival order. It is not safe for concurrent use.
// It holds no more than the keys of some blocks: a slow one costs no memory.
type Watcher struct {
	v      *View
	space  replication.SpaceID
	prefix string
	// at is the cursor of the last event, or where the watcher started.
	at replication.Cursor
	// read: what happened up to this place is in queue or behind it.
	read  place
	queue []keyEvent
}

// place is one in the order of a space's events: op counts the operations of the
// block with the arrival number, and goes on with what retreats changed before
// the next block was applied.
type place struct{ arrival, op uint64 }

func (p place) before(q place) bool {
	return p.arrival < q.arrival || p.arrival == q.arrival && p.op < q.op
}

// keyEvent is an event to come.
type keyEvent struct {
	place
	key   []byte
	cause Cause
}

// A watcher reads about so many bytes of the store, and of what retreats changed,
// at a time.
const watchBytes = 64 << 10

// Watch follows the keys with a prefix from a cursor on: one event for each key
// that a block wrote, in the order in which the blocks became durable here, with
// the key's state at least as new as the block. Where a cut took blocks back
// there is one event, with CauseRevocation, for each key of which that changed the
// siblings, after the blocks that were applied before; blocks that do not count
// give none. A cursor from before goes on with both. The zero cursor starts now,
// after what reads see already; Begin starts with the first block. A cursor of
// another instance or generation gives EventReset first.
func (v *View) Watch(ctx context.Context, space replication.SpaceID, prefix []byte, from replication.Cursor) (*Watcher, error) {
	w := &Watcher{v: v, space: space, prefix: string(prefix), at: from}
	if from == (replication.Cursor{}) {
		now, err := v.now(ctx, space)
		if err != nil {
			return nil, err
		}
		w.at = now
	}
	w.resume()
	return w, nil
}

// Begin is the cursor before the first block.
func (v *View) Begin() replication.Cursor {
	return replication.Cursor{Instance: v.store.Info().Instance, Generation: v.Generation()}
}

// now is the cursor after the newest block that reads see.
func (v *View) now(ctx context.Context, space replication.SpaceID) (replication.Cursor, error) {
	c := replication.Cursor{Instance: v.store.Info().Instance}
	for {
		s, err := v.await(ctx, space)
		if err != nil {
			return c, err
		}
		v.mu.RLock()
		c.Generation = v.generation
		current := v.d == s.database
		if sp := v.spaces[space]; sp != nil {
			c.Arrival, c.Op = sp.applied, sp.appliedOps
			current = current && sp.back.told.Load() == s.retreats
		}
		v.mu.RUnlock()
		if current {
			return c, nil
		}
	}
}

// resume makes the block of the cursor be read again: it may have more keys.
func (w *Watcher) resume() {
	w.queue, w.read = nil, place{}
	if w.at.Arrival > 0 {
		w.read = place{w.at.Arrival - 1, math.MaxUint64}
	}
}

// Next waits for the next event. Its errors are those of reads; Next may be
// called again after an error.
func (w *Watcher) Next(ctx context.Context) (Event, error) {
	for {
		s, err := w.v.await(ctx, w.space)
		if err != nil {
			return Event{}, err
		}
		w.v.mu.RLock()
		generation, changed := w.v.generation, w.v.changed
		var applied place
		if sp := w.v.spaces[w.space]; sp != nil {
			applied = place{sp.applied, sp.appliedOps}
		}
		w.v.mu.RUnlock()
		if w.at.Generation != generation || w.at.Instance != w.v.store.Info().Instance || w.at.Arrival > w.v.store.Head() {
			return w.reset(ctx)
		}
		if len(w.queue) > 0 {
			return w.next(ctx)
		}
		if w.read.before(applied) {
			if r, ok := w.v.read(s, w.space); ok {
				if err := w.fill(r); err != nil {
					return Event{}, err
				}
			}
			continue
		}
		select {
		case <-changed:
		case <-w.v.closing:
			return Event{}, replication.ErrClosed
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

func (w *Watcher) reset(ctx context.Context) (Event, error) {
	now, err := w.v.now(ctx, w.space)
	if err != nil {
		return Event{}, err
	}
	w.at = now
	w.resume()
	return Event{Kind: EventReset, Cursor: now}, nil
}

// next makes the event of the first key in the queue.
func (w *Watcher) next(ctx context.Context) (Event, error) {
	k := w.queue[0]
	entry, ok, err := w.v.Get(ctx, w.space, k.key)
	if err != nil {
		return Event{}, err
	}
	w.queue = w.queue[1:]
	w.at.Arrival, w.at.Op = k.arrival, k.op
	e := Event{Kind: EventPut, Cause: k.cause, Cursor: w.at, Entry: entry}
	switch {
	case !ok:
		e.Kind, e.Entry = EventDelete, Entry{Key: k.key}
	case entry.Conflicts > 0:
		e.Kind = EventConflict
	}
	return e, nil
}

// fill reads on, up to what a reader sees. It closes the reader.
func (w *Watcher) fill(r *reader) error {
	changes, end, err := r.changes(w.read)
	if err != nil {
		return err
	}
	var arrivals []replication.Arrival
	if w.read.arrival < end.arrival {
		arrivals, err = w.v.store.ReadArrivals(w.space, w.read.arrival, watchBytes)
		if err != nil && len(arrivals) == 0 {
			return err
		}
	}
	if n := len(arrivals); n > 0 && arrivals[n-1].Number < end.arrival {
		end = place{arrivals[n-1].Number, math.MaxUint64} // there may be more
	}
	for i := range arrivals {
		at := &arrivals[i]
		if at.Number > end.arrival {
			break
		}
		changes = w.enqueueChanges(changes, place{at.Number, 0})
		w.read = place{at.Number - 1, math.MaxUint64}
		if err := w.enqueue(at); err != nil {
			return err
		}
	}
	w.enqueueChanges(changes, end)
	w.read = end
	return nil
}

// enqueueChanges queues what retreats changed up to a place, and returns the rest.
func (w *Watcher) enqueueChanges(changes []keyEvent, to place) []keyEvent {
	for len(changes) > 0 && !to.before(changes[0].place) {
		c := changes[0]
		changes = changes[1:]
		seen := !place{w.at.Arrival, w.at.Op}.before(c.place)
		if !seen && strings.HasPrefix(string(c.key), w.prefix) {
			w.queue = append(w.queue, c)
		}
	}
	return changes
}

// changes reads what retreats changed after a place, and up to where that goes:
// to what is applied, unless it is much. It closes the reader.
func (r *reader) changes(after place) (list []keyEvent, end place, err error) {
	defer r.finish(&err)
	c, err := loadCursor(r.snap.Txn, r.space)
	if err != nil {
		return nil, place{}, err
	}
	end = place{c.arrival, c.ops}
	prefix := spacePrefix(prefixChange, r.space, changeLen)
	size := 0
	err = scan(r.snap.Txn, prefix, changeKey(r.space, after.arrival, after.op), func(dbKey, key []byte) error {
		if len(dbKey) != len(prefix)+changeLen {
			return errRecord
		}
		at := place{binary.BigEndian.Uint64(dbKey[len(prefix):]), binary.BigEndian.Uint64(dbKey[len(prefix)+8:])}
		if !after.before(at) {
			return nil
		}
		if size > watchBytes {
			end = list[len(list)-1].place
			return errStop
		}
		list = append(list, keyEvent{at, bytes.Clone(key), CauseRevocation})
		size += len(dbKey) + len(key)
		return nil
	})
	return list, end, err
}

// enqueue queues one event for each key of a block, at the key's last operation,
// so that a cursor between two events of a block resumes without repeating one.
func (w *Watcher) enqueue(at *replication.Arrival) error {
	open, err := openFor(w.v.opt.Opener, w.space)
	if err != nil {
		return err
	}
	ops, err := blockOps(at.Block, open)
	if err != nil {
		return err
	}
	last := map[string]int{}
	for i := range ops {
		if counts(&ops[i]) && strings.HasPrefix(string(ops[i].Key), w.prefix) {
			last[string(ops[i].Key)] = i
		}
	}
	for i := range ops {
		key := string(ops[i].Key)
		seen := at.Number == w.at.Arrival && uint64(i) < w.at.Op
		if n, ok := last[key]; ok && n == i && !seen {
			w.queue = append(w.queue, keyEvent{place: place{at.Number, uint64(i) + 1}, key: []byte(key)})
		}
	}
	return nil
}
