package wal

import (
	"cmp"
	"slices"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// The arrival index leads from an arrival number to a block. An entry stands for the
// block that it names and for those that follow it in the same log, as long as no
// other block of the space came between: up to the number that the next entry has as
// prev, or to the newest one of the space. So a log that is written one operation at a
// time costs one record a block instead of two.

const (
	// maxCovered and maxCoveredBytes bound what an entry stands for, because who reads
	// from the middle of it begins at its start.
	maxCovered      = 32
	maxCoveredBytes = 16 << 10
)

// openEntry is the newest entry of a space as far as it may grow. The zero value never
// does: what follows begins a new one.
type openEntry struct {
	num    uint64 // of the log
	blocks int
	bytes  int
}

// covers adds a block to the entry if there is room, else begins a new one with it.
func (e *openEntry) covers(num uint64, size int) bool {
	if e.num == num && e.blocks < maxCovered && e.bytes+size <= maxCoveredBytes {
		e.blocks++
		e.bytes += size
		return true
	}
	*e = openEntry{num: num, blocks: 1, bytes: size}
	return false
}

// indexArrival stages what leads to a block that was just added to a log.
func (t *tx) indexArrival(l *logState, firstSeq uint64, size int) {
	space := l.space.id
	prev, entry := t.arrivalsOf(space)
	if !entry.covers(l.num, size) {
		key := arrivalKey(space, l.arrival)
		t.set(key, seal(key, arrivalRecord{l.num, firstSeq, prev}.encode()))
	}
	t.spaces[space], t.open[space] = l.arrival, entry
}

// arrivalsOf is the newest arrival number of a space and its open entry.
func (t *tx) arrivalsOf(space r.SpaceID) (newest uint64, open openEntry) {
	if newest, ok := t.spaces[space]; ok {
		return newest, t.open[space]
	}
	if t.under != nil {
		if newest, ok := t.under.spaces[space]; ok {
			return newest, t.under.open[space]
		}
	}
	if sp := t.s.idx.spaces[space]; sp != nil {
		return sp.arrival, sp.open
	}
	return 0, openEntry{}
}

// arrivalReader reads blocks of a space in the order of their arrival.
type arrivalReader struct {
	s      *Store
	txn    *badger.Txn
	space  r.SpaceID
	after  uint64 // not wanted up to here
	newest uint64 // nor beyond
	max    int    // bytes

	at      uint64 // the last number that was passed
	entry   arrivalRecord
	number  uint64 // of entry; 0: none yet
	list    []r.Arrival
	bytes   int
	reading r.Dot // the block that is being read
}

// full tells that nothing more is wanted.
func (a *arrivalReader) full() bool { return a.at >= a.newest || a.bytes >= a.max }

// read goes through the entries from the one on that leads to the first wanted block.
func (a *arrivalReader) read() error {
	a.at = a.after
	from, _, err := lastAtOrBefore(a.txn, arrivalPrefix(a.space), arrivalKey(a.space, a.after+1))
	if err != nil {
		return err
	}
	err = each(a.txn, arrivalPrefix(a.space), from, func(key, value []byte) (bool, error) {
		next, number, err := parseArrival(key, value)
		if err != nil {
			return false, err
		}
		if a.number > 0 && next.prev > a.after {
			if err := a.follow(min(next.prev, a.newest)); err != nil || a.full() {
				return false, err
			}
		}
		if next.prev > a.at || len(a.list) > 0 && next.prev != a.at {
			return false, problem("an entry of the arrival index is missing")
		}
		a.entry, a.number = next, number
		return true, nil
	})
	if err != nil || a.full() {
		return err
	}
	if a.number > 0 {
		if err := a.follow(a.newest); err != nil || a.full() {
			return err
		}
	}
	return problem("the arrival index ends early")
}

// follow reads the blocks of the entry, the last of which has the number end.
func (a *arrivalReader) follow(end uint64) error {
	l, ok := a.s.stateOf(a.entry.num)
	if !ok {
		return problem("the arrival index names an unknown log")
	}
	seq, expect := a.entry.firstSeq, a.number
	for a.bytes < a.max {
		a.reading = r.Dot{Log: l.id, Seq: seq}
		b, sb, err := a.block(&l, seq)
		switch {
		case err != nil:
			return err
		case expect > 0 && sb.arrival != expect, expect == 0 && sb.arrival <= a.at && sb.arrival > a.after, sb.arrival > end:
			return problem("a block and the arrival index disagree")
		}
		if sb.arrival > a.after {
			a.list = append(a.list, r.Arrival{Number: sb.arrival, Block: b, Origin: l.origin})
			a.bytes += b.EncodedLen()
			a.at = sb.arrival
		}
		if sb.arrival == end {
			return nil
		}
		seq, expect = b.Header.LastSeq()+1, 0
	}
	return nil
}

// block reads a block of a log by its first seq.
func (a *arrivalReader) block(l *logState, seq uint64) (*r.Block, storedBlock, error) {
	key := blockKey(l.num, seq)
	item, err := a.txn.Get(key)
	if err != nil {
		return nil, storedBlock{}, readProblem(err)
	}
	value, err := item.ValueCopy(nil)
	if err != nil {
		return nil, storedBlock{}, readProblem(err)
	}
	return parseStored(l, key, value)
}

// gone is an arrival number that no block has any more, and the number of the block
// that its log then ends with; 0 if there is none.
type gone struct{ number, kept uint64 }

// goneArrival notes that a cut takes a block of a space. kept is what its log ends
// with once the transaction is applied.
func (t *tx) goneArrival(space r.SpaceID, number, kept uint64) {
	if t.gone == nil {
		t.gone = map[r.SpaceID][]gone{}
	}
	t.gone[space] = append(t.gone[space], gone{number, kept})
	t.lsm += moveCost // dropArrivals needs it
}

// dropArrivals takes blocks that are gone out of the arrival index, and mends its
// chain. Nothing may have been added to it in this transaction.
func (c *committer) dropArrivals(t *tx) error {
	if len(t.gone) == 0 {
		return nil
	}
	freed := c.s.freed
	defer func() { t.setFreed(freed) }()
	return c.s.view(func(txn *badger.Txn) error {
		for space, numbers := range t.gone {
			freed += uint64(len(numbers))
			if err := dropArrivals(txn, t, space, numbers); err != nil {
				return err
			}
		}
		return nil
	})
}

// setFreed stages how many arrival numbers no block has any more because of cuts,
// so that a repair does not miss them.
func (t *tx) setFreed(n uint64) {
	t.freed = n
	t.setOther([]byte{kindFreed}, encodeCount(n))
}

// dropArrivals: of an entry that leads to a block that is gone, all that follows that
// block is gone too, since a cut takes the end of a log.
func dropArrivals(txn *badger.Txn, t *tx, space r.SpaceID, numbers []gone) error {
	opt := badger.DefaultIteratorOptions
	opt.PrefetchValues = false
	opt.Prefix = arrivalPrefix(space)
	it := txn.NewIterator(opt)
	defer it.Close()
	back := opt
	back.Reverse = true
	before := txn.NewIterator(back)
	defer before.Close()

	mended := map[uint64]arrivalRecord{} // what follows a gap
	read := func(it *badger.Iterator) (a arrivalRecord, number uint64, err error) {
		value, err := it.Item().ValueCopy(nil)
		if err != nil {
			return a, 0, readProblem(err)
		}
		a, number, err = parseArrival(it.Item().Key(), value)
		if m, ok := mended[number]; ok {
			a = m
		}
		return a, number, err
	}
	slices.SortFunc(numbers, func(a, b gone) int { return cmp.Compare(a.number, b.number) })
	var through uint64 // all up to here is out of the index
	for _, g := range numbers {
		if g.number <= through {
			continue
		}
		if before.Seek(arrivalKey(space, g.number)); !before.Valid() {
			return problem("an entry of the arrival index is missing")
		}
		a, number, err := read(before)
		if err != nil {
			return err
		}
		last := g.kept // what the entry, or the one before it, then ends with
		if number == g.number {
			delete(mended, number)
			t.del(arrivalKey(space, number))
			last = a.prev
		} else if g.kept < number {
			return problem("an entry of the arrival index is missing")
		}
		if it.Seek(arrivalKey(space, number+1)); !it.Valid() {
			t.spaces[space] = last // and no entry is open
			break
		}
		next, at, err := read(it)
		if err != nil {
			return err
		}
		through = next.prev
		next.prev = last
		mended[at] = next
	}
	for number, a := range mended {
		key := arrivalKey(space, number)
		t.set(key, seal(key, a.encode()))
	}
	return nil
}
