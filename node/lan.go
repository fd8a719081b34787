package node

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/node/mdns"
	"vixp2p/replication"
)

const (
	// maxLANPeers bounds the peers that are remembered from announcements, and
	// maxPerSource those that one machine announces: strangers can announce what
	// they like. Beyond the first the one not heard for the longest time is
	// forgotten, beyond the second a machine is not listened to.
	maxLANPeers  = 256
	maxPerSource = 32
	// maxLANAddrs bounds the addresses that are announced, or taken from one
	// announcement.
	maxLANAddrs = 8
	// lanSilence: a peer that was not heard for so long, or so many questions, is
	// back when it is heard; newsPause is between two of the news of one peer.
	lanSilence   = 10 * time.Second
	lanQuestions = 4
	newsPause    = 5 * time.Second
	// lanKeep is how long after it was heard an address is worth dialling.
	lanKeep = 10 * time.Minute
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
	service  string // of the network
	instance string // of this node, random
	self     peer.ID
	every    time.Duration // between questions
	// listening are the addresses as they were bound: unspecified ones stand for
	// those of the link.
	listening func() []ma.Multiaddr
	connected func() []peer.ID
	links     func() ([]mdns.Link, error)
	open      func(mdns.Config, []mdns.Link) (io.Closer, error)
	now       func() time.Time
	log       *slog.Logger
	again     chan struct{} // capacity 1: the network has changed

	mu     sync.Mutex // guards below
	heard  map[peer.ID]*lanPeer
	status LANStatus
}

// lanPeer is a peer that was heard.
type lanPeer struct {
	instance string
	source   string                 // the machine that announced it
	addrs    map[int][]ma.Multiaddr // by the link where they were heard
	at       time.Time
	news     bool      // it is back, or elsewhere, and that was not told yet
	told     time.Time // when news of it was told last
}

// LANStatus tells about discovery on the local links.
type LANStatus struct {
	On bool
	// Why tells why it is off, or works only partly; empty if there is nothing to say.
	Why     string
	Service string   // the name that is announced and asked for
	Links   []string // interfaces that are used
	// Peers were heard in the last minutes; LastHeard is when the last one was,
	// zero: none. A peer that is connected is not asked to announce itself.
	Peers     int
	LastHeard time.Time
}

func newLAN(network replication.NetworkID, self peer.ID, every time.Duration, log *slog.Logger) *lan {
	var name [8]byte
	_, _ = rand.Read(name[:]) // never fails
	return &lan{
		service: lanService(network), instance: hex.EncodeToString(name[:]), self: self, every: every,
		links: mdns.Links,
		open:  func(c mdns.Config, l []mdns.Link) (io.Closer, error) { return mdns.Open(c, l) },
		log:   log, again: make(chan struct{}, 1), heard: map[peer.ID]*lanPeer{},
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
	service, err := l.open(mdns.Config{
		Service: l.service, Instance: l.instance, Port: l.port(), Every: l.every,
		Text: l.text, Known: l.known, Failed: l.failed,
		Heard: func(a mdns.Announcement) { l.hear(a, offer) },
	}, links)
	if err != nil {
		return nil, err
	}
	st := LANStatus{On: true}
	for i := range links {
		st.Links = append(st.Links, links[i].Name)
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

// failed hears from the service that sending does not work, or works again.
func (l *lan) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status.Why = ""; err != nil {
		l.status.Why = err.Error()
	}
}

// snapshot is what status shows.
func (l *lan) snapshot() LANStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.status
	st.Links, st.Service = slices.Clone(st.Links), l.service
	for _, p := range l.heard {
		if l.now().Sub(p.at) < lanKeep {
			st.Peers++
		}
		if p.at.After(st.LastHeard) {
			st.LastHeard = p.at
		}
	}
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

// text is what this node says about itself on a link: the addresses that it has
// there, TCP and IPv4 first.
func (l *lan) text(link *mdns.Link) []string {
	var addrs []ma.Multiaddr
	for _, bound := range l.listening() {
		scheme, host, err := hostOf(bound)
		if err != nil || scheme == "" || isRelayed(bound) {
			continue
		}
		for _, ip := range link.Addrs() {
			if host != ip && (!host.IsUnspecified() || host.Is4() != ip.Is4()) {
				continue
			}
			if a, err := multiaddrOf(scheme, ip, portIn(bound)); err == nil {
				addrs = append(addrs, a)
			}
		}
	}
	slices.SortStableFunc(addrs, byPreference)
	texts := make([]string, 0, maxLANAddrs)
	for _, a := range addrs[:min(len(addrs), maxLANAddrs)] {
		texts = append(texts, dnsaddr+a.String()+"/p2p/"+l.self.String())
	}
	return texts
}

// known are the instances that need not answer: there is a session with them.
func (l *lan) known() []string {
	connected := l.connected()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, id := range connected {
		if p := l.heard[id]; p != nil {
			out = append(out, p.instance)
		}
	}
	return out
}

// hear takes an announcement, from anyone, and offers its addresses.
func (l *lan) hear(a mdns.Announcement, offer func(found)) {
	id, addrs, err := readAnnouncement(&a)
	if err != nil {
		l.log.Debug("an announcement is not taken", "from", a.From, "why", err)
		return
	}
	if id == l.self || a.Gone {
		return // a goodbye: dialling it would show the same
	}
	news, ok := l.remember(id, &a, addrs)
	if !ok {
		return
	}
	for _, addr := range addrs {
		if f, ok := foundAt(addr, id, fromLAN, l.now().Add(lanKeep)); ok {
			f.heard = news
			offer(f)
		}
	}
}

// remember notes a peer that was heard. news tells that it is new, back or
// elsewhere, so that what failed before says nothing; ok that there was room.
func (l *lan) remember(id peer.ID, a *mdns.Announcement, addrs []ma.Multiaddr) (news, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, source := l.now(), a.From.String()
	p := l.heard[id]
	if p == nil {
		if !l.roomLocked(source, now) {
			return false, false
		}
		p = &lanPeer{news: true, addrs: map[int][]ma.Multiaddr{}}
		l.heard[id] = p
	}
	link := a.Link.Index
	if p.instance != a.Instance || now.Sub(p.at) > max(lanSilence, lanQuestions*l.every) || !sameAddrs(p.addrs[link], addrs) {
		p.news = true
	}
	p.instance, p.source, p.addrs[link], p.at = a.Instance, source, addrs, now
	if news = p.news && now.Sub(p.told) >= newsPause; news {
		p.news, p.told = false, now
	}
	return news, true
}

// roomLocked makes room for one more peer of a source; false if it has too many.
func (l *lan) roomLocked(source string, now time.Time) bool {
	var oldest peer.ID
	same := 0
	for id, p := range l.heard {
		if now.Sub(p.at) > lanKeep {
			delete(l.heard, id)
			continue
		}
		if p.source == source {
			same++
		}
		if oldest == "" || p.at.Before(l.heard[oldest].at) {
			oldest = id
		}
	}
	if same >= maxPerSource {
		return false
	}
	if len(l.heard) >= maxLANPeers {
		delete(l.heard, oldest)
	}
	return true
}

// readAnnouncement reads what anyone can have written: one member's addresses on
// the link where it was heard, at most maxLANAddrs.
func readAnnouncement(a *mdns.Announcement) (id peer.ID, addrs []ma.Multiaddr, err error) {
	for _, text := range a.Text {
		value, ok := strings.CutPrefix(text, dnsaddr)
		if !ok || len(addrs) == maxLANAddrs {
			continue
		}
		full, err := ma.NewMultiaddr(value)
		if err != nil {
			return "", nil, fmt.Errorf("%q is no multiaddr: %w", value, err)
		}
		addr, who := peer.SplitAddr(full)
		switch {
		case who == "" || id != "" && who != id:
			return "", nil, fmt.Errorf("%q does not name the one peer that announces itself", value)
		case !isPlain(addr):
			continue // of a later version, perhaps
		}
		if _, ip, err := hostOf(addr); err != nil || !a.Link.Has(ip) && ip != a.From {
			continue // nobody on this link can be reached there
		} else if !dialable(ip) {
			continue
		}
		id = who
		addrs = append(addrs, addr)
	}
	if len(addrs) == 0 {
		return "", nil, errors.New("it has no address that can be dialled")
	}
	if key, err := id.ExtractPublicKey(); err != nil || key.Type() != pb.KeyType_Ed25519 {
		return "", nil, fmt.Errorf("%s is no Ed25519 identity", id)
	}
	return id, addrs, nil
}

// isPlain tells an IP address with TCP or QUIC and nothing more.
func isPlain(a ma.Multiaddr) bool {
	codes := make([]int, 0, 4)
	for _, c := range a {
		codes = append(codes, c.Protocol().Code)
	}
	if len(codes) == 0 || codes[0] != ma.P_IP4 && codes[0] != ma.P_IP6 {
		return false
	}
	return slices.Equal(codes[1:], []int{ma.P_TCP}) || slices.Equal(codes[1:], []int{ma.P_UDP, ma.P_QUIC_V1})
}

// byPreference sorts TCP before QUIC and IPv4 before IPv6.
func byPreference(a, b ma.Multiaddr) int {
	rank := func(m ma.Multiaddr) int {
		scheme, ip, _ := hostOf(m)
		return 2*b2i(ip.Is6()) + b2i(scheme == schemeQUIC)
	}
	return rank(a) - rank(b)
}

func sameAddrs(a, b []ma.Multiaddr) bool {
	return slices.EqualFunc(a, b, func(x, y ma.Multiaddr) bool { return x.Equal(y) })
}

// reachesBeyond tells an address that other machines can dial.
func reachesBeyond(a ma.Multiaddr) bool {
	_, ip, err := hostOf(a)
	return err == nil && !ip.IsLoopback()
}
