package replicator

import "sync/atomic"

// Counters count what went over sessions since they, or the node, started.
type Counters struct {
	OpsIn, OpsOut     uint64 // operations committed here; pushed, repeats included
	BytesIn, BytesOut uint64 // of runs, likewise; in: everything received
	RunsIn, RunsOut   uint64
	Duplicates        uint64 // runs received of which everything was held
	Refused           uint64 // runs received and not taken
	AcksIn, AcksOut   uint64 // entries of acks
	Resends           uint64 // runs pushed that start before the end of what was pushed (at least so many)
	DataLosses        uint64 // logs of which a peer admitted to hold less than before
}

// counters are Counters that several goroutines add to.
type counters struct {
	opsIn, opsOut, bytesIn, bytesOut, runsIn, runsOut,
	duplicates, refused, acksIn, acksOut, resends, losses atomic.Uint64
}

func (c *counters) snapshot() Counters {
	return Counters{
		OpsIn: c.opsIn.Load(), OpsOut: c.opsOut.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		RunsIn: c.runsIn.Load(), RunsOut: c.runsOut.Load(),
		Duplicates: c.duplicates.Load(), Refused: c.refused.Load(),
		AcksIn: c.acksIn.Load(), AcksOut: c.acksOut.Load(),
		Resends: c.resends.Load(), DataLosses: c.losses.Load(),
	}
}

// add adds what o counted.
func (c *counters) add(o *counters) {
	for _, f := range []struct{ to, from *atomic.Uint64 }{
		{&c.opsIn, &o.opsIn}, {&c.opsOut, &o.opsOut}, {&c.bytesIn, &o.bytesIn}, {&c.bytesOut, &o.bytesOut},
		{&c.runsIn, &o.runsIn}, {&c.runsOut, &o.runsOut}, {&c.duplicates, &o.duplicates}, {&c.refused, &o.refused},
		{&c.acksIn, &o.acksIn}, {&c.acksOut, &o.acksOut}, {&c.resends, &o.resends}, {&c.losses, &o.losses},
	} {
		f.to.Add(f.from.Load())
	}
}

// MovedBytes is how many bytes of runs the session has sent and received.
func (p *Peer) MovedBytes() uint64 { return p.count.bytesIn.Load() + p.count.bytesOut.Load() }

// Counters sums up all sessions since New.
func (r *Replicator) Counters() Counters {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sum counters
	sum.add(&r.total)
	for _, p := range r.peers {
		sum.add(&p.count)
	}
	return sum.snapshot()
}
