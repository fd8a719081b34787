package wal

import (
	"fmt"

	r "vixp2p/replication"
)

// Ingest queues a run from a peer; done is called once, after the answer is
// durable, and must not block.
func (s *Store) Ingest(source uint64, run *r.VerifiedRun, done func(r.IngestResult)) {
	refuse := func(err error) {
		res := r.IngestResult{Code: r.Refused, Err: err}
		if run != nil {
			if l, ok := s.Log(run.Log); ok && l.Space == run.Space {
				res.Tip = l.Tip
			}
		}
		done(res)
	}
	if !run.Verified() {
		refuse(fmt.Errorf("%w: a run that was not verified", r.ErrInvalid))
		return
	}
	req := &ingestReq{source: source, run: run, done: done}
	for _, b := range run.Blocks {
		req.size += b.EncodedLen()
	}
	for _, b := range run.Tail {
		req.size += b.EncodedLen()
	}
	if err := s.queue.pushRun(req); err != nil {
		refuse(err)
	}
}

// runAnswer is what becomes of a run if the transaction commits.
type runAnswer struct {
	req *ingestReq
	res r.IngestResult
}

// stageRuns fills the transaction with runs, fairly among the sources, until stop,
// which may be nil, tells that it is waited for.
func (c *committer) stageRuns(x *round, stop func() bool) {
	t := x.tx
	for stop == nil || len(x.runs) == 0 || !stop() {
		req := c.s.queue.takeRun(func(req *ingestReq) bool {
			return t.joins(req.run) && (t.raw == 0 || t.raw+req.size <= maxTx && t.lsm+runCost(req.run) <= maxTxLSM)
		})
		if req == nil {
			return
		}
		a := runAnswer{req, c.stageRun(t, req)}
		if l := t.log(req.run.Log); l != nil && l.space.id == req.run.Space {
			a.res.Tip = l.tip
		}
		x.runs = append(x.runs, a)
	}
}

// joins tells whether a run may be staged beside what is staged of its log: as its
// continuation. Any other run waits until that is durable, so that it can be compared
// with what is stored.
func (t *tx) joins(run *r.VerifiedRun) bool {
	l := t.staged(run.Log)
	return l == nil || l.tip == run.From && l.flags&flagTail == 0
}

// runCost is what a run counts against Badger's limit.
func runCost(run *r.VerifiedRun) int {
	const perBlock = 17 + 12 + 25 + 28 + 12 // both keys and the index value
	n := 4096
	for _, b := range run.Blocks {
		n += lsmCost(0, b.EncodedLen()+trailerLen) + perBlock
	}
	for _, b := range run.Tail {
		n += b.EncodedLen()
	}
	return n
}

func (c *committer) answerRun(a runAnswer, err error) {
	if err != nil {
		a.res = r.IngestResult{Code: r.Refused, Err: err}
		if l, ok := c.s.Log(a.req.run.Log); ok && l.Space == a.req.run.Space {
			a.res.Tip = l.Tip
		}
	}
	a.req.done(a.res)
}

func refused(format string, a ...any) r.IngestResult {
	return r.IngestResult{Code: r.Refused, Err: fmt.Errorf(format, a...)}
}

// stageRun decides about one run and stages what is new of it.
func (c *committer) stageRun(t *tx, req *ingestReq) r.IngestResult {
	limit := c.limitOfRun(t, req.run)
	part := req.run.Within(&limit)
	if part == nil {
		return r.IngestResult{Code: r.Refused, Err: limit.Refusal()}
	}
	crosses := part != req.run
	res := c.stagePart(t, &ingestReq{source: req.source, run: part, crosses: crosses}, &limit)
	if crosses && res.Code == r.Duplicate {
		// What is new of it lies beyond the cut.
		return r.IngestResult{Code: r.Refused, Err: limit.Refusal()}
	}
	return res
}

// stagePart stages what is new of the part of a run that counts.
func (c *committer) stagePart(t *tx, req *ingestReq, limit *r.LogLimit) r.IngestResult {
	run := req.run
	l := t.log(run.Log)
	if l == nil {
		return c.stageFirst(t, req, limit)
	}
	if run.Space != l.space.id || run.Origin != l.origin {
		return refused("%w: log %s is of another space or origin", r.ErrInvalid, run.Log.Short())
	}
	if run.From.Seq > l.tip.Seq {
		return r.IngestResult{Code: r.Gap}
	}
	fresh, found := beyond(run, l.tip)
	switch {
	case found && len(fresh) == 0:
		if !req.crosses {
			c.stageTail(t, l, run)
		}
		return r.IngestResult{Code: r.Duplicate}
	case found:
		return c.stageBlocks(t, l, fresh, req)
	}
	// The tip is not a boundary of the run: it ends before, or it is of another
	// branch.
	same, err := c.s.sameBranch(run, l)
	switch {
	case err != nil:
		return r.IngestResult{Code: r.Refused, Err: err}
	case same:
		return r.IngestResult{Code: r.Duplicate}
	}
	return c.stageFork(t, l, run)
}

// beyond returns the blocks of a run after a position that is one of its
// boundaries; found tells whether it is.
func beyond(run *r.VerifiedRun, at r.Position) (fresh []*r.Block, found bool) {
	if run.From == at {
		return run.Blocks, true
	}
	for i, b := range run.Blocks {
		if b.End() == at {
			return run.Blocks[i+1:], true
		}
	}
	return nil, false
}

// stageFirst stages a run of a log that is not known.
func (c *committer) stageFirst(t *tx, req *ingestReq, limit *r.LogLimit) r.IngestResult {
	run := req.run
	g := run.Genesis()
	if run.From.Seq != 0 {
		return r.IngestResult{Code: r.Gap}
	}
	if g == nil || g.Network != c.s.opt.Network || g.Space != run.Space || g.Origin != run.Origin {
		return refused("%w: log %s does not begin here", r.ErrInvalid, run.Log.Short())
	}
	t.began[run.Log] = began{g, *limit}
	return c.stageBlocks(t, t.create(run.Log, g), run.Blocks, req)
}

// stageBlocks stages blocks that follow the log's tip.
func (c *committer) stageBlocks(t *tx, l *logState, blocks []*r.Block, req *ingestReq) r.IngestResult {
	if l.origin == c.s.self && l.epoch == t.epoch() {
		if err := c.endEpoch(t, "another machine writes with this node's identity: a copy of it runs"); err != nil {
			return r.IngestResult{Code: r.Refused, Err: err}
		}
	}
	tail, err := c.readTail(l)
	if err != nil {
		return r.IngestResult{Code: r.Refused, Err: err}
	}
	if len(tail) > 0 {
		if contradicts(tail, blocks) || contradicts(tail, req.run.Tail) {
			return c.stageFork(t, l, req.run)
		}
		if err := c.servable(l, blocks, tail, req.run.Tail); err != nil {
			return r.IngestResult{Code: r.Refused, Err: err}
		}
	}
	l = t.change(l)
	prev, size := l.tip, 0
	for _, b := range blocks {
		sig := sigOf(b, tail)
		buf := make([]byte, 0, b.EncodedLen()+len(sig)+trailerLen)
		buf = r.AppendBlock(buf, b.HeaderRaw, sig, b.Body)
		size += len(buf)
		from := l.tip
		t.addBlock(l, b.Header, b.Hash, buf)
		if len(sig) > 0 {
			t.keepNewest(l, from, buf[:len(buf):len(buf)])
		}
	}
	c.stageTail(t, l, req.run)
	c.observe(l.origin, l.lastHLC)
	t.advance(l, prev, uint64(size), req.source)
	if l.flags&flagAside != 0 {
		c.rejoin = append(c.rejoin, l.id)
	}
	return r.IngestResult{Code: r.Committed}
}

// stageFork records the proof that a run contradicts what is held.
func (c *committer) stageFork(t *tx, l *logState, run *r.VerifiedRun) r.IngestResult {
	res := r.IngestResult{Code: r.Forked, Err: &r.ForkedError{Log: l.id, Seq: run.From.Seq}}
	if l.origin == c.s.self && l.epoch == t.epoch() {
		if err := c.endEpoch(t, "another machine wrote under this node's epoch: a copy of it runs"); err != nil {
			return r.IngestResult{Code: r.Refused, Err: err}
		}
	}
	if t.hasOther(forkKey(l.id)) {
		return res
	}
	proof, err := c.s.proveFork(l, run)
	if err != nil {
		return r.IngestResult{Code: r.Refused, Err: err}
	}
	t.setOther(forkKey(l.id), encodeFork(proof))
	t.change(l).flags |= flagForked
	res.Proof = proof
	c.s.opt.Logger.Warn("a log has two branches: its origin wrote twice (a copied machine?); the first stays",
		"log", l.id, "origin", l.origin)
	return res
}
