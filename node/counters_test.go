package node

import (
	"sync"
	"testing"
	"time"
)

// TestCounters: each counter of the connection guard moves for its reason, and for
// no other. The names are those of the stats line.
func TestCounters(t *testing.T) {
	type steps = func(t *testing.T, f *fakeLink, d *dialer)
	for name, c := range map[string]struct {
		do   steps
		want GuardCounters
	}{
		"connect_attempts: every dial": {func(t *testing.T, f *fakeLink, d *dialer) {
			for i, addr := range []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"} {
				x := named(t, fromLAN, addr, "")
				f.answer(x.target, numbered(t, i), nil)
				d.offer(x)
			}
			time.Sleep(time.Minute)
		}, GuardCounters{ConnectAttempts: 3, TrackedEndpoints: 3}},

		"connect_deduped: asked for while it is dialled": {func(t *testing.T, f *fakeLink, d *dialer) {
			f.took = time.Second
			x := named(t, fromStatic, "10.0.0.1:1", "")
			f.answer(x.target, "B", nil)
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { _, _ = d.connect(t.Context(), x.target) })
			}
			wg.Wait()
		}, GuardCounters{ConnectAttempts: 1, ConnectDeduped: 2, TrackedEndpoints: 1}},

		"connect_deduped: asked for while it is connected, or named again": {func(t *testing.T, f *fakeLink, d *dialer) {
			x := named(t, fromLAN, "10.0.0.1:1", "")
			f.answer(x.target, "B", nil)
			d.offer(x)
			time.Sleep(time.Second)
			_, _ = d.connect(t.Context(), x.target)
			d.offer(x)
			time.Sleep(time.Minute)
		}, GuardCounters{ConnectAttempts: 1, ConnectDeduped: 2, TrackedEndpoints: 1}},

		"connect_failures: every dial that fails": {func(t *testing.T, f *fakeLink, d *dialer) {
			d.offer(named(t, fromStatic, "10.0.0.1:1", "")) // at 0, 2.5 and 7.5 s
			time.Sleep(10 * time.Second)
		}, GuardCounters{ConnectAttempts: 3, ConnectFailures: 3, TrackedEndpoints: 1}},

		"connect_failures: a session that ends at once": {func(t *testing.T, f *fakeLink, d *dialer) {
			x := named(t, fromLAN, "10.0.0.1:1", "")
			f.answer(x.target, "B", nil)
			d.offer(x)
			time.Sleep(time.Second)
			d.sessionEnded(x.Key, errRefused)
		}, GuardCounters{ConnectAttempts: 1, ConnectFailures: 1, TrackedEndpoints: 1}},

		"backoff_skips: named or asked for while it backs off": {func(t *testing.T, f *fakeLink, d *dialer) {
			x := named(t, fromStatic, "10.0.0.1:1", "")
			d.offer(x)
			time.Sleep(3 * time.Second) // failed twice; the next is at 7.5 s
			d.offer(x)
			if _, err := d.connect(t.Context(), x.target); err == nil {
				t.Error("connected")
			}
		}, GuardCounters{ConnectAttempts: 2, ConnectFailures: 2, BackoffSkips: 2, TrackedEndpoints: 1}},

		"tracked_endpoints: those that were dialled, until they are forgotten": {func(t *testing.T, f *fakeLink, d *dialer) {
			d.offer(named(t, fromStatic, "10.0.0.1:1", ""))
			time.Sleep(time.Second)
			for _, addr := range []string{"10.0.0.2:1", "10.0.0.3:1"} {
				_, _ = d.connect(t.Context(), mustTarget(t, addr))
			}
			if c, _ := d.guard.snapshot(); c.TrackedEndpoints != 3 {
				t.Errorf("%d endpoints are tracked, want 3", c.TrackedEndpoints)
			}
			f.answer(mustTarget(t, "10.0.0.1:1"), "B", nil)
			time.Sleep(forgetAfter + 2*pruneEvery)
		}, GuardCounters{ConnectAttempts: 4, ConnectFailures: 3, TrackedEndpoints: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
				d.start()
				c.do(t, f, d)
				if got, _ := d.guard.snapshot(); got != c.want {
					t.Errorf("counters %+v, want %+v", got, c.want)
				}
			})
		})
	}
}
