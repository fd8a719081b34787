package replication

import (
	"fmt"
	"slices"
)

// receiver is the half of a session that takes what the peer pushes.
type receiver struct {
	partial *Partial // the one run of which only the first bytes are here
	resumed bool     // partial began in an earlier session
	// hole is the run for which a missing piece was reported, so that the pieces
	// after it do not report it again.
	hole partialRef

	commits map[LogID]*fifo[commit]
	// Sums over commits: at most MaxUncommitted and MaxUncommittedBytes.
	uncommitted      int
	uncommittedBytes int

	acks     []AckEntry // to send, one per log
	ackIndex map[LogID]int
	ackTimer timer

	proofs map[LogID]bool // logs of which a proof was sent or asked for
	pullID uint64
}

// commit is a CommitRun without its CommitDone.
type commit struct {
	from, end Position
	bytes     int
	resumed   bool // its first bytes came in an earlier session
}

func (r *receiver) init(resume *Partial) {
	r.commits = map[LogID]*fifo[commit]{}
	r.ackIndex = map[LogID]int{}
	r.proofs = map[LogID]bool{}
	if resume != nil && len(resume.Data) > 0 && uint64(len(resume.Data)) < resume.Total && resume.Total <= MaxRunBytes {
		p := *resume
		p.Data = p.Data[:len(p.Data):len(p.Data)] // appending copies it
		r.partial = &p
	}
}

// announcePartial tells the peer where to go on with what an earlier session left.
func (s *Session) announcePartial() {
	p := s.partial
	if p != nil && !s.carries(p.Space) {
		s.partial = nil
		return
	}
	if p != nil && !s.heldBack(p.Space) {
		s.resumed = true
		s.send(&WalAck{Entries: []AckEntry{{
			Space: p.Space, Log: p.Log, PartialFrom: p.From, PartialEnd: p.End, PartialBytes: uint64(len(p.Data)),
		}}})
	}
}

func (s *Session) walPush(m *WalPush, held uint64) {
	if m.Total == 0 && len(m.Data) == 0 && m.PullEnd {
		s.emit(Pulled{})
		return
	}
	if bad := checkPush(m); bad != "" {
		s.violation(bad)
		return
	}
	if m.PullEnd {
		s.emit(Pulled{})
	}
	if s.heldBack(m.Space) {
		return // we have said nothing about the space, so the peer sends it again
	}
	sp := s.spaces[m.Space]
	if sp == nil {
		why := "the space is not known here"
		if !s.carries(m.Space) {
			why = notGranted
		}
		s.ack(AckEntry{Space: m.Space, Log: m.Log, Branch: m.Branch, Code: CodeNotAllowed, Detail: why})
		return
	}
	if !m.Branch.IsZero() {
		s.ack(AckEntry{Space: m.Space, Log: m.Log, Branch: m.Branch, Code: CodeTooNew, Detail: "this version keeps one branch of a log"})
		return
	}
	// The peer pushes what it holds durably: a statement like an ack. Until all of
	// the run is here and committed it is missing.
	if m.End.Seq > held && !countsAsSynced(sp.refused[m.Log].Code) {
		sp.want(m.Log, held, m.End)
	}
	sp.noteStated(m.Log, m.End)
	if l := sp.logs[m.Log]; l != nil {
		s.peerHolds(l, m.End)
		s.enqueue(l)
	}
	if uint64(len(m.Data)) == m.Total {
		s.commit(sp, m, m.Data, false)
		return
	}
	s.piece(sp, m)
}

func checkPush(m *WalPush) string {
	n := uint64(len(m.Data))
	switch {
	case m.Total > MaxRunBytes:
		return fmt.Sprintf("a run of %d bytes, more than %d", m.Total, MaxRunBytes)
	case n == 0 || m.Offset > m.Total || n > m.Total-m.Offset:
		return fmt.Sprintf("%d bytes at offset %d of a run of %d", n, m.Offset, m.Total)
	case !validPosition(m.From) || !validPosition(m.End) || m.End.Seq <= m.From.Seq:
		return "a run that does not end after it starts"
	}
	return ""
}

// piece adds a byte range to the partial run.
func (s *Session) piece(sp *spaceState, m *WalPush) {
	p := s.partial
	same := p != nil && p.Space == m.Space && p.Log == m.Log && p.From == m.From && p.End == m.End && p.Total == m.Total
	if !same {
		if m.Offset > 0 {
			s.reportHole(m, 0)
			return
		}
		p = &Partial{Space: m.Space, Log: m.Log, From: m.From, End: m.End, Total: m.Total}
		s.partial, s.resumed = p, false
	}
	have := uint64(len(p.Data))
	switch end := m.Offset + uint64(len(m.Data)); {
	case m.Offset > have:
		s.reportHole(m, have)
		return
	case end <= have:
		return // repeated
	default:
		if rest := int(p.Total - have); cap(p.Data)-len(p.Data) < rest {
			p.Data = slices.Grow(p.Data, rest) // once: at most a run
		}
		p.Data = append(p.Data, m.Data[have-m.Offset:]...)
	}
	s.hole = partialRef{}
	if uint64(len(p.Data)) == p.Total {
		s.partial = nil
		s.commit(sp, m, p.Data, s.resumed)
	}
}

// reportHole asks to go on at have, once until that worked.
func (s *Session) reportHole(m *WalPush, have uint64) {
	h := partialRef{space: m.Space, log: m.Log, from: m.From, end: m.End, bytes: have}
	if s.hole == h {
		return
	}
	s.hole = h
	s.ack(AckEntry{Space: m.Space, Log: m.Log, PartialFrom: m.From, PartialEnd: m.End, PartialBytes: have})
}

// commit hands over a complete run.
func (s *Session) commit(sp *spaceState, m *WalPush, data []byte, resumed bool) {
	if s.uncommitted >= MaxUncommitted || s.uncommittedBytes+len(data) > MaxUncommittedBytes {
		return
	}
	q := s.commits[m.Log]
	if q == nil {
		q = &fifo[commit]{}
		s.commits[m.Log] = q
	}
	for _, c := range q.items[q.head:] {
		if c.from == m.From && c.end == m.End {
			return // its answer is on its way
		}
	}
	q.push(commit{from: m.From, end: m.End, bytes: len(data), resumed: resumed})
	s.uncommitted++
	s.uncommittedBytes += len(data)
	s.emit(CommitRun{Space: m.Space, Log: m.Log, From: m.From, Data: data})
}

// commitDone turns the committer's answer into an ack: the only place besides
// the frontier exchange and the mesh where a position is stated (G2).
func (s *Session) commitDone(ev CommitDone) {
	var c commit
	if q := s.commits[ev.Log]; q != nil {
		c = q.pop()
		s.uncommitted--
		s.uncommittedBytes -= c.bytes
		if q.len() == 0 {
			delete(s.commits, ev.Log)
		}
	}
	sp := s.spaces[ev.Space]
	if sp == nil {
		return
	}
	tip := ev.Result.Tip
	if p := s.partial; p != nil && p.Log == ev.Log && p.End.Seq <= tip.Seq {
		s.partial = nil
	}
	a := AckEntry{Space: ev.Space, Log: ev.Log, Pos: tip}
	sp.got(ev.Log, tip.Seq, 0, false)
	switch ev.Result.Code {
	case Committed, Duplicate:
		delete(sp.refused, ev.Log)
	case Gap:
		a.Code = CodeGap
		if r := sp.refused[ev.Log]; countsAsSynced(r.Code) {
			a.Code, a.Detail = r.Code, r.Detail // it follows what was refused; one ack may answer for both
		}
	case Forked:
		a.Code = CodeForked
		s.sendProof(sp, ev)
		s.refused(sp, &a, ev)
	default:
		a.Code = ev.Code
		if a.Code == CodeOK {
			a.Code = CodeInternal
		}
		if a.Code == CodeBadRun && c.resumed {
			// The two halves may be of different copies: once more from the start.
			s.ack(AckEntry{Space: ev.Space, Log: ev.Log, Pos: tip, PartialFrom: c.from, PartialEnd: c.end})
			return
		}
		if a.Code == CodeNoSpace && c.end.Seq > 0 && c.end.Seq <= tip.Seq {
			a.Code = CodeOK // there was nothing to write
			break
		}
		s.refused(sp, &a, ev)
	}
	s.ack(a)
}

// refused keeps and reports that this side does not take a log further.
func (s *Session) refused(sp *spaceState, a *AckEntry, ev CommitDone) {
	why := ""
	if ev.Result.Err != nil {
		why = cutDetail(ev.Result.Err.Error())
	}
	if a.Code.concernsRun() {
		a.Detail = why
	}
	if countsAsSynced(a.Code) {
		sp.giveUp(ev.Log)
	}
	old, known := sp.refused[ev.Log]
	if known && old.Code == a.Code {
		return
	}
	p := LogPaused{Space: ev.Space, Log: ev.Log, Code: a.Code, Detail: why, Local: true}
	if known || len(sp.refused) < maxRefused {
		sp.refused[ev.Log] = p
	}
	s.emit(p)
	if a.Code == CodeRevoked {
		s.askControl()
	}
}

// sendProof passes on the proof of a fork, once per log.
func (s *Session) sendProof(sp *spaceState, ev CommitDone) {
	if s.proofs[ev.Log] || len(s.proofs) == maxRefused {
		return
	}
	s.proofs[ev.Log] = true
	if p := ev.Result.Proof; p != nil {
		s.send(&ForkProofMsg{Space: sp.info.ID, Proof: *p})
	} else {
		s.emit(SendForkProof{Space: sp.info.ID, Log: ev.Log})
	}
}

// ack queues one entry. Acks are cumulative, so a later one of the same log takes
// the place of an earlier; what speaks of a partial run goes as it is.
func (s *Session) ack(a AckEntry) {
	if a.PartialEnd.Seq == 0 {
		if i, ok := s.ackIndex[a.Log]; ok && s.acks[i].Space == a.Space {
			a.Pos = higher(a.Pos, s.acks[i].Pos)
			s.acks[i] = a
			return
		}
		s.ackIndex[a.Log] = len(s.acks)
	}
	s.acks = append(s.acks, a)
	if s.cfg.AckDelay > 0 && s.ackTimer.place == 0 {
		s.after(&s.ackTimer, s.cfg.AckDelay)
	}
}

// flushAcks sends what is queued: all if told to or if acks are not gathered,
// else what fills a message.
func (s *Session) flushAcks(all bool) {
	all = all || s.cfg.AckDelay == 0
	for len(s.acks) >= MaxAckEntries || (all && len(s.acks) > 0) {
		n := min(len(s.acks), MaxAckEntries)
		s.send(&WalAck{Entries: s.acks[:n:n]})
		s.acks = s.acks[n:]
		clear(s.ackIndex)
		for i := range s.acks {
			if s.acks[i].PartialEnd.Seq == 0 {
				s.ackIndex[s.acks[i].Log] = i
			}
		}
	}
	if len(s.acks) == 0 {
		s.acks = nil
		s.stopTimer(&s.ackTimer)
	}
}
