package memlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"

	"vixp2p/replication"
)

// appendRequest is a batch that waits for its commit.
type appendRequest struct {
	batch replication.Batch // Ops are a copy: the caller may reuse his
	done  func(replication.Appended, error)

	first  replication.Dot // set once it has a place
	offset int             // of its first operation in its block
	block  *draft          // the block that holds it; nil if it was refused
}

func newAppendRequest(b replication.Batch, done func(replication.Appended, error)) *appendRequest {
	b.Ops = slices.Clone(b.Ops)
	return &appendRequest{batch: b, done: done}
}

// size bounds the batch's bytes in a body from above.
func (r *appendRequest) size() (n int) {
	for i := range r.batch.Ops {
		n += replication.OpSize(&r.batch.Ops[i])
	}
	return n
}

// check refuses what can never be written, before anything is resolved.
func (r *appendRequest) check() error {
	switch n := len(r.batch.Ops); {
	case n == 0:
		return &replication.InvalidError{Reason: "a batch without operations"}
	case n > replication.MaxOpsPerBlock:
		return fmt.Errorf("a batch of %d operations, more than %d: split it: %w", n, replication.MaxOpsPerBlock, replication.ErrTooLarge)
	}
	if len(r.batch.If) > 0 && r.batch.Resolver == nil {
		return &replication.InvalidError{Reason: "a conditional write in a space without a view"}
	}
	for i := range r.batch.Ops {
		if err := replication.CheckOp(&r.batch.Ops[i]); err != nil {
			return err
		}
	}
	return nil
}

// draft is a block that is being gathered from batches of one space.
type draft struct {
	space   replication.SpaceID
	log     replication.LogID
	genesis *replication.Genesis // in the first block of a log
	first   uint64
	ops     []replication.Op
	size    int // bound of the raw body in bytes

	block stored // filled in by seal
}

// writer is where the next operation of a space goes.
type writer struct {
	space   replication.SpaceID
	log     replication.LogID
	genesis *replication.Genesis // until its block is drafted
	next    uint64               // seq
	open    *draft
}

// group is one transaction of local appends.
type group struct {
	requests []*appendRequest
	writers  map[replication.SpaceID]*writer
	drafts   []*draft
	errs     map[*appendRequest]error
	resolved []resolvedLog
}

// resolvedLog is what one Resolver was asked about one log, to be settled or
// discarded.
type resolvedLog struct {
	resolver    replication.Resolver
	space       replication.SpaceID
	log         replication.LogID
	first, last uint64
}

// commitAppendsLocked gathers what is queued into blocks, one transaction, and
// answers (design 4.3).
func (s *Store) commitAppendsLocked(tell bool) {
	g := &group{writers: map[replication.SpaceID]*writer{}, errs: map[*appendRequest]error{}}
	s.gatherLocked(g)
	if s.goneLocked() {
		return // crashed while a Resolver was asked
	}
	advances, err := s.writeLocked(g)
	answers := make([]func(), 0, len(g.requests))
	for _, r := range g.requests {
		switch {
		case g.errs[r] != nil:
			answers = append(answers, func() { r.done(replication.Appended{}, g.errs[r]) })
		case err != nil:
			answers = append(answers, func() { r.done(replication.Appended{}, err) })
		default:
			at := replication.Appended{
				First: r.first, Pos: r.block.block.end(), Arrival: r.block.block.arrival,
				HLC: r.block.ops[r.offset].HLC,
			}
			answers = append(answers, func() { r.done(at, nil) })
		}
	}
	if !tell {
		return
	}
	s.callOutLocked(func() {
		for _, l := range g.resolved {
			if err == nil {
				l.resolver.Settle(l.space, l.log, l.last)
			} else {
				l.resolver.Discard(l.space, l.log, l.first)
			}
		}
	})
	s.tellLocked(advances, answers)
}

// gatherLocked takes requests up to the size of a transaction and places each in
// a block.
func (s *Store) gatherLocked(g *group) {
	total := 0
	for len(s.appends) > 0 {
		r := s.appends[0]
		n := r.size()
		if len(g.requests) > 0 && (total+n > replication.MaxRunBytes || len(g.drafts) == replication.MaxRunBlocks) {
			return
		}
		s.appends = s.appends[1:]
		g.requests = append(g.requests, r)
		if err := s.placeLocked(g, r); err != nil {
			g.errs[r] = err
			continue
		}
		total += n
	}
}

// placeLocked stamps and resolves one batch and puts it into a block.
func (s *Store) placeLocked(g *group, r *appendRequest) error {
	if err := r.check(); err != nil {
		return err
	}
	space, ops, resolver := r.batch.Space, r.batch.Ops, r.batch.Resolver
	w, err := s.writerLocked(g, space)
	if err != nil {
		return err
	}
	s.stampLocked(ops)
	r.first = replication.Dot{Log: w.log, Seq: w.next}
	if resolver == nil {
		return g.add(w, r)
	}
	s.callOutLocked(func() {
		if err = resolver.Resolve(space, r.first, ops, r.batch.If); err != nil {
			return
		}
		if err = g.add(w, r); err != nil {
			resolver.Discard(space, r.first.Log, r.first.Seq)
			return
		}
		g.noteResolved(resolver, space, r.first, w.next-1)
	})
	return err
}

// stampLocked gives each operation its time, and each with a key the order that
// it has unless a Resolver raises it.
func (s *Store) stampLocked(ops []replication.Op) {
	now := s.now()
	for i := range ops {
		o := &ops[i]
		o.HLC = s.clock.Tick(now)
		switch {
		case len(o.Key) == 0:
		case o.Order < uint64(o.HLC):
			o.Order = uint64(o.HLC)
		case o.Order < math.MaxUint64:
			o.Order++
		}
	}
}

// writerLocked finds where the next operation of a space goes: after our last
// block there, or into a new epoch (design 4.7), also where that log does not count
// entire any more.
func (s *Store) writerLocked(g *group, space replication.SpaceID) (*writer, error) {
	if w := g.writers[space]; w != nil {
		return w, nil
	}
	w := &writer{space: space, next: 1}
	id, ok := s.disk.current[space]
	if _, limited := s.limits[id]; ok && !limited {
		w.log, w.next = id, s.disk.logs[id].info.Tip.Seq+1
	} else {
		g, err := s.ownGenesis(space)
		if err != nil {
			return nil, err
		}
		w.genesis, w.log = g, g.LogID()
	}
	g.writers[space] = w
	return w, nil
}

// newestOwnLocked is the log that this origin wrote last in a space, as far as it
// is known here.
func (d *Disk) newestOwnLocked(space replication.SpaceID) (newest *logState) {
	for _, l := range d.logs {
		if l.info.Space != space || l.info.Origin != d.self {
			continue
		}
		if newest == nil || l.info.LastHLC > newest.info.LastHLC ||
			l.info.LastHLC == newest.info.LastHLC && l.info.Log.Compare(newest.info.Log) > 0 {
			newest = l
		}
	}
	return newest
}

// add puts a resolved batch into the open block of its space, or into a new one
// if it does not fit: a batch never spans blocks.
func (g *group) add(w *writer, r *appendRequest) error {
	ops := r.batch.Ops
	for i := range ops {
		if err := finish(&ops[i]); err != nil {
			return err
		}
	}
	size := r.size()
	d := w.open
	if d == nil || len(d.ops)+len(ops) > replication.MaxOpsPerBlock || d.size+size > replication.MaxRawBody {
		if size > replication.MaxRawBody { // the bound is; is the body?
			if n := len(replication.EncodeBody(w.log, ops)); n > replication.MaxRawBody {
				return &replication.TooLargeError{What: "batch", Size: n, Max: replication.MaxRawBody}
			}
		}
		d = &draft{space: w.space, log: w.log, genesis: w.genesis, first: w.next}
		w.open, w.genesis = d, nil
		g.drafts = append(g.drafts, d)
	}
	r.block, r.offset = d, len(d.ops)
	d.ops = append(d.ops, ops...)
	d.size += size
	w.next += uint64(len(ops))
	return nil
}

// finish checks what a Resolver or the caller filled in: a write that would be
// void where it is read must not be acknowledged.
func finish(o *replication.Op) error {
	if err := replication.CheckOp(o); err != nil {
		return err
	}
	if o.OrderVoid() {
		return &replication.InvalidError{Reason: "the write replaces one whose clock was too far ahead, so that no member would count it: check that clock"}
	}
	return nil
}

func (g *group) noteResolved(r replication.Resolver, space replication.SpaceID, first replication.Dot, last uint64) {
	for i := range g.resolved {
		if l := &g.resolved[i]; l.resolver == r && l.log == first.Log {
			l.last = last
			return
		}
	}
	g.resolved = append(g.resolved, resolvedLog{r, space, first.Log, first.Seq, last})
}

// writeLocked makes the blocks of a group durable, in one transaction, and
// returns one advance per log.
func (s *Store) writeLocked(g *group) ([]replication.Advance, error) {
	if len(g.drafts) == 0 {
		return nil, nil
	}
	if s.disk.full {
		return nil, s.fullLocked()
	}
	tx := s.disk.beginLocked()
	for _, d := range g.drafts {
		l := tx.log(d.log)
		if d.genesis != nil {
			l = tx.create(replication.LogInfo{
				Log: d.log, Space: d.space, Origin: s.disk.self, Epoch: d.genesis.Epoch, Base: 1,
			}, d.genesis)
			s.disk.current[d.space] = d.log
		}
		d.seal(s.key, l.info.Tip.Hash)
		tx.add(l, &d.block)
	}
	s.saveCursorsLocked()
	return tx.end(0), nil
}

// seal encodes, hashes and signs the block.
func (d *draft) seal(key ed25519.PrivateKey, prev replication.Hash) {
	body := replication.EncodeBody(d.log, d.ops)
	h := replication.Header{
		Log: d.log, FirstSeq: d.first, Count: uint64(len(d.ops)), Prev: prev,
		BodyHash: sha256.Sum256(body), BodyLen: uint64(len(body)), RawLen: uint64(len(body)),
		FirstHLC: d.ops[0].HLC, LastHLC: d.ops[len(d.ops)-1].HLC, Genesis: d.genesis,
	}
	header := replication.AppendHeader(nil, &h)
	hash := replication.Hash(sha256.Sum256(header))
	d.block = stored{
		header: header, sig: replication.SignBlock(key, hash), body: body,
		first: d.first, last: h.LastSeq(), hash: hash, prev: prev, lastHLC: h.LastHLC,
	}
}
