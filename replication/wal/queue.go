package wal

import (
	"context"
	"fmt"
	"slices"
	"sync"

	r "vixp2p/replication"
)

const (
	maxLocals      = 4096     // batches that wait
	maxLocalBytes  = 16 << 20 // their bytes
	maxSourceBytes = 16 << 20 // runs of one source that wait
	maxRunsBytes   = 64 << 20 // runs of all sources that wait

	// Batches and other writes in one transaction: with a space each and the
	// records that this costs they stay below Badger's limit.
	maxTxLocals   = 1024
	maxTxControls = 16
)

// appendReq is one batch on its way through the committer, which owns it from the
// queue to the answer.
type appendReq struct {
	batch r.Batch
	size  int        // upper bound of what it adds to a body, before resolving
	at    r.Appended // set before the answer; Pos and Arrival once its block is built
	done  chan error // of one slot
}

// appendReqs are requests of which the answer was taken.
var appendReqs = sync.Pool{New: func() any { return &appendReq{done: make(chan error, 1)} }}

// giveBack is called by the appender that took the answer: nobody else has the request
// any more. One whose appender did not wait for the answer is never used again.
func (q *appendReq) giveBack() {
	q.batch, q.at = r.Batch{}, r.Appended{}
	appendReqs.Put(q)
}

// ingestReq is one run on its way through the committer.
type ingestReq struct {
	source uint64
	run    *r.VerifiedRun
	size   int
	done   func(r.IngestResult)
	// crosses: it is the part of a run before a cut.
	crosses bool
}

// controlReq is any other write; stage runs in the committer.
type controlReq struct {
	stage func(*tx) error
	done  chan error
}

// restrictReq is a Restrict on its way through the committer.
type restrictReq struct {
	fn   r.Limiter
	done chan error
}

// queue holds what waits for the committer. Everything in it is bounded (G8).
type queue struct {
	mu        sync.Mutex // guards all below
	wake      chan struct{}
	closed    bool
	room      chan struct{} // closed when locals left; nil while nobody waits
	locals    []*appendReq
	localLen  int // bytes
	sources   map[uint64]*source
	runLen    int // bytes
	floor     uint64
	controls  []*controlReq
	restricts []*restrictReq
}

// source is the runs of one session. The source that was served least comes
// next, so that each gets its share of bytes.
type source struct {
	runs   []*ingestReq
	bytes  int
	served uint64
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), sources: map[uint64]*source{}}
}

func (q *queue) signalLocked() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// pushLocal queues a batch and waits for room.
func (q *queue) pushLocal(ctx context.Context, req *appendReq) error {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return r.ErrClosed
		}
		if len(q.locals) == 0 || (len(q.locals) < maxLocals && q.localLen+req.size <= maxLocalBytes) {
			q.locals = append(q.locals, req)
			q.localLen += req.size
			q.signalLocked()
			q.mu.Unlock()
			return nil
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pushRun queues a run, or says why not.
func (q *queue) pushRun(req *ingestReq) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return r.ErrClosed
	}
	src := q.sources[req.source]
	if src == nil {
		src = &source{served: q.floor}
	}
	if src.bytes+req.size > maxSourceBytes || q.runLen+req.size > maxRunsBytes {
		return fmt.Errorf("%w: %d bytes of runs wait for the disk already", r.ErrBusy, q.runLen)
	}
	src.runs = append(src.runs, req)
	src.bytes += req.size
	q.runLen += req.size
	q.sources[req.source] = src
	q.signalLocked()
	return nil
}

// pushControl queues another write.
func (q *queue) pushControl(req *controlReq) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return r.ErrClosed
	}
	q.controls = append(q.controls, req)
	q.signalLocked()
	return nil
}

func (q *queue) pushRestrict(req *restrictReq) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return r.ErrClosed
	}
	q.restricts = append(q.restricts, req)
	q.signalLocked()
	return nil
}

// takeRestrict takes the next Restrict, or nil.
func (q *queue) takeRestrict() *restrictReq {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.restricts) == 0 {
		return nil
	}
	req := q.restricts[0]
	q.restricts = q.restricts[1:]
	return req
}

// takeLocals appends batches up to about max bytes to taken, and at most one for each
// localRecords of that; at least one if there is one.
func (q *queue) takeLocals(maxBytes int, taken []*appendReq) []*appendReq {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < min(len(q.locals), maxTxLocals, maxBytes/localRecords) && (n == 0 || size+q.locals[n].size <= maxBytes) {
		size += q.locals[n].size
		n++
	}
	taken = append(taken, q.locals[:n]...)
	q.locals = slices.Delete(q.locals, 0, n)
	q.localLen -= size
	if n > 0 && q.room != nil {
		close(q.room)
		q.room = nil
	}
	return taken
}

// takeRun takes the next run whose size fits, of the source that was served
// least; nil if there is none or it does not fit.
func (q *queue) takeRun(fits func(*ingestReq) bool) *ingestReq {
	q.mu.Lock()
	defer q.mu.Unlock()
	var best *source
	var bestID uint64
	for id, s := range q.sources {
		if best == nil || s.served < best.served || (s.served == best.served && id < bestID) {
			best, bestID = s, id
		}
	}
	if best == nil || !fits(best.runs[0]) {
		return nil
	}
	req := best.runs[0]
	best.runs[0] = nil
	best.runs = best.runs[1:]
	best.bytes -= req.size
	best.served += uint64(req.size)
	q.floor = max(q.floor, best.served-uint64(req.size))
	q.runLen -= req.size
	if len(best.runs) == 0 {
		delete(q.sources, bestID)
	}
	return req
}

func (q *queue) takeControls() []*controlReq {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.controls), maxTxControls)
	c := q.controls[:n:n]
	if q.controls = q.controls[n:]; len(q.controls) == 0 {
		q.controls = nil
	}
	return c
}

// waits is what waits for the committer.
type waits struct {
	locals int  // batches
	runs   bool // any
	bytes  int  // of both
	others bool // any other write
	closed bool
}

func (w waits) any() bool { return w.locals > 0 || w.runs || w.others }

func (q *queue) waiting() waits {
	q.mu.Lock()
	defer q.mu.Unlock()
	return waits{
		locals: len(q.locals), runs: q.runLen > 0, bytes: q.localLen + q.runLen,
		others: len(q.controls) > 0 || len(q.restricts) > 0, closed: q.closed,
	}
}

// close lets nothing further in; what waits is still served.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
	q.signalLocked()
}
