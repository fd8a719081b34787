package replicator

import (
	"context"
	"slices"
	"sync"

	"vixp2p/replication"
)

// DefaultBudget is the default for the bytes of runs that are read, verified or
// waiting for their commit, over all sessions.
const DefaultBudget = 32 << 20

// Budget bounds the bytes of runs that all sessions together hold in memory
// (design 4.4). They are reserved before they are read.
//
// Each session has an account. An account may always hold one whole run, so that
// no session waits for another one's peer; what is left of the total beyond
// that is a pool. Of the pool an account may take up to as much as is still free
// (dynamic thresholds: Choudhury and Hahne, "Dynamic Queue Length Thresholds for
// Shared-Memory Packet Switches", 1998): a lone session gets half of it, and no
// number of stalled ones uses it up. All in all at most max(total, accounts *
// whole run) bytes are out.
type Budget struct {
	mu       sync.Mutex // guards all below and the fields of every Account
	total    int
	accounts int         // open, or closed and still holding something
	pooled   int         // sum of what the accounts hold beyond one run
	waiters  []*reserver // in order of arrival
}

// Account is one session's part of a Budget.
type Account struct {
	b      *Budget
	held   int
	closed bool
	gone   bool // no longer counted in Budget.accounts
}

type reserver struct {
	acc     *Account
	n       int
	granted bool
	ready   chan struct{} // closed when granted or refused
}

// accountFloor is what an account may hold in any case.
const accountFloor = replication.MaxRunBytes

// NewBudget makes a budget of total bytes; 0 means DefaultBudget.
func NewBudget(total int) *Budget {
	if total <= 0 {
		total = DefaultBudget
	}
	return &Budget{total: total}
}

// Open opens an account. Close it when its connection is closed.
func (b *Budget) Open() *Account {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts++
	return &Account{b: b}
}

// InUse is how many bytes the account holds.
func (a *Account) InUse() int {
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	return a.held
}

// Reserve waits until the account may hold n more bytes, in the order of the
// calls among equals, and returns what gives them back; calling that twice is
// harmless. n is at most replication.MaxRunBytes (ErrTooLarge). ErrClosed after
// Close; ctx's error if that ends first.
func (a *Account) Reserve(ctx context.Context, n int) (release func(), err error) {
	if n > accountFloor {
		return nil, &replication.TooLargeError{What: "attachment", Size: n, Max: accountFloor}
	}
	b := a.b
	b.mu.Lock()
	if a.closed {
		b.mu.Unlock()
		return nil, replication.ErrClosed
	}
	if b.takeLocked(a, n) {
		b.mu.Unlock()
		return b.releaser(a, n), nil
	}
	w := &reserver{acc: a, n: n, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()

	select {
	case <-w.ready:
	case <-ctx.Done():
		b.mu.Lock()
		if !w.granted {
			b.waiters = slices.DeleteFunc(b.waiters, func(o *reserver) bool { return o == w })
			b.mu.Unlock()
			return nil, ctx.Err()
		}
		b.mu.Unlock()
	}
	if !w.granted {
		return nil, replication.ErrClosed
	}
	return b.releaser(a, n), nil
}

// Close refuses further and waiting reservations. What the account holds stays
// counted until it is given back.
func (a *Account) Close() {
	b := a.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.closed {
		return
	}
	a.closed = true
	b.waiters = slices.DeleteFunc(b.waiters, func(w *reserver) bool {
		if w.acc == a {
			close(w.ready)
		}
		return w.acc == a
	})
	b.settleLocked(a)
}

func (b *Budget) releaser(a *Account, n int) func() {
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pooled -= beyondFloor(a.held)
		a.held -= n
		b.pooled += beyondFloor(a.held)
		b.settleLocked(a)
	})
}

// settleLocked drops a closed account that holds nothing and grants what is now
// possible.
func (b *Budget) settleLocked(a *Account) {
	if a.closed && a.held == 0 && !a.gone {
		a.gone = true
		b.accounts--
	}
	b.waiters = slices.DeleteFunc(b.waiters, func(w *reserver) bool {
		if !b.takeLocked(w.acc, w.n) {
			return false
		}
		w.granted = true
		close(w.ready)
		return true
	})
}

// takeLocked reserves n bytes if the account may hold them. A waiter that is
// passed over holds more than the one that is served, and its own releases
// bring it back to where it is served in any case: nobody starves.
func (b *Budget) takeLocked(a *Account, n int) bool {
	before, after := beyondFloor(a.held), beyondFloor(a.held+n)
	if after > before && after > b.total-b.accounts*accountFloor-b.pooled {
		return false
	}
	a.held += n
	b.pooled += after - before
	return true
}

func beyondFloor(held int) int { return max(0, held-accountFloor) }
