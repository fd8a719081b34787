package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/zeroconf/v2"
)

const (
	mdnsDomain = "local"
	// mdnsTTL is for how long, in seconds, others may keep what is announced.
	mdnsTTL = 120
	// maxRoundEntries and maxRoundBytes bound what is taken from one round of
	// asking, in which the library keeps all that it is told; the round ends then.
	// A link of a thousand members is below both.
	maxRoundEntries = 2048
	maxRoundBytes   = 2 << 20
	// roundPause is between the starts of rounds that end so.
	roundPause = 250 * time.Millisecond
	// roundRetry is at least between rounds that could not start.
	roundRetry = time.Second
)

// announcement is what a node says about itself on the local links, and how it
// asks for others.
type announcement struct {
	service  string   // _NAME._udp
	instance string   // random; never used again with other texts
	port     uint16   // for other tools
	texts    []string // empty: it only asks
	ips      []netip.Addr
	links    []lanLink
	every    time.Duration // between questions
}

// lanEar is told what comes of an announcement, by several goroutines.
type lanEar struct {
	// heard hears an instance of the service, at most once per IP version and
	// round; what it says can be anything.
	heard func(instance string, texts []string)
	// failed hears why nobody can be asked, and with nil that it is possible again.
	failed func(error)
}

// mdns announces and asks by libp2p's multicast DNS, the library below go-libp2p's
// p2p/discovery/mdns, which itself reports each peer once in its lifetime (53
// minutes) only, announces loopback, and cannot be limited to some interfaces.
//
// The library's Browse tells of an instance once and asks at growing intervals.
// So a Browse is a round here: it ends after the interval, with all that it keeps,
// and another one begins with a question and hears everybody again. An answer
// that comes late is heard by the round after. Each IP version has rounds of its
// own, because a Browse for both fails on a machine that has one, and leaves the
// socket of the other open.
type mdns struct {
	announcement
	to     lanEar
	server *zeroconf.Server // nil: nothing is announced
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex // guards below
	errs map[zeroconf.IPType]error
	bad  bool // failed was told an error last
}

// openMDNS starts to announce and to ask. Close ends both; the sockets' last
// readers end with it, a moment later.
func openMDNS(a announcement, to lanEar) (io.Closer, error) {
	m := &mdns{announcement: a, to: to, errs: map[zeroconf.IPType]error{}}
	if len(a.texts) > 0 {
		ips := make([]string, 0, len(a.ips))
		for _, ip := range a.ips {
			ips = append(ips, ip.String())
		}
		var err error
		m.server, err = zeroconf.RegisterProxy(a.instance, a.service, mdnsDomain, int(a.port), a.instance, ips, a.texts, m.interfaces(), zeroconf.TTL(mdnsTTL))
		if err != nil {
			return nil, fmt.Errorf("multicast is not possible here: %w", err)
		}
	}
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	for _, version := range []zeroconf.IPType{zeroconf.IPv4, zeroconf.IPv6} {
		m.wg.Go(func() { m.ask(ctx, version) })
	}
	return m, nil
}

// Close says goodbye and waits for what was started.
func (m *mdns) Close() error {
	m.cancel()
	if m.server != nil {
		m.server.Shutdown()
	}
	m.wg.Wait()
	return nil
}

func (m *mdns) interfaces() []net.Interface {
	all := make([]net.Interface, 0, len(m.links))
	for i := range m.links {
		all = append(all, m.links[i].Interface)
	}
	return all
}

// ask makes one round after the other.
func (m *mdns) ask(ctx context.Context, version zeroconf.IPType) {
	for {
		start, wait := time.Now(), min(roundPause, m.every)
		err := m.round(ctx, version)
		if ctx.Err() != nil {
			return
		}
		if m.tell(version, err); err != nil {
			wait = max(roundRetry, m.every)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait - time.Since(start)): // over, if the round took its time
		}
	}
}

// round asks, and hears who answers or announces itself, for one interval. An
// error tells that this version of IP cannot be used.
func (m *mdns) round(ctx context.Context, version zeroconf.IPType) error {
	ctx, cancel := context.WithTimeout(ctx, m.every)
	defer cancel()
	entries, done := make(chan *zeroconf.ServiceEntry), make(chan error, 1)
	go func() {
		done <- zeroconf.Browse(ctx, m.service, mdnsDomain, entries, zeroconf.SelectIfaces(m.interfaces()), zeroconf.SelectIPTraffic(version))
	}()
	// Browse waits for its entries to be taken, also when it should end; it closes
	// the channel unless it fails at once.
	var taken, size int
	for {
		select {
		case err := <-done:
			return err
		case e, ok := <-entries:
			switch {
			case !ok:
				entries = nil
			case taken >= maxRoundEntries || size >= maxRoundBytes:
				cancel()
			default:
				taken++
				size += sizeOf(e)
				if e.Instance != m.instance {
					m.to.heard(e.Instance, e.Text)
				}
			}
		}
	}
}

// sizeOf is about what an entry takes, in bytes.
func sizeOf(e *zeroconf.ServiceEntry) int {
	const header, ip = 256, 40
	n := header + len(e.Instance) + len(e.HostName) + ip*(len(e.AddrIPv4)+len(e.AddrIPv6))
	for _, s := range e.Text {
		n += len(s)
	}
	return n
}

// tell reports when no version of IP can be used any more, or one can again.
func (m *mdns) tell(version zeroconf.IPType, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errs[version] = err
	var all []error
	for _, e := range m.errs {
		if e != nil {
			all = append(all, e)
		}
	}
	if bad := len(all) == 2; bad != m.bad {
		m.bad, err = bad, nil
		if bad {
			err = fmt.Errorf("nobody can be asked: %w", errors.Join(all...))
		}
		m.to.failed(err)
	}
}
