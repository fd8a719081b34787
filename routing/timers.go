package routing

import (
	"container/heap"
	"time"
)

// timer is something to do at a time; whether it still is, shows then.
type timer struct {
	at   time.Time
	kind timerKind
	key  Key
	peer PeerKey
}

type timerKind uint8

const (
	timerExpire timerKind = iota + 1 // a held message
	timerRetry                       // a held text
	timerLater                       // a neighbour that had no room for a message
	timerResume                      // a neighbour that was busy
	timerSeen                        // a remembered text
)

// timers is a heap, the earliest first. Those of what is gone stay until their time
// has come, or until there are too many of them.
type timers struct {
	list []timer
	live int // how many had something to do when that was last looked at
}

func (t *timers) Len() int           { return len(t.list) }
func (t *timers) Less(i, j int) bool { return t.list[i].at.Before(t.list[j].at) }
func (t *timers) Swap(i, j int)      { t.list[i], t.list[j] = t.list[j], t.list[i] }

// Push and Pop are for package heap.
func (t *timers) Push(x any) { t.list = append(t.list, x.(timer)) }
func (t *timers) Pop() any {
	last := t.list[len(t.list)-1]
	t.list = t.list[:len(t.list)-1]
	return last
}

func (t *timers) add(x timer) { heap.Push(t, x) }

// Deadline is when Step wants to be called at the latest; zero: no such time.
func (r *Router) Deadline() time.Time {
	if len(r.timers.list) == 0 {
		return time.Time{}
	}
	return r.timers.list[0].at
}

// fire does what is due.
func (r *Router) fire() {
	var forget []StoreOp
	for len(r.timers.list) > 0 && !r.now.Before(r.timers.list[0].at) {
		t := heap.Pop(&r.timers).(timer)
		h := r.held[t.key]
		switch t.kind {
		case timerExpire:
			if h == nil || r.now.Before(h.Expires()) {
				continue // gone, or another of the same name
			}
			r.release(h)
			forget = append(forget, DropHeld{t.key})
			if h.Kind == Text {
				r.counters.Expired++
				if h.From == r.cfg.Self {
					r.counters.Undelivered++
					r.emit(Report{ID: h.ID, State: OutcomeExpired})
				}
			}
		case timerRetry:
			if h != nil && h.retryAt.Equal(t.at) {
				r.retry(h)
			}
		case timerLater:
			if l := r.links[t.peer]; h != nil && l != nil {
				r.offer(h, l)
			}
		case timerResume: // Step pumps every link
		case timerSeen:
			if until, ok := r.seen[t.key]; ok && !r.now.Before(until) {
				r.dropSeen(t.key)
				forget = append(forget, DropSeen{t.key})
			}
		}
	}
	if len(forget) > 0 {
		r.persist(forget, func(error) {}) // what stays expires at the next start
	}
}

// compact forgets timers of what is gone, once they may be more than half of all: a
// message that comes and goes must not leave some each time.
func (r *Router) compact() {
	if len(r.timers.list) < 1024+2*r.timers.live {
		return
	}
	live := map[timer]struct{}{}
	for _, t := range r.timers.list {
		if r.due(t) {
			live[t] = struct{}{}
		}
	}
	r.timers.list = r.timers.list[:0]
	for t := range live {
		r.timers.list = append(r.timers.list, t)
	}
	heap.Init(&r.timers)
	r.timers.live = len(r.timers.list)
}

// due tells whether a timer still has something to do.
func (r *Router) due(t timer) bool {
	h := r.held[t.key]
	switch t.kind {
	case timerExpire:
		return h != nil && h.Expires().Equal(t.at)
	case timerRetry:
		return h != nil && h.retryAt.Equal(t.at)
	case timerLater:
		return h != nil && h.copies[t.peer].retry.Equal(t.at) && r.links[t.peer] != nil
	case timerResume:
		return r.links[t.peer] != nil && r.links[t.peer].paused.Equal(t.at)
	}
	return r.seen[t.key].Equal(t.at)
}
