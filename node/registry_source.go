package node

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/node/registry"
)

const (
	// firstRegistryWait is the pause after a failure, which doubles with each further
	// one up to the interval, and to maxRegistryWait at most. A node that starts
	// before its network is there asks again soon.
	firstRegistryWait = 2 * time.Second
	maxRegistryWait   = time.Minute
	// newPerTick is how many endpoints that were not named before one answer may
	// give to the dialer, as in the original; namedEndpoints bounds those that are
	// remembered for that.
	newPerTick     = 8
	namedEndpoints = 1024
	// registryKeep is how long after a registry named it an endpoint is dialled.
	registryKeep = 10 * time.Minute
	// announcePause is the least time between two announcements, however often the
	// addresses change.
	announcePause = 2 * time.Second
	// MinRegistryInterval bounds what a node's questions cost a registry,
	// MaxRegistryInterval how long nobody hears of a node there.
	MinRegistryInterval = 100 * time.Millisecond
	MaxRegistryInterval = 24 * time.Hour
)

// RegistryStatus tells about the HTTP registry that the node asks for peers.
type RegistryStatus struct {
	On  bool
	URL string // without a password
	// Announced tells that the registry has taken this node's announcement; Why why
	// none is made, empty if there is nothing to say.
	Announced bool
	Why       string
	// LastSuccess is when the registry answered as it should, zero: never.
	// LastError is why it did not since, or why it does not take the announcement;
	// empty if there is nothing to say.
	LastSuccess time.Time
	LastError   string
	Failures    int       // in a row
	Next        time.Time // when it is asked again
	Peers       int       // in its last answer that are of use: other nodes, not of another network
}

// registrySource asks a registry for peers and tells it about this node (design
// 8). What it hears are addresses to try and nothing more.
type registrySource struct {
	client    *registry.Client
	every     time.Duration
	announces bool // tell the registry about this node
	dials     bool // ask it for peers
	key       ed25519.PrivateKey
	self      peer.ID
	network   string // its tag
	where     func() whereabouts
	connected func() []peer.ID
	now       func() time.Time
	rand      func(n int64) int64
	log       *slog.Logger
	again     chan struct{} // capacity 1: the network has changed

	// Of run only: the endpoints that were given to the dialer, until when they
	// count as known; those of the last answer; the last announcement; how often and
	// when the registry was asked; the trouble that was told last.
	named     map[string]time.Time
	listed    map[string]bool
	announced whereabouts
	asked     int
	spoke     time.Time
	trouble   string

	mu     sync.Mutex // guards below
	status RegistryStatus
}

func (n *Node) newRegistrySource() *registrySource {
	client, err := registry.NewClient(n.cfg.Registry, n.cfg.Now)
	if err != nil {
		return nil // Config.check saw to that
	}
	return &registrySource{
		client: client, every: n.cfg.RegistryInterval, announces: !n.cfg.NoAnnounce, dials: !n.cfg.NoConnect,
		key: n.key, self: n.id, network: registry.NetworkTag(n.network), where: n.whereabouts,
		connected: n.mesh.book.connected, now: time.Now, rand: randInt64, log: n.log,
		again: make(chan struct{}, 1), named: map[string]time.Time{},
		status: RegistryStatus{On: true, URL: client.URL()},
	}
}

// changed makes it look again at where this node is, and ask at once.
func (r *registrySource) changed() {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// run implements source. addresses tells of changes, by the host; nil: it tells
// nothing.
func (r *registrySource) run(ctx context.Context, addresses <-chan any, offer func(found)) {
	defer r.client.Close()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-r.again:
			if !sleepFor(ctx, r.tooSoon()) {
				return
			}
		case _, ok := <-addresses:
			if !ok {
				addresses = nil
			}
			if !ok || !r.announces || r.where().equal(r.announced) {
				continue
			}
			if !sleepFor(ctx, r.tooSoon()) {
				return
			}
		}
		o := r.ask(ctx, offer)
		if ctx.Err() != nil {
			return
		}
		next.Reset(r.report(o))
	}
}

// tooSoon is how long to wait before the registry is asked out of turn.
func (r *registrySource) tooSoon() time.Duration {
	return max(0, announcePause-r.now().Sub(r.spoke))
}

// sleepFor waits; false if ctx ended.
func sleepFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// outcome is how asking went.
type outcome struct {
	asked error // why the registry is of no use
	told  error // why it does not take the announcement, although it answers
}

// ask announces this node and takes what the registry names.
func (r *registrySource) ask(ctx context.Context, offer func(found)) outcome {
	r.spoke = r.now()
	announceErr := r.announce(ctx)
	if !r.dials {
		return outcome{asked: announceErr}
	}
	peers, err := r.client.Peers(ctx, registry.DefaultLimit, r.network)
	if err != nil {
		return outcome{asked: err}
	}
	r.offer(peers, offer)
	return outcome{told: announceErr}
}

// announce tells the registry where this node is, if that is of use to anybody.
func (r *registrySource) announce(ctx context.Context) error {
	at, why := r.where(), ""
	switch {
	case !r.announces:
		why = "it is switched off (--announce off)"
	case len(at.addrs) == 0:
		why = "this node listens nowhere"
	case at.local && !r.client.Local():
		why = "this node listens on this machine only, and the registry is elsewhere: listen on an address that others reach, or use --advertise"
	}
	var err error
	if why == "" {
		r.announced = at
		err = r.client.Announce(ctx, r.key, registry.Announcement{
			TCPPort: at.port, Addrs: at.addrs, Network: r.network,
			Cap: map[string]string{"proto": FormatVersions().Protocol, "transport": at.transports()},
		})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if why != r.status.Why && why != "" && r.announces {
		r.log.Warn("this node does not announce itself to the registry", "registry", r.client.URL(), "why", why)
	}
	r.status.Why, r.status.Announced = why, why == "" && err == nil
	return err
}

// offer gives the dialer what is new, one address of each peer after the other,
// and names again what it has. A peer that comes back into the list has announced
// itself: it is heard.
func (r *registrySource) offer(peers []registry.Peer, offer func(found)) {
	now := r.now()
	for key, until := range r.named {
		if now.After(until) {
			delete(r.named, key)
		}
	}
	connected := r.connected()
	var lists [][]found
	longest, useful := 0, 0
	before := r.listed
	r.listed = map[string]bool{}
	for i := range peers {
		list := r.endpoints(&peers[i], now.Add(registryKeep))
		if len(list) == 0 {
			continue
		}
		useful++
		for j := range list {
			r.listed[list[j].Key] = true
			list[j].heard = !before[list[j].Key]
		}
		if id := list[0].ID; id == "" || !slices.Contains(connected, id) {
			lists = append(lists, list)
			longest = max(longest, len(list))
		}
	}
	r.mu.Lock()
	r.status.Peers = useful
	r.mu.Unlock()
	fresh := 0
	for i := range longest {
		for _, list := range lists {
			if i >= len(list) {
				continue
			}
			f := list[i]
			if _, known := r.named[f.Key]; !known {
				if fresh == newPerTick || len(r.named) >= namedEndpoints {
					continue
				}
				fresh++
			}
			r.named[f.Key] = f.expires
			offer(f)
		}
	}
}

// endpoints are the addresses of another node that may be dialled from here: as
// the registry sees it first, then as it says itself. None of this node, or of
// another network. Relayed ones come last.
func (r *registrySource) endpoints(p *registry.Peer, expires time.Time) (list []found) {
	id, err := peer.Decode(cmp.Or(p.PeerID, p.NodeID))
	if err != nil {
		id = "" // of a node that is known by a name only: whoever answers
	}
	if id == r.self || p.Network != "" && p.Network != r.network {
		return nil
	}
	add := func(addr ma.Multiaddr) {
		f, ok := foundAt(addr, id, fromRegistry, expires)
		if ok && r.reachable(addr) && !slices.ContainsFunc(list, func(o found) bool { return o.Key == f.Key }) {
			list = append(list, f)
		}
	}
	if ip, err := netip.ParseAddr(p.Host); err == nil && p.TCPPort != 0 {
		if addr, err := multiaddrOf(schemeTCP, ip.Unmap(), p.TCPPort); err == nil {
			add(addr)
		}
	}
	for _, s := range p.Addrs {
		addr, err := ma.NewMultiaddr(s)
		if err != nil || id == "" {
			continue
		}
		if transport, who := peer.SplitAddr(addr); who == "" || who == id {
			add(transport)
		}
	}
	slices.SortStableFunc(list, func(a, b found) int { return b2i(isRelayed(a.Addr)) - b2i(isRelayed(b.Addr)) })
	return list
}

// reachable tells whether an address may lead anywhere. One of loopback is this
// machine's own: only a registry on this machine can mean it.
func (r *registrySource) reachable(addr ma.Multiaddr) bool {
	if len(addr) == 0 {
		return false
	}
	switch addr[0].Protocol().Code {
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
		return true
	}
	_, ip, err := hostOf(addr)
	return err == nil && (dialable(ip) || ip.IsLoopback() && r.client.Local())
}

// report notes how it went, tells what has changed, and returns how long to wait.
func (r *registrySource) report(o outcome) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, now, wait := &r.status, r.now(), r.every
	if o.asked != nil {
		st.LastError, st.Failures = o.asked.Error(), st.Failures+1
		most := min(r.every, maxRegistryWait)
		wait = firstRegistryWait
		for i := 1; i < st.Failures && wait < most; i++ {
			wait *= 2
		}
		wait = min(wait, most)
	} else {
		st.LastSuccess, st.LastError, st.Failures = now, "", 0
		if o.told != nil {
			st.LastError = o.told.Error()
		}
	}
	wait -= time.Duration(r.rand(int64(wait / jitterPart))) // nodes that started together part
	st.Next = now.Add(wait)
	r.tellLocked(o, wait)
	return wait
}

// tellLocked writes a line when the kind of trouble changes, and when it is over.
func (r *registrySource) tellLocked(o outcome, wait time.Duration) {
	trouble, first := o.trouble(), r.asked == 0
	r.asked++
	if trouble == r.trouble && !first {
		return
	}
	r.trouble = trouble
	log := r.log.With("registry", r.status.URL)
	switch {
	case o.asked != nil:
		log.Warn("the registry is of no use at the moment", "err", o.asked, "retry_in", wait.Round(100*time.Millisecond))
	case o.told != nil:
		log.Warn("the registry answers, and does not take this node's announcement", "err", o.told)
	default:
		log.Info("the registry answers", "peers", r.status.Peers, "announced", r.status.Announced)
	}
}

// trouble is the kind of a failure: what is worth a line when it changes. The
// text of an error is not: a registry could make it new each time.
func (o outcome) trouble() string {
	err, what := o.asked, "asked"
	if err == nil {
		err, what = o.told, "told"
	}
	var e *registry.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return fmt.Sprintf("%s: %s %d", what, e.Trouble, e.Status)
	}
	return what
}

func (r *registrySource) snapshot() RegistryStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}
