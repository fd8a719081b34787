package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// reach is what a node does so that peers reach it where dialling its addresses
// does not suffice: it asks peers whether its addresses work (AutoNAT v2), has
// ports forwarded by the router, holds places at relays, and turns relayed
// connections into direct ones (hole punching). A node that listens on loopback
// only does none of it, but what its user names: relays, and the relay service.
type reach struct {
	cfg  *Config
	log  *slog.Logger
	own  bool // the host is the node's, not the caller's
	host host.Host
	ads  *advertisement

	nat     basichost.NATManager // nil: no port mapping
	client  *relayClient         // nil: no relays
	service *relayService        // nil: none for others
	puncher *puncher             // nil: no holes
	// places is client, for the host, whose goroutines ask for addresses while
	// attach is still at work.
	places atomic.Pointer[relayClient]

	ctx    context.Context // of its own goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup
	events event.Subscription

	mu sync.Mutex // guards below
	// The newest verdicts of AutoNAT on this node's public addresses.
	works, fails, untold []ma.Multiaddr
}

func newReach(cfg *Config) *reach {
	r := &reach{cfg: cfg, log: cfg.Logger, own: cfg.Host == nil, ads: newAdvertisement(cfg.Advertise, cfg.Logger)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// beyondLoopback tells whether the node listens for other machines.
func (c *Config) beyondLoopback() bool {
	if c.Host != nil || c.Offline {
		return false
	}
	specs, err := c.listenSpecs()
	return err == nil && slices.ContainsFunc(specs, func(s listenSpec) bool { return s.check(false) != nil })
}

// options are the host's part of it.
func (r *reach) options() []libp2p.Option {
	var opts []libp2p.Option
	if !r.cfg.NoRelay {
		// Without a place at a relay nobody reaches this node through one; it can
		// dial those who have.
		opts = append(opts, libp2p.EnableRelay())
	} else {
		opts = append(opts, libp2p.DisableRelay())
	}
	if !r.cfg.beyondLoopback() {
		return opts
	}
	if !r.cfg.NoAutoNAT {
		opts = append(opts, libp2p.EnableAutoNATv2())
	}
	if r.cfg.PortMapping {
		opts = append(opts, libp2p.NATManager(func(n network.Network) basichost.NATManager {
			r.nat = basichost.NewNATManager(n)
			return r.nat
		}))
	}
	return opts
}

// punching tells whether holes are punched. It needs QUIC and a relay to agree
// through.
func (r *reach) punching() bool {
	return r.own && r.cfg.beyondLoopback() && !r.cfg.NoHolePunching && !r.cfg.NoRelay && !r.cfg.NoQUIC
}

// addresses adds to the host's addresses those that are advertised and those at
// relays.
func (r *reach) addresses(own []ma.Multiaddr) []ma.Multiaddr {
	own = append(own, r.ads.addrs()...)
	places := r.places.Load()
	if places == nil {
		return own
	}
	return append(own, places.circuits()...)
}

// attach prepares the parts that need the host. Nothing is sent yet.
func (r *reach) attach(h host.Host, c *connector, members func() []peer.ID) error {
	r.host = h
	sub, err := h.EventBus().Subscribe([]any{new(event.EvtHostReachableAddrsChanged), new(event.EvtPeerIdentificationCompleted)},
		eventbus.Name("vix reachability"), eventbus.BufSize(64))
	if err != nil {
		return fmt.Errorf("cannot follow this node's reachability: %w", err)
	}
	r.events = sub
	if r.punching() {
		if r.puncher, err = newPuncher(h, r.ads.addrs, r.cfg.Registerer); err != nil {
			return err
		}
	}
	if !r.own || r.cfg.NoRelay || !r.cfg.beyondLoopback() && len(r.cfg.Relays) == 0 {
		return nil
	}
	var relays []target
	for _, s := range r.cfg.Relays {
		t, err := parseTarget(s)
		if err != nil {
			return err
		}
		relays = append(relays, t)
	}
	r.client, err = newRelayClient(c, relays, func() bool { return r.reachability() != reachPublic }, members, r.log)
	r.places.Store(r.client)
	return err
}

// start begins to serve and to ask; the host listens.
func (r *reach) start() error {
	if r.own && !r.cfg.beyondLoopback() && slices.ContainsFunc(r.ads.addrs(), reachesBeyond) {
		r.log.Warn("this node listens on this machine only, so that nobody reaches it at the addresses that it advertises, unless a program here passes on what comes: --open, or a network, lets it listen beyond", "advertised", strings.Join(r.cfg.Advertise, " "))
	}
	r.wg.Go(r.follow)
	r.wg.Go(func() { r.ads.run(r.ctx) })
	if r.cfg.RelayService {
		limits, err := r.cfg.RelayLimits.withDefaults()
		if err != nil {
			return err
		}
		if r.service, err = newRelayService(r.host, limits); err != nil {
			return err
		}
		r.log.Info("this node relays for others", "reservations", limits.Reservations, "circuits_per_peer", limits.Circuits, "bytes", limits.Data, "duration", limits.Duration)
	}
	if r.client != nil {
		return r.client.start()
	}
	return nil
}

// close ends it. The host's own parts end with the host.
func (r *reach) close() error {
	r.cancel()
	var errs []error
	if r.client != nil {
		errs = append(errs, r.client.close())
	}
	if r.puncher != nil {
		errs = append(errs, r.puncher.close())
	}
	if r.service != nil {
		errs = append(errs, r.service.close())
	}
	if r.events != nil {
		errs = append(errs, r.events.Close())
	}
	r.wg.Wait()
	return errors.Join(errs...)
}

// follow keeps AutoNAT's verdicts.
func (r *reach) follow() {
	for e := range r.events.Out() {
		if met, ok := e.(event.EvtPeerIdentificationCompleted); ok && r.puncher != nil {
			r.puncher.noticed(met)
		}
		change, ok := e.(event.EvtHostReachableAddrsChanged)
		if !ok {
			continue
		}
		before := r.reachability()
		r.mu.Lock()
		r.works, r.fails, r.untold = change.Reachable, change.Unreachable, change.Unknown
		r.mu.Unlock()
		if now := r.reachability(); now != before {
			r.log.Info("reachability changed", "from", before, "to", now)
		}
		if r.client != nil {
			r.client.look()
		}
	}
}

// What is known of how others reach this node.
const (
	reachPublic  = "public"  // others have reached one of its addresses from outside
	reachPrivate = "private" // others have tried its public addresses in vain
	reachUnknown = "unknown" // nobody has tried, or no public address is known
)

// reachability sums up AutoNAT's verdicts. A node that listens on IPv4 is public
// only if it is reached there: many have no IPv6.
func (r *reach) reachability() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	is4 := func(a ma.Multiaddr) bool { _, err := a.ValueForProtocol(ma.P_IP4); return err == nil }
	mayBe4 := slices.ContainsFunc(r.host.Network().ListenAddresses(), is4)
	switch {
	case slices.ContainsFunc(r.works, func(a ma.Multiaddr) bool { return is4(a) || !mayBe4 }):
		return reachPublic
	case len(r.works)+len(r.fails) > 0 && len(r.untold) == 0:
		return reachPrivate
	}
	return reachUnknown
}

// ReachStatus is how others reach a node, and what it does for that.
type ReachStatus struct {
	// Reachability is "public": AutoNAT has found that others reach it; "private":
	// that they do not; "unknown": nobody has tried, or no public address is known.
	Reachability string
	// AutoNAT, RelayClient, HolePunching and PortMapping tell what is on.
	AutoNAT, RelayClient, HolePunching, PortMapping bool
	Confirmed                                       []string // addresses that AutoNAT found to work
	Relays                                          []RelayStatus
	// Punched and PunchFailed count, since the start, attempts to make a relayed
	// connection direct; some succeed without a hole, by dialling back.
	Punched, PunchFailed uint64
	Gateway              bool     // a router that maps ports was found
	Mapped               []string // addresses that it forwards to this node
	Advertised           []string // as configured
	// Service is nil where this node relays for nobody.
	Service *RelayServiceStatus
}

func (r *reach) status() ReachStatus {
	st := ReachStatus{
		Reachability: r.reachability(), RelayClient: r.client != nil, HolePunching: r.punching(),
		AutoNAT: r.own && !r.cfg.NoAutoNAT && r.cfg.beyondLoopback(), PortMapping: r.nat != nil,
		Advertised: slices.Clone(r.cfg.Advertise),
	}
	r.mu.Lock()
	for _, a := range r.works {
		st.Confirmed = append(st.Confirmed, a.String())
	}
	r.mu.Unlock()
	if r.puncher != nil {
		st.Punched, st.PunchFailed = r.puncher.counts.done.Load(), r.puncher.counts.failed.Load()
	}
	if r.client != nil {
		st.Relays = r.client.status()
	}
	if r.service != nil {
		st.Service = r.service.status()
	}
	if r.nat != nil {
		st.Gateway = r.nat.HasDiscoveredNAT()
		for _, a := range r.host.Network().ListenAddresses() {
			if m := r.nat.GetMapping(a); m != nil && !manet.IsIPUnspecified(m) && !slices.Contains(st.Mapped, m.String()) {
				st.Mapped = append(st.Mapped, m.String())
			}
		}
	}
	return st
}

// checkReach tells what is wrong with how the node is to be reached.
func (c *Config) checkReach() error {
	if err := checkAdvertise(c.Advertise); err != nil {
		return err
	}
	if len(c.Relays) > maxRelays {
		return fmt.Errorf("there are %d relays: a node uses at most %d", len(c.Relays), maxRelays)
	}
	for _, s := range c.Relays {
		t, err := parseTarget(s)
		switch {
		case err != nil:
			return fmt.Errorf("cannot use the relay: %w", err)
		case t.Addr != nil && isRelayed(t.Addr):
			return fmt.Errorf("cannot use the relay %s: it is itself reached through a relay: name one that can be reached directly", s)
		}
	}
	switch {
	case len(c.Relays) > 0 && c.NoRelay:
		return errors.New("relays are named, and the use of relays is switched off: leave one of the two out")
	case len(c.Relays) > 0 && c.Host != nil, c.PortMapping && c.Host != nil:
		return errors.New("relays and port mapping belong to the host, and this one is the caller's: set them up there")
	case len(c.Relays) > 0 && !c.Open && c.members == nil:
		// Through a relay anyone reaches a node that listens on loopback only.
		return errorString{"through a relay others reach this node wherever it listens, and whoever reaches an open development network can read and write: add --open to allow that, or leave --relay out", ErrNeedsOpen}
	case c.PortMapping && !c.beyondLoopback():
		return errors.New("port mapping has nothing to map: this node listens for this machine only; let it listen beyond it, or switch port mapping off")
	}
	_, err := c.RelayLimits.withDefaults()
	return err
}

// met hears of every new session: its peer may be a member that relays for others,
// and what it can do was often known before it was a member.
func (r *reach) met() {
	if r.client != nil {
		r.client.look()
	}
}

// attend makes the relayed connection to a peer direct if that can be done; it
// returns when there is nothing more to do.
func (r *reach) attend(ctx context.Context, id peer.ID) {
	if r.puncher != nil {
		r.puncher.attend(ctx, id)
	}
}
