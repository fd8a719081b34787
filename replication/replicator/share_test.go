package replicator

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSharesOfRefusedRuns: a burst of them costs nothing, what comes then is paid for in
// time, and only shares of which something was taken are remembered.
func TestSharesOfRefusedRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Replicator{shares: map[string]*share{}}
		q := &quota{share: r.shareLocked("evil", time.Now())}
		pause := func() time.Duration {
			began := time.Now()
			q.pace(t.Context(), 0)
			return time.Since(began)
		}
		for range refusedBurst / refusedCost {
			q.charge(refusedCost)
		}
		if d := pause(); d != 0 {
			t.Errorf("a burst costs %s", d)
		}
		for range 50 {
			q.charge(refusedCost)
		}
		if d := pause(); d != 500*time.Millisecond {
			t.Errorf("50 more cost %s", d)
		}
		if r.shareLocked("evil", time.Now()) != q.share {
			t.Error("the next session begins with a new share")
		}
		time.Sleep(time.Minute)
		r.shareLocked("honest", time.Now())
		if len(r.shares) != 1 {
			t.Errorf("%d shares are remembered", len(r.shares))
		}
	})
}
