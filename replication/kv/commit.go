package kv

import (
	"encoding/binary"
	"maps"

	"vixp2p/replication"
)

// flight is a commit under way.
type flight struct {
	tx   *transaction
	keys []*keyState // that were staged
	// cur is the cursor that it writes. saved and rule are what the applier goes back
	// to if it fails.
	cur, saved cursor
	rule       rule
	progress   progress
	landed     func(*cursor) // nil: nothing more to do
	done       chan error
}

// progress is what commits have applied: so many operations, and logs up to these seqs.
type progress struct {
	ops  uint64
	logs map[replication.LogID]uint64
}

// commit writes what is staged, with the cursor, as one transaction. Readers see
// it after show.
func (a *applier) commit() error {
	if err := a.begin(nil); err != nil {
		return err
	}
	return a.land()
}

// begin has what is staged written, with the cursor, as one transaction, once the
// commit under way has landed, and goes on from there. landed is called when this
// one has, and not if it fails.
func (a *applier) begin(landed func(*cursor)) error {
	tx, err := a.transaction()
	if err != nil {
		return err
	}
	if err := a.land(); err != nil {
		tx.discard()
		return err
	}
	f := &flight{
		tx: tx, keys: a.staging, cur: a.cur, saved: a.saved, rule: a.ruleSaved,
		progress: progress{a.ops, a.touched()}, landed: landed, done: make(chan error, 1),
	}
	go func() { f.done <- a.put(tx) }()
	a.flight = f
	a.flights++
	a.wrote()
	a.saved, a.ruleSaved = a.cur, a.rule
	a.reset()
	return nil
}

// put writes a transaction if there is room.
func (a *applier) put(tx *transaction) (err error) {
	defer faultsPanic()()
	defer guard(&err, a.d.dir)
	if err := a.room(); err != nil {
		tx.discard()
		return err
	}
	return tx.write()
}

// land waits for the commit under way. If that fails, so has what was staged since.
func (a *applier) land() error {
	f := a.flight
	if f == nil {
		return nil
	}
	err := <-f.done
	a.flight = nil
	a.close() // what is read from here on has it
	if err != nil {
		a.saved, a.cur, a.ruleSaved = f.saved, f.saved, f.rule
		return err
	}
	f.tx.landed()
	for _, k := range f.keys {
		if k.rec.large && !k.staged && a.keys[k.name] == k {
			delete(a.keys, k.name)
			a.keysBytes -= k.cost + overhead
		}
	}
	a.unseen.ops += f.progress.ops
	maps.Copy(a.unseen.logs, f.progress.logs)
	if f.landed != nil {
		f.landed(&f.cur)
	}
	return nil
}

// seen is what was applied since it was called last, of all commits that have landed.
func (a *applier) seen() progress {
	p := a.unseen
	a.unseen = progress{logs: map[replication.LogID]uint64{}}
	return p
}

// touched is the logs that what is staged advances, with their applied seq.
func (a *applier) touched() map[replication.LogID]uint64 {
	out := map[replication.LogID]uint64{}
	for id, l := range a.logs {
		if l.dirty {
			out[id] = l.seq
		}
	}
	return out
}

// transaction makes a transaction of what is staged.
func (a *applier) transaction() (*transaction, error) {
	w := batchOf{entries: make([]entry, 0, a.count+int64(len(a.staging))+8)}
	if err := a.write(&w); err != nil {
		return nil, err
	}
	return a.d.transaction(w.entries)
}

// write gathers what a commit writes, and makes the counts of the cursor.
func (a *applier) write(w *batchOf) error {
	for _, k := range a.staging {
		if !k.dirty {
			continue
		}
		was, is, cost := k.before, k.rec.n, k.cost
		if err := a.writeKey(w, k); err != nil {
			return err
		}
		a.keysBytes += k.cost - cost
		a.cur.keys += one(is > 0) - one(was > 0)
		a.cur.conflicts += one(is > 1) - one(was > 1)
		a.cur.siblings += is - was
	}
	for d, v := range a.values {
		key := valueKey(a.space, d)
		if v == nil {
			w.delete(key)
		} else {
			w.set(key, v)
		}
	}
	for d, keys := range a.pending.add {
		for h := range keys {
			w.set(pendingKey(a.space, d, h), nil)
		}
	}
	for _, key := range a.pending.drop {
		w.delete(key)
	}
	for id, l := range a.logs {
		a.cur.applied += l.seq - l.was
		switch exists := l.seq > 0 || l.pend > 0; {
		case !l.dirty:
		case exists:
			w.set(appliedKey(a.space, id), appendLogRecord(nil, &l.logRecord))
		case l.saved:
			w.delete(appliedKey(a.space, id))
		}
	}
	a.writeRule(w)
	for _, c := range a.changes {
		w.set(c.key, c.value)
	}
	w.set(cursorKey(a.space), appendCursor(nil, &a.cur))
	return nil
}

// wrote has keys and logs be as the commit that has begun saves them.
func (a *applier) wrote() {
	for _, l := range a.logs {
		if l.dirty {
			l.dirty, l.saved, l.was = false, l.seq > 0 || l.pend > 0, l.seq
		}
	}
	for d := range a.pending.add {
		if l := a.logs[d.Log]; l != nil {
			l.next = min(l.next, d.Seq)
		}
	}
	for _, k := range a.staging {
		k.before, k.dirty, k.staged, k.flight = k.rec.n, false, false, a.flights
		if !k.rec.large { // else it goes when the commit lands
			k.added, k.removed = nil, nil
		}
	}
}

func one(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// batchOf gathers the entries of a transaction.
type batchOf struct{ entries []entry }

func (w *batchOf) set(key, record []byte) {
	w.entries = append(w.entries, entry{key, seal(key, record)})
}

func (w *batchOf) delete(key []byte) { w.entries = append(w.entries, entry{key, nil}) }

// writeKey writes a key's record and its sibling records.
func (a *applier) writeKey(w *batchOf, k *keyState) error {
	if k.rec.large {
		if err := a.writeLarge(w, k); err != nil {
			return err
		}
	} else {
		a.rank.sort(k.rec.sibs)
	}
	switch {
	case k.rec.n > 0:
		record := appendKeyRecord(make([]byte, 0, k.size()), &k.rec)
		k.cost = len(k.dbKey) + len(record)
		w.set(k.dbKey, record)
	case k.before > 0:
		w.delete(k.dbKey)
	}
	return nil
}

// size bounds the length of the key's encoded record, sealed, closely: the cache keeps it.
func (k *keyState) size() int {
	n := 1 + binary.MaxVarintLen64 + crcLen
	for i := range k.rec.sibs {
		s := &k.rec.sibs[i]
		n += leastSibling + 2*(binary.MaxVarintLen64-1) + len(s.value)
		if s.apart {
			n += hashLen
		}
	}
	return n
}

// writeLarge writes the changed sibling records of a large key and leaves its
// winner in sibs; or, where few siblings are left, all of them.
func (a *applier) writeLarge(w *batchOf, k *keyState) error {
	for d := range k.removed {
		w.delete(siblingKey(a.space, hashKey(k.key), d))
	}
	if k.rec.n <= backInline {
		return a.writeBack(w, k)
	}
	best := top{ranker: a.rank, limit: 1}
	for d, s := range k.added {
		w.set(siblingKey(a.space, hashKey(k.key), d), appendSibling(nil, &s))
		best.add(s)
	}
	if len(k.rec.sibs) > 0 {
		best.add(k.rec.sibs[0])
	} else if err := a.eachSaved(k, func(s sibling) { best.add(s) }); err != nil {
		return err
	}
	k.rec.sibs = best.take()
	return nil
}

// writeBack moves the siblings of a large key back into its record.
func (a *applier) writeBack(w *batchOf, k *keyState) error {
	k.rec.large, k.rec.sibs = false, nil
	for _, s := range k.added {
		k.rec.sibs = append(k.rec.sibs, s)
	}
	err := a.eachSaved(k, func(s sibling) {
		w.delete(siblingKey(a.space, hashKey(k.key), s.dot))
		k.rec.sibs = append(k.rec.sibs, s)
	})
	a.rank.sort(k.rec.sibs)
	if err == nil && uint64(len(k.rec.sibs)) != k.rec.n {
		return errRecord
	}
	return err
}

// eachSaved calls fn for the saved siblings of a large key that stay.
func (a *applier) eachSaved(k *keyState, fn func(sibling)) error {
	txn, err := a.settled()
	if err != nil {
		return err
	}
	return scanSiblings(txn, a.space, hashKey(k.key), func(s sibling) error {
		if _, gone := k.removed[s.dot]; !gone {
			fn(s)
		}
		return nil
	})
}
