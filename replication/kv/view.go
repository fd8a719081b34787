package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"vixp2p/replication"
)

// ErrNotReady: the view is being opened or rebuilt; wait for it (Admit, or any
// read) and try again.
var ErrNotReady = errors.New("the key-value view is catching up: try again")

// View is the key-value view of one data directory, over all its spaces. All
// methods are safe for concurrent use.
type View struct {
	opt     Options
	store   replication.Store
	log     *slog.Logger
	home    home
	rank    ranker
	overlay *overlay

	unsubscribe func()
	stop        context.CancelFunc
	wake        chan struct{}  // buffered by one: there is something to do
	background  sync.WaitGroup // the apply goroutine and those that close old databases

	// mu guards what follows. It is held for moments only; the committer takes it
	// in Subscribe's call and in Resolve.
	mu sync.RWMutex
	// d is the database in use; nil while there is none. Only the apply goroutine
	// changes it.
	d *database
	// checked tells that d is fit to serve.
	checked bool
	// failed says why d is nil for longer than a rebuild takes.
	failed error
	// generation counts the rebuilds of this directory; cursors carry it.
	generation uint64
	// target is the store's head when d was opened: reads of a space wait until
	// its upTo is as far.
	target uint64
	spaces map[replication.SpaceID]*spaceState
	order  []*spaceState // the same, for taking turns
	opened bool
	// asked says that d is to be replaced, and why.
	asked *rebuild
	// pauses spaces out rebuilds for damage; a new database is not made before
	// notBefore.
	pauses    rebuildPause
	notBefore time.Time
	// damage is what was found in the view's files and not reported by Verify yet.
	// invariant: at most maxDamage.
	damage []error
	// changed is closed and replaced whenever any of this has changed.
	changed chan struct{}
	// hurry counts the calls that wait for the apply goroutine.
	hurry  int
	closed bool
	// closing is closed by Close: who waits for anything else ends then.
	closing chan struct{}
	ops     uint64 // operations applied since Open
}

// spaceState is how far one space is. View.mu guards it, but a and ahead belong
// to the apply goroutine.
type spaceState struct {
	id    replication.SpaceID
	a     *applier
	ahead chan *batch // the next blocks, being read; nil if they are not
	// applied is the arrival number of the newest block that reads see, and
	// appliedOps its number of operations.
	applied, appliedOps uint64
	// upTo: every block of the space with an arrival number up to this is
	// applied. invariant: upTo >= applied.
	upTo  uint64
	head  uint64 // arrival number of the newest block that the committer told of
	dirty bool   // there may be more to apply
	// err says why it does not go on, until it does.
	err   error
	asked bool // keys or logs have changed, and what err says may be over
	tally tally
	retry backoff
	// rest: no further step before, unless somebody waits for it.
	rest time.Time
	// fault is where it failed on what looked like damage of the view; nil once it
	// got past.
	fault *faultAt
	back  retreats
	// doubt: a block did not follow, and what is applied was compared with the
	// store because of that.
	doubt bool
}

// Open opens the view and starts to apply what the store has. It returns once
// the files are open; reads wait until the view has caught up with the store.
//
// Files that cannot be used are replaced by a new generation: those of another
// instance, those that a machine left that stopped, and damaged ones, which
// Verify then reports. Errors: replication.ErrLocked, or the directory cannot be
// written.
func Open(o Options) (*View, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	v := &View{
		opt: o, store: o.Store, log: o.Logger, home: home{o.Dir}, rank: ranker{o.Store.Log},
		overlay: newOverlay(o.OverlayBytes),
		wake:    make(chan struct{}, 1), changed: make(chan struct{}), closing: make(chan struct{}),
		spaces: map[replication.SpaceID]*spaceState{},
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the directory of the key-value view: %w", err)
	}
	p := v.home.decide(o.Store.Info().Instance, o.BootID, o.checkFirst)
	if v.d, err = v.openPlan(p); err != nil {
		return nil, err
	}
	v.generation = v.d.generation
	if err := v.addApplied(); err != nil {
		return nil, errors.Join(err, v.d.close())
	}
	v.addSpaces()
	v.unsubscribe = o.Store.Subscribe(v.advanced)
	v.addSpaces() // those that came in between
	head := o.Store.Head()
	v.mu.Lock()
	v.target, v.opened, v.checked = head, true, !p.check
	v.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	v.stop = stop
	if opened := v.d; opened.generation == p.generation {
		v.background.Go(func() { v.compareOpen(ctx, opened, p.unchecked) })
	}
	v.background.Go(func() { v.run(ctx, p) })
	return v, nil
}

// openPlan opens what decide chose, or a new generation where that fails.
func (v *View) openPlan(p plan) (*database, error) {
	if p.damage != nil {
		v.noteDamageLocked(p.damage)
	}
	if p.rebuild == "" {
		if p.check {
			if err := v.save(p.generation, phaseChecking, nil); err != nil {
				return nil, err
			}
		}
		d, err := openDatabase(v.home.generationDir(p.generation), p.generation, v.opt)
		if err == nil {
			d.opened(p)
			err = v.aheadOfStore(d)
			if err == nil && !p.check {
				err = v.save(p.generation, phaseRunning, nil)
			}
			if err == nil {
				v.sweep(p.generation)
				return d, nil
			}
			err = errors.Join(err, d.close())
		}
		if errors.Is(err, replication.ErrLocked) {
			if p.check { // it is running, elsewhere
				err = errors.Join(err, v.save(p.generation, phaseRunning, nil))
			}
			return nil, err
		}
		if p.fresh {
			return nil, err
		}
		v.noteDamageLocked(err)
		p.rebuild = err.Error()
		p.generation++
	}
	about := []any{"reason", p.rebuild, "generation", p.generation}
	if p.damage != nil {
		about = append(about, "damage", p.damage)
	}
	v.log.Warn("the key-value view is rebuilt from the logs", about...)
	d, err := v.create(p.generation)
	if err == nil {
		v.sweep(p.generation)
	}
	return d, err
}

// sweep removes what is left over of other generations; what cannot be removed
// now is at the next Open.
func (v *View) sweep(keep uint64) {
	if err := v.home.sweep(keep); err != nil {
		v.log.Warn("remove old files of the key-value view", "error", err)
	}
}

// create starts an empty generation.
func (v *View) create(generation uint64) (*database, error) {
	dir := v.home.generationDir(generation)
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("start the key-value view anew: %w", err)
	}
	if err := v.save(generation, phaseRunning, nil); err != nil {
		return nil, err
	}
	return openDatabase(dir, generation, v.opt)
}

func (v *View) save(generation uint64, p phase, files []fileSum) error {
	return v.home.save(homeState{
		Format: stateFormat, Instance: v.store.Info().Instance.String(),
		Generation: generation, Boot: v.opt.BootID, Phase: p, Files: files,
	})
}

// addSpaces learns of the spaces that the store has.
func (v *View) addSpaces() {
	list := v.store.Spaces()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range list {
		v.spaceLocked(id).dirty = true
	}
}

// addApplied learns of the spaces that the database has. Logs may have gone back
// while it was closed.
func (v *View) addApplied() (err error) {
	defer guard(&err, v.d.dir)
	txn := v.d.latest()
	defer txn.Discard()
	v.mu.Lock()
	defer v.mu.Unlock()
	return scan(txn, []byte{prefixCursor}, nil, func(key, _ []byte) error {
		sp := v.spaceLocked(replication.SpaceID(key[1:]))
		sp.dirty = true
		sp.back.told.Add(1)
		return nil
	})
}

func (v *View) spaceLocked(id replication.SpaceID) *spaceState {
	sp := v.spaces[id]
	if sp == nil {
		sp = &spaceState{id: id}
		if v.opened {
			sp.upTo = v.target // its first block came after that
		}
		v.spaces[id] = sp
		v.order = append(v.order, sp)
	}
	return sp
}

// retreatLocked has a space compared with the store, a log of which does not
// count beyond a seq; reads wait for that.
func (v *View) retreatLocked(sp *spaceState, log replication.LogID, seq uint64) {
	sp.back.tell(log, seq)
	sp.dirty, sp.rest = true, time.Time{}
	sp.retry = backoff{} // it may have been because of what is gone
	if sp.asked = waits(sp.err); !sp.asked {
		sp.err = nil
	}
}

// advanced is called by the committer for each advance and retreat of a log.
func (v *View) advanced(a replication.Advance) {
	v.mu.Lock()
	sp := v.spaceLocked(a.Space)
	known := sp.dirty && !a.Retreat // then the apply goroutine looks there anyway
	sp.dirty = true
	sp.head = max(sp.head, a.Arrival)
	if a.Retreat {
		v.overlay.discard(a.Log, a.Tip.Seq+1)
		v.retreatLocked(sp, a.Log, a.Tip.Seq)
	}
	v.mu.Unlock()
	if !known {
		v.poke()
	}
}

func (v *View) poke() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// tellLocked wakes whoever waits for a change.
func (v *View) tellLocked() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// hurried waits for a change that the apply goroutine makes, without letting it
// rest meanwhile.
func (v *View) hurried(ctx context.Context, change <-chan struct{}) error {
	v.mu.Lock()
	v.hurry++
	v.mu.Unlock()
	v.poke()
	defer func() {
		v.mu.Lock()
		v.hurry--
		v.mu.Unlock()
	}()
	select {
	case <-change:
		return nil
	case <-v.closing:
		return replication.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Admit waits until the view can resolve writes of a space and has room for
// more. Call it before an Append of keyed operations: Resolve, which runs in the
// committer, does not wait.
func (v *View) Admit(ctx context.Context, space replication.SpaceID) error {
	if _, err := v.await(ctx, space); err != nil {
		return err
	}
	return v.overlay.admit(ctx, v.hurried)
}

// Applied is the arrival number of the newest block of a space that reads see.
func (v *View) Applied(space replication.SpaceID) uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if sp := v.spaces[space]; sp != nil {
		return sp.applied
	}
	return 0
}

// WaitApplied waits until every block of the space up to an arrival number is
// applied. Arrival numbers count over all spaces, so the number need not be that
// of a block of this space: the store's Head asks for all that is held now. A
// number that is not given yet is waited for. It returns early if the view of the
// space has stopped: replication.ErrUpgradeNeeded, ErrNotReader or a *StuckError; a
// content key that is missing is waited for.
//
// It also waits until the view has taken back what a cut took: every retreat that
// the store told of before the call, and so every one of a Restrict that has
// returned.
func (v *View) WaitApplied(ctx context.Context, space replication.SpaceID, arrival uint64) error {
	for {
		head := v.store.Head()
		v.mu.Lock()
		changed, closed, known := v.changed, v.closed, v.spaces[space] != nil
		reached, err := v.reachedLocked(space, arrival, head)
		v.mu.Unlock()
		if !known && !closed && arrival <= head {
			// Either nothing was ever written there, or the committer is about to tell.
			var first []replication.Arrival
			if first, err = v.store.ReadArrivals(space, 0, 1); err != nil {
				return err
			}
			reached = len(first) == 0 || first[0].Number > arrival
		}
		var stuck *StuckError
		switch {
		case reached:
			return nil
		case closed:
			return replication.ErrClosed
		case errors.Is(err, replication.ErrUpgradeNeeded), errors.Is(err, replication.ErrNotReader), errors.As(err, &stuck):
			return err
		}
		if ended := v.hurried(ctx, changed); ended != nil {
			return errors.Join(ended, err)
		}
	}
}

// reachedLocked tells whether a space is applied up to an arrival number, and
// what stops it. A space without newer blocks learns how far it is only when it
// looks for some: if the number is given already, it is made to.
func (v *View) reachedLocked(space replication.SpaceID, arrival, head uint64) (bool, error) {
	sp := v.spaces[space]
	if sp == nil {
		return false, nil
	}
	if sp.upTo < arrival && arrival <= head && sp.err == nil && !sp.dirty {
		sp.dirty = true
		v.poke()
	}
	reached := sp.upTo >= arrival && !sp.back.pending()
	if sp.hopes() {
		return reached, nil
	}
	return reached, sp.err
}

// Stats is how one space of the view is doing.
type Stats struct {
	Keys      uint64
	Siblings  uint64
	Conflicts uint64 // keys with more than one sibling
	// Applied is the arrival number of the newest block that reads see, Behind by
	// how much the newest block's number is higher; 0 if all is applied.
	Applied, Behind uint64
	// Ops is how many operations were applied since Open, rebuilds included, in
	// all spaces.
	Ops        uint64
	Generation uint64
	// Err says why the space does not go on; nil while it does.
	Err error
}

// Stats tells how a space is doing. It never waits; the counts are those of what
// is applied so far.
func (v *View) Stats(space replication.SpaceID) Stats {
	head := v.store.Head()
	v.mu.RLock()
	defer v.mu.RUnlock()
	st := Stats{Ops: v.ops, Generation: v.generation, Err: v.failed}
	if sp := v.spaces[space]; sp != nil {
		st.Keys, st.Siblings, st.Conflicts = sp.tally.keys, sp.tally.siblings, sp.tally.conflicts
		st.Applied = sp.applied
		if sp.dirty || sp.upTo < v.target || sp.err != nil {
			st.Behind = max(sp.head, head) - sp.applied
		}
		if sp.err != nil {
			st.Err = sp.err
		}
	}
	return st
}

// Generation is the view's generation, which cursors of Watch carry.
func (v *View) Generation() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.generation
}

// Close stops applying, waits for reads that are under way and closes the files.
// A list that is under way ends with its page. What is not applied yet is applied
// after the next Open.
func (v *View) Close() error {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return replication.ErrClosed
	}
	v.closed = true
	close(v.closing)
	v.mu.Unlock()
	v.unsubscribe()
	v.stop()
	v.background.Wait()
	if v.d == nil || !v.checked {
		if v.d != nil {
			return v.d.close()
		}
		return nil
	}
	if err := v.d.close(); err != nil {
		return fmt.Errorf("close the key-value view: %w", err)
	}
	files, err := sumFiles(v.d.dir, v.d.known())
	if err != nil {
		return fmt.Errorf("close the key-value view: %w", err)
	}
	if !v.d.proven(files) {
		return nil // the next Open checks every record
	}
	return v.save(v.generation, phaseClosed, files)
}
