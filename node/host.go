package node

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// tcpHeadStart is by how much a TCP dial precedes QUIC on loopback and LAN.
// There TCP is two to three times as fast, but dialled together QUIC wins the
// race every time. Across the internet the order of libp2p holds: QUIC first,
// because it crosses NATs better and saves round trips.
const tcpHeadStart = 500 * time.Millisecond

// newHost makes a host that listens nowhere yet: the node's handlers must be
// there before the first peer. gate may be nil.
func newHost(cfg *Config, key ed25519.PrivateKey, r *reach, gate *gate) (host.Host, error) {
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot use the identity: %w", err)
	}
	limits, err := newResourceManager(cfg)
	if err != nil {
		return nil, fmt.Errorf("cannot set the network's limits: %w", err)
	}
	if gate != nil {
		limits = meteredStreams{limits, gate}
	}
	// Sessions are bounded by MaxPeers before this trims; it ends connections
	// that carry none. It trims before inboundConns are reached.
	connections, err := connmgr.NewConnManager(2*cfg.MaxPeers+16, inboundConns(cfg.MaxPeers)-16, connmgr.WithGracePeriod(30*time.Second))
	if err != nil {
		return nil, fmt.Errorf("cannot set the network's limits: %w", err)
	}
	opts := []libp2p.Option{
		libp2p.Identity(priv),
		libp2p.NoListenAddrs,
		libp2p.Security(noise.ID, noise.New),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(connections),
		libp2p.SwarmOpts(swarm.WithDialRanker(rankDials)),
		// libp2p would refuse QUIC, and IPv6, after a hundred dials in vain, which
		// says nothing of a node that was offline; and by the same count it would
		// refuse to tell others whether they are reached by UDP (AutoNAT) until it
		// has dialled as often itself, which a small network never does. The dialer
		// bounds what is dialled in vain.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.UserAgent(cfg.agent()),
		libp2p.Ping(false), // the session has its own
		libp2p.AddrsFactory(func(own []ma.Multiaddr) []ma.Multiaddr {
			return r.addresses(slices.Clone(own))
		}),
	}
	if !cfg.NoTCP {
		// Without SO_REUSEPORT: with it two nodes share a port in silence, and
		// crossed dials between two listening ports meet as one connection that
		// neither side accepted.
		opts = append(opts, libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()))
	}
	if !cfg.NoQUIC {
		opts = append(opts, libp2p.Transport(libp2pquic.NewTransport))
	}
	if gate != nil {
		opts = append(opts, libp2p.ConnectionGater(gater{gate}))
	}
	if cfg.Registerer != nil {
		opts = append(opts, libp2p.PrometheusRegisterer(cfg.Registerer))
	} else {
		opts = append(opts, libp2p.DisableMetrics())
	}
	h, err := libp2p.New(append(opts, r.options()...)...)
	if err != nil {
		closeErr := errors.Join(limits.Close(), connections.Close())
		return nil, fmt.Errorf("cannot start the network: %w", errors.Join(err, closeErr))
	}
	return h, nil
}

// rankDials orders the addresses of one peer: on loopback and LAN TCP goes
// first; elsewhere libp2p's order holds.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	var near, far []ma.Multiaddr
	for _, a := range addrs {
		if manet.IsPrivateAddr(a) && !isRelayed(a) {
			near = append(near, a)
		} else {
			far = append(far, a)
		}
	}
	ranked := swarm.DefaultDialRanker(far)
	hasTCP := slices.ContainsFunc(near, isTCP)
	for _, a := range near {
		d := network.AddrDelay{Addr: a}
		if hasTCP && !isTCP(a) {
			d.Delay = tcpHeadStart
		}
		ranked = append(ranked, d)
	}
	return ranked
}

func isTCP(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_TCP)
	return err == nil
}

func isRelayed(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// listener is the part of a swarm that listening needs.
type listener interface {
	AddListenAddr(a ma.Multiaddr) error
	ListenAddresses() []ma.Multiaddr
}

// listen opens every address of the specs, or none: on error the caller closes
// the host.
func listen(l listener, specs []listenSpec, tcp, quic bool) error {
	for _, spec := range specs {
		if spec.addr != nil {
			if err := l.AddListenAddr(spec.addr); err != nil {
				return &ListenError{Addr: spec.text, Cause: err}
			}
			continue
		}
		if err := listenPort(l, spec, tcp, quic); err != nil {
			return err
		}
	}
	return nil
}

// openListeners opens what the configuration says.
func openListeners(h host.Host, cfg *Config) error {
	specs, err := cfg.listenSpecs()
	if err != nil {
		return err
	}
	l, ok := h.Network().(listener)
	if !ok {
		return errors.New("this libp2p network cannot listen")
	}
	return listen(l, specs, !cfg.NoTCP, !cfg.NoQUIC)
}

// addrsOf are the addresses at which a host listens, if it is our own, and those
// that it tells to others; circuit addresses with its ID, without which nobody can
// be reached there.
func addrsOf(h host.Host, own bool) (out []string) {
	var old []ma.Multiaddr // on which it has listened during the last minute
	if own {
		old, _ = h.Network().InterfaceListenAddresses() // none if it cannot tell
		for _, a := range listeningAt(h) {
			if !isRelayed(a) { // a transport that waits for circuits is no address
				out = append(out, a.String())
			}
		}
	}
	for _, a := range h.Addrs() {
		s := a.String()
		if slices.ContainsFunc(old, a.Equal) {
			continue // listed above, or gone
		}
		if isRelayed(a) {
			s += "/p2p/" + h.ID().String()
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// listeningAt are the addresses at which a host of our own listens, with those that
// the machine has now: libp2p looks for new ones only once a minute.
func listeningAt(h host.Host) []ma.Multiaddr {
	listening := h.Network().ListenAddresses()
	machine, err := manet.InterfaceMultiaddrs()
	if err != nil {
		return listening
	}
	own, err := manet.ResolveUnspecifiedAddresses(listening, machine)
	if err != nil {
		return listening // none is unspecified, or none of the machine's fits
	}
	return own
}

// freePortTries is how often another free port is looked for that is free for
// TCP and UDP and on every host of the spec.
const freePortTries = 8

// listenPort opens one port for TCP and QUIC on every host of the spec.
func listenPort(l listener, spec listenSpec, tcp, quic bool) error {
	port, opened := spec.port, 0
	open := func(scheme string, ip netip.Addr) error {
		addr, err := multiaddrOf(scheme, ip, port)
		if err != nil {
			return err
		}
		if err := l.AddListenAddr(addr); err != nil {
			if spec.wildcard && noSuchAddress(err) {
				return nil // no IPv6 on this machine, for example
			}
			return &ListenError{Addr: spec.text, Scheme: scheme, Host: ip.String(), Port: port, Cause: err}
		}
		opened++
		if port == 0 {
			port = portOf(l.ListenAddresses(), scheme, ip)
		}
		return nil
	}
	var schemes []string
	if tcp {
		schemes = append(schemes, schemeTCP)
	}
	if quic {
		schemes = append(schemes, schemeQUIC)
	}
	for _, ip := range spec.hosts {
		for _, scheme := range schemes {
			err := open(scheme, ip)
			for tries := 0; spec.port == 0 && errors.Is(err, syscall.EADDRINUSE) && tries < freePortTries; tries++ {
				port = 0 // taken for this transport or host: then any other
				err = open(scheme, ip)
			}
			if err != nil {
				return err
			}
		}
	}
	if opened == 0 {
		return &ListenError{Addr: spec.text, Port: port, Cause: errors.New("this machine has none of its addresses")}
	}
	return nil
}

func noSuchAddress(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// portOf is the port that was given to the newest listener on ip.
func portOf(addrs []ma.Multiaddr, scheme string, ip netip.Addr) uint16 {
	for _, a := range addrs {
		s, h, err := hostOf(a)
		if err != nil || s != scheme || h != ip.Unmap() {
			continue
		}
		return portIn(a)
	}
	return 0
}

// ListenError: an address could not be listened on.
type ListenError struct {
	Addr   string // as configured
	Scheme string // tcp or quic; empty for a multiaddr
	Host   string
	Port   uint16
	Cause  error
}

func (e *ListenError) Error() string {
	what := e.Addr
	if e.Port != 0 {
		proto := "TCP"
		if e.Scheme == schemeQUIC {
			proto = "UDP"
		}
		what = fmt.Sprintf("%s port %d", proto, e.Port)
		if e.Host != "" {
			what += " of " + e.Host
		}
	}
	switch {
	case errors.Is(e.Cause, syscall.EADDRINUSE):
		return fmt.Sprintf("cannot listen on %s: another program uses it: stop that program, or listen on another port (0 = any free one)", what)
	case errors.Is(e.Cause, syscall.EACCES):
		return fmt.Sprintf("cannot listen on %s: this user may not: use a port of 1024 or above", what)
	case errors.Is(e.Cause, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("cannot listen on %s: this machine does not have that address", what)
	case errors.Is(e.Cause, swarm.ErrNoTransport):
		return fmt.Sprintf("cannot listen on %s: its transport is switched off or not known: use a TCP or QUIC address", what)
	}
	return fmt.Sprintf("cannot listen on %s: %v", what, e.Cause)
}
func (e *ListenError) Unwrap() error { return e.Cause }

// readableTarget is readable for an address as parseTarget reads it.
func readableTarget(s string) string {
	t, err := parseTarget(s)
	if err != nil {
		return s
	}
	return t.readable()
}

// readable is the target as people write it.
func (t *target) readable() string {
	if t.Addr != nil {
		return readable(t.Addr)
	}
	return t.Key
}

// readable gives an address as people write it, host:port with its transport.
func readable(a ma.Multiaddr) string {
	if key, ok := multiaddrKey(a); ok && !isRelayed(a) {
		return strings.TrimSuffix(key, "/")
	}
	return a.String()
}
