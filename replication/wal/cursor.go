package wal

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

const (
	// cursorDelay bounds how long a cursor stays in memory only.
	cursorDelay = time.Second
	// cursorEvery is how often a commit takes cursors along: a peer that acknowledges
	// every block would else make each commit read and write its cursor.
	cursorEvery = cursorDelay / 4
	// maxCursorTx bounds what cursors add to one transaction, in bytes.
	maxCursorTx = 128 << 10
)

type cursorID struct {
	peer     r.OriginKey
	instance r.Instance
}

type entryID struct{ log, branch r.LogID }

func idOf(e *r.FrontierEntry) entryID { return entryID{e.Log, r.LogID(e.Branch)} }

// cursorChange is what is to be merged into one cursor.
type cursorChange struct {
	updated time.Time
	entries map[entryID]r.FrontierEntry
}

// cursorBuffer gathers cursors until a commit takes them along. They are hints:
// losing some costs a peer a comparison, not data.
type cursorBuffer struct {
	s *Store

	mu      sync.Mutex // guards all below
	pending map[cursorID]*cursorChange
	staged  map[cursorID]*cursorChange // in the transaction under way
	// newest is when each peer's newest cursor was updated, also in a store that
	// was closed since.
	newest  map[r.OriginKey]newestCursor
	timer   *time.Timer
	taken   time.Time // when cursors were last staged
	stopped bool
}

// newestCursor is the cursor of a peer that was updated last.
type newestCursor struct {
	instance r.Instance
	updated  time.Time
}

// updatedLocked is the time of an update now: our clock, but never before an
// earlier update of that peer's, and after every one of its other instances.
// Else, after our clock was set back, an instance that the peer gave up would
// pass for its newest.
func (c *cursorBuffer) updatedLocked(id cursorID) time.Time {
	// Round drops Go's monotonic reading: the wall clock is what is stored.
	now, last := c.s.opt.Now().Round(0), c.newest[id.peer]
	if last.instance != id.instance && !now.After(last.updated) {
		now = last.updated.Add(1)
	} else if now.Before(last.updated) {
		now = last.updated
	}
	c.newest[id.peer] = newestCursor{id.instance, now}
	return now
}

// loaded notes a stored cursor, while the store is being opened.
func (c *cursorBuffer) loaded(key []byte, h *cursorHead) {
	id := parseCursorsKey(key)
	if last, ok := c.newest[id.peer]; !ok || h.updated.After(last.updated) {
		c.newest[id.peer] = newestCursor{id.instance, h.updated}
	}
}

// SaveCursor merges entries into what is kept for a peer instance. It is durable
// with a later commit, at the latest a second later or at Close.
func (s *Store) SaveCursor(peer r.OriginKey, instance r.Instance, entries []r.FrontierEntry) {
	if len(entries) == 0 {
		return
	}
	c := &s.cursors
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	id := cursorID{peer, instance}
	if c.pending == nil {
		c.pending = map[cursorID]*cursorChange{}
	}
	if c.pending[id] == nil {
		c.pending[id] = &cursorChange{entries: map[entryID]r.FrontierEntry{}}
	}
	c.pending[id].updated = c.updatedLocked(id)
	for i := range entries {
		c.pending[id].entries[idOf(&entries[i])] = entries[i]
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(cursorDelay, c.flush)
	}
}

// flush asks the committer for a transaction; stage adds the cursors to it.
func (c *cursorBuffer) flush() {
	_ = c.s.queue.pushControl(&controlReq{stage: func(t *tx) error { c.stage(t); return nil }, done: make(chan error, 1)})
}

// ride adds what is pending to a transaction that is committed anyway, now and then.
func (c *cursorBuffer) ride(t *tx) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) > 0 && time.Since(c.taken) >= cursorEvery {
		c.stageLocked(t)
	}
}

// stage adds what is pending to a transaction, as far as it has room.
func (c *cursorBuffer) stage(t *tx) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stageLocked(t)
}

func (c *cursorBuffer) stageLocked(t *tx) {
	if len(c.pending) == 0 || c.staged != nil {
		return
	}
	c.taken = time.Now()
	const entryCost = 17 + 64 + 52 + 12
	budget := maxCursorTx
	take := map[cursorID]*cursorChange{}
	for id, change := range c.pending {
		for k, e := range change.entries {
			if budget -= entryCost; budget < 0 {
				break
			}
			if take[id] == nil {
				take[id] = &cursorChange{updated: change.updated, entries: map[entryID]r.FrontierEntry{}}
				budget -= 2 * entryCost
			}
			take[id].entries[k] = e
			delete(change.entries, k)
		}
		if len(change.entries) == 0 {
			delete(c.pending, id)
		}
	}
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if len(c.pending) > 0 && !c.stopped {
		c.timer = time.AfterFunc(cursorDelay, c.flush)
	}
	c.staged = take
	for id, change := range take {
		if err := c.stageOne(t, id, change); err != nil {
			c.s.opt.Logger.Warn("a damaged cursor of a peer starts anew", "error", err)
		}
	}
}

// stageOne merges entries into one cursor. A damaged cursor starts anew.
func (c *cursorBuffer) stageOne(t *tx, id cursorID, change *cursorChange) error {
	key := cursorsKey(id.peer, id.instance)
	var h cursorHead
	old := map[entryID]digest{}
	err := c.s.view(func(txn *badger.Txn) error {
		raw, err := get(txn, key)
		if err != nil || raw == nil {
			return err
		}
		if h, err = decodeCursorHead(raw); err != nil {
			return err
		}
		for k, e := range change.entries {
			ekey := cursorKey(h.num, &e)
			value, err := get(txn, ekey)
			if err != nil {
				return err
			}
			if value != nil {
				old[k] = recordHash(ekey, value)
			}
		}
		return nil
	})
	if err != nil || h.num == 0 {
		t.head.cursors++
		h, old = cursorHead{num: t.head.cursors}, nil
	}
	h.updated = change.updated
	for k, e := range change.entries {
		ekey, value := cursorKey(h.num, &e), encodeCursorEntry(&e)
		h.entries.sub(old[k])
		h.entries.add(recordHash(ekey, value))
		t.set(ekey, seal(ekey, value))
	}
	t.setOther(key, h.encode())
	return err
}

// settle ends the transaction that stage added to. What did not commit is
// pending again, unless something newer is.
func (c *cursorBuffer) settle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	staged := c.staged
	c.staged = nil
	if err == nil || len(staged) == 0 || c.stopped {
		return
	}
	for id, change := range staged {
		newer := c.pending[id]
		if newer == nil {
			c.pending[id] = change
			continue
		}
		for k, e := range change.entries {
			if _, ok := newer.entries[k]; !ok {
				newer.entries[k] = e
			}
		}
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(cursorDelay, c.flush)
	}
}

func (c *cursorBuffer) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

// LoadCursor returns what is known of a peer instance, ascending by log, what is
// not durable yet included; nil where nothing is known.
func (s *Store) LoadCursor(peer r.OriginKey, instance r.Instance) ([]r.FrontierEntry, error) {
	merged := map[entryID]r.FrontierEntry{}
	id := cursorID{peer, instance}
	// Memory is read first: what leaves it meanwhile is in the database then.
	s.cursors.mu.Lock()
	for _, from := range []map[cursorID]*cursorChange{s.cursors.staged, s.cursors.pending} {
		if change := from[id]; change != nil {
			maps.Copy(merged, change.entries)
		}
	}
	s.cursors.mu.Unlock()
	err := s.view(func(txn *badger.Txn) error {
		stored, err := readCursor(txn, id)
		for _, e := range stored {
			if _, newer := merged[idOf(&e)]; !newer {
				merged[idOf(&e)] = e
			}
		}
		return err
	})
	if err = s.damaged(r.LogID{}, 0, err); err != nil || len(merged) == 0 {
		return nil, err
	}
	entries := make([]r.FrontierEntry, 0, len(merged))
	for _, e := range merged {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b r.FrontierEntry) int {
		if c := a.Log.Compare(b.Log); c != 0 {
			return c
		}
		return bytes.Compare(a.Branch[:], b.Branch[:])
	})
	return entries, nil
}

// readCursor reads and checks all stored entries of a peer instance.
func readCursor(txn *badger.Txn, id cursorID) ([]r.FrontierEntry, error) {
	raw, err := get(txn, cursorsKey(id.peer, id.instance))
	if err != nil || raw == nil {
		return nil, err
	}
	h, err := decodeCursorHead(raw)
	if err != nil {
		return nil, err
	}
	var entries []r.FrontierEntry
	var sum digest
	err = each(txn, cursorPrefix(h.num), nil, func(key, value []byte) (bool, error) {
		v, err := unseal(key, value)
		if err != nil {
			return false, err
		}
		e, err := decodeCursorEntry(key, v)
		entries = append(entries, e)
		sum.add(recordHash(key, v))
		return true, err
	})
	if err == nil && sum != h.entries {
		err = problem("entries of a peer's cursor are missing or old")
	}
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// ListCursors returns the peer instances that have a cursor, newest last. Among
// the instances of one peer that is the order of the updates, whatever the clock
// did meanwhile.
func (s *Store) ListCursors() ([]r.CursorInfo, error) {
	found := map[cursorID]time.Time{}
	s.cursors.mu.Lock()
	for _, from := range []map[cursorID]*cursorChange{s.cursors.staged, s.cursors.pending} {
		for id, change := range from {
			found[id] = change.updated
		}
	}
	s.cursors.mu.Unlock()
	err := s.view(func(txn *badger.Txn) error {
		return each(txn, []byte{kindCursors}, nil, func(key, value []byte) (bool, error) {
			raw, err := unseal(key, value)
			if err != nil {
				return false, err
			}
			h, err := decodeCursorHead(raw)
			if err != nil {
				return false, err
			}
			id := parseCursorsKey(key)
			if _, newer := found[id]; !newer {
				found[id] = h.updated
			}
			return true, nil
		})
	})
	if err = s.damaged(r.LogID{}, 0, err); err != nil {
		return nil, err
	}
	list := make([]r.CursorInfo, 0, len(found))
	for id, at := range found {
		list = append(list, r.CursorInfo{Peer: id.peer, Instance: id.instance, Updated: at})
	}
	slices.SortFunc(list, func(a, b r.CursorInfo) int {
		if c := a.Updated.Compare(b.Updated); c != 0 {
			return c
		}
		return bytes.Compare(append(a.Peer[:], a.Instance[:]...), append(b.Peer[:], b.Instance[:]...))
	})
	return list, nil
}
