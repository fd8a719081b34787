package routing

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Source says where a route comes from, the best first.
type Source uint8

const (
	// Session: the target is a neighbour. It lives as long as the link.
	Session Source = iota + 1
	// Hand: somebody entered it. It stays until it is removed, and nothing that is
	// learned takes its place.
	Hand
	// Learned: a message of the target came in from that neighbour. It is a guess
	// of limited age.
	Learned
)

func (s Source) String() string {
	switch s {
	case Session:
		return "session"
	case Hand:
		return "hand"
	case Learned:
		return "learned"
	}
	return "unknown"
}

// Route says through which neighbour a target is reached.
type Route struct {
	Target, NextHop PeerKey
	// ViaRelay tells that the link to the next hop runs over a relay.
	ViaRelay bool
	// TTL is how many links a message may cross that is sent along it without a
	// TTL of its own. 0: DefaultTTL.
	TTL    int
	Source Source
	// Hops is the distance of a learned route, as the message counted it; 1 in a
	// session, 0 by hand.
	Hops int
	// Expires is the end of a learned route; zero in the others.
	Expires time.Time
}

const (
	// MaxHandRoutes and MaxLearnedTargets bound a table; each learned target has at
	// most nextHopsPerTarget routes.
	MaxHandRoutes     = 1024
	MaxLearnedTargets = 1024
	nextHopsPerTarget = 3
	// RouteLifetime is how long a learned route is used after the last message
	// that came along it.
	RouteLifetime = 30 * time.Minute
)

// Table holds routes. It is not safe for concurrent use.
type Table struct {
	links   map[PeerKey]bool // neighbours; the value tells of a relayed link
	hand    map[PeerKey]Route
	learned map[PeerKey][]Route
}

// NewTable is an empty table.
func NewTable() *Table {
	return &Table{links: map[PeerKey]bool{}, hand: map[PeerKey]Route{}, learned: map[PeerKey][]Route{}}
}

// LinkUp says that there is a session with a neighbour, LinkDown that it ended.
func (t *Table) LinkUp(peer PeerKey, relayed bool) { t.links[peer] = relayed }

// LinkDown keeps the routes through that neighbour for when it comes back.
func (t *Table) LinkDown(peer PeerKey) { delete(t.links, peer) }

// Check says what is wrong with a route by hand.
func (t *Table) Check(r Route) error {
	switch {
	case r.Target == PeerKey{} || r.NextHop == PeerKey{}:
		return fmt.Errorf("a route needs a target and a next hop")
	case r.TTL < 0 || r.TTL > MaxTTL:
		return fmt.Errorf("a TTL of %d hops is out of range: use 1 to %d, or 0 for %d", r.TTL, MaxTTL, DefaultTTL)
	}
	if _, known := t.hand[r.Target]; !known && len(t.hand) >= MaxHandRoutes {
		return fmt.Errorf("there are %d routes by hand already: remove some that are not needed", MaxHandRoutes)
	}
	return nil
}

// Upsert enters a route by hand, in place of an earlier one by hand to the same
// target. It takes Target, NextHop and TTL.
func (t *Table) Upsert(r Route) error {
	if err := t.Check(r); err != nil {
		return err
	}
	t.hand[r.Target] = Route{Target: r.Target, NextHop: r.NextHop, TTL: cmp.Or(r.TTL, DefaultTTL), Source: Hand}
	return nil
}

// Remove forgets the routes to a target that are by hand or learned, and tells
// whether there were any. A session stays a route.
func (t *Table) Remove(target PeerKey) bool {
	_, hand := t.hand[target]
	_, learned := t.learned[target]
	delete(t.hand, target)
	delete(t.learned, target)
	return hand || learned
}

// Learn notes that a message of target, which had crossed so many links, came in
// from a neighbour.
func (t *Table) Learn(target, from PeerKey, hops int, now time.Time) {
	if target == from {
		return // a session, or one that has just ended
	}
	if _, known := t.learned[target]; !known && len(t.learned) >= MaxLearnedTargets {
		t.evict()
	}
	list := slices.DeleteFunc(t.learned[target], func(r Route) bool { return r.NextHop == from || !now.Before(r.Expires) })
	list = append(list, Route{Target: target, NextHop: from, TTL: DefaultTTL, Source: Learned, Hops: hops, Expires: now.Add(RouteLifetime)})
	if len(list) > nextHopsPerTarget {
		list = slices.Delete(list, 0, 1) // the one heard of least recently
	}
	t.learned[target] = list
}

// Unlearn forgets a learned route that did not lead to its target.
func (t *Table) Unlearn(target, nextHop PeerKey) {
	list := slices.DeleteFunc(t.learned[target], func(r Route) bool { return r.NextHop == nextHop })
	if t.learned[target] = list; len(list) == 0 {
		delete(t.learned, target)
	}
}

// evict forgets the learned target that was heard of least recently.
func (t *Table) evict() {
	var oldest PeerKey
	var at time.Time
	for target, list := range t.learned {
		last := list[len(list)-1].Expires
		if at.IsZero() || last.Before(at) || last.Equal(at) && bytes.Compare(target[:], oldest[:]) < 0 {
			oldest, at = target, last
		}
	}
	delete(t.learned, oldest)
}

// Resolve is the best route to a target whose next hop is a neighbour now and none
// of except: a session, else a route by hand, else the shortest learned one.
func (t *Table) Resolve(target PeerKey, now time.Time, except ...PeerKey) (Route, bool) {
	if relayed, up := t.links[target]; up && !slices.Contains(except, target) {
		return Route{Target: target, NextHop: target, ViaRelay: relayed, TTL: DefaultTTL, Source: Session, Hops: 1}, true
	}
	usable := func(r *Route) bool {
		relayed, up := t.links[r.NextHop]
		r.ViaRelay = relayed
		return up && !slices.Contains(except, r.NextHop)
	}
	if r, ok := t.hand[target]; ok && usable(&r) {
		return r, true
	}
	var best Route
	for _, r := range t.learned[target] {
		if now.Before(r.Expires) && usable(&r) && (best.Source == 0 || better(&r, &best)) {
			best = r
		}
	}
	return best, best.Source != 0
}

// better orders learned routes: fewer hops, no relay, heard of later.
func better(a, b *Route) bool {
	if a.Hops != b.Hops {
		return a.Hops < b.Hops
	}
	if a.ViaRelay != b.ViaRelay {
		return !a.ViaRelay
	}
	return !a.Expires.Before(b.Expires)
}

// Routes lists all routes, by target and then the best first, whether their next
// hop is a neighbour now or not.
func (t *Table) Routes(now time.Time) []Route {
	var out []Route
	for peer, relayed := range t.links {
		out = append(out, Route{Target: peer, NextHop: peer, ViaRelay: relayed, TTL: DefaultTTL, Source: Session, Hops: 1})
	}
	for _, r := range t.hand {
		r.ViaRelay = t.links[r.NextHop]
		out = append(out, r)
	}
	for _, list := range t.learned {
		for _, r := range list {
			if now.Before(r.Expires) {
				r.ViaRelay = t.links[r.NextHop]
				out = append(out, r)
			}
		}
	}
	slices.SortFunc(out, func(a, b Route) int {
		return cmp.Or(bytes.Compare(a.Target[:], b.Target[:]), cmp.Compare(a.Source, b.Source),
			cmp.Compare(a.Hops, b.Hops), bytes.Compare(a.NextHop[:], b.NextHop[:]))
	})
	return out
}
