package wal

import (
	"bytes"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// Blocks beyond a cut move to keys of their own, with the time of the cut, and
// come back when the cut is lifted. They are a chain that follows the log's tip;
// the headers that were the log's tail are kept with them, so that it is known
// again then. Each transaction moves some blocks, from the tip down or up to it,
// and leaves a store like any other: where the last block that counts is not
// signed, the headers of what follows it, up to a signature, are the log's tail.

// cutState tells what of a log is set aside. It is never changed, but replaced.
type cutState struct {
	end   uint64 // seq of the last operation set aside
	hlc   r.HLC  // its time: an origin's are never given twice
	since int64  // when the first of the blocks was set aside, in Unix milliseconds
}

func (c *cutState) expired(now time.Time) bool { return isExpired(c.since, now) }

func isExpired(since int64, now time.Time) bool {
	return now.Sub(time.UnixMilli(since)) >= r.SetAsideFor
}

const (
	// cutCost bounds what moves in one transaction, as Badger counts it. What is
	// left is for a block and a tail that go beyond it.
	cutCost = maxTxLSM / 2
	// moveCost is what a move costs besides the block: the old key, the arrival and
	// the one after it.
	moveCost = 4 * recordCost
)

// moving is a block on its way to or from where it waits.
type moving struct {
	b  *r.Block
	sb storedBlock
}

// moves gathers the blocks of one log that move in one transaction.
type moves struct {
	t      *tx
	blocks []moving
	cost   int
	raw    int
}

// add takes a block if there is room: always where the transaction has nothing
// else.
func (m *moves) add(b moving) bool {
	cost, raw := lsmCost(0, len(b.sb.data)+trailerLen)+moveCost, len(b.sb.data)
	full := m.t.lsm+m.cost+cost > cutCost || m.t.raw+m.raw+raw > maxTx
	if full && (len(m.blocks) > 0 || !m.t.empty()) {
		return false
	}
	m.blocks = append(m.blocks, b)
	m.cost, m.raw = m.cost+cost, m.raw+raw
	return true
}

// stageRetreat takes a log back to where its limit ends, or as far as there is
// room.
func (c *committer) stageRetreat(t *tx, l *logState) (more bool, err error) {
	limit := c.s.limitOf(l.id)
	taken := moves{t: t} // from the tip down
	var kept *moving     // the block that the log then ends with
	var tail []*r.Block
	err = c.s.view(func(txn *badger.Txn) (err error) {
		for at := l.tip; at.Seq > 0 && kept == nil; {
			b, sb, err := covering(txn, l, at.Seq)
			if err != nil {
				return err
			}
			if b.End() != at {
				return problem("blocks are missing or do not follow each other")
			}
			m := moving{b, sb}
			if limit.Counts(at) {
				kept = &m
			} else if more = !taken.add(m); more {
				kept = &m
			}
			at = b.PrevPosition()
		}
		if l.flags&flagTail != 0 {
			tail, err = readTail(txn, l.id)
		}
		return err
	})
	if err != nil || len(taken.blocks) == 0 {
		return more, err
	}
	var beyond []*r.Block
	for _, m := range slices.Backward(taken.blocks) {
		beyond = append(beyond, m.b)
	}
	beyond = append(beyond, tail...)
	if upToSignature(beyond) == nil {
		return false, problem("no signature is in reach of a run")
	}
	l = t.change(l)
	if l.cut == nil && len(tail) > 0 {
		key := cutTailKey(l.num)
		t.set(key, sealBlock(key, encodeChain(tail), uint64(c.s.opt.Now().UnixMilli()), 0))
	}
	return more, c.retreat(t, l, &taken, kept, beyond)
}

// retreat stages that blocks of a log, from its tip down to kept, do not count;
// beyond is what follows kept.
func (c *committer) retreat(t *tx, l *logState, taken *moves, kept *moving, beyond []*r.Block) error {
	prev, size, now := l.tip, l.bytes, c.s.opt.Now().UnixMilli()
	cut := cutState{since: now}
	if l.cut != nil {
		cut = *l.cut
	}
	cut.end, cut.hlc = max(cut.end, prev.Seq), max(cut.hlc, l.lastHLC)
	l.cut = &cut
	var gone []uint64
	for _, m := range taken.blocks {
		seq := m.b.Header.FirstSeq
		key := cutKey(l.num, seq)
		t.set(key, sealBlock(key, m.sb.data, uint64(now), 0))
		t.del(blockKey(l.num, seq))
		gone = append(gone, m.sb.arrival)
		l.blocks--
		l.bytes -= uint64(len(m.sb.data))
	}
	signed := true
	if l.tip, l.lastHLC, l.arrival = (r.Position{}), 0, 0; kept != nil {
		l.tip, l.lastHLC, l.arrival = kept.b.End(), kept.b.Header.LastHLC, kept.sb.arrival
		signed = len(kept.b.Sig) > 0
	}
	for _, number := range gone {
		t.goneArrival(l.space.id, number, l.arrival)
	}
	c.endIn(t, l, signed, beyond)
	t.advances = append(t.advances, r.Advance{
		Space: l.space.id, Log: l.id, Origin: l.origin, Prev: prev, Tip: l.tip,
		Ops: prev.Seq - l.tip.Seq, Bytes: size - l.bytes, Retreat: true,
	})
	if l.origin == c.s.self && l.epoch == t.epoch() {
		// No seq is given twice, even if the cut is lifted.
		return c.endEpoch(t, "what this node wrote last does not count any more")
	}
	return nil
}

// endIn makes the headers of what follows a log's last block its tail, unless that
// block is signed. The caller knows that a signature is among them.
func (c *committer) endIn(t *tx, l *logState, signed bool, beyond []*r.Block) {
	if signed {
		c.dropTail(t, l)
		return
	}
	l.flags |= flagTail
	t.setOther(tailKey(l.id), encodeChain(upToSignature(beyond)))
}

// upToSignature returns the first blocks of a chain, up to one that is signed; nil
// if none is.
func upToSignature(chain []*r.Block) []*r.Block {
	for i, b := range chain {
		if len(b.Sig) > 0 {
			return chain[:i+1]
		}
	}
	return nil
}

// cutScan sorts what a cut set aside of a log.
type cutScan struct {
	l       *logState
	limit   r.LogLimit
	moves   moves
	full    bool
	at      r.Position
	beyond  []*r.Block // follow what moves, up to a signature
	covered [][]byte   // keys of what the log has by now
	left    bool       // something goes on waiting
	tail    []*r.Block // what was the log's tail
}

// add takes the next stored block, ascending by seq, and tells whether to go on.
func (x *cutScan) add(key, value []byte) (more bool, err error) {
	if _, seq, _ := parseBlockKey(key); seq == cutTailSeq {
		x.tail, err = parseCutTail(key, value)
		if err == nil && len(x.tail) > 0 && x.tail[0].PrevPosition() != x.at {
			x.tail = nil // damage took blocks before it
		}
		return false, err
	}
	b, sb, err := parseStored(x.l, key, value)
	switch {
	case err != nil:
		return false, err
	case b.Header.LastSeq() <= x.l.tip.Seq:
		if x.full = x.moves.t.lsm+len(x.covered)*recordCost > cutCost; x.full {
			x.left = true
			return false, nil
		}
		x.covered = append(x.covered, key)
		return true, nil
	case b.PrevPosition() != x.at:
		x.left = true // the log went on otherwise
		return false, nil
	}
	x.at = b.End()
	if len(x.beyond) == 0 && !x.full && x.limit.Counts(x.at) {
		if x.moves.add(moving{b, sb}) {
			return true, nil
		}
		x.full = true
	}
	x.left = true
	if len(x.moves.blocks) == 0 {
		return false, nil
	}
	x.beyond = append(x.beyond, b)
	return len(b.Sig) == 0 && len(x.beyond) < r.MaxRunBlocks, nil
}

// provable drops what no signature reaches, and returns the headers that follow
// what is left.
func (x *cutScan) provable(txn *badger.Txn) ([]*r.Block, error) {
	chain := append(slices.Clone(x.beyond), x.tail...)
	if upToSignature(chain) != nil {
		return chain, nil
	}
	m := x.moves.blocks
	if x.l.flags&flagTail != 0 && len(m) > 0 {
		tail, err := readTail(txn, x.l.id)
		if err != nil {
			return nil, err
		}
		for i, b := range tail {
			if b.PrevPosition() == m[len(m)-1].b.End() {
				return tail[i:], nil
			}
		}
	}
	n := len(m)
	for n > 0 && len(m[n-1].b.Sig) == 0 {
		n--
	}
	x.left = x.left || n < len(m)
	x.moves.blocks = m[:n]
	return nil, nil
}

// stageReturn takes back what counts again and follows the tip, as far as there is
// room. It has new arrival numbers.
func (c *committer) stageReturn(t *tx, l *logState) (more bool, err error) {
	x := cutScan{l: l, limit: c.s.limitOf(l.id), moves: moves{t: t}, at: l.tip}
	var beyond []*r.Block
	err = c.s.view(func(txn *badger.Txn) error {
		err := each(txn, cutPrefix(l.num), nil, func(key, value []byte) (bool, error) {
			return x.add(bytes.Clone(key), bytes.Clone(value))
		})
		if err == nil {
			beyond, err = x.provable(txn)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	back := x.moves.blocks
	more = x.full && len(back)+len(x.covered)+t.lsm > 0 // else it would never end
	if len(back) == 0 && x.left && len(x.covered) == 0 {
		return more, nil
	}
	l = t.change(l)
	prev, before := l.tip, l.bytes
	for _, m := range back {
		t.addBlock(l, m.b.Header, m.b.Hash, slices.Clip(m.sb.data))
		t.del(cutKey(l.num, m.b.Header.FirstSeq))
	}
	for _, key := range x.covered {
		t.del(key)
		t.lsm += recordCost
	}
	if n := len(back); n > 0 {
		c.endIn(t, l, len(back[n-1].b.Sig) > 0, beyond)
		c.observe(l.origin, l.lastHLC)
		t.advance(l, prev, l.bytes-before, 0)
	}
	if !x.left {
		t.del(cutTailKey(l.num))
		l.cut = nil
	}
	return more, nil
}

// stageExpired removes what waits for longer than SetAsideFor: that is what lies
// furthest from the tip, because later cuts are lower.
func (c *committer) stageExpired(t *tx, l *logState) (more bool, err error) {
	now := c.s.opt.Now()
	var gone [][]byte
	var rest *cutState
	err = c.s.view(func(txn *badger.Txn) error {
		opt := badger.DefaultIteratorOptions
		opt.PrefetchValues = false
		opt.Reverse = true
		opt.Prefix = cutPrefix(l.num)
		it := txn.NewIterator(opt)
		defer it.Close()
		for it.Seek(cutTailKey(l.num)); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return readProblem(err)
			}
			sb, err := unsealBlock(key, value)
			if err != nil {
				return err
			}
			more = t.lsm+len(gone)*recordCost > cutCost
			if isExpired(int64(sb.through), now) && !more {
				gone = append(gone, key)
				continue
			}
			if _, seq, _ := parseBlockKey(key); seq == cutTailSeq {
				continue
			}
			b, sb, err := parseStored(l, key, value)
			if err != nil {
				return err
			}
			rest = &cutState{end: b.Header.LastSeq(), hlc: b.Header.LastHLC, since: int64(sb.through)}
			return nil
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	l = t.change(l)
	if l.cut = rest; rest == nil {
		gone = append(gone, cutTailKey(l.num))
	}
	for _, key := range gone {
		t.del(key)
		t.lsm += recordCost
	}
	return more, nil
}

// expire removes, at an open, what fits one transaction; Restrict does the rest.
func (c *committer) expire() {
	var expired []r.LogID
	for id, l := range c.s.idx.logs {
		if l.cut != nil && l.cut.expired(c.s.opt.Now()) {
			expired = append(expired, id)
		}
	}
	if len(expired) == 0 {
		return
	}
	x, t := &restriction{}, c.s.newTx()
	_, err := c.stageEach(x, t, expired, c.stageExpired)
	if err == nil {
		err = c.commitCut(t)
	}
	if x.fail(err); x.err != nil {
		c.s.opt.Logger.Warn("blocks that were set aside long ago are not removed yet", "error", x.err)
	}
}

// setAside is how many operations of a log a cut set aside.
func (l *logState) setAside() uint64 {
	if l.cut == nil || l.cut.end <= l.tip.Seq {
		return 0
	}
	return l.cut.end - l.tip.Seq
}

// held is the seq up to which a log is held, whether it counts or not.
func (l *logState) held() uint64 { return l.tip.Seq + l.setAside() }

// SetAside tells about the logs of which a cut set operations aside, ascending by id.
func (s *Store) SetAside() []r.LogInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var infos []r.LogInfo
	for _, l := range s.idx.logs {
		if l.setAside() > 0 {
			info, _ := s.infoOf(l)
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b r.LogInfo) int { return a.Log.Compare(b.Log) })
	return infos
}

// ReadSetAside calls fn for each block of a log that a cut set aside and that begins
// after a seq, ascending.
func (s *Store) ReadSetAside(log r.LogID, after uint64, fn func(*r.Block) error) error {
	s.mu.RLock()
	known := s.idx.logs[log]
	var l logState
	ok := known != nil
	if ok {
		l = *known
		_, ok = s.infoOf(known)
	}
	s.mu.RUnlock()
	if !ok {
		return r.ErrUnknownLog
	}
	at := l.tip.Seq
	err := s.view(func(txn *badger.Txn) error {
		return each(txn, cutPrefix(l.num), cutKey(l.num, after+1), func(key, value []byte) (bool, error) {
			if _, seq, _ := parseBlockKey(key); seq == cutTailSeq {
				return false, nil
			}
			b, _, err := parseStored(&l, key, bytes.Clone(value))
			if err != nil || b.Header.LastSeq() <= l.tip.Seq {
				return true, err
			}
			at = b.Header.FirstSeq
			return true, fn(b)
		})
	})
	return s.damaged(log, at, err)
}

// cutTailSeq is the seq in the key of what was the tail of a log.
const cutTailSeq = 1<<64 - 1

func cutKey(num, firstSeq uint64) []byte { return blockKeyOf(kindCut, num, firstSeq) }
func cutTailKey(num uint64) []byte       { return cutKey(num, cutTailSeq) }
func cutPrefix(num uint64) []byte        { return cutKey(num, 0)[:9] }

func parseCutTail(key, value []byte) ([]*r.Block, error) {
	sb, err := unsealBlock(key, value)
	if err != nil {
		return nil, err
	}
	return parseChain(sb.data)
}
