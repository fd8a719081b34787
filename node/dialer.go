package node

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// maxDials bounds dials under way at one time, handshakes included; those of
	// callers that wait are not counted.
	maxDials = 8
	// answerTime is how long an attempt waits until somebody answers, all its
	// addresses and transports together; with connect the wait for a backoff to
	// end counts too. A dead port must fail within 5 s. What follows an answer has
	// the time of a handshake, Config.HelloTimeout.
	answerTime = 4 * time.Second
	// maxPatience: where nobody answered in time, the next attempts that nobody
	// waits for are more patient, up to so many times: a path may be slow.
	maxPatience = 4
	// leastTime is what connect must have left for an attempt after a backoff.
	leastTime = time.Second
	// attemptTimeout bounds an attempt whatever happens.
	attemptTimeout = time.Minute
	// shortSession: a session that ends sooner counts as a failed attempt, so
	// that a peer which accepts and breaks is not dialled in a loop.
	shortSession = 5 * time.Second
	// pruneEvery is how often addresses that are of no use are looked for.
	pruneEvery = time.Minute
)

// link is what the dialer needs of sessions.
type link interface {
	// establish connects to the target and completes Hello. It returns the peer
	// as soon as that is known, even with an error. hint is the peer that
	// answered there last time; nobody is waited for beyond by who has not
	// answered. What follows an answer has the time of a handshake. The error matches
	// errHeld if the user has wanted no session with that peer since later than before,
	// or if this node has put it out.
	establish(ctx context.Context, t target, hint peer.ID, by time.Time, before uint64) (peer.ID, error)
	// busy tells that a peer has a session that is not stale, or must not be
	// dialled because its user or ours asked for a disconnect, or because this node has
	// put it out; until is when that ends by itself, zero: with unhold only.
	busy(id peer.ID) (connected, held bool, until time.Time)
	// present makes sure that a peer with a session is there, which a dead path does
	// not tell for a while: it answers on the session, or at the target at least. An
	// error tells that it does not; errEnded: the session has ended meanwhile.
	present(ctx context.Context, t target, id peer.ID, by time.Time) error
	// relayed tells that a peer has a session, and that it goes through a relay.
	relayed(id peer.ID) bool
	// reached are the endpoints of peers that have a session, as far as they are
	// known.
	reached() map[string]bool
	// lastHold counts how often the user has asked for a disconnect, from any peer;
	// heldAfter tells whether that was of this peer, later than at the count before,
	// and stands. unhold lets a peer be dialled again unless heldAfter.
	lastHold() uint64
	heldAfter(id peer.ID, before uint64) bool
	unhold(id peer.ID, before uint64)
	// self is this node's peer ID.
	self() peer.ID
	// room is how many more sessions automatic attempts may make.
	room() int
}

// errLostRace: the handshake was complete, but another session of the same pair
// stays. It says nothing against the endpoint.
var errLostRace = errors.New("another session with this peer stays")

// errEnded: the session that there was has ended.
var errEnded = errors.New("the session has ended")

// dialer keeps sessions with the targets that its sources name: it alone dials,
// so that no endpoint and no peer is dialled twice at one time (design 8).
type dialer struct {
	guard *guard
	link  link
	now   func() time.Time
	log   *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // capacity 1

	mu       sync.Mutex // guards below
	targets  targetTable
	attempts map[string]*attempt // by endpoint; under way
}

// attempt is a dial under way; several callers may wait for it.
type attempt struct {
	target
	hint  peer.ID // who answered there last
	kind  attemptKind
	asked bool // a caller waits for it
	// before is the user's last disconnect when the caller asked; anyHold: nobody did.
	before uint64
	by     time.Time     // when it gives up if nobody answers
	done   chan struct{} // closed at the end
	id     peer.ID       // valid after done, like err
	err    error
}

// expected is the peer that the attempt leads to, as far as is known.
func (a *attempt) expected() peer.ID { return cmp.Or(a.ID, a.hint) }

func newDialer(g *guard, l link, now func() time.Time, log *slog.Logger) *dialer {
	ctx, cancel := context.WithCancel(context.Background())
	return &dialer{
		guard: g, link: l, now: now, log: log,
		ctx: ctx, cancel: cancel,
		wake:    make(chan struct{}, 1),
		targets: newTargetTable(), attempts: map[string]*attempt{},
	}
}

// start runs the sources and keeps their targets connected until close.
func (d *dialer) start(sources ...source) {
	for _, s := range sources {
		d.wg.Go(func() { s.run(d.ctx, d.offer) })
	}
	d.wg.Go(d.run)
}

// close ends every dial and waits for what was started.
func (d *dialer) close() {
	d.cancel()
	d.wg.Wait()
}

// kick makes the dialer look at its targets again.
func (d *dialer) kick() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// offer adds a target to keep a session with. One that is known, connected or
// backing off is counted as such.
func (d *dialer) offer(f found) {
	forgiven := f.heard && d.guard.heard(d.now(), f.Key) // before learn wakes the dialer
	known, room := d.learn(f)
	switch {
	case !room:
		level := slog.LevelDebug
		if f.kind() == manual {
			level = slog.LevelWarn
		}
		d.log.Log(d.ctx, level, "too many addresses to dial: this one is left out", "endpoint", endpointText(f.Key), "source", f.from, "limit", maxTargets)
	case forgiven:
	case !known:
	case d.now().Before(d.guard.next(f.Key)):
		d.guard.begin(d.now(), f.Key, f.kind()) // counts, and cannot admit
	default:
		d.guard.dedupe()
	}
}

// learn is offer without counting: nobody asks for a dial.
func (d *dialer) learn(f found) (known, room bool) {
	if f.kind() == automatic && f.ID == d.link.self() {
		return true, true
	}
	d.mu.Lock()
	known = d.targets.all[f.Key] != nil
	room = d.targets.add(f, d.useLocked)
	d.mu.Unlock()
	d.kick()
	return known, room
}

// useLocked ranks automatic targets by what is lost without them: nothing where
// attempts failed. What is dialled at this moment or connected stays.
func (d *dialer) useLocked(t *dialTarget) int {
	if d.attempts[t.Key] != nil {
		return -1
	}
	if id := t.expected(); id != "" {
		if connected, _, _ := d.link.busy(id); connected {
			return -1
		}
	}
	if failures, _ := d.guard.failures(t.Key); failures > 0 {
		return 0
	}
	return 1
}

// networkChanged tells that this machine has other addresses or routes than
// before, or was suspended: what failed may work now.
func (d *dialer) networkChanged() {
	d.guard.forgiveAll()
	d.kick()
}

// forget stops keeping sessions with a peer, but for what the configuration
// names.
func (d *dialer) forget(id peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.targets.forget(id)
}

// describe adds to endpoints who named them and who is expected there. What nobody
// names any more has no next attempt.
func (d *dialer) describe(list []EndpointStatus) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range list {
		e := &list[i]
		t := d.targets.all[e.Endpoint]
		if t == nil {
			e.Next = time.Time{}
			continue
		}
		e.Sources = slices.Sorted(maps.Keys(t.sources))
		if id := t.expected(); id != "" {
			e.PeerID = id.String()
			if _, held, until := d.link.busy(id); held && until.After(e.Next) {
				e.Next = until
			}
		}
	}
}

// run starts attempts that are due and sleeps until the next one is.
func (d *dialer) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := d.startDue()
		wait := pruneEvery
		if !next.IsZero() {
			wait = min(wait, max(next.Sub(d.now()), time.Millisecond))
		}
		timer.Reset(wait)
		select {
		case <-d.ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
	}
}

// startDue starts attempts at targets that are due, as many as there is room for,
// and returns when the next one will be; zero: not before something changes.
func (d *dialer) startDue() (next time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	d.targets.expire(now)
	d.guard.prune(now, func(key string) bool { return d.targets.all[key] != nil }, d.link.reached)
	due, next := d.dueLocked(now)
	inTurn(due)
	slots, room := maxDials, d.link.room()
	for _, a := range d.attempts {
		if !a.asked {
			slots--
		}
		if a.kind == automatic {
			room--
		}
	}
	for _, t := range due {
		if slots <= 0 {
			break // the end of an attempt wakes the dialer
		}
		if t.kind == automatic && room <= 0 {
			continue // the end of a session does
		}
		a, at := d.beginLocked(&attempt{target: t.target, hint: t.seen, kind: t.kind, by: time.Now().Add(d.patience(t.Key))})
		if a == nil {
			next = sooner(next, at)
			continue
		}
		slots--
		if t.kind == automatic {
			room--
		}
	}
	return next
}

// dueLocked finds the targets that are due, of each peer one alone, and when the
// next one will be.
func (d *dialer) dueLocked(now time.Time) (due []*dialTarget, next time.Time) {
	dialled := map[peer.ID]bool{}
	for _, a := range d.attempts {
		dialled[a.expected()] = true
	}
	best := map[peer.ID]*dialTarget{}
	for key, t := range d.targets.all {
		if d.attempts[key] != nil {
			continue
		}
		id := t.expected()
		if id != "" {
			connected, held, until := d.link.busy(id)
			switch {
			case connected && d.mayMove(t, id):
				connected = false
			case connected:
				d.guard.forgive(key)
			}
			if held && !until.IsZero() {
				next = sooner(next, until)
			}
			if connected || held || dialled[id] {
				continue
			}
		}
		switch at := d.guard.next(key); {
		case at.After(now):
			next = sooner(next, at)
		case id == "":
			due = append(due, t)
		case best[id] == nil || d.better(t, best[id]):
			best[id] = t
		}
	}
	return slices.AppendSeq(due, maps.Values(best)), next
}

// mayMove tells that a relayed session could move to this target: it is direct
// and has not failed since there was reason to believe in it.
func (d *dialer) mayMove(t *dialTarget, id peer.ID) bool {
	failures, _ := d.guard.failures(t.Key)
	return failures == 0 && !t.relayed() && d.link.relayed(id)
}

// better chooses between two endpoints of one peer: what failed less often, what
// leads to it without a relay, what a user named, what answered before, what was named first.
func (d *dialer) better(a, b *dialTarget) bool {
	af, _ := d.guard.failures(a.Key)
	bf, _ := d.guard.failures(b.Key)
	return cmp.Or(cmp.Compare(af, bf), cmp.Compare(b2i(a.relayed()), b2i(b.relayed())), cmp.Compare(b.kind, a.kind), cmp.Compare(b2i(b.proven), b2i(a.proven)), cmp.Compare(a.first, b.first)) < 0
}

// sooner is the earlier time; zero is none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// patience is for an attempt that nobody waits for. It grows where nobody has
// answered in time; a refusal comes fast or never.
func (d *dialer) patience(endpoint string) time.Duration {
	if failures, err := d.guard.failures(endpoint); err != nil && isTimeout(err) {
		return answerTime * time.Duration(min(1+failures, maxPatience))
	}
	return answerTime
}

// beginLocked starts an attempt if the guard allows it, and returns when to ask
// again if not.
func (d *dialer) beginLocked(a *attempt) (*attempt, time.Time) {
	if d.ctx.Err() != nil {
		return nil, time.Time{}
	}
	if v, at := d.guard.begin(d.now(), a.Key, a.kind); v != admitted {
		return nil, at
	}
	a.done = make(chan struct{})
	d.attempts[a.Key] = a
	d.wg.Go(func() { d.make(a) })
	return a, time.Time{}
}

// make makes an attempt and reports it to the guard and to who waits.
func (d *dialer) make(a *attempt) {
	defer close(a.done)
	ctx, cancel := context.WithTimeout(d.ctx, attemptTimeout)
	a.id, a.err = d.link.establish(ctx, a.target, a.hint, a.by, a.before)
	cancel()
	switch {
	case a.err == nil:
		d.guard.succeed(a.Key)
	case errors.Is(a.err, errLostRace):
		d.guard.release(a.Key)
		a.err = nil // there is a session with that peer
	case d.ctx.Err() != nil, errors.Is(a.err, errHeld):
		d.guard.release(a.Key)
	default:
		_, before := d.guard.failures(a.Key)
		again := d.guard.fail(d.now(), a.Key, a.err)
		level := slog.LevelWarn
		if a.kind == automatic || before != nil && before.Error() == a.err.Error() {
			level = slog.LevelDebug // no one asked for it; or it was said before
		}
		d.log.Log(d.ctx, level, "cannot connect", append([]any{"endpoint", endpointText(a.Key), "err", a.err}, d.retryIn(a.Key, again)...)...)
	}
	d.mu.Lock()
	delete(d.attempts, a.Key)
	if have := d.targets.all[a.Key]; have != nil && a.id != "" {
		have.seen, have.proven = a.id, true
	}
	d.mu.Unlock()
	d.kick()
}

// retryIn is the attribute that says when an endpoint is tried again; none where
// nobody names it, so that no attempt comes by itself.
func (d *dialer) retryIn(endpoint string, at time.Time) []any {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.targets.all[endpoint] == nil {
		return nil
	}
	return []any{"retry_in", at.Sub(d.now()).Round(100 * time.Millisecond)}
}

// again lets a peer be dialled at once: its session has ended so that a new one
// begins.
func (d *dialer) again(id peer.ID, endpoint string) {
	d.mu.Lock()
	var keys []string
	for key, t := range d.targets.all {
		if t.expected() == id {
			keys = append(keys, key)
		}
	}
	d.mu.Unlock()
	for _, key := range append(keys, endpoint) {
		d.guard.goOn(key)
		d.guard.forgive(key)
	}
}

// sessionEnded tells of the end of a session that came from an attempt at
// endpoint (empty: the peer dialled), so that it is made again in due time. bad
// tells that the endpoint should back off first.
func (d *dialer) sessionEnded(endpoint string, bad error) {
	if endpoint != "" && bad != nil {
		d.guard.fail(d.now(), endpoint, bad)
	}
	d.kick()
}
