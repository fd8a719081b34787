package kv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"vixp2p/replication"
)

// A rebuild mends what is wrong with the view's files. Nothing else: what comes
// back in the files of a new generation is somebody else's fault, and rebuilds
// for it would never end. Two rules bound them. A fault of one space that comes
// back at the same place stops that space alone, with a StuckError; and rebuilds
// for damage that follow each other wait, longer each time.

const (
	// rebuildMax is the longest pause before a rebuild; rebuildCalm is how long
	// there must have been none for the next to come at once.
	rebuildMax  = 10 * time.Minute
	rebuildCalm = 10 * time.Minute
	// maxDamage bounds the damage that is remembered for Verify.
	maxDamage = 64
)

// StuckError: the blocks of a space cannot be applied, and not because of the
// view's files: a view built anew failed at the same place. It matches
// replication.ErrDamaged. Reads, writes and Stats of the space tell it; other
// spaces go on. The view tries again once a minute.
type StuckError struct {
	Space   replication.SpaceID
	Log     replication.LogID // zero where no single log is concerned
	Seq     uint64            // first seq of the block
	Arrival uint64            // number of the last block that could be applied
	Problem string
}

func (e *StuckError) Error() string {
	at := ""
	if e.Log != (replication.LogID{}) {
		at = fmt.Sprintf(", log %s at seq %d", e.Log.Short(), e.Seq)
	}
	return fmt.Sprintf("the key-value view of space %s cannot go on after block %d of the store%s: %s; a view that was built anew failed there too, so the fault is in the store of the logs: stop the node and run verify on its data directory", e.Space, e.Arrival, at, e.Problem)
}
func (e *StuckError) Is(t error) bool { return t == replication.ErrDamaged }

// fault is where applying a space failed on what looked like damage of the
// view's files.
type fault struct {
	after   uint64 // arrival number of the last block before
	log     replication.LogID
	seq     uint64
	problem string
}

// faultAt is a fault with the generation in which it showed first.
type faultAt struct {
	fault
	generation uint64
}

// blameLocked decides what is to blame for an error of applying that looks like
// damage of the view: the view's files, and then it returns the error, or, if
// those were made anew since it came first, the store.
func (v *View) blameLocked(sp *spaceState, err error) error {
	f := fault{problem: err.Error()}
	if sp.a != nil {
		f.after = sp.a.cur.arrival
	}
	var e *replication.DamageError
	if errors.As(err, &e) {
		f.log, f.seq, f.problem = e.Log, e.Seq, e.Problem
	}
	if sp.fault == nil || sp.fault.fault != f {
		sp.fault = &faultAt{f, v.generation}
	}
	if sp.fault.generation == v.generation {
		return err
	}
	return &StuckError{Space: sp.id, Log: f.log, Seq: f.seq, Arrival: f.after, Problem: f.problem}
}

// isOwnDamage tells what looks like damage of the view, which a rebuild repairs,
// from damage that the store tells of.
func (v *View) isOwnDamage(err error) bool {
	var e *replication.DamageError
	return errors.Is(err, errRecord) || errors.As(err, &e) && v.d != nil && e.File == v.d.dir
}

// rebuildPause counts rebuilds for damage that follow each other.
type rebuildPause struct {
	pause time.Duration
	until time.Time // when the last one was to begin
}

// next is how long a rebuild that is wanted now must wait.
func (p *rebuildPause) next(now time.Time, first time.Duration) time.Duration {
	switch {
	case p.until.IsZero() || now.Sub(p.until) >= rebuildCalm:
		p.pause = 0
	case p.pause == 0:
		p.pause = first
	default:
		p.pause = min(2*p.pause, rebuildMax)
	}
	p.until = now.Add(p.pause)
	return p.pause
}

// planLocked decides when a rebuild begins: at once if a caller wants it, else
// after a pause if there was one for damage not long ago. Reads get an error
// meanwhile.
func (v *View) planLocked(r *rebuild) (pause time.Duration) {
	v.failed, v.notBefore = nil, time.Time{}
	const what = "the key-value view is rebuilt from the logs"
	if r.why == nil {
		v.log.Info(what, "generation", v.generation)
		return 0
	}
	pause = v.pauses.next(time.Now(), v.opt.retryMin)
	v.log.Warn(what, "reason", r.why, "generation", v.generation, "pause", pause)
	if pause > 0 {
		v.notBefore = v.pauses.until
		v.failed = fmt.Errorf("the key-value view was damaged again and is rebuilt at %s: check the disk: %w",
			v.notBefore.UTC().Format(time.RFC3339), r.why)
	}
	return pause
}

// noteDamageLocked remembers damage for Verify, the first maxDamage of it.
func (v *View) noteDamageLocked(err error) {
	for _, known := range v.damage {
		if known.Error() == err.Error() {
			return
		}
	}
	if len(v.damage) < maxDamage {
		v.damage = append(v.damage, err)
	}
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
		begun, changed, failed := v.generation != before, v.changed, v.failed
		done := begun && v.d != nil
		v.mu.RUnlock()
		switch {
		case begun && failed != nil:
			return failed
		case done:
			for _, id := range v.spaceIDs() {
				if _, err := v.await(ctx, id); err != nil && !waits(err) {
					return err
				}
			}
			return nil
		}
		select {
		case <-changed:
		case <-v.closing:
			return replication.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// rebuildIfAsked replaces the database by a new generation. The old one is no
// longer served from here on; the new one may have to wait (planLocked).
func (v *View) rebuildIfAsked(ctx context.Context) {
	v.mu.Lock()
	asked := v.asked
	if asked == nil && (v.d != nil || time.Now().Before(v.notBefore)) || ctx.Err() != nil {
		v.mu.Unlock()
		return
	}
	old, pause := v.d, time.Duration(0)
	if asked != nil {
		if asked.why != nil && !asked.reported {
			v.noteDamageLocked(asked.why)
		}
		v.generation++
		pause = v.planLocked(asked)
	}
	generation := v.generation
	v.d, v.asked = nil, nil
	for _, sp := range v.order {
		if sp.a != nil {
			sp.a.close()
			sp.a = nil
		}
		sp.applied, sp.appliedOps, sp.upTo, sp.dirty, sp.tally = 0, 0, 0, true, tally{}
		sp.back.bounds = nil
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
	if pause > 0 {
		return // the run loop comes back
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
