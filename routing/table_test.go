package routing_test

import (
	"testing"
	"time"

	"vixp2p/routing"
)

func peer(n byte) routing.PeerKey { return routing.PeerKey{n, 31: n} }

func TestResolve(t *testing.T) {
	const a, b, c, d = 1, 2, 3, 4
	now := started
	tab := routing.NewTable()
	resolves := func(what string, target byte, want byte, source routing.Source, except ...routing.PeerKey) {
		t.Helper()
		r, ok := tab.Resolve(peer(target), now, except...)
		if want == 0 {
			if ok {
				t.Errorf("%s: a route %+v", what, r)
			}
			return
		}
		if !ok || r.NextHop != peer(want) || r.Source != source || r.Target != peer(target) {
			t.Errorf("%s: %+v, %v", what, r, ok)
		}
	}
	resolves("nothing is known", d, 0, 0)
	tab.LinkUp(peer(a), false)
	tab.LinkUp(peer(b), true)
	resolves("a neighbour", a, a, routing.Session)
	resolves("a neighbour that may not be used", a, 0, 0, peer(a))

	tab.Learn(peer(d), peer(a), 3, now)
	resolves("learned", d, a, routing.Learned)
	tab.Learn(peer(d), peer(b), 2, now)
	resolves("the shorter one", d, b, routing.Learned)
	resolves("the other one", d, a, routing.Learned, peer(b))
	tab.Learn(peer(d), peer(a), 2, now)
	resolves("equally short: the one without a relay", d, a, routing.Learned)

	if err := tab.Upsert(routing.Route{Target: peer(d), NextHop: peer(b), TTL: 5}); err != nil {
		t.Fatal(err)
	}
	tab.Learn(peer(d), peer(a), 1, now)
	resolves("by hand, whatever is learned", d, b, routing.Hand)
	if r, _ := tab.Resolve(peer(d), now); r.TTL != 5 || !r.ViaRelay {
		t.Errorf("by hand: %+v", r)
	}
	tab.LinkDown(peer(b))
	resolves("its next hop is gone", d, a, routing.Learned)
	tab.LinkUp(peer(b), false)
	resolves("and comes back", d, b, routing.Hand)
	tab.LinkUp(peer(d), false)
	resolves("the target is a neighbour", d, d, routing.Session)
	tab.LinkDown(peer(d))

	if !tab.Remove(peer(d)) || tab.Remove(peer(d)) {
		t.Error("Remove tells something else than what it did")
	}
	resolves("removed", d, 0, 0)

	tab.Learn(peer(c), peer(a), 2, now)
	tab.Unlearn(peer(c), peer(b))
	resolves("another route was wrong", c, a, routing.Learned)
	tab.Unlearn(peer(c), peer(a))
	resolves("it was wrong", c, 0, 0)
	tab.Learn(peer(c), peer(a), 2, now)
	now = now.Add(routing.RouteLifetime)
	resolves("too old", c, 0, 0)
	tab.Learn(peer(a), peer(a), 1, now)
	for _, r := range tab.Routes(now) {
		if r.Source != routing.Session {
			t.Errorf("left: %+v", r)
		}
	}
}

func TestTableIsBounded(t *testing.T) {
	tab := routing.NewTable()
	tab.LinkUp(peer(1), false)
	target := func(i int) routing.PeerKey { return routing.PeerKey{byte(i), byte(i >> 8), 9} }
	for i := range 2 * routing.MaxLearnedTargets {
		for hop := byte(1); hop < 9; hop++ {
			tab.Learn(target(i), peer(hop), 2, started.Add(time.Duration(i)*time.Millisecond))
		}
	}
	if n := len(tab.Routes(started)); n > 4*routing.MaxLearnedTargets {
		t.Errorf("%d routes", n)
	}
	last := 2*routing.MaxLearnedTargets - 1
	tab.Learn(target(last), peer(1), 2, started.Add(time.Minute))
	if _, ok := tab.Resolve(target(last), started); !ok {
		t.Error("the newest was forgotten")
	}
	for i := range routing.MaxHandRoutes {
		if err := tab.Upsert(routing.Route{Target: target(i), NextHop: peer(1)}); err != nil {
			t.Fatal(err)
		}
	}
	if tab.Upsert(routing.Route{Target: target(routing.MaxHandRoutes), NextHop: peer(1)}) == nil {
		t.Error("one too many by hand")
	}
	if err := tab.Upsert(routing.Route{Target: target(0), NextHop: peer(2)}); err != nil {
		t.Errorf("a change of one: %v", err)
	}
	for _, r := range []routing.Route{{NextHop: peer(1)}, {Target: peer(1)}, {Target: peer(1), NextHop: peer(2), TTL: 33}, {Target: peer(1), NextHop: peer(2), TTL: -1}} {
		if tab.Upsert(r) == nil {
			t.Errorf("%+v is taken", r)
		}
	}
}
