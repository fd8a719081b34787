package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/sealed"
)

// Cursor is a place in what Tail or Watch tells: resume after it and nothing is
// missed and nothing comes twice. It is meaningful at the node that gave it, and
// for the method that gave it. Keep it as text.
type Cursor string

const (
	// Now is the cursor from which Tail and Watch tell what happens from the
	// moment of the call on: what "" means for Watch.
	Now Cursor = "now"
	// Start is the cursor before everything: what "" means for Tail.
	Start Cursor = "start"
)

// Operation is one operation of the space's logs, as it arrived here.
type Operation struct {
	Cursor Cursor // resume after this operation
	Origin string // peer ID of the node that wrote it
	Log    string // hex; Log and Seq name the operation
	Seq    uint64 // from 1
	Time   time.Time
	// Kind is "put", "delete", or the name of an application's own kind, which
	// need not be UTF-8 where another member wrote it.
	Kind    string
	Key     string // empty where it has none
	Payload []byte // the value of a put
}

const (
	kindPut    = "put"
	kindDelete = "delete"
)

// tailBytes is how much of the log is read at a time.
const tailBytes = 1 << 20

// Tail ranges over the operations of the space in the order in which they became
// durable here: all logs, each in order, without gaps, each operation once per
// cursor (G4). It starts after the cursor: "" and Start mean with the first
// operation, Now with the first after the call. With follow it waits for more until ctx ends; else it ends
// with what there is.
//
//	for op, err := range s.Tail(ctx, "", false) {
//		if err != nil { return err }
//	}
//
// An error comes last, with a zero Operation: ErrCursorReset for a cursor of
// another history (the data directory was restored or repaired: start again);
// ErrNoKey where a content key is missing, and then it goes on from the last cursor
// when the key is here; ErrNotReader.
// The end of ctx is no error.
func (s *Space) Tail(ctx context.Context, from Cursor, follow bool) iter.Seq2[Operation, error] {
	begin := tail{s: s}
	err := s.check()
	if err == nil {
		err = s.n.do(ctx, func(e *engine) error { return begin.begin(e, from) })
	}
	return func(yield func(Operation, error) bool) {
		t, err := begin, err // each range starts at the same place
		if t.yield = yield; err == nil {
			err = t.run(ctx, follow)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, errStopped) {
			yield(Operation{}, err)
		}
	}
}

// tail is one Tail under way.
type tail struct {
	s     *Space
	yield func(Operation, error) bool
	at    replication.Cursor
}

func (t *tail) run(ctx context.Context, follow bool) error {
	for {
		more := false
		err := t.s.n.do(ctx, func(e *engine) (err error) {
			if err := t.check(e); err != nil {
				return err
			}
			more, err = t.follow(ctx, e, follow)
			return err
		})
		if err != nil || !more {
			return err
		}
	}
}

// begin finds the place in the engine's history.
func (t *tail) begin(e *engine, from Cursor) (err error) {
	switch from {
	case "", Start:
		t.at = replication.Cursor{Instance: e.store.Info().Instance}
	case Now:
		// Before the next block's first operation.
		t.at = replication.Cursor{Instance: e.store.Info().Instance, Arrival: e.store.Head() + 1}
	default:
		if t.at, err = replication.ParseCursor(string(from)); err == nil && t.at.Generation != 0 {
			err = fmt.Errorf("this cursor is of a watch, not of a tail: %w", ErrInvalid)
		}
	}
	return err
}

// check refuses a place in another history. A repair may keep the history: then
// the tail goes on where it was.
func (t *tail) check(e *engine) error {
	if t.at.Instance != e.store.Info().Instance {
		return fmt.Errorf("the data directory has another history since this cursor was made: tail from the start: %w", ErrCursorReset)
	}
	return nil
}

// follow tells what the engine has; more if the engine was replaced meanwhile.
func (t *tail) follow(ctx context.Context, e *engine, follow bool) (more bool, err error) {
	wake := make(chan struct{}, 1)
	if follow {
		cancel := e.store.Subscribe(func(a replication.Advance) {
			if a.Space == t.s.id {
				select {
				case wake <- struct{}{}:
				default:
				}
			}
		})
		defer cancel()
	}
	for {
		n, err := t.read(ctx, e)
		switch {
		case err != nil:
			return false, err
		case n > 0:
			continue
		case !follow:
			return false, nil
		}
		select {
		case <-wake:
		case <-e.retired:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// read tells some blocks and returns how many.
func (t *tail) read(ctx context.Context, e *engine) (int, error) {
	after := t.at.Arrival
	if after > 0 {
		after-- // of the block at the cursor there may be operations left
	}
	arrivals, readErr := e.store.ReadArrivals(t.s.id, after, tailBytes)
	if len(arrivals) == 0 {
		return 0, readErr
	}
	open, err := e.openFor(t.s.id)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range arrivals {
		a := &arrivals[i]
		ops, err := sealed.Ops(a.Block, open)
		var void *replication.VoidError
		if err != nil && !errors.As(err, &void) {
			return n, err
		}
		seen := uint64(0)
		if a.Number == t.at.Arrival {
			seen = t.at.Op
		}
		if a.Number == t.at.Arrival && seen >= a.Block.Header.Count {
			continue // told before
		}
		n++
		for i := seen; i < uint64(len(ops)); i++ {
			if ctx.Err() != nil {
				return n, ctx.Err()
			}
			t.at.Arrival, t.at.Op = a.Number, i+1
			if !t.yield(operation(Cursor(t.at.String()), a.Origin, a.Block, &ops[i], i), nil) {
				return n, errStopped
			}
		}
		t.at.Arrival, t.at.Op = a.Number, a.Block.Header.Count
	}
	return n, readErr
}

// operation is the i-th operation of a block.
func operation(at Cursor, origin replication.OriginKey, b *replication.Block, op *replication.Op, i uint64) Operation {
	return Operation{
		Cursor: at, Origin: originName(origin),
		Log: b.Header.Log.String(), Seq: b.Header.FirstSeq + i,
		Time: op.HLC.Time(), Kind: kindName(op), Key: string(op.Key), Payload: op.Payload,
	}
}

func kindName(op *replication.Op) string {
	switch op.Kind {
	case replication.KindPut:
		return kindPut
	case replication.KindDelete:
		return kindDelete
	case replication.KindApp:
		return op.Name
	}
	return fmt.Sprintf("kind %d", op.Kind)
}
