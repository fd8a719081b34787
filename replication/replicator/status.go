package replicator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"vixp2p/replication"
)

// PeerStatus tells where replication with one member stands.
type PeerStatus struct {
	Key       replication.OriginKey
	Instance  replication.Instance
	ID, Label string // empty while the member is not connected
	Connected bool   // a session lives and the peer is heard
	Stale     bool   // a session lives, and nothing was heard for a while
	Since     time.Time
	RTT       time.Duration // 0: not measured yet
	Heard     time.Time     // last message
	LastAck   time.Time     // of its instance; zero: none, or none that this node remembers
	// Durability is that of the newest session.
	Durability Durability
	// Pending is what is here and not stated by the peer; Missing is what the
	// peer states and is not here. Of a peer without a session, and of a space that
	// is not settled, Pending follows from what the peer stated last, and Missing
	// is not known.
	PendingOps, PendingBytes, MissingOps uint64
	QueuedBytes                          int // sent and not yet taken by the transport
	Paused                               []replication.LogPaused
	Spaces                               []SpaceStatus
	Counters                             Counters // of this session
}

// SpaceStatus is PeerStatus for one space.
type SpaceStatus struct {
	Space                                replication.SpaceID
	Settled                              bool // frontiers were compared: the numbers are exact
	PendingLogs                          int
	PendingOps, PendingBytes, MissingOps uint64
}

// Settled tells that there is a session and the frontiers of all shared spaces were
// compared: the numbers are exact.
func (s *PeerStatus) Settled() bool {
	return (s.Connected || s.Stale) && !slices.ContainsFunc(s.Spaces, func(s SpaceStatus) bool { return !s.Settled })
}

// InStep tells that nothing is pending or missing.
func (s *PeerStatus) InStep() bool {
	return s.PendingOps == 0 && s.MissingOps == 0 && s.Settled()
}

func (s *PeerStatus) add(sp SpaceStatus) {
	s.Spaces = append(s.Spaces, sp)
	s.PendingOps += sp.PendingOps
	s.PendingBytes += sp.PendingBytes
	s.MissingOps += sp.MissingOps
}

// ask runs fn on the actor; false if the session ended or ctx did.
func (p *Peer) ask(ctx context.Context, fn func()) bool {
	asked, lives := make(chan struct{}), false
	if !p.post(item{call: func() {
		defer close(asked)
		if lives = p.end == nil; lives { // else what it knows is of before
			fn()
		}
	}}) {
		return false
	}
	select {
	case <-asked:
		return lives
	case <-ctx.Done():
		return false
	}
}

// lastAck is when the peer last acked in this session; zero: not yet.
func (p *Peer) lastAck() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now.lastAck
}

// Status tells where the session stands; false if it has ended, or ctx did.
func (p *Peer) Status(ctx context.Context) (PeerStatus, bool) {
	var progress []replication.Progress
	if !p.ask(ctx, func() { progress = p.session.Progress() }) {
		return PeerStatus{}, false
	}
	p.mu.Lock()
	st := PeerStatus{
		Key: p.info.Key, Instance: p.info.Instance, ID: p.info.ID, Label: p.info.Label,
		Connected: !p.now.stale, Stale: p.now.stale, Since: p.since,
		RTT: p.now.rtt, Heard: p.now.heard, LastAck: p.now.lastAck, Durability: p.info.durability(),
	}
	p.mu.Unlock()
	if st.LastAck.IsZero() {
		st.LastAck = p.r.receipts.lastAck(p.info.Key, p.info.Instance)
	}
	st.QueuedBytes, _ = p.out.backlog()
	st.Counters = p.count.snapshot()
	var stored map[replication.LogID]replication.FrontierEntry // loaded for the first space that needs it
	for _, pr := range progress {
		sp := SpaceStatus{Space: pr.Space, Settled: pr.Settled, MissingOps: pr.MissingOps}
		if !pr.Settled {
			if stored == nil {
				stored = p.r.storedCursor(p.info.Key, p.info.Instance)
			}
			sp.beyond(p.r.store, stored, p.r.store.Logs(pr.Space))
		}
		for _, l := range pr.PendingLogs {
			sp.pending(p.r.store, l.Log, l.Acked.Seq, l.Tip.Seq)
		}
		st.Paused = append(st.Paused, pr.Paused...)
		st.add(sp)
	}
	return st, true
}

// storedCursor is what a peer instance stated last, by log. One that cannot be read
// says nothing, as after a loss: it is a hint.
func (r *Replicator) storedCursor(key replication.OriginKey, instance replication.Instance) map[replication.LogID]replication.FrontierEntry {
	entries, err := r.store.LoadCursor(key, instance)
	if err != nil {
		r.o.Logger.Warn("what the peer stated earlier cannot be read", "error", err)
	}
	stated := make(map[replication.LogID]replication.FrontierEntry, len(entries))
	for _, e := range entries {
		stated[e.Log] = e
	}
	return stated
}

// beyond adds what of the logs lies beyond what was stated last.
func (s *SpaceStatus) beyond(store replication.Store, stated map[replication.LogID]replication.FrontierEntry, logs []replication.LogInfo) {
	for _, l := range logs {
		if !l.Forked {
			s.pending(store, l.Log, stated[l.Log].Pos.Seq, l.Tip.Seq)
		}
	}
}

// pending adds what lies beyond acked of a log.
func (s *SpaceStatus) pending(store replication.Store, log replication.LogID, acked, tip uint64) {
	if tip <= acked {
		return
	}
	s.PendingLogs++
	s.PendingOps += tip - acked
	// A log whose size cannot be told is damaged, which Verify and the session
	// report; the operations still count.
	if n, err := store.BytesAfter(log, acked); err == nil {
		s.PendingBytes += n
	}
}

// Status tells about every session, oldest first, and then about the members
// that stated something once and have no session now.
func (r *Replicator) Status(ctx context.Context) ([]PeerStatus, error) {
	var all []PeerStatus
	live := map[replication.OriginKey]bool{}
	for _, p := range r.Peers() {
		if st, ok := p.Status(ctx); ok {
			all = append(all, st)
			live[p.info.Key] = true
		}
	}
	known, err := r.store.ListCursors()
	if err != nil {
		return nil, fmt.Errorf("what members stated earlier cannot be read: %w", err)
	}
	newest := map[replication.OriginKey]replication.CursorInfo{}
	for _, c := range known {
		newest[c.Peer] = c // newest last
	}
	var away []PeerStatus
	var logs [][]replication.LogInfo // by space; looked up once for all
	for key, c := range newest {
		if live[key] || key == r.self.Self {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if logs == nil {
			for _, space := range r.store.Spaces() {
				if of := r.store.Logs(space); len(of) > 0 {
					logs = append(logs, of)
				}
			}
		}
		if st, ok := r.awayStatus(c, logs); ok {
			away = append(away, st)
		}
	}
	slices.SortFunc(away, func(a, b PeerStatus) int { return strings.Compare(string(a.Key[:]), string(b.Key[:])) })
	return append(all, away...), nil
}

// awayStatus is what of the logs is pending towards a member that is not
// connected; false: it is forgotten.
func (r *Replicator) awayStatus(c replication.CursorInfo, logs [][]replication.LogInfo) (PeerStatus, bool) {
	stated := r.storedCursor(c.Peer, c.Instance)
	st := PeerStatus{
		Key: c.Peer, Instance: c.Instance, LastAck: r.receipts.lastAck(c.Peer, c.Instance),
		Durability: Durability(stated[replication.LogID{}].Base),
	}
	if st.Durability == forgotten {
		return st, false
	}
	if delete(stated, replication.LogID{}); st.LastAck.IsZero() && len(stated) > 0 {
		st.LastAck = c.Updated
	}
	for _, of := range logs {
		if !r.memberCarries(c.Peer, nil, of[0].Space) {
			continue
		}
		sp := SpaceStatus{Space: of[0].Space}
		sp.beyond(r.store, stated, of)
		st.add(sp)
	}
	return st, true
}
