package routing

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

const (
	// firstRetry is after how long without an acknowledgement a text is copied to
	// every neighbour, whatever route it took; the pause doubles up to lastRetry.
	firstRetry = 30 * time.Second
	lastRetry  = time.Hour

	// What a neighbour says about when to try again is taken within these bounds.
	minPause, maxPause = 100 * time.Millisecond, time.Minute
	minLater, maxLater = time.Second, 10 * time.Minute
)

func (r *Router) linkUp(ev LinkUp) {
	r.table.LinkUp(ev.Peer, ev.Relayed)
	l := &link{peer: ev.Peer, flying: map[uint64]Key{}, queued: map[Key]struct{}{}}
	r.links[ev.Peer] = l
	for _, h := range r.sortedHeld() {
		r.choose(h)
		r.offer(h, l)
		if next := r.links[h.next]; next != nil && next != l {
			r.offer(h, next)
		}
	}
}

func (r *Router) linkDown(peer PeerKey) {
	l := r.links[peer]
	if l == nil {
		return
	}
	delete(r.links, peer)
	r.table.LinkDown(peer)
	for _, key := range l.flying {
		if h := r.held[key]; h != nil {
			delete(h.copies, peer) // whether it arrived is not known
		}
	}
	for _, h := range r.sortedHeld() {
		_, chased := h.chase[peer]
		if !h.wide && !h.passed && (h.next == peer || chased) {
			r.spread(h)
		}
	}
}

// rechoose is for when the table was changed by hand.
func (r *Router) rechoose() {
	for _, h := range r.sortedHeld() {
		r.spread(h)
	}
}

// sortedHeld is all that is held, in the order of arrival.
func (r *Router) sortedHeld() []*held {
	return slices.SortedFunc(maps.Values(r.held), func(a, b *held) int { return cmp.Compare(a.order, b.order) })
}

// sortedLinks makes the order of effects reproducible.
func (r *Router) sortedLinks() []*link {
	return slices.SortedFunc(maps.Values(r.links), func(a, b *link) int { return compareKeys(a.peer, b.peer) })
}

// choose decides whether a message goes along a route or to everyone. Once it goes
// to everyone it stays so; an ack that somebody took over goes no further way.
func (r *Router) choose(h *held) {
	if h.wide || h.passed || len(r.links) == 0 {
		return
	}
	except := []PeerKey{h.via, h.From}
	for peer, c := range h.copies {
		if c.state == refused || c.state == later {
			except = append(except, peer)
		}
	}
	route, ok := r.table.Resolve(h.To, r.now, except...)
	if ok {
		h.next = route.NextHop
		return
	}
	h.next = PeerKey{}
	h.wide = h.Kind != Ack || !r.chasing(h)
}

// chasing tells whether somebody whom an ack is for is there or has it already.
func (r *Router) chasing(ack *held) bool {
	for peer := range ack.chase {
		if r.links[peer] != nil || ack.copies[peer].state == has {
			return true
		}
	}
	return false
}

// spread offers a message to every neighbour that is to have it.
func (r *Router) spread(h *held) {
	r.choose(h)
	for _, l := range r.sortedLinks() {
		r.offer(h, l)
	}
}

// offer queues a message for a neighbour that is to have it.
func (r *Router) offer(h *held, l *link) {
	if _, queued := l.queued[h.Key()]; queued || !r.wants(h, l) {
		return
	}
	l.queued[h.Key()] = struct{}{}
	if h.Kind == Ack {
		l.acks = append(l.acks, h.Key())
	} else {
		l.rest = append(l.rest, h.Key())
	}
}

// wants tells whether a neighbour is to have a message now.
func (r *Router) wants(h *held, l *link) bool {
	hops := h.hops + 1
	if h.leaving {
		return false // its bytes may be gone at any moment
	}
	if hops > h.TTL || hops == h.TTL && l.peer != h.To {
		return false // it could do nothing with it
	}
	c := h.copies[l.peer]
	switch c.state {
	case flying:
		return false
	case has, refused:
		if !c.again && c.hops <= hops {
			return false
		}
	case later:
		if r.now.Before(c.retry) {
			return false
		}
	}
	if l.peer == h.From {
		return c.again // it may know the ack
	}
	_, chased := h.chase[l.peer]
	return h.wide || c.again || chased || l.peer == h.To || l.peer == h.next
}

// pump pushes what is queued for a neighbour, within the window.
func (r *Router) pump(l *link) {
	for len(l.flying) < window && !r.now.Before(l.paused) {
		key, ok := l.pop()
		if !ok {
			return
		}
		h := r.held[key]
		if h == nil || !r.wants(h, l) {
			continue
		}
		l.push++
		l.flying[l.push] = key
		h.note(l.peer, copyState{state: flying, hops: h.hops + 1})
		r.emit(Send{Peer: l.peer, Push: l.push, Key: key, Hops: h.hops + 1})
	}
}

func (l *link) pop() (key Key, ok bool) {
	l.turn++
	switch {
	case len(l.acks) > 0 && (len(l.rest) == 0 || l.turn%ackTurns != 0):
		key, l.acks = l.acks[0], l.acks[1:]
	case len(l.rest) > 0:
		key, l.rest = l.rest[0], l.rest[1:]
	default:
		return key, false
	}
	delete(l.queued, key)
	return key, true
}

// answered takes a neighbour's verdict.
func (r *Router) answered(ev Answered) {
	l := r.links[ev.Peer]
	if l == nil {
		return
	}
	key, ok := l.flying[ev.Push]
	if !ok {
		return
	}
	delete(l.flying, ev.Push)
	h := r.held[key]
	if ev.Verdict == Busy {
		l.paused = r.now.Add(clamp(ev.Retry, minPause, maxPause))
		r.timers.add(timer{at: l.paused, kind: timerResume, peer: l.peer})
		if h != nil {
			delete(h.copies, l.peer)
			r.offer(h, l)
		}
		return
	}
	if h == nil {
		return
	}
	c := copyState{hops: h.copies[l.peer].hops}
	switch ev.Verdict {
	case Stored, Duplicate, Acked:
		c.state = has
		h.passed = h.Kind == Ack
		if ev.Verdict == Stored && h.From != r.cfg.Self {
			r.counters.Forwarded++
		}
	case Expired, Invalid, Spent:
		c.state, c.why = refused, ev.Verdict
	default: // Full, or what a later version says
		c.state, c.why = later, Full
		c.retry = r.now.Add(clamp(ev.Retry, minLater, maxLater))
		r.timers.add(timer{at: c.retry, kind: timerLater, key: key, peer: l.peer})
	}
	h.note(l.peer, c)
	if c.state != has && !h.wide && h.next == l.peer {
		r.spread(h) // another way
	}
	if c.state == has && c.hops > h.hops+1 {
		r.offer(h, l) // a better copy came meanwhile
	}
}

func clamp(d, low, high time.Duration) time.Duration { return max(low, min(d, high)) }

// retry copies a text to every neighbour that has not acknowledged in time, and
// offers it again to those that have a copy: they may have met the ack.
func (r *Router) retry(h *held) {
	if ack := r.acks[acked{h.Key(), h.To}]; ack != nil { // as a crash may leave it
		r.retire(h, ack)
		r.forget(h)
		return
	}
	if !h.wide {
		r.table.Unlearn(h.To, h.next)
		h.wide = len(r.links) > 0
	}
	for peer, c := range h.copies {
		if c.state == has || c.state == refused {
			c.again = true
			h.copies[peer] = c
		}
	}
	h.tries++
	pause := lastRetry
	if h.tries < 7 {
		pause = min(firstRetry<<h.tries, lastRetry)
	}
	h.retryAt = r.now.Add(pause)
	r.timers.add(timer{at: h.retryAt, kind: timerRetry, key: h.Key()})
	r.spread(h)
}
