package kv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"vixp2p/replication"
)

// VerifyOptions says how far Verify goes.
type VerifyOptions struct {
	// Deep also computes the state again from the logs, in a directory beside
	// the view's, and compares. It takes as long as a rebuild.
	Deep bool
}

// Verify checks the view and calls fn for each finding: damage that was found
// since Open and repaired by a rebuild; files that changed under the view; every
// record, and that all add up to the stored digest; and that what is applied is
// what the store holds. Damage that it finds itself starts a rebuild. It reads
// snapshots and may run beside everything else. The error tells that it could
// not finish.
func (v *View) Verify(ctx context.Context, o VerifyOptions, fn func(replication.Finding)) error {
	v.mu.Lock()
	earlier := v.damage
	v.damage = nil
	v.mu.Unlock()
	for _, err := range earlier {
		f := v.finding(err)
		f.Problem += "; the view was rebuilt"
		fn(f)
	}
	told := map[replication.SpaceID]bool{}
	for {
		var d *database
		before := v.retreats()
		for _, id := range append(v.spaceIDs(), replication.SpaceID{}) {
			var stuck *StuckError
			s, err := v.await(ctx, id)
			if d = s.database; err != nil && !errors.Is(err, replication.ErrUpgradeNeeded) && !waits(err) && !errors.As(err, &stuck) {
				return err
			}
			if stuck != nil && !told[id] {
				told[id] = true
				fn(replication.Finding{Log: stuck.Log, Seq: stuck.Seq, Problem: stuck.Error()})
			}
		}
		if d == nil {
			continue
		}
		snap, ok := d.snapshot()
		if !ok {
			continue
		}
		err := v.verify(ctx, snap, o)
		if !errors.Is(err, replication.ErrDamaged) {
			return err
		}
		if v.retreats() != before {
			continue // what is applied and what the store holds changed on the way
		}
		fn(v.finding(err))
		v.askRebuild(rebuild{generation: d.generation, why: err, reported: true})
		return nil
	}
}

// retreats counts what was told of retreats in all spaces.
func (v *View) retreats() (n uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, sp := range v.order {
		n += sp.back.told.Load()
	}
	return n
}

func (v *View) spaceIDs() []replication.SpaceID {
	v.mu.RLock()
	defer v.mu.RUnlock()
	ids := make([]replication.SpaceID, 0, len(v.order))
	for _, sp := range v.order {
		ids = append(ids, sp.id)
	}
	return ids
}

func (v *View) finding(err error) replication.Finding {
	var e *replication.DamageError
	if errors.As(err, &e) {
		return replication.Finding{Log: e.Log, Seq: e.Seq, File: e.File, Problem: e.Problem}
	}
	return replication.Finding{File: v.opt.Dir, Problem: err.Error()}
}

// verify returns the first damage that it finds. It closes the snapshot.
func (v *View) verify(ctx context.Context, snap snapshot, o VerifyOptions) (err error) {
	defer snap.close()
	defer faultsPanic()()
	defer guard(&err, snap.d.dir)
	if err := v.verifyFiles(ctx, snap.d); err != nil {
		return err
	}
	if err := scanAll(ctx, snap.Txn, v.rank); err != nil {
		return err
	}
	return scan(snap.Txn, []byte{prefixCursor}, nil, func(key, record []byte) error {
		c, err := decodeCursor(record)
		if err != nil {
			return err
		}
		r := reader{v: v, snap: snap, space: replication.SpaceID(key[1:])}
		if err := r.againstStore(); err != nil {
			return err
		}
		if !o.Deep {
			return nil
		}
		return r.againstLogs(ctx, c)
	})
}

// verifyFiles compares the tables that are still there with what they were when
// the view was opened.
func (v *View) verifyFiles(ctx context.Context, d *database) error {
	for name, want := range d.known() {
		if !isTable(name) {
			continue
		}
		now, err := compareFile(ctx, d.dir, want)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			d.compared(now)
		case d.uses(name): // not merged into others
			return &replication.DamageError{File: filepath.Join(d.dir, name), Problem: "the table is not what it was when the view was opened"}
		}
	}
	return nil
}

// againstStore checks that what is applied of each log is what the store holds.
// Where a cut is why it is not, and the view did not hear of that, it has the view
// take it up.
func (r *reader) againstStore() error {
	prefix := spacePrefix(prefixApplied, r.space, 0)
	return scan(r.snap.Txn, prefix, nil, func(key, record []byte) error {
		l, err := decodeLogRecord(record)
		if err != nil || l.seq == 0 {
			return err
		}
		id := replication.LogID(key[len(prefix):])
		info, ok := r.v.store.Log(id)
		if !ok || info.Tip.Seq < l.seq || info.Tip.Seq == l.seq && info.Tip.Hash != l.hash {
			if info.Limit != nil || info.SetAside > 0 {
				r.v.mu.Lock()
				r.v.retreatLocked(r.v.spaceLocked(r.space), id, min(info.Tip.Seq, l.seq-1))
				r.v.mu.Unlock()
				r.v.poke()
			}
			return &replication.DamageError{Log: id, Seq: l.seq, File: r.snap.d.dir, Problem: "the view has applied something else than the store holds"}
		}
		return nil
	})
}

// againstLogs computes the space's state again, up to where the snapshot is.
func (r *reader) againstLogs(ctx context.Context, want cursor) (err error) {
	dir, err := os.MkdirTemp(r.v.opt.Dir, scratchPrefix)
	if err != nil {
		return err
	}
	d, err := openDatabase(dir, 0, r.v.opt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close(), os.RemoveAll(dir)) }()
	a, err := newApplier(d, r.space, r.v.rank)
	if err != nil {
		return err
	}
	defer func() { // before the database is closed
		err = errors.Join(err, a.land())
		a.close()
	}()
	a.room = r.v.room
	if same, err := r.ruleIsSame(); err != nil || !same {
		return err // the logs cannot be read now, or the view is to be rebuilt anyway
	}
	for a.saved.arrival < want.arrival {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := readBatch(r.v.store, r.v.opt.Opener, r.space, a.saved.arrival)
		for len(b.blocks) > 0 && b.blocks[len(b.blocks)-1].number > want.arrival {
			b.blocks = b.blocks[:len(b.blocks)-1]
		}
		if len(b.blocks) == 0 && b.err != nil {
			return b.err
		}
		if len(b.blocks) == 0 {
			break // the newest ones went back
		}
		if err := a.follow(b); err != nil {
			return err
		}
		if err := a.blocks(b.blocks, a.commit); err != nil {
			return err
		}
	}
	if a.saved.tally != want.tally {
		if err := r.againstStore(); err != nil {
			return err
		}
		return fmt.Errorf("%w: space %s has %d siblings with another digest than the %d that follow from the logs",
			errRecord, r.space, want.siblings, a.saved.siblings)
	}
	return nil
}
