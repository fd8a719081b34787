package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// maxDials bounds dials under way at one time, handshakes included.
	maxDials = 8
	// maxTargets bounds the addresses that are kept and retried.
	maxTargets = 1024
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

// source finds addresses of peers. The configured list is one; discovery and
// registries are others. run offers targets until ctx ends or it has no more.
type source interface {
	run(ctx context.Context, offer func(t target, kind attemptKind))
}

// staticSource is the configured list of peers.
type staticSource struct {
	targets []target
	delay   time.Duration
}

func (s staticSource) run(ctx context.Context, offer func(target, attemptKind)) {
	if len(s.targets) == 0 {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(s.delay):
	}
	for _, t := range s.targets {
		offer(t, manual)
	}
}

// link is what the dialer needs of sessions.
type link interface {
	// establish connects to the target and completes Hello. It returns the peer
	// as soon as that is known, even with an error. hint is the peer that
	// answered there last time; nobody is waited for beyond by who has not
	// answered. What follows an answer has the time of a handshake.
	establish(ctx context.Context, t target, hint peer.ID, by time.Time) (peer.ID, error)
	// busy tells that a peer has a session that is not stale, or must not be
	// dialled because its user or ours asked for a disconnect; until is when that
	// ends by itself, zero: with unhold only.
	busy(id peer.ID) (connected, held bool, until time.Time)
	// reached are the endpoints of peers that have a session, as far as they are
	// known.
	reached() map[string]bool
	// unhold lets a peer be dialled again.
	unhold(id peer.ID)
}

// errLostRace: the handshake was complete, but another session of the same pair
// stays. It says nothing against the endpoint.
var errLostRace = errors.New("another session with this peer stays")

// dialer keeps sessions with the targets that its sources name: it alone dials,
// so that no endpoint and no peer is dialled twice at one time (design 8).
type dialer struct {
	guard *guard
	link  link
	now   func() time.Time
	log   *slog.Logger
	slots chan struct{} // maxDials

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // capacity 1

	mu       sync.Mutex // guards below
	targets  map[string]*dialTarget
	attempts map[string]*attempt // by endpoint; under way
}

// dialTarget is an endpoint to keep a session with.
type dialTarget struct {
	target
	kind attemptKind
	seen peer.ID // who answered there last
}

// attempt is a dial under way; several callers may wait for it.
type attempt struct {
	by   time.Time     // when it gives up if nobody answers; zero: some time after it has a slot
	done chan struct{} // closed at the end
	id   peer.ID       // valid after done, like err
	err  error
}

func newDialer(g *guard, l link, now func() time.Time, log *slog.Logger) *dialer {
	ctx, cancel := context.WithCancel(context.Background())
	return &dialer{
		guard: g, link: l, now: now, log: log,
		slots: make(chan struct{}, maxDials),
		ctx:   ctx, cancel: cancel,
		wake:    make(chan struct{}, 1),
		targets: map[string]*dialTarget{}, attempts: map[string]*attempt{},
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
func (d *dialer) offer(t target, kind attemptKind) {
	d.mu.Lock()
	have := d.targets[t.Key]
	switch {
	case have != nil:
		have.kind = max(have.kind, kind)
		if t.ID != "" {
			have.ID = t.ID
		}
		if d.now().Before(d.guard.next(t.Key)) {
			d.guard.begin(d.now(), t.Key, kind) // counts, and cannot admit
		} else {
			d.guard.dedupe()
		}
	case len(d.targets) < maxTargets:
		d.targets[t.Key] = &dialTarget{target: t, kind: kind}
	default:
		d.log.Warn("too many addresses to dial; this one is left out", "endpoint", t.Key, "limit", maxTargets)
	}
	d.mu.Unlock()
	d.kick()
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

// startDue starts an attempt at each target that is due, and returns when the
// next one will be; zero: not before something changes.
func (d *dialer) startDue() (next time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	d.guard.prune(now, func(key string) bool { return d.targets[key] != nil }, d.link.reached)
	for key, t := range d.targets {
		if d.attempts[key] != nil {
			continue
		}
		if id := t.expected(); id != "" {
			connected, held, until := d.link.busy(id)
			if connected {
				d.guard.forgive(key)
			}
			if held && !until.IsZero() && (next.IsZero() || until.Before(next)) {
				next = until
			}
			if connected || held {
				continue
			}
		}
		at := d.guard.next(key)
		if !at.After(now) {
			var v verdict
			if v, at = d.beginLocked(t.target, t.kind, t.seen, time.Time{}); v == admitted {
				continue
			}
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// patience is for an attempt that nobody waits for. It grows where nobody has
// answered in time; a refusal comes fast or never.
func (d *dialer) patience(endpoint string) time.Duration {
	if failures, err := d.guard.failures(endpoint); err != nil && isTimeout(err) {
		return answerTime * time.Duration(min(1+failures, maxPatience))
	}
	return answerTime
}

// expected is the peer that the target leads to, as far as is known.
func (t *dialTarget) expected() peer.ID {
	if t.ID != "" {
		return t.ID
	}
	return t.seen
}

// beginLocked starts an attempt if the guard allows it. by is for who waits for
// it; zero: nobody does.
func (d *dialer) beginLocked(t target, kind attemptKind, hint peer.ID, by time.Time) (verdict, time.Time) {
	if d.ctx.Err() != nil {
		return deduped, time.Time{}
	}
	v, at := d.guard.begin(d.now(), t.Key, kind)
	if v != admitted {
		return v, at
	}
	a := &attempt{by: by, done: make(chan struct{})}
	d.attempts[t.Key] = a
	d.wg.Go(func() { d.attempt(a, t, hint) })
	return v, at
}

// attempt makes one attempt and reports it to the guard and to who waits.
func (d *dialer) attempt(a *attempt, t target, hint peer.ID) {
	defer close(a.done)
	a.id, a.err = d.establish(a, t, hint)
	switch {
	case a.err == nil:
		d.guard.succeed(t.Key)
	case errors.Is(a.err, errLostRace):
		d.guard.release(t.Key)
		a.err = nil // there is a session with that peer
	case d.ctx.Err() != nil:
		d.guard.release(t.Key)
	default:
		_, before := d.guard.failures(t.Key)
		again := d.guard.fail(d.now(), t.Key, a.err)
		level := slog.LevelWarn
		if before != nil && before.Error() == a.err.Error() {
			level = slog.LevelDebug // said before, and it goes on like that
		}
		d.log.Log(d.ctx, level, "cannot connect", "endpoint", t.Key, "err", a.err, "retry_in", again.Sub(d.now()).Round(100*time.Millisecond))
	}
	d.mu.Lock()
	delete(d.attempts, t.Key)
	if have := d.targets[t.Key]; have != nil && a.id != "" {
		have.seen = a.id
	}
	d.mu.Unlock()
	d.kick()
}

// establish makes the attempt, when there is a slot. A caller that waits does not
// stand in line behind what nobody waits for.
func (d *dialer) establish(a *attempt, t target, hint peer.ID) (peer.ID, error) {
	by := a.by
	if by.IsZero() {
		select {
		case d.slots <- struct{}{}:
			defer func() { <-d.slots }()
		case <-d.ctx.Done():
			return "", d.ctx.Err()
		}
		by = time.Now().Add(d.patience(t.Key))
	}
	ctx, cancel := context.WithTimeout(d.ctx, attemptTimeout)
	defer cancel()
	return d.link.establish(ctx, t, hint, by)
}

// connect makes a session with the target now, for a user who waits for it, and
// keeps it from then on. An endpoint that failed a moment ago is waited for, if
// that is not long, so that even a loop of calls cannot storm it.
func (d *dialer) connect(ctx context.Context, t target) (peer.ID, error) {
	by := time.Now().Add(answerTime)
	if t.ID != "" {
		d.link.unhold(t.ID)
	}
	for {
		id, a, at := d.beginConnect(t, by)
		switch {
		case id != "":
			d.keep(t, id)
			return id, nil
		case a != nil:
			if err := d.await(ctx, t, a, by); err != nil {
				return "", err
			}
			if a.err == nil {
				d.link.unhold(a.id)
				d.keep(t, a.id)
			}
			return a.id, a.err
		case d.ctx.Err() != nil:
			return "", errNodeClosed
		}
		wait := at.Sub(d.now())
		if wait > time.Until(by)-leastTime {
			_, last := d.guard.failures(t.Key)
			return "", &BackoffError{Endpoint: t.Key, Wait: wait, Last: last}
		}
		if err := d.pause(ctx, t, wait); err != nil {
			return "", err
		}
	}
}

// await waits for an attempt, which may be another's with more time.
func (d *dialer) await(ctx context.Context, t target, a *attempt, by time.Time) error {
	var late <-chan time.Time
	if a.by.IsZero() || a.by.After(by) {
		late = time.After(time.Until(by))
	}
	select {
	case <-a.done:
		return nil
	case <-late:
		return wrapDial(t.Key, context.DeadlineExceeded)
	case <-ctx.Done():
		return gaveUp(ctx, t)
	}
}

// pause waits for a moment.
func (d *dialer) pause(ctx context.Context, t target, wait time.Duration) error {
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return gaveUp(ctx, t)
	case <-d.ctx.Done():
		return errNodeClosed
	}
}

func gaveUp(ctx context.Context, t target) error {
	return fmt.Errorf("gave up connecting to %s: %w", t.Key, context.Cause(ctx))
}

// beginConnect finds a session that is there, an attempt that is under way, or
// starts one; else it returns when to ask again.
func (d *dialer) beginConnect(t target, by time.Time) (id peer.ID, a *attempt, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id = t.ID
	var hint peer.ID
	if have := d.targets[t.Key]; have != nil && id == "" {
		id, hint = have.expected(), have.seen
	}
	if id != "" {
		if connected, _, _ := d.link.busy(id); connected {
			d.guard.dedupe()
			return id, nil, time.Time{}
		}
		d.link.unhold(id)
	}
	if a = d.attempts[t.Key]; a != nil {
		d.guard.dedupe()
		return "", a, time.Time{}
	}
	_, at = d.beginLocked(t, manual, hint, by)
	return "", d.attempts[t.Key], at
}

// keep makes a target that answered one to keep a session with.
func (d *dialer) keep(t target, id peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if have := d.targets[t.Key]; have != nil {
		have.seen = id
	} else if len(d.targets) < maxTargets {
		d.targets[t.Key] = &dialTarget{target: t, kind: manual, seen: id}
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
