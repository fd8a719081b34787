package protocols

import (
	"sync"

	"vixp2p/replication"
)

// testBudget is a Budget of a fixed size; the node's own is package replicator's.
type testBudget struct {
	size int

	mu    sync.Mutex // guards below
	used  int
	freed chan struct{} // closed by the next Release
}

// newTestBudget makes a budget of that many bytes; 0: as many as a test wants.
func newTestBudget(size int) *testBudget {
	if size == 0 {
		size = 1 << 30
	}
	return &testBudget{size: size, freed: make(chan struct{})}
}

func (b *testBudget) Used() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

func (b *testBudget) Reserve(n int, cancel <-chan struct{}) error {
	for {
		b.mu.Lock()
		if b.used+n <= b.size {
			b.used += n
			b.mu.Unlock()
			return nil
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-cancel:
			return replication.ErrClosed
		}
	}
}

func (b *testBudget) Release(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	close(b.freed)
	b.freed = make(chan struct{})
}
