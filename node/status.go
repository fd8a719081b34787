package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

// Status is what a node tells about itself.
type Status struct {
	PeerID      string
	Label       string
	Instance    string // hex; of the data directory's history
	Network     string // "open", or the network's id in hex
	NetworkName string // of an open network its identity, else for people; it may be empty
	DataDir     string
	Listen      []string // multiaddrs
	Durability  Durability
	MaxRate     int64 // bytes per second in each direction; 0: no limit
	Offline     bool
	Started     time.Time // when Open had the directory
	// Recovered tells what opening the data directory found wrong with it; empty
	// if nothing.
	Recovered string
	// Lost tells what repairs of the directory could not keep and no peer has sent
	// since; it stays until that has changed or its user dismisses it. Empty if
	// nothing is lost.
	Lost string
	// Damage is damaged data that was found while the node ran and is not
	// repaired yet; Repairs counts repairs since the start.
	Damage  []Damage
	Repairs int
	// Copies tells that another node runs from a copy of this data directory: peers
	// have ended sessions with this one in favour of it.
	Copies bool

	Peers []PeerStatus // connected first, then by peer ID
	// Endpoints are the addresses that the node has dialled, by name.
	Endpoints []EndpointStatus
	Discovery DiscoveryStatus
	Counters  Counters
	Spaces    map[string]SpaceStatus // by name; by id in hex where the name is not known
	Sync      SyncProgress
	Reach     *ReachStatus // nil if offline
	// Messages tells about routed messages, Routes where they go; nil if offline or
	// with NoMessages.
	Messages *MessageStatus
	Routes   []Route
	// Membership is this node's part in a network of members; nil in an open one.
	Membership *MembershipStatus
}

// PeerStatus is one peer as this node sees it.
type PeerStatus struct {
	PeerID    string
	Label     string // the peer's choice; empty while not known
	Instance  string // hex; of the newest session
	State     State
	Direction string    // "in" or "out" of the session; empty without one
	Addr      string    // where the session leads to; without one where the peer is dialled, or was last
	Relayed   bool      // the session goes through a relay
	Since     time.Time // start of the session
	RTT       time.Duration
	Skew      time.Duration // by how much its clock is ahead
	// Pending is durable here and not stated by the peer; Missing is stated by
	// the peer and not durable here. Of a peer without a session Pending follows
	// from its last statement, and Missing is not known.
	PendingOps, PendingBytes, MissingOps uint64
	LastAck                              time.Time // its last statement; zero: none
	// Settled: there is a session, and the frontiers of all shared spaces were
	// compared, so that the numbers are exact. Else Pending follows from its last
	// statement, or a space is left out of them (PeerSpaceStatus.Why).
	Settled bool
	// Durability of its newest session: "strict", "relaxed", whose acks are no
	// receipts, or empty where that is not known.
	Durability string
	// LastError is why there is no session; empty with one.
	LastError string
	// PutOut is until when this node neither lets in nor dials the peer, because it
	// broke the protocol; LastError says how. Zero: it is not put out.
	PutOut time.Time
	// Copies tells that this identity is used by turns from several copies of one
	// data directory.
	Copies bool
	Paused []PausedLog
	Spaces map[string]PeerSpaceStatus
}

// PeerSpaceStatus is pending and missing of one space.
type PeerSpaceStatus struct {
	PendingOps, PendingBytes, MissingOps uint64
	Settled                              bool // frontiers were compared: the numbers are exact
	// Why the space is not exchanged although both have a role in it: a certificate has
	// ended. Empty: that is not so.
	Why string
}

// PausedLog is a log that is not exchanged with a peer.
type PausedLog struct {
	Space, Log string
	Why        string
	Here       bool // this node refused, not the peer
}

// Counters count since the node opened.
type Counters struct {
	GuardCounters
	PeersTotal, PeersConnected             int // now
	HandshakesStarted, HandshakesCompleted uint64
	Replication                            replicator.Counters
}

// SpaceStatus is one space's totals.
type SpaceStatus struct {
	Ops, Bytes      uint64 // held durably; bytes as stored
	Logs            int
	ForkedLogs      int
	Keys, Conflicts uint64 // of the key-value view
	// SetAside are operations that a cut took out of all these numbers, and that are
	// kept for a while; Node.SetAside tells whose.
	SetAside uint64
	// FrontierDigest stands for the writes that are held, ViewDigest for what the
	// key-value view shows: equal at two nodes exactly if these are.
	FrontierDigest, ViewDigest string
	// ViewBehind tells that the view has not applied all that is held yet.
	ViewBehind bool
	// ViewError is why the view of this space cannot be read, or does not go on until
	// a content key has arrived.
	ViewError string
	// Sealed tells that this node stores and forwards an encrypted space and has no
	// role to read it, as a relay; ViewError says so too.
	Sealed bool
}

// Status tells about the node, its peers and its spaces.
func (n *Node) Status(ctx context.Context) (Status, error) {
	st := Status{
		PeerID: n.ID(), Label: n.cfg.Label, Network: "open", NetworkName: n.cfg.NetworkName,
		DataDir: n.cfg.DataDir, Listen: n.Addrs(), Durability: n.cfg.Durability, MaxRate: n.cfg.MaxRate, Offline: n.cfg.Offline,
		Started: n.started,
		Spaces:  map[string]SpaceStatus{},
	}
	if n.members != nil {
		st.Network, st.NetworkName = n.network.String(), n.membershipNow().NetworkName
	}
	err := n.do(ctx, func(e *engine) (err error) {
		info := e.store.Info()
		st.Instance, st.Recovered = info.Instance.String(), info.Recovered
		if lost := e.store.Lost(); lost.Any() {
			st.Lost = lost.String()
		}
		soon, cancel := context.WithTimeout(ctx, viewPatience)
		defer cancel()
		aside := map[replication.SpaceID]uint64{}
		for _, l := range e.store.SetAside() {
			aside[l.Space] += l.SetAside
		}
		for _, s := range n.names.list() {
			sp, err := spaceStatus(ctx, soon, e, s.ID)
			if err != nil {
				return err
			}
			sp.SetAside = aside[s.ID]
			st.Spaces[spaceLabel(s)] = sp
		}
		if st.Membership = n.membershipStatus(); st.Membership != nil {
			if st.Membership.Untaken, err = n.untaken(e); err != nil {
				return err
			}
		}
		st.Peers, err = n.peers(ctx, e)
		return err
	})
	if err != nil {
		return st, err
	}
	st.Damage, st.Repairs = n.health.snapshot()
	st.Copies = n.mesh != nil && n.mesh.book.copied(n.mesh.now())
	st.Counters, st.Endpoints, st.Discovery = n.Counters(), n.endpoints(), n.Discovery()
	st.Messages, st.Routes = n.messages.status(), n.Routes()
	if n.reach != nil {
		reach := n.reach.status()
		st.Reach = &reach
	}
	st.Sync = n.sync.progress(time.Now(), missingOf(st.Peers), opsOf(st.Spaces))
	return st, nil
}

// Peers tells about the peers that this node knows, connected ones first.
func (n *Node) Peers(ctx context.Context) (list []PeerStatus, err error) {
	err = n.do(ctx, func(e *engine) error {
		list, err = n.peers(ctx, e)
		return err
	})
	return list, err
}

// Counters are the node's counters: cheap enough to be asked every second.
func (n *Node) Counters() Counters {
	var c Counters
	c.GuardCounters, _ = n.guard.snapshot()
	if n.mesh != nil {
		c.PeersTotal, c.PeersConnected = n.mesh.book.counts()
		c.HandshakesStarted, c.HandshakesCompleted = n.mesh.handshakesStarted.Load(), n.mesh.handshakesDone.Load()
	}
	if e := n.engines.get(); e != nil && e.replicator != nil {
		c.Replication = e.replicator.Counters()
	}
	return c
}

// Totals are what a line of statistics shows.
type Totals struct {
	Counters Counters
	Ops      uint64 // held durably, over all spaces
	// PendingOps is the sum over all peers, as in PeerStatus.
	PendingOps uint64
	// Settled: the frontiers of all spaces were compared with every connected peer.
	Settled bool
	// Ended: a space is not exchanged with some connected peer because a certificate has
	// ended.
	Ended   bool
	Sync    SyncProgress
	Damaged bool // there is damage that is not repaired yet
}

// Totals sums up Status: cheap enough to be asked every second.
func (n *Node) Totals(ctx context.Context) (Totals, error) {
	t := Totals{Counters: n.Counters(), Settled: true}
	damage, _ := n.health.snapshot()
	t.Damaged = len(damage) > 0
	err := n.do(ctx, func(e *engine) error {
		t.Ops = e.ops.Load()
		if e.replicator == nil {
			return nil
		}
		sums, err := e.replicator.Totals(ctx)
		if err != nil {
			return err
		}
		t.PendingOps, t.Settled = sums.PendingOps, sums.Settled
		t.Ended = n.mesh.anyEnded()
		missing := uint64(0)
		for _, ops := range sums.MissingOps {
			missing += ops
		}
		t.Sync = n.sync.progress(time.Now(), missing, t.Ops)
		return nil
	})
	return t, err
}

// anyEnded tells whether a certificate that has ended keeps a space out of a session.
func (m *mesh) anyEnded() bool {
	return m.members != nil && slices.ContainsFunc(m.book.sessions(), func(s *session) bool {
		return len(m.members.endedSpaces(s.info.Key, s.shown)) > 0
	})
}

func (n *Node) endpoints() []EndpointStatus {
	_, list := n.guard.snapshot()
	if n.dialer != nil {
		n.dialer.describe(list)
	}
	for i := range list {
		list[i].Endpoint = endpointText(list[i].Endpoint)
	}
	slices.SortFunc(list, func(a, b EndpointStatus) int { return cmp.Compare(a.Endpoint, b.Endpoint) })
	return list
}

// viewPatience is how long Status waits for the view to apply what is held, so
// that it shows what was written just before.
const viewPatience = 500 * time.Millisecond

// spaceStatus sums up a space; soon bounds the wait for the view.
func spaceStatus(ctx, soon context.Context, e *engine, id replication.SpaceID) (SpaceStatus, error) {
	var st SpaceStatus
	st.ViewBehind = e.caughtUp(soon, id) != nil
	logs := e.store.Logs(id)
	for _, l := range logs {
		st.Ops += heldOps(l)
		st.Bytes += l.Bytes
		if l.Forked {
			st.ForkedLogs++
		}
	}
	st.Logs, st.FrontierDigest = len(logs), e.frontier(id).Root().String()
	sum, err := e.view.Summary(ctx, id)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, replication.ErrClosed) {
			return st, err
		}
		st.ViewError = err.Error() // the rest is still worth telling
		st.Sealed = errors.Is(err, replication.ErrNotReader)
		return st, nil
	}
	if err := e.view.Stats(id).Err; errors.Is(err, replication.ErrNoKey) {
		st.ViewError = err.Error() // what came before is shown
	}
	st.Keys, st.Conflicts, st.ViewDigest = sum.Keys, sum.Conflicts, sum.Digest.String()
	return st, nil
}

// peers joins what the book knows of peers with where replication stands.
func (n *Node) peers(ctx context.Context, e *engine) ([]PeerStatus, error) {
	if n.mesh == nil {
		return nil, nil
	}
	list, err := e.replicator.Status(ctx)
	if err != nil {
		return nil, err
	}
	all := n.mesh.book.snapshot()
	for id, st := range all {
		if known := n.addresses.addrs(id); !st.live() && len(known) > 0 {
			st.Addr = readableTarget(known[0])
		}
		if until, why := n.mesh.gate.putOut(id); !st.live() && !until.IsZero() {
			st.PutOut, st.LastError = until, (&putOutError{until: until, why: why}).Error()
		}
	}
	for i := range list {
		p := &list[i]
		id, err := peerIDOf(p.Key)
		if err != nil {
			continue
		}
		st := all[id]
		if st == nil {
			st = &PeerStatus{PeerID: id.String(), Label: p.Label, State: Disconnected}
			all[id] = st
		}
		st.RTT, st.LastAck = p.RTT, p.LastAck
		st.Settled, st.Durability = p.Settled(), p.Durability.String()
		st.PendingOps, st.PendingBytes, st.MissingOps = p.PendingOps, p.PendingBytes, p.MissingOps
		st.Paused, st.Spaces = nil, map[string]PeerSpaceStatus{}
		for _, l := range p.Paused {
			st.Paused = append(st.Paused, PausedLog{Space: n.spaceLabel(l.Space), Log: l.Log.String(), Why: pauseReason(l), Here: l.Local})
		}
		for _, sp := range p.Spaces {
			st.Spaces[n.spaceLabel(sp.Space)] = PeerSpaceStatus{PendingOps: sp.PendingOps, PendingBytes: sp.PendingBytes, MissingOps: sp.MissingOps, Settled: sp.Settled}
		}
		n.tellEnded(id, st)
	}
	out := make([]PeerStatus, 0, len(all))
	for _, st := range all {
		out = append(out, *st)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int {
		return cmp.Or(cmp.Compare(b2i(!a.live()), b2i(!b.live())), cmp.Compare(a.PeerID, b.PeerID))
	})
	return out, nil
}

// tellEnded adds the spaces that the session with a peer goes on without.
func (n *Node) tellEnded(id peer.ID, st *PeerStatus) {
	s := n.mesh.book.live(id)
	if s == nil || n.members == nil {
		return
	}
	for space, why := range n.members.endedSpaces(s.info.Key, s.shown) {
		name := n.spaceLabel(space)
		sp := st.Spaces[name]
		sp.Settled, sp.Why = false, why
		st.Spaces[name], st.Settled = sp, false
	}
}

// compared tells whether the frontiers of all spaces that are exchanged were compared.
func (p *PeerStatus) compared() bool {
	for _, sp := range p.Spaces {
		if !sp.Settled && sp.Why == "" {
			return false
		}
	}
	return len(p.Spaces) > 0
}

func (p *PeerStatus) live() bool { return p.State == Connected || p.State == Stale }

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func pauseReason(l replication.LogPaused) string {
	switch {
	case l.Detail == "":
		return l.Code.String()
	case strings.HasPrefix(l.Detail, l.Code.String()):
		return l.Detail // says it already
	}
	return l.Code.String() + ": " + l.Detail
}

func (n *Node) spaceLabel(id replication.SpaceID) string {
	return spaceLabel(replication.SpaceInfo{ID: id, Name: n.names.name(id)})
}

// copied tells that peers have sessions with another node of this one's identity.
func (b *peerBook) copied(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.records {
		lasts := r.session != nil && now.Sub(r.session.since) >= refusalPause // the other one has ended
		if r.displaced >= displacedWarning && !lasts {
			return true
		}
	}
	return false
}

// snapshot is what the book knows, by peer.
func (b *peerBook) snapshot() map[peer.ID]*PeerStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[peer.ID]*PeerStatus, len(b.records))
	for id, r := range b.records {
		if r.forgotten {
			continue
		}
		st := &PeerStatus{
			PeerID: id.String(), Label: r.label, State: r.state(), Addr: r.addr,
			Skew: r.skew, Copies: r.copies, LastError: r.lastErr,
		}
		if r.session != nil {
			st.Direction, st.Since, st.LastError = direction(r.outbound), r.session.since, ""
			st.Relayed = relayed(r.session.conn)
		}
		if len(r.instances) > 0 {
			st.Instance = r.instances[len(r.instances)-1].String()
		}
		out[id] = st
	}
	return out
}

func (h *health) snapshot() ([]Damage, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.open), h.count
}
