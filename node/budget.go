package node

import (
	"context"
	"sync"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

// accountBudget is one session's account of the node's budget (design 4.4), in
// the form in which the wire asks for it. A handshake needs none, so the account
// is opened by the first reservation.
type accountBudget struct {
	total *replicator.Budget

	mu      sync.Mutex // guards below
	account *replicator.Account
	closed  bool
	held    map[int][]func() // what gives reservations back, by their size
}

var _ protocols.Budget = (*accountBudget)(nil)

func newAccountBudget(total *replicator.Budget) *accountBudget {
	return &accountBudget{total: total, held: map[int][]func(){}}
}

// Reserve implements protocols.Budget.
func (b *accountBudget) Reserve(n int, cancel <-chan struct{}) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return replication.ErrClosed
	}
	if b.account == nil {
		b.account = b.total.Open()
	}
	account := b.account
	b.mu.Unlock()

	ctx := channelContext{context.Background(), cancel}
	// One reservation for all of it: with part of it an account could wait for
	// itself. No attachment is larger than the run that an account may always hold.
	release, err := account.Reserve(ctx, n)
	if err != nil {
		if ctx.Err() != nil {
			err = replication.ErrClosed
		}
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held[n] = append(b.held[n], release)
	return nil
}

// Release implements protocols.Budget.
func (b *accountBudget) Release(n int) {
	b.mu.Lock()
	list := b.held[n]
	if len(list) == 0 {
		b.mu.Unlock()
		return
	}
	release := list[len(list)-1]
	if b.held[n] = list[:len(list)-1]; len(b.held[n]) == 0 {
		delete(b.held, n)
	}
	b.mu.Unlock()
	release()
}

// close refuses further reservations; what is held is given back by those who
// hold it.
func (b *accountBudget) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.account != nil {
		b.account.Close()
	}
}

// channelContext ends when a channel is closed.
type channelContext struct {
	context.Context
	done <-chan struct{}
}

func (c channelContext) Done() <-chan struct{} { return c.done }

func (c channelContext) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}
