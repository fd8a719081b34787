package node

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Where an endpoint comes from, as status tells it.
const (
	fromStatic     = "static"     // the configuration
	fromAsked      = "connect"    // Node.Connect
	fromBootstrap  = "bootstrap"  // Config.DHTBootstrap, while nobody else is known
	fromLAN        = "lan"        // multicast DNS
	fromDHT        = "dht"        // the distributed hash table
	fromRegistry   = "registry"   // an HTTP registry
	fromRemembered = "remembered" // the address book
)

// maxTargets bounds the targets that one source has in the table. Those of
// discovery come from the network: beyond it a newcomer takes the place of the
// least useful one of the same source, so that no source displaces another's.
const maxTargets = 512

// found is a target that a source names.
type found struct {
	target
	// from is the source's name, one of those above. The peer ID of a target is
	// binding if a user named it; from discovery it is a hint.
	from string
	// expires is when the target is forgotten unless it is named again, by the wall
	// clock; zero: not before it has to make room.
	expires time.Time
	// heard: the peer itself spoke a moment ago, as in an announcement on the LAN.
	// Then it is worth dialling before its backoff ends.
	heard bool
}

func (f *found) kind() attemptKind {
	if f.from == fromStatic || f.from == fromAsked || f.from == fromBootstrap {
		return manual
	}
	return automatic
}

// source finds addresses of peers: the configured list, the address book, or a
// kind of discovery. run offers targets until ctx ends or it has no more; it may
// offer one again, to make it expire later or because its peer was heard.
type source interface {
	run(ctx context.Context, offer func(found))
}

// staticSource is the configured list of peers.
type staticSource struct {
	targets []target
	delay   time.Duration
}

func (s staticSource) run(ctx context.Context, offer func(found)) {
	if len(s.targets) == 0 {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(s.delay):
	}
	for _, t := range s.targets {
		offer(found{target: t, from: fromStatic})
	}
}

// dialTarget is an endpoint to keep a session with.
type dialTarget struct {
	target
	kind    attemptKind
	seen    peer.ID              // who answered there last, or who is said to
	proven  bool                 // seen has answered there
	sources map[string]time.Time // who names it, until when (zero: for good); not empty
	named   uint64               // when it was named last, by the table's count
	first   uint64               // when it was named first
}

// expected is the peer that the target leads to, as far as is known.
func (t *dialTarget) expected() peer.ID { return cmp.Or(t.ID, t.seen) }

// targetTable is the targets of all sources, by endpoint.
type targetTable struct {
	all   map[string]*dialTarget
	count map[string]int // targets by source; invariant: at most maxTargets each
	named uint64         // how often a target was named
}

func newTargetTable() targetTable {
	return targetTable{all: map[string]*dialTarget{}, count: map[string]int{}}
}

// add takes a target in, or notes that it was named again. Where its source has
// too many, use decides which one goes: the one with the lowest use, of several
// the one that was named longest ago; a negative use must stay. It returns false
// if there is no room.
func (b *targetTable) add(f found, use func(t *dialTarget) int) bool {
	b.named++
	t := b.all[f.Key]
	if t == nil {
		t = &dialTarget{target: f.target, sources: map[string]time.Time{}, first: b.named}
		if !t.relayed() { // of those the peer is a part of the endpoint
			t.ID = ""
		}
	}
	if _, again := t.sources[f.from]; !again {
		if b.count[f.from] >= maxTargets && !b.displace(f.from, use) {
			return false
		}
		b.count[f.from]++
	}
	b.all[f.Key], t.sources[f.from], t.named = t, f.expires, b.named
	t.kind = max(t.kind, f.kind())
	_, met := t.sources[fromRemembered]
	switch {
	case f.kind() == manual:
		t.ID = cmp.Or(f.ID, t.ID)
	case f.ID != "" && !t.proven:
		t.seen = f.ID
	}
	if t.kind == manual && !t.proven && !met {
		t.seen = "" // an announcement must not make a user's target look connected
	}
	return true
}

// displace makes room for another target of a source.
func (b *targetTable) displace(from string, use func(t *dialTarget) int) bool {
	var worst *dialTarget
	least := 0
	for _, t := range b.all {
		if _, ok := t.sources[from]; !ok || t.kind == manual {
			continue
		}
		if u := use(t); u >= 0 && (worst == nil || u < least || u == least && t.named < worst.named) {
			worst, least = t, u
		}
	}
	if worst == nil {
		return false
	}
	b.unname(worst, from)
	return true
}

// unname takes a target from a source; it goes if no other names it.
func (b *targetTable) unname(t *dialTarget, from string) {
	delete(t.sources, from)
	b.count[from]--
	if len(t.sources) == 0 {
		delete(b.all, t.Key)
	}
}

// expire removes what was not named again in time.
func (b *targetTable) expire(now time.Time) {
	now = now.Round(0) // the wall clock goes on while the machine is suspended
	for _, t := range b.all {
		for from, until := range t.sources {
			if !until.IsZero() && until.Before(now) {
				b.unname(t, from)
			}
		}
	}
}

// forget removes the targets of a peer, but for those that the configuration
// names.
func (b *targetTable) forget(id peer.ID) {
	for _, t := range b.all {
		if t.expected() != id {
			continue
		}
		for from := range t.sources {
			if from != fromStatic {
				b.unname(t, from)
			}
		}
	}
}

// inTurn orders targets that are due: first what users named; of the others each
// source has its turn, so that a flood from one does not keep back another's, and
// within a source chance decides, so that many nodes that found the same peers do
// not all choose the same.
func inTurn(due []*dialTarget) {
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	rank, turn := map[*dialTarget]int{}, map[string]int{}
	for _, t := range due {
		if t.kind == manual {
			rank[t] = -1
			continue
		}
		from := slices.MinFunc(slices.Collect(maps.Keys(t.sources)), func(a, b string) int {
			return cmp.Compare(turn[a], turn[b])
		})
		rank[t] = turn[from]
		turn[from]++
	}
	slices.SortStableFunc(due, func(a, b *dialTarget) int { return cmp.Compare(rank[a], rank[b]) })
}

// foundAt is a target at a multiaddr (without /p2p) that a source found; false:
// this node cannot dial such an address. With the peer ID a peer's addresses are
// dialled one at a time.
func foundAt(addr ma.Multiaddr, id peer.ID, from string, expires time.Time) (found, bool) {
	key, ok := multiaddrKey(addr)
	t := target{Key: key, Addr: addr}.of(id)
	return found{target: t, from: from, expires: expires}, ok && t.check("") == nil
}
