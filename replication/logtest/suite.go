// Package logtest is the suite that every replication.Store passes (design 4),
// and a synthetic origin (Writer) to feed one with.
//
// A package with a Store calls Run from a test with its Factory. What only some
// stores can do (crash within a process, a full disk, damage) is an optional
// interface of their Dir; the suite logs what it leaves out.
package logtest

import (
	"context"
	"crypto/ed25519"
	"reflect"
	"sync"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/compress"
)

// Factory makes the stores under test.
type Factory struct {
	// New makes an empty directory.
	New func(t testing.TB) Dir
}

// Dir is the directory of a store under test.
type Dir interface {
	// Open opens its store; only one is open at a time.
	Open(o OpenOptions) (replication.Store, error)
	// Clone copies the directory, whose store is closed, as cp -a does.
	Clone(t testing.TB) Dir
}

// Crasher is a Dir whose open store can be killed: what was not acknowledged may
// be lost, and Open works again.
type Crasher interface{ Crash() }

// Filler is a Dir on a disk that can be full.
type Filler interface{ SetFull(full bool) }

// Damager is a Dir that can damage the stored body of the block that covers seq,
// of a log whose store is open.
type Damager interface {
	Damage(log replication.LogID, seq uint64)
}

// Loser is a Dir that can silently lose the last transaction while its store is
// closed.
type Loser interface{ LoseLast() }

// OpenOptions are what the suite says about a store.
type OpenOptions struct {
	Network replication.NetworkID
	Key     ed25519.PrivateKey
	Now     func() time.Time
	// Grant is asked when an own log begins; nil in an open network.
	Grant  func(replication.SpaceID) ([]byte, error)
	Sealer replication.Sealer
}

// deadline is how long the suite waits for what must happen.
const deadline = 30 * time.Second

// Run runs the suite over the stores of f.
func Run(t *testing.T, f Factory) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"Append", appendTests},
		{"Resolver", resolverTests},
		{"Ingest", ingestTests},
		{"Read", readTests},
		{"Fork", forkTests},
		{"Epoch", epochTests},
		{"Arrival", arrivalTests},
		{"State", stateTests},
		{"Limit", limitTests},
		{"Fault", faultTests},
		{"Sealed", sealedTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, tc := range group.tests {
				t.Run(tc.name, func(t *testing.T) { tc.run(newEnv(t, f)) })
			}
		})
	}
}

type test struct {
	name string
	run  func(*env)
}

// env is one test's store and what it was opened with.
type env struct {
	testing.TB
	factory Factory
	dir     Dir
	opts    OpenOptions
	clock   *wallClock
	store   replication.Store
	space   replication.SpaceID
	// sounding: a check is due at the end of the test.
	sounding bool
}

// wallClock is a wall clock that stands still unless it is set.
type wallClock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *wallClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *wallClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newEnv(t *testing.T, f Factory) *env {
	clock := &wallClock{now: time.UnixMilli(baseTime)}
	network := replication.OpenNetwork("logtest")
	e := &env{
		TB: t, factory: f, dir: f.New(t), clock: clock,
		opts:  OpenOptions{Network: network, Key: Key(1000), Now: clock.Now},
		space: replication.SpaceOf(network, replication.DefaultSpace),
	}
	e.open()
	t.Cleanup(func() { e.close() })
	return e
}

// on is an env of the same kind over another directory, whose store is opened.
func (e *env) on(dir Dir) *env {
	o := *e
	o.dir, o.store, o.sounding = dir, nil, false
	o.open()
	e.Cleanup(func() { o.close() })
	return &o
}

func (e *env) open() {
	e.Helper()
	s, err := e.dir.Open(e.opts)
	if err != nil {
		e.Fatalf("open: %v", err)
	}
	e.store = s
}

func (e *env) close() {
	e.Helper()
	if e.store == nil {
		return
	}
	if err := e.store.Close(); err != nil {
		e.Errorf("close: %v", err)
	}
	e.store = nil
}

func (e *env) reopen() {
	e.Helper()
	e.close()
	e.open()
}

// spaceNamed is another space of the network.
func (e *env) spaceNamed(name string) replication.SpaceID {
	return replication.SpaceOf(e.opts.Network, name)
}

// writer is a foreign origin in the default space.
func (e *env) writer(seed uint64) *Writer { return NewWriter(e.opts.Network, e.space, seed) }

func (e *env) self() replication.OriginKey {
	return replication.OriginKey(e.opts.Key.Public().(ed25519.PublicKey))
}

// append makes operations durable in the default space.
func (e *env) append(ops ...replication.Op) replication.Appended {
	e.Helper()
	return e.appendTo(e.space, ops...)
}

func (e *env) appendTo(space replication.SpaceID, ops ...replication.Op) replication.Appended {
	e.Helper()
	at, err := e.store.Append(context.Background(), replication.Batch{Space: space, Ops: ops})
	if err != nil {
		e.Fatalf("append: %v", err)
	}
	return at
}

// ingest hands a run to the store and waits for the answer.
func (e *env) ingest(run *replication.VerifiedRun) replication.IngestResult {
	e.Helper()
	return e.ingestFrom(7, run)
}

func (e *env) ingestFrom(source uint64, run *replication.VerifiedRun) replication.IngestResult {
	e.Helper()
	ch := make(chan replication.IngestResult, 2)
	e.store.Ingest(source, run, func(r replication.IngestResult) { ch <- r })
	return await(e, ch)
}

// want checks the code and the tip of an answer.
func (e *env) want(r replication.IngestResult, code replication.IngestCode, tip replication.Position) {
	e.Helper()
	if r.Code != code || r.Tip != tip {
		e.Fatalf("answer %s, tip %v (%v), want %s, tip %v", r.Code, r.Tip, r.Err, code, tip)
	}
}

// log reads a log that must be there.
func (e *env) log(id replication.LogID) replication.LogInfo {
	e.Helper()
	info, ok := e.store.Log(id)
	if !ok {
		e.Fatalf("log %s is not there", id.Short())
	}
	return info
}

// arrivals reads all arrivals of a space beyond a number, in steps of maxBytes.
func (e *env) arrivals(space replication.SpaceID, after uint64, maxBytes int) (all []replication.Arrival) {
	e.Helper()
	for {
		part, err := e.store.ReadArrivals(space, after, maxBytes)
		if err != nil {
			e.Fatalf("arrivals after %d: %v", after, err)
		}
		if len(part) == 0 {
			return all
		}
		all = append(all, part...)
		after = part[len(part)-1].Number
	}
}

// ops decodes the operations of a block.
func (e *env) ops(b *replication.Block) []replication.Op {
	e.Helper()
	ops, err := compress.Ops(b)
	if err != nil {
		e.Fatalf("block %s/%d: %v", b.Header.Log.Short(), b.Header.FirstSeq, err)
	}
	return ops
}

// blockAt finds the block that holds a dot.
func (e *env) blockAt(space replication.SpaceID, d replication.Dot) *replication.Block {
	e.Helper()
	for _, a := range e.arrivals(space, 0, 1<<20) {
		if h := a.Block.Header; h.Log == d.Log && h.FirstSeq <= d.Seq && d.Seq <= h.LastSeq() {
			return a.Block
		}
	}
	e.Fatalf("no block holds %v", d)
	return nil
}

// opAt reads one operation of the default space.
func (e *env) opAt(d replication.Dot) replication.Op {
	e.Helper()
	b := e.blockAt(e.space, d)
	return e.ops(b)[d.Seq-b.Header.FirstSeq]
}

// readRun reads one run and verifies it as a peer would.
func (e *env) readRun(id replication.LogID, after replication.Position, maxBytes int) (replication.RunBytes, *replication.VerifiedRun) {
	e.Helper()
	r, err := e.store.ReadRun(id, after, maxBytes)
	if err != nil {
		e.Fatalf("run after %v: %v", after, err)
	}
	if last, ok := e.store.LastRun(id, after); ok && !reflect.DeepEqual(last, r) {
		e.Fatalf("the last run after %d is %d bytes up to %v, and the run that is read %d up to %v", after.Seq, len(last.Data), last.End, len(r.Data), r.End)
	}
	return r, e.verifyRun(id, r)
}

func (e *env) verifyRun(id replication.LogID, r replication.RunBytes) *replication.VerifiedRun {
	e.Helper()
	if len(r.Data) == 0 {
		e.Fatalf("log %s has no run after %d", id.Short(), r.From.Seq)
	}
	info := e.log(id)
	run, err := replication.VerifyRun(replication.RunSource{
		Network: e.opts.Network, Log: id, Origin: &info.Origin, Space: info.Space, From: r.From,
	}, r.Data)
	if err != nil {
		e.Fatalf("the run after %d does not verify: %v", r.From.Seq, err)
	}
	if run.End() != r.End || r.Ops != r.End.Seq-r.From.Seq {
		e.Fatalf("a run of %d operations up to %v says %d up to %v", run.End().Seq-r.From.Seq, run.End(), r.Ops, r.End)
	}
	return run
}

// copyTo sends all runs of a log to another store, as peers do.
func (e *env) copyTo(o *env, id replication.LogID) {
	e.Helper()
	tip := e.log(id).Tip
	for at := (replication.Position{}); at != tip; {
		r, run := e.readRun(id, at, 0)
		if res := o.ingest(run); res.Code != replication.Committed && res.Code != replication.Duplicate {
			e.Fatalf("copying: %s %v", res.Code, res.Err)
		}
		at = r.End
	}
}

func await[T any](e *env, ch <-chan T) T {
	e.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(deadline):
		e.Fatalf("no answer within %s", deadline)
		panic("not reached")
	}
}
