package node

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

// proxy passes TCP connections on to a node until it is told to hold them. The
// nodes of such a test have NoConnect, since they would remember each other's own
// addresses and go past the proxy.
type proxy struct {
	listener net.Listener
	to       string
	wg       sync.WaitGroup

	mu    sync.Mutex // guards below
	cond  *sync.Cond
	held  bool
	dead  int // connections before this one are held for good
	conns []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	p.cond = sync.NewCond(&p.mu)
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.hold(false)
		p.mu.Lock()
		p.dead = 0
		p.cond.Broadcast()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) serve() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		nr := len(p.conns)
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		p.wg.Go(func() { p.pass(nr, in, out) })
		p.wg.Go(func() { p.pass(nr, out, in) })
	}
}

func (p *proxy) pass(nr int, from, to net.Conn) {
	defer to.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.held || nr < p.dead {
			p.cond.Wait()
		}
		p.mu.Unlock()
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// hold keeps back everything until it is called with false.
func (p *proxy) hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = on
	p.cond.Broadcast()
}

// kill makes the connections that there are swallow everything for good; new ones
// work.
func (p *proxy) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = len(p.conns)
}

// TestStaleSessionIsReplaced: a peer that answers new connections while nothing
// comes on the old one is connected again before the old session times out.
func TestStaleSessionIsReplaced(t *testing.T) {
	t.Parallel()
	cfg := Config{Label: "A", NoQUIC: true, NoConnect: true, PingEvery: 100 * time.Millisecond, StaleAfter: 5 * time.Second, HelloTimeout: 2 * time.Second}
	a := open(t, cfg)
	p := newProxy(t, hostPort(t, a))
	cfg.Label = "B"
	b := open(t, cfg)
	if _, _, err := b.Connect(deadline(t), p.listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	put(t, a, "k", "1")
	converge(t, 1, a, b)
	old := b.mesh.book.live(a.id)
	p.kill()
	put(t, a, "k2", "2")
	until(t, "another session", func() bool { s := b.mesh.book.live(a.id); return s != nil && s != old })
	var end *replicator.EndError
	if !errors.As(old.driver.Err(), &end) || end.Code == replication.CodeStale {
		t.Errorf("the old session ended by its time limit: %v", old.driver.Err())
	}
	converge(t, 2, a, b)
}

// TestStale: a path that swallows everything shows as Stale on both sides, does
// not count as Connected, and the peers converge when it works again, over the
// same session or another.
func TestStale(t *testing.T) {
	t.Parallel()
	cfg := Config{Label: "A", NoQUIC: true, NoConnect: true, PingEvery: 100 * time.Millisecond, StaleAfter: time.Second}
	a := open(t, cfg)
	p := newProxy(t, hostPort(t, a))
	cfg.Label = "B"
	b := open(t, cfg)
	if _, _, err := b.Connect(deadline(t), p.listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	put(t, a, "k", "1")
	converge(t, 1, a, b)
	p.hold(true)
	put(t, a, "k2", "2")
	was := map[*Node]bool{} // each is for 2 s, before it gives up
	until(t, "both are stale", func() bool {
		for n, other := range map[*Node]*Node{a: b, b: a} {
			was[n] = was[n] || peerState(t, n, other.ID()).State == Stale
		}
		return was[a] && was[b]
	})
	ctx, cancel := contextWithTimeout(t, 50*time.Millisecond)
	defer cancel()
	if err := b.Wait(ctx, WaitOptions{Peers: 1}); err == nil {
		t.Error("a stale peer counts as connected")
	}
	// Longer than a session lives without a word.
	until(t, "both have given up", func() bool {
		return !a.mesh.book.live(b.id).alive() && !b.mesh.book.live(a.id).alive()
	})
	p.hold(false)
	converge(t, 2, a, b)
	if err := b.Wait(deadline(t), WaitOptions{Peers: 1, Synced: true}); err != nil {
		t.Error(err)
	}
}

// TestConnectToSilentPeer: a session whose peer has become silent is no answer to
// connect, long before it counts as stale; it stays, since it may be slow.
func TestConnectToSilentPeer(t *testing.T) {
	t.Parallel()
	cfg := Config{Label: "A", NoQUIC: true, NoConnect: true}
	a := open(t, cfg)
	p := newProxy(t, hostPort(t, a))
	cfg.Label = "B"
	b := open(t, cfg)
	addr := p.listener.Addr().String()
	for range 2 { // the second finds the session, and its peer
		if _, _, err := b.Connect(deadline(t), addr); err != nil {
			t.Fatal(err)
		}
	}
	s := b.mesh.book.live(a.id)
	p.hold(true)
	if _, _, err := b.Connect(deadline(t), addr); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("connect to a peer that is silent: %v", err)
	}
	p.hold(false)
	p.kill() // the session is silent, and its peer is there
	if _, _, err := b.Connect(deadline(t), addr); err != nil {
		t.Error(err)
	}
	if b.mesh.book.live(a.id) != s {
		t.Error("the session was given up")
	}
}

// twiceAsked is how long connect would take that waits for its answer twice. That once
// is within 5 s is shown in virtual time: here a busy machine adds what it likes.
const twiceAsked = 2 * answerTime

// TestConnectToStalePeer: to ask whether the peer of a stale session is there
// counts in the time in which connect to a dead port must fail (design 10).
func TestConnectToStalePeer(t *testing.T) {
	t.Parallel()
	cfg := Config{Label: "A", NoConnect: true, PingEvery: 100 * time.Millisecond, StaleAfter: time.Second}
	a := open(t, cfg)
	p := newProxy(t, hostPort(t, a))
	cfg.Label = "B"
	b := open(t, cfg)
	addr := p.listener.Addr().String()
	if _, _, err := b.Connect(deadline(t), addr); err != nil {
		t.Fatal(err)
	}
	p.hold(true)
	until(t, "it is stale", func() bool { return peerState(t, b, a.ID()).State == Stale })
	began := time.Now()
	_, _, err := b.Connect(deadline(t), addr)
	if took := time.Since(began); took >= twiceAsked {
		t.Errorf("connect took %s", took)
	}
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("connect to a peer that is silent: %v", err)
	}
}
