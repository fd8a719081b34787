package node

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

var errRefused = errors.New("connection refused")

// TestGuardBackoff walks the two schedules of design 8 without a jitter.
func TestGuardBackoff(t *testing.T) {
	for _, c := range []struct {
		kind attemptKind
		want []time.Duration
	}{
		{manual, []time.Duration{2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 12 * time.Second, 12 * time.Second}},
		{automatic, []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 15 * time.Second}},
	} {
		g := newGuard(nil)
		now := time.Unix(1000, 0)
		for i, want := range c.want {
			if v, _ := g.begin(now, "tcp://h:1", c.kind); v != admitted {
				t.Fatalf("kind %d, attempt %d: verdict %d at %s", c.kind, i, v, now)
			}
			until := g.fail(now, "tcp://h:1", errRefused)
			if got := until.Sub(now); got != want {
				t.Errorf("kind %d: backoff %d is %s, want %s", c.kind, i, got, want)
			}
			if v, at := g.begin(until.Add(-time.Nanosecond), "tcp://h:1", c.kind); v != backingOff || !at.Equal(until) {
				t.Errorf("kind %d: just before the end: verdict %d until %s", c.kind, v, at)
			}
			now = until
		}
		g.begin(now, "tcp://h:1", c.kind)
		g.succeed("tcp://h:1")
		now = now.Add(dedupeWindow)
		if v, _ := g.begin(now, "tcp://h:1", c.kind); v != admitted {
			t.Fatalf("success did not clear the backoff: %d", v)
		}
		if got := g.fail(now, "tcp://h:1", errRefused).Sub(now); got != c.want[0] {
			t.Errorf("after a success the backoff starts with %s, want %s", got, c.want[0])
		}
	}
}

func TestGuardDedupes(t *testing.T) {
	g := newGuard(nil)
	now := time.Unix(1000, 0)
	g.begin(now, "tcp://h:1", automatic)
	if v, _ := g.begin(now.Add(time.Hour), "tcp://h:1", manual); v != deduped {
		t.Errorf("a second dial while one is under way: verdict %d", v)
	}
	if v, _ := g.begin(now, "tcp://h:2", automatic); v != admitted {
		t.Errorf("another endpoint: verdict %d", v)
	}
	g.succeed("tcp://h:1")
	if v, at := g.begin(now.Add(dedupeWindow-1), "tcp://h:1", automatic); v != deduped || !at.Equal(now.Add(dedupeWindow)) {
		t.Errorf("an automatic attempt within the window: verdict %d, again at %s", v, at)
	}
	if v, _ := g.begin(now.Add(dedupeWindow-1), "tcp://h:1", manual); v != admitted {
		t.Errorf("a manual attempt within the window: verdict %d", v)
	}
	c, _ := g.snapshot()
	want := GuardCounters{ConnectAttempts: 3, ConnectDeduped: 2, TrackedEndpoints: 2}
	if c != want {
		t.Errorf("counters %+v, want %+v", c, want)
	}
}

func TestGuardCounts(t *testing.T) {
	g := newGuard(nil)
	now := time.Unix(1000, 0)
	g.begin(now, "tcp://h:1", manual)
	g.fail(now, "tcp://h:1", errRefused)
	g.begin(now, "tcp://h:1", manual)
	g.begin(now, "tcp://h:1", automatic)
	c, list := g.snapshot()
	want := GuardCounters{ConnectAttempts: 1, ConnectFailures: 1, BackoffSkips: 2, TrackedEndpoints: 1}
	if c != want {
		t.Errorf("counters %+v, want %+v", c, want)
	}
	if len(list) != 1 || list[0].Error != errRefused.Error() || list[0].Failures != 1 || list[0].Dialing {
		t.Errorf("endpoint status %+v", list)
	}
}

func TestGuardJitterOnlyShortens(t *testing.T) {
	for _, r := range []int64{0, 1, 1 << 62} {
		g := newGuard(func(n int64) int64 { return min(r, n-1) })
		now := time.Unix(1000, 0)
		g.begin(now, "e", manual)
		got := g.fail(now, "e", errRefused).Sub(now)
		if got > manualBackoff || got < manualBackoff*(jitterPart-1)/jitterPart {
			t.Errorf("backoff with jitter: %s", got)
		}
	}
}

// TestGuardIsBounded: endpoints come from the network, so their number is
// limited, and one that is being dialled is not forgotten.
func TestGuardIsBounded(t *testing.T) {
	g := newGuard(nil)
	now := time.Unix(1000, 0)
	g.begin(now, "first", manual)
	for i := range maxEndpoints + 100 {
		name := fmt.Sprint("e", i)
		g.begin(now.Add(time.Duration(i)), name, automatic)
		g.succeed(name)
	}
	c, _ := g.snapshot()
	if c.TrackedEndpoints != maxEndpoints {
		t.Errorf("%d endpoints are tracked, want %d", c.TrackedEndpoints, maxEndpoints)
	}
	if v, _ := g.begin(now, "first", manual); v != deduped {
		t.Errorf("the endpoint that is being dialled was forgotten: verdict %d", v)
	}
}
