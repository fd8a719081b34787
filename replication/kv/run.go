package kv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vixp2p/replication"
)

const (
	// readBytes is how much the apply goroutine reads of the store at a time.
	readBytes = 2 << 20
	// turnReads is how often it does so for a space before it looks at the others.
	// Only in between a commit may be under way.
	turnReads = 8
)

// backoff counts failures in a row.
type backoff struct {
	pause time.Duration
	until time.Time
}

func (b *backoff) failed(first time.Duration) {
	b.pause = min(max(first, 2*b.pause), retryMax)
	b.until = time.Now().Add(b.pause)
}

// run is the apply goroutine: it alone writes to the database.
func (v *View) run(ctx context.Context, p plan) {
	if p.check {
		v.checkOpened(ctx)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for turn := 0; ; {
		v.rebuildIfAsked(ctx)
		sp, wait := v.next(&turn)
		if sp != nil {
			v.advance(ctx, sp)
			if ctx.Err() == nil {
				continue
			}
		}
		timer.Reset(wait)
		select {
		case <-v.wake:
		case <-timer.C:
		case <-ctx.Done():
			for _, sp := range v.order {
				if sp.a != nil {
					sp.a.close()
				}
			}
			return
		}
	}
}

// forever is a pause that only a wake ends.
const forever = 1000 * time.Hour

// next picks a space with something to apply; or tells how long to wait.
func (v *View) next(turn *int) (*spaceState, time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.d == nil {
		return nil, max(v.opt.retryMin, time.Until(v.notBefore))
	}
	wait := forever
	for range v.order {
		sp := v.order[*turn%len(v.order)]
		*turn++
		switch pause := time.Until(sp.retry.until); {
		case !sp.dirty:
		case sp.err != nil && pause > 0:
			wait = min(wait, pause)
		case v.hurry == 0 && time.Until(sp.rest) > 0:
			wait = min(wait, time.Until(sp.rest))
		default:
			return sp, 0
		}
	}
	return nil, wait
}

// advance takes a space back where that is due, and applies some blocks.
func (v *View) advance(ctx context.Context, sp *spaceState) {
	v.mu.Lock()
	sp.dirty = false
	v.mu.Unlock()
	head := v.store.Head() // before reading: all up to it is there to read
	more, full, err := v.applySome(ctx, sp)
	v.mu.Lock()
	defer v.mu.Unlock()
	var back *backError
	if errors.As(err, &back) && !sp.doubt {
		sp.doubt = true
		sp.a.discard()
		v.retreatLocked(sp, back.log, back.below)
		return
	}
	var anew *rebuildError
	if errors.As(err, &anew) {
		v.log.Info("the key-value view does not take back in place what a cut took", "space", sp.id, "reason", anew.why)
		sp.a.discard()
		v.asked = &rebuild{generation: v.generation}
		sp.dirty = true
		return
	}
	switch {
	case ctx.Err() != nil && err != nil:
		if sp.a != nil {
			sp.a.discard() // there may be another turn before the end
		}
		sp.dirty = true
		return
	case err == nil && more:
		sp.dirty = true
		if !full {
			sp.rest = time.Now().Add(v.opt.pace)
		}
		return
	case err == nil:
		sp.a.forget()
		sp.upTo = max(sp.upTo, head)
		sp.err, sp.retry, sp.asked = nil, backoff{}, false
		v.tellLocked()
		return
	}
	if v.heldUpLocked(sp, err) {
		return
	}
	own := v.isOwnDamage(err)
	if own {
		err = v.blameLocked(sp, err)
	}
	if sp.a != nil {
		sp.a.discard()
	}
	if sp.err == nil || sp.err.Error() != err.Error() {
		v.log.Error("the key-value view cannot go on", "space", sp.id, "applied", sp.applied, "error", err)
	}
	sp.err = err
	var stuck *StuckError
	switch {
	case errors.Is(err, replication.ErrUpgradeNeeded), errors.Is(err, replication.ErrClosed):
		// Nothing that this process can do helps.
	case errors.As(err, &stuck):
		sp.dirty = true
		sp.retry = backoff{until: time.Now().Add(v.opt.stuckPause)}
	case own:
		v.asked = &rebuild{generation: v.generation, why: err}
		sp.dirty = true
	default:
		sp.dirty = true
		sp.retry.failed(v.opt.retryMin)
	}
	v.tellLocked()
}

// applySome applies what a turn allows; more tells that there was something, full
// that it was about as much.
func (v *View) applySome(ctx context.Context, sp *spaceState) (more, full bool, err error) {
	if err := v.ready(sp); err != nil {
		return false, false, err
	}
	for range turnReads {
		var some bool
		some, full, err = v.applyBatch(ctx, sp)
		more = more || some
		if err != nil || !full || ctx.Err() != nil {
			break
		}
	}
	if failed := sp.a.land(); failed != nil {
		err = failed // it comes before whatever came after
	}
	return more, full, err
}

// ready has a space have an applier for the database in use.
func (v *View) ready(sp *spaceState) (err error) {
	d := v.d
	if sp.a != nil && sp.a.d == d {
		return nil
	}
	defer faultsPanic()()
	defer guard(&err, d.dir)
	if sp.a, err = newApplier(d, sp.id, v.rank); err != nil {
		return err
	}
	sp.a.room = v.room
	v.mu.Lock()
	defer v.mu.Unlock()
	sp.sawLocked(&sp.a.saved)
	return nil
}

// applyBatch reads and applies about readBytes. The last commit may be under way
// after.
func (v *View) applyBatch(ctx context.Context, sp *spaceState) (more, full bool, err error) {
	defer faultsPanic()()
	defer guard(&err, sp.a.d.dir)
	v.mu.RLock()
	back := sp.back.pending()
	v.mu.RUnlock()
	if back {
		if err := sp.a.land(); err != nil {
			return false, false, err
		}
		if err := v.takeBack(ctx, sp); err != nil {
			return false, false, err
		}
	}
	b := v.takeBatch(sp)
	if err := sp.a.follow(b); err != nil {
		return false, false, err
	}
	if err := sp.a.blocks(b.blocks, func() error { return v.flush(sp) }); err != nil {
		return false, false, err
	}
	return len(b.blocks) > 0, b.full, b.err
}

// takeBatch returns the next blocks of a space, and has those after them read
// meanwhile if more may follow.
func (v *View) takeBatch(sp *spaceState) *batch {
	after := sp.a.saved.arrival
	var b *batch
	if sp.ahead != nil {
		b = <-sp.ahead
		sp.ahead = nil
	}
	// That one was read ahead and is empty says nothing about now.
	if b == nil || b.after != after || len(b.blocks) == 0 {
		b = readBatch(v.store, v.opt.Opener, sp.id, after)
	}
	if n := len(b.blocks); b.full && b.err == nil {
		ahead := make(chan *batch, 1)
		sp.ahead = ahead
		last := b.blocks[n-1].number
		v.background.Go(func() { ahead <- readBatch(v.store, v.opt.Opener, sp.id, last) })
	}
	return b
}

// flush commits what is staged and shows it when it has landed, with the parts of a
// large block that were committed before.
func (v *View) flush(sp *spaceState) error {
	a := sp.a
	return a.begin(func(saved *cursor) {
		a.d.show()
		seen := a.seen()
		for id, seq := range seen.logs {
			v.overlay.drop(id, seq)
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		sp.sawLocked(saved)
		sp.err, sp.retry, sp.doubt = nil, backoff{}, false
		v.ops += seen.ops
		v.tellLocked()
	})
}

// sawLocked notes what reads see from now on.
func (sp *spaceState) sawLocked(c *cursor) {
	sp.applied, sp.appliedOps, sp.tally = c.arrival, c.ops, c.tally
	sp.upTo = max(sp.upTo, sp.applied)
	if sp.fault != nil && sp.applied > sp.fault.after {
		sp.fault = nil // a rebuild did mend it
	}
}

// room refuses to write where the disk is nearly full.
func (v *View) room() error {
	if v.opt.ReserveBytes < 0 {
		return nil
	}
	free, err := v.opt.FreeBytes(v.opt.Dir)
	if err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", v.opt.Dir, err)
	}
	if free < uint64(v.opt.ReserveBytes) {
		return fmt.Errorf("%s are free in %s and the key-value view leaves %s alone: make room, it goes on by itself: %w",
			replication.SizeText(free), v.opt.Dir, replication.SizeText(uint64(v.opt.ReserveBytes)), replication.ErrNoSpace)
	}
	return nil
}

// aheadOfStore refuses a database that has applied more than the store holds.
func (v *View) aheadOfStore(d *database) (err error) {
	defer guard(&err, d.dir)
	txn := d.latest()
	defer txn.Discard()
	head := v.store.Head()
	return scan(txn, []byte{prefixCursor}, nil, func(_, record []byte) error {
		c, err := decodeCursor(record)
		if err == nil && c.arrival > head {
			err = &replication.DamageError{File: d.dir, Problem: fmt.Sprintf("the view has applied block %d and the store ends at %d", c.arrival, head)}
		}
		return err
	})
}

// checkOpened checks every record of a database that a killed process left.
func (v *View) checkOpened(ctx context.Context) {
	snap, ok := v.d.snapshot()
	if !ok {
		return // it is being closed
	}
	err := v.checkRecords(ctx, snap)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		err = v.save(v.d.generation, phaseRunning, nil)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.asked = &rebuild{generation: v.generation, why: err}
		return
	}
	v.checked = true
	v.tellLocked()
}
