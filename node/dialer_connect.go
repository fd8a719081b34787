package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// connect makes a session with the target now, for a user who waits for it, and
// keeps it from then on. An endpoint that failed a moment ago is waited for, if
// that is not long, so that even a loop of calls cannot storm it.
func (d *dialer) connect(ctx context.Context, t target) (peer.ID, error) {
	by, before := time.Now().Add(answerTime), d.link.lastHold()
	if t.ID != "" {
		d.link.unhold(t.ID, before)
	}
	for {
		id, a, at := d.beginConnect(t, by, before)
		if id != "" {
			err := d.link.present(ctx, t, id, by)
			switch {
			case ctx.Err() != nil:
				return "", gaveUp(ctx, t)
			case errors.Is(err, errEnded):
				if time.Now().Before(by) {
					continue
				}
				err = wrapDial(t.Key, context.DeadlineExceeded)
			case err == nil:
				d.keep(t, id)
			}
			return id, err
		}
		if a != nil {
			if err := d.await(ctx, t, a, by); err != nil {
				return "", err
			}
			var out *putOutError
			if errors.Is(a.err, errHeld) && (a.before < before || errors.As(a.err, &out)) && !d.link.heldAfter(a.id, before) {
				// The attempt was another's, from before this user asked, or it was not
				// known yet who answers there.
				d.link.unhold(a.id, before)
				continue
			}
			if a.err == nil {
				d.keep(t, a.id)
			}
			return a.id, a.err
		}
		if d.ctx.Err() != nil {
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
	if a.by.After(by) {
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
	return fmt.Errorf("gave up connecting to %s: %w", endpointText(t.Key), context.Cause(ctx))
}

// beginConnect finds a session that is there, an attempt at the endpoint that is
// under way, or starts one; else it returns when to ask again. Attempts at other
// endpoints of the peer go on beside it: they may fail late, and their reasons are
// not what the user asked for. If both succeed there is one session (errLostRace).
func (d *dialer) beginConnect(t target, by time.Time, before uint64) (id peer.ID, under *attempt, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := &attempt{target: t, kind: manual, asked: true, before: before, by: by}
	if have := d.targets.all[t.Key]; have != nil {
		a.hint = have.seen
		a.ID = cmp.Or(t.ID, have.ID)
	}
	id = a.expected()
	if id != "" {
		if connected, _, _ := d.link.busy(id); connected {
			d.guard.dedupe()
			return id, nil, time.Time{}
		}
		d.link.unhold(id, before)
	}
	if other := d.attempts[t.Key]; other != nil {
		d.guard.dedupe()
		return "", other, time.Time{}
	}
	under, at = d.beginLocked(a)
	return "", under, at
}

// keep makes a target that answered one to keep a session with.
func (d *dialer) keep(t target, id peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.targets.add(found{target: t, from: fromAsked}, d.useLocked) {
		have := d.targets.all[t.Key]
		have.seen, have.proven = id, true
	}
}
