package node

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"vixp2p/replication"
	"vixp2p/replication/kv"
)

// EventKind says what became of a key.
type EventKind string

const (
	EventPut      EventKind = "put"      // it has one value
	EventDelete   EventKind = "delete"   // it has none
	EventConflict EventKind = "conflict" // it has several
	// EventReset: the cursor is of another history (the data directory was
	// restored or repaired, or its view rebuilt). What follows starts from the
	// beginning: forget what was known.
	EventReset EventKind = "reset"
)

// Cause is why a key changed, if not because it was written.
type Cause string

// CauseRevocation: writes of the key count no more, because they lie beyond the
// cut of a peer that was revoked.
const CauseRevocation Cause = "revocation"

// Event tells that a key was written, here or by a peer, or that writes of it count
// no more.
type Event struct {
	Kind   EventKind
	Cause  Cause  // empty for a write
	Cursor Cursor // resume after this event
	// Entry is the key's state, at least as new as the write; a delete has the key
	// alone, a reset nothing.
	Entry
}

// Watch ranges over what happens to the keys with a prefix ("": all), in the
// order in which it became durable here: each write of a key once per cursor, or
// joined with a later write of the same key. After a revocation each key that it
// changed is told once, with CauseRevocation, also to who goes on from a cursor of
// before. It starts after the cursor: "" and
// Now mean from the moment of the call, Start from the beginning.
//
//	for ev, err := range s.Watch(ctx, "user/", cursor) {
//		if err != nil { return err }
//	}
//
// It goes on until ctx ends, which is no error. An error comes last, with a zero
// Event, so that `for ev := range s.Watch(...)` may be used where it does not
// matter why the range ended.
func (s *Space) Watch(ctx context.Context, prefix string, from Cursor) iter.Seq2[Event, error] {
	w := watch{s: s, prefix: prefix}
	err := s.check()
	if err == nil {
		err = w.begin(ctx, from)
	}
	return func(yield func(Event, error) bool) {
		w := w // each range starts at the same place
		err := err
		if err == nil {
			err = w.run(ctx, yield)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, errStopped) {
			yield(Event{}, err)
		}
	}
}

// watch is one Watch.
type watch struct {
	s      *Space
	prefix string
	at     replication.Cursor // of the last event
}

// begin finds where to start.
func (w *watch) begin(ctx context.Context, from Cursor) error {
	if from != "" && from != Now && from != Start {
		at, err := replication.ParseCursor(string(from))
		if err != nil {
			return err
		}
		if at.Generation == 0 {
			return fmt.Errorf("this cursor is of a tail, not of a watch: %w", ErrInvalid)
		}
		w.at = at
		return nil
	}
	return w.s.n.do(ctx, func(e *engine) (err error) {
		if from == Start {
			w.at = e.view.Begin()
			return nil
		}
		// What is durable by now is past, even if the view has not come to it.
		if err := e.caughtUp(ctx, w.s.id); err != nil {
			return err
		}
		w.at, err = e.view.Now(ctx, w.s.id)
		return err
	})
}

func (w *watch) run(ctx context.Context, yield func(Event, error) bool) error {
	for {
		err := w.s.n.do(ctx, func(e *engine) error {
			watcher, err := e.view.Watch(ctx, w.s.id, []byte(w.prefix), w.at)
			if err != nil {
				return err
			}
			return w.follow(ctx, e, watcher, yield)
		})
		if !errors.Is(err, errAgain) {
			return err
		}
	}
}

// errAgain ends a watcher that is replaced by one from the beginning.
var errAgain = errors.New("watch again")

func (w *watch) follow(ctx context.Context, e *engine, watcher *kv.Watcher, yield func(Event, error) bool) error {
	for {
		x, err := watcher.Next(ctx)
		if err != nil {
			return err
		}
		w.at = x.Cursor
		if x.Kind == kv.EventReset {
			// Where the view is now does not tell what happened on the way.
			w.at = e.view.Begin()
		}
		ev := Event{Kind: EventKind(x.Kind), Cause: Cause(x.Cause), Cursor: Cursor(w.at.String())}
		if x.Kind != kv.EventReset {
			ev.Entry = entryOf(&x.Entry)
		}
		if x.Kind == kv.EventDelete {
			ev.Entry = Entry{Key: string(x.Key)}
		}
		if !yield(ev, nil) {
			return errStopped
		}
		if x.Kind == kv.EventReset {
			return errAgain
		}
	}
}
