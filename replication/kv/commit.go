package kv

// commit writes what is staged, with the cursor, as one transaction. Readers see
// it after show.
func (a *applier) commit() error {
	if err := a.room(); err != nil {
		return err
	}
	var w batchOf
	for _, k := range a.keys {
		if !k.dirty {
			continue
		}
		was, is := k.before, k.rec.n
		if err := a.writeKey(&w, k); err != nil {
			return err
		}
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
	for _, c := range a.changes {
		w.set(c.key, c.value)
	}
	w.set(cursorKey(a.space), appendCursor(nil, &a.cur))
	if err := a.d.commit(w.entries); err != nil {
		return err
	}
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
	for _, k := range a.keys {
		if !k.rec.large {
			k.before, k.dirty = k.rec.n, false
			k.added, k.removed = nil, nil
			a.keep(k)
		}
	}
	a.saved = a.cur
	a.reset()
	return nil
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
	key := stateKey(a.space, k.key)
	switch {
	case k.rec.n > 0:
		record := appendKeyRecord(make([]byte, 0, k.size()), &k.rec)
		k.cost = len(key) + len(record)
		w.set(key, record)
	case k.before > 0:
		w.delete(key)
	}
	return nil
}

// size bounds the length of the key's encoded record, sealed.
func (k *keyState) size() int {
	n := 16 + crcLen
	for i := range k.rec.sibs {
		n += siblingCost(&k.rec.sibs[i])
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
	return scanSiblings(a.read(), a.space, hashKey(k.key), func(s sibling) error {
		if _, gone := k.removed[s.dot]; !gone {
			fn(s)
		}
		return nil
	})
}
