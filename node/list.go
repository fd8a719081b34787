package node

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"vixp2p/replication"
	"vixp2p/replication/kv"
)

// errStopped ends a listing early.
var errStopped = errors.New("stopped")

var errRepaired = fmt.Errorf("the node has repaired damaged data meanwhile: %w", replication.ErrDamaged)

// List ranges over the keys with a prefix, in order, each with its winning value,
// all from one moment:
//
//	for e, err := range s.List(ctx, "user/") {
//		if err != nil { return err }
//	}
//
// An error comes last, with a zero Entry. To use an Entry with PutIf, Get it
// again if it has Conflicts. A loop that takes its time holds up nobody: a repair
// of the store, or Close, cuts the listing short.
func (s *Space) List(ctx context.Context, prefix string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		err := s.check()
		if err == nil {
			begun := false
			err = s.n.do(ctx, func(e *engine) error {
				err := s.pages(ctx, e, prefix, func(page []Entry) bool {
					begun = true
					for _, x := range page {
						if !yield(x, nil) {
							return false
						}
					}
					return true
				})
				switch {
				case !begun || err == nil || errors.Is(err, errStopped):
					return err
				case errors.Is(err, replication.ErrClosed) && s.n.isClosed():
					err = errNodeClosed
				case errors.Is(err, replication.ErrClosed):
					err = errRepaired
				}
				return &cutShortError{err}
			})
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(Entry{}, err)
		}
	}
}

// A page of a listing: entries, and bytes of keys and values.
const (
	pageEntries = 256
	pageBytes   = 256 << 10
)

// pages reads the keys on one engine, at most a page ahead of tell. A goroutine
// of its own holds the view's snapshot, and gives it up when the engine is
// retired, however long tell takes. Errors: those of kv.View.List; ErrClosed if
// the engine was retired; errStopped if tell has had enough.
func (s *Space) pages(ctx context.Context, e *engine, prefix string, tell func(page []Entry) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	pages, end := make(chan []Entry), make(chan error, 1)
	go func() {
		defer close(pages)
		end <- s.readPages(ctx, e, prefix, pages)
	}()
	defer func() {
		cancel()
		for range pages { // until the goroutine has ended
		}
	}()
	for page := range pages {
		if !tell(page) {
			return errStopped
		}
	}
	return <-end
}

func (s *Space) readPages(ctx context.Context, e *engine, prefix string, pages chan<- []Entry) error {
	var page []Entry
	size := 0
	send := func(retired <-chan struct{}) error {
		select {
		case pages <- page:
		case <-retired:
			return replication.ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		page, size = nil, 0
		return nil
	}
	err := e.view.List(ctx, s.id, []byte(prefix), func(x kv.Entry) error {
		page = append(page, entryOf(&x))
		size += len(x.Key) + len(x.Value)
		if len(page) < pageEntries && size < pageBytes {
			return nil
		}
		return send(e.retired)
	})
	if err == nil && len(page) > 0 {
		err = send(nil) // the snapshot is given up already
	}
	return err
}
