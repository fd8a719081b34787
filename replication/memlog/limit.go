package memlog

import (
	"bytes"
	"context"
	"slices"
	"time"

	"vixp2p/replication"
)

// Restrict says how far logs count, in one transaction. It is durable at once, with
// Manual too.
func (s *Store) Restrict(ctx context.Context, fn replication.Limiter) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.disk.mu.Lock()
	for s.committing {
		s.idle.Wait()
	}
	if s.closed {
		s.disk.mu.Unlock()
		return replication.ErrClosed
	}
	s.committing = true
	err := s.restrictLocked(fn)
	s.committing = false
	s.idle.Broadcast()
	s.disk.mu.Unlock()
	s.commitUnlessManual() // what was queued meanwhile
	return err
}

func (s *Store) restrictLocked(fn replication.Limiter) error {
	d := s.disk
	s.limiter, s.limits = fn, map[replication.LogID]replication.LogLimit{}
	for id, l := range d.logs {
		if limit := s.limitOf(l.genesis); !limit.Entire() {
			s.limits[id] = limit
		}
	}
	d.expireLocked(s.now())
	tx := d.beginLocked()
	for _, id := range d.logIDsLocked() {
		l, limit := d.logs[id], s.limitLocked(id)
		n, back := l.counting(&limit), l.returning(&limit)
		if n == len(l.blocks) && back == 0 {
			continue
		}
		if d.full {
			return s.fullLocked()
		}
		tx.log(id)
		if n < len(l.blocks) {
			tx.retreat(l, n, s.now())
			continue
		}
		tx.join(l, back)
		s.observeLocked(l)
	}
	if len(tx.noted) > 0 {
		s.tellLocked(tx.end(0), nil)
	}
	return nil
}

// limitOf is the limit of a log that begins with a genesis block.
func (s *Store) limitOf(g *replication.Genesis) replication.LogLimit {
	if s.limiter == nil {
		return replication.Unlimited
	}
	return s.limiter(g)
}

// limitLocked is the limit of a log that is held.
func (s *Store) limitLocked(id replication.LogID) replication.LogLimit {
	if limit, ok := s.limits[id]; ok {
		return limit
	}
	return replication.Unlimited
}

// infoLocked is what Log tells of a log, and whether there is one.
func (s *Store) infoLocked(l *logState) (info replication.LogInfo, ok bool) {
	info = l.info
	limit, limited := s.limits[info.Log]
	if limited {
		info.Limit, info.Cut = limit.Refusal(), limit.Place()
	}
	for i := range l.aside {
		if b := &l.aside[i]; len(b.body) > 0 {
			info.SetAside += b.last - b.first + 1
			if since := time.UnixMilli(b.cut.UnixMilli()); info.SetAsideSince.IsZero() || since.Before(info.SetAsideSince) {
				info.SetAsideSince = since
			}
		}
	}
	return info, limited || len(l.blocks) > 0 || len(l.aside) > 0
}

// SetAside tells about the logs of which a cut set operations aside, ordered by id.
func (s *Store) SetAside() (list []replication.LogInfo) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.goneLocked() {
		return nil
	}
	for _, l := range s.disk.logs {
		if info, _ := s.infoLocked(l); info.SetAside > 0 {
			list = append(list, info)
		}
	}
	slices.SortFunc(list, func(a, b replication.LogInfo) int { return a.Log.Compare(b.Log) })
	return list
}

// ReadSetAside calls fn for each block of a log that a cut set aside and that begins
// after a seq.
func (s *Store) ReadSetAside(log replication.LogID, after uint64, fn func(*replication.Block) error) error {
	blocks, err := s.setAside(log)
	if err != nil {
		return err
	}
	for i := range blocks {
		b, err := blocks[i].parse()
		if err != nil {
			return &replication.DamageError{Log: log, Seq: blocks[i].first, File: where, Problem: err.Error()}
		}
		if !b.HasBody() {
			return nil
		}
		if b.Header.FirstSeq <= after {
			continue
		}
		if err := fn(b); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) setAside(log replication.LogID) ([]stored, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.goneLocked() {
		return nil, replication.ErrClosed
	}
	if l := s.disk.logs[log]; l != nil {
		if _, ok := s.infoLocked(l); ok {
			return l.aside, nil
		}
	}
	return nil, replication.ErrUnknownLog
}

// logIDsLocked lists all logs in one order, so that a simulation replays.
func (d *Disk) logIDsLocked() []replication.LogID {
	ids := make([]replication.LogID, 0, len(d.logs))
	for id := range d.logs {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, replication.LogID.Compare)
	return ids
}

// expireLocked removes what was set aside long ago. The headers up to the next
// signature stay as the log's tail.
func (d *Disk) expireLocked(now time.Time) {
	for _, l := range d.logs {
		l.aside = slices.DeleteFunc(slices.Clone(l.aside), func(b stored) bool {
			return now.Sub(b.cut) >= replication.SetAsideFor
		})
	}
}

// counting is how many of the log's blocks count.
func (l *logState) counting(limit *replication.LogLimit) int {
	n := len(l.blocks)
	for n > 0 && !limit.Counts(l.blocks[n-1].end()) {
		n--
	}
	return n
}

// returning is how many of the blocks set aside count again: they follow the tip,
// and a signature at or after them is known.
func (l *logState) returning(limit *replication.LogLimit) (n int) {
	if len(l.aside) == 0 || (replication.Position{Seq: l.aside[0].first - 1, Hash: l.aside[0].prev}) != l.info.Tip {
		return 0
	}
	for n < len(l.aside) && len(l.aside[n].body) > 0 && limit.Counts(l.aside[n].end()) {
		n++
	}
	for n > 0 && len(l.aside[n-1].sig) == 0 && len(signedHeaders(l.aside[n:])) == 0 {
		n--
	}
	return n
}

// retreat sets all blocks of a log aside but the first n.
func (t *transaction) retreat(l *logState, n int, now time.Time) {
	d, moved := t.disk, slices.Clone(l.blocks[n:])
	if len(l.aside) == 0 {
		moved = append(moved, l.tail...)
	}
	gone := map[uint64]bool{}
	a := t.advance(l)
	a.Retreat, a.Ops, a.Bytes = true, l.info.Tip.Seq, l.info.Bytes
	for i := range moved {
		b := &moved[i]
		gone[b.arrival] = true
		b.arrival, b.cut = 0, now
	}
	d.arrivals[l.info.Space] = slices.DeleteFunc(slices.Clone(d.arrivals[l.info.Space]), func(p place) bool { return gone[p.number] })
	if d.current[l.info.Space] == l.info.Log {
		delete(d.current, l.info.Space) // no seq is given twice, even if the cut is lifted
	}
	rest := append(slices.Clone(moved), l.tail...)
	l.blocks, l.aside = l.blocks[:n:n], append(moved, l.aside...)
	l.refresh()
	l.endIn(rest)
	a.Tip = l.info.Tip
	a.Ops, a.Bytes = a.Ops-a.Tip.Seq, a.Bytes-l.info.Bytes
}

// join lets the first n blocks that were set aside count again.
func (t *transaction) join(l *logState, n int) {
	back := l.aside[:n]
	for i := range back {
		b := back[i]
		b.cut = time.Time{}
		t.add(l, &b)
	}
	l.aside = l.aside[n:]
	l.endIn(l.aside)
	if len(l.aside) == 0 || len(l.aside[0].body) == 0 {
		l.aside = nil
	}
}

// endIn makes the headers of what follows the tip its tail, up to a signature.
func (l *logState) endIn(rest []stored) {
	l.tail = nil
	if n := len(l.blocks); n > 0 && len(l.blocks[n-1].sig) == 0 {
		l.tail = signedHeaders(rest)
	}
}

// signedHeaders are the headers of blocks up to the first signature; nil if there
// is none.
func signedHeaders(blocks []stored) (chain []stored) {
	for _, b := range blocks {
		b.body, b.arrival, b.cut = nil, 0, time.Time{}
		chain = append(chain, b)
		if len(b.sig) > 0 {
			return chain
		}
	}
	return nil
}

// dropStaleAside forgets blocks set aside that the log has by now, and all of them
// where it went on otherwise.
func (l *logState) dropStaleAside() {
	for len(l.aside) > 0 && l.aside[0].last <= l.info.Tip.Seq {
		l.aside = l.aside[1:]
	}
	if len(l.aside) > 0 && (replication.Position{Seq: l.aside[0].first - 1, Hash: l.aside[0].prev}) != l.info.Tip {
		l.aside = nil
	}
}

// ownGenesis is the genesis block of a log to begin, refused where it would not
// count.
func (s *Store) ownGenesis(space replication.SpaceID) (*replication.Genesis, error) {
	g := &replication.Genesis{Network: s.disk.network, Space: space, Origin: s.disk.self}
	if err := readRand(s.rand, g.Epoch[:]); err != nil {
		return nil, err
	}
	if prev := s.disk.newestOwnLocked(space); prev != nil {
		g.PrevLog, g.PrevPos = prev.info.Log, prev.info.Tip
	}
	if s.grant != nil {
		var grant []byte
		var err error
		s.callOutLocked(func() { grant, err = s.grant(space) })
		if err != nil {
			return nil, err
		}
		if len(grant) > replication.MaxGrant {
			return nil, &replication.TooLargeError{What: "grant", Size: len(grant), Max: replication.MaxGrant}
		}
		g.Grant = bytes.Clone(grant)
	}
	if limit := s.limitOf(g); !limit.Entire() {
		return nil, limit.Refusal()
	}
	return g, nil
}

// keep is a genesis block that does not alias a run's bytes.
func keep(g *replication.Genesis) *replication.Genesis {
	own := *g
	own.Grant = bytes.Clone(g.Grant)
	return &own
}

// tip is what is held of a log, which may be nil.
func (l *logState) tip() replication.Position {
	if l == nil {
		return replication.Position{}
	}
	return l.info.Tip
}
