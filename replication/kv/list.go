package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"vixp2p/replication"
)

// A List reads this much at a time: entries and bytes of keys and values. The
// entry that passes the bound is the last one of its page.
const (
	pageEntries = 256
	pageBytes   = 1 << 20
)

// List calls fn for the winner of every key with the prefix, in key order, all
// from one state: the one that a Get at the beginning of the call sees. fn ends
// it by returning an error, which List returns.
//
// While fn runs List holds nothing but a page of entries in memory, and has the
// database keep the versions of its state; so fn may take as long as it likes,
// and may read, write, rebuild and close the view. A list that has more to give
// when its view is rebuilt ends with ErrNotReady, and one whose view is closed
// with replication.ErrClosed: its state is gone with the files.
func (v *View) List(ctx context.Context, space replication.SpaceID, prefix []byte, fn func(Entry) error) error {
	for {
		s, err := v.await(ctx, space)
		if err != nil {
			return err
		}
		over := v.overlay.under(space, prefix)
		p, ok := s.pin()
		if !ok {
			continue
		}
		if !v.serves(s, space) {
			p.release()
			continue
		}
		l := lister{v: v, pin: p, space: space, prefix: stateKey(space, prefix), over: over}
		if err := l.run(ctx, fn); l.begun || !errors.Is(err, ErrNotReady) {
			return err
		}
	}
}

// lister merges the keys of one state with those of the overlay.
type lister struct {
	v      *View
	pin    pin
	space  replication.SpaceID
	prefix []byte   // of records
	from   []byte   // the next record to read; nil: the first
	past   bool     // all records are read
	over   []keyOps // not yet passed
	begun  bool     // fn was called
	end    bool
}

func (l *lister) run(ctx context.Context, fn func(Entry) error) error {
	defer l.pin.release()
	for !l.end {
		page, err := l.page()
		if err != nil {
			return err
		}
		for _, e := range page {
			if err := ctx.Err(); err != nil {
				return err
			}
			l.begun = true
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// gone tells why there is no more to read.
func (l *lister) gone() error {
	l.v.mu.RLock()
	defer l.v.mu.RUnlock()
	if l.v.closed {
		return fmt.Errorf("the list ended early, with its view: %w", replication.ErrClosed)
	}
	return fmt.Errorf("the list ended early, its view is rebuilt: %w", ErrNotReady)
}

// page reads on, in a snapshot of its own.
func (l *lister) page() (page []Entry, err error) {
	snap, ok := l.pin.snapshot()
	if !ok {
		return nil, l.gone()
	}
	r := &reader{v: l.v, snap: snap, space: l.space, unfault: faultsPanic()}
	defer r.finish(&err)
	size := 0
	full := func() bool { return len(page) >= pageEntries || size >= pageBytes }
	add := func(key []byte, rec keyRecord, ops []*overlayOp) error {
		sibs, n, err := r.effective(key, rec, ops, 1)
		if err != nil || n == 0 {
			return err
		}
		e, err := r.entry(key, sibs[0], n)
		if err != nil {
			return err
		}
		page = append(page, e)
		size += len(e.Key) + len(e.Value)
		return nil
	}
	// addOver adds the overlay's keys below a key; all of them below nil.
	addOver := func(below []byte) error {
		for len(l.over) > 0 && !full() && (below == nil || bytes.Compare(l.over[0].key, below) < 0) {
			if err := add(l.over[0].key, keyRecord{}, l.over[0].ops); err != nil {
				return err
			}
			l.over = l.over[1:]
		}
		return nil
	}
	if !l.past {
		l.past = true
		err = scan(snap.Txn, l.prefix, l.from, func(dbKey, record []byte) error {
			key := bytes.Clone(dbKey[1+spaceLen:])
			if err := addOver(key); err != nil {
				return err
			}
			if full() {
				l.from, l.past = bytes.Clone(dbKey), false
				return errStop
			}
			var ops []*overlayOp
			if len(l.over) > 0 && bytes.Equal(l.over[0].key, key) {
				ops, l.over = l.over[0].ops, l.over[1:]
			}
			rec, err := decodeKeyRecord(record)
			if err != nil {
				return err
			}
			return add(key, rec, ops)
		})
	}
	if err == nil && l.past {
		err = addOver(nil)
	}
	l.end = l.past && len(l.over) == 0
	return page, err
}
