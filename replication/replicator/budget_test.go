package replicator_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

const run = replication.MaxRunBytes

func reserve(t *testing.T, a *replicator.Account, n int) func() {
	t.Helper()
	release, err := a.Reserve(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return release
}

// waiting starts a reservation and checks that it waits.
func waiting(t *testing.T, a *replicator.Account, n int) <-chan func() {
	t.Helper()
	got := make(chan func(), 1)
	go func() {
		release, err := a.Reserve(t.Context(), n)
		if err != nil {
			close(got)
			return
		}
		got <- release
	}()
	synctest.Wait()
	select {
	case <-got:
		t.Fatal("the reservation did not wait")
	default:
	}
	return got
}

func TestBudgetGivesEachAccountOneRunAndNoneThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := replicator.NewBudget(10 * run)
		greedy := b.Open()
		n := 0
		for {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := greedy.Reserve(ctx, run); err != nil {
				break
			}
			n++
		}
		// One run of its own, and of the 9 in the pool as many as are left free.
		if n != 1+5 {
			t.Errorf("a lone account got %d of 10 runs, not 6", n)
		}
		for range 3 {
			if release := reserve(t, b.Open(), run); release == nil {
				t.Error("an account got no run of its own")
			}
		}
	})
}

func TestBudgetWaitsAndServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := replicator.NewBudget(2 * run)
		a, c := b.Open(), b.Open() // the pool is empty
		release := reserve(t, a, run)
		got := waiting(t, a, 1000)
		reserve(t, c, run)() // others are not held up
		release()
		release() // harmless
		if r := <-got; r == nil {
			t.Fatal("the waiting reservation was refused")
		}
		if a.InUse() != 1000 || c.InUse() != 0 {
			t.Errorf("in use: %d and %d bytes", a.InUse(), c.InUse())
		}
	})
}

func TestBudgetCancelAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := replicator.NewBudget(1)
		a := b.Open()
		release := reserve(t, a, run)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Reserve(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled reservation: %v", err)
		}
		got := waiting(t, a, 1)
		a.Close()
		if r, ok := <-got; ok {
			t.Errorf("a closed account gave %p", r)
		}
		if _, err := a.Reserve(t.Context(), 1); !errors.Is(err, replication.ErrClosed) {
			t.Errorf("a closed account: %v", err)
		}
		if _, err := b.Open().Reserve(t.Context(), run+1); !errors.Is(err, replication.ErrTooLarge) {
			t.Errorf("more than a run: %v", err)
		}
		release()
		if a.InUse() != 0 {
			t.Errorf("%d bytes in use at the end", a.InUse())
		}
	})
}

// An account that is closed while it holds bytes counts until they are back.
func TestBudgetClosedAccountStillCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := replicator.NewBudget(2 * run)
		a, c := b.Open(), b.Open()
		release := reserve(t, a, run)
		a.Close()
		reserve(t, c, run)
		got := waiting(t, c, run)
		release()
		if r := <-got; r == nil {
			t.Fatal("the freed account did not widen the pool")
		}
	})
}
