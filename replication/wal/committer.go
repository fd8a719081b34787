package wal

import (
	"time"

	r "vixp2p/replication"
)

// committer is the one goroutine that writes. Its fields are its own.
type committer struct {
	s     *Store
	clock *r.Clock
	// skewed are the origins whose clock was reported as ahead: each is told once.
	skewed map[r.OriginKey]bool
	// lastLocals is how many batches the last commit held: as many writers are
	// about to come back.
	lastLocals int
	// runsFirst: the last transaction had no room for a run that waits.
	runsFirst bool
	// waiting are logs that grew and have blocks set aside.
	waiting []r.LogID
}

// run serves the queue until it is closed and empty.
func (c *committer) run() {
	defer close(c.s.stopped)
	for {
		_, any, closed := c.s.queue.waiting()
		if !any && closed {
			c.flushCursors()
			return
		}
		if !any {
			<-c.s.queue.wake
			continue
		}
		c.gather()
		c.round()
	}
}

// gatherWait bounds how long a commit waits for writers that were just
// answered; a fraction of what an fsync takes.
const gatherWait = 60 * time.Microsecond

// gather gives the writers of the last commit the time to come back, so that
// they share this one's fsync too. A single writer never waits.
func (c *committer) gather() {
	if c.lastLocals < 2 {
		return
	}
	for start := time.Now(); time.Since(start) < gatherWait; {
		if n, _, closed := c.s.queue.waiting(); n >= c.lastLocals || closed {
			return
		}
		yield()
	}
}

// round builds and commits one transaction and gives every answer.
func (c *committer) round() {
	t := c.s.newTx()
	controls := c.stageControls(t)
	var locals *localBatch
	if !c.runsFirst {
		locals = c.stageLocals(t)
	}
	runs := c.stageRuns(t)
	if c.runsFirst {
		locals = c.stageLocals(t)
	}
	c.runsFirst = !c.runsFirst && len(runs) == 0 && c.runWaits()
	c.lastLocals = len(locals.placed)

	var err error
	if !t.empty() {
		c.s.cursors.stage(t)
		err = c.s.commit(t)
		c.s.cursors.settle(err)
	}
	locals.settle(err)
	if err == nil {
		c.s.subs.publish(t.advances)
	}
	for _, req := range controls {
		req.done <- err
	}
	locals.answer(err)
	for _, a := range runs {
		c.answerRun(a, err)
	}
	for _, id := range c.waiting {
		c.takeBack(id)
	}
	c.waiting = c.waiting[:0]
}

// stageControls returns those whose answer is the commit's.
func (c *committer) stageControls(t *tx) []*controlReq {
	var staged []*controlReq
	for _, req := range c.s.queue.takeControls() {
		if err := req.stage(t); err != nil {
			req.done <- err
			continue
		}
		staged = append(staged, req)
	}
	return staged
}

func (c *committer) runWaits() bool {
	q := c.s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.sources) > 0
}

// flushCursors makes the last cursors durable.
func (c *committer) flushCursors() {
	for {
		t := c.s.newTx()
		c.s.cursors.stage(t)
		if t.empty() {
			return
		}
		err := c.s.commit(t)
		if err != nil {
			c.s.cursors.stop()
			c.s.opt.Logger.Warn("cursors of peers were not saved; they are only hints", "error", err)
		}
		c.s.cursors.settle(err)
		if err != nil {
			return
		}
	}
}

// endEpoch makes every later append of this node start new logs: somebody else
// writes under this epoch, or what this directory wrote is damaged.
func (c *committer) endEpoch(t *tx, why string) error {
	id := c.s.identity
	if t.identity != nil {
		id = *t.identity
	}
	if err := c.s.random(id.epoch[:]); err != nil {
		return err
	}
	t.identity = &id
	t.setOther(keyIdentity, id.encode())
	c.s.opt.Logger.Warn("the next write starts a new log", "reason", why)
	return nil
}

// epoch is the epoch of appends in this transaction.
func (t *tx) epoch() r.Epoch {
	if t.identity != nil {
		return t.identity.epoch
	}
	return t.s.identity.epoch
}

// observe lets the clock follow a remote reading (design 4.5).
func (c *committer) observe(origin r.OriginKey, hlc r.HLC) {
	if origin == c.s.self {
		// An own reading is never given twice, whatever the wall clock says.
		if hlc > c.clock.Last() {
			c.clock = r.NewClock(hlc)
		}
		return
	}
	ahead, adopted := c.clock.Observe(hlc, c.s.opt.Now())
	if !adopted && !c.skewed[origin] {
		if len(c.skewed) >= maxSkewReports {
			clear(c.skewed)
		}
		c.skewed[origin] = true
		c.s.opt.Logger.Warn("a peer's clock is ahead; its writes are kept, this node's clock does not follow",
			"origin", origin, "ahead", ahead.Round(time.Second))
	}
}

// maxSkewReports bounds the memory for reports already given.
const maxSkewReports = 4096
