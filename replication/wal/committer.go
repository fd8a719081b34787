package wal

import (
	"time"

	r "vixp2p/replication"
	"vixp2p/replication/compress"
)

// committer is the one goroutine that writes. Its fields are its own.
type committer struct {
	s     *Store
	clock *r.Clock
	// skewed are the origins whose clock was reported as ahead: each is told once.
	skewed map[r.OriginKey]bool
	// expected is how many batches are about to wait: those that came during the
	// last commit, one of each writer that it answered, and those on their way.
	expected int
	// spare is a round that is used again.
	spare *round
	// took is what the disk took for the last transaction.
	took time.Duration
	// runsFirst: the last transaction took no run although one waits.
	runsFirst bool
	// rejoin are logs that grew and have blocks set aside.
	rejoin      []r.LogID
	limiter     r.Limiter              // of the last Restrict
	genesis     map[r.LogID]*r.Genesis // of all logs, from the first Restrict on
	grants      map[string][]byte      // those in genesis, each once
	restricting *restriction           // under way, or nil
	// packers are of the spaces that this node has written in since the open.
	packers map[r.SpaceID]*compress.Packer
}

// run serves the queue until it is closed and empty.
func (c *committer) run() {
	defer close(c.s.stopped)
	for {
		w := c.s.queue.waiting()
		any := w.any() || c.restricting != nil
		if !any && w.closed {
			c.flushCursors()
			return
		}
		if !any {
			<-c.s.queue.wake
			continue
		}
		c.gather()
		c.serve()
	}
}

const (
	// gatherMax bounds how long a commit waits for writers; half of what the last
	// commit took is the limit if that is less.
	gatherMax = 500 * time.Microsecond
	// gatherStall ends the wait where none of them has come for so long.
	gatherStall = 40 * time.Microsecond
)

// gather gives the writers that were just answered the time to come back, so
// that they share one fsync with those that came during the last commit. Without
// it they fall into two groups that take turns, and each waits for two fsyncs. A
// single writer never waits.
func (c *committer) gather() {
	if c.expected < 2 {
		return
	}
	limit := min(c.took/2, gatherMax)
	start := time.Now()
	grew, have := start, 0
	for {
		w := c.s.queue.waiting()
		now := time.Now()
		switch {
		case w.locals >= c.expected, w.closed, now.Sub(start) >= limit:
			return
		case w.locals > have:
			grew, have = now, w.locals
		case now.Sub(grew) >= gatherStall:
			return
		}
		yield()
	}
}

// serve commits what waits. While a large transaction is on its way to the disk the one
// that follows is staged, if that will be large too; the disk is given one at a time, in
// their order, and each is answered once it is durable.
func (c *committer) serve() {
	c.restrict()
	x := c.newRound(nil)
	x.controls = c.stageControls(x.tx, x.controls)
	c.stage(x, nil)
	c.depart(x, nil)
	for x != nil {
		next := c.ahead(x)
		c.land(x)
		if next != nil {
			c.depart(next, x)
		}
		c.answer(x, next)
		if next == nil {
			for _, id := range c.rejoin {
				_ = c.takeBack(id) // told in the log
			}
			c.rejoin = c.rejoin[:0]
		}
		c.end(x)
		x = next
	}
}

// stage adds what waits to a round: appends and runs in turns the first. It stops at
// the next run where stop, which may be nil, tells so.
func (c *committer) stage(x *round, stop func() bool) {
	locals := func() {
		if room := x.tx.roomForLocals(); room > 0 {
			c.stageLocals(&x.locals, room)
		}
	}
	if !c.runsFirst {
		locals()
	}
	c.stageRuns(x, stop)
	shut := len(x.runs) == 0 && c.s.queue.waiting().runs
	// A run that must be compared with what is on its way to the disk would wait for as
	// long as appends to the same log go on: they wait, once, for the run.
	if c.runsFirst && !(shut && x.tx.under != nil) {
		locals()
	}
	c.runsFirst = shut
}

// stageControls adds those whose answer is the commit's.
func (c *committer) stageControls(t *tx, staged []*controlReq) []*controlReq {
	for _, req := range c.s.queue.takeControls() {
		if err := req.stage(t); err != nil {
			req.done <- err
			continue
		}
		staged = append(staged, req)
	}
	return staged
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
	var epoch r.Epoch
	if err := c.s.random(epoch[:]); err != nil {
		return err
	}
	t.beginEpoch(epoch)
	c.s.opt.Logger.Warn("the next write starts a new log", "reason", why)
	return nil
}

// beginEpoch makes later appends of this node write under an epoch.
func (t *tx) beginEpoch(epoch r.Epoch) {
	id := t.s.identity
	if t.identity != nil {
		id = *t.identity
	}
	id.epoch = epoch
	t.identity = &id
	t.setOther(keyIdentity, id.encode())
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
