package memlog

import (
	"bytes"
	"fmt"

	"vixp2p/replication"
)

// ingestRequest is a run that waits for its commit.
type ingestRequest struct {
	source uint64
	run    *replication.VerifiedRun
	done   func(replication.IngestResult)
}

// ingestQueue serves its sources in turn, a run each.
type ingestQueue struct {
	sources []uint64 // those that have requests, the next one first
	queued  map[uint64][]*ingestRequest
	count   int
}

func (q *ingestQueue) push(r *ingestRequest) {
	if q.queued == nil {
		q.queued = map[uint64][]*ingestRequest{}
	}
	if len(q.queued[r.source]) == 0 {
		q.sources = append(q.sources, r.source)
	}
	q.queued[r.source] = append(q.queued[r.source], r)
	q.count++
}

func (q *ingestQueue) pop() *ingestRequest {
	if q.count == 0 {
		return nil
	}
	src := q.sources[0]
	q.sources = q.sources[1:]
	r := q.queued[src][0]
	if rest := q.queued[src][1:]; len(rest) > 0 {
		q.queued[src] = rest
		q.sources = append(q.sources, src)
	} else {
		delete(q.queued, src)
	}
	q.count--
	return r
}

func (q *ingestQueue) len() int { return q.count }

// commitIngestLocked carries out one run and answers.
func (s *Store) commitIngestLocked(r *ingestRequest, tell bool) {
	res, advances := s.ingestLocked(r)
	if tell {
		s.tellLocked(advances, []func(){func() { r.done(res) }})
	}
}

func (s *Store) ingestLocked(r *ingestRequest) (replication.IngestResult, []replication.Advance) {
	run := r.run
	refuse := func(tip replication.Position, err error) (replication.IngestResult, []replication.Advance) {
		return replication.IngestResult{Code: replication.Refused, Tip: tip, Err: err}, nil
	}
	if !run.Verified() {
		return refuse(replication.Position{}, &replication.InvalidError{Reason: "a run that was not verified"})
	}
	l := s.disk.logs[run.Log]
	limit := s.limitOfRun(l, run)
	if run = run.Within(&limit); run == nil {
		return refuse(l.tip(), limit.Refusal())
	}
	if l == nil {
		if run.From != (replication.Position{}) {
			return replication.IngestResult{Code: replication.Gap}, nil
		}
		if g := run.Genesis(); g == nil || g.Network != s.disk.network {
			return refuse(replication.Position{}, &replication.InvalidError{Reason: "a log of another network"})
		}
		l = &logState{info: replication.LogInfo{
			Log: run.Log, Space: run.Space, Origin: run.Origin, Epoch: run.Genesis().Epoch, Base: 1,
		}, genesis: keep(run.Genesis())}
	}
	tip := l.info.Tip
	if run.Space != l.info.Space || run.Origin != l.info.Origin {
		return refuse(tip, &replication.InvalidError{Reason: "a run of another space or origin than its log's"})
	}
	if run.From.Seq > tip.Seq {
		return replication.IngestResult{Code: replication.Gap, Tip: tip}, nil
	}
	incoming := toStored(run)
	if at, differs := l.contradicts(incoming); differs {
		return s.forkedLocked(l, run, at)
	}
	if s.disk.full {
		return refuse(tip, s.fullLocked())
	}
	bodies, tail := incoming[:len(run.Blocks)], incoming[len(run.Blocks):]
	held := 0 // blocks of the run that are here already
	for held < len(bodies) && bodies[held].last <= tip.Seq {
		held++
	}
	l.repair(bodies[:held])
	fresh := bodies[held:]
	if len(fresh) == 0 {
		if run != r.run { // and the rest lies beyond the cut
			return refuse(tip, limit.Refusal())
		}
		return replication.IngestResult{Code: replication.Duplicate, Tip: tip}, nil
	}
	l.keepSignatures(fresh)
	if !l.servable(fresh, tail) {
		return refuse(tip, fmt.Errorf("log %s: too much lies between the signatures: send the run that follows seq %d: %w",
			run.Log.Short(), l.blocks[l.signedEnd()].first-1, replication.ErrInvalid))
	}
	if !limit.Entire() {
		s.limits[run.Log] = limit
	}
	return s.extendLocked(l, r.source, fresh, tail)
}

// limitOfRun is the limit of the log that a run is of; l is nil for a new one.
func (s *Store) limitOfRun(l *logState, run *replication.VerifiedRun) replication.LogLimit {
	switch g := run.Genesis(); {
	case l != nil:
		return s.limitLocked(run.Log)
	case g != nil:
		return s.limitOf(g)
	}
	return replication.Unlimited // a gap
}

// extendLocked makes the new blocks of a run durable.
func (s *Store) extendLocked(l *logState, source uint64, fresh, tail []stored) (replication.IngestResult, []replication.Advance) {
	tx := s.disk.beginLocked()
	if tx.log(l.info.Log) == nil {
		l = tx.create(l.info, l.genesis)
		_, l.info.Forked = s.disk.forks[l.info.Log]
	}
	for i := range fresh {
		tx.add(l, &fresh[i])
	}
	l.tail = tail
	l.dropStaleAside()
	if s.disk.current[l.info.Space] == l.info.Log {
		// Somebody else continued our log: from here on it is like a foreign one,
		// and our next append starts a new epoch (design 4.7).
		delete(s.disk.current, l.info.Space)
	}
	s.observeLocked(l)
	s.saveCursorsLocked()
	return replication.IngestResult{Code: replication.Committed, Tip: l.info.Tip}, tx.end(source)
}

// observeLocked lets the clock follow a log: what this origin once wrote always,
// others within the allowed skew.
func (s *Store) observeLocked(l *logState) {
	now := s.now()
	if l.info.Origin == s.disk.self {
		now = l.info.LastHLC.Time()
	}
	s.clock.Observe(l.info.LastHLC, now)
}

// forkedLocked answers a run that contradicts what is held from block at on (of
// the bodies and then the tail). The first proof of a log is kept (design 4.8).
func (s *Store) forkedLocked(l *logState, run *replication.VerifiedRun, at int) (replication.IngestResult, []replication.Advance) {
	res := replication.IngestResult{Code: replication.Forked, Tip: l.info.Tip}
	if l.info.Forked {
		return res, nil
	}
	p := replication.ForkProof{Log: l.info.Log, Origin: l.info.Origin, A: l.headersFrom(at)}
	for _, part := range [][]*replication.Block{run.Blocks, run.Tail} {
		for _, b := range part {
			p.B = replication.AppendBlock(p.B, b.HeaderRaw, b.Sig, nil)
		}
	}
	if s.disk.full {
		res.Err = s.fullLocked()
		return res, nil
	}
	if res.Err = p.Verify(); res.Err == nil {
		s.recordForkLocked(p)
		res.Proof = &p
	}
	return res, nil
}

// recordForkLocked keeps the first proof of a log and ends an own epoch.
func (s *Store) recordForkLocked(p replication.ForkProof) bool {
	if _, known := s.disk.forks[p.Log]; known {
		return false
	}
	p.A, p.B = bytes.Clone(p.A), bytes.Clone(p.B)
	s.disk.forks[p.Log] = p
	if l := s.disk.logs[p.Log]; l != nil {
		l.info.Forked = true
		if s.disk.current[l.info.Space] == p.Log {
			delete(s.disk.current, l.info.Space)
		}
	}
	return true
}

// toStored copies the blocks of a run, then its tail.
func toStored(run *replication.VerifiedRun) []stored {
	out := make([]stored, 0, len(run.Blocks)+len(run.Tail))
	for _, part := range [][]*replication.Block{run.Blocks, run.Tail} {
		for _, b := range part {
			out = append(out, stored{
				header: bytes.Clone(b.HeaderRaw), sig: bytes.Clone(b.Sig), body: bytes.Clone(b.Body),
				first: b.Header.FirstSeq, last: b.Header.LastSeq(),
				hash: b.Hash, prev: b.Header.Prev, lastHLC: b.Header.LastHLC,
			})
		}
	}
	return out
}

// contradicts tells whether a run differs from what is held, tail included, where
// both cover the same seqs, and in which held block first.
func (l *logState) contradicts(run []stored) (at int, differs bool) {
	from := replication.Position{Seq: run[0].first - 1, Hash: run[0].prev}
	at, ok := l.boundary(from)
	if !ok {
		at, _ = l.covering(from.Seq)
		return at, true
	}
	for k := 0; k < len(run) && at < len(l.blocks)+len(l.tail); k++ {
		if run[k].hash != l.at(at).hash {
			return at, true
		}
		at++
	}
	return 0, false
}

// headersFrom encodes the chain of headers from block i up to a signature.
func (l *logState) headersFrom(i int) (chain []byte) {
	for ; i < len(l.blocks)+len(l.tail); i++ {
		b := l.at(i)
		chain = replication.AppendBlock(chain, b.header, b.sig, nil)
		if len(b.sig) > 0 {
			break
		}
	}
	return chain
}

// repair replaces stored bodies that are damaged by the same ones from a run.
func (l *logState) repair(run []stored) {
	for i := range run {
		if k, ok := l.covering(run[i].first); ok && l.blocks[k].check() != nil {
			l.blocks[k].body = run[i].body
		}
	}
}

// keepSignatures takes over the signatures that the old tail had for blocks whose
// bodies arrive now: they are verified.
func (l *logState) keepSignatures(fresh []stored) {
	for i := range min(len(fresh), len(l.tail)) {
		if len(fresh[i].sig) == 0 {
			fresh[i].sig = l.tail[i].sig
		}
	}
}

// servable tells whether a run exists from every boundary once the new blocks are
// there: the next signature must not lie too far behind the last one.
func (l *logState) servable(fresh, tail []stored) bool {
	var c replication.RunCutter
	for _, part := range [][]stored{l.blocks[l.signedEnd():], fresh, tail} {
		for i := range part {
			b := &part[i]
			if !c.Add(b.size(), len(b.sig) > 0) {
				return false
			}
			if c.Len() > 0 {
				return true
			}
		}
	}
	return false
}
