package wal

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// prefix walks the blocks of one log.
type prefix struct {
	m   *mender
	txn *badger.Txn
	l   *logState
	old *logState // what its record said, nil if that is lost

	chain    []link // the unbroken prefix, without bodies
	beyond   []link // whole blocks after the first gap, too
	loose    looseBlocks
	named    r.LogID // what blocks say of which nobody can tell whose they are
	firstCut *link   // the first block that is stored as set aside by a cut
}

// link is what of a block in the prefix is still needed.
type link struct {
	key     []byte // where it is stored
	prev    r.Position
	end     r.Position
	hlc     r.HLC
	size    uint64
	through uint64
	arrival uint64
	signed  bool
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
		if key[0] == kindCut && p.firstCut == nil {
			k := linkOf(h)
			p.firstCut = &k
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
		at = p.bridge(at, p.old.tip)
	}
	if err := p.walkCut(read); err != nil {
		return err
	}
	broken = true
	prefixAside := blockKeyOf(kindAside, p.l.num, 0)[:9]
	if err := each(p.txn, prefixAside, nil, read); err != nil {
		return err
	}
	if err := p.join(); err != nil {
		return err
	}
	return p.extend()
}

// walkCut reads what a cut set aside, unless it is known that nothing is: then it
// is what an older version of the database held.
func (p *prefix) walkCut(read func(key, value []byte) (bool, error)) error {
	stale := p.m.known && p.old != nil && p.old.cut == nil
	return each(p.txn, cutPrefix(p.l.num), nil, func(key, value []byte) (bool, error) {
		if stale {
			return true, p.m.out.Delete(bytes.Clone(key))
		}
		return read(key, value)
	})
}

// cutAt is the seq after which blocks were set aside by a cut, and when; false if
// none were. Where the log's record is lost, all that is stored as set aside is: a
// Restrict takes back what counts.
func (p *prefix) cutAt() (seq uint64, since int64, ok bool) {
	switch {
	case p.old != nil && p.old.cut != nil:
		return p.old.tip.Seq, p.old.cut.since, true
	case p.firstCut != nil:
		return p.firstCut.prev.Seq, int64(p.firstCut.through), true
	}
	return 0, 0, false
}

// parse checks a stored block; the first one of a log tells whose the log is.
func (p *prefix) parse(key, value []byte) (held, bool) {
	sb, err := unsealBlock(key, value)
	if err != nil {
		return held{}, false
	}
	b, rest, err := r.ParseBlock(sb.data)
	if err != nil || len(rest) > 0 || !b.HasBody() {
		return held{}, false
	}
	if g := b.Header.Genesis; g != nil {
		p.m.linked(g)
		if p.l.id == (r.LogID{}) {
			p.begin(b.Header.Log, g)
		}
	}
	if b.Header.Log != p.l.id && p.l.id != (r.LogID{}) {
		return held{}, false
	}
	if p.l.id == (r.LogID{}) {
		p.named = b.Header.Log
	}
	return held{key: key, b: b, sb: sb}, true
}

func linkOf(h held) link {
	return link{
		key: h.key, prev: h.b.PrevPosition(), end: h.b.End(), hlc: h.b.Header.LastHLC,
		size: uint64(len(h.sb.data)), through: h.sb.through, arrival: h.sb.arrival, signed: len(h.b.Sig) > 0,
	}
}

// bridge looks among the loose blocks for those that lead from one position to
// another, and returns how far the prefix now goes.
func (p *prefix) bridge(from, to r.Position) r.Position {
	if !p.append(p.loose.path(from, to)) {
		return from
	}
	return to
}

// append takes loose blocks that follow the prefix.
func (p *prefix) append(path []*looseBlock) bool {
	for _, b := range path {
		if b.genesis != nil && p.l.id == (r.LogID{}) {
			p.begin(b.log, b.genesis)
		}
		if b.log != p.l.id {
			return false // a chain never leaves its log
		}
		p.chain = append(p.chain, b.link)
	}
	return len(path) > 0
}

// begin tells whose the log is.
func (p *prefix) begin(id r.LogID, g *r.Genesis) {
	p.l.id, p.l.origin, p.l.epoch, p.l.space = id, g.Origin, g.Epoch, &spaceState{id: g.Space}
}

// extend continues the prefix with loose blocks as far as a signature goes, on
// the branch that tables certify where they name a later block.
func (p *prefix) extend() error {
	var limit r.Position
	if len(p.beyond) > 0 {
		limit = p.beyond[0].prev
	}
	if path := p.loose.longest(p.l, p.at(), limit); p.append(path) {
		return p.join()
	}
	return nil
}

// at is where the prefix ends.
func (p *prefix) at() r.Position {
	if n := len(p.chain); n > 0 {
		return p.chain[n-1].end
	}
	return r.Position{}
}

// join appends what lies beyond a gap where the gap is closed, and keeps only
// what ends in a signature, so that every run can be served.
func (p *prefix) join() error {
	at := p.at()
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

// signedEnd cuts the first n blocks of the chain after their last signature,
// unless the stored tail carries one.
func (p *prefix) signedEnd(n int) (signed int, tail bool) {
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
	n, tail := p.signedEnd(len(p.chain))
	if seq, since, ok := p.cutAt(); ok {
		counting := n
		for counting > 0 && p.chain[counting-1].end.Seq > seq {
			counting--
		}
		if counting < n {
			n, tail = p.signedEnd(counting)
			if err := p.setCut(p.chain[n:], since); err != nil {
				return err
			}
			p.chain = p.chain[:n]
		}
	}
	if l.cut == nil {
		if err := m.out.Delete(cutTailKey(l.num)); err != nil {
			return err
		}
	}
	l.flags &= flagForked
	if tail {
		l.flags |= flagTail
	}
	for i := range p.chain[:n] {
		if err := p.keep(&p.chain[i]); err != nil {
			return err
		}
	}
	rest := append(p.chain[n:], p.beyond...)
	if !m.known {
		for _, b := range p.loose.provenAfter(l) {
			if !slices.ContainsFunc(rest, func(k link) bool { return k.prev.Seq == b.prev.Seq }) {
				rest = append(rest, b.link)
			}
		}
	}
	for _, k := range rest {
		if !m.known && k.key[0] != kindAside {
			m.held[l.id] = max(m.held[l.id], k.end.Seq)
		}
		if err := p.setAside(&k); err != nil {
			return err
		}
	}
	if l.blocks == 0 && l.flags&flagAside == 0 && l.cut == nil {
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
	stale := k.key[0] != kindBlock
	p.m.c.numbers[k.arrival] = true
	renumber := k.arrival <= l.arrival || p.m.given[k.arrival]
	if renumber {
		p.m.head.arrivals++
		k.arrival = p.m.head.arrivals
	}
	p.m.given[k.arrival] = true
	l.arrival = k.arrival
	p.m.arrivals = append(p.m.arrivals, arrivalEntry{l.space.id, k.arrival, l.num, first, int(k.size)})
	p.m.res.kept++
	if !stale && !renumber && k.through == l.bytes {
		return nil
	}
	data, err := p.bytesAt(k.key)
	if err != nil {
		return err
	}
	if stale {
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
	if key[0] == kindLoose {
		return unsealLoose(value).data, nil
	}
	sb, err := unsealBlock(key, value)
	return sb.data, err
}

// setAside moves a block to where it waits for what is missing before it.
func (p *prefix) setAside(k *link) error {
	p.l.flags |= flagAside
	p.m.res.aside++
	if k.arrival > 0 {
		p.m.c.numbers[k.arrival] = true
	}
	data, err := p.bytesAt(k.key)
	if err != nil {
		return err
	}
	if k.key[0] == kindBlock || k.key[0] == kindCut {
		if err := p.m.out.Delete(k.key); err != nil {
			return err
		}
	}
	aside := asideKey(p.l.num, k.prev.Seq+1)
	return p.m.out.Set(aside, sealBlock(aside, slices.Clone(data), 0, 0))
}

// setCut keeps the end of a chain as what a cut set aside.
func (p *prefix) setCut(links []link, since int64) error {
	last := links[len(links)-1]
	p.l.cut = &cutState{end: last.end.Seq, hlc: last.hlc, since: since}
	for _, k := range links {
		p.m.c.numbers[k.arrival] = true
		if k.key[0] == kindCut {
			continue
		}
		data, err := p.bytesAt(k.key)
		if err != nil {
			return err
		}
		if err := p.m.out.Delete(k.key); err != nil {
			return err
		}
		key := cutKey(p.l.num, k.prev.Seq+1)
		if err := p.m.out.Set(key, sealBlock(key, slices.Clip(data), uint64(since), 0)); err != nil {
			return err
		}
	}
	return nil
}

// dropAll removes blocks whose log cannot be told.
func (p *prefix) dropAll() error {
	if !p.m.known {
		for _, b := range p.loose.all {
			p.m.held[b.log] = max(p.m.held[b.log], b.end.Seq)
		}
	}
	for _, k := range append(p.chain, p.beyond...) {
		p.m.held[p.named] = max(p.m.held[p.named], k.end.Seq)
		if err := p.m.out.Delete(k.key); err != nil {
			return err
		}
	}
	return nil
}
