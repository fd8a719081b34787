package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// A peer that runs with relaxed durability gets every write and counts for none:
// while it is connected, when it has gone, and after a restart of this node. Then
// it fsyncs, and counts.
func TestRelaxedPeerCountsForNoReplica(t *testing.T) {
	t.Parallel()
	dirA, dirB, address := t.TempDir(), t.TempDir(), steadyAddr(t)
	a := open(t, Config{Label: "A", DataDir: dirA, Listen: []string{address}})
	b := open(t, Config{Label: "B", DataDir: dirB, Durability: Relaxed, Connect: []string{address}})
	w := put(t, a, "k", "v")
	converge(t, 1, a, b)

	on := func(n *Node) *Write { return &Write{s: n.Space(""), dot: w.dot} }
	relaxed := func(n *Node) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		var short *ReplicaError
		if err := on(n).WaitReplicated(ctx, 1); !errors.As(err, &short) || len(short.Acked) != 0 {
			t.Fatalf("a relaxed peer counts as a replica: %v", err)
		}
		if p := peerState(t, n, b.ID()); p.Durability != "relaxed" || p.PendingOps != 0 {
			t.Errorf("%s sees B as %+v", n.Label(), p)
		}
	}
	until(t, "the ack", func() bool { return peerState(t, a, b.ID()).PendingOps == 0 })
	relaxed(a)
	// The other way round it does.
	mine := put(t, b, "m", "v")
	if err := mine.WaitReplicated(deadline(t), 1); err != nil {
		t.Fatal(err)
	}
	if p := peerState(t, b, a.ID()); p.Durability != "strict" || !p.Settled {
		t.Errorf("B sees A as %+v", p)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	relaxed(a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, Config{Label: "A", DataDir: dirA, Listen: []string{address}})
	relaxed(a)
	b = open(t, Config{Label: "B", DataDir: dirB, Connect: []string{hostPort(t, a)}})
	if err := on(a).WaitReplicated(deadline(t), 1); err != nil {
		t.Fatal(err)
	}
	if p := peerState(t, a, b.ID()); p.Durability != "strict" {
		t.Errorf("B is strict now: %+v", p)
	}
}

// A wait for n peers in step is for n at one moment.
func TestWaitForSyncedPeersAtOneMoment(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A"})
	b := open(t, Config{Label: "B", Connect: []string{hostPort(t, a)}})
	put(t, a, "k", "v")
	if err := a.Wait(deadline(t), WaitOptions{Peers: 1, Synced: true}); err != nil {
		t.Fatal(err)
	}
	err := timedOut(t, func(ctx context.Context) error { return a.Wait(ctx, WaitOptions{Peers: 2, Synced: true}) }, func(err error) bool {
		return strings.Contains(err.Error(), "1 of 2 peers")
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with one peer: %v", err)
	}
	done := make(chan error, 1)
	ctx := deadline(t)
	go func() { done <- a.Wait(ctx, WaitOptions{Peers: 2, Synced: true}) }()
	c := open(t, Config{Label: "C", Connect: []string{hostPort(t, a)}})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	converge(t, 1, a, b, c)
	if v, err := a.Space("").Get(deadline(t), "k"); err != nil || string(v.Value) != "v" {
		t.Errorf("the view is behind: %v", err)
	}
}

// Totals are what Status shows, without the work.
func TestTotals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := open(t, Config{Label: "A", DataDir: dir})
	b := open(t, Config{Label: "B", Connect: []string{hostPort(t, a)}})
	put(t, a, "k", "v")
	put(t, b, "m", "v")
	converge(t, 2, a, b)
	check := func(n *Node, ops, pending uint64) {
		t.Helper()
		until(t, "totals", func() bool {
			got, err := n.Totals(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			st, err := n.Status(deadline(t))
			if err != nil {
				t.Fatal(err)
			}
			full := uint64(0)
			for _, p := range st.Peers {
				full += p.PendingOps
			}
			return got.Ops == ops && opsOf(st.Spaces) == ops && got.PendingOps == pending && full == pending && got.Settled
		})
	}
	check(a, 2, 0)
	check(b, 2, 0)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, a, "k", "w")
	put(t, a, "l", "w")
	check(a, 4, 2)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, Config{Label: "A", DataDir: dir})
	put(t, a, "k", "x")
	check(a, 5, 3)
}
