package kv

import (
	"bytes"
	"fmt"

	badger "github.com/dgraph-io/badger/v4"

	"vixp2p/replication"
)

const (
	// gather is how many bytes of changes one transaction gathers over blocks.
	gather = 1 << 20
	// overhead bounds what a record adds to a transaction beside its key and
	// value, in bytes.
	overhead = 32
	// maxLogCache is how many logs' positions an applier keeps in memory, and
	// maxReady how many bytes of records, roughly, while it has blocks to apply.
	maxLogCache = 4096
	maxReady    = 4 << 20
)

// applier turns the blocks of one space, in arrival order, into the state of
// design 5.2. It stages changes, coalesced by key, and commits them with the
// cursor in one transaction. One goroutine uses it. After an error it must be
// discarded.
type applier struct {
	d     *database
	space replication.SpaceID
	rank  ranker
	hash  hasher
	room  func() error // refuses a commit where the disk is nearly full

	// saved is the cursor in the database; cur is where the staged changes lead,
	// but that its counts are made at the commit.
	saved, cur cursor

	txn  *badger.Txn // what is saved; nil until something is read
	keys map[string]*keyState
	// ready holds keys as they are saved: some read in advance, some just written.
	ready      map[string]*keyState
	readyBytes int
	logs       map[replication.LogID]*logState // staged changes, and a cache
	pending    pendingStage
	values     map[replication.Dot][]byte // staged values of their own; nil: delete
	bytes      int64                      // bounds what a commit will write
	count      int64                      // bounds its entries
	ops        uint64                     // operations staged since the last commit
	changes    []entry                    // staged records of changes by a retreat
}

// keyState is a key with staged changes.
type keyState struct {
	key    []byte
	rec    keyRecord // if large, sibs holds the saved winner, or nothing if that is gone
	before uint64    // number of siblings that is saved; 0: no record is
	dirty  bool
	cost   int // bytes of its record as saved, with its key
	// added and removed change the sibling records of a large key. invariant: a
	// dot is in one of them at most, and in removed only if it is saved.
	added   map[replication.Dot]sibling
	removed map[replication.Dot]struct{}
}

// logState is how far a log is applied.
type logState struct {
	logRecord
	dirty bool
	saved bool   // it has a record
	was   uint64 // seq as saved
	// next: no saved pending record names a dot of this log below it.
	next uint64
}

// newApplier reads where a space stands.
func newApplier(d *database, space replication.SpaceID, rank ranker) (*applier, error) {
	a := &applier{d: d, space: space, rank: rank}
	txn := d.latest()
	defer txn.Discard()
	var err error
	if a.saved, err = loadCursor(txn, space); err != nil {
		return nil, err
	}
	a.logs = map[replication.LogID]*logState{}
	a.forget()
	a.reset()
	return a, nil
}

func loadCursor(txn *badger.Txn, space replication.SpaceID) (cursor, error) {
	b, err := get(txn, cursorKey(space))
	if err != nil || b == nil {
		return cursor{}, err
	}
	return decodeCursor(b)
}

// reset starts a new transaction from what is saved.
func (a *applier) reset() {
	a.close()
	a.cur = a.saved
	a.keys = map[string]*keyState{}
	a.pending = pendingStage{add: map[replication.Dot]map[replication.Hash]struct{}{}}
	a.values = map[replication.Dot][]byte{}
	a.changes = nil
	a.bytes, a.count, a.ops = 0, 0, 0
}

// discard forgets what is staged after an error.
func (a *applier) discard() {
	clear(a.logs)
	a.forget()
	a.reset()
}

// forget drops what is kept of saved keys.
func (a *applier) forget() { a.ready, a.readyBytes = map[string]*keyState{}, 0 }

// keep remembers a key as it is saved.
func (a *applier) keep(k *keyState) {
	if a.readyBytes > maxReady {
		a.forget()
	}
	a.ready[string(k.key)] = k
	a.readyBytes += k.cost + overhead
}

// close ends the reading of what is saved; the next read starts again.
func (a *applier) close() {
	if a.txn != nil {
		a.txn.Discard()
		a.txn = nil
	}
}

// read is the transaction for reading what is saved.
func (a *applier) read() *badger.Txn {
	if a.txn == nil {
		a.txn = a.d.latest()
	}
	return a.txn
}

// staged tells that there is something to commit.
func (a *applier) staged() bool { return a.cur.arrival != a.saved.arrival || a.bytes > 0 }

// fitsBlock tells whether a block of this many raw bytes may join the
// transaction that is being gathered.
func (a *applier) fitsBlock(raw uint64) bool {
	return a.bytes < gather && a.count < a.d.maxEntries/2 &&
		a.bytes+2*int64(raw) < a.d.maxBytes
}

// fits tells whether an operation's changes surely fit the transaction.
func (a *applier) fits(op *replication.Op) bool {
	// Each named dot costs a pending record and a log record, or the removal of a
	// sibling and its value; the key's record, and its siblings moving out of it
	// or back, are bounded by maxInline.
	const dotCost = 512
	const keyCost = 2 * maxInline * (inlineValue + 256)
	bytes := int64(len(op.Payload) + 2*len(op.Key) + keyCost + len(op.Supersedes)*dotCost)
	entries := int64(4*maxInline + 8 + 3*len(op.Supersedes))
	return a.bytes+bytes < a.d.maxBytes && a.count+entries < a.d.maxEntries
}

func (a *applier) cost(bytes int) {
	a.bytes += int64(bytes + overhead)
	a.count++
}

// block applies one block, from the operation on where an earlier, partial commit
// ended. It commits in the middle of a block that is too large for one
// transaction; readers see nothing of that.
func (a *applier) block(b *block) error {
	if len(a.logs) > maxLogCache && !a.staged() {
		clear(a.logs)
	}
	h := b.header
	log, err := a.log(h.Log)
	if err != nil {
		return err
	}
	if err := a.follows(b, log); err != nil {
		return err
	}
	for i := a.cur.part; i < uint64(len(b.ops)); i++ {
		o := &b.ops[i]
		if a.bytes > 0 && !a.fits(o) {
			if err := a.commit(); err != nil {
				return err
			}
		}
		if err := a.op(replication.Dot{Log: h.Log, Seq: h.FirstSeq + i}, log, o, b.digests[i]); err != nil {
			return err
		}
		log.seq, log.dirty = h.FirstSeq+i, true
		a.cur.part = i + 1
		a.ops++
	}
	if len(b.ops) == 0 {
		if err := a.dropPending(h.Log, log, h.FirstSeq, h.LastSeq(), nil); err != nil {
			return err
		}
		a.ops += h.Count
	}
	log.seq, log.hash, log.dirty = h.LastSeq(), b.hash, true
	a.cur.arrival, a.cur.ops, a.cur.part = b.number, h.Count, 0
	return nil
}

// follows refuses a block that does not follow what is applied of its log.
func (a *applier) follows(b *block, log *logState) error {
	h := b.header
	if h.FirstSeq+a.cur.part == log.seq+1 && (h.FirstSeq == 1 || h.Prev == log.hash) {
		return nil
	}
	e := &replication.DamageError{Log: h.Log, Seq: h.FirstSeq, File: a.d.dir, Problem: fmt.Sprintf(
		"the view has applied the log up to %d, and the next block that the store gives in arrival order is number %d and starts at %d", log.seq, b.number, h.FirstSeq)}
	if log.seq == 0 || h.FirstSeq > log.seq+1 {
		return e
	}
	return &backError{log: h.Log, below: min(h.FirstSeq-1, log.seq-1), DamageError: e}
}

// noteChange notes for watchers that a retreat changes a key.
func (a *applier) noteChange(key []byte) {
	a.cur.ops++
	a.changes = append(a.changes, entry{changeKey(a.space, a.cur.arrival, a.cur.ops), bytes.Clone(key)})
	a.cost(1 + spaceLen + changeLen + len(key))
}

// upgradeNeeded refuses a block with a critical operation of an unknown kind.
func upgradeNeeded(b *block) error {
	for i := range b.ops {
		if o := &b.ops[i]; !o.Known() && o.Critical {
			return fmt.Errorf("log %s has at %d an operation of kind %d that this version must not skip: upgrade this node to read the space again: %w",
				b.header.Log.Short(), b.header.FirstSeq+uint64(i), o.Kind, replication.ErrUpgradeNeeded)
		}
	}
	return nil
}

// counts tells whether the view does anything with an operation.
func counts(o *replication.Op) bool { return isWrite(o) && !o.OrderVoid() }

// op applies one operation, at dot d of log, once (design 5.2). log.seq is still
// the operation before. digest is the operation's, if it is a put.
func (a *applier) op(d replication.Dot, log *logState, o *replication.Op, digest replication.Hash) error {
	var own *replication.Hash
	if counts(o) && log.pend > 0 {
		h := hashKey(o.Key)
		own = &h
	}
	dead, err := a.takePending(d, log, own)
	if err != nil || !counts(o) {
		return err
	}
	if o.Kind == replication.KindDelete && len(o.Supersedes) == 0 {
		return nil
	}
	k, err := a.key(o.Key)
	if err != nil {
		return err
	}
	for _, s := range o.Supersedes {
		if s == d {
			continue
		}
		l := log
		if s.Log != d.Log {
			if l, err = a.log(s.Log); err != nil {
				return err
			}
		}
		if s.Seq <= l.seq {
			err = a.remove(k, s)
		} else {
			err = a.addPending(s, l, hashKey(k.key))
		}
		if err != nil {
			return err
		}
	}
	if dead || o.Kind == replication.KindDelete {
		return nil
	}
	a.add(k, d, o, digest)
	return nil
}

// key stages a key.
func (a *applier) key(key []byte) (*keyState, error) {
	if k, ok := a.keys[string(key)]; ok {
		return k, nil
	}
	k := a.ready[string(key)]
	if k != nil {
		delete(a.ready, string(key)) // it is going to differ
		a.readyBytes -= k.cost + overhead
	} else {
		k = &keyState{key: bytes.Clone(key)}
		if err := a.loadKeys(a.read(), []*keyState{k}); err != nil {
			return nil, err
		}
	}
	a.keys[string(k.key)] = k
	a.cost(k.cost)
	return k, nil
}

// enlarge makes room for changes of sibling records.
func (k *keyState) enlarge() {
	k.rec.large = true
	k.added = map[replication.Dot]sibling{}
	k.removed = map[replication.Dot]struct{}{}
}

// add makes d a sibling of k.
func (a *applier) add(k *keyState, d replication.Dot, o *replication.Op, digest replication.Hash) {
	s := sibling{dot: d, order: o.Order, hlc: o.HLC, digest: digest}
	if len(o.Payload) > inlineValue {
		s.apart, s.size = true, uint64(len(o.Payload))
		a.values[d] = bytes.Clone(o.Payload)
		a.cost(1 + spaceLen + dotLen + len(o.Payload))
	} else {
		s.value = bytes.Clone(o.Payload)
	}
	a.cur.digest.add(digest)
	k.rec.n++
	k.dirty = true
	if k.rec.large {
		a.stageSibling(k, s)
		return
	}
	k.rec.sibs = append(k.rec.sibs, s)
	a.bytes += int64(siblingCost(&s))
	if len(k.rec.sibs) > maxInline {
		sibs := k.rec.sibs
		k.rec.sibs = nil
		k.enlarge()
		for _, s := range sibs {
			a.stageSibling(k, s)
		}
	}
}

func (a *applier) stageSibling(k *keyState, s sibling) {
	k.added[s.dot] = s
	a.cost(1 + spaceLen + hashLen + dotLen + siblingCost(&s))
}

// siblingCost bounds the length of an encoded sibling.
func siblingCost(s *sibling) int { return logLen + 48 + hashLen + len(s.value) }

// remove takes d out of the siblings of k if it is there.
func (a *applier) remove(k *keyState, d replication.Dot) error {
	s, ok, err := a.take(k, d)
	if err != nil || !ok {
		return err
	}
	a.cur.digest.sub(a.hash.sibling(k.key, &s))
	k.rec.n--
	k.dirty = true
	if s.apart {
		if a.values[d] != nil {
			delete(a.values, d) // staged, never saved
		} else {
			a.values[d] = nil
			a.cost(1 + spaceLen + dotLen)
		}
	}
	return nil
}

func (a *applier) take(k *keyState, d replication.Dot) (s sibling, ok bool, err error) {
	for i := range k.rec.sibs {
		if k.rec.sibs[i].dot == d {
			s, ok = k.rec.sibs[i], true
			k.rec.sibs = append(k.rec.sibs[:i], k.rec.sibs[i+1:]...)
			break
		}
	}
	if !k.rec.large {
		return s, ok, nil
	}
	if s, ok = k.added[d]; ok {
		delete(k.added, d)
		return s, true, nil
	}
	if _, gone := k.removed[d]; gone {
		return s, false, nil
	}
	dbKey := siblingKey(a.space, hashKey(k.key), d)
	b, err := get(a.read(), dbKey)
	if err != nil || b == nil {
		return s, false, err
	}
	if s, err = decodeSibling(b); err != nil {
		return s, false, err
	}
	k.removed[d] = struct{}{}
	a.cost(len(dbKey))
	return s, true, nil
}

// log reads how far a log is applied.
func (a *applier) log(id replication.LogID) (*logState, error) {
	if l, ok := a.logs[id]; ok {
		return l, nil
	}
	rec, saved, err := loadLog(a.read(), a.space, id)
	if err != nil {
		return nil, err
	}
	l := &logState{logRecord: rec, saved: saved, was: rec.seq}
	a.logs[id] = l
	return l, nil
}

func loadLog(txn *badger.Txn, space replication.SpaceID, id replication.LogID) (logRecord, bool, error) {
	b, err := get(txn, appliedKey(space, id))
	if err != nil || b == nil {
		return logRecord{}, false, err
	}
	rec, err := decodeLogRecord(b)
	return rec, true, err
}
