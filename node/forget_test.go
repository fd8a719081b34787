package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestForgottenIsToldSo: who is forgotten hears that, and not only that the other's user
// disconnected it.
func TestForgottenIsToldSo(t *testing.T) {
	t.Parallel()
	a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B"})
	b.mesh.pause = 50 * time.Millisecond
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	connected(t, a, b)
	if _, err := a.Forget(deadline(t), b.ID()); err != nil {
		t.Fatal(err)
	}
	told := func() bool { return strings.Contains(peerState(t, b, a.ID()).LastError, forgottenDetail) }
	until(t, "B knows", told)
	before := b.Counters().HandshakesStarted
	until(t, "B has asked twice", func() bool { return b.Counters().HandshakesStarted >= before+2 })
	if !told() {
		t.Errorf("B sees A as %+v", peerState(t, b, a.ID()))
	}
}

// TestForgetTheDead: a member that is gone for good can be forgotten, whatever is left
// of it: then it is listed no more, nothing is pending towards it, and that stays so
// after restarts, until it comes back.
func TestForgetTheDead(t *testing.T) {
	t.Parallel()
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := open(t, Config{Label: "A", DataDir: dirA}), open(t, Config{Label: "B", DataDir: dirB})
	put(t, a, "k", "1")
	if _, _, err := a.Connect(deadline(t), hostPort(t, b)); err != nil {
		t.Fatal(err)
	}
	converge(t, 1, a, b)
	acked := func() {
		t.Helper()
		until(t, "B has acknowledged it all", func() bool {
			sum, err := a.Totals(t.Context())
			return err == nil && sum.PendingOps == 0
		})
	}
	acked()
	dead := b.ID()
	restart := func(n *Node, cfg Config) *Node {
		t.Helper()
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		return open(t, cfg)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, a, "k", "2")
	pending := func(want uint64, total int) {
		t.Helper()
		sum, err := a.Totals(deadline(t))
		if err != nil || sum.PendingOps != want || sum.Counters.PeersTotal != total {
			t.Errorf("%d pending, %d peers in all, %v; want %d and %d", sum.PendingOps, sum.Counters.PeersTotal, err, want, total)
		}
		if p := peerState(t, a, dead); p.PendingOps != want || (p.PeerID != "") != (total == 1) {
			t.Errorf("B is shown as %+v", p)
		}
	}
	pending(1, 1)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	// Without the address book the statements of B are left, by which it is listed.
	if err := os.Remove(filepath.Join(dirA, peersFile)); err != nil {
		t.Fatal(err)
	}
	a = open(t, Config{Label: "A", DataDir: dirA})
	pending(1, 1)
	if id, err := a.Forget(deadline(t), dead[len(dead)-8:]); err != nil || id != dead {
		t.Fatalf("forget: %s, %v", id, err)
	}
	pending(0, 0)
	if _, err := a.Forget(deadline(t), dead); err == nil {
		t.Error("B can be forgotten twice")
	}
	put(t, a, "k", "3")
	pending(0, 0)
	a = restart(a, Config{Label: "A", DataDir: dirA})
	put(t, a, "k", "4")
	pending(0, 0)

	b = open(t, Config{Label: "B", DataDir: dirB})
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	converge(t, 1, a, b)
	acked()
	pending(0, 1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the session has ended", func() bool { return a.Counters().PeersConnected == 0 })
	put(t, a, "k", "5")
	pending(1, 1)

	a = restart(a, Config{Label: "A", DataDir: dirA, Offline: true})
	if id, err := a.Forget(deadline(t), dead); err != nil || id != dead {
		t.Fatalf("forget offline: %s, %v", id, err)
	}
	a = restart(a, Config{Label: "A", DataDir: dirA})
	pending(0, 0)
}
