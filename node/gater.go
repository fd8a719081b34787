package node

import (
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"
)

const (
	// gateFirst is for how long a peer is kept away after its second offence in a
	// row; it doubles with each further one, up to gateMost. The first is free: a
	// person who mistook the network gets a clear answer twice.
	gateFirst = time.Second
	gateMost  = 5 * time.Minute
	// maxGated bounds the peers that are remembered; beyond it the one that was not
	// seen for the longest time is forgotten.
	maxGated = 4096
	// A peer may begin helloBurst handshakes at once and then helloRate a second: a
	// session that begins costs each side a look at all of its logs.
	helloBurst = 30
	helloRate  = 1
)

// gate decides by peer ID who may connect: whoever was refused by Hello again and
// again, or broke the protocol, is kept away for a time that grows. In the second case
// it is put out: this node does not dial it either. It is pure but for its lock and the
// clock that it is given.
//
// Peer IDs cost nothing, so that the gate bounds what one costs and no more; the
// resource manager bounds those of one address.
type gate struct {
	now func() time.Time
	// joiners tells that somebody may come with a ticket, who may have been kept
	// away before; nil: nobody. Set before the first connection.
	joiners func() bool
	// streams is how many streams a peer may have, and begin in a second; 0: no bound.
	// flooded hears of one that begins more. Both are set before the first connection.
	streams int
	flooded func(peer.ID)

	mu    sync.Mutex // guards below
	peers map[peer.ID]*gated
}

// gated is what the gate knows of one peer.
type gated struct {
	seen     time.Time
	offences int       // in a row
	until    time.Time // kept away until then; zero: not
	// broke is what it did in a session, or beside it, at its last offence, or at one
	// whose time is not over; nil: it was refused by Hello.
	broke    error
	hellos   *rate.Limiter
	streams  *rate.Limiter // nil: it has begun none
	flooding bool          // it has begun too many, until calm
}

func newGate(now func() time.Time) *gate { return &gate{now: now, peers: map[peer.ID]*gated{}} }

// keepsAway tells whether a peer may not connect now.
func (g *gate) keepsAway(id peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[id]
	return p != nil && g.now().Before(p.until)
}

// hello counts a handshake that a peer begins; false if there are too many.
func (g *gate) hello(id peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.seenLocked(id)
	return p.hellos.AllowN(p.seen, 1)
}

// stream counts a stream that a peer begins; false if there are too many. news: it is
// the first that is, and flood is due.
func (g *gate) stream(id peer.ID) (ok, news bool) {
	if g.streams == 0 {
		return true, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[id]
	if p == nil {
		p = g.seenLocked(id)
	}
	if p.streams == nil {
		p.streams = rate.NewLimiter(rate.Limit(g.streams), streamBurst*g.streams)
	}
	if p.streams.AllowN(g.now(), 1) {
		return true, false
	}
	news = !p.flooding
	p.flooding = true
	return false, news
}

// calm ends what stream has called news, with or without flood.
func (g *gate) calm(id peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.peers[id]; p != nil {
		p.flooding = false
	}
}

// putOut tells until when this node leaves a peer alone that broke the protocol, and
// why: it is not dialled either. A zero time: it is not put out. Whoever was only
// refused by Hello may be dialled: it may belong here by now, and has said nothing yet.
func (g *gate) putOut(id peer.ID) (until time.Time, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.peers[id]; p != nil && p.out(g.now()) {
		return p.until, p.broke
	}
	return time.Time{}, nil
}

// allOut are the peers that are put out now.
func (g *gate) allOut() map[peer.ID]*putOutError {
	g.mu.Lock()
	defer g.mu.Unlock()
	all, now := map[peer.ID]*putOutError{}, g.now()
	for id, p := range g.peers {
		if p.out(now) {
			all[id] = &putOutError{until: p.until, why: p.broke}
		}
	}
	return all
}

func (p *gated) out(now time.Time) bool { return p.broke != nil && now.Before(p.until) }

// flood notes that a peer opens streams without end, and returns for how long it is
// kept away. No person does that by mistake: not even the first time is free.
func (g *gate) flood(id peer.ID) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.seenLocked(id)
	p.offences = max(p.offences, 1)
	return g.offenceLocked(p, errFlood)
}

// offence notes that a peer was refused by Hello, or, with broke, how it broke the
// protocol after it, and returns for how long it is kept away.
func (g *gate) offence(id peer.ID, broke error) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.offenceLocked(g.seenLocked(id), broke)
}

func (g *gate) offenceLocked(p *gated, broke error) time.Duration {
	p.offences++
	if broke != nil || !p.out(p.seen) {
		p.broke = broke
	}
	if p.offences == 1 {
		return 0
	}
	d := min(gateFirst<<min(p.offences-2, 16), gateMost)
	p.until = p.seen.Add(d)
	return d
}

// noisy tells whether so much is known against a peer, or so many of its handshakes
// were of late, that its sessions are no news.
func (g *gate) noisy(id peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[id]
	return p != nil && (p.offences > 0 || p.hellos.TokensAt(g.now()) < helloBurst/2)
}

// welcome notes a Hello that succeeded. It makes up for refusals, but not for what
// the peer did in a session: only a session that ends well does.
func (g *gate) welcome(id peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.peers[id]; p != nil && p.broke == nil {
		p.offences, p.until = 0, time.Time{}
	}
}

// forgive forgets what a peer did.
func (g *gate) forgive(id peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.peers[id]; p != nil {
		p.offences, p.until, p.broke = 0, time.Time{}, nil
	}
}

// seenLocked is the record of a peer, made if need be. What lies further back than
// the longest time that a peer is kept away does not count any more.
func (g *gate) seenLocked(id peer.ID) *gated {
	now := g.now()
	p := g.peers[id]
	if p == nil {
		if len(g.peers) >= maxGated {
			g.evictLocked()
		}
		p = &gated{hellos: rate.NewLimiter(helloRate, helloBurst)}
		g.peers[id] = p
	}
	if now.Sub(p.seen) > gateMost && now.Sub(p.until) > gateMost {
		p.offences, p.broke = 0, nil
	}
	p.seen = now
	return p
}

// evictLocked forgets the peer that was not seen for the longest time.
func (g *gate) evictLocked() {
	var oldest peer.ID
	var at time.Time
	for id, p := range g.peers {
		if oldest == "" || p.seen.Before(at) {
			oldest, at = id, p.seen
		}
	}
	delete(g.peers, oldest)
}

// putOutError: this node has put the peer out. Like errHeld, which it matches, it says
// nothing against the endpoint.
type putOutError struct {
	until time.Time
	why   error
}

func (e *putOutError) Error() string {
	return fmt.Sprintf("this node has put it out until %s: %v: connect to it to let it in before that", e.until.UTC().Format(time.RFC3339), e.why)
}

func (e *putOutError) Unwrap() error { return errHeld }

// gater asks the gate for a libp2p host. Only connections that peers begin are
// refused, once their peer ID is proven: whom this node dials, such as a relay, a
// name in the configuration, or an ID that nobody has (see connector.whoIs), the
// dialer decides, which asks the gate too (mesh.busy).
type gater struct{ gate *gate }

var _ connmgr.ConnectionGater = gater{}

func (gater) InterceptPeerDial(peer.ID) bool               { return true }
func (gater) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }
func (gater) InterceptAccept(network.ConnMultiaddrs) bool  { return true }
func (g gater) InterceptSecured(dir network.Direction, id peer.ID, _ network.ConnMultiaddrs) bool {
	return dir == network.DirOutbound || !g.gate.keepsAway(id) || g.gate.joiners != nil && g.gate.joiners()
}
func (gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
