package node

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// DHTMode says what part a node takes in its network's distributed hash table.
type DHTMode string

const (
	// DHTDefault is DHTAuto where others can reach the node (it listens beyond
	// loopback) or Config.DHTBootstrap names a member, else DHTOff.
	DHTDefault DHTMode = ""
	DHTOff     DHTMode = "off"
	// DHTClient asks others and answers nobody, DHTServer does both. DHTAuto is a
	// server until the node learns that others cannot reach it.
	DHTClient DHTMode = "client"
	DHTServer DHTMode = "server"
	DHTAuto   DHTMode = "auto"
)

const (
	// Lookups come at dhtSoonest while they find somebody new and the node wants more
	// sessions, then at growing intervals up to dhtLatest; without any session not
	// later than dhtLonely. An
	// interval varies by up to 1/dhtJitter of itself, so that nodes that started
	// together do not ask in step.
	dhtSoonest = 2 * time.Second
	dhtLatest  = 2 * time.Minute
	dhtLonely  = 10 * time.Second
	dhtJitter  = 4
	// dhtEmpty is how often a table without anybody is looked at: it fills when a
	// session or a connection comes up.
	dhtEmpty = time.Second
	// dhtEnter is how long a member that the user named is dialled after the last
	// time that nobody else was known, or had a session.
	dhtEnter = 2 * dhtLonely
	// A node announces itself again after dhtAnnounce, or after dhtAnnounceSoon when
	// the table has got new peers to tell; what others said holds for dhtValid.
	dhtAnnounceSoon = 15 * time.Second
	dhtAnnounce     = 10 * time.Minute
	dhtValid        = 30 * time.Minute
	// dhtTimeout bounds a lookup or an announcement, dhtKeep is how long what it
	// found is worth dialling, dhtMost how many members it brings, and dhtAddrs how
	// many addresses of each.
	dhtTimeout = 30 * time.Second
	dhtKeep    = 15 * time.Minute
	dhtMost    = 64
	dhtAddrs   = 8
	// dhtSeen bounds the members that are remembered to tell who is new.
	dhtSeen = 4096
)

// dhtTable is the distributed hash table of this network; kadTable is the real
// one.
type dhtTable interface {
	// peers are in the routing table: members that have answered.
	peers() []peer.AddrInfo
	// announce tells the members nearest to the network's key that this node is
	// there; members asks them who is, and returns at most dhtMost.
	announce(ctx context.Context) error
	members(ctx context.Context) ([]peer.AddrInfo, error)
	// tidy closes connections that neither the table nor a session needs.
	tidy()
	close() error
}

// dht finds members through members (design 8): each tells the ones nearest to
// the network's key where it is, and asks them for others.
type dht struct {
	self      peer.ID
	bootstrap []target // members that the user named
	open      func(mode DHTMode) (dhtTable, error)
	usable    func(ma.Multiaddr) bool // a found address may be dialled
	connected func() []peer.ID
	wanting   func() bool // more sessions are wanted
	now       func() time.Time
	log       *slog.Logger
	again     chan struct{} // capacity 1: the network has changed

	// Of the goroutine of run.
	seen      map[peer.ID]bool // members that were found before
	told      map[peer.ID]bool // peers of the table at the last announcement
	announced time.Time        // zero: not yet, or not from here
	entered   time.Time        // when the members that the user named were offered
	pause     time.Duration

	mu     sync.Mutex // guards below
	status DHTStatus
}

// DHTStatus tells about the distributed hash table.
type DHTStatus struct {
	Mode DHTMode // off, client, server or auto
	// Why tells why it is off, or what it waits for; empty if there is nothing to say.
	Why   string
	Table int // peers in the routing table
	// Found are the other members that the last lookup brought; Lookup is when that was,
	// zero: not yet.
	Found  int
	Lookup time.Time
	Error  string // of the last lookup or announcement; empty if it went well
}

func newDHT(self peer.ID, log *slog.Logger) *dht {
	return &dht{self: self, log: log, again: make(chan struct{}, 1), status: DHTStatus{Mode: DHTOff}}
}

// changed makes it look and announce itself at once.
func (d *dht) changed() {
	select {
	case d.again <- struct{}{}:
	default:
	}
}

// Why nobody is in the table.
const (
	waitsForMember = "it waits for a first member"
	waitsForServer = "no connected member serves the DHT: have one run with --dht auto, which is off where a node listens on loopback only"
)

// run looks for members and offers them until ctx ends.
func (d *dht) run(ctx context.Context, mode DHTMode, offer func(found)) {
	d.tell(func(st *DHTStatus) { st.Mode, st.Why = mode, waitsForMember })
	table, err := d.open(mode)
	if err != nil {
		d.log.Error("no distributed hash table", "err", err)
		d.tell(func(st *DHTStatus) { st.Error = err.Error() })
		return
	}
	defer func() {
		if err := table.close(); err != nil {
			d.log.Warn("closing the distributed hash table", "err", err)
		}
	}()
	d.seen, d.told, d.pause = map[peer.ID]bool{}, map[peer.ID]bool{}, dhtSoonest
	for {
		wait := d.round(ctx, table, offer)
		select {
		case <-ctx.Done():
			return
		case <-d.again:
			d.announced, d.pause = time.Time{}, dhtSoonest
		case <-time.After(wait):
		}
	}
}

// round looks once and returns when to look again.
func (d *dht) round(ctx context.Context, table dhtTable, offer func(found)) time.Duration {
	near := table.peers()
	if len(near) == 0 || len(d.connected()) == 0 {
		d.enter(offer)
	}
	if len(near) == 0 {
		why := waitsForMember
		if len(d.connected()) > 0 {
			why = waitsForServer
		}
		d.tell(func(st *DHTStatus) { st.Table, st.Why = 0, why })
		d.pause = dhtSoonest
		return dhtEmpty
	}
	ctx, cancel := context.WithTimeout(ctx, dhtTimeout)
	defer cancel()
	errAnnounce := d.announce(ctx, table, near)
	members, err := table.members(ctx)
	members = slices.DeleteFunc(members, func(m peer.AddrInfo) bool { return m.ID == d.self })
	if err == nil {
		err = errAnnounce
	}
	// Who is in the table is a member too: nobody else speaks this protocol.
	fresh := d.offerAll(append(members, near...), offer)
	table.tidy()
	if fresh > 0 && d.wanting() {
		d.pause = dhtSoonest
	} else {
		d.pause = min(2*d.pause, dhtLatest)
	}
	if len(d.connected()) == 0 {
		d.pause = min(d.pause, dhtLonely)
	}
	d.tell(func(st *DHTStatus) {
		st.Table, st.Found, st.Lookup, st.Why, st.Error = len(near), len(members), d.now(), "", ""
		if err != nil {
			st.Error = err.Error()
		}
	})
	return d.pause - rand.N(d.pause/dhtJitter)
}

// enter has the members dialled that the user named. It is asked for again while
// nobody else is known: for life, all of a large network would press upon a few.
func (d *dht) enter(offer func(found)) {
	now := d.now()
	if now.Sub(d.entered) < dhtLonely {
		return
	}
	d.entered = now
	for _, t := range d.bootstrap {
		offer(found{target: t, from: fromBootstrap, expires: now.Add(dhtEnter)})
	}
}

// announce announces this node if that is due.
func (d *dht) announce(ctx context.Context, table dhtTable, near []peer.AddrInfo) error {
	due := dhtAnnounce
	if slices.ContainsFunc(near, func(p peer.AddrInfo) bool { return !d.told[p.ID] }) {
		due = dhtAnnounceSoon
	}
	if d.now().Sub(d.announced) < due {
		return nil
	}
	if err := table.announce(ctx); err != nil {
		return fmt.Errorf("cannot announce this node: %w", err)
	}
	d.announced = d.now()
	clear(d.told)
	for _, p := range near {
		d.told[p.ID] = true
	}
	return nil
}

// offerAll offers members and returns how many of them are new.
func (d *dht) offerAll(members []peer.AddrInfo, offer func(found)) (fresh int) {
	for _, m := range members {
		if m.ID == d.self {
			continue
		}
		offered := 0
		for _, a := range m.Addrs {
			f, ok := foundAt(a, m.ID, fromDHT, d.now().Add(dhtKeep))
			if ok && offered < dhtAddrs && d.usable(a) {
				offered++
				offer(f)
			}
		}
		if offered > 0 && !d.seen[m.ID] {
			if fresh++; len(d.seen) >= dhtSeen {
				clear(d.seen)
			}
			d.seen[m.ID] = true
		}
	}
	return fresh
}

func (d *dht) tell(fn func(st *DHTStatus)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn(&d.status)
}

// snapshot is what status shows.
func (d *dht) snapshot() DHTStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}
