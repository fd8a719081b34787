package replication

import (
	"container/heap"
	"time"
)

// timer is one deadline of a session. Its fire runs in the Tick that finds it
// due, after it was taken off the heap.
type timer struct {
	at    time.Time
	order uint64 // breaks ties, so that a Tick is deterministic
	place int    // index in the heap plus 1; 0: not set
	fire  func()
}

type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].order < h[j].order
}
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}
func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	*h = append(*h, t)
	t.place = len(*h)
}
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.place = 0
	return t
}

// after sets t to fire d from now, in place of what it was set to.
func (s *Session) after(t *timer, d time.Duration) {
	s.stopTimer(t)
	s.timerOrder++
	t.at, t.order = s.now.Add(d), s.timerOrder
	heap.Push(&s.timers, t)
}

func (s *Session) stopTimer(t *timer) {
	if t.place > 0 {
		heap.Remove(&s.timers, t.place-1)
	}
}

// tick fires what is due. A timer that is set while it runs fires in a later
// Tick, so that it ends.
func (s *Session) tick() {
	last := s.timerOrder
	for !s.closed && len(s.timers) > 0 {
		t := s.timers[0]
		if t.at.After(s.now) || t.order > last {
			return
		}
		heap.Pop(&s.timers)
		t.fire()
	}
}

// backoff is the wait that follows d: twice as long, at most RetryMax.
func (s *Session) backoff(d time.Duration) time.Duration { return min(2*d, s.cfg.RetryMax) }

// jitter lengthens d by up to a quarter.
func (s *Session) jitter(d time.Duration) time.Duration {
	if s.cfg.Rand == nil || d < 4 {
		return d
	}
	return d + time.Duration(s.cfg.Rand(int64(d/4)))
}

// fifo is a queue.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

func (q *fifo[T]) push(v T) { q.items = append(q.items, v) }

func (q *fifo[T]) pop() T {
	var zero T
	v := q.items[q.head]
	q.items[q.head] = zero
	q.head++
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
	case q.head > 64 && q.head > len(q.items)/2:
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return v
}
