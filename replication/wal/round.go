package wal

import "time"

// aheadBytes is how large a transaction must be for the next one to be staged while the
// disk has it, and what must wait for that. What is small shares a transaction with what
// comes meanwhile: two small ones one after the other take the disk twice as long as one
// of both, and staging them takes no time that is worth it.
const aheadBytes = 256 << 10

// round is one transaction of the committer with everything that waits for it.
type round struct {
	tx       *tx
	controls []*controlReq
	locals   localBatch
	runs     []runAnswer

	// landed is closed once the disk has the transaction, or has refused it; nil where
	// the committer waited for that itself. err and took are set before.
	landed chan struct{}
	err    error
	took   time.Duration // what the disk took
}

// newRound begins a transaction on top of what is durable, or of under, which is on
// its way to the disk.
func (c *committer) newRound(under *round) *round {
	x := c.spare
	c.spare = nil
	if x == nil {
		x = &round{tx: c.s.newTx()}
	}
	x.tx.head = c.s.idx.head
	if under != nil {
		x.tx.under, x.tx.head = under.tx, under.tx.head
	}
	x.locals.begin(c, x.tx)
	return x
}

// end empties a round of which nobody has anything any more. Another one uses its maps
// and lists; its blocks are not kept alive until then.
func (c *committer) end(x *round) {
	x.locals.end()
	clear(x.controls)
	clear(x.runs)
	if !x.tx.reset() {
		x.tx = c.s.newTx()
	}
	*x = round{tx: x.tx, controls: x.controls[:0], locals: x.locals, runs: x.runs[:0]}
	c.spare = x
}

// done tells whether the disk has answered.
func (x *round) done() bool {
	select {
	case <-x.landed:
		return true
	default:
		return false
	}
}

// firm tells whether another transaction may be staged on top of this one while it is
// on its way to the disk: it is large enough for that, adds blocks to logs, whose new
// state is in it, and nothing that what follows would have to read from the database.
func (c *committer) firm(x *round) bool {
	t := x.tx
	return (t.raw >= aheadBytes || c.s.opt.eager) &&
		len(x.controls) == 0 && len(t.others) == 0 && len(t.deletes) == 0 && t.identity == nil
}

// depart hands a round over to the disk; nothing else may be on its way there. prev is
// the round that it was staged on, which has landed, or nil.
func (c *committer) depart(x, prev *round) {
	x.tx.under = nil
	if prev != nil {
		x.err = prev.err
	}
	if x.err != nil || x.tx.empty() {
		return
	}
	c.s.cursors.ride(x.tx)
	if x.err = c.s.prepare(x.tx); x.err != nil {
		return
	}
	write := func() {
		start := time.Now()
		x.err = c.s.write(x.tx)
		x.took = time.Since(start)
	}
	if prev == nil && !c.firm(x) {
		write() // there is nothing to do meanwhile
		return
	}
	x.landed = make(chan struct{})
	go func() {
		defer close(x.landed)
		write()
	}()
}

// ahead stages the round that follows x while x is on its way to the disk, as soon as
// enough waits for that; nil if nothing was staged. What must see x in the database,
// and what must not be overtaken without end, waits until nothing is on its way.
func (c *committer) ahead(x *round) (next *round) {
	if x.landed == nil || !c.firm(x) {
		return nil
	}
	for full := false; ; {
		if !full && c.worthAhead() {
			if next == nil {
				next = c.newRound(x)
			}
			before := next.tx.raw
			c.stage(next, x.done)
			full = next.tx.raw-before < aheadBytes && c.s.queue.waiting().bytes >= aheadBytes
		}
		select {
		case <-x.landed:
			switch {
			case next == nil:
			case c.s.queue.waiting().bytes < aheadBytes:
				c.stage(next, nil) // too little for another one
			case full:
				c.stage(next, x.done) // appends that came since, in one block
			}
			return next
		case <-c.s.queue.wake:
		}
	}
}

// worthAhead tells whether what waits is enough for a transaction of its own, and
// nothing waits that must not be overtaken.
func (c *committer) worthAhead() bool {
	w := c.s.queue.waiting()
	return !w.others && c.restricting == nil && len(c.rejoin) == 0 &&
		(w.bytes >= aheadBytes || c.s.opt.eager && w.any())
}

// land ends what the disk was given: after it a round is durable and visible, or its
// error says why not.
func (c *committer) land(x *round) {
	if x.landed != nil {
		<-x.landed
	}
	if x.tx.empty() {
		return
	}
	if x.err == nil {
		c.s.apply(x.tx)
		c.noteLogs(x.tx)
		c.took = x.took
	}
	c.s.cursors.settle(x.err)
}

// answer tells everybody who waits for a round that has landed. next is what is on its
// way by now, or nil.
func (c *committer) answer(x, next *round) {
	x.locals.settle(x.err)
	if x.err == nil {
		c.s.subs.publish(x.tx.advances)
	}
	for _, req := range x.controls {
		req.done <- x.err
	}
	c.expected = c.s.queue.waiting().locals + len(x.locals.placed)
	if next != nil {
		c.expected += len(next.locals.placed)
	}
	x.locals.answer(x.err)
	for _, a := range x.runs {
		c.answerRun(a, x.err)
	}
}
