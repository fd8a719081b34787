package kv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"vixp2p/replication"
)

// readBytes is how much the apply goroutine reads of the store at a time.
const readBytes = 2 << 20

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
		v.checkOpened(ctx, p)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for turn := 0; ; {
		v.rebuildIfAsked(ctx)
		sp, wait := v.next(&turn)
		if sp != nil {
			v.advance(sp)
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
		return nil, v.opt.retryMin
	}
	wait := forever
	for range v.order {
		sp := v.order[*turn%len(v.order)]
		*turn++
		switch pause := time.Until(sp.retry.until); {
		case !sp.dirty:
		case sp.err != nil && pause > 0:
			wait = min(wait, pause)
		default:
			return sp, 0
		}
	}
	return nil, wait
}

// advance applies some blocks of a space.
func (v *View) advance(sp *spaceState) {
	v.mu.Lock()
	sp.dirty = false
	v.mu.Unlock()
	head := v.store.Head() // before reading: all up to it is there to read
	more, err := v.applySome(sp)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err == nil && more:
		sp.dirty = true
		return
	case err == nil:
		sp.a.forget()
		sp.upTo = max(sp.upTo, head)
		sp.err, sp.retry = nil, backoff{}
		v.tellLocked()
		return
	}
	if sp.a != nil {
		sp.a.discard()
	}
	if sp.err == nil || sp.err.Error() != err.Error() {
		v.log.Error("the key-value view cannot go on", "space", sp.id, "applied", sp.applied, "error", err)
	}
	sp.err = err
	switch {
	case errors.Is(err, replication.ErrUpgradeNeeded), errors.Is(err, replication.ErrClosed):
		// Nothing that this process can do helps.
	case v.isOwnDamage(err):
		v.asked = &rebuild{generation: v.generation, why: err}
		sp.dirty = true
	default:
		sp.dirty = true
		sp.retry.failed(v.opt.retryMin)
	}
	v.tellLocked()
}

// isOwnDamage tells damage of the view, which a rebuild repairs, from damage of
// the store.
func (v *View) isOwnDamage(err error) bool {
	var e *replication.DamageError
	return errors.Is(err, errRecord) || errors.As(err, &e) && v.d != nil && e.File == v.d.dir
}

// applySome reads and applies about readBytes; more tells that there was
// something.
func (v *View) applySome(sp *spaceState) (more bool, err error) {
	d := v.d
	defer faultsPanic()()
	defer guard(&err, d.dir)
	if sp.a == nil || sp.a.d != d {
		if sp.a, err = newApplier(d, sp.id, v.rank); err != nil {
			return false, err
		}
		sp.a.room = v.room
		v.mu.Lock()
		sp.sawLocked(&sp.a.saved)
		v.mu.Unlock()
	}
	b := v.takeBatch(sp)
	if err := sp.a.blocks(b.blocks, func() error { return v.flush(sp) }); err != nil {
		return false, err
	}
	return len(b.blocks) > 0, b.err
}

// takeBatch returns the next blocks of a space, and has those after them read
// meanwhile if there may be more.
func (v *View) takeBatch(sp *spaceState) *batch {
	after := sp.a.saved.arrival
	var b *batch
	if sp.ahead != nil {
		b = <-sp.ahead
		sp.ahead = nil
	}
	// That one was read ahead and is empty says nothing about now.
	if b == nil || b.after != after || len(b.blocks) == 0 {
		b = readBatch(v.store, sp.id, after)
	}
	if n := len(b.blocks); n > 1 && b.err == nil {
		ahead := make(chan *batch, 1)
		sp.ahead = ahead
		last := b.blocks[n-1].number
		v.background.Go(func() { ahead <- readBatch(v.store, sp.id, last) })
	}
	return b
}

// flush commits what is staged and shows it.
func (v *View) flush(sp *spaceState) error {
	a := sp.a
	if !a.staged() {
		return nil
	}
	ops, logs := a.ops, a.touched()
	if err := a.commit(); err != nil {
		return err
	}
	a.d.show()
	v.mu.Lock()
	sp.sawLocked(&a.saved)
	sp.err, sp.retry = nil, backoff{}
	v.ops += ops
	v.tellLocked()
	v.mu.Unlock()
	for id, seq := range logs {
		v.overlay.drop(id, seq)
	}
	return nil
}

// sawLocked notes what reads see from now on.
func (sp *spaceState) sawLocked(c *cursor) {
	sp.applied, sp.appliedOps, sp.tally = c.arrival, c.ops, c.tally
	sp.upTo = max(sp.upTo, sp.applied)
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
		return fmt.Errorf("%d bytes are free in %s and the key-value view leaves %d alone: make room, it goes on by itself: %w",
			free, v.opt.Dir, v.opt.ReserveBytes, replication.ErrNoSpace)
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

// rebuild says why a generation is to be replaced.
type rebuild struct {
	generation uint64
	why        error // nil: a caller wants it
	reported   bool  // Verify need not tell of it any more
}

// askRebuild has a generation replaced.
func (v *View) askRebuild(r rebuild) {
	v.mu.Lock()
	if v.generation == r.generation && v.asked == nil {
		v.asked = &r
	}
	v.mu.Unlock()
	v.poke()
}

// Rebuild builds the view anew from the logs and returns when it has caught up
// with what the store holds now. Reads wait meanwhile.
func (v *View) Rebuild(ctx context.Context) error {
	before := v.Generation()
	v.askRebuild(rebuild{generation: before})
	for {
		v.mu.RLock()
		done, changed, closed, failed := v.generation != before && v.d != nil, v.changed, v.closed, v.failed
		v.mu.RUnlock()
		switch {
		case closed:
			return replication.ErrClosed
		case failed != nil:
			return failed
		case done:
			for _, id := range v.spaceIDs() {
				if _, err := v.await(ctx, id); err != nil {
					return err
				}
			}
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// rebuildIfAsked replaces the database by a new generation.
func (v *View) rebuildIfAsked(ctx context.Context) {
	v.mu.Lock()
	asked := v.asked
	if asked == nil && v.d != nil || ctx.Err() != nil {
		v.mu.Unlock()
		return
	}
	old := v.d
	if asked != nil {
		if asked.why != nil && !asked.reported {
			v.damage = append(v.damage, asked.why)
		}
		v.generation++
		const what = "the key-value view is rebuilt from the logs"
		if asked.why == nil {
			v.log.Info(what, "generation", v.generation)
		} else {
			v.log.Warn(what, "reason", asked.why, "generation", v.generation)
		}
	}
	generation := v.generation
	v.d, v.asked = nil, nil
	for _, sp := range v.order {
		if sp.a != nil {
			sp.a.close()
			sp.a = nil
		}
		sp.applied, sp.appliedOps, sp.upTo, sp.dirty, sp.tally = 0, 0, 0, true, tally{}
		if !errors.Is(sp.err, replication.ErrUpgradeNeeded) {
			sp.err = nil
		}
	}
	v.tellLocked()
	v.mu.Unlock()
	if old != nil {
		old.retire()
		v.background.Go(func() { v.remove(old) })
	}
	d, err := v.create(generation)
	head := v.store.Head()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.d, v.failed, v.checked = d, err, true
	v.target = head
	if err != nil {
		v.log.Error("the key-value view cannot be rebuilt", "error", err)
	}
	v.tellLocked()
}

// remove closes a database that is no longer used, after its last reader, and
// deletes its files.
func (v *View) remove(d *database) {
	if err := d.close(); err != nil {
		v.log.Warn("close the replaced key-value view", "error", err)
	}
	if err := os.RemoveAll(d.dir); err != nil {
		v.log.Warn("remove the replaced key-value view", "error", err)
	}
}

// checkOpened checks every record of a database that a killed process left.
func (v *View) checkOpened(ctx context.Context, p plan) {
	err := v.checkAll(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		err = v.save(p.generation, phaseRunning, nil)
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

func (v *View) checkAll(ctx context.Context) (err error) {
	defer faultsPanic()()
	defer guard(&err, v.d.dir)
	txn := v.d.latest()
	defer txn.Discard()
	return scanAll(ctx, txn, v.rank)
}

// touched is the logs that what is staged advances, with their applied seq.
func (a *applier) touched() map[replication.LogID]uint64 {
	out := map[replication.LogID]uint64{}
	for id, l := range a.logs {
		if l.dirty {
			out[id] = l.seq
		}
	}
	return out
}
