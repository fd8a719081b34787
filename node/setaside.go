package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/sealed"
)

// SetAsideWrites are writes of one peer in one space that a cut took out of view: they
// lie beyond its revocation, or nothing that still counts allows them. They are kept for
// 30 days, and come back if the cut is lifted meanwhile.
type SetAsideWrites struct {
	Origin string // peer ID
	Label  string // of its certificate; empty where none counts
	Space  string
	Ops    uint64
	Logs   int
	// Since is when the first of them were set aside, Until when these are removed.
	Since, Until time.Time
}

// SetAsideOperation is an operation that is set aside. Its Cursor is empty. It is kept
// until then at least.
type SetAsideOperation struct {
	Operation
	Since, Until time.Time
}

// SetAside tells whose writes are set aside here, by peer and space. None in an open
// network.
func (n *Node) SetAside(ctx context.Context) (list []SetAsideWrites, err error) {
	err = n.do(ctx, func(e *engine) error {
		list = n.setAside(e)
		return nil
	})
	return list, err
}

func (n *Node) setAside(e *engine) (list []SetAsideWrites) {
	if n.members == nil {
		return nil
	}
	type place struct {
		origin replication.OriginKey
		space  replication.SpaceID
	}
	at := map[place]int{}
	for _, l := range e.store.SetAside() {
		p := place{l.Origin, l.Space}
		i, known := at[p]
		if !known {
			i, at[p] = len(list), len(list)
			w := SetAsideWrites{Origin: originName(l.Origin), Space: n.members.spaceTitle(l.Space), Since: l.SetAsideSince}
			if m, ok := n.members.state.Load().Member(l.Origin); ok {
				w.Label = m.Label
			}
			list = append(list, w)
		}
		w := &list[i]
		w.Ops, w.Logs = w.Ops+l.SetAside, w.Logs+1
		if l.SetAsideSince.Before(w.Since) {
			w.Since = l.SetAsideSince
		}
		w.Until = w.Since.Add(replication.SetAsideFor)
	}
	slices.SortFunc(list, func(a, b SetAsideWrites) int {
		return cmp.Or(cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Space, b.Space))
	})
	return list
}

// SetAside ranges over the operations of the space that are set aside, log by log, each
// in order. What is let count, set aside or removed meanwhile may be missing.
//
// An error comes last, with a zero SetAsideOperation. ErrNoKey and ErrNotReader: the
// space is encrypted, and this node cannot read some of them, which are left out, or any.
// The end of ctx is no error.
func (s *Space) SetAside(ctx context.Context) iter.Seq2[SetAsideOperation, error] {
	return func(yield func(SetAsideOperation, error) bool) {
		r := asideReader{s: s, yield: yield}
		if err := r.run(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errStopped) {
			yield(SetAsideOperation{}, err)
		}
	}
}

// asideReader is one reading of what is set aside of a space.
type asideReader struct {
	s      *Space
	yield  func(SetAsideOperation, error) bool
	locked uint64 // operations that could not be opened
	why    error  // the last one's reason
}

func (r *asideReader) run(ctx context.Context) error {
	if err := r.s.check(); err != nil {
		return err
	}
	var logs []replication.LogInfo
	err := r.s.n.do(ctx, func(e *engine) error {
		logs = slices.DeleteFunc(e.store.SetAside(), func(l replication.LogInfo) bool { return l.Space != r.s.id })
		return nil
	})
	for i := range logs {
		for at, more := uint64(0), true; more && err == nil; {
			err = r.s.n.do(ctx, func(e *engine) (err error) {
				at, more, err = r.read(ctx, e, &logs[i], at)
				return err
			})
		}
	}
	if err == nil && r.locked > 0 {
		err = fmt.Errorf("%d of the operations that are set aside in space %q cannot be read: %w", r.locked, r.s.name, r.why)
	}
	return err
}

// errEnough ends a reading that has as much as it wanted.
var errEnough = errors.New("enough")

// read tells some blocks of a log that begin after a seq, and where it goes on. Nothing
// of the store waits while they are told.
func (r *asideReader) read(ctx context.Context, e *engine, l *replication.LogInfo, after uint64) (at uint64, more bool, err error) {
	open, err := e.openFor(l.Space)
	if err != nil {
		return after, false, err
	}
	var blocks []*replication.Block
	size := 0
	err = e.store.ReadSetAside(l.Log, after, func(b *replication.Block) error {
		blocks = append(blocks, b)
		if size += b.EncodedLen(); size >= tailBytes {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, replication.ErrUnknownLog):
		return after, false, nil // removed meanwhile
	case err != nil && !errors.Is(err, errEnough):
		return after, false, err
	}
	more = err != nil
	for _, b := range blocks {
		if err := r.tell(ctx, l, b, open); err != nil {
			return after, false, err
		}
		after = b.Header.LastSeq()
	}
	return after, more, nil
}

// tell tells the operations of a block.
func (r *asideReader) tell(ctx context.Context, l *replication.LogInfo, b *replication.Block, open replication.Open) error {
	ops, err := sealed.Ops(b, open)
	var void *replication.VoidError
	switch {
	case errors.Is(err, replication.ErrNoKey):
		r.locked, r.why = r.locked+b.Header.Count, err
		return nil
	case err != nil && !errors.As(err, &void):
		return err
	}
	for i := range ops {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		told := SetAsideOperation{
			Operation: operation("", l.Origin, b, &ops[i], uint64(i)),
			Since:     l.SetAsideSince, Until: l.SetAsideSince.Add(replication.SetAsideFor),
		}
		if !r.yield(told, nil) {
			return errStopped
		}
	}
	return nil
}
