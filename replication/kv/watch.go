package kv

import (
	"context"
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

// Event tells that a key was written.
type Event struct {
	Kind EventKind
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
	// read: the blocks up to this arrival number are in queue or behind it.
	read  uint64
	queue []keyEvent
}

// keyEvent is an event to come.
type keyEvent struct {
	arrival, op uint64
	key         []byte
}

// watchBytes is about how much a watcher reads of the store at a time.
const watchBytes = 64 << 10

// Watch follows the keys with a prefix from a cursor on: one event for each key
// that a block wrote, in the order in which the blocks became durable here, with
// the key's state at least as new as the block. The zero cursor starts now, after
// what reads see already; Begin starts with the first block. A cursor of another
// instance or generation gives EventReset first.
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
		d, err := v.await(ctx, space)
		if err != nil {
			return c, err
		}
		v.mu.RLock()
		c.Generation = v.generation
		if sp := v.spaces[space]; sp != nil {
			c.Arrival, c.Op = sp.applied, sp.appliedOps
		}
		current := v.d == d
		v.mu.RUnlock()
		if current {
			return c, nil
		}
	}
}

// resume makes the block of the cursor be read again: it may have more keys.
func (w *Watcher) resume() {
	w.queue, w.read = nil, 0
	if w.at.Arrival > 0 {
		w.read = w.at.Arrival - 1
	}
}

// Next waits for the next event. Its errors are those of reads; Next may be
// called again after an error.
func (w *Watcher) Next(ctx context.Context) (Event, error) {
	for {
		if _, err := w.v.await(ctx, w.space); err != nil {
			return Event{}, err
		}
		w.v.mu.RLock()
		generation, changed := w.v.generation, w.v.changed
		var applied uint64
		if sp := w.v.spaces[w.space]; sp != nil {
			applied = sp.applied
		}
		w.v.mu.RUnlock()
		if w.at.Generation != generation || w.at.Instance != w.v.store.Info().Instance || w.at.Arrival > w.v.store.Head() {
			return w.reset(ctx)
		}
		if len(w.queue) > 0 {
			return w.next(ctx)
		}
		if w.read < applied {
			if err := w.fill(applied); err != nil {
				return Event{}, err
			}
			continue
		}
		select {
		case <-changed:
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
	e := Event{Kind: EventPut, Cursor: w.at, Entry: entry}
	switch {
	case !ok:
		e.Kind, e.Entry = EventDelete, Entry{Key: k.key}
	case entry.Conflicts > 0:
		e.Kind = EventConflict
	}
	return e, nil
}

// fill reads more blocks, of those up to applied.
func (w *Watcher) fill(applied uint64) error {
	arrivals, err := w.v.store.ReadArrivals(w.space, w.read, watchBytes)
	if err != nil && len(arrivals) == 0 {
		return err
	}
	if len(arrivals) == 0 {
		w.read = applied // the newest block was the last one's of the space
		return nil
	}
	for i := range arrivals {
		if arrivals[i].Number > applied {
			break
		}
		if err := w.enqueue(&arrivals[i]); err != nil {
			return err
		}
		w.read = arrivals[i].Number
	}
	return nil
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
			w.queue = append(w.queue, keyEvent{at.Number, uint64(i) + 1, []byte(key)})
		}
	}
	return nil
}
