package wal

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// mender makes a consistent store of the whole blocks in db.new.
type mender struct {
	o   *Options
	c   *collector
	out *badger.WriteBatch

	logs     map[uint64]*logState // by local number, from records and genesis blocks
	arrivals []arrivalEntry
	given    map[uint64]bool // their numbers; each is given once
	head     head
	hasHead  bool
	// numbersGiven is the newest arrival number that the head tells of.
	numbersGiven uint64
	// known: the small records are complete and the newest, so that every log's
	// end is known.
	known bool
	held  map[r.LogID]uint64 // highest seq of a log that is known to have been held
	prev  map[r.LogID]uint64 // the same, of own logs, by what later own logs say
	sum   digest
	res   rebuilt
}

type arrivalEntry struct {
	space   r.SpaceID
	arrival uint64
	num     uint64
	seq     uint64
	size    int
}

func newMender(o *Options, c *collector) *mender {
	return &mender{o: o, c: c, out: c.db.NewWriteBatch(), logs: map[uint64]*logState{}, given: map[uint64]bool{},
		held: map[r.LogID]uint64{}, prev: map[r.LogID]uint64{}}
}

func (m *mender) run(w testimony) (*rebuilt, error) {
	if raw := m.c.record(keyHead); raw != nil {
		if h, err := decodeHead(raw); err == nil {
			m.head, m.hasHead = h, true
		}
	}
	m.numbersGiven = m.head.arrivals
	// New numbers come after all that any block has, whatever became of the head.
	m.head.arrivals = max(m.head.arrivals, m.c.arrivals)
	m.known = m.current(w)
	m.logRecords()
	if err := m.c.db.View(m.allLogs); err != nil {
		return nil, err
	}
	if err := m.index(); err != nil {
		return nil, err
	}
	if err := m.smallRecords(); err != nil {
		return nil, err
	}
	if err := m.losses(w); err != nil {
		return nil, err
	}
	if w.valid {
		m.head.commits = max(m.head.commits, w.commits)
	}
	m.head.commits++
	m.head.prev = r.Hash{}
	m.head.digest = m.sum
	if err := m.out.Set(keyHead, seal(keyHead, m.head.encode())); err != nil {
		return nil, err
	}
	return &m.res, m.out.Flush()
}

// logRecords takes what the logs' records say; their ends are proven later.
func (m *mender) logRecords() {
	for key := range m.c.records {
		if key[0] != kindLog || len(key) != 33 {
			continue
		}
		id := r.LogID([]byte(key[1:]))
		raw := m.c.record([]byte(key))
		l, space, err := decodeLog(id, raw)
		if err != nil {
			continue
		}
		l.space = &spaceState{id: space}
		m.logs[l.num] = l
		m.head.logs = max(m.head.logs, l.num)
	}
}

// allLogs mends each log that has a record or a block.
func (m *mender) allLogs(txn *badger.Txn) error {
	nums := map[uint64]bool{}
	for num := range m.logs {
		nums[num] = true
	}
	opt := badger.DefaultIteratorOptions
	opt.PrefetchValues = false
	it := txn.NewIterator(opt)
	defer it.Close()
	for _, kind := range []byte{kindBlock, kindAside, kindCut, kindLoose} {
		for it.Seek([]byte{kind}); it.ValidForPrefix([]byte{kind}); {
			num := binary.BigEndian.Uint64(it.Item().Key()[1:])
			nums[num] = true
			it.Seek(blockKeyOf(kind, num+1, 0))
		}
	}
	// In the order of their numbers, so that a repair of the same files is the same.
	for _, num := range slices.Sorted(maps.Keys(nums)) {
		m.head.logs = max(m.head.logs, num)
		if err := m.mendLog(txn, num); err != nil {
			return err
		}
	}
	loose := []byte{kindLoose}
	for it.Seek(loose); it.ValidForPrefix(loose); it.Next() {
		if err := m.out.Delete(it.Item().KeyCopy(nil)); err != nil {
			return err
		}
	}
	return nil
}

func blockKeyOf(kind byte, num, seq uint64) []byte {
	k := blockKey(num, seq)
	k[0] = kind
	return k
}

// held is a block that is whole, at its key.
type held struct {
	key []byte
	b   *r.Block
	sb  storedBlock
}

// mendLog finds the unbroken prefix of one log and rewrites what says where it
// ends.
func (m *mender) mendLog(txn *badger.Txn, num uint64) error {
	old := m.logs[num]
	l := &logState{num: num, base: 1}
	if old != nil {
		*l = *old
		l.tip, l.lastHLC, l.blocks, l.bytes, l.arrival = r.Position{}, 0, 0, 0, 0
		l.flags &= flagForked | flagTail
		l.cut = nil
	}
	p := &prefix{m: m, txn: txn, l: l, old: old}
	var err error
	if p.loose, err = m.looseOf(txn, num); err != nil {
		return err
	}
	if err := p.walk(); err != nil {
		return err
	}
	if l.id == (r.LogID{}) {
		return p.dropAll() // neither record nor genesis: nobody can tell whose it is
	}
	m.logs[num] = l
	if !m.known { // else the log's record tells
		m.held[l.id] = max(m.held[l.id], m.c.held[num])
	}
	if old != nil {
		m.held[l.id] = max(m.held[l.id], old.tip.Seq)
	}
	return p.finish()
}

// index writes the arrival index anew.
func (m *mender) index() error {
	slices.SortFunc(m.arrivals, func(a, b arrivalEntry) int { return cmp.Compare(a.arrival, b.arrival) })
	prev, open := map[r.SpaceID]uint64{}, map[r.SpaceID]openEntry{}
	for _, a := range m.arrivals {
		entry := open[a.space]
		if !entry.covers(a.num, a.size) {
			key := arrivalKey(a.space, a.arrival)
			value := arrivalRecord{a.num, a.seq, prev[a.space]}.encode()
			if err := m.out.Set(key, seal(key, value)); err != nil {
				return err
			}
		}
		prev[a.space], open[a.space] = a.arrival, entry
	}
	return nil
}

// smallRecords writes the records that do not follow from blocks. Cursors are
// left out: the instance is new.
func (m *mender) smallRecords() error {
	byID := map[r.LogID]*logState{}
	for _, l := range m.logs {
		byID[l.id] = l
	}
	for k := range m.c.records {
		key := []byte(k)
		value := m.c.record(key)
		if value == nil {
			continue
		}
		switch key[0] {
		case kindIdentity:
			id, err := decodeIdentity(value)
			if err != nil {
				continue
			}
			m.res.identity = &id
		case kindFork, kindTail:
			l := byID[r.LogID(key[1:])]
			if l == nil || key[0] == kindTail && l.flags&flagTail == 0 || key[0] == kindFork && l.flags&flagForked == 0 {
				continue
			}
		case kindMeta, kindFreed:
		default: // losses are written anew, cursors are of another instance
			continue
		}
		if err := m.small(key, slices.Clone(value)); err != nil {
			return err
		}
	}
	return nil
}
