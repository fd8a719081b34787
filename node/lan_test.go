package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/replication"
)

// lanBed is a lan with everything around it in the test's hands.
type lanBed struct {
	*lan
	mu     sync.Mutex // guards below
	bound  []ma.Multiaddr
	nets   []lanLink
	fail   error
	live   []peer.ID
	opened []announcement
	ear    lanEar // of the last one
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
	b.nets = []lanLink{testLink(2, "eth0", "10.1.0.5/16", "fd01::5/64", "fe80::5/64"), testLink(3, "eth1", "10.2.0.5/16")}
	b.lan.now = time.Now
	b.lan.listening = func() []ma.Multiaddr { return b.bound }
	b.lan.connected = func() []peer.ID { return b.live }
	b.lan.links = func() ([]lanLink, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.nets, b.fail
	}
	b.lan.open = func(a announcement, to lanEar) (io.Closer, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.opened, b.ear = append(b.opened, a), to
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

func testLink(index int, name string, prefixes ...string) lanLink {
	l := lanLink{Interface: net.Interface{Index: index, Name: name}}
	for _, p := range prefixes {
		l.prefixes = append(l.prefixes, netip.MustParsePrefix(p))
	}
	return l
}

// textsOf is what a peer would say.
func textsOf(id peer.ID, addrs ...string) (texts []string) {
	for _, s := range addrs {
		texts = append(texts, dnsaddr+s+"/p2p/"+id.String())
	}
	return texts
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

// TestLANText: what can be dialled on the links, the best first, and bounded.
func TestLANText(t *testing.T) {
	b := newLANBed(t, "/ip4/0.0.0.0/udp/9001/quic-v1", "/ip4/0.0.0.0/tcp/9001", "/ip6/::/tcp/9001", "/ip4/127.0.0.1/tcp/7", "/ip4/10.2.0.5/tcp/9")
	texts, ips := b.text(b.nets)
	want := textsOf(b.self, "/ip4/10.1.0.5/tcp/9001", "/ip4/10.2.0.5/tcp/9001", "/ip4/10.2.0.5/tcp/9",
		"/ip4/10.1.0.5/udp/9001/quic-v1", "/ip4/10.2.0.5/udp/9001/quic-v1", "/ip6/fd01::5/tcp/9001")
	if !slices.Equal(texts, want) {
		t.Errorf("says %q", texts)
	}
	if fmt.Sprint(ips) != "[10.1.0.5 fd01::5]" {
		t.Errorf("for other tools %s", ips)
	}
	if p := b.port(); p != 9001 {
		t.Errorf("port %d", p)
	}
	for i := range maxLinks {
		b.nets = append(b.nets, testLink(10+i, "veth", fmt.Sprintf("172.16.%d.1/24", i)))
	}
	if texts, ips = b.text(b.nets); len(texts) != maxLANAddrs || !slices.Equal(texts[:3], want[:3]) || len(ips) != 2 {
		t.Errorf("of many links it says %q, %s", texts, ips)
	}
	b.bound = []ma.Multiaddr{ma.StringCast("/ip4/192.168.9.9/tcp/1")}
	if texts, _ = b.text(b.nets); len(texts) != 0 {
		t.Errorf("with no address on the links it says %q", texts)
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
		set(func() { b.nets, b.fail = []lanLink{testLink(2, "eth0", "10.1.0.5/16")}, errors.New("no answer") })
		b.changed()
		expect(false, "no answer")
		set(func() { b.fail = nil })
		time.Sleep(lanRetry) // by itself
		expect(true, "")
		b.ear.failed(errors.New("nobody can be asked"))
		expect(true, "nobody can be asked")
		b.ear.failed(nil)
		expect(true, "")
		before := b.opened[len(b.opened)-1].instance
		set(func() { b.bound = []ma.Multiaddr{ma.StringCast("/ip4/192.168.9.9/tcp/9001")} })
		b.changed()
		expect(true, "no address of these interfaces")
		if now := b.opened[len(b.opened)-1].instance; now == before {
			t.Error("another announcement has the name of the one before: who heard that does not hear this")
		}
		cancel()
		<-done
		if b.open != 0 {
			t.Error("the service is left open")
		}
	})
}

// near opens the links of a bed without anything that runs.
func (b *lanBed) near() *lanBed {
	b.lan.near = b.nets
	return b
}

// TestLANHear: who is heard is offered with all addresses; that is news when the
// peer is new, was silent, has restarted or moved, and not more often than every
// newsPause.
func TestLANHear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, id := newLANBed(t, "/ip4/0.0.0.0/tcp/9001").near(), somePeer(t)
		say := func(instance string, addrs ...string) (n int, news bool) {
			b.hear(instance, textsOf(id, addrs...), b.offer)
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
			{"by the other version of IP", 0, "run1", []string{tcp, quic}, false},
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
		if st := b.snapshot(); st.Peers != 1 || !st.LastHeard.Equal(time.Now()) {
			t.Errorf("status %+v", st)
		}
		if b.hear("other", textsOf(b.self, tcp), b.offer); len(b.taken()) != 0 {
			t.Error("this node itself is dialled")
		}
	})
}

// TestNewsOfNobody: who says all the time that it is back is dialled for it ever
// more rarely, unless there was a session with it.
func TestNewsOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, id := newLANBed(t, "/ip4/0.0.0.0/tcp/9001").near(), somePeer(t)
		count := func() (news int) {
			for range 1800 {
				b.hear(fmt.Sprint(time.Now()), textsOf(id, "/ip4/10.1.0.9/tcp/1"), b.offer)
				for _, f := range b.taken() {
					news += b2i(f.heard)
				}
				time.Sleep(2 * time.Second)
			}
			return news
		}
		if n := count(); n > 30 || n < newsFree {
			t.Errorf("%d times news in an hour of somebody who is never there", n)
		}
		b.live = []peer.ID{id}
		if n := count(); n < 300 {
			t.Errorf("%d times news in an hour of somebody who is", n)
		}
	})
}

func TestReadAnnouncement(t *testing.T) {
	id, other := somePeer(t), somePeer(t)
	near := []lanLink{testLink(2, "eth0", "10.1.0.5/16", "fd01::5/64", "fe80::5/64"), testLink(3, "eth1", "10.2.0.5/16")}
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
		{"of any of the links", []string{"/ip4/10.2.7.7/tcp/1/p2p/" + id.String()}, []string{"/ip4/10.2.7.7/tcp/1"}, ""},
		{"off the links", []string{"/ip4/192.168.7.8/tcp/1/p2p/" + id.String()}, nil, "no address that can be dialled"},
		{"two peers", []string{"/ip4/10.1.2.3/tcp/1/p2p/" + id.String(), "/ip4/10.1.2.3/tcp/2/p2p/" + other.String()}, nil, "the one peer"},
		{"no peer", []string{"/ip4/10.1.2.3/tcp/1"}, nil, "the one peer"},
		{"no multiaddr", []string{"10.1.2.3:1"}, nil, "is no multiaddr"},
		{"an RSA identity", []string{"/ip4/10.1.2.3/tcp/1" + rsa}, nil, "no Ed25519 identity"},
		{"nothing", nil, nil, "no address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			texts := []string{"txtvers=1"} // of another program
			for _, s := range c.text {
				texts = append(texts, dnsaddr+s)
			}
			who, addrs, err := readAnnouncement(texts, near)
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
	var many []string
	for i := range 100 {
		many = append(many, textsOf(id, fmt.Sprintf("/ip4/10.1.2.3/tcp/%d", i+1))...)
	}
	if _, addrs, err := readAnnouncement(many, near); err != nil || len(addrs) != maxLANAddrs {
		t.Errorf("of a hundred addresses %d are taken, %v", len(addrs), err)
	}
}

// TestFlood: a thousand invented peers, announced once, or others in each interval,
// or the same in each, cost bounded memory and few dials, and real ones keep their
// place or get one.
func TestFlood(t *testing.T) {
	const thousand = 1000
	for _, c := range []struct {
		name     string
		bogus    func(round int) int // the first of the thousand in an interval; negative: none
		dials    int                 // bogus peers that may be offered in the first minute
		newcomer time.Duration       // when a real one that comes later must have been offered
	}{
		{"once", func(round int) int { return min(0, -round) }, maxNewcomers, 15 * time.Second},
		{"others each time", func(round int) int { return round * thousand }, 2 * maxNewcomers, 15 * time.Second},
		{"the same each time", func(int) int { return 0 }, maxLANPeers, 5 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newLANBed(t, "/ip4/0.0.0.0/tcp/9001").near()
				b.every = 10 * time.Second
				b.heard = newLANPeers(b.every)
				say := func(id peer.ID, host string) int {
					b.hear("run of "+string(id), textsOf(id, "/ip4/"+host+"/tcp/1"), b.offer)
					return len(b.taken())
				}
				var real []peer.ID // one is connected, one cannot be dialled for the time being
				for range 2 {
					real = append(real, somePeer(t))
				}
				b.live = real[:1]
				late, lateAt := somePeer(t), time.Time{}
				for range 3 {
					for i, id := range real {
						say(id, fmt.Sprintf("10.1.200.%d", i+1))
					}
					time.Sleep(b.every)
				}
				var ids []peer.ID
				offered := map[peer.ID]bool{}
				start := time.Now()
				for round := 0; time.Since(start) < c.newcomer; round++ {
					if first := c.bogus(round); first >= 0 {
						for len(ids) < first+thousand {
							ids = append(ids, somePeer(t))
						}
						for i, id := range ids[first : first+thousand] {
							if say(id, fmt.Sprintf("10.1.%d.%d", i/250, 1+i%250)) > 0 {
								offered[id] = true
							}
						}
					}
					for i, id := range real {
						// Its trial is over for one that has no session; then it is as new as
						// the others.
						if n := say(id, fmt.Sprintf("10.1.200.%d", i+1)); n != 1 && (i == 0 || time.Since(start) < lanTrial/2) {
							t.Fatalf("%s: a real peer that was heard before is offered with %d addresses", time.Since(start), n)
						}
					}
					if say(late, "10.1.201.1") > 0 && lateAt.IsZero() {
						lateAt = time.Now()
					}
					if time.Since(start) < lanTrial && len(offered) > c.dials {
						t.Errorf("%d invented peers are to be dialled within %s", len(offered), time.Since(start))
					}
					if n := len(b.heard.all); n > maxLANPeers {
						t.Fatalf("%d peers have a place", n)
					}
					if n := len(b.heard.young) + len(b.heard.old); n > 2*maxWaiting {
						t.Fatalf("%d peers wait", n)
					}
					time.Sleep(b.every)
				}
				if lateAt.IsZero() {
					t.Errorf("a real peer that came with the flood was not offered in %s", c.newcomer)
				} else {
					t.Logf("a real peer that came with the flood is offered %s later; %d invented ones are", lateAt.Sub(start), len(offered))
				}
			})
		})
	}
}

// TestPlaces: who has to go when all places are taken, and for whom.
func TestPlaces(t *testing.T) {
	const every = 2 * time.Second
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l, ids := newLANPeers(every), []peer.ID{}
	for range maxLANPeers {
		ids = append(ids, somePeer(t))
	}
	var live []peer.ID
	hear := func(id peer.ID) bool {
		_, ok := l.hear(id, "run", nil, func() []peer.ID { return live }, now)
		return ok
	}
	for range 2 * lanTrial / every { // the places of newcomers are few
		for _, id := range ids {
			hear(id)
		}
		now = now.Add(every)
	}
	if len(l.all) != maxLANPeers {
		t.Fatalf("%d of %d are taken", len(l.all), maxLANPeers)
	}
	live = ids[1:]
	if hear(somePeer(t)) {
		t.Error("one that is heard for the first time displaces those that are heard all the time")
	}
	next := somePeer(t)
	hear(next)
	now = now.Add(every)
	if !hear(next) || l.all[ids[0]] != nil {
		t.Error("one that is heard twice does not displace the one without a session")
	}
	now = now.Add(every)
	if hear(ids[0]) || l.all[next] == nil {
		t.Error("the one that had its trial displaces the next before its own is over")
	}
	now = now.Add(lanTrial)
	for _, id := range append(ids[2:], next) {
		hear(id)
	}
	if !hear(somePeer(t)) || l.all[ids[1]] != nil || len(l.all) != maxLANPeers {
		t.Error("one that is heard for the first time does not displace one that fell silent")
	}
}

// TestManyMembers: a LAN of as many members as have a place is heard whole.
func TestManyMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLANBed(t, "/ip4/0.0.0.0/tcp/9001").near()
		var ids []peer.ID
		for range maxLANPeers {
			ids = append(ids, somePeer(t))
		}
		endpoints := map[string]bool{}
		for range 3 {
			clear(endpoints)
			for i, id := range ids {
				var addrs []string
				for port := range maxLANAddrs {
					addrs = append(addrs, fmt.Sprintf("/ip4/10.1.%d.%d/tcp/%d", 1+i/250, 1+i%250, port+1))
				}
				b.hear("run", textsOf(id, addrs...), b.offer)
			}
			for _, f := range b.taken() {
				endpoints[f.Key] = true
			}
			time.Sleep(b.every)
		}
		if len(b.heard.all) != len(ids) || len(endpoints) < len(ids) || len(endpoints) > maxTargets {
			t.Errorf("of %d peers %d have a place, with %d endpoints", len(ids), len(b.heard.all), len(endpoints))
		}
	})
}
