package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/replication"
)

// testClock is a clock that a test moves.
type testClock struct{ at time.Time }

func (c *testClock) now() time.Time          { return c.at }
func (c *testClock) advance(d time.Duration) { c.at = c.at.Add(d) }

// TestGateBackoff: one offence is free; from the second on a peer is kept away for a
// second, and twice as long each time, up to five minutes.
func TestGateBackoff(t *testing.T) {
	clock := &testClock{time.Unix(1000, 0)}
	g := newGate(clock.now)
	var got []time.Duration
	for range 12 {
		d := g.offence("x", nil)
		got = append(got, d)
		if g.keepsAway("x") != (d > 0) || g.keepsAway("other") {
			t.Fatalf("after %s: kept away %v, another peer %v", d, g.keepsAway("x"), g.keepsAway("other"))
		}
		if d > 0 {
			clock.advance(d - 1)
			if !g.keepsAway("x") {
				t.Errorf("let in before %s are over", d)
			}
		}
		clock.advance(1)
		if g.keepsAway("x") {
			t.Errorf("still kept away after %s", d)
		}
	}
	want := []time.Duration{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300}
	for i := range want {
		want[i] *= time.Second
	}
	if !slices.Equal(got, want) {
		t.Errorf("kept away for %v, want %v", got, want)
	}
	clock.advance(gateMost + 1)
	if d := g.offence("x", nil); d != 0 {
		t.Errorf("an offence after a long time without one: %s", d)
	}
}

// TestGateForgives: a good Hello makes up for bad ones, and what was done in a
// session is made up for by a session that ends well, or by this node's user.
func TestGateForgives(t *testing.T) {
	clock := &testClock{time.Unix(1000, 0)}
	g := newGate(clock.now)
	g.offence("x", nil)
	g.offence("x", nil)
	g.welcome("x")
	if d := g.offence("x", errFlood); g.keepsAway("x") || d != 0 {
		t.Errorf("a Hello that succeeded has not reset the refusals: %s", d)
	}
	g.welcome("x")
	if d := g.offence("x", errFlood); d != gateFirst {
		t.Errorf("the second session that broke the protocol: kept away for %s", d)
	}
	g.forgive("x")
	if g.keepsAway("x") || g.offence("x", errFlood) != 0 {
		t.Error("not forgiven")
	}
}

// TestGatePutsOut: whoever broke the protocol is put out for as long as it is kept away,
// whatever handshakes it begins meanwhile; whoever was refused by Hello is not.
func TestGatePutsOut(t *testing.T) {
	clock := &testClock{time.Unix(1000, 0)}
	g := newGate(clock.now)
	out := func() bool {
		until, why := g.putOut("x")
		if until.IsZero() != (why == nil) || until.IsZero() != (g.allOut()["x"] == nil) {
			t.Errorf("put out until %v because %v, in the list: %v", until, why, g.allOut()["x"])
		}
		return !until.IsZero()
	}
	for range 3 {
		g.offence("x", nil)
	}
	if !g.keepsAway("x") || out() {
		t.Error("put out for a Hello that was refused")
	}
	d := g.offence("x", errFlood)
	if !out() {
		t.Error("not put out for a flood")
	}
	clock.advance(d - time.Second)
	if g.offence("x", nil); !out() {
		t.Error("a Hello that was refused has ended it")
	}
	clock.advance(gateMost)
	if out() || g.offence("x", nil) == 0 || out() {
		t.Error("put out after the time was over")
	}
	g.offence("x", errFlood)
	if g.forgive("x"); out() || g.keepsAway("x") {
		t.Error("put out after the user's word")
	}
}

// TestGateCountsHellos: a peer may begin a burst of handshakes, then one a second.
func TestGateCountsHellos(t *testing.T) {
	clock := &testClock{time.Unix(1000, 0)}
	g := newGate(clock.now)
	n := 0
	for g.hello("x") {
		n++
	}
	if n != helloBurst || !g.hello("y") {
		t.Errorf("%d at once", n)
	}
	clock.advance(time.Second)
	if !g.hello("x") || g.hello("x") {
		t.Error("a second later there is not exactly one more")
	}
}

// TestGateIsBounded: the table forgets whom it has not seen for the longest time.
func TestGateIsBounded(t *testing.T) {
	clock := &testClock{time.Unix(1000, 0)}
	g := newGate(clock.now)
	id := func(i int) peer.ID { return peer.ID(fmt.Sprint("p", i)) }
	for i := range maxGated + 10 {
		clock.advance(time.Millisecond)
		for range 20 {
			g.offence(id(i), nil)
		}
	}
	if len(g.peers) != maxGated || g.keepsAway(id(9)) || !g.keepsAway(id(10)) || !g.keepsAway(id(maxGated+9)) {
		t.Errorf("%d peers are remembered", len(g.peers))
	}
}

// TestGaterRefusesWhoDials: nothing is refused that this node dials.
func TestGaterRefusesWhoDials(t *testing.T) {
	g := newGate(time.Now)
	for range 3 {
		g.offence("x", nil)
	}
	c := gater{g}
	if c.InterceptSecured(network.DirInbound, "x", nil) || !c.InterceptSecured(network.DirInbound, "y", nil) {
		t.Error("the wrong peer is refused")
	}
	if !c.InterceptSecured(network.DirOutbound, "x", nil) || !c.InterceptPeerDial("x") || !c.InterceptAddrDial("x", nil) {
		t.Error("a peer that this node dials is refused")
	}
}

// hellos begins handshakes with a node from a host that stands in another network
// until one is not answered, and returns the errors.
func hellos(t *testing.T, from, to *Node, n int) (errs []error) {
	t.Helper()
	for range n {
		ctx, cancel := context.WithTimeout(deadline(t), 10*time.Second)
		errs = append(errs, helloOnce(ctx, from, to))
		cancel()
	}
	return errs
}

func helloOnce(ctx context.Context, from, to *Node) error {
	if err := from.host.Connect(ctx, peer.AddrInfo{ID: to.id, Addrs: to.host.Addrs()}); err != nil {
		return err
	}
	st, release, err := from.mesh.service.Open(ctx, to.id, protocols.HelloProtocol)
	if err != nil {
		return err
	}
	defer release()
	hello := from.mesh.hello(to.id, nil)
	hello.Network, hello.Attempt = replication.OpenNetwork("another"), from.mesh.attempts.Add(1)
	_, err = protocols.Initiate(st, hello)
	return err
}

// TestStrangerIsKeptAway: a node of another network hears why twice, is then not let
// in on its next connection either, over each transport, and is dialled by this node's
// user without trouble. Others come in meanwhile, and the log names it once.
func TestStrangerIsKeptAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, prefix string
		cfg          Config
	}{{"tcp", tcp4, Config{NoQUIC: true}}, {"quic", quic4, Config{NoTCP: true}}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := c.cfg
			var log logBuffer
			cfg.Label = "X"
			x := open(t, cfg)
			cfg.Label, cfg.Logger = "A", log.logger()
			a := open(t, cfg)
			for i, err := range hellos(t, x, a, 2) {
				if !errors.Is(err, protocols.ErrOtherNetwork) {
					t.Fatalf("hello %d: %v", i, err)
				}
			}
			until(t, "two refusals keep it away", func() bool { return a.mesh.gate.keepsAway(x.id) }) // it is told before it is noted
			for range 8 {
				a.mesh.gate.offence(x.id, nil) // so that it stays away during the test
			}
			// A stream on the connection that is there is not heard, and a new connection
			// does not live.
			if err := helloOnce(deadline(t), x, a); err == nil || errors.Is(err, protocols.ErrOtherNetwork) {
				t.Errorf("a third hello: %v", err)
			}
			until(t, "the connection is closed", func() bool { return a.host.Network().Connectedness(x.id) == network.NotConnected })
			before := a.Counters().HandshakesStarted
			if _, _, err := x.Connect(deadline(t), addr(t, a, c.prefix)); !errors.Is(err, errClosedAtOnce) {
				t.Errorf("connect: %v", err)
			}
			if n := a.Counters().HandshakesStarted; n != before {
				t.Errorf("%d handshakes of one that is kept away", n-before)
			}
			if n := log.count("handshake refused", x.ID(), "other network"); n != 1 {
				t.Errorf("the log names the stranger %d times", n)
			}

			b := open(t, Config{Label: "B", NoTCP: cfg.NoTCP, NoQUIC: cfg.NoQUIC})
			if _, _, err := b.Connect(deadline(t), addr(t, a, c.prefix)); err != nil {
				t.Errorf("somebody else: %v", err)
			}
			// The user's word counts more.
			if _, _, err := a.Connect(deadline(t), addr(t, x, c.prefix)); err != nil {
				t.Errorf("A dials it: %v", err)
			}
			if a.mesh.gate.keepsAway(x.id) {
				t.Error("it has a session, and is still kept away")
			}
		})
	}
}

// TestHandshakesOneAfterTheOther: a peer that begins session after session is named,
// and kept away after a burst.
func TestHandshakesOneAfterTheOther(t *testing.T) {
	t.Parallel()
	var log logBuffer
	a, b := open(t, Config{Label: "A", Logger: log.logger()}), open(t, Config{Label: "B"})
	for range helloBurst {
		a.mesh.gate.hello(b.id)
	}
	// It is kept away for a second at first; one that begins on a connection that is just
	// being closed does not count.
	until(t, "it is kept away", func() bool {
		_ = helloOnce(deadline(t), b, a)
		return a.mesh.gate.keepsAway(b.id)
	})
	until(t, "the log names it", func() bool { return log.has("handshake refused", b.ID(), "one handshake after the other") })
}
