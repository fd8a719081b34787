package replicator

import (
	"sync"

	"vixp2p/replication"
)

// flights keeps, per log, the runs that were handed over and not yet answered.
// Answers go to the session in the order of the runs of a log, also where a run
// that does not verify overtakes one that waits for its commit.
//
// It also knows the origin of a log whose first run is verified and not yet
// committed, so that the runs that follow it can be verified meanwhile. Nothing
// is kept of an unknown log until its genesis is verified (design 6.3).
type flights struct {
	mu   sync.Mutex // guards below
	logs map[replication.LogID]*flight
}

type flight struct {
	runs   []*flyingRun // oldest first
	origin *replication.OriginKey
}

type flyingRun struct {
	replication.CommitRun
	release func()                  // gives back the run's memory
	result  *replication.CommitDone // nil: not answered yet
	awaited []*landing              // those that wait for its answer
}

// landing is the answers to some runs, which somebody waits for.
type landing struct {
	left int
	all  chan struct{} // closed when none is left
}

func (f *flights) depart(e replication.CommitRun, release func()) *flyingRun {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.logs == nil {
		f.logs = map[replication.LogID]*flight{}
	}
	fl := f.logs[e.Log]
	if fl == nil {
		fl = &flight{}
		f.logs[e.Log] = fl
	}
	run := &flyingRun{CommitRun: e, release: release}
	fl.runs = append(fl.runs, run)
	return run
}

// alone tells that a run that departed is the only one.
func (f *flights) alone(run *flyingRun) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.logs) == 1 && len(f.logs[run.Log].runs) == 1
}

func (f *flights) origin(log replication.LogID) *replication.OriginKey {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logs[log].origin
}

func (f *flights) verified(run *replication.VerifiedRun) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logs[run.Log].origin = &run.Origin
}

// land notes an answer and calls tell for each that is due, in order.
func (f *flights) land(run *flyingRun, result replication.CommitDone, tell func(replication.CommitDone)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	run.result = &result
	fl := f.logs[run.Log]
	for len(fl.runs) > 0 && fl.runs[0].result != nil {
		tell(*fl.runs[0].result)
		for _, l := range fl.runs[0].awaited {
			if l.left--; l.left == 0 {
				close(l.all)
			}
		}
		fl.runs = fl.runs[1:]
	}
	if len(fl.runs) == 0 {
		delete(f.logs, run.Log)
	}
}

// landed returns a channel that is closed once the session has been told of all runs
// that are under way now.
func (f *flights) landed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &landing{all: make(chan struct{})}
	for _, fl := range f.logs {
		for _, run := range fl.runs {
			run.awaited = append(run.awaited, l)
			l.left++
		}
	}
	if l.left == 0 {
		close(l.all)
	}
	return l.all
}

// smallRun is a run, in bytes, that the actor verifies itself if it is the only one:
// one signature and a hash, less than the way to another goroutine and back is worth.
const smallRun = 8 << 10

// commit verifies a run and hands it to the store, beside the actor and in the
// order of the calls; the answer comes back as CommitDone. The memory of the run
// is given back with the answer.
func (p *Peer) commit(e replication.CommitRun) {
	fly := p.inflight.depart(e, p.held.committing(e.Log))
	p.r.ingests.add(1)
	if len(e.Data) <= smallRun && p.inflight.alone(fly) {
		select {
		case p.r.verify <- struct{}{}:
			p.ingest(fly)
			return
		default: // all verifiers are busy
		}
	}
	p.commits.do(func() {
		select {
		case p.r.verify <- struct{}{}:
			p.ingest(fly)
		case <-p.ctx.Done():
			p.answered(fly, replication.IngestResult{Code: replication.Refused, Err: replication.ErrClosed})
		}
	})
}

// ingest verifies a run, with a token that it gives back, and hands it to the store.
func (p *Peer) ingest(fly *flyingRun) {
	run, res := p.check(fly.CommitRun)
	<-p.r.verify
	if run == nil {
		p.answered(fly, res)
		return
	}
	p.inflight.verified(run)
	p.r.store.Ingest(p.source, run, func(res replication.IngestResult) { p.answered(fly, p.cutShort(run, res)) })
}

// check verifies a run; without one the result says why it is not taken.
func (p *Peer) check(e replication.CommitRun) (*replication.VerifiedRun, replication.IngestResult) {
	info, known := p.r.store.Log(e.Log)
	refused := func(err error) (*replication.VerifiedRun, replication.IngestResult) {
		return nil, replication.IngestResult{Code: replication.Refused, Tip: info.Tip, Err: err}
	}
	src := replication.RunSource{Network: p.r.self.Network, Log: e.Log, Space: e.Space, From: e.From}
	if known {
		if info.Space != e.Space {
			return refused(&replication.InvalidError{Reason: "log " + e.Log.Short() + " belongs to another space"})
		}
		src.Origin = &info.Origin
	} else if src.Origin = p.inflight.origin(e.Log); src.Origin != nil {
		// The run before this one is on its way to the store.
	} else if e.From != (replication.Position{}) {
		return nil, replication.IngestResult{Code: replication.Gap}
	}
	run, err := replication.VerifyRun(src, e.Data)
	if err != nil {
		return refused(err)
	}
	return run, replication.IngestResult{}
}

// cutShort is the answer to a run of which the store took only the blocks before a
// cut: a refusal, at the position that was reached, so that the peer need not send
// the rest once more to hear it.
func (p *Peer) cutShort(run *replication.VerifiedRun, res replication.IngestResult) replication.IngestResult {
	end := run.From
	for _, b := range run.Blocks {
		if b.HasBody() {
			end = b.End()
		}
	}
	if res.Code == replication.Committed && res.Tip.Seq < end.Seq {
		if info, _ := p.r.store.Log(run.Log); info.Limit != nil {
			res.Code, res.Err = replication.Refused, info.Limit
		}
	}
	return res
}

// answered posts the answer for a run and gives its memory back. It may be called
// by the store's committer and does not block.
func (p *Peer) answered(run *flyingRun, res replication.IngestResult) {
	defer p.r.ingests.add(-1)
	p.count.runsIn.Add(1)
	switch res.Code {
	case replication.Committed:
	case replication.Duplicate:
		p.count.duplicates.Add(1)
	default:
		p.count.refused.Add(1)
	}
	run.release()
	done := replication.CommitDone{Space: run.Space, Log: run.Log, Result: res, Code: resultCode(res)}
	p.quota.charge(refusalCost(done.Code))
	p.r.mesh.answered(p, run, res.Code, done.Code)
	p.inflight.land(run, done, func(ev replication.CommitDone) { p.post(item{event: ev}) })
	if res.Proof != nil {
		p.r.forwardFork(run.Space, *res.Proof, p) // this session sends it itself
	}
}
