package wal

import (
	"cmp"
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
	sum      digest
	res      rebuilt
}

type arrivalEntry struct {
	space   r.SpaceID
	arrival uint64
	num     uint64
	seq     uint64
}

func newMender(o *Options, c *collector) *mender {
	return &mender{o: o, c: c, out: c.db.NewWriteBatch(), logs: map[uint64]*logState{}, given: map[uint64]bool{}}
}

func (m *mender) run(w testimony) (*rebuilt, error) {
	if raw := m.c.record(keyHead); raw != nil {
		if h, err := decodeHead(raw); err == nil {
			m.head = h
		}
	}
	// New numbers come after all that any block has, whatever became of the head.
	m.head.arrivals = max(m.head.arrivals, m.c.arrivals)
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
	for _, kind := range []byte{kindBlock, kindAside} {
		for it.Seek([]byte{kind}); it.ValidForPrefix([]byte{kind}); {
			num, _, _ := parseBlockKey(it.Item().Key())
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
	key []byte // nil: of the loose ones, not stored under a key of its own
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
	}
	p := &prefix{m: m, txn: txn, l: l, old: old}
	if err := p.walk(); err != nil {
		return err
	}
	if l.id == (r.LogID{}) {
		return p.dropAll() // neither record nor genesis: nobody can tell whose it is
	}
	m.logs[num] = l
	if err := p.finish(); err != nil {
		return err
	}
	if old == nil || l.tip != old.tip {
		m.res.logs++
	}
	return nil
}

// prefix walks the blocks of one log.
type prefix struct {
	m   *mender
	txn *badger.Txn
	l   *logState
	old *logState // what its record said, nil if that is lost

	chain  []link // the unbroken prefix, without bodies
	beyond []link // whole blocks after the first gap, too
}

// link is what of a block in the prefix is still needed.
type link struct {
	key     []byte // where it is stored; nil: nowhere yet
	prev    r.Position
	end     r.Position
	hlc     r.HLC
	size    uint64
	through uint64
	arrival uint64
	signed  bool
	data    []byte // of a block that is stored nowhere yet
}

// walk reads the stored blocks in order.
func (p *prefix) walk() error {
	at := r.Position{}
	broken := false
	read := func(key, value []byte) (bool, error) {
		h, ok := p.parse(append([]byte(nil), key...), append([]byte(nil), value...))
		if !ok {
			return true, nil
		}
		if !broken && h.b.PrevPosition() != at && h.b.Header.FirstSeq > at.Seq {
			at = p.bridge(at, h.b.PrevPosition())
		}
		if broken = broken || h.b.PrevPosition() != at; broken {
			p.beyond = append(p.beyond, linkOf(h))
			return true, nil
		}
		p.chain = append(p.chain, linkOf(h))
		at = h.b.End()
		return true, nil
	}
	if err := each(p.txn, blockPrefix(p.l.num), nil, read); err != nil {
		return err
	}
	if !broken && p.old != nil && at.Seq < p.old.tip.Seq {
		p.bridge(at, p.old.tip)
	}
	broken = true
	prefixAside := blockKeyOf(kindAside, p.l.num, 0)[:9]
	if err := each(p.txn, prefixAside, nil, read); err != nil {
		return err
	}
	return p.join()
}

// parse checks a stored block; the first one of a log tells whose the log is.
func (p *prefix) parse(key, value []byte) (held, bool) {
	sb, err := unsealBlock(key, value)
	if err != nil {
		return held{}, false
	}
	return p.parseData(key, sb)
}

func (p *prefix) parseData(key []byte, sb storedBlock) (held, bool) {
	b, rest, err := r.ParseBlock(sb.data)
	if err != nil || len(rest) > 0 || !b.HasBody() {
		return held{}, false
	}
	if g := b.Header.Genesis; g != nil && p.l.id == (r.LogID{}) {
		p.l.id, p.l.origin, p.l.epoch, p.l.space = b.Header.Log, g.Origin, g.Epoch, &spaceState{id: g.Space}
	}
	if b.Header.Log != p.l.id && p.l.id != (r.LogID{}) {
		return held{}, false
	}
	return held{key: key, b: b, sb: sb}, true
}

func linkOf(h held) link {
	k := link{
		key: h.key, prev: h.b.PrevPosition(), end: h.b.End(), hlc: h.b.Header.LastHLC,
		size: uint64(len(h.sb.data)), through: h.sb.through, arrival: h.sb.arrival, signed: len(h.b.Sig) > 0,
	}
	if h.key == nil {
		k.data = h.sb.data
	}
	return k
}

// bridge looks among the loose blocks for those that lead from one position to
// another, and returns how far the prefix now goes.
func (p *prefix) bridge(from, to r.Position) r.Position {
	var found []held
	at := from
	for at.Seq < to.Seq {
		next, ok := p.loose(at)
		if !ok {
			return from
		}
		found = append(found, next)
		at = next.b.End()
	}
	if at != to {
		return from
	}
	for _, h := range found {
		p.chain = append(p.chain, linkOf(h))
	}
	return to
}

// loose finds a loose block that follows a position.
func (p *prefix) loose(at r.Position) (found held, ok bool) {
	pre := blockKeyOf(kindLoose, p.l.num, at.Seq+1)
	err := each(p.txn, pre, nil, func(_, value []byte) (bool, error) {
		h, valid := p.parseData(nil, storedBlock{data: append([]byte(nil), value...)})
		if valid && h.b.PrevPosition() == at {
			found, ok = h, true
		}
		return !ok, nil
	})
	return found, ok && err == nil
}

// join appends what lies beyond a gap where the gap is closed, and keeps only
// what ends in a signature, so that every run can be served.
func (p *prefix) join() error {
	at := r.Position{}
	if n := len(p.chain); n > 0 {
		at = p.chain[n-1].end
	}
	slices.SortStableFunc(p.beyond, func(a, b link) int { return cmp.Compare(a.prev.Seq, b.prev.Seq) })
	rest := p.beyond[:0]
	for _, k := range p.beyond {
		switch {
		case k.prev == at:
			p.chain = append(p.chain, k)
			at = k.end
		case k.prev.Seq >= at.Seq:
			rest = append(rest, k)
		default: // covered by the prefix
			if err := p.m.out.Delete(k.key); err != nil {
				return err
			}
		}
	}
	p.beyond = rest
	return nil
}

// signedEnd cuts the chain after its last signature, unless the stored tail
// carries one.
func (p *prefix) signedEnd() (n int, tail bool) {
	n = len(p.chain)
	if raw := p.m.c.record(tailKey(p.l.id)); raw != nil && n > 0 {
		if blocks, err := parseChain(raw); err == nil && len(blocks) > 0 && blocks[0].PrevPosition() == p.chain[n-1].end {
			return n, true
		}
	}
	for n > 0 && !p.chain[n-1].signed {
		n--
	}
	return n, false
}

// finish writes the prefix's records and sets the rest aside.
func (p *prefix) finish() error {
	m, l := p.m, p.l
	n, tail := p.signedEnd()
	l.flags &= flagForked
	if tail {
		l.flags |= flagTail
	}
	for i := range p.chain[:n] {
		if err := p.keep(&p.chain[i]); err != nil {
			return err
		}
	}
	for _, k := range append(p.chain[n:], p.beyond...) {
		if k.key == nil {
			continue // a loose block that nothing confirmed
		}
		if err := p.setAside(&k); err != nil {
			return err
		}
	}
	if l.blocks == 0 && l.flags&flagAside == 0 {
		delete(m.logs, l.num)
		return nil
	}
	if m.c.record(forkKey(l.id)) == nil {
		l.flags &^= flagForked
	}
	key, value := logKey(l.id), l.encode()
	m.sum.add(recordHash(key, value))
	return m.out.Set(key, seal(key, value))
}

// keep accounts for a block of the prefix, and rewrites it where its trailer is
// not true any more. A block that has no arrival number of its own gets a new
// one, and with it every later block of the log, since a log arrives in its order
// (G4). The instance is new: no cursor knows the old numbers.
func (p *prefix) keep(k *link) error {
	l := p.l
	first := l.tip.Seq + 1
	l.blocks++
	l.bytes += k.size
	l.tip, l.lastHLC = k.end, k.hlc
	stale := k.key == nil || k.key[0] != kindBlock
	renumber := stale || k.arrival <= l.arrival || p.m.given[k.arrival]
	if renumber {
		p.m.head.arrivals++
		k.arrival = p.m.head.arrivals
	}
	p.m.given[k.arrival] = true
	l.arrival = k.arrival
	p.m.arrivals = append(p.m.arrivals, arrivalEntry{l.space.id, k.arrival, l.num, first})
	p.m.res.kept++
	if !renumber && k.through == l.bytes {
		return nil
	}
	data := k.data
	if data == nil {
		var err error
		if data, err = p.bytesAt(k.key); err != nil {
			return err
		}
	}
	if stale && k.key != nil {
		if err := p.m.out.Delete(k.key); err != nil {
			return err
		}
	}
	key := blockKey(l.num, first)
	return p.m.out.Set(key, sealBlock(key, slices.Clone(data), l.bytes, k.arrival))
}

// bytesAt reads a stored block's bytes again.
func (p *prefix) bytesAt(key []byte) ([]byte, error) {
	item, err := p.txn.Get(key)
	if err != nil {
		return nil, err
	}
	value, err := item.ValueCopy(nil)
	if err != nil {
		return nil, err
	}
	sb, err := unsealBlock(key, value)
	return sb.data, err
}

// setAside moves a block to where it waits for what is missing before it.
func (p *prefix) setAside(k *link) error {
	p.l.flags |= flagAside
	p.m.res.aside++
	data, err := p.bytesAt(k.key)
	if err != nil {
		return err
	}
	if k.key[0] == kindBlock {
		if err := p.m.out.Delete(k.key); err != nil {
			return err
		}
	}
	aside := asideKey(p.l.num, k.prev.Seq+1)
	return p.m.out.Set(aside, sealBlock(aside, slices.Clone(data), 0, 0))
}

// dropAll removes blocks whose log cannot be told.
func (p *prefix) dropAll() error {
	for _, k := range append(p.chain, p.beyond...) {
		if k.key == nil {
			continue
		}
		if err := p.m.out.Delete(k.key); err != nil {
			return err
		}
	}
	p.m.res.logs++
	return nil
}

// index writes the arrival index anew.
func (m *mender) index() error {
	slices.SortFunc(m.arrivals, func(a, b arrivalEntry) int { return cmp.Compare(a.arrival, b.arrival) })
	prev := map[r.SpaceID]uint64{}
	for _, a := range m.arrivals {
		key := arrivalKey(a.space, a.arrival)
		value := arrivalRecord{a.num, a.seq, prev[a.space]}.encode()
		prev[a.space] = a.arrival
		if err := m.out.Set(key, seal(key, value)); err != nil {
			return err
		}
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
		case kindMeta:
		default:
			continue
		}
		m.sum.add(recordHash(key, value))
		if err := m.out.Set(key, seal(key, slices.Clone(value))); err != nil {
			return err
		}
	}
	return nil
}
