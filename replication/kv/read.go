package kv

import (
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
// blocks that cannot be applied; replication.ErrUpgradeNeeded; ErrNotReader; ErrNoKey
// where a content key is missing for what the store held when the view was opened, or
// for the first block (later, reads go on with what could be applied).
func (v *View) Get(ctx context.Context, space replication.SpaceID, key []byte) (Entry, bool, error) {
	for {
		s, err := v.await(ctx, space)
		if err != nil {
			return Entry{}, false, err
		}
		ops := v.overlay.of(space, key, false)
		if e, ok := v.inMemory(s, space, key, ops); ok {
			return e, true, nil
		}
		if r, ok := v.read(s, space); ok {
			list, err := r.entries(key, ops, 1)
			if err != nil || len(list) == 0 {
				return Entry{}, false, err
			}
			return list[0], true, nil
		}
	}
}

// Siblings returns the live writes of a key, winner first, at most max of them;
// each tells the number of all.
func (v *View) Siblings(ctx context.Context, space replication.SpaceID, key []byte, max int) ([]Entry, error) {
	for {
		s, err := v.await(ctx, space)
		if err != nil {
			return nil, err
		}
		ops := v.overlay.of(space, key, false)
		if e, ok := v.inMemory(s, space, key, ops); ok && (max == 1 || max > 1 && e.Conflicts == 0) {
			return []Entry{e}, nil
		}
		if r, ok := v.read(s, space); ok {
			return r.entries(key, ops, max)
		}
	}
}

// inMemory is what Get returns where memory alone tells: no transaction is opened. Where
// it does not, a reader tells why.
func (v *View) inMemory(s serving, space replication.SpaceID, key []byte, ops []*overlayOp) (Entry, bool) {
	if s.space == nil || len(ops) > 0 {
		return Entry{}, false
	}
	ts, ok := s.newest()
	if !ok {
		return Entry{}, false
	}
	var room [128]byte // most keys fit
	dbKey := append(append(append(room[:0], prefixKey), space[:]...), key...)
	record, ok := s.cache.get(dbKey, ts)
	if !ok {
		return Entry{}, false
	}
	winner, n, ok := winnerOf(record)
	if !ok || winner.apart || !s.current() {
		return Entry{}, false
	}
	return v.entryOf(key, &winner, n), true
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
		s, err := v.await(ctx, space)
		if err != nil {
			return Summary{}, err
		}
		if r, ok := v.read(s, space); ok {
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
