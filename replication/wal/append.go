package wal

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"runtime"
	"slices"

	r "vixp2p/replication"
	"vixp2p/replication/compress"
)

// Append makes one batch durable as one transaction.
func (s *Store) Append(ctx context.Context, b r.Batch) (r.Appended, error) {
	req, err := newAppend(b)
	if err != nil {
		return r.Appended{}, err
	}
	if err := s.writable(); err != nil {
		return r.Appended{}, err
	}
	if err := s.queue.pushLocal(ctx, req); err != nil {
		return r.Appended{}, err
	}
	select {
	case err := <-req.done:
		at := req.at
		req.giveBack()
		if err != nil {
			return r.Appended{}, err
		}
		return at, nil
	case <-ctx.Done():
		return r.Appended{}, ctx.Err() // the committer still has the request
	}
}

// newAppend checks what can be checked without the log.
func newAppend(b r.Batch) (*appendReq, error) {
	if len(b.Ops) == 0 {
		return nil, fmt.Errorf("%w: a batch without operations", r.ErrInvalid)
	}
	if len(b.Ops) > r.MaxOpsPerBlock {
		return nil, tooManyOps(len(b.Ops))
	}
	if len(b.If) > 0 && b.Resolver == nil {
		return nil, fmt.Errorf("%w: a condition needs a view that can check it (Batch.Resolver)", r.ErrInvalid)
	}
	size := 0
	for i := range b.Ops {
		if err := checkOp(&b.Ops[i]); err != nil {
			return nil, err
		}
		size += r.OpSize(&b.Ops[i])
	}
	if size > r.MaxRawBody {
		if exact := exactSize(b.Ops); exact > r.MaxRawBody {
			return nil, tooLarge(exact)
		}
	}
	req := appendReqs.Get().(*appendReq)
	req.batch, req.size = b, size
	return req, nil
}

func tooLarge(size int) error {
	return &r.TooLargeError{What: "batch", Size: size, Max: r.MaxRawBody}
}

func tooManyOps(n int) error {
	return fmt.Errorf("a batch of %d operations, more than the limit of %d: split it: %w", n, r.MaxOpsPerBlock, r.ErrTooLarge)
}

// exactSize bounds the encoded size of operations that have no readings yet: an
// HLC delta and an order of the largest length are added.
func exactSize(ops []r.Op) int {
	ops = slices.Clone(ops)
	for i := range ops {
		ops[i].HLC, ops[i].Order = r.HLC(i), 0
	}
	return len(r.EncodeBody(r.LogID{}, ops)) + len(ops)*16
}

// checkOp refuses what every reader would treat as void.
func checkOp(o *r.Op) error {
	if err := r.CheckOp(o); err != nil {
		return err
	}
	if len(o.Key) == 0 && (o.Order != 0 || len(o.Supersedes) > 0) {
		return fmt.Errorf("%w: an operation without a key has an order or superseded writes", r.ErrInvalid)
	}
	if slices.ContainsFunc(o.Supersedes, func(d r.Dot) bool { return d.Seq == 0 }) {
		return fmt.Errorf("%w: a superseded write without a seq", r.ErrInvalid)
	}
	return nil
}

// localBatch is the local appends of one transaction, used again for another.
type localBatch struct {
	c      *committer
	t      *tx
	open   map[r.SpaceID]*blockBuilder
	order  []*blockBuilder // in order of creation
	taken  []*appendReq    // from the queue
	placed []*appendReq    // those that have their place in a block
	ops    []r.Op          // room for those of the first block
	// header and body are where a block is put together, before its bytes are copied
	// into one buffer.
	header, body []byte
	// next is the epoch that follows where a log of this one is limited; zero until
	// it is drawn.
	next r.Epoch
}

// What is kept for the next transaction at most.
const (
	maxKeptOps  = maxTxLocals
	maxKeptBody = 256 << 10 // bytes
)

func (b *localBatch) begin(c *committer, t *tx) {
	b.c, b.t = c, t
	if b.open == nil {
		b.open = map[r.SpaceID]*blockBuilder{}
	}
}

// end empties what the transaction left, so that nothing of it is kept alive.
func (b *localBatch) end() {
	clear(b.taken)
	clear(b.placed)
	if cap(b.ops) > maxKeptOps {
		b.ops = nil
	}
	*b = localBatch{
		open: b.open, order: b.order[:0], taken: b.taken[:0], placed: b.placed[:0], ops: b.ops,
		header: b.header, body: b.body,
	}
}

// blockBuilder gathers the batches of one block.
type blockBuilder struct {
	log   *logState // staged; its tip is where the block goes
	gen   *r.Genesis
	ops   []r.Op
	bound int    // upper bound of the encoded ops
	seal  r.Seal // nil: the body is stored as it is
	in    []*appendReq
}

// stageLocals takes what waits, up to about max bytes, and builds blocks of it, one per
// space and more where one is full.
func (c *committer) stageLocals(b *localBatch, maxBytes int) {
	before := len(b.taken)
	b.taken = c.s.queue.takeLocals(maxBytes, b.taken)
	taken := b.taken[before:]
	room := 0
	for _, req := range taken {
		room += len(req.batch.Ops)
	}
	if cap(b.ops) < room {
		b.ops = make([]r.Op, 0, room)
	}
	for _, req := range taken {
		if err := b.place(req); err != nil {
			req.done <- err
		}
	}
	for _, bb := range b.order {
		b.build(bb)
	}
	// No block stays open: a run that is staged before the next call may be of a clone
	// of this node, and go on with a log of its own or end the epoch.
	clear(b.open)
	clear(b.order)
	b.order = b.order[:0]
}

// place gives a batch its readings and its place. A batch that has grown beyond
// the open block by what it supersedes goes to a new block of the same
// transaction: its seqs, and so its dots, are the same there.
func (b *localBatch) place(req *appendReq) error {
	space := req.batch.Space
	bb := b.open[space]
	if bb == nil {
		var err error
		if bb, err = b.builder(space); err != nil {
			return err
		}
		if bb.seal, err = b.c.s.sealFor(space); err != nil {
			return err
		}
		if len(b.open) == 0 {
			bb.ops = b.ops
		}
		b.open[space] = bb
		b.order = append(b.order, bb)
	}
	n := len(bb.ops)
	first := r.Dot{Log: bb.log.id, Seq: bb.log.tip.Seq + uint64(n) + 1}
	bb.ops = append(bb.ops, req.batch.Ops...) // the caller's stay as they are
	ops := bb.ops[n:]
	bound, err := b.resolve(req, first, ops)
	if err != nil {
		clear(ops)
		bb.ops = bb.ops[:n]
		return err
	}
	if n > 0 && (bb.bound+bound > r.MaxRawBody || len(bb.ops) > r.MaxOpsPerBlock) {
		ops = slices.Clone(ops)
		clear(bb.ops[n:])
		bb.ops = bb.ops[:n]
		b.build(bb)
		bb.ops = ops
	}
	req.at = r.Appended{First: first, HLC: ops[0].HLC}
	bb.bound += bound
	bb.in = append(bb.in, req)
	b.placed = append(b.placed, req)
	return nil
}

// resolve gives the operations of a batch, which begin at a dot, their readings
// and what they supersede; bound is that of checkResolved.
func (b *localBatch) resolve(req *appendReq, first r.Dot, ops []r.Op) (bound int, err error) {
	now := b.c.s.opt.Now()
	for i := range ops {
		ops[i].HLC = b.c.clock.Tick(now)
	}
	res := req.batch.Resolver
	if res == nil {
		orderAbove(ops)
		return checkResolved(first.Log, ops)
	}
	if err := res.Resolve(req.batch.Space, first, ops, req.batch.If); err != nil {
		return 0, err
	}
	if bound, err = checkResolved(first.Log, ops); err != nil {
		res.Discard(req.batch.Space, first.Log, first.Seq)
	}
	return bound, err
}

// orderAbove ranks keyed operations just above what the caller set.
func orderAbove(ops []r.Op) {
	for i := range ops {
		if o := &ops[i]; o.Order > 0 && o.Order < math.MaxUint64 {
			o.Order++
		}
	}
}

// checkResolved completes orders and dots and checks a resolved batch; it
// returns an upper bound of its encoded size, exact where it is near the limit.
func checkResolved(log r.LogID, ops []r.Op) (bound int, err error) {
	for i := range ops {
		o := &ops[i]
		if len(o.Key) > 0 {
			o.Order = max(o.Order, uint64(o.HLC))
		}
		if len(o.Supersedes) > 1 && !slices.IsSortedFunc(o.Supersedes, r.Dot.Compare) {
			o.Supersedes = slices.Clone(o.Supersedes)
			slices.SortFunc(o.Supersedes, r.Dot.Compare)
		}
		o.Supersedes = slices.Compact(o.Supersedes)
		if err := checkOp(o); err != nil {
			return 0, err
		}
		if o.OrderVoid() {
			return 0, fmt.Errorf("%w: the write replaces one from so far in the future that no member would count it: check the clock that wrote it", r.ErrInvalid)
		}
		bound += r.OpSize(o)
	}
	if bound > r.MaxRawBody {
		if bound = len(r.EncodeBody(log, ops)); bound > r.MaxRawBody {
			return 0, tooLarge(bound)
		}
	}
	return bound, nil
}

// builder opens a block at the tip of this node's log in a space. A log that does
// not exist yet begins; one that does not count entire any more is followed by a
// new one, under a new epoch.
func (b *localBatch) builder(space r.SpaceID) (*blockBuilder, error) {
	s, t := b.c.s, b.t
	epoch := t.epoch()
	if l := t.log(r.LogOf(s.opt.Network, space, s.self, epoch)); l != nil {
		if limit := s.limitOf(l.id); limit.Entire() && l.cut == nil {
			return &blockBuilder{log: l}, nil
		}
		if b.next == (r.Epoch{}) {
			if err := s.random(b.next[:]); err != nil {
				return nil, err
			}
		}
		epoch = b.next
	}
	g, err := b.c.ownGenesis(t, space, epoch)
	if err != nil {
		return nil, err
	}
	// Log and epoch are staged only once a block is built: a refused batch leaves no
	// empty log.
	return &blockBuilder{log: &logState{id: g.LogID(), space: &spaceState{id: space}}, gen: g}, nil
}

// newestOwn is this node's log in a space that was written last.
func (t *tx) newestOwn(space r.SpaceID) *logState {
	var newest *logState
	consider := func(l *logState) {
		if l.origin == t.s.self && l.space.id == space && (newest == nil || l.lastHLC > newest.lastHLC) {
			newest = l
		}
	}
	if sp := t.s.idx.spaces[space]; sp != nil {
		for _, l := range sp.logs {
			consider(t.log(l.id))
		}
	}
	if t.under != nil {
		for id := range t.under.logs {
			consider(t.log(id))
		}
	}
	for _, l := range t.logs {
		consider(l)
	}
	return newest
}

// sealFor asks how the bodies of a block in a space are sealed.
func (s *Store) sealFor(space r.SpaceID) (r.Seal, error) {
	if s.opt.Sealer == nil {
		return nil, nil
	}
	return s.opt.Sealer.SealFor(space)
}

// build signs the open block, stages it and empties the builder.
func (b *localBatch) build(bb *blockBuilder) {
	if len(bb.ops) == 0 {
		return
	}
	s, t := b.c.s, b.t
	if bb.gen != nil {
		bb.log = t.create(bb.log.id, bb.gen)
		t.began[bb.log.id] = began{bb.gen, r.Unlimited}
		if bb.gen.Epoch != t.epoch() {
			t.beginEpoch(bb.gen.Epoch)
		}
	} else {
		bb.log = t.change(bb.log)
	}
	l := bb.log
	h := &r.Header{
		Log: l.id, FirstSeq: l.tip.Seq + 1, Count: uint64(len(bb.ops)), Prev: l.tip.Hash,
		FirstHLC: bb.ops[0].HLC, LastHLC: bb.ops[len(bb.ops)-1].HLC, Genesis: bb.gen,
	}
	encoded := r.AppendBody(b.body[:0], l.id, bb.ops)
	body := b.c.setBody(h, l.space.id, encoded, bb.seal)
	raw := r.AppendHeader(b.header[:0], h)
	hash := r.Hash(sha256.Sum256(raw))
	sig := r.SignBlock(s.opt.Key, hash)
	buf := make([]byte, 0, len(raw)+len(sig)+len(body)+16+trailerLen)
	prev := l.tip
	buf = r.AppendBlock(buf, raw, sig, body)
	if b.header = raw; cap(encoded) <= maxKeptBody {
		b.body = encoded
	}
	size := len(buf)
	t.addBlock(l, h, hash, buf)
	t.keepNewest(l, prev, buf[:size:size])
	t.advance(l, prev, uint64(size), 0)
	for _, req := range bb.in {
		req.at.Pos, req.at.Arrival = l.tip, l.arrival
	}
	clear(bb.ops) // the room for them is used again
	bb.gen, bb.ops, bb.bound, bb.in = nil, nil, 0, nil
}

// setBody fills in what the header says of the body and returns that as it is stored.
func (c *committer) setBody(h *r.Header, space r.SpaceID, raw []byte, seal r.Seal) []byte {
	if seal != nil || !c.s.opt.Compress {
		return h.SetBody(raw, seal)
	}
	if c.packers == nil {
		c.packers = map[r.SpaceID]*compress.Packer{}
	}
	p := c.packers[space]
	if p == nil {
		p = &compress.Packer{}
		c.packers[space] = p
	}
	body, codec := p.Pack(raw)
	h.SetPacked(len(raw), codec, body)
	return body
}

// advance notes that a staged log has grown since prev.
func (t *tx) advance(l *logState, prev r.Position, size, source uint64) {
	t.advances = append(t.advances, r.Advance{
		Space: l.space.id, Log: l.id, Origin: l.origin, Prev: prev, Tip: l.tip, Arrival: l.arrival,
		Ops: l.tip.Seq - prev.Seq, Bytes: size, Source: source,
	})
}

// settle tells the resolvers what became of what they resolved.
func (b *localBatch) settle(err error) {
	type told struct {
		res r.Resolver
		log r.LogID
	}
	first := map[told]uint64{}
	last := map[told]uint64{}
	var order []told
	for _, req := range b.placed {
		res := req.batch.Resolver
		if res == nil {
			continue
		}
		k := told{res, req.at.First.Log}
		if _, ok := first[k]; !ok {
			first[k] = req.at.First.Seq
			order = append(order, k)
		}
		last[k] = req.at.First.Seq + uint64(len(req.batch.Ops)) - 1
	}
	for _, k := range order {
		space := b.spaceOf(k.log)
		if err == nil {
			k.res.Settle(space, k.log, last[k])
		} else {
			k.res.Discard(space, k.log, first[k])
		}
	}
}

func (b *localBatch) spaceOf(log r.LogID) r.SpaceID {
	return b.t.log(log).space.id
}

func (b *localBatch) answer(err error) {
	for _, req := range b.placed {
		req.done <- err // from here on it is its appender's
	}
}

// yield lets the writers run that were just answered.
func yield() { runtime.Gosched() }
