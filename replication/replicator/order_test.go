package replicator

import (
	"crypto/ed25519"
	"math/rand/v2"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
)

// TestSessionsHearBeforeTheMesh: while the mesh is busy sessions hear at once of what is
// durable, as the frontiers do that they compare.
func TestSessionsHearBeforeTheMesh(t *testing.T) {
	store, err := memlog.Open(memlog.Options{
		Network: replication.OpenNetwork("n"), Key: ed25519.NewKeyFromSeed(make([]byte, 32)),
		Now: time.Now, Rand: rand.NewChaCha8([32]byte{}), Disk: &memlog.Disk{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	r, err := New(Options{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{box: newMailbox(7)}
	r.peers = append(r.peers, p)
	r.mesh.mu.Lock()
	told := make(chan struct{})
	go func() {
		defer close(told)
		r.advanced(replication.Advance{
			Space: replication.SpaceID{1}, Log: replication.LogID{1}, Tip: replication.Position{Seq: 1, Hash: replication.Hash{1}},
		})
	}()
	late := time.After(30 * time.Second)
	for heard := 0; heard == 0 && !t.Failed(); { // of the new space it hears first
		select {
		case <-p.box.wake:
			heard = len(p.box.takeAdvances())
		case <-late:
			t.Error("sessions hear of a write after the mesh")
		}
	}
	r.mesh.mu.Unlock()
	<-told
}
