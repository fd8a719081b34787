package protocols

import (
	"container/list"
	"sync"

	"vixp2p/replication"
)

// Budget bounds the bytes of attachments that all peers together hold in memory
// (design 4.4, G8). It is asked before an attachment is read.
type Budget interface {
	// Reserve takes n bytes. It waits until they are free or cancel is closed,
	// and fails at once if there will never be as many.
	Reserve(n int, cancel <-chan struct{}) error
	// Release gives n bytes back.
	Release(n int)
}

// MemoryBudget is a Budget of a fixed size. Those who wait are served in the
// order in which they came, so that many small reservations cannot starve a
// large one.
type MemoryBudget struct {
	size int

	mu      sync.Mutex // guards all below; never held while waiting
	used    int        // invariant: 0 <= used <= size
	waiting list.List  // of *claim
}

type claim struct {
	n     int
	ready chan struct{} // closed under mu when the bytes were taken
}

// NewBudget makes a budget of that many bytes; 0 means DefaultBudget.
func NewBudget(size int) *MemoryBudget {
	if size <= 0 {
		size = DefaultBudget
	}
	return &MemoryBudget{size: size}
}

// Used is how many bytes are reserved now.
func (b *MemoryBudget) Used() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Reserve implements Budget. It fails with *replication.TooLargeError, or with
// replication.ErrClosed once cancel is closed.
func (b *MemoryBudget) Reserve(n int, cancel <-chan struct{}) error {
	if n > b.size {
		return &replication.TooLargeError{What: "attachment", Size: n, Max: b.size}
	}
	b.mu.Lock()
	if b.waiting.Len() == 0 && b.used+n <= b.size {
		b.used += n
		b.mu.Unlock()
		return nil
	}
	c := &claim{n: n, ready: make(chan struct{})}
	e := b.waiting.PushBack(c)
	b.mu.Unlock()

	select {
	case <-c.ready:
		return nil
	case <-cancel:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-c.ready: // it came at the same moment
		b.used -= n
	default:
		b.waiting.Remove(e)
	}
	b.serveLocked() // those behind this claim may fit now
	return replication.ErrClosed
}

// Release implements Budget.
func (b *MemoryBudget) Release(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.serveLocked()
}

func (b *MemoryBudget) serveLocked() {
	for e := b.waiting.Front(); e != nil; e = b.waiting.Front() {
		c := e.Value.(*claim)
		if b.used+c.n > b.size {
			return
		}
		b.used += c.n
		b.waiting.Remove(e)
		close(c.ready)
	}
}
