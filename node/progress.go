package node

import (
	"context"
	"sync"
	"time"
)

// SyncProgress tells how far the node is with fetching what its peers have.
type SyncProgress struct {
	Done, Total uint64 // operations since the node last lacked nothing
	// Remaining is an estimate from the pace so far; negative: not known yet.
	Remaining time.Duration
}

// Percent of Total that is done; 100 if nothing is missing.
func (p SyncProgress) Percent() float64 {
	if p.Total == 0 {
		return 100
	}
	return 100 * float64(p.Done) / float64(p.Total)
}

// SyncProgress tells how far the node is with fetching what its peers have.
// Several peers that have the same count once.
func (n *Node) SyncProgress(ctx context.Context) (SyncProgress, error) {
	var p SyncProgress
	err := n.do(ctx, func(e *engine) error {
		list, err := n.peers(ctx, e)
		if err != nil {
			return err
		}
		have := uint64(0)
		for _, id := range e.store.Spaces() {
			for _, l := range e.store.Logs(id) {
				have += heldOps(l)
			}
		}
		p = n.sync.progress(time.Now(), missingOf(list), have)
		return nil
	})
	return p, err
}

// missingOf is at least how many operations are missing: what the peer lists
// that has the most, per space.
func missingOf(peers []PeerStatus) (sum uint64) {
	most := map[string]uint64{}
	for _, p := range peers {
		for space, s := range p.Spaces {
			most[space] = max(most[space], s.MissingOps)
		}
	}
	for _, n := range most {
		sum += n
	}
	return sum
}

func opsOf(spaces map[string]SpaceStatus) (sum uint64) {
	for _, s := range spaces {
		sum += s.Ops
	}
	return sum
}

// syncMeter measures one catching up after the other.
type syncMeter struct {
	mu     sync.Mutex // guards below
	active bool       // something was missing when last looked at
	began  time.Time
	base   uint64 // operations held when it began
}

func (m *syncMeter) progress(now time.Time, missing, have uint64) SyncProgress {
	m.mu.Lock()
	defer m.mu.Unlock()
	if missing == 0 {
		m.active = false
		return SyncProgress{}
	}
	if !m.active || have < m.base {
		m.active, m.began, m.base = true, now, have
	}
	p := SyncProgress{Done: have - m.base, Total: have - m.base + missing, Remaining: -1}
	if took := now.Sub(m.began); p.Done > 0 && took > 0 {
		p.Remaining = time.Duration(float64(took) * float64(missing) / float64(p.Done)).Round(time.Second)
	}
	return p
}
