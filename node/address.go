package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Transports of an address.
const (
	schemeTCP  = "tcp"
	schemeQUIC = "quic"
	// schemeRelay is only part of the guard's names of endpoints.
	schemeRelay = "relay"
)

// target is an address that someone wants a session with.
type target struct {
	// Key is scheme://host:port: what the connection guard counts by. Two ways
	// to write one endpoint have one key.
	Key string
	// ID is the peer expected there; empty: whoever answers.
	ID peer.ID
	// Addr is the multiaddr as given; nil for the host:port forms.
	Addr ma.Multiaddr
	// Host, Port and Schemes, in the order to try, of the host:port forms.
	Host    string
	Port    uint16
	Schemes []string
}

// String is the target as parseTarget reads it, without the peer.
func (t *target) String() string {
	switch {
	case t.Addr != nil:
		return t.Addr.String()
	case len(t.Schemes) > 1:
		return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
	}
	return t.Key
}

// parseTarget reads an address to connect to: host:port, tcp://host:port,
// quic://host:port, or a multiaddr with or without /p2p/ID.
func parseTarget(s string) (target, error) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "/") {
		return parseMultiaddrTarget(s)
	}
	scheme, rest, found := strings.Cut(s, "://")
	t := target{Schemes: []string{schemeTCP, schemeQUIC}}
	if found {
		switch scheme {
		case schemeTCP, schemeQUIC:
			t.Schemes = []string{scheme}
		default:
			return t, fmt.Errorf("address %q: the scheme %q is not known: use tcp://host:port, quic://host:port, host:port or a multiaddr", s, scheme)
		}
		s = rest
	}
	host, port, err := splitHostPort(s)
	if err != nil {
		return t, err
	}
	if host == "" || port == 0 {
		return t, fmt.Errorf("address %q names no %s to connect to: use host:port, for example 127.0.0.1:9001", s, map[bool]string{true: "host", false: "port"}[host == ""])
	}
	if !isHost(host) {
		return t, fmt.Errorf("address %q: %q is neither a host name nor an IP address: use host:port, for example 127.0.0.1:9001", s, host)
	}
	t.Host, t.Port = host, port
	t.Key = endpointKey(t.Schemes[0], host, port)
	return t, nil
}

func parseMultiaddrTarget(s string) (target, error) {
	bad := func(why string) (target, error) {
		return target{}, fmt.Errorf("address %q: %s: use host:port or a multiaddr such as /ip4/127.0.0.1/tcp/9001", s, why)
	}
	addr, err := ma.NewMultiaddr(s)
	if err != nil {
		return bad(err.Error())
	}
	transport, id := peer.SplitAddr(addr)
	if len(transport) == 0 {
		return bad("it names a peer and no address")
	}
	key, why := endpointOf(transport)
	if why != "" {
		return bad(why)
	}
	return target{Key: key, Addr: transport}.of(id), nil
}

// of is the target with the peer that is expected there. Of peers behind one relay
// each has its own endpoint.
func (t target) of(id peer.ID) target {
	if t.ID == "" && id != "" && t.relayed() {
		t.Key += "/p2p/" + id.String()
	}
	t.ID = id
	return t
}

// errNoPeer: an address through a relay that does not name the peer behind it.
var errNoPeer = errors.New("an address through a relay names the peer: use ADDRESS/p2p/RELAY/p2p-circuit/p2p/PEER, as `status` of that peer shows it")

// check tells what a target lacks to be dialled; hint is who answered there last.
func (t *target) check(hint peer.ID) error {
	if t.relayed() && t.ID == "" && hint == "" {
		return errNoPeer
	}
	return nil
}

// splitCircuit splits an address that ends in /p2p-circuit into that of the relay
// and the relay's ID; false: it is none, or one through several relays.
func splitCircuit(addr ma.Multiaddr) (transport ma.Multiaddr, relay peer.ID, ok bool) {
	if len(addr) == 0 || addr[len(addr)-1].Protocol().Code != ma.P_CIRCUIT {
		return nil, "", false
	}
	transport, relay = peer.SplitAddr(addr[:len(addr)-1])
	return transport, relay, len(transport) > 0 && !isRelayed(transport)
}

// multiaddrKey is the scheme://host:port of a multiaddr that this node can dial.
func multiaddrKey(addr ma.Multiaddr) (key string, ok bool) {
	key, why := endpointOf(addr)
	return key, why == ""
}

// endpointOf is the scheme://host:port of a TCP or QUIC multiaddr without /p2p, or
// why this node cannot dial it.
func endpointOf(addr ma.Multiaddr) (key, why string) {
	if isRelayed(addr) {
		return relayedEndpoint(addr)
	}
	scheme, host, port, why := partsOf(addr)
	if why != "" {
		return "", why
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", "it names no port to connect to"
	}
	return endpointKey(scheme, host, uint16(n)), ""
}

// partsOf takes a TCP or QUIC multiaddr without /p2p apart, or tells why it is none.
func partsOf(addr ma.Multiaddr) (scheme, host, port, why string) {
	bad := func(format string, args ...any) (scheme, host, port, why string) {
		return "", "", "", fmt.Sprintf(format, args...)
	}
	var shape []int
	for _, c := range addr {
		code := c.Protocol().Code
		switch code {
		case ma.P_IP6ZONE:
			if !isZone(c.Value()) {
				return bad("%q is not the name of an interface", c.Value())
			}
			continue
		case ma.P_IP4, ma.P_IP6:
			host = c.Value()
		case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			host, code = c.Value(), ma.P_IP4 // has the place of an IP address
			if !isHost(host) {
				return bad("%q is not a host name", host)
			}
		case ma.P_TCP, ma.P_UDP:
			port = c.Value()
		case ma.P_QUIC_V1:
		case ma.P_QUIC:
			return bad("/quic is the draft of QUIC, which nobody speaks any more, not /quic-v1")
		case ma.P_DNSADDR:
			return bad("/dnsaddr stands for a list of addresses elsewhere, not for one")
		case ma.P_WS, ma.P_WSS, ma.P_WEBTRANSPORT, ma.P_WEBRTC, ma.P_WEBRTC_DIRECT:
			return bad("this node does not speak the transport /%s, only TCP and QUIC", c.Protocol().Name)
		default:
			return bad("/%s has no place in an address of a TCP or QUIC port", c.Protocol().Name)
		}
		if code == ma.P_IP6 {
			code = ma.P_IP4
		}
		shape = append(shape, code)
	}
	switch {
	case slices.Equal(shape, []int{ma.P_IP4, ma.P_TCP}):
		scheme = schemeTCP
	case slices.Equal(shape, []int{ma.P_IP4, ma.P_UDP, ma.P_QUIC_V1}):
		scheme = schemeQUIC
	case slices.Equal(shape, []int{ma.P_IP4, ma.P_UDP}):
		return bad("it has a UDP port and no /quic-v1 after it")
	default:
		return bad("it is neither a TCP nor a QUIC address")
	}
	return scheme, host, port, ""
}

// relayedEndpoint is the name of an address that leads through a relay. The
// relay's own endpoint does not tell the peers behind it apart, the whole address
// does.
func relayedEndpoint(addr ma.Multiaddr) (key, why string) {
	relay, rest := ma.SplitFunc(addr, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
	at, id := peer.SplitAddr(relay)
	if len(rest) != 1 || id == "" {
		return "", "a way through a relay is the relay's address, /p2p/ and the relay's ID, and /p2p-circuit"
	}
	if _, why := endpointOf(at); why != "" {
		return "", "of the relay: " + why
	}
	return schemeRelay + "://" + addr.String(), ""
}

// endpointKey is the guard's name of an endpoint.
func endpointKey(scheme, host string, port uint16) string {
	return scheme + "://" + net.JoinHostPort(strings.ToLower(host), strconv.Itoa(int(port)))
}

// splitHostPort reads host:port; the port is a number.
func splitHostPort(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("address %q is not host:port (an IPv6 host goes in brackets), for example 127.0.0.1:9001", s)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: %q is not a port number from 0 to 65535", s, p)
	}
	return host, uint16(n), nil
}

// isHost tells whether text is an IP address or can be a host name. Names of local
// networks need not be ASCII (RFC 6762, appendix F).
func isHost(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return isZone(ip.Zone())
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || !unicode.In(r, unicode.L, unicode.M, unicode.N) && !strings.ContainsRune("-_.", r)
	})
}

// isZone tells whether text can be the name of an interface.
func isZone(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || r == '/' || unicode.IsSpace(r) || !unicode.IsGraphic(r)
	})
}

// multiaddrOf is the multiaddr of an IP address and port.
func multiaddrOf(scheme string, ip netip.Addr, port uint16) (ma.Multiaddr, error) {
	family := "ip4"
	if ip.Unmap().Is6() {
		family = "ip6"
	}
	zone := ""
	if z := ip.Zone(); z != "" && family == "ip6" {
		zone = "/ip6zone/" + z
	}
	host := zone + "/" + family + "/" + ip.Unmap().WithZone("").String()
	if scheme == schemeQUIC {
		return ma.NewMultiaddr(fmt.Sprintf("%s/udp/%d/quic-v1", host, port))
	}
	return ma.NewMultiaddr(fmt.Sprintf("%s/tcp/%d", host, port))
}

// listenSpec is one --listen value.
type listenSpec struct {
	text string
	// addr is set for a multiaddr; else hosts and port for TCP and QUIC of one
	// port, the same for both if it is 0 and that can be had.
	addr     ma.Multiaddr
	hosts    []netip.Addr
	port     uint16
	wildcard bool // of the port form: hosts that are not there are left out
}

// parseListen reads a port, host:port or multiaddr to listen on. A port alone
// means loopback, or every interface in an open node (design 9.7).
func parseListen(s string, open bool) (listenSpec, error) {
	s = strings.TrimSpace(s)
	spec := listenSpec{text: s}
	if strings.HasPrefix(s, "/") {
		addr, err := ma.NewMultiaddr(s)
		if err != nil {
			return spec, fmt.Errorf("cannot listen on %q: %w", s, err)
		}
		if _, _, _, why := partsOf(addr); why != "" {
			return spec, fmt.Errorf("cannot listen on %s: %s: use a port, host:port or a multiaddr such as /ip4/127.0.0.1/tcp/9001", s, why)
		}
		spec.addr = addr
		return spec, spec.check(open)
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		if n > 65535 {
			return spec, fmt.Errorf("cannot listen on port %d: a port is a number from 0 (any free port) to 65535", n)
		}
		spec.port, spec.wildcard = uint16(n), true
		spec.hosts = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
		if open {
			spec.hosts = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
		}
		return spec, nil
	}
	host, port, err := splitHostPort(s)
	if err != nil {
		return spec, fmt.Errorf("cannot listen on %q: it is not a port, host:port or multiaddr", s)
	}
	spec.port = port
	switch host {
	case "":
		spec.wildcard = true
		spec.hosts = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	case "localhost":
		spec.wildcard = true
		spec.hosts = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	default:
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return spec, fmt.Errorf("cannot listen on %q: %q is not an IP address of this machine", s, host)
		}
		spec.hosts = []netip.Addr{ip}
	}
	return spec, spec.check(open)
}

// ErrNeedsOpen: an open network listens on loopback only, unless Config.Open.
var ErrNeedsOpen = errors.New("an open development network listens on loopback only, because anyone who reaches it can read and write: add --open to allow that, or listen on 127.0.0.1")

// check refuses what reaches beyond this machine unless the node is open.
func (l listenSpec) check(open bool) error {
	if open {
		return nil
	}
	if l.addr != nil {
		if _, host, err := hostOf(l.addr); err != nil || !host.IsLoopback() {
			return fmt.Errorf("cannot listen on %s: %w", l.text, ErrNeedsOpen)
		}
	}
	for _, h := range l.hosts {
		if !h.Unmap().IsLoopback() {
			return fmt.Errorf("cannot listen on %s: %w", l.text, ErrNeedsOpen)
		}
	}
	return nil
}

// clash is a port that both want at one address, by one transport; 0: there is none.
func (l *listenSpec) clash(o *listenSpec) uint16 {
	for _, a := range l.wants() {
		if a.port != 0 && slices.Contains(o.wants(), a) {
			return a.port
		}
	}
	return 0
}

// wanted is one address of a listenSpec.
type wanted struct {
	scheme string
	host   netip.Addr
	port   uint16
}

func (l *listenSpec) wants() (list []wanted) {
	if l.addr != nil {
		if scheme, host, err := hostOf(l.addr); err == nil {
			list = append(list, wanted{scheme, host, portIn(l.addr)})
		}
		return list
	}
	for _, h := range l.hosts {
		list = append(list, wanted{schemeTCP, h.Unmap(), l.port}, wanted{schemeQUIC, h.Unmap(), l.port})
	}
	return list
}

// hostOf is the IP address at the front of a multiaddr, and its transport.
func hostOf(addr ma.Multiaddr) (scheme string, host netip.Addr, err error) {
	for _, c := range addr {
		switch c.Protocol().Code {
		case ma.P_IP4, ma.P_IP6:
			if host, err = netip.ParseAddr(c.Value()); err != nil {
				return "", host, err
			}
		case ma.P_TCP:
			scheme = schemeTCP
		case ma.P_QUIC_V1:
			scheme = schemeQUIC
		}
	}
	if !host.IsValid() {
		return "", host, fmt.Errorf("%s has no IP address", addr)
	}
	return scheme, host.Unmap(), nil
}

// portIn is the TCP or UDP port of a multiaddr; 0: it has none.
func portIn(a ma.Multiaddr) uint16 {
	for _, c := range a {
		if code := c.Protocol().Code; code == ma.P_TCP || code == ma.P_UDP {
			if n, err := strconv.ParseUint(c.Value(), 10, 16); err == nil {
				return uint16(n)
			}
		}
	}
	return 0
}
