package mdns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wire is a link in memory: what one socket sends all others receive.
type wire struct {
	mu      sync.Mutex // guards below
	sockets []*fakeSocket
	sent    int
}

type fakeSocket struct {
	wire   *wire
	from   netip.Addr
	link   int
	in     chan packet
	closed chan struct{}
	mu     sync.Mutex // guards fail
	fail   error
}

func (w *wire) socket(addr string, link int) *fakeSocket {
	s := &fakeSocket{wire: w, from: netip.MustParseAddr(addr), link: link, in: make(chan packet, 64), closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sockets = append(w.sockets, s)
	return s
}

func (s *fakeSocket) send(_ int, data []byte) error {
	s.mu.Lock()
	err := s.fail
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	s.wire.sent++
	for _, o := range s.wire.sockets {
		select {
		case <-o.closed:
		case o.in <- packet{data: slices.Clone(data), link: o.link, to: group4, from: s.from}:
		default:
		}
	}
	return nil
}

func (s *fakeSocket) receive() (packet, error) {
	select {
	case <-s.closed:
		return packet{}, net.ErrClosed
	case p := <-s.in:
		return p, nil
	}
}

func (s *fakeSocket) close() error {
	close(s.closed)
	return nil
}

// ear is what a service in a test heard.
type ear struct {
	mu     sync.Mutex // guards below
	heard  []Announcement
	known  []string
	failed []error
}

func (e *ear) of(instance string) (n int, gone bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.heard {
		if a.Instance == instance {
			n, gone = n+1, a.Gone
		}
	}
	return n, gone
}

func (e *ear) know(instances ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known = instances
}

func testLink(addr string) Link {
	ip := netip.MustParseAddr(addr)
	return Link{Index: 3, Name: "eth0", Prefixes: []netip.Prefix{netip.PrefixFrom(ip, 24)}}
}

// speaker starts a service on the wire.
func speaker(t *testing.T, w *wire, instance, addr string, e *ear) (*Service, *fakeSocket) {
	t.Helper()
	sock := w.socket(addr, 3)
	s, err := start(Config{
		Service: testService, Instance: instance, Port: 9001, Every: 2 * time.Second,
		Text: func(l *Link) []string { return []string{"dnsaddr=/ip4/" + l.Addrs()[0].String() + "/tcp/9001"} },
		Known: func() []string {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.known
		},
		Heard: func(a Announcement) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.heard = append(e.heard, a)
		},
		Failed: func(err error) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.failed = append(e.failed, err)
		},
	}, []Link{testLink(addr)}, []socket{sock})
	if err != nil {
		t.Fatal(err)
	}
	return s, sock
}

func closed(t *testing.T, s *Service) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestTwoHearEachOther: at once at the start, again with each question, not while
// they say that they know each other, and a goodbye at the end.
func TestTwoHearEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wire
		var earA, earB ear
		a, _ := speaker(t, &w, "a", "10.0.0.1", &earA)
		b, _ := speaker(t, &w, "b", "10.0.0.2", &earB)
		time.Sleep(150 * time.Millisecond)
		if n, _ := earA.of("b"); n == 0 {
			t.Error("a did not hear b in 150 ms")
		}
		if n, _ := earB.of("a"); n == 0 {
			t.Error("b did not hear a in 150 ms")
		}
		earA.mu.Lock()
		if h := earA.heard[0]; h.Link.Name != "eth0" || h.From != netip.MustParseAddr("10.0.0.2") || h.Text[0] != "dnsaddr=/ip4/10.0.0.2/tcp/9001" {
			t.Errorf("heard %+v", h)
		}
		earA.mu.Unlock()

		time.Sleep(10 * time.Second)
		before, _ := earA.of("b")
		time.Sleep(10 * time.Second)
		if n, _ := earA.of("b"); n < before+5 || n > before+11 {
			t.Errorf("in 10 s of questions every 2 s by both, b was heard %d times", n-before)
		}

		earA.know("b")
		earB.know("a")
		time.Sleep(3 * time.Second)
		before, _ = earA.of("b")
		w.mu.Lock()
		sent := w.sent
		w.mu.Unlock()
		time.Sleep(20 * time.Second)
		if n, _ := earA.of("b"); n != before {
			t.Errorf("b answered %d times although a knows it", n-before)
		}
		w.mu.Lock()
		if n := w.sent - sent; n < 18 || n > 22 {
			t.Errorf("%d packets in 20 s; want the questions alone", n)
		}
		w.mu.Unlock()

		closed(t, b)
		synctest.Wait()
		if _, gone := earA.of("b"); !gone {
			t.Error("b left without a goodbye")
		}
		closed(t, a)
	})
}

// TestAnswersArePaced: however many ask, an instance speaks once a second.
func TestAnswersArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wire
		var e ear
		s, _ := speaker(t, &w, "a", "10.0.0.1", &e)
		crowd := w.socket("10.0.0.9", 3)
		n := testNames(t, "asker")
		q, err := n.question(nil)
		if err != nil {
			t.Fatal(err)
		}
		answers := 0
		for range 1000 {
			if err := crowd.send(3, q); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
			for len(crowd.in) > 0 {
				if m, err := n.read((<-crowd.in).data); err == nil && len(m.heard) > 0 {
					answers++
				}
			}
		}
		if answers < 8 || answers > 11 {
			t.Errorf("%d answers to 1000 questions in 10 s", answers)
		}
		closed(t, s)
	})
}

// TestOnlyTheLinkIsHeard: packets from beyond the link, from other links, or sent
// to this host alone are not taken.
func TestOnlyTheLinkIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wire
		var e ear
		s, sock := speaker(t, &w, "a", "10.0.0.1", &e)
		b := testNames(t, "b")
		data, err := b.answer(1, []string{"x"}, nil, recordTTL)
		if err != nil {
			t.Fatal(err)
		}
		near, far := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.9.0.2")
		for _, c := range []struct {
			name string
			p    packet
			take bool
		}{
			{"from beyond", packet{link: 3, to: group4, from: far}, false},
			{"on another link", packet{link: 4, to: group4, from: near}, false},
			{"to this host alone", packet{link: 3, to: netip.MustParseAddr("10.0.0.1"), from: near}, false},
			{"as it should be", packet{link: 3, to: group4, from: near}, true},
			{"from a link-local address", packet{link: 3, to: group6, from: netip.MustParseAddr("fe80::1")}, true},
			{"where the system tells nothing", packet{from: near}, true},
		} {
			before, _ := e.of("b")
			c.p.data = data
			sock.in <- c.p
			synctest.Wait()
			if n, _ := e.of("b"); (n > before) != c.take {
				t.Errorf("%s: taken %t", c.name, n > before)
			}
		}
		closed(t, s)
	})
}

// TestSendingFails is told once, and once that it works again.
func TestSendingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wire
		var e ear
		s, sock := speaker(t, &w, "a", "10.0.0.1", &e)
		time.Sleep(5 * time.Second)
		set := func(err error) {
			sock.mu.Lock()
			sock.fail = err
			sock.mu.Unlock()
			time.Sleep(5 * time.Second)
		}
		set(errors.New("network is down"))
		set(nil)
		e.mu.Lock()
		if got := fmt.Sprint(e.failed); got != "[cannot send on eth0: network is down <nil>]" {
			t.Errorf("told %s", got)
		}
		e.mu.Unlock()
		closed(t, s)
	})
}
