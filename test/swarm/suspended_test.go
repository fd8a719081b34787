//go:build unix

package swarm

import (
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/proc"
)

// TestSuspended: a process stands still, as in a machine that sleeps, for longer
// than its peers take it for alive, and for longer than the session lives. Both
// sides write meanwhile. When it goes on they are connected again at once and have
// everything, and it has noticed that it stood still.
func TestSuspended(t *testing.T) {
	t.Parallel()
	a := proc.New(t, "A").Start()
	b := proc.New(t, "B", "--connect", a.Addr()).Start()
	proc.Converged(t, a, b)

	a.OK("put", "before", "1")
	a.Freeze()
	began := time.Now()
	b.OK("put", "meanwhile", "2")
	awaitState(t, b, a, "Stale")
	stale := time.Since(began)
	awaitGone(t, b, a)
	gone := time.Since(began)

	a.Thaw()
	began = time.Now()
	a.OK("put", "after", "3")
	proc.Converged(t, a, b)
	t.Logf("stale after %.1f s, given up after %.1f s, converged %.2f s after it goes on", stale.Seconds(), gone.Seconds(), time.Since(began).Seconds())
	for _, n := range []*proc.Node{a, b} {
		for key, want := range map[string]string{"before": "1", "meanwhile": "2", "after": "3"} {
			if got := n.OK("get", key); got != want {
				t.Errorf("%s reads %s = %q, want %q", n.Label, key, got, want)
			}
		}
	}
	if log := a.Stderr(); !strings.Contains(log, "looking for peers again") {
		t.Errorf("it did not notice that it stood still:\n%s", log)
	}
}

// stateOf is how a node sees a peer.
func stateOf(n, peer *proc.Node) string {
	for _, p := range n.Status().Peers {
		if p.PeerID == peer.PeerID {
			return p.State
		}
	}
	return ""
}

func awaitState(t *testing.T, n, peer *proc.Node, want string) {
	t.Helper()
	await(t, n, peer, want, func(state string) bool { return state == want })
}

func awaitGone(t *testing.T, n, peer *proc.Node) {
	t.Helper()
	await(t, n, peer, "without a session", func(state string) bool { return state != "Connected" && state != "Stale" })
}

func await(t *testing.T, n, peer *proc.Node, what string, ok func(state string) bool) {
	t.Helper()
	for give := time.Now().Add(proc.Patience); ; time.Sleep(50 * time.Millisecond) {
		state := stateOf(n, peer)
		if ok(state) {
			return
		}
		if time.Now().After(give) {
			t.Fatalf("%s sees %s as %q, not %s, for %v", n.Label, peer.Label, state, what, proc.Patience)
		}
	}
}
