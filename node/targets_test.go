package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/protocols"
)

// named is a target as a source names it.
func named(t *testing.T, from, addr string, id peer.ID) found {
	t.Helper()
	tgt := mustTarget(t, addr)
	tgt.ID = id
	return found{target: tgt, from: from}
}

// TestFloodOfAnnouncements: thousands of bogus addresses from one source neither
// grow the table nor displace what others named, nor keep a true one out.
func TestFloodOfAnnouncements(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		f.took = time.Second
		static := named(t, fromStatic, "10.0.0.1:9001", "")
		remembered := named(t, fromRemembered, "10.0.0.2:9001", "C")
		f.answer(remembered.target, "C", nil)
		d.start(staticSource{targets: []target{static.target}})
		for i := range 4 * maxTargets {
			d.offer(named(t, fromLAN, fmt.Sprintf("10.1.%d.%d:9", i/256, i%256), ""))
		}
		d.offer(remembered)
		truth := named(t, fromLAN, "10.0.0.3:9001", "D")
		f.answer(truth.target, "D", nil)
		d.offer(truth)
		time.Sleep(10 * time.Second)
		if f.count(static.Key) == 0 || f.count(remembered.Key) != 1 {
			t.Error("a flood from the LAN keeps back what others named")
		}
		time.Sleep(10 * time.Minute)
		if f.count(truth.Key) != 1 {
			t.Errorf("the true announcement was dialled %d times", f.count(truth.Key))
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if n := len(d.targets.all); n != maxTargets+2 || d.targets.all[static.Key] == nil {
			t.Errorf("%d targets", n)
		}
	})
}

// TestTheUselessGoFirst: a newcomer takes the place of what failed, not of what is
// connected or was not tried yet.
func TestTheUselessGoFirst(t *testing.T) {
	b := newTargetTable()
	use := map[string]int{}
	of := func(t *dialTarget) int { return use[t.Key] }
	add := func(i int, value int) bool {
		f := named(t, fromDHT, fmt.Sprintf("10.0.%d.%d:1", i/256, i%256), "")
		use[f.Key] = value
		return b.add(f, of)
	}
	for i := range maxTargets {
		add(i, map[bool]int{true: -1, false: 1}[i%2 == 0])
	}
	use["tcp://10.0.0.7:1"] = 0
	if !add(maxTargets, 1) || b.all["tcp://10.0.0.7:1"] != nil {
		t.Error("the one that failed is still there")
	}
	if !add(maxTargets+1, 1) || b.all["tcp://10.0.0.1:1"] != nil {
		t.Error("the one that was named longest ago is still there")
	}
	for key := range use {
		use[key] = -1
	}
	if add(maxTargets+2, 1) || len(b.all) != maxTargets {
		t.Error("a target that is in use was displaced")
	}
}

// TestWhatIsOfUse: which targets the dialer gives up for others.
func TestWhatIsOfUse(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		d.start()
		failed, good := named(t, fromLAN, "10.0.0.1:1", ""), named(t, fromLAN, "10.0.0.2:1", "")
		f.answer(good.target, "B", nil)
		d.offer(failed)
		d.offer(good)
		time.Sleep(time.Second)
		f.want(0) // the next is not tried
		fresh := named(t, fromLAN, "10.0.0.3:1", "")
		d.offer(fresh)
		d.mu.Lock()
		defer d.mu.Unlock()
		for key, want := range map[string]int{failed.Key: 0, good.Key: -1, fresh.Key: 1} {
			if got := d.useLocked(d.targets.all[key]); got != want {
				t.Errorf("%s is of use %d, want %d", key, got, want)
			}
		}
	})
}

// TestTargetsExpire: what discovery does not name again goes; what a user or
// another source names stays.
func TestTargetsExpire(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		d.start()
		soon := named(t, fromLAN, "10.0.0.1:1", "")
		soon.expires = time.Now().Add(30 * time.Second)
		again := named(t, fromLAN, "10.0.0.2:1", "")
		again.expires = soon.expires
		both := named(t, fromStatic, "10.0.0.1:2", "")
		lan := both
		lan.from, lan.expires = fromLAN, soon.expires
		for _, x := range []found{soon, again, both, lan} {
			d.offer(x)
		}
		time.Sleep(20 * time.Second)
		again.expires = time.Now().Add(time.Hour)
		d.offer(again)
		time.Sleep(20*time.Second + pruneEvery)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.targets.all[soon.Key] != nil || d.targets.all[again.Key] == nil || d.targets.all[both.Key] == nil {
			t.Errorf("targets: %v", d.targets.all)
		}
		if d.targets.count[fromLAN] != 1 || d.targets.count[fromStatic] != 1 {
			t.Errorf("counts: %v", d.targets.count)
		}
	})
}

// TestOneDialPerPeer: the endpoints of one peer are tried one after the other,
// until there is a session.
func TestOneDialPerPeer(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		f.took = time.Second
		d.start()
		good := named(t, fromLAN, "10.0.0.5:1", "B")
		f.answer(good.target, "B", nil)
		for i := range 6 {
			d.offer(named(t, fromLAN, fmt.Sprintf("10.0.0.%d:1", i), "B"))
		}
		time.Sleep(time.Minute)
		if n := f.mostAtOnce(); n != 1 {
			t.Errorf("%d dials to one peer at one time", n)
		}
		if n := f.all(); f.count(good.Key) != 1 || n > 10 {
			t.Errorf("%d dials, %d of them to the right endpoint", n, f.count(good.Key))
		}
		// It is the first choice from now on.
		before := f.all()
		f.drop("B")
		d.sessionEnded(good.Key, nil)
		time.Sleep(time.Minute)
		if n := f.all() - before; n != 1 || f.count(good.Key) != 2 {
			t.Errorf("%d dials after the session ended", n)
		}
	})
}

// TestConnectTakesTheNamedEndpoint: a user who names another endpoint of a peer
// that is being dialled does not wait for that dial, and hears of what was named.
func TestConnectTakesTheNamedEndpoint(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		f.took = time.Hour
		d.start()
		d.offer(named(t, fromLAN, "10.0.0.1:1", "B"))
		synctest.Wait()
		f.mu.Lock()
		f.took = time.Second
		f.mu.Unlock()
		second := named(t, fromLAN, "10.0.0.2:1", "B")
		d.offer(second)
		began := time.Now()
		if _, err := d.connect(t.Context(), second.target); !errors.Is(err, errRefused) {
			t.Errorf("connect: %v", err)
		}
		f.answer(second.target, "B", nil)
		if id, err := d.connect(t.Context(), second.target); id != "B" || err != nil {
			t.Errorf("connect: %q, %v", id, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("that took %s", took)
		}
	})
}

// TestNewcomersFindRoom: automatic dials stop at half of the sessions, and choose
// by chance; a user's do not stop, and a node with nobody always tries.
func TestNewcomersFindRoom(t *testing.T) {
	first := map[peer.ID]bool{}
	for range 8 {
		inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
			f.want(3)
			for i := range 40 {
				x := named(t, fromDHT, fmt.Sprintf("10.0.0.%d:1", i), peer.ID(fmt.Sprint("P", i)))
				f.answer(x.target, x.ID, nil)
				d.offer(x)
			}
			d.start()
			time.Sleep(time.Minute)
			for _, id := range f.sessions() {
				first[id] = true
			}
			if n := len(f.sessions()); n != 3 {
				t.Errorf("%d sessions, want 3", n)
			}
			static := named(t, fromStatic, "10.0.1.1:1", "")
			f.answer(static.target, "S", nil)
			d.offer(static)
			time.Sleep(time.Second)
			if f.count(static.Key) != 1 {
				t.Error("a configured peer is not dialled")
			}
			f.drop("S")
			f.drop(f.sessions()[0])
			d.sessionEnded("", nil)
			time.Sleep(time.Minute)
			if n := len(f.sessions()); n < 3 {
				t.Errorf("%d sessions after one ended", n)
			}
		})
	}
	if len(first) < 10 {
		t.Errorf("8 nodes chose %d of 40 peers: that is not by chance", len(first))
	}
}

// TestSourcesTakeTurns: within one source chance decides; between sources none is
// kept back.
func TestSourcesTakeTurns(t *testing.T) {
	b := newTargetTable()
	var due []*dialTarget
	add := func(from, addr string) {
		f := named(t, from, addr, "")
		b.add(f, nil)
		due = append(due, b.all[f.Key])
	}
	for i := range 100 {
		add(fromLAN, fmt.Sprintf("10.0.0.%d:1", i))
	}
	add(fromRegistry, "10.0.1.1:1")
	add(fromRemembered, "10.0.1.2:1")
	add(fromStatic, "10.0.1.3:1")
	inTurn(due)
	var head []string
	for _, x := range due[:4] {
		for from := range x.sources {
			head = append(head, from)
		}
	}
	if head[0] != fromStatic || !slices.Contains(head, fromRegistry) || !slices.Contains(head, fromRemembered) {
		t.Errorf("the first in line are from %v", head)
	}
}

// TestDiscoveryDoesNotBindAPeer: whoever announces an endpoint under a wrong ID
// does not keep this node from who is there.
func TestDiscoveryDoesNotBindAPeer(t *testing.T) {
	b := newTargetTable()
	b.add(named(t, fromStatic, "10.0.0.1:1", "B"), nil)
	b.add(named(t, fromLAN, "10.0.0.1:1", "X"), nil)
	if got := b.all["tcp://10.0.0.1:1"]; got.ID != "B" || got.kind != manual {
		t.Errorf("a user's target became %+v", got)
	}
	for _, order := range [][]string{{fromStatic, fromLAN}, {fromLAN, fromStatic}} {
		b := newTargetTable()
		for _, from := range order {
			b.add(named(t, from, "10.0.0.1:1", map[string]peer.ID{fromLAN: "X"}[from]), nil)
		}
		if got := b.all["tcp://10.0.0.1:1"].expected(); got != "" {
			t.Errorf("%v: a user's target looks as if it led to %s", order, got)
		}
	}
	b.add(named(t, fromLAN, "10.0.0.2:1", "X"), nil)
	got := b.all["tcp://10.0.0.2:1"]
	if got.ID != "" || got.expected() != "X" {
		t.Errorf("an announcement binds: %+v", got)
	}
	got.seen, got.proven = "C", true
	b.add(named(t, fromLAN, "10.0.0.2:1", "X"), nil)
	if got.expected() != "C" {
		t.Errorf("an announcement replaces who answered: %+v", got)
	}
	b.add(named(t, fromStatic, "10.0.0.2:1", ""), nil)
	if got.kind != manual || got.sources[fromLAN] != got.sources[fromStatic] {
		t.Errorf("%+v", got)
	}
}

// TestOwnAnnouncement: this node's own addresses come back from discovery, and are
// not dialled.
func TestOwnAnnouncement(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		d.start()
		d.offer(named(t, fromDHT, "10.0.0.1:1", "self"))
		time.Sleep(time.Minute)
		if n := f.all(); n != 0 {
			t.Errorf("%d dials to this node itself", n)
		}
	})
}

// TestForgiven: a peer that is heard, and a network that has changed, are worth a
// dial before the backoff ends; hearing again and again is not.
func TestForgiven(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		d.start()
		x := named(t, fromLAN, "10.0.0.1:1", "B")
		x.heard = true
		dials := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			if n := f.count(x.Key); n != want {
				t.Fatalf("%s: %d dials, want %d", what, n, want)
			}
		}
		d.offer(x)
		time.Sleep(14 * time.Second) // at 0, 2, 6 and 14 s
		dials("at first", 4)
		time.Sleep(heardPause)
		d.offer(x)
		dials("heard", 5)
		for range 10 {
			d.offer(x)
			time.Sleep(100 * time.Millisecond)
		}
		dials("heard at once again", 5)
		time.Sleep(2 * time.Second)
		dials("the backoff starts anew", 6)
		time.Sleep(time.Second)
		d.networkChanged()
		dials("the network has changed", 7)
	})
}

// TestHeardWhileTheDialerLooks: the dialer is woken once the backoff is cleared, so that
// it does not look before that and then sleep on.
func TestHeardWhileTheDialerLooks(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		var letLook atomic.Bool
		d.now = func() time.Time {
			if letLook.CompareAndSwap(true, false) {
				synctest.Wait() // a dialer that was woken looks now
			}
			return time.Now()
		}
		d.start()
		x := named(t, fromLAN, "10.0.0.1:1", "B")
		x.heard = true
		d.offer(x)
		time.Sleep(14*time.Second + heardPause) // it was dialled at 0, 2, 6 and 14 s
		synctest.Wait()
		letLook.Store(true)
		d.offer(x)
		synctest.Wait()
		if n := f.count(x.Key); n != 5 {
			t.Errorf("%d dials, want 5", n)
		}
	})
}

// TestBusyAndVain: automatic attempts leave a peer that is busy alone for longer,
// and one that is away for good; this node itself is of no use at once.
func TestBusyAndVain(t *testing.T) {
	now := time.Unix(1000, 0)
	backoffs := func(kind attemptKind, n int, err error) (list []time.Duration) {
		g := newGuard(nil)
		for range n {
			g.begin(now, "e", kind)
			list = append(list, g.fail(now, "e", err).Sub(now))
			now = now.Add(time.Hour)
		}
		return list
	}
	busy := &RefusedError{Peer: "B", Cause: protocols.ErrBusy}
	for _, c := range []struct {
		kind attemptKind
		err  error
		want []time.Duration
	}{
		{automatic, busy, []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute}},
		{manual, busy, []time.Duration{2500 * time.Millisecond, 5 * time.Second}},
		{manual, wrapDial("e", ErrSelf), []time.Duration{5 * time.Minute}},
		{automatic, errRefused, []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 15 * time.Second, 15 * time.Second, 15 * time.Second, 15 * time.Second,
			30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute}},
		{manual, errRefused, []time.Duration{2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 12 * time.Second, 12 * time.Second, 12 * time.Second, 12 * time.Second, 12 * time.Second, 12 * time.Second, 12 * time.Second}},
	} {
		if got := backoffs(c.kind, len(c.want), c.err); !slices.Equal(got, c.want) {
			t.Errorf("kind %d, %v: %v, want %v", c.kind, c.err, got, c.want)
		}
	}
	g := newGuard(nil)
	g.begin(now, "e", automatic)
	g.fail(now, "e", busy)
	if g.heard(now.Add(10*time.Second), "e") {
		t.Error("hearing a busy peer makes it worth a dial")
	}
}

// TestEndpointsTellTheirSources: status says who named an endpoint.
func TestEndpointsTellTheirSources(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeLink, d *dialer) {
		d.start()
		id := numbered(t, 1)
		d.offer(named(t, fromLAN, "10.0.0.1:1", id))
		d.offer(named(t, fromRegistry, "10.0.0.1:1", ""))
		time.Sleep(time.Second)
		_, list := d.guard.snapshot()
		d.describe(list)
		if len(list) != 1 || strings.Join(list[0].Sources, " ") != "lan registry" || list[0].PeerID != id.String() || list[0].Error == "" {
			t.Errorf("endpoints %+v", list)
		}
	})
}

func TestFoundAt(t *testing.T) {
	at := time.Now()
	f, ok := foundAt(ma.StringCast("/ip4/10.0.0.1/tcp/1"), "B", fromDHT, at)
	if !ok || f.Key != "tcp://10.0.0.1:1" || f.ID != "B" || f.from != fromDHT || !f.expires.Equal(at) {
		t.Errorf("%+v, %v", f, ok)
	}
	if _, ok := foundAt(ma.StringCast("/ip4/10.0.0.1/tcp/1/ws"), "B", fromDHT, at); ok {
		t.Error("a websocket address is taken")
	}
	relay := ma.StringCast("/ip4/10.0.0.1/tcp/1/p2p/" + numbered(t, 1).String() + "/p2p-circuit")
	if _, ok := foundAt(relay, "", fromDHT, at); ok {
		t.Error("an address through a relay without a peer is taken")
	}
	if f, ok = foundAt(relay, "B", fromDHT, at); !ok {
		t.Error("an address through a relay is not taken")
	}
	b := newTargetTable()
	b.add(f, nil)
	if got := b.all[f.Key]; got == nil || got.ID != "B" {
		t.Errorf("the peer behind a relay is lost: %+v", got)
	}
}
