package replicator

import (
	"bytes"
	"slices"
	"sync"

	"vixp2p/replication"
)

const (
	// maxPartials and maxPartialBytes bound what is kept of interrupted runs
	// over all peers; the oldest goes first.
	maxPartials     = 64
	maxPartialBytes = 8 << 20
)

// partials keeps one interrupted run per peer instance from one session to the
// next (design 4.4), so that a path that is cut often still makes progress.
type partials struct {
	mu    sync.Mutex // guards below
	kept  []keptPartial
	bytes int // sum of len(run.Data)
}

type keptPartial struct {
	peer     replication.OriginKey
	instance replication.Instance
	run      *replication.Partial
}

// keep stores what a session left behind; nil for nothing.
func (s *partials) keep(peer replication.OriginKey, instance replication.Instance, run *replication.Partial) {
	if run == nil || len(run.Data) == 0 {
		return
	}
	run.Data = slices.Clip(bytes.Clone(run.Data)) // without the room for the rest of the run
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeLocked(peer, instance)
	s.kept = append(s.kept, keptPartial{peer, instance, run})
	s.bytes += len(run.Data)
	for len(s.kept) > maxPartials || s.bytes > maxPartialBytes {
		s.bytes -= len(s.kept[0].run.Data)
		s.kept = slices.Delete(s.kept, 0, 1)
	}
}

// take removes and returns what an earlier session of the peer instance left.
func (s *partials) take(peer replication.OriginKey, instance replication.Instance) *replication.Partial {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeLocked(peer, instance)
}

func (s *partials) takeLocked(peer replication.OriginKey, instance replication.Instance) *replication.Partial {
	for i, k := range s.kept {
		if k.peer == peer && k.instance == instance {
			s.kept = slices.Delete(s.kept, i, i+1)
			s.bytes -= len(k.run.Data)
			return k.run
		}
	}
	return nil
}
