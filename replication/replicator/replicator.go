package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vixp2p/replication"
)

// Options say what a Replicator works with. Only Store is required; zero values
// give the defaults in parentheses. Times of the session left zero are
// replication.SessionConfig's.
type Options struct {
	Store  replication.Store
	Logger *slog.Logger // (discards)
	// Spaces known besides those that have a log in the store.
	Spaces []replication.SpaceInfo
	// Control is the space of the control logs, which is replicated before all
	// others. (None: an open network.)
	Control replication.SpaceID
	// ApplyTrust is called when a session has everything of the control space that
	// its peer stated, and returns at once: it calls applied, from any goroutine, when
	// the store has the limits that follow from what it holds (Store.Restrict). Until
	// then the session exchanges no data, for at most 30 s. (The data begins at once.)
	ApplyTrust func(applied func())
	// Carries tells whether a member that has no session gets the blocks of a space:
	// what is pending towards it counts these alone. (Every space.) It is quick, and
	// called from several goroutines.
	Carries func(replication.OriginKey, replication.SpaceID) bool
	// OnSpace says whether to take part in a space that a peer named. (Yes.)
	OnSpace func(replication.SpaceInfo) bool
	// Observe hears of what sessions report: StateChanged, Settled, RTT,
	// DataLoss, LogPaused, ControlLate, CloseSession. It is called from the peer's actor and
	// must return at once. (Nobody does.)
	Observe func(p *Peer, e replication.Effect)
	// CodeOf is the code with which a connection is closed whose Read or Write
	// failed. (CodeInternal.)
	CodeOf func(error) replication.Code
	Budget *Budget // of received runs (NewBudget(0))
	// Verifiers is how many runs are verified at a time (GOMAXPROCS).
	Verifiers int

	WindowBytes int // in flight towards one peer
	PieceBytes  int // runs are sent in ranges of at most this (256 KiB; negative: whole)
	PingEvery   time.Duration
	StaleAfter  time.Duration
	CloseAfter  time.Duration
	RetryAfter  time.Duration
	RetryMax    time.Duration
	// SlowAfter is for how long a peer may take nothing of what is sent to it
	// before its session ends with CodeSlowReader (30 s); QueueBytes is how much
	// may wait for it (32 MiB).
	SlowAfter  time.Duration
	QueueBytes int
	// Up and Down bound how fast runs are sent and received, over all sessions. (As
	// fast as they go.)
	Up, Down *Pace
	// ByeAfter is for how long a session that ends waits for its last messages
	// to be taken (2 s).
	ByeAfter time.Duration
	// MaxSpaces bounds the spaces that are taken from peers (1024).
	MaxSpaces int
	// MeshDegree is how many sessions push what is new in logs in which nothing
	// happened lately, if there are more than MeshFew; the others announce it, and
	// frontiers are compared with them again after each ExchangeEvery.
	// (replication.MeshConfig's.)
	MeshDegree, MeshFew int
	ExchangeEvery       time.Duration
	// Rand gives jitter in [0, n). (None.)
	Rand func(n int64) int64
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Budget == nil {
		o.Budget = NewBudget(0)
	}
	if o.CodeOf == nil {
		o.CodeOf = func(error) replication.Code { return replication.CodeInternal }
	}
	if o.Verifiers <= 0 {
		o.Verifiers = runtime.GOMAXPROCS(0)
	}
	if o.PieceBytes == 0 {
		o.PieceBytes = 256 << 10
	}
	def(&o.SlowAfter, 30*time.Second)
	def(&o.ByeAfter, 2*time.Second)
	if o.QueueBytes <= 0 {
		o.QueueBytes = 32 << 20
	}
	if o.MaxSpaces <= 0 {
		o.MaxSpaces = 1024
	}
	return o
}

// Replicator keeps one node's logs in step with those of its peers. All methods
// are safe for concurrent use.
type Replicator struct {
	o         Options
	store     replication.Store
	self      replication.StoreInfo
	verify    chan struct{} // holds a token per run that is being verified
	stop      func()        // ends the subscription
	kept      partials
	receipts  *receipts
	mesh      *mesh
	changes   bell          // rung when a session may have come in step, came or went
	waiting   atomic.Int64  // WaitSynced calls under way
	quit      chan struct{} // closed when no session will live any more
	total     counters      // of sessions that ended
	warnings  warnings
	frontiers frontiers
	// generation counts the sessions that came and went, became stale, or fell out
	// of step while somebody waits.
	generation atomic.Uint64

	sessions sync.WaitGroup // actors; each waits for its own goroutines
	ingests  pending        // runs that the store has not answered yet

	mu      sync.Mutex // guards below; never held during a call of the store, a hook or a connection
	closed  bool
	sources uint64            // the last session's number
	entries atomic.Int64      // of peers' frontiers that are held, see frontiers.go
	peers   []*Peer           // live sessions, oldest first
	shares  map[string]*share // by peer
	spaces  map[replication.SpaceID]replication.SpaceInfo
	// grown is how many operations of a space became durable since New; retreats
	// counts the cuts that took some back.
	grown    map[replication.SpaceID]uint64
	retreats uint64
}

// New starts replicating for a store. Close it before the store.
func New(o Options) (*Replicator, error) {
	if o.Store == nil {
		return nil, errors.New("a replicator needs a store")
	}
	o = o.withDefaults()
	r := &Replicator{
		o: o, store: o.Store, self: o.Store.Info(),
		verify:    make(chan struct{}, o.Verifiers),
		shares:    map[string]*share{},
		quit:      make(chan struct{}),
		spaces:    map[replication.SpaceID]replication.SpaceInfo{},
		grown:     map[replication.SpaceID]uint64{},
		frontiers: frontiers{store: o.Store, spaces: map[replication.SpaceID]*spaceFrontier{}},
	}
	var err error
	if r.receipts, err = newReceipts(o.Store); err != nil {
		return nil, fmt.Errorf("what peers stated earlier cannot be read: %w", err)
	}
	r.mesh = newMesh(&r.o)
	for _, id := range o.Store.Spaces() {
		r.spaces[id] = replication.SpaceInfo{ID: id}
	}
	if o.Control != (replication.SpaceID{}) {
		r.spaces[o.Control] = replication.SpaceInfo{ID: o.Control}
	}
	for _, s := range o.Spaces {
		r.spaces[s.ID] = s
	}
	for id := range r.spaces {
		r.mesh.addSpace(id)
	}
	r.stop = o.Store.Subscribe(r.advanced)
	return r, nil
}

// Budget is the budget of received runs: the connection reserves from an account
// of it before it reads an attachment.
func (r *Replicator) Budget() *Budget { return r.o.Budget }

// Attach starts a session with a peer over conn and returns at once; conn is the
// replicator's from then on. Several sessions with one peer may live side by
// side; which one stays is for the caller to decide (design 7.3). ErrClosed
// after Close.
func (r *Replicator) Attach(info PeerInfo, conn Conn) (*Peer, error) {
	for _, s := range info.Spaces {
		if r.carries(&info, s.ID) {
			r.meet(s)
		}
	}
	r.receipts.meet(&info)

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, replication.ErrClosed
	}
	r.sources++
	p := newPeer(r, info, conn, r.sources, r.shareLocked(info.ID, time.Now()))
	r.peers = append(r.peers, p)
	// The session starts with the spaces of this moment and hears of all later
	// ones, because both happen under the lock.
	spaces := slices.Collect(maps.Values(r.spaces))
	r.receipts.attach(p)
	r.generation.Add(1)
	r.sessions.Go(func() { p.run(spaces) })
	return p, nil
}

// AddSpace makes a space known to all sessions. A name completes a space that
// was known by its id alone.
func (r *Replicator) AddSpace(s replication.SpaceInfo) {
	r.mesh.addSpace(s.ID) // before it is written in
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addSpaceLocked(s)
}

func (r *Replicator) addSpaceLocked(s replication.SpaceInfo) {
	have, ok := r.spaces[s.ID]
	if ok && (have.Name != "" || s.Name == "") {
		return
	}
	r.spaces[s.ID] = s
	for _, p := range r.peers {
		p.box.post(item{event: replication.SpaceAdded{Space: s}})
	}
}

// carries tells whether a session with this peer may have a space.
func (r *Replicator) carries(info *PeerInfo, space replication.SpaceID) bool {
	return info.Carries == nil || space == r.o.Control || info.Carries(space)
}

// memberCarries tells whether a member may have a space, by its newest session if it
// has one.
func (r *Replicator) memberCarries(key replication.OriginKey, session *Peer, space replication.SpaceID) bool {
	if session != nil {
		return r.carries(&session.info, space)
	}
	return r.o.Carries == nil || r.o.Carries(key, space)
}

// spaceName is a space's name, or its id where that is not known.
func (r *Replicator) spaceName(id replication.SpaceID) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.spaces[id]; s.Name != "" {
		return s.Name
	}
	return id.String()
}

// meet takes a space that a peer named, if it is to be taken, and tells whether
// this node takes part in it.
func (r *Replicator) meet(s replication.SpaceInfo) bool {
	r.mu.Lock()
	have, ok := r.spaces[s.ID]
	full := len(r.spaces) >= r.o.MaxSpaces
	r.mu.Unlock()
	switch {
	case ok && (have.Name != "" || s.Name == ""):
	case !ok && full:
		r.warnings.warn(r.o.Logger, "a peer names one more space than this node takes", "space", s.ID, "limit", r.o.MaxSpaces)
	case s.Name != "" && replication.SpaceOf(r.self.Network, s.Name) != s.ID: // the name of another space
	case r.o.OnSpace == nil || r.o.OnSpace(s):
		r.AddSpace(s)
		return true
	}
	return ok
}

// advanced is called by the store's committer whenever a log grew durably or was
// taken back.
func (r *Replicator) advanced(a replication.Advance) {
	if a.Retreat {
		r.frontiers.note(a)
		r.retreated(a)
	} else {
		r.grew(a)
	}
	r.mesh.advanced(a)
}

// grew tells the sessions of what is durable now. They hear of it as soon as the next
// frontier has it: to one that compared such a frontier with its peer's and had not
// heard, the peer would seem to have lost what it was never sent.
func (r *Replicator) grew(a replication.Advance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frontiers.note(a)
	r.grown[a.Space] += a.Tip.Seq - a.Prev.Seq
	if _, ok := r.spaces[a.Space]; !ok {
		r.addSpaceLocked(replication.SpaceInfo{ID: a.Space})
	}
	for _, p := range r.peers {
		if p.source == a.Source {
			p.count.opsIn.Add(a.Ops)
		}
		p.box.advance(a)
	}
}

// retreated ends every session that may have the log: what it knows of it, and the
// peer of it, is from before the cut. The next session begins with what counts now.
func (r *Replicator) retreated(a replication.Advance) {
	r.receipts.retreated(a)
	r.generation.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retreats++
	for _, p := range r.peers {
		if r.carries(&p.info, a.Space) {
			p.Close(replication.CodeTrustChanged, "a log was cut")
		}
	}
}

// forwardFork sends a proof to every session but the one that it came from.
func (r *Replicator) forwardFork(space replication.SpaceID, proof replication.ForkProof, except *Peer) {
	except.warn("a log has two branches: its origin wrote twice (a copied machine?)",
		"log", proof.Log, "origin", proof.Origin)
	for _, p := range r.Peers() {
		if p != except {
			p.post(item{event: replication.ForkKnown{Space: space, Proof: proof}})
		}
	}
}

// detach forgets a session that ended.
func (r *Replicator) detach(p *Peer) {
	r.mu.Lock()
	r.peers = slices.DeleteFunc(r.peers, func(o *Peer) bool { return o == p })
	r.total.add(&p.count)
	r.mu.Unlock()
	r.mesh.detach(p)
	r.receipts.detach(p)
	r.recount(p.info.Key)
	r.generation.Add(1)
	r.changes.ring()
}

// Peers are the live sessions, oldest first.
func (r *Replicator) Peers() []*Peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.peers)
}

// Close acknowledges what peers have sent, if the store has it within a second, says
// Bye to them, ends all sessions and waits until nothing runs any more. When ctx ends
// it stops being polite: connections are closed at once. The error tells of runs that
// the store has not answered by then.
func (r *Replicator) Close(ctx context.Context) error {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	peers := slices.Clone(r.peers)
	r.mu.Unlock()
	var leaving sync.WaitGroup
	for _, p := range peers {
		leaving.Go(func() { p.leave(ctx, replication.CodeShutdown, "") })
	}
	leaving.Wait()
	cut := make(chan struct{})
	polite := context.AfterFunc(ctx, func() {
		defer close(cut)
		var all sync.WaitGroup
		for _, p := range r.Peers() {
			all.Go(func() { p.cut() })
		}
		all.Wait()
	})
	r.sessions.Wait()
	if !polite() {
		<-cut
	}
	if first {
		close(r.quit)
		r.stop()
		r.mesh.close()
	}
	if n := r.ingests.wait(ctx); n > 0 {
		return fmt.Errorf("the store has not answered %d runs: %w", n, context.Cause(ctx))
	}
	return nil
}

// pending counts what is under way; unlike a WaitGroup it can be waited for with
// a limit.
type pending struct {
	mu   sync.Mutex // guards below
	n    int
	zero chan struct{} // closed when n falls to 0; nil if nobody waits
}

func (c *pending) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
	if c.n == 0 && c.zero != nil {
		close(c.zero)
		c.zero = nil
	}
}

// wait returns how many are under way when none is or ctx ends.
func (c *pending) wait(ctx context.Context) int {
	c.mu.Lock()
	if c.n == 0 {
		c.mu.Unlock()
		return 0
	}
	if c.zero == nil {
		c.zero = make(chan struct{})
	}
	zero := c.zero
	c.mu.Unlock()
	select {
	case <-zero:
		return 0
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.n
	}
}
