package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// TestGateCountsStreams: a peer may begin a burst of streams, then so many a second;
// the first beyond is news once, and whoever floods is kept away at once.
func TestGateCountsStreams(t *testing.T) {
	clock := &testClock{time.Unix(1000, 0)}
	g := newGate(clock.now)
	if ok, news := g.stream("x"); !ok || news {
		t.Error("a gate without a bound")
	}
	g.streams = 10
	all := func() (n int, news bool) {
		for {
			ok, first := g.stream("x")
			if !ok {
				return n, first
			}
			n++
		}
	}
	if n, news := all(); n != streamBurst*10 || !news {
		t.Errorf("%d at once, news %v", n, news)
	}
	if ok, _ := g.stream("y"); !ok {
		t.Error("another peer's stream is refused")
	}
	clock.advance(time.Second)
	if n, news := all(); n != 10 || news {
		t.Errorf("%d a second later, news %v", n, news)
	}
	if g.keepsAway("x") {
		t.Error("kept away for streams alone")
	}
	g.calm("x")
	if _, news := g.stream("x"); !news {
		t.Error("once the first is dealt with, the next is no news")
	}
	for _, want := range []time.Duration{1, 2, 4} {
		if d := g.flood("x"); d != want*time.Second || !g.keepsAway("x") {
			t.Errorf("kept away for %s", d)
		}
	}
	if g.welcome("x"); !g.keepsAway("x") {
		t.Error("a Hello has made up for it")
	}
}

// TestFloodEndsTheConnection: a peer with a session that opens streams without end is
// put out and named once; a relay of this node is not, and others go on.
func TestFloodEndsTheConnection(t *testing.T) {
	t.Parallel()
	var log logBuffer
	a := open(t, Config{Label: "A", NoQUIC: true, Logger: log.logger()})
	b, c, relay := open(t, Config{Label: "B", NoQUIC: true}), open(t, Config{Label: "C", NoQUIC: true}), open(t, Config{Label: "R", NoQUIC: true})
	for _, n := range []*Node{b, c, relay} {
		if _, _, err := n.Connect(deadline(t), addr(t, a, tcp4)); err != nil {
			t.Fatal(err)
		}
	}
	a.host.ConnManager().Protect(relay.id, relayTag)
	// Silent and short streams, so that no limit on those at one time is met.
	flood := func(from *Node, enough func() bool) {
		conn := from.host.Network().ConnsToPeer(a.id)[0]
		until(t, "a flood from "+from.Label(), func() bool {
			for i := 0; i < 100 && !conn.IsClosed(); i++ {
				if st, err := conn.NewStream(deadline(t)); err == nil {
					_ = st.Reset()
				}
			}
			return enough() || conn.IsClosed()
		})
	}
	for range 8 {
		a.mesh.gate.offence(b.id, errFlood) // so that it stays away during the test
	}
	flood(b, func() bool { return false })
	until(t, "the log names it", func() bool { return log.has("a peer broke the protocol", b.ID(), "streams without end") })
	until(t, "the session has ended", func() bool { return a.mesh.book.live(b.id) == nil })
	// Streams that were on their way when it was put out may count once more.
	if n := record(a.mesh.gate, b).offences; n < 9 || !a.mesh.gate.keepsAway(b.id) {
		t.Errorf("%d offences are noted", n)
	}
	flood(relay, func() bool { return record(a.mesh.gate, relay).streams.Tokens() < 1 })
	put(t, c, "k", "v")
	converge(t, 1, a, c)
	if record(a.mesh.gate, relay).offences != 0 || a.mesh.book.live(relay.id) == nil {
		t.Error("the relay is put out")
	}
	if n := log.count("a peer broke the protocol"); n != 1 {
		t.Errorf("the log says %d times who broke the protocol", n)
	}
}

// putOut puts a peer with a session out as a flood does, for d at least. Only that keeps
// it from being dialled when it returns.
func putOut(t *testing.T, n, peer *Node, d time.Duration) {
	t.Helper()
	s := n.mesh.book.live(peer.id)
	for n.mesh.gate.flood(peer.id) < d { // the last one is the mesh's
	}
	n.mesh.flooded(peer.id)
	select {
	case <-s.closed:
	case <-deadline(t).Done():
		t.Fatal("the session goes on")
	}
	n.dialer.again(peer.id, s.endpoint) // no backoff
	n.dialer.kick()
}

// TestPutOutPeerIsNotDialled: a peer that was put out is not dialled, though nothing
// else is in the way, until its time is over; status says why and until when. The user's
// connect ends that, by an address too of which nobody knows yet who answers there.
func TestPutOutPeerIsNotDialled(t *testing.T) {
	t.Parallel()
	var log logBuffer
	a, b := open(t, Config{Label: "A", NoQUIC: true, Logger: log.logger()}), open(t, Config{Label: "B", NoQUIC: true, NoConnect: true})
	if _, _, err := a.Connect(deadline(t), addr(t, b, tcp4)); err != nil {
		t.Fatal(err)
	}
	putOut(t, a, b, time.Second)
	end := peerState(t, a, b.ID()).PutOut
	if why := peerState(t, a, b.ID()).LastError; !strings.Contains(why, errFlood.Error()) || !strings.Contains(why, end.UTC().Format(time.RFC3339)) {
		t.Errorf("why it is away: %q", why)
	}
	until(t, "the endpoint says when it is tried", func() bool {
		return slices.ContainsFunc(a.endpoints(), func(e EndpointStatus) bool { return e.PeerID == b.ID() && e.Next.Equal(end) })
	})
	until(t, "it is dialled again", func() bool { return a.mesh.book.live(b.id) != nil })
	if since := peerState(t, a, b.ID()).Since; since.Before(end) {
		t.Errorf("a session %s before its time is over", end.Sub(since))
	}

	putOut(t, a, b, time.Minute)
	_, _, was, err := a.connect(deadline(t), addr(t, b, tcp4))
	if err != nil || !strings.Contains(was, errFlood.Error()) {
		t.Errorf("the user's connect: %q, %v", was, err)
	}
	if p := peerState(t, a, b.ID()); p.State != Connected || !p.PutOut.IsZero() || a.mesh.gate.keepsAway(b.id) {
		t.Errorf("after the user's connect: %+v", p)
	}
	if !log.has("let in before its time", b.ID(), errFlood.Error()) {
		t.Error("the log does not say so")
	}
}

// TestPutOutPeerAtNewAddress: who answers at an address may not be known before it is
// dialled. A peer that was put out then gets no session; one that the user asked for does.
func TestPutOutPeerAtNewAddress(t *testing.T) {
	t.Parallel()
	b := open(t, Config{Label: "B", NoQUIC: true, NoConnect: true})
	a := open(t, Config{Label: "A", NoQUIC: true})
	for range 9 {
		a.mesh.gate.flood(b.id)
	}
	a.dialer.offer(found{target: mustTarget(t, hostPort(t, b)), from: fromStatic})
	until(t, "status lists it", func() bool {
		list, err := a.Peers(deadline(t))
		return err == nil && len(list) == 1 && !list[0].PutOut.IsZero() && list[0].State == Disconnected
	})
	if n := b.Counters().HandshakesStarted; n != 0 {
		t.Errorf("%d handshakes with a peer that was put out", n)
	}
	until(t, "the connection is given up", func() bool { return a.host.Network().Connectedness(b.id) == network.NotConnected })

	c := open(t, Config{Label: "C", NoQUIC: true}) // which nobody has told of that address
	for range 9 {
		c.mesh.gate.flood(b.id)
	}
	for _, n := range []*Node{a, c} {
		if _, _, was, err := n.connect(deadline(t), hostPort(t, b)); err != nil || was == "" {
			t.Errorf("%s's user: %q, %v", n.Label(), was, err)
		}
	}
}

// record is what a gate knows of a node.
func record(g *gate, of *Node) gated {
	g.mu.Lock()
	defer g.mu.Unlock()
	return *g.peers[of.id]
}
