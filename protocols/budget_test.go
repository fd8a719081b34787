package protocols

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"vixp2p/replication"
)

func TestBudgetServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(10)
		if err := b.Reserve(8, nil); err != nil {
			t.Fatal(err)
		}
		var order []int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, n := range []int{10, 1, 2} { // the 1 would fit, and waits its turn
			wg.Go(func() {
				if err := b.Reserve(n, nil); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, n)
				mu.Unlock()
				b.Release(n)
			})
			synctest.Wait()
		}
		if b.Used() != 8 || len(order) != 0 {
			t.Errorf("%d used, %v served", b.Used(), order)
		}
		b.Release(8)
		wg.Wait()
		if len(order) != 3 || order[0] != 10 || b.Used() != 0 {
			t.Errorf("served %v, %d used", order, b.Used())
		}
	})
}

func TestBudgetRefusesTheImpossible(t *testing.T) {
	if err := NewBudget(10).Reserve(11, nil); !errors.Is(err, replication.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if b := NewBudget(0); b.size != DefaultBudget {
		t.Errorf("default %d", b.size)
	}
}

// Who gives up makes way for those behind.
func TestBudgetCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(10)
		if err := b.Reserve(6, nil); err != nil {
			t.Fatal(err)
		}
		cancel, big, small := make(chan struct{}), make(chan error, 1), make(chan error, 1)
		go func() { big <- b.Reserve(10, cancel) }()
		synctest.Wait()
		go func() { small <- b.Reserve(4, nil) }()
		synctest.Wait()
		close(cancel)
		if err := <-big; !errors.Is(err, replication.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if err := <-small; err != nil || b.Used() != 10 {
			t.Errorf("%v, %d used", err, b.Used())
		}
	})
}

func TestBudgetNeverExceeded(t *testing.T) {
	const size = 100
	b := NewBudget(size)
	var wg sync.WaitGroup
	for i := range uint64(8) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, i))
			for range 500 {
				n := rnd.IntN(size) + 1
				cancel := make(chan struct{})
				if rnd.IntN(4) == 0 {
					close(cancel)
				}
				if err := b.Reserve(n, cancel); err != nil {
					continue
				}
				if u := b.Used(); u > size || u < n {
					t.Errorf("%d used", u)
				}
				b.Release(n)
			}
		})
	}
	wg.Wait()
	if b.Used() != 0 {
		t.Errorf("%d used at the end", b.Used())
	}
}
