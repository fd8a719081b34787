package replicator

import (
	"errors"
	"time"

	"vixp2p/replication"
)

// readAhead is how many bytes may wait for the peer before the next run is read
// for it, so that a slow one does not fill the memory.
const readAhead = 2 << 20

// maxPushed bounds the logs of which it is remembered how far they were pushed,
// to count repeats.
const maxPushed = 4096

// carryOut does what the session says. It never blocks and never steps.
func (p *Peer) carryOut(now time.Time, e replication.Effect) {
	switch e := e.(type) {
	case replication.Send:
		if m, ok := e.Msg.(*replication.FrontierDiff); ok {
			p.quota.answered(m)
		}
		p.out.put(now, e.Msg)
	case replication.LoadFrontier:
		p.reads.do(func() { p.loadFrontier(e) })
	case replication.ReadRun:
		if !p.readNow(e) {
			p.reads.do(func() { p.readRun(e) })
		}
	case replication.CommitRun:
		p.commit(e)
	case replication.SaveCursor:
		p.r.receipts.stated(p, e.Entries)
	case replication.AddSpace:
		if !p.r.meet(e.Space) {
			p.post(item{event: replication.SpaceRefused{Space: e.Space.ID}})
		}
	case replication.ForkSeen:
		release := p.held.handOver()
		p.commits.do(func() {
			defer release()
			p.forkSeen(e)
		})
	case replication.SendForkProof:
		p.reads.do(func() { p.sendForkProof(e) })
	case replication.StateChanged:
		p.publish(func(n *published) { n.stale = e.Stale })
		p.log.Info("peer state", "stale", e.Stale)
		p.r.generation.Add(1)
		p.r.changes.ring()
		p.observe(e)
	case replication.RTT:
		p.publish(func(n *published) { n.rtt = e.Value })
		p.r.mesh.rtt(p, e.Value)
		p.observe(e)
	case replication.Settled:
		p.r.receipts.settled(p, e.Space)
		p.observe(e)
	case replication.Ahead:
		p.r.mesh.ahead(p, e)
	case replication.Owes:
		p.r.mesh.owes(p, e)
	case replication.PeerLazy:
		p.r.mesh.peerLazy(p, e.Lazy)
	case replication.CaughtUp:
		p.r.mesh.caughtUp(p)
	case replication.ControlInStep:
		p.applyTrust()
	case replication.ControlLate:
		p.warn("the trust state of this peer is not here after a while; data is exchanged all the same, and what was revoked is taken back when it is known",
			"settled", e.Settled, "missing_ops", e.Missing)
		p.observe(e)
	case replication.DataLoss:
		if info, _ := p.r.store.Log(e.Log); info.Limit != nil {
			return // it may just have cut the log before this node did, or deeper
		}
		p.count.losses.Add(1)
		p.warn("the peer has lost data that it once held; it is sent again, and receipts for it no longer count",
			"space", e.Space, "log", e.Log, "was", e.Was.Seq, "now", e.Now.Seq)
		p.observe(e)
	case replication.LogPaused:
		p.warn("a log is paused", "space", p.r.spaceName(e.Space), "log", e.Log, "code", e.Code, "detail", e.Detail, "here", e.Local)
		p.observe(e)
	case replication.Pulled:
		if len(p.pulls) > 0 {
			close(p.pulls[0])
			p.pulls = p.pulls[1:]
		}
	case replication.CloseSession:
		p.end = &EndError{Peer: p.info.ID, Code: e.Code, Detail: e.Detail, FromPeer: e.FromPeer}
		p.flush = !e.FromPeer
		p.observe(e)
	}
}

// applyTrust lets the data spaces begin when the store has its limits.
func (p *Peer) applyTrust() {
	applied := func() { p.post(item{event: replication.TrustApplied{}}) }
	if p.r.o.ApplyTrust == nil {
		applied()
		return
	}
	p.r.o.ApplyTrust(applied)
}

func (p *Peer) observe(e replication.Effect) {
	if p.r.o.Observe != nil {
		p.r.o.Observe(p, e)
	}
}

func (p *Peer) publish(change func(*published)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.now)
}

// readNow takes the next run for the peer from memory: what was just committed need
// not go the way over the disk and another goroutine. The session is given it after
// the effects of this step.
func (p *Peer) readNow(e replication.ReadRun) bool {
	if bytes, _ := p.out.backlog(); e.Covering || bytes > p.aheadBytes() {
		return false
	}
	run, ok := p.r.store.LastRun(e.Log, e.After)
	if ok {
		p.fromMemory = append(p.fromMemory, replication.RunRead{Space: e.Space, Log: e.Log, Run: run})
	}
	return ok
}

// aheadBytes is how many bytes may wait for the peer before a run is read for it.
func (p *Peer) aheadBytes() int { return p.r.o.Up.bytesIn(paceAhead, minTurn, readAhead) }

// readRun reads the next run for the peer, when there is room for it.
func (p *Peer) readRun(e replication.ReadRun) {
	if !p.out.room(p.ctx, p.aheadBytes()) {
		return
	}
	ev := replication.RunRead{Space: e.Space, Log: e.Log}
	if e.Covering {
		ev.Run, ev.Err = p.r.store.RunCovering(e.Log, e.After.Seq)
	} else {
		ev.Run, ev.Err = p.r.store.ReadRun(e.Log, e.After, e.MaxBytes)
	}
	if info, _ := p.r.store.Log(e.Log); info.Limit != nil && len(ev.Run.Data) == 0 && !errors.Is(ev.Err, replication.ErrDamaged) {
		return // it was just cut, which ends this session: nothing is damaged
	}
	p.post(item{event: ev})
}

// forkSeen checks a proof from the peer, records it and passes it on.
func (p *Peer) forkSeen(e replication.ForkSeen) {
	info, ok := p.r.store.Log(e.Proof.Log)
	if !ok || info.Space != e.Space || info.Origin != e.Proof.Origin {
		return // of a log that is not here, or not its origin's
	}
	if err := e.Proof.Verify(); err != nil {
		p.warn("the peer sent a proof of a fork that does not hold", "log", e.Proof.Log, "error", err)
		return
	}
	first, err := p.r.store.RecordFork(e.Proof)
	switch {
	case err != nil:
		p.log.Error("a proof of a fork cannot be kept", "log", e.Proof.Log, "error", err)
	case first:
		p.r.forwardFork(e.Space, e.Proof, p)
	}
}

func (p *Peer) sendForkProof(e replication.SendForkProof) {
	if proof, ok := p.r.store.ForkProofOf(e.Log); ok {
		p.out.put(time.Now(), &replication.ForkProofMsg{Space: e.Space, Proof: proof})
	}
}

func (p *Peer) countReceived(m replication.Message) {
	switch m := m.(type) {
	case *replication.WalPush:
		p.count.bytesIn.Add(uint64(len(m.Data)))
	case *replication.WalAck:
		p.count.acksIn.Add(uint64(len(m.Entries)))
		p.publish(func(n *published) { n.lastAck = time.Now() })
	}
}

// countSent is called by the writer for what the transport has taken.
func (p *Peer) countSent(m replication.Message) {
	switch m := m.(type) {
	case *replication.WalPush:
		p.count.bytesOut.Add(uint64(len(m.Data)))
		if m.Offset+uint64(len(m.Data)) != m.Total || m.Total == 0 {
			return
		}
		p.count.runsOut.Add(1)
		p.count.opsOut.Add(m.End.Seq - m.From.Seq)
		if m.From.Seq < p.pushed[m.Log] {
			p.count.resends.Add(1)
		}
		if len(p.pushed) == maxPushed {
			clear(p.pushed)
		}
		p.pushed[m.Log] = max(p.pushed[m.Log], m.End.Seq)
	case *replication.WalAck:
		p.count.acksOut.Add(uint64(len(m.Entries)))
	}
}
