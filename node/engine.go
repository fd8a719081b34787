package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/kv"
	"vixp2p/replication/replicator"
	"vixp2p/replication/wal"
)

// engine is the store, the view and the replicator of a data directory: what is
// closed and opened again as a whole when damage was found while it ran.
type engine struct {
	store      *wal.Store
	view       *kv.View
	opener     replication.Opener // of encrypted spaces; nil: there are none
	replicator *replicator.Replicator
	budget     *replicator.Budget
	ops        atomic.Uint64 // held durably, over all spaces
	uncount    func()        // ends the counting of ops
	unfollow   func()        // ends the following of control logs
	retired    chan struct{} // closed before the engine is closed
}

// byeTime is for saying goodbye to peers; beyond it connections are cut.
const byeTime = 3 * time.Second

// openEngine opens the parts, each on the one before.
func (n *Node) openEngine(key ed25519.PrivateKey) (*engine, error) {
	e := &engine{unfollow: func() {}, retired: make(chan struct{}), budget: replicator.NewBudget(int(n.cfg.BudgetBytes))}
	var err error
	opt := wal.Options{
		Dir: filepath.Join(n.cfg.DataDir, logDir), Network: n.network, Key: key,
		Relaxed: n.cfg.Durability == Relaxed, Compress: true, Logger: n.log, Now: n.cfg.Now,
		ReserveBytes: n.cfg.ReserveBytes, FreeBytes: n.cfg.freeBytes, OnDamage: func(d *replication.DamageError) { n.damaged(d) },
	}
	if n.members != nil {
		opt.Grant, opt.Sealer, e.opener = n.members.grant, n.members.ring, n.members.ring
	}
	if e.store, err = wal.Open(opt); err != nil {
		return nil, err
	}
	if n.members != nil {
		err = n.members.follow(n.ctx, e)
	}
	if err == nil {
		err = e.openRest(n)
	}
	if err != nil {
		e.unfollow()
		return nil, errors.Join(err, e.store.Close())
	}
	return e, nil
}

// viewCache is how many bytes of records the view keeps in memory: less than the view
// does by itself, so that a node under attack stays within its memory (test/hostile).
const viewCache = 8 << 20

func (e *engine) openRest(n *Node) (err error) {
	if err := n.names.load(e.store); err != nil {
		return err
	}
	if n.members != nil {
		n.learnDeclared() // the store does not list a space of which it holds nothing
	}
	e.view, err = kv.Open(kv.Options{Dir: filepath.Join(n.cfg.DataDir, viewDir), Store: e.store, Opener: e.opener, Logger: n.log,
		BootID: wal.BootID(), ReserveBytes: n.cfg.ReserveBytes, FreeBytes: n.cfg.freeBytes, CacheBytes: viewCache,
	})
	if err != nil {
		return err
	}
	e.countOps()
	if n.cfg.Offline {
		return nil
	}
	opt := replicator.Options{
		Store: e.store, Logger: n.log, Spaces: n.carried(), Control: n.controlSpace(), Budget: e.budget,
		OnSpace: n.takeSpace, Observe: n.mesh.observe, MaxSpaces: MaxSpaces,
		Up: n.up, Down: n.down, PingEvery: n.cfg.PingEvery, StaleAfter: n.cfg.StaleAfter,
		CloseAfter: closeAfter * n.cfg.StaleAfter, Rand: randInt64,
	}
	if m := n.members; m != nil {
		opt.ApplyTrust = m.applyTrust
		opt.Carries = func(key replication.OriginKey, space replication.SpaceID) bool { return m.carries(key, nil)(space) }
	}
	if e.replicator, err = replicator.New(opt); err != nil {
		e.uncount()
		return errors.Join(err, e.view.Close())
	}
	return nil
}

// countOps keeps ops from now on; nothing writes yet.
func (e *engine) countOps() {
	for _, id := range e.store.Spaces() {
		for _, l := range e.store.Logs(id) {
			e.ops.Add(heldOps(l))
		}
	}
	// A retreat takes away: the sum wraps as it should.
	e.uncount = e.store.Subscribe(func(a replication.Advance) { e.ops.Add(a.Tip.Seq - a.Prev.Seq) })
}

// frontier is what is held of a space.
func (e *engine) frontier(id replication.SpaceID) *replication.Frontier {
	if e.replicator != nil {
		return e.replicator.Frontier(id)
	}
	logs := e.store.Logs(id)
	entries := make([]replication.FrontierEntry, len(logs))
	for i := range logs {
		entries[i] = logs[i].Entry()
	}
	return replication.NewFrontier(entries)
}

// closeAfter is after how many times StaleAfter of silence a session ends.
const closeAfter = 3

// close ends the parts, the last opened first.
func (e *engine) close() error {
	close(e.retired)
	var errs []error
	if e.replicator != nil {
		ctx, cancel := context.WithTimeout(context.Background(), byeTime)
		errs = append(errs, e.replicator.Close(ctx))
		cancel()
	}
	e.uncount()
	e.unfollow()
	return errors.Join(append(errs, e.view.Close(), e.store.Close())...)
}

// caughtUp returns when the view has applied what the store holds of a space at
// the moment of the call.
func (e *engine) caughtUp(ctx context.Context, space replication.SpaceID) error {
	return e.view.WaitApplied(ctx, space, e.store.Head())
}

// allCaughtUp is caughtUp for every space that this node may read.
func (e *engine) allCaughtUp(ctx context.Context) error {
	for _, id := range e.store.Spaces() {
		if err := e.caughtUp(ctx, id); err != nil && !errors.Is(err, replication.ErrNotReader) {
			return err
		}
	}
	return nil
}

// openFor tells how the bodies of a space are opened; nil where it is not encrypted.
func (e *engine) openFor(space replication.SpaceID) (replication.Open, error) {
	if e.opener == nil {
		return nil, nil
	}
	return e.opener.OpenFor(space)
}

func (e *engine) isRetired() bool {
	select {
	case <-e.retired:
		return true
	default:
		return false
	}
}

// engines hands out the engine in use and replaces it when it is damaged.
type engines struct {
	mu      sync.Mutex    // guards below; not held while an engine opens or closes
	current *engine       // the newest; retired while it is replaced
	ready   chan struct{} // closed when current is usable or the node is closed
	closed  bool
	failure error // why the last replacement failed; nil while there is an engine
}

// start sets the first engine.
func (s *engines) start(e *engine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.ready = e, make(chan struct{})
	close(s.ready)
}

// get returns the newest engine, retired or not.
func (s *engines) get() *engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// close ends the engine. No replacement may be under way.
func (s *engines) close() error {
	s.mu.Lock()
	e := s.current
	s.closed = true
	s.mu.Unlock()
	if e == nil || e.isRetired() {
		return nil
	}
	return e.close()
}

// repairPatience is how long a call waits for a repair that is under way.
const repairPatience = 30 * time.Second

// acquire returns the engine in use. While it is being replaced it waits.
func (s *engines) acquire(ctx context.Context) (*engine, error) {
	s.mu.Lock()
	e, ready := s.current, s.ready
	s.mu.Unlock()
	if e == nil {
		return nil, errNodeClosed
	}
	if !e.isRetired() {
		return e, nil
	}
	timer := time.NewTimer(repairPatience)
	defer timer.Stop()
	select {
	case <-ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
		return nil, errRepairing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, errNodeClosed
	case s.failure != nil:
		return nil, s.failure
	}
	return s.current, nil
}

var errRepairing = fmt.Errorf("the node repairs damaged data at this moment: try again: %w", replication.ErrDamaged)

// do runs fn on the engine in use, and again on its successor if fn failed only
// because the engine was replaced.
func (n *Node) do(ctx context.Context, fn func(e *engine) error) error {
	for tries := 0; ; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		e, err := n.engines.acquire(ctx)
		if err != nil {
			return err
		}
		err = fn(e)
		var cut *cutShortError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &cut):
			return err
		case errors.Is(err, replication.ErrClosed) && n.isClosed():
			return errNodeClosed
		case errors.Is(err, replication.ErrClosed) && e.isRetired():
			continue
		}
		var damage *replication.DamageError
		switch {
		case !errors.As(err, &damage):
		case !n.inView(damage):
			n.damaged(damage)
		case tries < viewTries:
			tries++ // the view rebuilds itself, and the next read waits for that
			continue
		}
		return err
	}
}

// viewTries is how often a call is repeated on a rebuilt view.
const viewTries = 2

// inView tells damage of the view, which it repairs itself, from the store's.
func (n *Node) inView(d *replication.DamageError) bool {
	dir := filepath.Join(n.cfg.DataDir, viewDir)
	return d.File == dir || strings.HasPrefix(d.File, dir+string(filepath.Separator))
}

// cutShortError ends an iteration that has told something already, so that it
// cannot be repeated from the start.
type cutShortError struct{ cause error }

func (e *cutShortError) Error() string {
	return fmt.Sprintf("the listing was cut short: list again: %v", e.cause)
}
func (e *cutShortError) Unwrap() error { return e.cause }

// damaged starts a repair: store and view are opened again, which finds out what
// is damaged and sets it aside, and sessions fetch it back. It returns at once.
func (n *Node) damaged(d *replication.DamageError) {
	n.health.report(time.Now(), d)
	select {
	case n.repairs <- struct{}{}:
	default: // one is due already
	}
}

// defaultRepairPause is the least time between two repairs, so that a disk that
// damages everything does not keep the node busy with nothing else.
const defaultRepairPause = 10 * time.Second

// repairLoop replaces the engine whenever damage was found, until Close.
func (n *Node) repairLoop() {
	var last time.Time
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.repairs:
		}
		if wait := n.cfg.repairPause - time.Since(last); !last.IsZero() && wait > 0 {
			select {
			case <-n.ctx.Done():
				return
			case <-time.After(wait):
			}
		}
		if n.cfg.beforeRepair != nil {
			n.cfg.beforeRepair()
		}
		n.repair()
		last = time.Now()
	}
}

// repair closes the engine and opens it again.
func (n *Node) repair() {
	s := &n.engines
	s.mu.Lock()
	old := s.current
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.ready = make(chan struct{})
	ready := s.ready
	s.mu.Unlock()
	n.log.Warn("damage was found: the store is opened again to set it aside, and peers are asked for what is missing")
	if !old.isRetired() { // it is if the last attempt to open it failed
		if err := old.close(); err != nil {
			n.log.Warn("the damaged store did not close cleanly", "err", err)
		}
	}
	fresh, err := n.openEngine(n.key)
	s.mu.Lock()
	if s.failure = err; err == nil {
		s.current = fresh
		n.health.repaired(fresh.store.Info().Recovered)
	} else {
		s.failure = fmt.Errorf("the store could not be opened again after damage: %w: stop the node, and run verify on its directory", err)
	}
	close(ready)
	s.mu.Unlock()
	if err != nil {
		n.log.Error("the store cannot be opened again; stop this node and run verify on its directory", "err", err)
		return
	}
	if n.dialer != nil {
		n.dialer.kick()
	}
}

// health is what is wrong with the data directory, for status.
type health struct {
	mu    sync.Mutex // guards below
	open  []Damage   // found and not yet repaired
	past  string     // what the newest repair found
	count int        // repairs since the start
}

// Damage is damaged data that was found while the node ran.
type Damage struct {
	Time    time.Time
	File    string
	Log     string // hex; empty where no single log is concerned
	Seq     uint64
	Problem string
}

// maxDamage bounds what is remembered of damage.
const maxDamage = 64

func (h *health) report(now time.Time, d *replication.DamageError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.open) >= maxDamage {
		return
	}
	found := Damage{Time: now, File: d.File, Seq: d.Seq, Problem: d.Problem}
	if d.Log != (replication.LogID{}) {
		found.Log = d.Log.String()
	}
	h.open = append(h.open, found)
}

func (h *health) repaired(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open, h.past = nil, what
	h.count++
}
