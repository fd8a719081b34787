package node

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Defaults of RelayLimits.
const (
	DefaultRelayReservations = 256
	DefaultRelayCircuits     = 32
	DefaultRelayData         = 1 << 30
	DefaultRelayDuration     = 30 * time.Minute
)

// RelayLimits bound what a relay service does for others. A circuit is a
// connection between two peers through the relay (libp2p circuit relay v2); it
// is closed at its limits, and the peers open the next one and go on where they
// were. Zero values are the defaults.
type RelayLimits struct {
	// Reservations is for how many peers the relay keeps a place at which others
	// reach them; all of them may come from one address, as behind one NAT.
	// Default 256.
	Reservations int
	// Circuits of one peer at one time. Default 32.
	Circuits int
	// Data is how many bytes a circuit carries in each direction. Default 1 GiB:
	// an unlimited circuit would not count as a relayed connection with libp2p.
	Data int64
	// Duration is how long a circuit may last. Default 30 minutes: each new
	// circuit is a new occasion to become a direct connection.
	Duration time.Duration
}

const (
	// relayBuffer is the size of the buffers of a circuit, of which it has two.
	// libp2p's default of 2 KiB is for signalling, not for bulk.
	relayBuffer = 32 << 10
	// relayTTL is after how long a place that is not asked for again is free.
	relayTTL = time.Hour
	// MinRelayDuration is the least in which something is carried.
	MinRelayDuration = time.Second
	// MinRelayData is the least that carries a handshake and one piece of a run.
	MinRelayData = 64 << 10
)

// withDefaults checks l and fills in the defaults.
func (l RelayLimits) withDefaults() (RelayLimits, error) {
	if l.Reservations == 0 {
		l.Reservations = DefaultRelayReservations
	}
	if l.Circuits == 0 {
		l.Circuits = DefaultRelayCircuits
	}
	if l.Data == 0 {
		l.Data = DefaultRelayData
	}
	if l.Duration == 0 {
		l.Duration = DefaultRelayDuration
	}
	switch {
	case l.Reservations < 1 || l.Circuits < 1:
		return l, fmt.Errorf("a relay for %d peers with %d circuits each serves nobody: use 1 or more", l.Reservations, l.Circuits)
	case l.Data < MinRelayData:
		return l, fmt.Errorf("a relayed connection of %d bytes carries nothing: use at least %d", l.Data, MinRelayData)
	case l.Duration < MinRelayDuration:
		return l, fmt.Errorf("a relayed connection that ends after %s carries nothing: use at least %s", l.Duration, MinRelayDuration)
	}
	return l, nil
}

// scale lets the resource manager have what the service may use beside all else: a
// connection a place, two streams and two buffers a circuit, and at most half as
// many circuits as places at one time, with room for what asks.
func (l RelayLimits) scale(to *rcmgr.PartialLimitConfig) {
	const circuit = 2*relayBuffer + 16<<10
	places := rcmgr.LimitVal(l.Reservations)
	streams := 2*places + 64
	memory := rcmgr.LimitVal64(l.Reservations) * circuit
	to.Service[relay.ServiceName] = rcmgr.ResourceLimits{
		Streams: streams, StreamsInbound: streams, StreamsOutbound: streams, Memory: memory,
	}
	perPeer := rcmgr.LimitVal(4*l.Circuits + 8)
	to.ServicePeer[relay.ServiceName] = rcmgr.ResourceLimits{
		Streams: perPeer, StreamsInbound: perPeer, StreamsOutbound: perPeer,
		Memory: rcmgr.LimitVal64(l.Circuits) * circuit,
	}
	for _, whole := range []*rcmgr.ResourceLimits{&to.System, &to.Transient} {
		whole.Conns += places
		whole.ConnsInbound += places
		whole.ConnsOutbound += places
		whole.Streams += 2 * streams
		whole.StreamsInbound += streams
		whole.StreamsOutbound += streams
	}
	to.System.Memory += memory + rcmgr.LimitVal64(streams)*leastWindow
	to.PeerDefault.Streams += 2 * perPeer
	to.PeerDefault.StreamsInbound += perPeer
	to.PeerDefault.StreamsOutbound += perPeer
	to.PeerDefault.Memory += rcmgr.LimitVal64(perPeer) * leastWindow
}

// relayService is the relay for others on a host. Unlike libp2p's own switch it
// does not wait until the node is known to be public: who asks for it knows, and
// a relay between the subnets of an office never is.
type relayService struct {
	limits RelayLimits
	relay  *relay.Relay
	counts relayCounts
}

func newRelayService(h host.Host, limits RelayLimits) (*relayService, error) {
	s := &relayService{limits: limits}
	r, err := relay.New(h,
		relay.WithResources(relay.Resources{
			Limit:          &relay.RelayLimit{Data: limits.Data, Duration: limits.Duration},
			ReservationTTL: relayTTL, MaxReservations: limits.Reservations, MaxCircuits: limits.Circuits, BufferSize: relayBuffer,
			MaxReservationsPerIP: limits.Reservations, MaxReservationsPerASN: limits.Reservations,
		}),
		relay.WithReservationAddressFilter(fitForOthers),
		relay.WithMetricsTracer(&s.counts))
	if err != nil {
		return nil, fmt.Errorf("cannot start the relay service: %w", err)
	}
	s.relay = r
	return s, nil
}

// fitForOthers leaves out addresses that mean another machine elsewhere.
func fitForOthers(a ma.Multiaddr) bool {
	return !isRelayed(a) && !manet.IsIPLoopback(a) && !manet.IsIP6LinkLocal(a)
}

func (s *relayService) close() error { return s.relay.Close() }

// RelayServiceStatus is what a relay service does for others now, and since the
// start.
type RelayServiceStatus struct {
	Limits       RelayLimits
	Reservations int64 // places that peers have now
	Circuits     int64 // relayed connections now
	// Since the start: circuits and bytes in both directions, and what was refused
	// because of a limit, or because the peer that was asked for has no place.
	CircuitsTotal, Bytes, Refused uint64
}

func (s *relayService) status() *RelayServiceStatus {
	return &RelayServiceStatus{
		Limits: s.limits, Reservations: s.counts.places.Load(), Circuits: s.counts.circuits.Load(),
		CircuitsTotal: s.counts.total.Load(), Bytes: s.counts.bytes.Load(), Refused: s.counts.refused.Load(),
	}
}

// relayCounts hears from the relay what it does.
type relayCounts struct {
	places, circuits      atomic.Int64
	total, bytes, refused atomic.Uint64
}

var _ relay.MetricsTracer = (*relayCounts)(nil)

func (c *relayCounts) RelayStatus(bool) {}
func (c *relayCounts) ConnectionOpened() {
	c.circuits.Add(1)
	c.total.Add(1)
}
func (c *relayCounts) ConnectionClosed(time.Duration)               { c.circuits.Add(-1) }
func (c *relayCounts) ConnectionRequestHandled(status pbv2.Status)  { c.handled(status) }
func (c *relayCounts) ReservationRequestHandled(status pbv2.Status) { c.handled(status) }
func (c *relayCounts) ReservationAllowed(renewal bool) {
	if !renewal {
		c.places.Add(1)
	}
}
func (c *relayCounts) ReservationClosed(n int) { c.places.Add(int64(-n)) }
func (c *relayCounts) BytesTransferred(n int)  { c.bytes.Add(uint64(n)) }
func (c *relayCounts) handled(s pbv2.Status) {
	if s != pbv2.Status_OK {
		c.refused.Add(1)
	}
}
