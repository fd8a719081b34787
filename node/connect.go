package node

import (
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
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// QUIC comes after TCP and gets quicPart/quicWhole of its time: a dead UDP
	// port answers nothing, so a dial to one waits for its whole deadline.
	quicPart, quicWhole = 6, 10
	// probePart is the part of an attempt's time that is kept to ask why a peer
	// that is known did not answer.
	probePart = 8
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
	var mismatch sec.ErrPeerIDMismatch
	switch {
	case errors.Is(e.Cause, ErrSelf):
		return fmt.Sprintf("%s answers with this node's own identity: it is this node itself, or runs from a copy of its data directory: name another node's address", e.Endpoint)
	case errors.As(e.Cause, &mismatch):
		return fmt.Sprintf("%s is peer %s, not %s: correct the peer ID of the address", e.Endpoint, mismatch.Actual, mismatch.Expected)
	case errors.Is(e.Cause, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens at %s (connection refused): start the node there, or correct the port", e.Endpoint)
	case errors.Is(e.Cause, syscall.EHOSTUNREACH), errors.Is(e.Cause, syscall.ENETUNREACH):
		return fmt.Sprintf("%s cannot be reached from here (no route): check the address and the network", e.Endpoint)
	case isTimeout(e.Cause):
		return fmt.Sprintf("%s does not answer: check the address, and that no firewall is in between", e.Endpoint)
	case handshakeFailed(e.Cause) && wasCut(e.Cause):
		return fmt.Sprintf("%s takes the connection and closes it at once: what answers there is no vix-node, or one that takes no more peers: check the address", e.Endpoint)
	case handshakeFailed(e.Cause):
		return fmt.Sprintf("what answers at %s is no vix-node: correct the address, or stop the program that has this port", e.Endpoint)
	}
	return fmt.Sprintf("cannot connect to %s: %v", e.Endpoint, innermost(e.Cause))
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
	return isTCP(last.Address) && !(isOp && op.Op == "dial") && !slices.ContainsFunc([]error{
		swarm.ErrNoTransport, swarm.ErrDialToSelf, swarm.ErrGaterDisallowedConnection, network.ErrResourceLimitExceeded,
	}, func(e error) bool { return errors.Is(last.Cause, e) })
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

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// connect returns an open connection to the target. The peer ID is proven: the
// one that the target names, or whoever answers. hint is who answered there last,
// patience how long to wait for an answer.
func (c *connector) connect(ctx context.Context, t target, hint peer.ID, patience time.Duration) (conn network.Conn, err error) {
	err = c.each(ctx, t, patience, func(addrs []ma.Multiaddr, patience time.Duration) (err error) {
		conn, err = c.reach(ctx, t, addrs, hint, patience)
		return err
	})
	return conn, err
}

// answers asks the target who is there, over a connection of its own.
func (c *connector) answers(ctx context.Context, t target, patience time.Duration) (id peer.ID, err error) {
	err = c.each(ctx, t, patience, func(addrs []ma.Multiaddr, patience time.Duration) (err error) {
		id, err = c.whoIs(ctx, addrs, patience)
		return err
	})
	return id, err
}

// each calls try with the addresses of each transport of the target until one
// succeeds.
func (c *connector) each(ctx context.Context, t target, patience time.Duration, try func(addrs []ma.Multiaddr, patience time.Duration) error) error {
	if t.Addr != nil {
		return wrapDial(t.Key, try([]ma.Multiaddr{t.Addr}, patience))
	}
	var first error
	for i, scheme := range t.Schemes {
		addrs, err := c.resolve(ctx, scheme, t.Host, t.Port)
		if err == nil && !c.speaks(addrs[0]) {
			continue
		}
		if err == nil {
			if i > 0 {
				patience = patience * quicPart / quicWhole
			}
			if err = try(addrs, patience); err == nil {
				return nil
			}
		}
		if first == nil {
			first = err // TCP tells best why nobody is there
		}
		if ctx.Err() != nil || errors.Is(err, ErrSelf) || errors.As(err, new(sec.ErrPeerIDMismatch)) {
			break
		}
	}
	if first == nil {
		first = swarm.ErrNoTransport
	}
	return wrapDial(t.Key, first)
}

func wrapDial(endpoint string, err error) error {
	if err == nil {
		return nil
	}
	return &DialError{Endpoint: endpoint, Cause: err}
}

// speaks tells whether the host has a transport for the address.
func (c *connector) speaks(a ma.Multiaddr) bool {
	sw, ok := c.host.Network().(interface {
		TransportForDialing(a ma.Multiaddr) transport.Transport
	})
	return !ok || sw.TransportForDialing(a) != nil
}

// reach connects at exactly these addresses of one endpoint. A peer that is not
// named is learned: a dial that expects an ID that nobody has fails with the ID
// of who is there, and a second dial proves that.
func (c *connector) reach(ctx context.Context, t target, addrs []ma.Multiaddr, hint peer.ID, patience time.Duration) (network.Conn, error) {
	if slices.ContainsFunc(addrs, c.isOwn) {
		return nil, ErrSelf
	}
	id := t.ID
	if id == "" {
		id = hint
	}
	if id == "" {
		actual, err := c.whoIs(ctx, addrs, patience)
		if err != nil {
			return nil, err
		}
		id, patience = actual, c.timeout
	}
	probe := patience / probePart
	conn, err := c.dial(ctx, id, addrs, patience-probe)
	if err != nil && isTimeout(err) && isTCP(addrs[0]) {
		// libp2p has dialled every address that it knows of this peer, QUIC ones
		// too, which say nothing. These alone may say more.
		if _, why := c.whoIs(ctx, addrs, probe); errors.Is(why, syscall.ECONNREFUSED) {
			err = why
		}
	}
	var mismatch sec.ErrPeerIDMismatch
	if errors.As(err, &mismatch) && t.ID == "" && mismatch.Actual != id {
		// Somebody else answers there now.
		conn, err = c.dial(ctx, mismatch.Actual, addrs, c.timeout)
	}
	return conn, err
}

// whoIs asks an endpoint for the ID of the peer that answers there. It is a
// hint until a dial that expects it succeeds.
func (c *connector) whoIs(ctx context.Context, addrs []ma.Multiaddr, patience time.Duration) (peer.ID, error) {
	nobody, err := randomPeerID()
	if err != nil {
		return "", err
	}
	defer func() {
		c.host.Peerstore().ClearAddrs(nobody)
		c.host.Peerstore().RemovePeer(nobody)
	}()
	_, err = c.dial(ctx, nobody, addrs, patience)
	var mismatch sec.ErrPeerIDMismatch
	if errors.As(err, &mismatch) {
		return mismatch.Actual, nil
	}
	if err == nil {
		err = errors.New("the peer claims an identity that nobody has")
	}
	return "", err
}

func (c *connector) dial(ctx context.Context, id peer.ID, addrs []ma.Multiaddr, patience time.Duration) (network.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if id == c.host.ID() {
		return nil, ErrSelf
	}
	// The guard decides when to dial; libp2p's own backoff, up to 5 minutes,
	// would only hide that the peer is back.
	if sw, ok := c.host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
		sw.Backoff().Clear(id)
	}
	if err := c.host.Connect(ctx, peer.AddrInfo{ID: id, Addrs: addrs}); err != nil {
		return nil, err
	}
	conn := pickConn(c.host.Network().ConnsToPeer(id))
	if conn == nil {
		return nil, errors.New("the connection was closed at once: the peer does not accept it")
	}
	return conn, nil
}

// pickConn prefers a direct connection, and one that this node dialled.
func pickConn(conns []network.Conn) (best network.Conn) {
	rank := func(c network.Conn) int {
		r := 0
		if !c.Stat().Limited {
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
	own, err := c.host.Network().InterfaceListenAddresses()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(own, func(o ma.Multiaddr) bool {
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
