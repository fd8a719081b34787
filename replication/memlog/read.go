package memlog

import (
	"bytes"
	"context"
	"slices"
	"sort"

	"vixp2p/replication"
)

// where tells people that nothing of this store is a file.
const where = "the store in memory"

// Log tells about one log.
func (s *Store) Log(id replication.LogID) (replication.LogInfo, bool) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if l := s.disk.logs[id]; l != nil && !s.goneLocked() {
		if info, ok := s.infoLocked(l); ok {
			return info, true
		}
	}
	return replication.LogInfo{}, false
}

// Logs tells about all logs of a space of which something counts, ordered by id.
func (s *Store) Logs(space replication.SpaceID) (list []replication.LogInfo) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.goneLocked() {
		return nil
	}
	for _, l := range s.disk.logs {
		if l.info.Space == space && len(l.blocks) > 0 {
			info, _ := s.infoLocked(l)
			list = append(list, info)
		}
	}
	slices.SortFunc(list, func(a, b replication.LogInfo) int { return a.Log.Compare(b.Log) })
	return list
}

// Spaces lists the spaces that have a log, ordered by id.
func (s *Store) Spaces() (list []replication.SpaceID) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.goneLocked() {
		return nil
	}
	for _, l := range s.disk.logs {
		if len(l.blocks) > 0 {
			list = append(list, l.info.Space)
		}
	}
	slices.SortFunc(list, func(a, b replication.SpaceID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

// logLocked finds a log to read.
func (s *Store) logLocked(id replication.LogID) (*logState, error) {
	if s.goneLocked() {
		return nil, replication.ErrClosed
	}
	if l := s.disk.logs[id]; l != nil && len(l.blocks) > 0 {
		return l, nil
	}
	return nil, replication.ErrUnknownLog
}

// ReadRun returns one run that follows after.
func (s *Store) ReadRun(log replication.LogID, after replication.Position, maxBytes int) (replication.RunBytes, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	l, err := s.logLocked(log)
	if err != nil {
		return replication.RunBytes{}, err
	}
	if after.Seq > l.info.Tip.Seq {
		return replication.RunBytes{From: after, End: after}, nil
	}
	i, ok := l.boundary(after)
	if !ok {
		e := &replication.ForkedError{Log: log, Seq: after.Seq}
		if k, ok := l.covering(after.Seq); ok && l.blocks[k].last == after.Seq {
			e.Held = l.blocks[k].hash
		}
		return replication.RunBytes{}, e
	}
	return l.run(i, after, maxBytes)
}

// LastRun is what ReadRun returns if that is the log's newest block.
func (s *Store) LastRun(log replication.LogID, after replication.Position) (replication.RunBytes, bool) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	l, err := s.logLocked(log)
	if err != nil {
		return replication.RunBytes{}, false
	}
	if i, ok := l.boundary(after); !ok || i != len(l.blocks)-1 || len(l.tail) > 0 {
		return replication.RunBytes{}, false
	}
	run, err := l.run(len(l.blocks)-1, after, 0)
	return run, err == nil
}

// RunCovering returns the run that starts with the block that covers seq; an
// empty one if none does.
func (s *Store) RunCovering(log replication.LogID, seq uint64) (replication.RunBytes, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	l, err := s.logLocked(log)
	if err != nil {
		return replication.RunBytes{}, err
	}
	i, ok := l.covering(seq)
	if !ok {
		return replication.RunBytes{From: l.info.Tip, End: l.info.Tip}, nil
	}
	from := replication.Position{Seq: l.blocks[i].first - 1, Hash: l.blocks[i].prev}
	return l.run(i, from, 0)
}

// run encodes the run that starts with block i.
func (l *logState) run(i int, from replication.Position, maxBytes int) (replication.RunBytes, error) {
	r := replication.RunBytes{From: from, End: from}
	if i == len(l.blocks) {
		return r, nil
	}
	c := replication.RunCutter{Max: maxBytes}
	for k := i; k < len(l.blocks)+len(l.tail); k++ {
		if b := l.at(k); !c.Add(b.size(), len(b.sig) > 0) {
			break
		}
	}
	for k := i; k < i+c.Len(); k++ {
		b := l.at(k)
		if err := b.check(); err != nil {
			return replication.RunBytes{}, &replication.DamageError{Log: l.info.Log, Seq: b.first, File: where, Problem: err.Error()}
		}
		r.Data = replication.AppendBlock(r.Data, b.header, b.sig, b.body)
		if k < len(l.blocks) {
			r.End = b.end()
		}
	}
	r.Ops = r.End.Seq - from.Seq
	return r, nil
}

// BytesAfter is how many stored bytes of the log lie beyond seq; a block that
// covers seq and ends beyond it counts in full.
func (s *Store) BytesAfter(log replication.LogID, seq uint64) (n uint64, err error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	l, err := s.logLocked(log)
	if err != nil {
		return 0, err
	}
	for i := len(l.blocks) - 1; i >= 0 && l.blocks[i].last > seq; i-- {
		n += uint64(l.blocks[i].size())
	}
	return n, nil
}

// ReadArrivals returns blocks of a space in arrival order.
func (s *Store) ReadArrivals(space replication.SpaceID, after uint64, maxBytes int) (list []replication.Arrival, err error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.goneLocked() {
		return nil, replication.ErrClosed
	}
	a := s.disk.arrivals[space]
	size := 0
	for i := sort.Search(len(a), func(i int) bool { return a[i].number > after }); i < len(a); i++ {
		l := s.disk.logs[a[i].log]
		b := &l.blocks[a[i].index]
		if size += b.size(); size > maxBytes && len(list) > 0 {
			break
		}
		blk, err := b.parse()
		if err != nil {
			return list, &replication.DamageError{Log: a[i].log, Seq: b.first, File: where, Problem: err.Error()}
		}
		list = append(list, replication.Arrival{Number: b.arrival, Block: blk, Origin: l.info.Origin})
	}
	return list, nil
}

// Head is the arrival number of the newest block.
func (s *Store) Head() uint64 {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return s.disk.head
}

// RecordFork keeps the first proof for a log; it is durable at once, with Manual
// too.
func (s *Store) RecordFork(p replication.ForkProof) (bool, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	switch l := s.disk.logs[p.Log]; {
	case s.closed:
		return false, replication.ErrClosed
	case l == nil:
		return false, replication.ErrUnknownLog
	case l.info.Origin != p.Origin:
		return false, &replication.InvalidError{Reason: "a fork proof of another origin than its log's"}
	}
	if err := p.Verify(); err != nil {
		return false, err
	}
	if s.disk.full {
		return false, s.fullLocked()
	}
	return s.recordForkLocked(p), nil
}

// ForkProofOf returns the proof that a log is forked.
func (s *Store) ForkProofOf(log replication.LogID) (replication.ForkProof, bool) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	p, ok := s.disk.forks[log]
	return p, ok && !s.goneLocked()
}

// Verify checks every hash, signature and index.
func (s *Store) Verify(ctx context.Context, fn func(replication.Finding)) error {
	s.disk.mu.Lock()
	if s.goneLocked() {
		s.disk.mu.Unlock()
		return replication.ErrClosed
	}
	var findings []replication.Finding
	for _, l := range s.disk.logs {
		findings = append(findings, l.verify()...)
	}
	s.disk.mu.Unlock()
	slices.SortFunc(findings, func(a, b replication.Finding) int {
		return replication.Dot{Log: a.Log, Seq: a.Seq}.Compare(replication.Dot{Log: b.Log, Seq: b.Seq})
	})
	for _, f := range findings {
		if err := ctx.Err(); err != nil {
			return err
		}
		fn(f)
	}
	return ctx.Err()
}

// verify checks one log from its genesis block on.
func (l *logState) verify() (findings []replication.Finding) {
	at := replication.Position{}
	signed := true
	beyond := l.info.Tip
	for i := range l.aside {
		b := &l.aside[i]
		if err := b.check(); err != nil {
			findings = append(findings, replication.Finding{Log: l.info.Log, Seq: b.first, File: where, Problem: err.Error()})
		}
		if (replication.Position{Seq: b.first - 1, Hash: b.prev}) != beyond {
			findings = append(findings, replication.Finding{Log: l.info.Log, Seq: b.first, File: where, Problem: "the block set aside does not follow the one before"})
		}
		beyond = b.end()
	}
	for i := range len(l.blocks) + len(l.tail) {
		b := l.at(i)
		found := func(problem string) {
			findings = append(findings, replication.Finding{Log: l.info.Log, Seq: b.first, File: where, Problem: problem})
		}
		if err := b.check(); err != nil {
			found(err.Error())
		}
		if (replication.Position{Seq: b.first - 1, Hash: b.prev}) != at {
			found("the block does not follow the one before")
		}
		if signed = len(b.sig) > 0; signed && !replication.VerifyBlockSig(l.info.Origin, b.hash, b.sig) {
			found("the signature is not the origin's")
		}
		at = b.end()
	}
	if !signed {
		findings = append(findings, replication.Finding{Log: l.info.Log, Seq: at.Seq, File: where, Problem: "the log does not end in a signature"})
	}
	return findings
}
