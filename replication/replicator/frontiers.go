package replicator

import "vixp2p/replication"

// The frontiers that peers state are held until they are compared: of a peer with
// 100,000 logs some 13 MB, for a moment. A peer that never comes to the end of one
// holds that for as long as its session lives, so that the sum over all sessions is
// bounded (G8).
const (
	// freeEntries are those that a session may hold in any case.
	freeEntries = 8192
	// maxEntries are those that all sessions together may hold beyond that: three
	// frontiers of the largest size, about 80 MB.
	maxEntries = 3 * replication.MaxFrontierEntries
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
