package kv

import (
	"bytes"
	"context"

	"vixp2p/replication"
)

// Entry is one live write of a key.
type Entry struct {
	Key    []byte
	Value  []byte
	Dot    replication.Dot
	Origin replication.OriginKey
	HLC    replication.HLC
	Order  uint64
	// Conflicts is how many siblings the key has besides the winner.
	Conflicts uint64
}

// Get returns the winner of a key; false if the key is absent. It sees every
// write of this node whose Append has returned, and waits, as every read does,
// until the view has caught up with what the store held when it was opened.
//
// Errors of all reads: ctx's; replication.ErrDamaged if the view's files are
// damaged (it rebuilds itself: try again) or, as a *StuckError, if the store gives
// blocks that cannot be applied; replication.ErrUpgradeNeeded.
func (v *View) Get(ctx context.Context, space replication.SpaceID, key []byte) (Entry, bool, error) {
	list, err := v.Siblings(ctx, space, key, 1)
	if err != nil || len(list) == 0 {
		return Entry{}, false, err
	}
	return list[0], true, nil
}

// Siblings returns the live writes of a key, winner first, at most max of them;
// each tells the number of all.
func (v *View) Siblings(ctx context.Context, space replication.SpaceID, key []byte, max int) ([]Entry, error) {
	for {
		d, err := v.await(ctx, space)
		if err != nil {
			return nil, err
		}
		ops := v.overlay.of(space, key, false)
		if r, ok := v.read(d, space); ok {
			return r.entries(key, ops, max)
		}
	}
}

func (r *reader) entries(key []byte, ops []*overlayOp, max int) (list []Entry, err error) {
	defer r.finish(&err)
	sibs, n, err := r.siblings(key, ops, max)
	if err != nil || n == 0 {
		return nil, err
	}
	list = make([]Entry, len(sibs))
	for i := range sibs {
		if list[i], err = r.entry(key, sibs[i], n); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// A List reads this much at a time: entries and bytes of keys and values.
const (
	pageEntries = 256
	pageBytes   = 1 << 20
)

// List calls fn for the winner of every key with the prefix, in key order, all
// from one state. fn ends it by returning an error, which List returns.
func (v *View) List(ctx context.Context, space replication.SpaceID, prefix []byte, fn func(Entry) error) error {
	for {
		d, err := v.await(ctx, space)
		if err != nil {
			return err
		}
		over := v.overlay.under(space, prefix)
		r, ok := v.read(d, space)
		if !ok {
			continue
		}
		r.unfault()
		defer r.snap.close()
		l := lister{reader: r, prefix: stateKey(space, prefix), over: over}
		for !l.end {
			page, err := l.page()
			if err != nil {
				return err
			}
			for _, e := range page {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := fn(e); err != nil {
					return err
				}
			}
			if d.isRetired() && !l.end {
				return ErrNotReady
			}
		}
		return nil
	}
}

// lister merges the keys of a snapshot with those of the overlay.
type lister struct {
	*reader
	prefix []byte   // of records
	from   []byte   // the next record to read; nil: the first
	over   []keyOps // not yet passed
	end    bool
}

// page reads on. The guard is around each page, so that it never catches a panic
// of the caller of List.
func (l *lister) page() (page []Entry, err error) {
	defer faultsPanic()()
	defer func() { l.caught(recover(), &err) }()
	size := 0
	add := func(key []byte, rec keyRecord, ops []*overlayOp) error {
		sibs, n, err := l.effective(key, rec, ops, 1)
		if err != nil || n == 0 {
			return err
		}
		e, err := l.entry(key, sibs[0], n)
		if err != nil {
			return err
		}
		page = append(page, e)
		size += len(e.Key) + len(e.Value)
		return nil
	}
	l.end = true
	err = scan(l.snap.Txn, l.prefix, l.from, func(dbKey, record []byte) error {
		if len(page) >= pageEntries || size >= pageBytes {
			l.from, l.end = bytes.Clone(dbKey), false
			return errStop
		}
		key := bytes.Clone(dbKey[1+spaceLen:])
		for len(l.over) > 0 && bytes.Compare(l.over[0].key, key) < 0 {
			if err := add(l.over[0].key, keyRecord{}, l.over[0].ops); err != nil {
				return err
			}
			l.over = l.over[1:]
		}
		var ops []*overlayOp
		if len(l.over) > 0 && bytes.Equal(l.over[0].key, key) {
			ops, l.over = l.over[0].ops, l.over[1:]
		}
		rec, err := decodeKeyRecord(bytes.Clone(record))
		if err != nil {
			return err
		}
		return add(key, rec, ops)
	})
	if err != nil || !l.end {
		return page, err
	}
	for _, o := range l.over { // bounded by the overlay's limit
		if err := add(o.key, keyRecord{}, o.ops); err != nil {
			return nil, err
		}
	}
	l.over = nil
	return page, nil
}

// Summary is what a space's applied state adds up to. Writes that are not
// applied yet are not in it.
type Summary struct {
	// Digest is the sum modulo 2^256 of the hashes of all siblings (design 5.4).
	Digest    replication.Hash
	Siblings  uint64
	Keys      uint64
	Conflicts uint64 // keys with more than one sibling
	Arrival   uint64 // of the newest block applied
	// Frontier is the applied position of each log, ordered by log: two nodes
	// with the same one have the same digest (G5).
	Frontier []replication.FrontierEntry
}

// Summary reads a space's digest, with the counts and the frontier that belong
// to it.
func (v *View) Summary(ctx context.Context, space replication.SpaceID) (Summary, error) {
	for {
		d, err := v.await(ctx, space)
		if err != nil {
			return Summary{}, err
		}
		if r, ok := v.read(d, space); ok {
			return r.summary()
		}
	}
}

func (r *reader) summary() (s Summary, err error) {
	defer r.finish(&err)
	c, err := loadCursor(r.snap.Txn, r.space)
	if err != nil {
		return s, err
	}
	s = Summary{Digest: c.digest.bytes(), Siblings: c.siblings, Keys: c.keys, Conflicts: c.conflicts, Arrival: c.arrival}
	prefix := spacePrefix(prefixApplied, r.space, 0)
	err = scan(r.snap.Txn, prefix, nil, func(key, record []byte) error {
		l, err := decodeLogRecord(record)
		if err != nil || l.seq == 0 {
			return err
		}
		s.Frontier = append(s.Frontier, replication.FrontierEntry{
			Log: replication.LogID(key[len(prefix):]), Pos: replication.Position{Seq: l.seq, Hash: l.hash},
		})
		return nil
	})
	return s, err
}

// Digest returns the digest of a space's siblings, their number and the frontier
// that it stands for.
func (v *View) Digest(ctx context.Context, space replication.SpaceID) (replication.Hash, uint64, []replication.FrontierEntry, error) {
	s, err := v.Summary(ctx, space)
	return s.Digest, s.Siblings, s.Frontier, err
}
