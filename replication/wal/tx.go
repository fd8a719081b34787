package wal

import (
	"errors"
	"fmt"
	"maps"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

const (
	// maxTxLSM bounds what counts against Badger's limit of a transaction, 15 %
	// of a memtable.
	maxTxLSM = memTableSize * 13 / 100
	// localTx is how many bytes of local appends one transaction gathers before
	// it takes no further batch.
	localTx = r.MaxRawBody
	// maxTx bounds the bytes of a transaction, so that nobody waits long for it.
	maxTx = 6 << 20
)

// tx is one transaction while it is put together. Nothing of it is visible until
// Store.apply did so. Only the committer uses it, and one goroutine that writes it.
type tx struct {
	s    *Store
	head head
	// under is the transaction on its way to the disk that this one follows, or nil.
	// It is never changed any more; where it fails this one fails.
	under  *tx
	logs   map[r.LogID]*logState   // staged copies
	spaces map[r.SpaceID]uint64    // staged newest arrivals
	open   map[r.SpaceID]openEntry // of spaces in spaces
	gone   map[r.SpaceID][]gone    // arrivals that a cut took
	freed  uint64                  // count of all that cuts took; 0: not changed
	others map[string]digest       // staged hashes of other records; zero: removed

	sets     []*badger.Entry
	deletes  [][]byte
	lsm, raw int
	values   bool // some value goes to the value log
	// opening: the small commit of an open, which a nearly full disk has room for.
	opening  bool
	began    map[r.LogID]began // logs that begin in it
	newest   []newestBlock
	advances []r.Advance
	// identity is set where the epoch ends in this transaction.
	identity *identity

	btx  *badger.Txn // once it is prepared
	hash r.Hash      // of the head, then
}

func (s *Store) newTx() *tx {
	return &tx{
		s: s, head: s.idx.head,
		logs: map[r.LogID]*logState{}, spaces: map[r.SpaceID]uint64{}, open: map[r.SpaceID]openEntry{}, others: map[string]digest{},
		began: map[r.LogID]began{},
	}
}

// maxKeptSets bounds the transaction whose maps and lists another one uses again.
const maxKeptSets = 64

// reset empties a transaction of which nobody has anything any more, so that another
// one uses its maps and lists; false where they have grown too large for that.
func (t *tx) reset() bool {
	if len(t.sets)+len(t.deletes)+len(t.others) > maxKeptSets {
		return false
	}
	clear(t.logs)
	clear(t.spaces)
	clear(t.open)
	clear(t.others)
	clear(t.began)
	clear(t.sets)
	clear(t.deletes)
	clear(t.newest)
	*t = tx{
		s:    t.s,
		logs: t.logs, spaces: t.spaces, open: t.open, others: t.others, began: t.began,
		sets: t.sets[:0], deletes: t.deletes[:0], advances: t.advances[:0], newest: t.newest[:0],
	}
	return true
}

func (t *tx) empty() bool { return len(t.sets) == 0 && len(t.deletes) == 0 && len(t.logs) == 0 }

// log returns the staged state of a log, nil if it is not known.
func (t *tx) log(id r.LogID) *logState {
	if l := t.staged(id); l != nil {
		return l
	}
	return t.s.idx.logs[id]
}

// staged returns the state of a log that is not durable yet, nil if it does not change.
func (t *tx) staged(id r.LogID) *logState {
	if l := t.logs[id]; l != nil {
		return l
	}
	if t.under != nil {
		return t.under.logs[id]
	}
	return nil
}

// change returns the staged copy of a log that is to change.
func (t *tx) change(l *logState) *logState {
	if staged := t.logs[l.id]; staged != nil {
		return staged
	}
	c := *l
	t.logs[l.id] = &c
	t.lsm += logCost
	return &c
}

// create stages a log that is not known yet.
func (t *tx) create(id r.LogID, g *r.Genesis) *logState {
	t.head.logs++
	l := &logState{id: id, num: t.head.logs, space: &spaceState{id: g.Space}, origin: g.Origin, epoch: g.Epoch, base: 1}
	t.logs[id] = l
	t.lsm += logCost
	return l
}

// logCost is Badger's measure of a log's record, which finish stages.
const logCost = 1 + 32 + logLen + logCut + crcLen + 12

// set stages a write. Key and value belong to the transaction from now on.
func (t *tx) set(key, value []byte) {
	t.sets = append(t.sets, badger.NewEntry(key, value))
	t.values = t.values || len(value) >= valueThreshold
	t.raw += len(key) + len(value)
	t.lsm += lsmCost(len(key), len(value))
}

// lsmCost is Badger's measure of an entry.
func lsmCost(key, value int) int {
	if value >= valueThreshold {
		value = 12
	}
	return key + value + 12
}

func (t *tx) del(key []byte) {
	t.deletes = append(t.deletes, key)
	t.lsm += len(key) + 12
}

// setOther stages a small record that the head's digest covers.
func (t *tx) setOther(key, value []byte) {
	t.dropOther(key)
	h := recordHash(key, value)
	t.head.digest.add(h)
	t.others[string(key)] = h
	t.set(key, seal(key, value))
}

// delOther removes such a record, if it is there.
func (t *tx) delOther(key []byte) {
	if t.dropOther(key) {
		t.others[string(key)] = digest{}
		t.del(key)
	}
}

// dropOther takes a record out of the digest.
func (t *tx) dropOther(key []byte) bool {
	h, ok := t.others[string(key)]
	if !ok {
		h = t.s.others[string(key)]
	}
	t.head.digest.sub(h)
	return h != digest{}
}

// hasOther tells whether the record is there.
func (t *tx) hasOther(key []byte) bool {
	if h, ok := t.others[string(key)]; ok {
		return h != digest{}
	}
	_, ok := t.s.others[string(key)]
	return ok
}

// localRecords is what a batch that is the only one of its space costs besides its
// bytes: header, signature and keys of a block, and the records of its log and arrival.
const localRecords = 1 << 10

// roomForLocals is how many bytes of local appends may be staged beside what is staged,
// and one batch for each localRecords of that: for them half of what is left is kept.
func (t *tx) roomForLocals() int {
	const least = 128 << 10
	if t.raw == 0 {
		return localTx
	}
	if room := min(localTx, maxTx-t.raw, (maxTxLSM-t.lsm)/2); room >= least {
		return room
	}
	return 0
}

// addBlock stages a block that follows l's tip: its bytes, trailer, arrival and
// the log's new state. buf holds the block's bytes and room for the trailer.
func (t *tx) addBlock(l *logState, h *r.Header, hash r.Hash, buf []byte) {
	t.head.arrivals++
	l.bytes += uint64(len(buf))
	l.blocks++
	l.tip = r.Position{Seq: h.LastSeq(), Hash: hash}
	l.lastHLC = h.LastHLC
	l.arrival = t.head.arrivals
	size := len(buf)
	key := blockKey(l.num, h.FirstSeq)
	t.set(key, sealBlock(key, buf, l.bytes, l.arrival))
	t.indexArrival(l, h.FirstSeq, size)
}

// finish stages the logs' records and the head.
func (t *tx) finish() {
	for id, l := range t.logs {
		key := logKey(id)
		if old := t.s.idx.logs[id]; old != nil {
			t.head.digest.sub(recordHash(key, old.encode()))
		}
		value := l.encode()
		t.head.digest.add(recordHash(key, value))
		t.set(key, seal(key, value))
	}
	t.head.commits++
	t.head.prev = t.s.headHash
	t.set(append([]byte(nil), keyHead...), seal(keyHead, t.head.encode()))
}

// commit makes the transaction durable and visible, in this order: disk,
// witness, memory. After an error nothing of it is visible; where the disk's
// state is then unknown the store takes no further write until it is opened
// again.
func (s *Store) commit(t *tx) error {
	if err := s.prepare(t); err != nil {
		return err
	}
	if err := s.write(t); err != nil {
		return err
	}
	s.apply(t)
	return nil
}

// prepare completes a transaction that follows what is durable. An error leaves the
// store as it is.
func (s *Store) prepare(t *tx) error {
	if err := s.writable(); err != nil {
		return err
	}
	t.finish()
	if !t.opening {
		if err := s.checkSpace(uint64(t.raw)); err != nil {
			return err
		}
	}
	t.hash = t.head.hash()
	t.btx = s.db.NewTransaction(true)
	err := t.fill()
	if err != nil {
		t.btx.Discard()
	}
	return err
}

// fill gives Badger what is staged.
func (t *tx) fill() error {
	for _, e := range t.sets {
		if err := t.btx.SetEntry(e); err != nil {
			return fmt.Errorf("the transaction cannot be put together: %w", err)
		}
	}
	for _, k := range t.deletes {
		if err := t.btx.Delete(k); err != nil {
			return fmt.Errorf("the transaction cannot be put together: %w", err)
		}
	}
	return nil
}

// write makes a prepared transaction durable, and has the witness say so. It may run
// beside the committer, one at a time. After an error what is on disk is not known.
func (s *Store) write(t *tx) error {
	defer t.btx.Discard()
	if s.valueSync != nil {
		*s.valueSync = t.values && !s.opt.Relaxed
	}
	complaints := s.dblog.errors.Load()
	err := s.opt.onWrite()
	if err == nil {
		err = guard(t.btx.Commit)
	}
	if err == nil && s.dblog.errors.Load() != complaints {
		err = errors.New("the database reported an error during the commit")
	}
	if err == nil {
		err = s.witness.put(t.head.commits, t.hash)
	}
	if err != nil {
		return s.fail(fmt.Errorf("the commit in %s failed: %w", s.opt.Dir, err))
	}
	return nil
}

// apply makes a durable transaction visible.
func (s *Store) apply(t *tx) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range t.logs {
		if old := s.idx.logs[id]; old != nil {
			sp := old.space
			*old = *l
			old.space = sp
			continue
		}
		l.space = s.idx.space(l.space.id)
		s.idx.insert(l)
	}
	for id, arrival := range t.spaces {
		sp := s.idx.space(id)
		sp.arrival, sp.open = arrival, t.open[id]
	}
	s.newest.add(t.newest)
	s.idx.head = t.head
	s.headHash = t.hash
	maps.Copy(s.others, t.others)
	maps.DeleteFunc(s.others, func(_ string, h digest) bool { return h == digest{} })
	if t.identity != nil {
		s.identity = *t.identity
	}
	if t.freed > 0 {
		s.freed = t.freed
	}
}

// fail marks the store as failed: what is on disk is not known any more.
func (s *Store) fail(err error) error {
	s.opt.Logger.Error("the store takes no further write until it is opened again", "error", err)
	s.failure.CompareAndSwap(nil, &err)
	return err
}

// writable says why the store takes no write, if so.
func (s *Store) writable() error {
	if err := s.failure.Load(); err != nil {
		return fmt.Errorf("restart the node; an earlier write failed: %w", *err)
	}
	return nil
}

// checkSpace refuses a write that would touch the reserve.
func (s *Store) checkSpace(need uint64) error {
	return checkSpace(&s.opt, need)
}

func checkSpace(o *Options, need uint64) error {
	if o.ReserveBytes < 0 {
		return nil
	}
	free, err := o.FreeBytes(o.Dir)
	if err != nil {
		return fmt.Errorf("cannot tell how much room the disk of %s has: %w", o.Dir, err)
	}
	if reserve := uint64(o.ReserveBytes); free < need+reserve {
		return fmt.Errorf("%w: %s has %s free and this write needs %s beyond the reserve of %s: make room, then write again",
			r.ErrNoSpace, o.Dir, r.SizeText(free), r.SizeText(need), r.SizeText(reserve))
	}
	return nil
}
