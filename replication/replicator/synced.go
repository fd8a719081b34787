package replicator

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"vixp2p/replication"
)

// NotSyncedError tells why a WaitSynced ended without success. It is
// errors.Is(err, Cause).
type NotSyncedError struct {
	Want, Connected int      // peers
	Behind          []string // ids of those with something pending or missing
	// Lacks says what some of these do not get at all, each as PeerInfo.Lacks.
	Lacks []string
	Cause error // the context's, or ErrClosed
}

// maxLacksTold is of how many peers an error tells what they lack.
const maxLacksTold = 3

func (e *NotSyncedError) Error() string {
	told := e.Lacks[:min(len(e.Lacks), maxLacksTold)]
	rest := slices.DeleteFunc(slices.Clone(e.Behind), func(id string) bool {
		return slices.ContainsFunc(told, func(lacks string) bool { return strings.HasPrefix(lacks, id+": ") })
	})
	if len(rest) > 0 {
		told = append([]string{strings.Join(rest, ", ")}, told...)
	}
	behind := strings.Join(told, "; ")
	switch {
	case e.Connected == 0 && e.Want <= 1:
		return "no peer is connected, so nothing can be in step: " + e.Cause.Error()
	case e.Connected < e.Want && len(e.Behind) == 0:
		return fmt.Sprintf("%d of %d peers are connected: %v", e.Connected, e.Want, e.Cause)
	case e.Connected < e.Want:
		return fmt.Sprintf("%d of %d peers are connected, and %d of these are not in step (%s): %v",
			e.Connected, e.Want, len(e.Behind), behind, e.Cause)
	case len(e.Behind) == 0:
		return "all peers were in step, but not at one moment with what else must be: " + e.Cause.Error()
	}
	return fmt.Sprintf("not in step with %d of %d connected peers (%s): %v",
		len(e.Behind), e.Connected, behind, e.Cause)
}

func (e *NotSyncedError) Unwrap() error { return e.Cause }

// WaitSynced returns when, at one moment, at least peers other members (and at
// least one) are connected, the frontiers of all shared spaces were compared with
// each that is, nothing is pending or missing with any of them, and also, which
// may be nil, has returned nil for what the store held then; it may wait until it
// can, and an error of it ends the wait. Forked and cut logs count as in step;
// stale peers do not count as connected, and one that lacks something (PeerInfo.Lacks)
// is not in step. A *NotSyncedError if ctx ends first.
func (r *Replicator) WaitSynced(ctx context.Context, peers int, also func(context.Context) error) error {
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	for {
		change := r.changes.next()
		ok, state, err := r.inStep(ctx, max(1, peers), also)
		if ok {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return err
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

// inStep asks all sessions. Their answers belong to one moment if meanwhile no log
// grew, no session came or went, and none fell out of step or became stale.
func (r *Replicator) inStep(ctx context.Context, peers int, also func(context.Context) error) (bool, *NotSyncedError, error) {
	state := &NotSyncedError{Want: peers}
	head, generation := r.store.Head(), r.generation.Load()
	members := map[replication.OriginKey]bool{}
	for _, p := range r.Peers() {
		var connected, inStep bool
		look := func() {
			p.ringIfInStep() // others that wait hear of it too
			connected, inStep = p.connected(), p.inStep
		}
		if !p.ask(ctx, look) || !connected {
			continue
		}
		members[p.info.Key] = true
		if p.info.Lacks != nil {
			if lacks := p.info.Lacks(); lacks != "" {
				inStep = false
				state.Lacks = append(state.Lacks, p.info.ID+": "+lacks)
			}
		}
		if !inStep {
			state.Behind = append(state.Behind, p.info.ID)
		}
	}
	state.Connected = len(members)
	if state.Connected < peers || len(state.Behind) > 0 {
		return false, state, nil
	}
	if also != nil {
		if err := also(ctx); err != nil {
			return false, state, err
		}
	}
	if r.store.Head() != head || r.generation.Load() != generation {
		r.changes.ring() // it moved while we looked: look again
		return false, state, nil
	}
	return true, state, nil
}

func (p *Peer) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.now.stale
}

// ringIfInStep tells those who wait for it that the session has come in step, and
// those who look at this moment that it has fallen out of it. The actor calls it
// after whatever it did, and before it answers one who looks.
func (p *Peer) ringIfInStep() {
	if p.r.waiting.Load() == 0 {
		p.inStep = false
		return
	}
	was := p.inStep
	p.inStep = p.session.InStep()
	switch {
	case p.inStep && !was:
		p.r.changes.ring()
	case was && !p.inStep:
		p.r.generation.Add(1)
	}
}
