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
	// maxKeys how many bytes of records, roughly, while it has blocks to apply.
	maxLogCache = 4096
	maxKeys     = 4 << 20
)

// applier turns the blocks of one space, in arrival order, into the state of
// design 5.2. It stages changes, coalesced by key, and commits them with the
// cursor in one transaction. While one is being written it goes on: one commit is
// under way at most, and what that changes is read from memory, or waited for. One
// goroutine uses it. After an error it must be discarded.
type applier struct {
	d     *database
	space replication.SpaceID
	rank  ranker
	hash  hasher
	room  func() error // refuses a commit where the disk is nearly full

	// saved is the cursor in the database, that of the commit under way if there is
	// one; cur is where the staged changes lead, but that its counts are made at the
	// commit.
	saved, cur cursor
	// rule is under which its blocks were read, ruleSaved what the database has, as
	// saved.
	rule, ruleSaved rule

	txn *badger.Txn // what has landed; nil until something is read
	// flight is the commit under way; nil if there is none. flights counts them.
	flight  *flight
	flights uint64
	unseen  progress // of commits that have landed, until seen
	// keys holds every key with changes that are staged or under way, and some as
	// they are saved: read in advance, or written lately. keysBytes is about what
	// their records take.
	keys      map[string]*keyState
	keysBytes int
	staging   []*keyState                     // the staged ones
	logs      map[replication.LogID]*logState // staged changes and those under way, and a cache
	pending   pendingStage
	values    map[replication.Dot][]byte // staged values of their own; nil: delete
	bytes     int64                      // bounds what a commit will write
	count     int64                      // bounds its entries
	ops       uint64                     // operations staged since the last commit
	changes   []entry                    // staged records of changes by a retreat
}

// keyState is a key as the staged changes have it.
type keyState struct {
	name   string    // the key
	key    []byte    // the same, the end of dbKey
	dbKey  []byte    // that of its record
	rec    keyRecord // if large, sibs holds the saved winner, or nothing if that is gone
	before uint64    // number of siblings that is saved; 0: no record is
	staged bool      // it is in the transaction that is gathered
	dirty  bool
	flight uint64 // number of the last commit that it was in
	cost   int    // bytes of its record as saved, with its key
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
	if a.ruleSaved, err = loadRule(txn, space); err != nil {
		return nil, err
	}
	a.rule = a.ruleSaved
	a.logs = map[replication.LogID]*logState{}
	a.unseen.logs = map[replication.LogID]uint64{}
	a.reset()
	a.forget()
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
	a.staging = nil
	a.pending = pendingStage{add: map[replication.Dot]map[replication.Hash]struct{}{}}
	a.values = map[replication.Dot][]byte{}
	a.changes = nil
	a.bytes, a.count, a.ops = 0, 0, 0
}

// discard forgets what is staged after an error. No commit is under way.
func (a *applier) discard() {
	clear(a.logs)
	a.reset()
	a.forget()
}

// forget drops what is kept of saved keys.
func (a *applier) forget() {
	a.keys, a.keysBytes = map[string]*keyState{}, 0
	for _, k := range a.staging {
		a.hold(k)
	}
	if a.flight != nil {
		for _, k := range a.flight.keys {
			a.hold(k)
		}
	}
}

// hold keeps a key in memory.
func (a *applier) hold(k *keyState) {
	if a.keys[k.name] == nil {
		a.keys[k.name] = k
		a.keysBytes += k.cost + overhead
	}
}

// close ends the reading of what is saved; the next read starts again.
func (a *applier) close() {
	if a.txn != nil {
		a.txn.Discard()
		a.txn = nil
	}
}

// read is the transaction for reading what has landed: all that is saved but what
// the commit under way changes. Of keys and logs that is in memory.
func (a *applier) read() *badger.Txn {
	if a.txn == nil {
		a.txn = a.d.latest()
	}
	return a.txn
}

// settled is the transaction for reading all that is saved. It waits for the commit
// under way.
func (a *applier) settled() (*badger.Txn, error) {
	if err := a.land(); err != nil {
		return nil, err
	}
	return a.read(), nil
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
		if err := a.land(); err != nil {
			return err
		}
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
			if err := a.begin(nil); err != nil {
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
	k := a.keys[string(key)]
	if k != nil && k.rec.large && !k.staged && a.flies(k) {
		if err := a.land(); err != nil { // which drops it: its siblings are read as they are saved
			return nil, err
		}
		k = nil
	}
	if k == nil {
		k = a.newKey(key)
		if err := a.loadKeys(a.read(), []*keyState{k}); err != nil {
			return nil, err
		}
		a.hold(k)
	}
	if !k.staged {
		k.staged = true
		a.staging = append(a.staging, k)
		a.cost(k.cost)
	}
	return k, nil
}

func (a *applier) newKey(key []byte) *keyState {
	dbKey := stateKey(a.space, key)
	return &keyState{name: string(key), dbKey: dbKey, key: dbKey[1+spaceLen:]}
}

// flies tells that the commit under way changes a key.
func (a *applier) flies(k *keyState) bool { return a.flight != nil && k.flight == a.flights }

// enlarge makes room for changes of sibling records.
func (k *keyState) enlarge() {
	k.rec.large = true
	k.added = map[replication.Dot]sibling{}
	k.removed = map[replication.Dot]struct{}{}
}

// add makes d a sibling of k. The payload must not change any more: until the commit
// a short one stays where it is.
func (a *applier) add(k *keyState, d replication.Dot, o *replication.Op, digest replication.Hash) {
	s := sibling{dot: d, order: o.Order, hlc: o.HLC, digest: digest}
	if len(o.Payload) > inlineValue {
		s.apart, s.size = true, uint64(len(o.Payload))
		a.values[d] = bytes.Clone(o.Payload)
		a.cost(1 + spaceLen + dotLen + len(o.Payload))
	} else {
		s.value = o.Payload
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

// leastSibling is the least length of an encoded sibling beside its value.
const leastSibling = logLen + 1 + 8 + 8 + 1 + 1

// remove takes d out of the siblings of k if it is there.
func (a *applier) remove(k *keyState, d replication.Dot) error {
	s, ok, err := a.take(k, d)
	if err != nil || !ok {
		return err
	}
	a.cur.digest.sub(a.hash.sibling(k.key, &s))
	k.rec.n--
	k.dirty = true
	if !k.rec.large && !s.apart {
		a.bytes -= int64(leastSibling + len(s.value)) // so that a key written often counts little
	}
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
	txn, err := a.settled()
	if err != nil {
		return s, false, err
	}
	dbKey := siblingKey(a.space, hashKey(k.key), d)
	b, err := get(txn, dbKey)
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
