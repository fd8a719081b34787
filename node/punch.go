package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// punchTimeout bounds the dials of one attempt, of which libp2p makes three.
	punchTimeout = 5 * time.Second
	// maxSeen bounds the addresses at which others saw this node that are kept.
	maxSeen = 4
)

// punchPauses are the pauses between attempts to make a relayed session direct,
// the last one for as long as it lasts. libp2p makes one attempt, when the relayed
// connection begins; a node that has just started cannot take part yet then, and
// NATs and networks change.
var punchPauses = []time.Duration{500 * time.Millisecond, time.Second, 3 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute}

// puncher makes relayed connections direct (DCUtR): both sides dial each other at
// one moment, so that each one's NAT takes the other's packets for answers.
//
// It goes by QUIC: others see at which address and port a NAT shows this node,
// and only QUIC dials from the port on which it listens. TCP does not, since it
// runs without SO_REUSEPORT (see newHost).
type puncher struct {
	service *holepunch.Service
	host    host.Host
	extra   func() []ma.Multiaddr // advertised
	counts  punchCounts

	mu   sync.Mutex // guards below
	seen []ma.Multiaddr
}

// newPuncher takes part from now on.
func newPuncher(h host.Host, advertised func() []ma.Multiaddr, reg prometheus.Registerer) (*puncher, error) {
	p := &puncher{host: h, extra: advertised}
	ids, ok := h.(interface{ IDService() identify.IDService })
	if !ok {
		return nil, errors.New("this libp2p host cannot punch holes: it has no identify service")
	}
	tracer := holepunch.WithTracer(&p.counts)
	if reg != nil {
		tracer = holepunch.WithMetricsAndEventTracer(holepunch.NewMetricsTracer(holepunch.WithRegisterer(reg)), &p.counts)
	}
	var err error
	p.service, err = holepunch.NewService(h, ids.IDService(), p.addrs, tracer, holepunch.DirectDialTimeout(punchTimeout))
	if err != nil {
		return nil, fmt.Errorf("cannot start hole punching: %w", err)
	}
	return p, nil
}

func (p *puncher) close() error { return p.service.Close() }

// noticed hears at which address a peer sees this node.
func (p *puncher) noticed(e event.EvtPeerIdentificationCompleted) {
	a := e.ObservedAddr
	if a == nil || e.Conn == nil || relayed(e.Conn) || isRelayed(a) || !manet.IsPublicAddr(a) || !p.listensAt(e.Conn.LocalMultiaddr()) {
		return
	}
	a, _ = peer.SplitAddr(a)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = slices.DeleteFunc(p.seen, func(o ma.Multiaddr) bool { return o.Equal(a) })
	p.seen = append([]ma.Multiaddr{a}, p.seen[:min(len(p.seen), maxSeen-1)]...)
}

// listensAt tells whether a connection's own end is a port on which this node
// listens: then others can come in where that port is seen.
func (p *puncher) listensAt(local ma.Multiaddr) bool {
	port := portIn(local)
	return slices.ContainsFunc(p.host.Network().ListenAddresses(), func(l ma.Multiaddr) bool {
		return portIn(l) == port && isTCP(l) == isTCP(local)
	})
}

// addrs are the public addresses of this node that may be punched through to.
func (p *puncher) addrs() []ma.Multiaddr {
	p.mu.Lock()
	all := slices.Clone(p.seen)
	p.mu.Unlock()
	all = append(append(all, p.extra()...), p.host.Addrs()...)
	return ma.Unique(slices.DeleteFunc(all, func(a ma.Multiaddr) bool { return isRelayed(a) || !manet.IsPublicAddr(a) }))
}

// ready tells that this node can take part: it knows a public address of itself.
func (p *puncher) ready() bool { return slices.Contains(p.host.Mux().Protocols(), holepunch.Protocol) }

// attend tries to make the relayed connection to a peer direct until it is, or ctx
// ends. Only the side that the relay connected may ask for it.
func (p *puncher) attend(ctx context.Context, id peer.ID) {
	wasReady := false
	for i := 0; ; i++ {
		select {
		case <-time.After(punchPauses[min(i, len(punchPauses)-1)]):
		case <-ctx.Done():
			return
		}
		if best := pickConn(p.host.Network().ConnsToPeer(id)); best == nil || !relayed(best) {
			return
		}
		// DirectConnect waits for ever where the service has just become ready and is
		// closed at that moment: so one pause later.
		if ready := p.ready(); !ready || !wasReady {
			wasReady = ready
			continue
		}
		if sw, ok := p.host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
			sw.Backoff().Clear(id) // of the attempt before
		}
		if err := p.service.DirectConnect(id); err == nil {
			return
		}
	}
}

// punchCounts hear from libp2p how hole punching goes.
type punchCounts struct{ done, failed atomic.Uint64 }

var _ holepunch.EventTracer = (*punchCounts)(nil)

// Trace implements holepunch.EventTracer.
func (c *punchCounts) Trace(e *holepunch.Event) {
	switch e := e.Evt.(type) {
	case *holepunch.DirectDialEvt:
		if e.Success {
			c.done.Add(1)
		}
	case *holepunch.EndHolePunchEvt:
		if e.Success {
			c.done.Add(1)
		} else {
			c.failed.Add(1)
		}
	}
}
