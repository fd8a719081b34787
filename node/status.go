package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/replication"
	"vixp2p/replication/kv"
	"vixp2p/replication/replicator"
)

// Status is what a node tells about itself.
type Status struct {
	PeerID      string
	Label       string
	Instance    string // hex; of the data directory's history
	Network     string // "open", or the network's id in hex
	NetworkName string // of an open network
	DataDir     string
	Listen      []string // multiaddrs
	Durability  Durability
	Offline     bool
	// Recovered tells what opening the data directory found wrong with it; empty
	// if nothing.
	Recovered string
	// Damage is damaged data that was found while the node ran and is not
	// repaired yet; Repairs counts repairs since the start.
	Damage  []Damage
	Repairs int

	Peers []PeerStatus // connected first, then by peer ID
	// Endpoints are the addresses that the node has dialled, by name.
	Endpoints []EndpointStatus
	Counters  Counters
	Spaces    map[string]SpaceStatus // by name; by id in hex where the name is not known
	Sync      SyncProgress
}

// PeerStatus is one peer as this node sees it.
type PeerStatus struct {
	PeerID    string
	Label     string // the peer's choice; empty while not known
	Instance  string // hex; of the newest session
	State     State
	Direction string // "in" or "out" of the session; empty without one
	Addr      string
	Since     time.Time // start of the session
	RTT       time.Duration
	Skew      time.Duration // by how much its clock is ahead
	// Pending is durable here and not stated by the peer; Missing is stated by
	// the peer and not durable here. Of a peer without a session Pending follows
	// from its last statement, and Missing is not known.
	PendingOps, PendingBytes, MissingOps uint64
	LastAck                              time.Time // its last statement; zero: none
	// LastError is why there is no session; empty with one.
	LastError string
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
	// FrontierDigest stands for the writes that are held, ViewDigest for what the
	// key-value view shows: equal at two nodes exactly if these are.
	FrontierDigest, ViewDigest string
	// ViewBehind tells that the view has not applied all that is held yet.
	ViewBehind bool
	// ViewError is why the view of this space cannot be read.
	ViewError string
}

// Status tells about the node, its peers and its spaces.
func (n *Node) Status(ctx context.Context) (Status, error) {
	st := Status{
		PeerID: n.ID(), Label: n.cfg.Label, Network: "open", NetworkName: n.cfg.NetworkName,
		DataDir: n.cfg.DataDir, Listen: n.Addrs(), Durability: n.cfg.Durability, Offline: n.cfg.Offline,
		Spaces: map[string]SpaceStatus{},
	}
	err := n.do(ctx, func(e *engine) (err error) {
		info := e.store.Info()
		st.Instance, st.Recovered = info.Instance.String(), info.Recovered
		soon, cancel := context.WithTimeout(ctx, viewPatience)
		defer cancel()
		for _, s := range n.names.list() {
			if st.Spaces[spaceLabel(s)], err = spaceStatus(ctx, soon, e, s.ID); err != nil {
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
	st.Counters, st.Endpoints = n.Counters(), n.endpoints()
	st.Sync = n.sync.progress(n.cfg.Now(), missingOf(st.Peers), opsOf(st.Spaces))
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

func (n *Node) endpoints() []EndpointStatus {
	_, list := n.guard.snapshot()
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
	entries := make([]replication.FrontierEntry, len(logs))
	for i, l := range logs {
		entries[i] = l.Entry()
		st.Ops += heldOps(l)
		st.Bytes += l.Bytes
		if l.Forked {
			st.ForkedLogs++
		}
	}
	st.Logs, st.FrontierDigest = len(logs), replication.FrontierRoot(entries).String()
	sum, err := e.view.Summary(ctx, id)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, replication.ErrClosed) {
			return st, err
		}
		st.ViewError = err.Error() // the rest is still worth telling
		return st, nil
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
		st.PendingOps, st.PendingBytes, st.MissingOps = p.PendingOps, p.PendingBytes, p.MissingOps
		st.Paused, st.Spaces = nil, map[string]PeerSpaceStatus{}
		for _, l := range p.Paused {
			st.Paused = append(st.Paused, PausedLog{Space: n.spaceLabel(l.Space), Log: l.Log.String(), Why: pauseReason(l), Here: l.Local})
		}
		for _, sp := range p.Spaces {
			st.Spaces[n.spaceLabel(sp.Space)] = PeerSpaceStatus{PendingOps: sp.PendingOps, PendingBytes: sp.PendingBytes, MissingOps: sp.MissingOps, Settled: sp.Settled}
		}
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

func (p *PeerStatus) live() bool { return p.State == Connected || p.State == Stale }

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func pauseReason(l replication.LogPaused) string {
	if l.Detail == "" {
		return l.Code.String()
	}
	return l.Code.String() + ": " + l.Detail
}

func (n *Node) spaceLabel(id replication.SpaceID) string {
	return spaceLabel(replication.SpaceInfo{ID: id, Name: n.names.name(id)})
}

// snapshot is what the book knows, by peer.
func (b *peerBook) snapshot() map[peer.ID]*PeerStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[peer.ID]*PeerStatus, len(b.records))
	for id, r := range b.records {
		st := &PeerStatus{
			PeerID: id.String(), Label: r.label, State: r.state(), Addr: r.addr,
			Skew: r.skew, Copies: r.copies, LastError: r.lastErr,
		}
		if r.session != nil {
			st.Direction, st.Since, st.LastError = direction(r.outbound), r.session.since, ""
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

// Connect makes a session with the peer at addr (host:port, tcp://host:port,
// quic://host:port or a multiaddr) and returns when Hello is done; from then on
// the node keeps that session. A dead port fails within 5 seconds.
//
// Errors: *DialError, *RefusedError, *BackoffError if it failed a moment ago,
// ErrSelf, ErrOffline.
func (n *Node) Connect(ctx context.Context, addr string) (peerID, endpoint string, err error) {
	if n.dialer == nil {
		return "", "", ErrOffline
	}
	t, err := parseTarget(addr)
	if err != nil {
		return "", "", err
	}
	id, err := n.dialer.connect(ctx, t)
	if err != nil {
		return "", "", err
	}
	return id.String(), t.Key, nil
}

// Disconnect ends the session with a peer, named by its ID or by a label that
// only it has, and does not dial it again until Connect or the next start. It
// returns the peer's ID.
func (n *Node) Disconnect(ctx context.Context, name string) (peerID string, err error) {
	if n.mesh == nil {
		return "", ErrOffline
	}
	id, err := n.mesh.book.find(name)
	if err != nil {
		return "", err
	}
	return id.String(), n.mesh.disconnect(ctx, id)
}

// WaitOptions is a condition on the node.
type WaitOptions struct {
	// Peers is how many peers must be Connected. Default 0.
	Peers int
	// Synced: at least one peer is connected, nothing is pending or missing with
	// any that is, and the key-value view has caught up. Logs that are forked or
	// cut count as synced.
	Synced bool
}

// Wait returns when the condition holds, at one moment; an error that says what
// is missing, and matches ctx's, if ctx ends first.
func (n *Node) Wait(ctx context.Context, w WaitOptions) error {
	if n.mesh == nil && (w.Peers > 0 || w.Synced) {
		return ErrOffline
	}
	if w.Peers > 0 {
		if err := n.mesh.book.waitConnected(ctx, n.ctx.Done(), w.Peers); err != nil {
			return err
		}
	}
	if !w.Synced {
		return n.do(ctx, func(*engine) error { return nil })
	}
	return n.do(ctx, func(e *engine) error {
		if err := e.replicator.WaitSynced(ctx); err != nil {
			return err
		}
		for _, id := range e.store.Spaces() {
			if err := e.caughtUp(ctx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// waitConnected waits for n peers in the state Connected.
func (b *peerBook) waitConnected(ctx context.Context, closed <-chan struct{}, n int) error {
	for {
		b.mu.Lock()
		have, changed := 0, b.changed
		for _, r := range b.records {
			if r.state() == Connected {
				have++
			}
		}
		b.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-closed:
			return errNodeClosed
		case <-ctx.Done():
			return fmt.Errorf("%d of %d peers are connected: %w", have, n, context.Cause(ctx))
		}
	}
}

// Finding is one thing that Verify found wrong.
type Finding struct {
	Log     string // hex; empty where no single log is concerned
	Seq     uint64
	File    string
	Problem string
}

// Verify checks every hash, signature and index of the logs and of the key-value
// view, and calls fn for each thing that is wrong. It may run beside writes.
func (n *Node) Verify(ctx context.Context, fn func(Finding)) error {
	tell := func(f replication.Finding) {
		out := Finding{Seq: f.Seq, File: f.File, Problem: f.Problem}
		if f.Log != (replication.LogID{}) {
			out.Log = f.Log.String()
		}
		fn(out)
	}
	return n.do(ctx, func(e *engine) error {
		if err := e.store.Verify(ctx, tell); err != nil {
			return err
		}
		return e.view.Verify(ctx, kv.VerifyOptions{}, tell)
	})
}

// RebuildView makes the key-value view anew from the logs and returns when it
// has caught up. Reads wait meanwhile.
func (n *Node) RebuildView(ctx context.Context) error {
	return n.do(ctx, func(e *engine) error { return e.view.Rebuild(ctx) })
}

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
		p = n.sync.progress(n.cfg.Now(), missingOf(list), have)
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
