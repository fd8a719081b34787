package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
)

const (
	// lastPart/lastWhole of the time for an answer is kept for the second
	// transport of an endpoint, QUIC.
	lastPart, lastWhole = 3, 8
	// afterRefusal is how long QUIC may take where TCP was refused: the machine is
	// there and near in time, and a dead UDP port answers nothing, ever.
	afterRefusal = time.Second
	// maxResolved bounds the addresses of one DNS name that are dialled.
	maxResolved = 8
)

// resolver turns a host into the multiaddrs of its addresses now.
type resolver func(ctx context.Context, scheme, host string, port uint16) ([]ma.Multiaddr, error)

// resolveHost asks the system; an IP address resolves to itself, and an
// unspecified one to loopback.
func resolveHost(ctx context.Context, scheme, host string, port uint16) ([]ma.Multiaddr, error) {
	ips := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() {
			ip = map[bool]netip.Addr{true: netip.IPv6Loopback(), false: netip.MustParseAddr("127.0.0.1")}[ip.Is6()]
		}
		ips = append(ips, ip)
	} else {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, fmt.Errorf("the name %s cannot be resolved: %w", host, err)
		}
		ips = append(ips, found[:min(len(found), maxResolved)]...)
	}
	var addrs []ma.Multiaddr
	for _, ip := range ips {
		a, err := multiaddrOf(scheme, ip, port)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// connector makes libp2p connections to targets.
type connector struct {
	host    host.Host
	resolve resolver
	// timeout is for what follows once a peer has answered.
	timeout time.Duration
}

// DialError: an endpoint could not be connected to.
type DialError struct {
	Endpoint string
	Cause    error
}

func (e *DialError) Error() string {
	at := endpointText(e.Endpoint)
	mismatch, isOther := errors.AsType[sec.ErrPeerIDMismatch](e.Cause)
	name, isName := errors.AsType[*net.DNSError](e.Cause)
	switch {
	case isName:
		return fmt.Sprintf("cannot connect to %s: the name %s cannot be resolved (%s): correct it, or check this machine's name service", at, name.Name, name.Err)
	case isA[*relayError](e.Cause):
		return fmt.Sprintf("cannot connect to %s: its relay: %v", at, e.Cause)
	case relayAnswer(e.Cause) != "":
		return fmt.Sprintf("no connection to %s: %s", at, relayAnswer(e.Cause))
	case errors.Is(e.Cause, ErrSelf):
		return fmt.Sprintf("%s is this node itself, or one that runs from a copy of its data directory and so has its identity: name another node's address", at)
	case isOther:
		return fmt.Sprintf("%s is peer %s, not %s: correct the address, or the peer ID in it", at, mismatch.Actual, mismatch.Expected)
	case isRefused(e.Cause):
		return fmt.Sprintf("nothing listens at %s (connection refused): start the node there, or correct the port", at)
	case errors.Is(e.Cause, syscall.EHOSTUNREACH), errors.Is(e.Cause, syscall.ENETUNREACH), cannotSend(e.Cause):
		return fmt.Sprintf("%s cannot be reached from here (no route): check the address and the network", at)
	case isTimeout(e.Cause):
		return fmt.Sprintf("%s does not answer: check the address, and that no firewall is in between", at)
	case handshakeFailed(e.Cause) && wasCut(e.Cause):
		return fmt.Sprintf("%s takes the connection and closes it at once: what answers there is no vix-node, or one that takes no more peers: check the address", at)
	case handshakeFailed(e.Cause):
		return fmt.Sprintf("what answers at %s is no vix-node: correct the address, or stop the program that has this port", at)
	}
	return fmt.Sprintf("cannot connect to %s: %v", at, innermost(e.Cause))
}
func (e *DialError) Unwrap() error { return e.Cause }

// handshakeFailed tells that a TCP connection was there and the handshake on it
// failed. libp2p has no error of its own for that, so that it is what remains
// when all others are excluded.
func handshakeFailed(err error) bool {
	var dial *swarm.DialError
	if !errors.As(err, &dial) || len(dial.DialErrors) == 0 {
		return false
	}
	last := &dial.DialErrors[len(dial.DialErrors)-1]
	op, isOp := errors.AsType[*net.OpError](last.Cause)
	return isTCP(last.Address) && !isRelayed(last.Address) && !(isOp && op.Op == "dial") && !slices.ContainsFunc([]error{
		swarm.ErrNoTransport, swarm.ErrDialToSelf, swarm.ErrGaterDisallowedConnection, network.ErrResourceLimitExceeded,
	}, func(e error) bool { return errors.Is(last.Cause, e) })
}

// cannotSend tells that this machine refused to send the packets of a QUIC dial,
// for want of a route or a network. quic-go keeps no more of that than a text.
func cannotSend(err error) bool {
	failed, ok := errors.AsType[*quic.TransportError](err)
	return ok && !failed.Remote && failed.ErrorCode == quic.InternalError
}

// wasCut tells that a connection ended without a word of the other side.
func wasCut(err error) bool {
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE}, func(e error) bool {
		return errors.Is(err, e)
	})
}

// brokenError says in one reason why a connection broke, where libp2p's layers
// each say something.
type brokenError struct {
	text  string
	cause error
}

func (e *brokenError) Error() string { return e.text }
func (e *brokenError) Unwrap() error { return e.cause }

func broken(cause error) error {
	switch {
	case cause == nil:
		return nil
	case wasCut(cause):
		return &brokenError{"the peer is gone without a goodbye", cause}
	case errors.Is(cause, network.ErrReset):
		return &brokenError{"it was cut", cause}
	}
	return cause
}

// innermost finds the one cause in libp2p's list of attempts, which prints on
// several lines.
func innermost(err error) error {
	var dial *swarm.DialError
	if errors.As(err, &dial) && len(dial.DialErrors) > 0 {
		return dial.DialErrors[len(dial.DialErrors)-1].Cause
	}
	return err
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// connect returns an open connection to the target. The peer ID is proven: the
// one that the target names, or whoever answers. hint is who answered there last.
// Nobody is waited for beyond by; who has answered gets c.timeout from then on.
func (c *connector) connect(ctx context.Context, t target, hint peer.ID, by time.Time) (conn network.Conn, err error) {
	err = c.each(ctx, t, by, func(addrs []ma.Multiaddr, by time.Time) (err error) {
		conn, err = c.reach(ctx, t, addrs, hint, by)
		return err
	})
	return conn, err
}

// answers asks the target who is there, over a connection of its own.
func (c *connector) answers(ctx context.Context, t target, by time.Time) (id peer.ID, err error) {
	err = c.each(ctx, t, by, func(addrs []ma.Multiaddr, by time.Time) (err error) {
		id, err = c.whoIs(ctx, addrs, by)
		return err
	})
	return id, err
}

// each calls try with the addresses of each transport of the target until one
// succeeds, and says which error tells best why none did.
func (c *connector) each(ctx context.Context, t target, by time.Time, try func(addrs []ma.Multiaddr, by time.Time) error) error {
	if t.Addr != nil {
		return wrapDial(t.Key, try([]ma.Multiaddr{t.Addr}, by))
	}
	schemes := c.spoken(t.Schemes)
	if len(schemes) == 0 {
		return wrapDial(t.Key, swarm.ErrNoTransport)
	}
	var reason error
	for i, scheme := range schemes {
		until := by
		if i < len(schemes)-1 {
			until = by.Add(-time.Until(by) * lastPart / lastWhole)
		} else if soon := time.Now().Add(afterRefusal); isRefused(reason) && soon.Before(by) {
			until = soon
		}
		addrs, err := c.resolveBy(ctx, scheme, t, until)
		if err == nil {
			err = try(addrs, until)
		}
		if err == nil {
			return nil
		}
		if reason == nil || isRefused(err) {
			reason = err // TCP, the first, tells best why nobody is there
		}
		if ctx.Err() != nil || errors.Is(err, ErrSelf) || isA[sec.ErrPeerIDMismatch](err) || isA[*net.DNSError](err) {
			break
		}
	}
	return wrapDial(t.Key, reason)
}

// spoken are the transports that the host has.
func (c *connector) spoken(schemes []string) []string {
	sw, ok := c.host.Network().(interface {
		TransportForDialing(a ma.Multiaddr) transport.Transport
	})
	if !ok {
		return schemes
	}
	return slices.DeleteFunc(slices.Clone(schemes), func(scheme string) bool {
		a, err := multiaddrOf(scheme, netip.IPv6Loopback(), 1)
		return err != nil || sw.TransportForDialing(a) == nil
	})
}

func (c *connector) resolveBy(ctx context.Context, scheme string, t target, by time.Time) ([]ma.Multiaddr, error) {
	ctx, cancel := context.WithDeadline(ctx, by)
	defer cancel()
	return c.resolve(ctx, scheme, t.Host, t.Port)
}

func wrapDial(endpoint string, err error) error {
	if err == nil {
		return nil
	}
	return &DialError{Endpoint: endpoint, Cause: err}
}

// reach connects at exactly these addresses of one endpoint. A peer that is not
// named is learned: a dial that expects an ID that nobody has fails with the ID
// of who is there, and a second dial proves that.
func (c *connector) reach(ctx context.Context, t target, addrs []ma.Multiaddr, hint peer.ID, by time.Time) (network.Conn, error) {
	if slices.ContainsFunc(addrs, c.isOwn) {
		return nil, ErrSelf
	}
	if t.relayed() {
		if err := t.check(hint); err != nil {
			return nil, err
		}
		if err := c.reachRelay(ctx, t.Addr, by); err != nil {
			return nil, err
		}
	}
	id := cmp.Or(t.ID, hint)
	if id == "" {
		actual, err := c.whoIs(ctx, addrs, by)
		if err != nil {
			return nil, err
		}
		id, by = actual, time.Now().Add(c.timeout)
	}
	conn, err := c.dial(ctx, id, addrs, by)
	if other, ok := errors.AsType[sec.ErrPeerIDMismatch](err); ok && t.ID == "" && other.Actual != id {
		// Somebody else answers there now.
		conn, err = c.dial(ctx, other.Actual, addrs, time.Now().Add(c.timeout))
	}
	return conn, err
}

// whoIs asks an endpoint for the ID of the peer that answers there. It is a
// hint until a dial that expects it succeeds.
func (c *connector) whoIs(ctx context.Context, addrs []ma.Multiaddr, by time.Time) (peer.ID, error) {
	nobody, err := randomPeerID()
	if err != nil {
		return "", err
	}
	defer func() {
		c.host.Peerstore().ClearAddrs(nobody)
		c.host.Peerstore().RemovePeer(nobody)
	}()
	_, err = c.dial(ctx, nobody, addrs, by)
	if who, ok := errors.AsType[sec.ErrPeerIDMismatch](err); ok {
		return who.Actual, nil
	}
	if err == nil {
		err = errors.New("the peer claims an identity that nobody has")
	}
	return "", err
}

// dial connects to a peer at these addresses alone, unless there is a connection
// already. The others that libp2p remembers of the peer would be dialled with
// them: one that is dead says nothing, and the whole deadline would go by even
// where these are refused.
func (c *connector) dial(ctx context.Context, id peer.ID, addrs []ma.Multiaddr, by time.Time) (network.Conn, error) {
	ctx, cancel := context.WithDeadline(ctx, by)
	defer cancel()
	if id == c.host.ID() {
		return nil, ErrSelf
	}
	nw := c.host.Network()
	// The guard decides when to dial; libp2p's own backoff, up to 5 minutes,
	// would only hide that the peer is back.
	if sw, ok := nw.(interface{ Backoff() *swarm.DialBackoff }); ok {
		sw.Backoff().Clear(id)
	}
	for {
		have := pickConn(nw.ConnsToPeer(id))
		conn, err := c.dialOnce(ctx, id, addrs, have)
		if conn != nil || err != nil {
			return conn, err
		}
		if have == nil {
			return nil, errClosedAtOnce
		}
		// The connection that was there has just ended, as when its peer was killed:
		// that says nothing of who answers now.
	}
}

// dialOnce is one attempt of dial beside the connection have, nil: none. Neither a
// connection nor an error: what there was has ended.
func (c *connector) dialOnce(ctx context.Context, id peer.ID, addrs []ma.Multiaddr, have network.Conn) (network.Conn, error) {
	nw, store := c.host.Network(), c.host.Peerstore()
	if have != nil && relayed(have) && !slices.ContainsFunc(addrs, isRelayed) {
		ctx = network.WithForceDirectDial(ctx, "there is a relayed connection already")
	}
	if nw.Connectedness(id) != network.Connected {
		others := store.Addrs(id)
		store.ClearAddrs(id)
		defer store.AddAddrs(id, others, peerstore.TempAddrTTL)
	}
	if err := c.host.Connect(ctx, peer.AddrInfo{ID: id, Addrs: addrs}); err != nil {
		return nil, err
	}
	return pickConn(nw.ConnsToPeer(id)), nil
}

// pickConn prefers a direct connection, and one that this node dialled.
func pickConn(conns []network.Conn) (best network.Conn) {
	rank := func(c network.Conn) int {
		r := 0
		if !relayed(c) {
			r += 2
		}
		if c.Stat().Direction == network.DirOutbound {
			r++
		}
		return r
	}
	for _, c := range conns {
		if !c.IsClosed() && (best == nil || rank(c) > rank(best)) {
			best = c
		}
	}
	return best
}

// isOwn tells an address on which this node itself listens.
func (c *connector) isOwn(a ma.Multiaddr) bool {
	key, ok := multiaddrKey(a)
	if !ok {
		return false
	}
	return slices.ContainsFunc(listeningAt(c.host), func(o ma.Multiaddr) bool {
		k, ok := multiaddrKey(o)
		return ok && k == key
	})
}

func randomPeerID() (peer.ID, error) {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return "", err
	}
	pub, err := crypto.UnmarshalEd25519PublicKey(key[:])
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(pub)
}
