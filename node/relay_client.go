package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// maxRelays bounds the relays of Config.Relays, maxMemberRelays those that are
	// taken from connected peers beside them.
	maxRelays       = 8
	maxMemberRelays = 2
	// maxRelayAddrs bounds the addresses at one relay that are told to others.
	maxRelayAddrs = 8
	// relayRetry is the pause after a relay gave no place or a place was lost; it
	// doubles up to relayRetryMax, until there is a place that holds for relayHeld:
	// a relay that grants places and drops them is no better than one that refuses.
	relayRetry    = 2 * time.Second
	relayRetryMax = time.Minute
	relayHeld     = time.Minute
	// relayTimeout bounds one attempt at a place, after the relay has answered.
	relayTimeout = 10 * time.Second
	// relayLook is how often the client looks around without being told.
	relayLook = 30 * time.Second
	// relayTag keeps connections to relays from being trimmed.
	relayTag = "vix-relay"
)

// relayClient holds places (reservations) at relays while this node is not known
// to be reachable otherwise, so that peers reach it there. libp2p's own finder of
// relays leaves out relays with private addresses, tells nobody why it has no
// place, and waits an hour after a failure.
type relayClient struct {
	host      host.Host
	connector *connector
	wanted    func() bool
	members   func() []peer.ID // peers with a session over a direct connection
	log       *slog.Logger
	addrs     event.Emitter // tells the host that circuit addresses changed

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // capacity 1

	mu     sync.Mutex    // guards below
	every  time.Duration // relayLook; a test has more patience
	places map[string]*relayPlace
	told   []ma.Multiaddr // what the host was told last
}

// relayPlace is one relay and the place that this node has there.
type relayPlace struct {
	target     target // of a configured relay
	configured bool
	id         peer.ID // empty while not known
	addr       string  // where it was reached, for people
	asking     bool
	failures   int       // attempts without a place and places lost, since one held for relayHeld
	err        error     // of the last attempt, nil after success
	next       time.Time // when to ask, or to ask again
	since      time.Time // when the place was given; zero: there is none
	until      time.Time // end of the place; zero: none
	limits     client.Reservation
	circuits   []ma.Multiaddr // without this node's ID; empty without a place
}

func newRelayClient(c *connector, relays []target, wanted func() bool, members func() []peer.ID, log *slog.Logger) (*relayClient, error) {
	emitter, err := c.host.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful)
	if err != nil {
		return nil, fmt.Errorf("cannot start the relay client: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &relayClient{
		host: c.host, connector: c, wanted: wanted, members: members, log: log, addrs: emitter,
		ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), every: relayLook, places: map[string]*relayPlace{},
	}
	for _, t := range relays {
		// QUIC first: only from a QUIC connection does the relay see the port that
		// a hole can be punched for.
		slices.SortFunc(t.Schemes, func(a, b string) int { return cmp.Compare(b2i(a != schemeQUIC), b2i(b != schemeQUIC)) })
		r.places[t.Key] = &relayPlace{target: t, configured: true, id: t.ID}
	}
	return r, nil
}

// start asks for places until close.
func (r *relayClient) start() error {
	sub, err := r.host.EventBus().Subscribe([]any{
		new(event.EvtPeerConnectednessChanged), new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerProtocolsUpdated),
	}, eventbus.Name("vix relays"), eventbus.BufSize(256))
	if err != nil {
		return fmt.Errorf("cannot start the relay client: %w", err)
	}
	r.wg.Go(func() {
		defer sub.Close()
		r.run(sub.Out())
	})
	return nil
}

func (r *relayClient) close() error {
	r.cancel()
	r.wg.Wait()
	return r.addrs.Close()
}

// look makes the client look around now.
func (r *relayClient) look() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *relayClient) run(events <-chan any) {
	timer := time.NewTimer(relayLook)
	defer timer.Stop()
	for {
		next := r.askDue(time.Now())
		r.tell()
		timer.Reset(max(time.Until(next), 10*time.Millisecond))
		select {
		case <-r.ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		case e := <-events:
			if change, ok := e.(event.EvtPeerConnectednessChanged); ok && change.Connectedness != network.Connected {
				r.lost(change.Peer, time.Now())
			}
		}
	}
}

var errRelayGone = errors.New("the connection to it ended")

// lost drops the place at a relay that is not connected any more: the relay has
// dropped it too.
func (r *relayClient) lost(id peer.ID, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.places {
		if p.id == id && !p.until.IsZero() {
			p.fail(now, errRelayGone)
		}
	}
}

// fail notes that there is no place, or none any more, and when to ask again.
func (p *relayPlace) fail(now time.Time, err error) {
	if !p.since.IsZero() && now.Sub(p.since) >= relayHeld {
		p.failures = 0
	}
	p.err, p.since, p.until, p.circuits = err, time.Time{}, time.Time{}, nil
	p.next = now.Add(min(relayRetry<<min(p.failures, 10), relayRetryMax))
	p.failures++
}

// changed makes the client ask at once where it waits: the network has changed, and
// what failed before says nothing.
func (r *relayClient) changed() {
	r.mu.Lock()
	for _, p := range r.places {
		if p.failures = 0; p.until.IsZero() {
			p.next = time.Time{}
		}
	}
	r.mu.Unlock()
	r.look()
}

// askDue starts the attempts that are due and returns when to look again.
func (r *relayClient) askDue(now time.Time) time.Time {
	wanted := r.wanted()
	offering := r.offering()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adoptLocked(offering, now)
	next := now.Add(r.every)
	for _, p := range r.places {
		switch {
		case p.asking:
		case !wanted:
			// The place runs out by itself; its addresses are withdrawn now.
			p.since, p.until, p.circuits, p.next, p.err = time.Time{}, time.Time{}, nil, time.Time{}, nil
			r.host.ConnManager().Unprotect(p.id, relayTag)
		case !p.next.After(now):
			p.asking = true
			r.wg.Go(func() { r.ask(p) })
		case p.next.Before(next):
			next = p.next
		}
	}
	return next
}

// offering are the connected members that run a relay service.
func (r *relayClient) offering() []peer.ID {
	return slices.DeleteFunc(r.members(), func(id peer.ID) bool {
		has, err := r.host.Peerstore().SupportsProtocols(id, proto.ProtoIDv2Hop)
		return err != nil || len(has) == 0
	})
}

// adoptLocked makes the members that offer a relay the ones to ask, beside the
// configured ones. One that pauses stays, so that coming back does not end its pause.
func (r *relayClient) adoptLocked(offering []peer.ID, now time.Time) {
	members := 0
	for key, p := range r.places {
		switch {
		case p.configured:
			offering = slices.DeleteFunc(offering, func(id peer.ID) bool { return id == p.id })
		case slices.Contains(offering, p.id) || p.asking || !p.until.IsZero() || p.next.After(now):
			members++
			offering = slices.DeleteFunc(offering, func(id peer.ID) bool { return id == p.id })
		default:
			delete(r.places, key)
			r.host.ConnManager().Unprotect(p.id, relayTag)
		}
	}
	for _, id := range offering[:min(len(offering), max(0, maxMemberRelays-members))] {
		r.places[id.String()] = &relayPlace{id: id}
	}
}

// ask makes one attempt at a place.
func (r *relayClient) ask(p *relayPlace) {
	ctx, cancel := context.WithTimeout(r.ctx, answerTime+relayTimeout)
	defer cancel()
	conn, err := r.connect(ctx, p)
	var got *client.Reservation
	if err == nil {
		if got, err = client.Reserve(ctx, r.host, peer.AddrInfo{ID: conn.RemotePeer()}); err != nil {
			err = placeError(err)
		}
	}
	r.mu.Lock()
	defer r.look()
	defer r.mu.Unlock()
	p.asking = false
	now := time.Now()
	if conn != nil {
		p.id, p.addr = conn.RemotePeer(), readable(conn.RemoteMultiaddr())
	}
	if err != nil {
		if r.ctx.Err() != nil {
			return
		}
		if p.err == nil || p.err.Error() != err.Error() {
			r.log.Warn("no place at a relay", "relay", p.name(), "err", err)
		}
		p.fail(now, err)
		return
	}
	r.host.ConnManager().Protect(p.id, relayTag)
	if p.until.IsZero() {
		r.log.Info("peers reach this node through a relay", "relay", p.name(), "peer", p.id.String(), "bytes", got.LimitData, "duration", got.LimitDuration)
	}
	if p.since.IsZero() {
		p.since = now
	}
	p.err, p.until, p.limits = nil, got.Expiration, *got
	p.next = now.Add(max(time.Until(got.Expiration)*3/4, relayRetry))
	p.circuits = circuitsAt(p.id, append(got.Addrs, conn.RemoteMultiaddr()))
	if conn.IsClosed() && r.host.Network().Connectedness(p.id) != network.Connected {
		p.fail(now, errRelayGone) // before there was a place to lose
	}
}

// connect finds or makes a direct connection to a relay.
func (r *relayClient) connect(ctx context.Context, p *relayPlace) (network.Conn, error) {
	if p.configured {
		conn, err := r.connector.connect(ctx, p.target, p.id, time.Now().Add(answerTime))
		if err == nil && isRelayed(conn.RemoteMultiaddr()) {
			err = errors.New("it is itself reached through a relay: name a relay that can be reached directly")
		}
		return conn, err
	}
	conn := pickConn(r.host.Network().ConnsToPeer(p.id))
	if conn == nil || isRelayed(conn.RemoteMultiaddr()) {
		return nil, errors.New("it is not connected directly")
	}
	return conn, nil
}

// name is the relay for people.
func (p *relayPlace) name() string {
	if p.configured {
		return p.target.Key
	}
	return p.id.String()
}

// placeError says why a relay gives no place.
func placeError(err error) error {
	refused, ok := errors.AsType[client.ReservationError](err)
	switch {
	case ok && refused.Status == pbv2.Status_RESERVATION_REFUSED:
		return fmt.Errorf("it is full: name another relay, or raise its --relay-reservations (%w)", err)
	case ok && refused.Status == pbv2.Status_PERMISSION_DENIED:
		return fmt.Errorf("it does not serve this node (%w)", err)
	case ok && refused.Status == pbv2.Status_CONNECTION_FAILED && refused.Unwrap() != nil:
		return fmt.Errorf("it is no relay: start it with `vix-node relay` or --relay-service (%w)", refused.Unwrap())
	}
	return err
}

// circuitsAt are the addresses at which a peer is reached through a relay.
func circuitsAt(relay peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	circuit, err := ma.NewMultiaddr("/p2p/" + relay.String() + "/p2p-circuit")
	if err != nil {
		return nil // a peer ID that libp2p gave is one
	}
	var out []ma.Multiaddr
	for _, a := range addrs {
		if transport, id := peer.SplitAddr(a); !isRelayed(a) && len(transport) > 0 && (id == "" || id == relay) {
			out = append(out, transport.Encapsulate(circuit))
		}
	}
	// QUIC first, for the peers that dial them in this order; see newRelayClient.
	out = ma.Unique(out)
	slices.SortStableFunc(out, func(a, b ma.Multiaddr) int { return cmp.Compare(b2i(isTCP(a)), b2i(isTCP(b))) })
	return out[:min(len(out), maxRelayAddrs)]
}

// circuits are the addresses of this node at its relays, without its own ID.
func (r *relayClient) circuits() []ma.Multiaddr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.told)
}

// tell lets the host, and through it peers, know the addresses if they changed.
func (r *relayClient) tell() {
	r.mu.Lock()
	var all []ma.Multiaddr
	for _, p := range r.places {
		all = append(all, p.circuits...)
	}
	slices.SortFunc(all, func(a, b ma.Multiaddr) int { return a.Compare(b) })
	changed := !slices.EqualFunc(all, r.told, func(a, b ma.Multiaddr) bool { return a.Equal(b) })
	r.told = all
	r.mu.Unlock()
	if changed {
		if err := r.addrs.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: slices.Clone(all)}); err != nil {
			r.log.Warn("peers are not told of the addresses at relays", "err", err)
		}
	}
}

// RelayStatus is a relay and the place that this node has there.
type RelayStatus struct {
	Relay  string // as configured, or the peer ID of a connected member
	PeerID string // empty while not known
	// Addrs are where peers reach this node through the relay, with its own ID;
	// empty: it has no place there.
	Addrs []string
	Until time.Time // end of the place, which is asked for again before; zero: none
	// What a connection through it may carry in each direction, and how long it
	// may last; 0: no limit is known.
	LimitBytes    uint64
	LimitDuration time.Duration
	Error         string // why there is no place
}

func (r *relayClient) status() []RelayStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]RelayStatus, 0, len(r.places))
	for _, p := range r.places {
		st := RelayStatus{Relay: p.name(), Until: p.until}
		if p.id != "" {
			st.PeerID = p.id.String()
		}
		for _, a := range p.circuits {
			st.Addrs = append(st.Addrs, a.String()+"/p2p/"+r.host.ID().String())
		}
		if !p.until.IsZero() {
			st.LimitBytes, st.LimitDuration = p.limits.LimitData, p.limits.LimitDuration
		} else if p.err != nil {
			st.Error = p.err.Error()
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b RelayStatus) int { return cmp.Compare(a.Relay, b.Relay) })
	return out
}
