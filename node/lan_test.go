package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/node/mdns"
	"vixp2p/replication"
)

// lanBed is a lan with everything around it in the test's hands.
type lanBed struct {
	*lan
	mu     sync.Mutex // guards below
	bound  []ma.Multiaddr
	nets   []mdns.Link
	fail   error
	live   []peer.ID
	opened []mdns.Config
	open   int
	offers []found
}

type closer func() error

func (c closer) Close() error { return c() }

func newLANBed(t *testing.T, bound ...string) *lanBed {
	t.Helper()
	b := &lanBed{lan: newLAN(replication.OpenNetwork("dev"), somePeer(t), 2*time.Second, slog.New(slog.DiscardHandler))}
	for _, s := range bound {
		b.bound = append(b.bound, ma.StringCast(s))
	}
	b.nets = []mdns.Link{testLink(2, "eth0", "10.1.0.5/16", "fd01::5/64", "fe80::5/64"), testLink(3, "eth1", "10.2.0.5/16")}
	b.lan.now = time.Now
	b.lan.listening = func() []ma.Multiaddr { return b.bound }
	b.lan.connected = func() []peer.ID { return b.live }
	b.lan.links = func() ([]mdns.Link, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.nets, b.fail
	}
	b.lan.open = func(c mdns.Config, _ []mdns.Link) (io.Closer, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.opened = append(b.opened, c)
		b.open++
		return closer(func() error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.open--
			return nil
		}), nil
	}
	return b
}

func (b *lanBed) offer(f found) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.offers = append(b.offers, f)
}

func (b *lanBed) taken() []found {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.offers
	b.offers = nil
	return out
}

func somePeer(t testing.TB) peer.ID {
	t.Helper()
	id, err := randomPeerID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func testLink(index int, name string, prefixes ...string) mdns.Link {
	l := mdns.Link{Index: index, Name: name}
	for _, p := range prefixes {
		l.Prefixes = append(l.Prefixes, netip.MustParsePrefix(p))
	}
	return l
}

// announcement is what a peer would say on the first link.
func announcement(id peer.ID, instance, from string, addrs ...string) mdns.Announcement {
	a := mdns.Announcement{Instance: instance, Link: testLink(2, "eth0", "10.1.0.5/16", "fd01::5/64", "fe80::5/64"), From: netip.MustParseAddr(from)}
	for _, s := range addrs {
		a.Text = append(a.Text, dnsaddr+s+"/p2p/"+id.String())
	}
	return a
}

// TestLANService: a name of its own per network, that DNS-SD allows and that does
// not tell the network's.
func TestLANService(t *testing.T) {
	dev, other := lanService(replication.OpenNetwork("dev")), lanService(replication.OpenNetwork("other"))
	if dev == other || dev != lanService(replication.OpenNetwork("dev")) {
		t.Errorf("%s, %s", dev, other)
	}
	name, ok := strings.CutSuffix(dev, "._udp")
	if !ok || len(name) != 16 || !strings.HasPrefix(name, "_vix-") {
		t.Errorf("service %q", dev)
	}
	// It stands on the network: another version must find this one.
	if dev != "_vix-wuzsrzw2fwa._udp" {
		t.Errorf("the service name of the network dev has changed to %s", dev)
	}
}

// TestLANText: on each link what can be dialled there.
func TestLANText(t *testing.T) {
	b := newLANBed(t, "/ip4/0.0.0.0/udp/9001/quic-v1", "/ip4/0.0.0.0/tcp/9001", "/ip6/::/tcp/9001", "/ip4/127.0.0.1/tcp/7", "/ip4/10.2.0.5/tcp/9")
	got := func(l *mdns.Link) (out []string) {
		for _, s := range b.text(l) {
			out = append(out, strings.TrimSuffix(strings.TrimPrefix(s, dnsaddr), "/p2p/"+b.self.String()))
		}
		return out
	}
	if g := got(&b.nets[0]); !slices.Equal(g, []string{"/ip4/10.1.0.5/tcp/9001", "/ip4/10.1.0.5/udp/9001/quic-v1", "/ip6/fd01::5/tcp/9001"}) {
		t.Errorf("eth0: %q", g)
	}
	if g := got(&b.nets[1]); !slices.Equal(g, []string{"/ip4/10.2.0.5/tcp/9001", "/ip4/10.2.0.5/tcp/9", "/ip4/10.2.0.5/udp/9001/quic-v1"}) {
		t.Errorf("eth1: %q", g)
	}
	if p := b.port(); p != 9001 {
		t.Errorf("port %d", p)
	}
}

// TestLANRun: off while there is nothing to offer or no link, on again after a
// change, and nothing is left at the end.
func TestLANRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLANBed(t, "/ip4/127.0.0.1/tcp/9001", "/ip6/::1/udp/9001/quic-v1")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.run(ctx, b.offer)
		}()
		expect := func(on bool, why string) {
			t.Helper()
			synctest.Wait()
			st := b.snapshot()
			b.mu.Lock()
			defer b.mu.Unlock()
			if st.On != on || !strings.Contains(st.Why, why) || (why == "") != (st.Why == "") || b.open != b2i(on) {
				t.Errorf("%+v, %d open; want %t because of %q", st, b.open, on, why)
			}
		}
		set := func(fn func()) {
			b.mu.Lock()
			fn()
			b.mu.Unlock()
		}
		expect(false, "loopback only")
		if len(b.opened) != 0 {
			t.Error("a node on loopback multicasts")
		}
		set(func() { b.bound = []ma.Multiaddr{ma.StringCast("/ip4/0.0.0.0/tcp/9001")} })
		b.changed()
		expect(true, "")
		set(func() { b.nets = nil })
		b.changed()
		expect(false, "no network interface")
		set(func() { b.nets, b.fail = []mdns.Link{testLink(2, "eth0", "10.1.0.5/16")}, errors.New("no answer") })
		b.changed()
		expect(false, "no answer")
		set(func() { b.fail = nil })
		time.Sleep(lanRetry) // by itself
		expect(true, "")
		b.failed(errors.New("cannot send on eth0"))
		expect(true, "cannot send")
		b.failed(nil)
		expect(true, "")
		cancel()
		<-done
		if b.open != 0 {
			t.Error("the service is left open")
		}
	})
}

// TestLANHear: who is heard is offered with all addresses; that is news when the
// peer is new, was silent, has restarted or moved, and not more often than every
// newsPause.
func TestLANHear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, id := newLANBed(t, "/ip4/0.0.0.0/tcp/9001"), somePeer(t)
		say := func(instance string, addrs ...string) (n int, news bool) {
			b.hear(announcement(id, instance, "10.1.0.9", addrs...), b.offer)
			offers := b.taken()
			for _, f := range offers {
				if f.ID != id || f.from != fromLAN || !f.expires.Equal(time.Now().Add(lanKeep)) {
					t.Errorf("offered %+v", f)
				}
				news = f.heard
			}
			return len(offers), news
		}
		const tcp, quic, moved = "/ip4/10.1.0.9/tcp/1", "/ip4/10.1.0.9/udp/1/quic-v1", "/ip4/10.1.0.77/tcp/1"
		for _, step := range []struct {
			what  string
			after time.Duration
			run   string
			addrs []string
			news  bool
		}{
			{"the first time", 0, "run1", []string{tcp, quic}, true},
			{"again", 2 * time.Second, "run1", []string{tcp, quic}, false},
			{"moved", 10 * time.Second, "run1", []string{moved}, true},
			{"restarted, soon after", time.Second, "run2", []string{moved}, false},
			{"a little later", newsPause, "run2", []string{moved}, true},
			{"and again", newsPause, "run2", []string{moved}, false},
			{"after a silence", lanSilence + time.Second, "run2", []string{moved}, true},
		} {
			time.Sleep(step.after)
			if n, news := say(step.run, step.addrs...); n != len(step.addrs) || news != step.news {
				t.Errorf("%s: %d offers, news %t", step.what, n, news)
			}
		}
		if len(b.known()) != 0 {
			t.Error("a peer without a session is not asked for")
		}
		b.live = []peer.ID{id, somePeer(t)}
		if k := b.known(); !slices.Equal(k, []string{"run2"}) {
			t.Errorf("known %q", k)
		}
		if st := b.snapshot(); st.Peers != 1 || !st.LastHeard.Equal(time.Now()) {
			t.Errorf("status %+v", st)
		}
		gone := announcement(id, "run2", "10.1.0.9", tcp)
		gone.Gone = true
		if b.hear(gone, b.offer); len(b.taken()) != 0 {
			t.Error("a goodbye is dialled")
		}
		if b.hear(announcement(b.self, "other", "10.1.0.9", tcp), b.offer); len(b.taken()) != 0 {
			t.Error("this node itself is dialled")
		}
	})
}

// TestTwoLinks: a peer that is heard on two links is no news each time.
func TestTwoLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, id := newLANBed(t, "/ip4/0.0.0.0/tcp/9001"), somePeer(t)
		one := announcement(id, "run", "10.1.0.9", "/ip4/10.1.0.9/tcp/1")
		two := announcement(id, "run", "10.2.0.9", "/ip4/10.2.0.9/tcp/1")
		two.Link = testLink(3, "eth1", "10.2.0.5/16")
		news := 0
		for range 20 {
			for _, a := range []mdns.Announcement{one, two} {
				b.hear(a, b.offer)
			}
			for _, f := range b.taken() {
				news += b2i(f.heard)
			}
			time.Sleep(2 * time.Second)
		}
		if news > 2 {
			t.Errorf("news %d times in 40 s", news)
		}
	})
}

func TestReadAnnouncement(t *testing.T) {
	id, other := somePeer(t), somePeer(t)
	rsa := "/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"
	for _, c := range []struct {
		name string
		text []string
		want []string
		err  string
	}{
		{"addresses on the link", []string{"/ip4/10.1.2.3/tcp/1/p2p/" + id.String(), "/ip6/fd01::9/udp/1/quic-v1/p2p/" + id.String()}, []string{"/ip4/10.1.2.3/tcp/1", "/ip6/fd01::9/udp/1/quic-v1"}, ""},
		{"what others cannot dial is left out", []string{
			"/ip4/127.0.0.1/tcp/1/p2p/" + id.String(), "/ip4/0.0.0.0/tcp/1/p2p/" + id.String(), "/ip4/224.0.0.1/tcp/1/p2p/" + id.String(),
			"/ip6/fe80::9/tcp/1/p2p/" + id.String(), "/ip4/8.8.8.8/tcp/1/p2p/" + id.String(), "/dns4/victim.example/tcp/1/p2p/" + id.String(),
			"/ip4/10.1.2.3/tcp/1/ws/p2p/" + id.String(), "/ip4/10.1.2.3/udp/1/p2p/" + id.String(), "/ip4/10.1.2.3/p2p/" + id.String(),
			"/ip4/10.1.2.3/tcp/1/p2p/" + other.String() + "/p2p-circuit/p2p/" + id.String(), "/ip4/10.1.2.3/tcp/2/p2p/" + id.String(),
		}, []string{"/ip4/10.1.2.3/tcp/2"}, ""},
		{"the sender's own address off the link", []string{"/ip4/192.168.7.7/tcp/1/p2p/" + id.String()}, []string{"/ip4/192.168.7.7/tcp/1"}, ""},
		{"another host off the link", []string{"/ip4/192.168.7.8/tcp/1/p2p/" + id.String()}, nil, "no address that can be dialled"},
		{"two peers", []string{"/ip4/10.1.2.3/tcp/1/p2p/" + id.String(), "/ip4/10.1.2.3/tcp/2/p2p/" + other.String()}, nil, "the one peer"},
		{"no peer", []string{"/ip4/10.1.2.3/tcp/1"}, nil, "the one peer"},
		{"no multiaddr", []string{"10.1.2.3:1"}, nil, "is no multiaddr"},
		{"an RSA identity", []string{"/ip4/10.1.2.3/tcp/1" + rsa}, nil, "no Ed25519 identity"},
		{"nothing", nil, nil, "no address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := announcement(id, "run", "192.168.7.7")
			a.Text = []string{"txtvers=1"} // of another program
			for _, s := range c.text {
				a.Text = append(a.Text, dnsaddr+s)
			}
			who, addrs, err := readAnnouncement(&a)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("%v; want %q", err, c.err)
				}
				return
			}
			var got []string
			for _, a := range addrs {
				got = append(got, a.String())
			}
			if err != nil || who != id || !slices.Equal(got, c.want) {
				t.Errorf("%s %q, %v", who, got, err)
			}
		})
	}
	a := announcement(id, "run", "10.1.0.9")
	for i := range 100 {
		a.Text = append(a.Text, fmt.Sprintf("%s/ip4/10.1.2.3/tcp/%d/p2p/%s", dnsaddr, i+1, id))
	}
	if _, addrs, err := readAnnouncement(&a); err != nil || len(addrs) != maxLANAddrs {
		t.Errorf("of a hundred addresses %d are taken, %v", len(addrs), err)
	}
}

// TestBogusAnnouncements: a thousand peers that do not exist, from one machine and
// from many, cost bounded memory, and a real peer is heard among them.
func TestBogusAnnouncements(t *testing.T) {
	for _, machines := range []int{1, 1000} {
		t.Run(fmt.Sprint(machines), func(t *testing.T) {
			b, real := newLANBed(t, "/ip4/0.0.0.0/tcp/9001"), somePeer(t)
			offered := 0
			for i := range 1000 {
				host := fmt.Sprintf("10.1.%d.%d", 1+i%machines/250, 1+i%machines%250)
				b.hear(announcement(somePeer(t), fmt.Sprint(i), host, "/ip4/"+host+"/tcp/1"), b.offer)
				offered += len(b.taken())
			}
			if machines == 1 && (offered != maxPerSource || len(b.heard) != maxPerSource) {
				t.Errorf("one machine has %d peers offered, %d kept", offered, len(b.heard))
			}
			if len(b.heard) > maxLANPeers {
				t.Errorf("%d peers are kept", len(b.heard))
			}
			b.hear(announcement(real, "run", "10.1.200.1", "/ip4/10.1.200.1/tcp/1"), b.offer)
			if got := b.taken(); len(got) != 1 || got[0].ID != real || !got[0].heard {
				t.Errorf("the real peer: %+v", got)
			}
		})
	}
}
