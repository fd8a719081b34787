package node

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAddressOfAPeer: status shows an address that leads to the peer, not a port from
// which it once dialled, when the session goes the other way and when there is none.
func TestAddressOfAPeer(t *testing.T) {
	t.Parallel()
	a, b := open(t, Config{Label: "A", NoQUIC: true}), open(t, Config{Label: "B", NoQUIC: true})
	listens := "tcp://" + hostPort(t, b)
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	connected(t, a, b)
	from := peerState(t, a, b.ID()).Addr
	if _, err := a.Disconnect(deadline(t), "B"); err != nil {
		t.Fatal(err)
	}
	until(t, "B knows of the end", func() bool { return b.mesh.book.parted(a.id) })
	if _, _, err := a.Connect(deadline(t), hostPort(t, b)); err != nil {
		t.Fatal(err)
	}
	connected(t, a, b)
	if p := peerState(t, a, b.ID()); p.Direction != "out" || p.Addr != listens {
		t.Errorf("A dialled B at %s, and shows %s (%s); B had dialled from %s", listens, p.Addr, p.Direction, from)
	}
	if _, err := a.Disconnect(deadline(t), "B"); err != nil {
		t.Fatal(err)
	}
	until(t, "B knows of the end", func() bool { return b.mesh.book.parted(a.id) })
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	connected(t, a, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the session has ended", func() bool { return a.Counters().PeersConnected == 0 })
	if p := peerState(t, a, b.ID()); p.Addr != listens {
		t.Errorf("of the absent B %s is shown, not %s", p.Addr, listens)
	}
}

// TestEndThatWasNotLookedAt: as long as a node has not looked at the end of a session it
// does not dial the peer, for that may have asked to be left alone.
func TestEndThatWasNotLookedAt(t *testing.T) {
	t.Parallel()
	a, b := open(t, Config{Label: "A", NoConnect: true}), open(t, Config{Label: "B"})
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	connected(t, a, b)
	s := b.mesh.book.live(a.id)
	if _, err := a.Disconnect(deadline(t), b.ID()); err != nil {
		t.Fatal(err)
	}
	until(t, "B has looked at the end", func() bool { return b.mesh.book.parted(a.id) })
	// As it was a moment before.
	var then time.Time
	b.mesh.book.change(a.id, func(r *peerRecord) { r.session, then, r.parted = s, r.parted, time.Time{} })
	if connected, _, _ := b.mesh.busy(a.id); !connected {
		t.Error("the peer may be dialled")
	}
	if err := b.mesh.present(deadline(t), target{}, a.id, time.Now()); !errors.Is(err, errEnded) {
		t.Errorf("the peer is there: %v", err)
	}
	b.mesh.book.change(a.id, func(r *peerRecord) { r.session, r.parted = nil, then })
	if connected, held, _ := b.mesh.busy(a.id); connected || !held {
		t.Errorf("once it has: connected %v, held %v", connected, held)
	}
}

// TestNoPromiseOfARetry: the log names a time for the next attempt only where one
// comes by itself.
func TestNoPromiseOfARetry(t *testing.T) {
	for _, kept := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			f := newFakeLink()
			d := newDialer(newGuard(nil), f, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
			want := named(t, fromStatic, "tcp://h:1", "")
			f.answer(want.target, "", errors.New("nobody is there"))
			if kept {
				d.start(staticSource{targets: []target{want.target}})
				synctest.Wait()
			} else {
				d.start()
				if _, err := d.connect(t.Context(), want.target); err == nil {
					t.Error("somebody answers")
				}
			}
			d.close()
			if got := log.String(); !strings.Contains(got, "cannot connect") || strings.Contains(got, "retry_in") != kept {
				t.Errorf("kept %t: %s", kept, got)
			}
		})
	}
}
