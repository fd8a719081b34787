package replicator

import (
	"sync"

	"vixp2p/replication"
)

// The frontiers that peers state are held until they are compared: of a peer with
// 100,000 logs of which all differ some 13 MB, for a moment. A peer that never comes to
// the end of one holds that for as long as its session lives, so that the sum over all
// sessions is bounded (G8).
const (
	// freeEntries are those that a session may hold in any case.
	freeEntries = 8192
	// maxEntries are those that all sessions together may hold beyond that: two
	// frontiers of the largest size, about 50 MB.
	maxEntries = 2 * replication.MaxFrontierEntries
)

// weighFrontier counts what the session holds of its peer's frontiers. The session
// that goes beyond the sum ends: its peer comes again when others are done.
func (p *Peer) weighFrontier() {
	n := max(0, p.session.DiffEntries()-freeEntries)
	grown := n - p.weighed
	p.weighed = n
	sum := p.r.entries.Add(int64(grown))
	if grown > 0 && sum > maxEntries && p.end == nil {
		p.step(replication.Stop{Code: replication.CodeBusy, Detail: "too many frontiers are exchanged at this moment"})
	}
}

// dropFrontier is called when the session has ended.
func (p *Peer) dropFrontier() { p.r.entries.Add(-int64(p.weighed)) }

// frontiers keeps the frontier of each space that somebody asked for, for all
// sessions. It notes which logs change and looks at these when it is asked again, so
// that neither a commit nor a session costs a pass over all logs.
type frontiers struct {
	store  replication.Store
	mu     sync.Mutex // guards below and changed of each; never held during a call of the store
	spaces map[replication.SpaceID]*spaceFrontier
}

type spaceFrontier struct {
	mu  sync.Mutex // guards now and loaded; held while the store is read
	now *replication.Frontier
	// changed is the logs of which now may be out of date, with how far each was told. It
	// takes no more room than the logs of the space.
	changed map[replication.LogID]replication.Position
	loaded  bool
}

// note hears of every change of a log, in the goroutine of the store's commits.
func (f *frontiers) note(a replication.Advance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sp := f.spaces[a.Space]; sp != nil {
		sp.changed[a.Log] = a.Tip
	}
}

// of is the frontier of a space now, and at how many logs it had to look for that. It does
// not run ahead of what was told: a session that has not heard of a write takes the log
// for one of which its peer holds all.
func (f *frontiers) of(space replication.SpaceID) (now *replication.Frontier, looked int) {
	f.mu.Lock()
	sp := f.spaces[space]
	if sp == nil {
		sp = &spaceFrontier{changed: map[replication.LogID]replication.Position{}}
		f.spaces[space] = sp
	}
	f.mu.Unlock()

	sp.mu.Lock()
	defer sp.mu.Unlock()
	f.mu.Lock()
	changed := sp.changed
	sp.changed = map[replication.LogID]replication.Position{} // before the store is read: what comes now is looked at again
	f.mu.Unlock()
	if !sp.loaded {
		logs := f.store.Logs(space)
		entries := make([]replication.FrontierEntry, len(logs))
		for i := range logs {
			entries[i] = logs[i].Entry()
		}
		sp.now, sp.loaded = replication.NewFrontier(entries), true
		return sp.now, len(logs)
	}
	entries := make([]replication.FrontierEntry, 0, len(changed))
	for log, told := range changed {
		info, _ := f.store.Log(log) // none: no position, so that it is taken out
		info.Log = log
		if info.Tip.Seq > told.Seq {
			info.Tip = told
		}
		entries = append(entries, info.Entry())
	}
	sp.now = sp.now.With(entries)
	return sp.now, len(entries)
}

// Frontier is what is held durably of a space.
func (r *Replicator) Frontier(space replication.SpaceID) *replication.Frontier {
	now, _ := r.frontiers.of(space)
	return now
}

// loadFrontier tells the session what is held of a space, and if it asks for that
// what the peer once said of the same logs. It runs in the lane of reads.
func (p *Peer) loadFrontier(e replication.LoadFrontier) {
	p.quota.mayLook(p.ctx)
	now, looked := p.r.frontiers.of(e.Space)
	p.quota.looked(looked)
	ev := replication.LocalFrontier{Space: e.Space, Frontier: now}
	if e.Stored {
		p.quota.looked(now.Len())
		ev.Stored = replication.StoredDifference(now, p.stored(now))
	}
	p.post(item{event: ev})
}

// stored is what the store remembers that the peer stated of the logs of a frontier.
func (p *Peer) stored(now *replication.Frontier) []replication.FrontierEntry {
	stored, err := p.r.store.LoadCursor(p.info.Key, p.info.Instance)
	if err != nil {
		// It is a hint: without it the peer's own statement decides, as always.
		p.log.Warn("what the peer stated earlier cannot be read", "error", err)
	}
	n := 0
	for _, s := range stored {
		// What a member stated before it fsynced is stated, and kept, anew.
		if !p.info.Relaxed && Durability(s.Base) != Strict {
			continue
		}
		if s.Pos.Seq > now.Position(s.Log).Seq {
			if l, _ := p.r.store.Log(s.Log); l.Limit != nil && s.Pos.Seq > l.Tip.Seq {
				continue // from before the cut: what it states now takes its place
			}
		}
		stored[n] = s
		n++
	}
	return stored[:n]
}

// answered counts what a part of an answer shows of a frontier as a look at so many
// logs: of digests as many as have their size.
func (q *quota) answered(m *replication.FrontierDiff) {
	n := len(m.Entries)
	for i := range m.Nodes {
		n += 1 + len(m.Nodes[i].Digests)/4
	}
	q.looked(n)
}
