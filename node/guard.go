package node

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"vixp2p/protocols"
)

// attemptKind says who wants a dial.
type attemptKind int

const (
	// automatic: found by discovery, a registry or memory.
	automatic attemptKind = iota
	// manual: named by the user, in the configuration or by Connect.
	manual
)

// Limits of the connection guard (design 8). They are those of the program that
// this one follows, so that its users see the pace that they know.
const (
	dedupeWindow     = 900 * time.Millisecond // between automatic attempts at one endpoint
	manualBackoff    = 2500 * time.Millisecond
	manualBackoffMax = 12 * time.Second
	autoBackoff      = 2 * time.Second
	autoBackoffMax   = 15 * time.Second
	// After failuresInVain an automatic backoff grows on, to vainBackoffMax: nobody
	// waits for a peer that is away for good. What no waiting mends, such as this
	// node's own address, backs off that long at once.
	failuresInVain = 8
	vainBackoffMax = 5 * time.Minute
	// A peer that is busy has its sessions, and automatic attempts go elsewhere.
	busyBackoff = 30 * time.Second
	// heardPause is the least time between attempts at an endpoint whose peer is
	// heard again and again: whoever announces others' addresses does not make this
	// node storm them.
	heardPause = 3 * time.Second
	// jitterPart: a backoff is shortened by up to 1/jitterPart of itself, so
	// that peers which lost each other at one moment do not meet in step.
	jitterPart = 5
	// maxEndpoints bounds the endpoints that the guard remembers; beyond it the
	// one unused for the longest time is forgotten.
	maxEndpoints = 4096
	// An endpoint that fails and that nobody dials by itself, such as a mistyped
	// one, is forgotten after forgetAfter; no more than maxStrays are kept.
	forgetAfter = 10 * time.Minute
	maxStrays   = 64
)

// verdict is the guard's answer to "may this endpoint be dialled now?".
type verdict int

const (
	admitted verdict = iota
	// deduped: the same endpoint is being dialled, or was so a moment ago.
	deduped
	// backingOff: it failed and its time has not come.
	backingOff
)

// guard decides when an endpoint may be dialled. It is pure but for its lock:
// times are passed in, nothing waits.
type guard struct {
	rand func(n int64) int64 // jitter in [0, n); nil: none

	mu        sync.Mutex // guards everything below
	endpoints map[string]*endpointState
	counters  GuardCounters
}

// GuardCounters count what the connection guard did since the node opened.
type GuardCounters struct {
	ConnectAttempts  uint64 // dials that were made
	ConnectDeduped   uint64 // dials not made: the same was under way or just made
	ConnectFailures  uint64 // dials and handshakes that failed
	BackoffSkips     uint64 // dials not made: the endpoint was backing off
	TrackedEndpoints int    // endpoints that the guard knows now
}

// endpointState is what the guard knows of one endpoint.
type endpointState struct {
	inFlight bool
	last     time.Time // start of the last attempt
	failures int       // in a row; invariant: 0 exactly when until is zero
	until    time.Time // no attempt before this
	lastErr  error     // of the last attempt, nil after success
	lastKind attemptKind
}

// EndpointStatus tells about one endpoint that the node has dialled.
type EndpointStatus struct {
	Endpoint string    // scheme://host:port, or the multiaddr of a way through a relay
	Failures int       // in a row; 0 after success
	Next     time.Time // when it is tried again; zero: at any time, or nobody names it any more
	Error    string    // why the last attempt failed; empty after success
	Dialing  bool      // an attempt is under way
	// Sources tells who named it: static (the configuration), connect (Connect),
	// bootstrap (a member named for the DHT), lan, dht, registry, remembered; none:
	// nobody any more.
	Sources []string
	PeerID  string // who answers there, or is said to; empty: not known
}

func newGuard(rand func(n int64) int64) *guard {
	return &guard{rand: rand, endpoints: map[string]*endpointState{}}
}

// begin asks for an attempt at the endpoint. After admitted the caller must
// report succeed or fail. With backingOff it returns when the endpoint's time
// comes, with deduped when to ask again.
func (g *guard) begin(now time.Time, endpoint string, kind attemptKind) (verdict, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.trackLocked(endpoint)
	switch {
	case e.inFlight:
		g.counters.ConnectDeduped++
		return deduped, now.Add(dedupeWindow)
	case now.Before(e.until):
		g.counters.BackoffSkips++
		return backingOff, e.until
	case kind == automatic && !e.last.IsZero() && now.Sub(e.last) < dedupeWindow:
		g.counters.ConnectDeduped++
		return deduped, e.last.Add(dedupeWindow)
	}
	e.inFlight, e.last, e.lastKind = true, now, kind
	g.counters.ConnectAttempts++
	return admitted, time.Time{}
}

// dedupe counts a dial that was not made because its peer is connected or on
// the way.
func (g *guard) dedupe() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counters.ConnectDeduped++
}

// succeed ends an attempt well: the backoff is cleared.
func (g *guard) succeed(endpoint string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.trackLocked(endpoint)
	e.inFlight, e.failures, e.until, e.lastErr = false, 0, time.Time{}, nil
}

// release ends an attempt that says nothing about the endpoint: its session
// lost against another of the same pair, or the node is closing.
func (g *guard) release(endpoint string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trackLocked(endpoint).inFlight = false
}

// fail ends an attempt badly, or tells that what an attempt brought was lost at
// once, and returns when the endpoint may be tried again.
func (g *guard) fail(now time.Time, endpoint string, err error) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.trackLocked(endpoint)
	e.inFlight, e.lastErr = false, err
	e.failures++
	e.until = now.Add(g.delayLocked(e.lastKind, e.failures, err))
	g.counters.ConnectFailures++
	return e.until
}

// heard clears the backoff of an endpoint whose peer was heard, unless an attempt
// was made a moment ago or the peer said that it is busy. It tells whether the
// endpoint may be dialled now.
func (g *guard) heard(now time.Time, endpoint string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.endpoints[endpoint]
	if e == nil || e.failures == 0 || e.inFlight || now.Sub(e.last) < heardPause || errors.Is(e.lastErr, protocols.ErrBusy) {
		return false
	}
	e.failures, e.until = 0, time.Time{}
	return true
}

// goOn lets an endpoint be dialled at once: its session was of use, and a relay cut
// it at a limit.
func (g *guard) goOn(endpoint string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.endpoints[endpoint]; e != nil {
		e.last = time.Time{}
	}
}

// forgiveAll clears every backoff; why attempts failed stays known until the next
// ones.
func (g *guard) forgiveAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.endpoints {
		e.failures, e.until = 0, time.Time{}
	}
}

// forgive clears the backoff of an endpoint whose peer is connected, whoever
// dialled.
func (g *guard) forgive(endpoint string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.endpoints[endpoint]; e != nil && !e.inFlight {
		e.failures, e.until, e.lastErr = 0, time.Time{}, nil
	}
}

// prune forgets strays: endpoints whose last attempt failed and that are not to
// be kept, when they are old, too many, or addresses of connected peers, which
// reached tells.
func (g *guard) prune(now time.Time, keep func(endpoint string) bool, reached func() map[string]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var strays []string
	for name, e := range g.endpoints {
		switch {
		case e.failures == 0 || e.inFlight || keep(name):
		case now.Sub(e.last) >= forgetAfter:
			delete(g.endpoints, name)
		default:
			strays = append(strays, name)
		}
	}
	if len(strays) == 0 {
		return
	}
	connected := reached()
	strays = slices.DeleteFunc(strays, func(name string) bool {
		if connected[name] {
			delete(g.endpoints, name)
		}
		return connected[name]
	})
	slices.SortFunc(strays, func(a, b string) int { return g.endpoints[a].last.Compare(g.endpoints[b].last) })
	for _, name := range strays[:max(0, len(strays)-maxStrays)] {
		delete(g.endpoints, name)
	}
}

// next is the earliest time at which begin would admit an automatic attempt.
func (g *guard) next(endpoint string) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.endpoints[endpoint]
	if e == nil || e.last.IsZero() {
		return time.Time{}
	}
	if at := e.last.Add(dedupeWindow); at.After(e.until) {
		return at
	}
	return e.until
}

// failures is how many attempts at the endpoint failed in a row, and why the last
// one did.
func (g *guard) failures(endpoint string) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.endpoints[endpoint]; e != nil {
		return e.failures, e.lastErr
	}
	return 0, nil
}

func (g *guard) delayLocked(kind attemptKind, failures int, err error) time.Duration {
	d, most := autoBackoff, autoBackoffMax
	switch {
	case errors.Is(err, ErrSelf):
		d, most = vainBackoffMax, vainBackoffMax
	case kind == manual:
		d, most = manualBackoff, manualBackoffMax
	case errors.Is(err, protocols.ErrBusy):
		d, most = busyBackoff, vainBackoffMax
	case failures > failuresInVain:
		d, most, failures = autoBackoffMax, vainBackoffMax, failures-failuresInVain+1
	}
	for i := 1; i < failures && d < most; i++ {
		d *= 2
	}
	d = min(d, most)
	if g.rand != nil {
		d -= time.Duration(g.rand(int64(d / jitterPart)))
	}
	return d
}

// trackLocked returns the endpoint's state and makes room for it.
func (g *guard) trackLocked(endpoint string) *endpointState {
	if e := g.endpoints[endpoint]; e != nil {
		return e
	}
	if len(g.endpoints) >= maxEndpoints {
		var oldest string
		var at time.Time
		for name, e := range g.endpoints {
			if !e.inFlight && (oldest == "" || e.last.Before(at)) {
				oldest, at = name, e.last
			}
		}
		delete(g.endpoints, oldest)
	}
	e := &endpointState{}
	g.endpoints[endpoint] = e
	return e
}

// snapshot returns the counters and what is known of every endpoint.
func (g *guard) snapshot() (GuardCounters, []EndpointStatus) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.counters
	c.TrackedEndpoints = len(g.endpoints)
	list := make([]EndpointStatus, 0, len(g.endpoints))
	for name, e := range g.endpoints {
		s := EndpointStatus{Endpoint: name, Failures: e.failures, Next: e.until, Dialing: e.inFlight}
		if e.lastErr != nil {
			s.Error = e.lastErr.Error()
		}
		list = append(list, s)
	}
	return c, list
}

// BackoffError: an endpoint failed a moment ago and is not tried again yet.
type BackoffError struct {
	Endpoint string
	Wait     time.Duration
	Last     error // why it failed
}

func (e *BackoffError) Error() string {
	return fmt.Sprintf("%s failed a moment ago (%v): it can be tried again in %s", endpointText(e.Endpoint), e.Last, e.Wait.Round(100*time.Millisecond))
}
func (e *BackoffError) Unwrap() error { return e.Last }
