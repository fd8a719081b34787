package node

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// strangerHost is a libp2p host with an identity of its own, and no node.
func strangerHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() }) // nothing of it matters any more
	return h
}

// world is what a netwatch in a test sees.
type world struct {
	mu    sync.Mutex // guards below
	nets  string
	err   error
	ahead time.Duration // of the wall clock
	saw   []netChange
}

func (w *world) set(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

func (w *world) watch() *netwatch {
	start := time.Now()
	return &netwatch{
		look: func() (string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.nets, w.err
		},
		clocks: func() (time.Time, time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Now().Round(0).Add(w.ahead), time.Since(start)
		},
		changed: func(c netChange) { w.set(func() { w.saw = append(w.saw, c) }) },
	}
}

func TestNetwatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{nets: "eth0 10.0.0.1/24"}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.watch().run(ctx)
		}()
		expect := func(what string, n int, slept time.Duration) {
			t.Helper()
			time.Sleep(lookEvery)
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.saw) != n || n > 0 && w.saw[n-1].slept != slept {
				t.Errorf("%s: saw %+v", what, w.saw)
			}
		}
		expect("nothing happens", 0, 0)
		w.set(func() { w.nets = "eth0 10.0.0.7/24" })
		expect("an address changes", 1, 0)
		expect("and stays", 1, 0)
		w.set(func() { w.nets, w.err = "", errors.New("no answer") })
		expect("the system does not answer", 1, 0)
		w.set(func() { w.nets, w.err = "eth0 10.0.0.7/24", nil })
		expect("it answers as before", 1, 0)
		w.set(func() { w.ahead += time.Second })
		expect("the clock is corrected a little", 1, 0)
		w.set(func() { w.ahead -= time.Hour })
		expect("the clock is set back", 1, 0)
		w.set(func() { w.ahead += 20 * time.Second })
		expect("the machine sleeps 20 s", 2, 20*time.Second)
		expect("and is awake", 2, 0+20*time.Second)
		cancel()
		<-done
	})
}

// TestNetwatchStandstill: a process that was stopped, or a system whose steady
// clock goes on in sleep, shows as a long time between two looks.
func TestNetwatchStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		watch := w.watch()
		steady := watch.clocks
		var stood time.Duration
		watch.clocks = func() (time.Time, time.Duration) {
			wall, s := steady()
			w.mu.Lock()
			defer w.mu.Unlock()
			return wall.Add(stood), s + stood
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*lookEvery)
		defer cancel()
		go func() {
			time.Sleep(3 * lookEvery)
			w.set(func() { stood = time.Minute })
		}()
		watch.run(ctx)
		if len(w.saw) != 1 || w.saw[0].slept < 59*time.Second || w.saw[0].slept > 61*time.Second {
			t.Errorf("saw %+v", w.saw)
		}
	})
}

// TestInterfaces: two looks at a machine at rest are equal.
func TestInterfaces(t *testing.T) {
	var i interfaces
	a, err := i.look()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := i.look(); err != nil || a != b || a == "" {
		t.Errorf("%q, then %q, %v", a, b, err)
	}
	i.coarse = "as it never is"
	if c, err := i.look(); err != nil || c != a {
		t.Errorf("looking closely: %q, then %q, %v", a, c, err)
	}
}

func TestDialable(t *testing.T) {
	for addr, want := range map[string]bool{
		"192.168.1.2": true, "169.254.1.2": true, "8.8.8.8": true, "fd00::1": true, "2001:db8::1": true,
		"127.0.0.1": false, "0.0.0.0": false, "224.0.0.251": false, "255.255.255.255": false, "fe80::1": false, "::1": false, "ff02::fb": false,
	} {
		if got := dialable(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %t", addr, got)
		}
	}
}

func BenchmarkInterfaces(b *testing.B) {
	var i interfaces
	for b.Loop() {
		if _, err := i.look(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestDropLost: when the network has changed, sessions that cannot go on are made
// again at once, and no others.
func TestDropLost(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A", NoConnect: true}) // dials that cross make sessions of their own
	b := open(t, Config{Label: "B", NoQUIC: true, Connect: []string{hostPort(t, a)}})
	session := func() *session {
		var s *session
		until(t, "there is a session", func() bool {
			s = b.mesh.book.live(a.id)
			return s != nil
		})
		return s
	}
	first := session()
	here, there := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.1")
	b.mesh.dropLost(map[netip.Addr]bool{here: true}, false)
	b.mesh.dropLost(nil, false) // the system did not tell
	if s := session(); s != first {
		t.Error("a session from an address that is there was dropped")
	}
	b.mesh.dropLost(map[netip.Addr]bool{there: true}, false)
	until(t, "a session is made again after the address has gone", func() bool {
		s := b.mesh.book.live(a.id)
		return s != nil && s != first
	})
	second := session()
	b.discovery.changed(netChange{what: "a short sleep", slept: time.Second})
	if s := session(); s != second {
		t.Error("a short sleep ends a session")
	}
	b.discovery.changed(netChange{what: "a long sleep", slept: DefaultStaleAfter})
	until(t, "a session is made again after a long sleep", func() bool {
		s := b.mesh.book.live(a.id)
		return s != nil && s != second
	})
}

// TestDropLostWithoutSession: a connection that carries no session, such as the hash
// table's, goes with its address too.
func TestDropLostWithoutSession(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A", NoQUIC: true})
	stranger := strangerHost(t)
	if err := stranger.Connect(t.Context(), peer.AddrInfo{ID: a.id, Addrs: a.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	conns := func() int { return len(a.host.Network().ConnsToPeer(stranger.ID())) }
	until(t, "the connection is there", func() bool { return conns() == 1 })
	a.mesh.dropLost(nil, true)
	a.mesh.dropLost(map[netip.Addr]bool{netip.MustParseAddr("127.0.0.1"): true, netip.IPv6Loopback(): true}, false)
	if conns() != 1 {
		t.Error("a connection from an address that is there was closed")
	}
	a.mesh.dropLost(map[netip.Addr]bool{netip.MustParseAddr("10.0.0.1"): true}, false)
	if n := conns(); n != 0 {
		t.Errorf("%d connections from an address that has gone are left", n)
	}
}
