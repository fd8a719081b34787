package node

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// TestOwnClockJumps: the clock of a machine is set ahead by years and back again,
// while a peer is there and while it is away. Whatever it shows, writes replace what
// they have seen, both sides converge, and a lost peer is found again soon: no
// waiting time was reckoned from a moment that never comes.
func TestOwnClockJumps(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	dir, listen := t.TempDir(), []string{steadyAddr(t)}
	b := open(t, Config{Label: "B", NoConnect: true, DataDir: dir, Listen: listen})
	a := open(t, Config{Label: "A", Connect: listen, Now: func() time.Time {
		return time.Now().Add(time.Duration(ahead.Load()))
	}})
	put(t, b, "k", "first")
	converge(t, 1, a, b)

	for _, jump := range []time.Duration{30 * time.Second, 10 * 365 * 24 * time.Hour, -24 * time.Hour, 0} {
		t.Logf("A's clock is %v off", jump)
		ahead.Store(int64(jump))
		for _, n := range []*Node{a, b, a} {
			value := fmt.Sprintf("%s %v", n.Label(), jump)
			put(t, n, "k", value)
			converge(t, 1, a, b)
			for _, at := range []*Node{a, b} {
				got, err := at.Space("").Get(deadline(t), "k")
				if err != nil || string(got.Value) != value || got.Conflicts > 0 {
					t.Errorf("%s reads %q with %d conflicts (%v), want %q", at.Label(), got.Value, got.Conflicts, err, value)
				}
			}
		}
		// The peer goes away long enough that the dialer waits.
		failures := a.Counters().ConnectFailures
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		until(t, "A has dialled in vain", func() bool { return a.Counters().ConnectFailures > failures })
		b = open(t, Config{Label: "B", NoConnect: true, DataDir: dir, Listen: listen})
		began := time.Now()
		until(t, "A is connected again", func() bool { return a.Counters().PeersConnected == 1 })
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("after a jump of %v A is connected again after %v", jump, took)
		}
	}
}
