package node

import (
	"context"
	"errors"
	"testing"
)

// TestDisconnectDuringHandshake: what a user says while a handshake is under way
// holds at its end, whoever began it.
func TestDisconnectDuringHandshake(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(n *Node, ctx context.Context, id string) (string, error){
		"disconnect": (*Node).Disconnect, "forget": (*Node).Forget,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B"})
			begin := func() <-chan error {
				connected := make(chan error, 1)
				// A decides on B's Hello under this lock: the handshake stands still.
				a.mesh.mu.Lock()
				go func() {
					_, _, err := b.Connect(deadline(t), hostPort(t, a))
					connected <- err
				}()
				until(t, "the handshake is under way", func() bool { return peerState(t, b, a.ID()).State == Handshaking })
				return connected
			}
			connected := begin()
			_, err := say(b, deadline(t), a.ID())
			a.mesh.mu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			if err := <-connected; !errors.Is(err, errHeld) {
				t.Errorf("connect: %v", err)
			}
			if p := peerState(t, b, a.ID()); p.State != map[string]State{"disconnect": Closed}[name] {
				t.Errorf("B sees A as %q", p.State)
			}
			if c := b.Counters(); c.ConnectFailures != 0 {
				t.Errorf("%d attempts count as failures", c.ConnectFailures)
			}
			until(t, "A has no session either", func() bool { return a.mesh.book.live(b.id) == nil })

			// Who connects again while that is under way has the last word.
			connected = begin()
			_, err = say(b, deadline(t), a.ID())
			again := make(chan error, 1)
			go func() {
				_, _, err := b.Connect(deadline(t), hostPort(t, a))
				again <- err
			}()
			until(t, "the second connect is heard", func() bool { return b.Counters().ConnectDeduped > 0 })
			a.mesh.mu.Unlock()
			if first := <-connected; !errors.Is(first, errHeld) {
				t.Errorf("the first connect: %v", first)
			}
			if err := errors.Join(err, <-again); err != nil {
				t.Errorf("the second connect: %v", err)
			}
		})
	}
}

// TestHeldAtAnotherAddress: a peer that its user disconnected is not met again at an
// address that nobody knew to be its; a user who names that address meets it.
func TestHeldAtAnotherAddress(t *testing.T) {
	t.Parallel()
	a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B"})
	if _, _, err := b.Connect(deadline(t), "tcp://"+hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Forget(deadline(t), a.ID()); err != nil {
		t.Fatal(err)
	}
	other := "quic://" + hostPort(t, a)
	b.dialer.offer(named(t, fromRegistry, other, ""))
	until(t, "the other address is dialled", func() bool {
		b.dialer.mu.Lock()
		defer b.dialer.mu.Unlock()
		return b.dialer.targets.all[other].proven
	})
	if p := peerState(t, b, a.ID()); p.PeerID != "" {
		t.Errorf("B sees A, which it forgot, as %s", p.State)
	}
	if c := b.Counters(); c.ConnectFailures != 0 {
		t.Errorf("%d attempts count as failures", c.ConnectFailures)
	}
	if _, _, err := b.Connect(deadline(t), other); err != nil {
		t.Errorf("connect: %v", err)
	}
}
