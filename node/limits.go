package node

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"

	"vixp2p/protocols"
)

// What libp2p may hold, all of it in proportion to Config.MaxPeers (design 7, G8);
// docs/operations.md repeats the numbers for the default of 64.
const (
	// maxPeerConns is for one peer: two of crossed dials over each of two
	// transports, a relayed one, and as many that are being closed.
	maxPeerConns = 8
	// peerMemory, systemMemory and memoryPerPeer bound the buffers of connections and
	// the windows of streams, in bytes. A window begins with 256 KiB and grows, to
	// 16 MiB at most, only while half of the whole is free: what is beyond the limit
	// is slower, and not refused.
	peerMemory    = 32 << 20
	systemMemory  = 64 << 20
	memoryPerPeer = 2 << 20
	// leastWindow is what each stream takes of it at the least.
	leastWindow = 256 << 10
	// connRate is how many connections a second one address may begin, after as many
	// at once as it may have.
	connRate = 10
)

// allConns bounds connections: two a peer while crossed dials are sorted out, and as
// much again for those in a handshake.
func allConns(maxPeers int) int { return 4*maxPeers + 64 }

// inboundConns is how many of them others may begin: whoever uses up all of these
// does not keep this node from dialling.
func inboundConns(maxPeers int) int { return 3*maxPeers + 48 }

// hostConns is how many one address may have, such as all peers behind one NAT: half
// of what others may begin.
func hostConns(maxPeers int) int { return inboundConns(maxPeers) / 2 }

// peerStreams is how many streams one peer may have in each direction: a peer that is
// the relay of all others has one for each of them.
func peerStreams(maxPeers int) int { return maxPeers + 32 }

// streams is a limit on streams in each direction; both together have as much room.
func streams(in, out int) rcmgr.ResourceLimits {
	return rcmgr.ResourceLimits{
		StreamsInbound: rcmgr.LimitVal(in), StreamsOutbound: rcmgr.LimitVal(out), Streams: rcmgr.LimitVal(in + out),
	}
}

// hostLimits is what libp2p may hold for maxPeers sessions. libp2p's own services
// keep the limits that it gives them.
func hostLimits(maxPeers int) rcmgr.PartialLimitConfig {
	all, in := allConns(maxPeers), inboundConns(maxPeers)
	system := streams(8*all, 8*all)
	system.Conns, system.ConnsInbound, system.ConnsOutbound = rcmgr.LimitVal(all), rcmgr.LimitVal(in), rcmgr.LimitVal(all)
	system.Memory = rcmgr.LimitVal64(systemMemory + maxPeers*memoryPerPeer)
	// Connections before their peer is known, and streams before their protocol is.
	transient := streams(4*all, 4*all)
	transient.Conns, transient.ConnsInbound, transient.ConnsOutbound = system.Conns, system.ConnsInbound, system.ConnsOutbound
	onePeer := streams(peerStreams(maxPeers), peerStreams(maxPeers))
	onePeer.Conns, onePeer.ConnsInbound, onePeer.ConnsOutbound = maxPeerConns, maxPeerConns, maxPeerConns
	onePeer.Memory = rcmgr.LimitVal64(peerMemory + maxPeers*leastWindow)
	return rcmgr.PartialLimitConfig{
		System: system, Transient: transient, PeerDefault: onePeer,
		Service:     map[string]rcmgr.ResourceLimits{protocols.ServiceName: streams(2*all, 2*all)},
		ServicePeer: map[string]rcmgr.ResourceLimits{protocols.ServiceName: streams(20, 20)},
		Protocol: map[protocol.ID]rcmgr.ResourceLimits{
			protocols.SyncProtocol:  streams(all, all),
			protocols.HelloProtocol: streams(maxPeers+32, maxPeers+32),
			protocols.JoinProtocol:  streams(64, 64),
			protocols.MsgProtocol:   streams(2*maxPeers+32, 2*maxPeers+32),
		},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			// A handshake, a session, the one that takes its place, and as many that end.
			protocols.SyncProtocol:  streams(8, 8),
			protocols.HelloProtocol: streams(4, 4),
			protocols.JoinProtocol:  streams(2, 2),
			protocols.MsgProtocol:   streams(4, 4),
		},
		ProtocolPeerDefault: streams(16, 16),
	}
}

// newResourceManager bounds connections, streams and memory by the number of
// sessions. libp2p's defaults, 8 connections an address and one new one in 5
// seconds, would keep out peers that share one address behind a NAT, and grow with
// the machine's memory.
func newResourceManager(cfg *Config) (network.ResourceManager, error) {
	scaled := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaled)
	partial := hostLimits(cfg.MaxPeers)
	perHost := hostConns(cfg.MaxPeers)
	if cfg.RelayService {
		relay, err := cfg.RelayLimits.withDefaults()
		if err != nil {
			return nil, err
		}
		relay.scale(&partial)
		perHost += relay.Reservations
	}
	burst := rate.Limit{RPS: connRate, Burst: perHost}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(partial.Build(scaled.AutoScale())),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: perHost}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: perHost}, {PrefixLength: 48, ConnCount: 2 * perHost}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{
				{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, // zero: no limit
				{Prefix: netip.MustParsePrefix("::1/128")},
			},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: burst}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: burst}},
				GracePeriod:      time.Minute,
			},
		}))
}
