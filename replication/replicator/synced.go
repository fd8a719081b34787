package replicator

import (
	"context"
	"fmt"
	"strings"

	"vixp2p/replication"
)

// NotSyncedError tells why a WaitSynced ended without success. It is
// errors.Is(err, Cause).
type NotSyncedError struct {
	Connected int      // peers
	Behind    []string // ids of those with something pending or missing
	Cause     error    // the context's, or ErrClosed
}

func (e *NotSyncedError) Error() string {
	if e.Connected == 0 {
		return "no peer is connected, so nothing can be in step: " + e.Cause.Error()
	}
	return fmt.Sprintf("not in step with %d of %d connected peers (%s): %v",
		len(e.Behind), e.Connected, strings.Join(e.Behind, ", "), e.Cause)
}

func (e *NotSyncedError) Unwrap() error { return e.Cause }

// WaitSynced returns when, at one moment, at least one peer is connected, the
// frontiers of all spaces were compared with each, and nothing is pending or
// missing with any of them. Forked and cut logs count as in step; stale peers do
// not count as connected. A *NotSyncedError if ctx ends first.
func (r *Replicator) WaitSynced(ctx context.Context) error {
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	for {
		change := r.changes.next()
		ok, state := r.inStep(ctx)
		if ok {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			state.Cause = ctx.Err()
			return state
		case <-r.quit:
			state.Cause = replication.ErrClosed
			return state
		}
	}
}

// inStep asks all sessions. Their answers belong to one moment if no log grew
// and no session came or went meanwhile.
func (r *Replicator) inStep(ctx context.Context) (bool, *NotSyncedError) {
	state := &NotSyncedError{}
	head := r.store.Head()
	generation := r.generation.Load()
	for _, p := range r.Peers() {
		var connected, inStep bool
		look := func() {
			connected, inStep = p.connected(), p.session.InStep()
			p.inStep = inStep // so that coming in step after this look rings
		}
		if !p.ask(ctx, look) || !connected {
			continue
		}
		state.Connected++
		if !inStep {
			state.Behind = append(state.Behind, p.info.ID)
		}
	}
	settled := state.Connected > 0 && len(state.Behind) == 0
	if settled && (r.store.Head() != head || r.generation.Load() != generation) {
		r.changes.ring() // it moved while we looked: look again
		return false, state
	}
	return settled, state
}

func (p *Peer) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.now.stale
}

// ringIfInStep tells those who wait for it that the session has come in step. The
// actor calls it after whatever it did.
func (p *Peer) ringIfInStep() {
	if p.r.waiting.Load() == 0 {
		p.inStep = false
		return
	}
	was := p.inStep
	if p.inStep = p.session.InStep(); p.inStep && !was {
		p.r.changes.ring()
	}
}
