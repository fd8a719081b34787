package node

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/replication"
)

const (
	// lanRetry is after how long links that could not be used are tried again; a
	// change of the network comes sooner.
	lanRetry = 30 * time.Second

	// dnsaddr starts the texts of an announcement that are addresses, as in
	// libp2p's own use of mDNS.
	dnsaddr = "dnsaddr="
)

// lan finds members on the local links by multicast DNS (design 8): it says where
// this node listens and hears the others, without any server.
type lan struct {
	service string // of the network
	self    peer.ID
	every   time.Duration // between questions
	// listening are the addresses as they were bound: unspecified ones stand for
	// those of the link.
	listening func() []ma.Multiaddr
	connected func() []peer.ID
	links     func() ([]lanLink, error)
	open      func(announcement, lanEar) (io.Closer, error)
	now       func() time.Time
	log       *slog.Logger
	again     chan struct{} // capacity 1: the network has changed

	mu     sync.Mutex // guards below
	heard  *lanPeers
	near   []lanLink // that are used
	status LANStatus
	silent error // why nobody can be asked, although it is on
}

// LANStatus tells about discovery on the local links.
type LANStatus struct {
	On bool
	// Why tells why it is off, or works only partly; empty if there is nothing to say.
	Why     string
	Service string   // the name that is announced and asked for
	Links   []string // interfaces that are used
	// Peers were heard in the last 10 minutes, connected ones too; LastHeard is when
	// the last one was, zero: none.
	Peers     int
	LastHeard time.Time
}

func newLAN(network replication.NetworkID, self peer.ID, every time.Duration, log *slog.Logger) *lan {
	return &lan{
		service: lanService(network), self: self, every: every,
		links: lanLinks, open: openMDNS,
		log: log, again: make(chan struct{}, 1), heard: newLANPeers(every),
	}
}

// lanService is the service name of a network: 55 bits of a hash, so that nobody
// learns the network's ID or name from it. A name has at most 15 characters (RFC
// 6763 7.2). Two networks of one name would only refuse each other's handshakes.
func lanService(network replication.NetworkID) string {
	h := replication.HashParts("vix/lan/1", network[:])
	return "_vix-" + strings.ToLower(base32.StdEncoding.EncodeToString(h[:])[:11]) + "._udp"
}

// changed makes it start again with the links and addresses that there are now.
func (l *lan) changed() {
	select {
	case l.again <- struct{}{}:
	default:
	}
}

// run announces, asks and offers what it hears until ctx ends.
func (l *lan) run(ctx context.Context, offer func(found)) {
	for {
		service, err := l.start(offer)
		var retry <-chan time.Time
		if err != nil {
			l.tell(LANStatus{Why: err.Error()})
			retry = time.After(lanRetry)
		}
		select {
		case <-ctx.Done():
		case <-l.again:
		case <-retry:
		}
		if service != nil {
			if err := service.Close(); err != nil {
				l.log.Debug("closing LAN discovery", "err", err)
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

var (
	errLoopbackOnly = errors.New("this node listens on loopback only and has nothing to offer to the LAN: --open, or a network, lets it listen beyond")
	errNoLink       = errors.New("no network interface is up that leads to other machines; it starts when there is one")
)

// start opens the service on the links that there are. An error tells why it is
// off.
func (l *lan) start(offer func(found)) (io.Closer, error) {
	if !slices.ContainsFunc(l.listening(), reachesBeyond) {
		return nil, errLoopbackOnly
	}
	links, err := l.links()
	if err != nil {
		return nil, err
	}
	if len(links) == 0 {
		return nil, errNoLink
	}
	var name [8]byte
	_, _ = rand.Read(name[:]) // never fails
	a := announcement{
		service: l.service, instance: hex.EncodeToString(name[:]), port: l.port(),
		links: links, every: l.every,
	}
	a.texts, a.ips = l.text(links)
	l.mu.Lock()
	l.near, l.silent = links, nil
	l.mu.Unlock()
	st := LANStatus{On: true}
	if len(a.texts) == 0 {
		st.Why = "this node listens on no address of these interfaces: it finds others, and they do not find it"
	}
	for i := range links {
		st.Links = append(st.Links, links[i].Name)
	}
	service, err := l.open(a, lanEar{
		heard:  func(instance string, texts []string) { l.hear(instance, texts, offer) },
		failed: l.failed,
	})
	if err != nil {
		return nil, err
	}
	l.tell(st)
	return service, nil
}

// tell sets what status shows and logs what is new.
func (l *lan) tell(st LANStatus) {
	l.mu.Lock()
	before := l.status
	l.status = st
	l.mu.Unlock()
	switch {
	case st.On && !slices.Equal(before.Links, st.Links):
		l.log.Info("looking for members on the LAN", "service", l.service, "links", strings.Join(st.Links, ","), "every", l.every)
	case st.Why == errLoopbackOnly.Error():
		l.log.Debug("not looking for members on the LAN", "why", st.Why) // as it is by default
	case !st.On && (before.On || before.Why != st.Why):
		l.log.Info("not looking for members on the LAN", "why", st.Why)
	}
}

// failed hears from the service why nobody can be asked, or with nil that it works
// again.
func (l *lan) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = err
}

// snapshot is what status shows.
func (l *lan) snapshot() LANStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.status
	st.Links, st.Service = slices.Clone(st.Links), l.service
	if st.On && l.silent != nil {
		st.Why = l.silent.Error()
	}
	st.Peers, st.LastHeard = l.heard.count(l.now())
	return st
}

// port is the one that other tools are told.
func (l *lan) port() uint16 {
	for _, a := range l.listening() {
		if port := portIn(a); port != 0 {
			return port
		}
	}
	return 0
}

// text is what this node says about itself: its addresses on the links, TCP and
// IPv4 first, and for other tools one address of each IP version. It says the same
// on all links: who hears it leaves out what leads elsewhere.
func (l *lan) text(links []lanLink) (texts []string, ips []netip.Addr) {
	var addrs []ma.Multiaddr
	for i := range links {
		for _, ip := range links[i].addrs() {
			for _, bound := range l.listening() {
				scheme, host, err := hostOf(bound)
				if err != nil || scheme == "" || isRelayed(bound) || host != ip && (!host.IsUnspecified() || host.Is4() != ip.Is4()) {
					continue
				}
				a, err := multiaddrOf(scheme, ip, portIn(bound))
				if err != nil {
					continue
				}
				addrs = append(addrs, a)
				if !slices.ContainsFunc(ips, func(have netip.Addr) bool { return have.Is4() == ip.Is4() }) {
					ips = append(ips, ip)
				}
			}
		}
	}
	slices.SortStableFunc(addrs, byPreference)
	for _, a := range addrs[:min(len(addrs), maxLANAddrs)] {
		texts = append(texts, dnsaddr+a.String()+"/p2p/"+l.self.String())
	}
	return texts, ips
}

// byPreference sorts TCP before QUIC and IPv4 before IPv6.
func byPreference(a, b ma.Multiaddr) int {
	rank := func(m ma.Multiaddr) int {
		scheme, ip, _ := hostOf(m)
		return 2*b2i(ip.Is6()) + b2i(scheme == schemeQUIC)
	}
	return rank(a) - rank(b)
}

// reachesBeyond tells an address that other machines can dial.
func reachesBeyond(a ma.Multiaddr) bool {
	_, ip, err := hostOf(a)
	return err == nil && !ip.IsLoopback()
}
