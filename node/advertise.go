package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

const (
	// advertiseLook is how often the names among the advertised addresses are looked
	// up again: at home the address of a name changes with that of the line.
	// advertiseRetry is the pause where one could not be found.
	advertiseLook  = time.Minute
	advertiseRetry = 10 * time.Second
)

// advertisement is Config.Advertise: where others reach this node because somebody
// forwards ports to it. A name that cannot be looked up keeps nobody from starting:
// a machine may start before its network does.
type advertisement struct {
	named   []target
	resolve resolver
	log     *slog.Logger
	again   chan struct{} // capacity 1: the network has changed
	found   atomic.Pointer[[]ma.Multiaddr]

	// Of look's callers, one at a time: what each name led to last, and why one
	// could not be looked up.
	last   map[string][]ma.Multiaddr
	failed map[string]string
}

// newAdvertisement is of a checked configuration.
func newAdvertisement(list []string, log *slog.Logger) *advertisement {
	a := &advertisement{
		resolve: resolveHost, log: log, again: make(chan struct{}, 1),
		last: map[string][]ma.Multiaddr{}, failed: map[string]string{},
	}
	for _, s := range list {
		if t, err := parseTarget(s); err == nil { // Config.check saw to that
			a.named = append(a.named, t)
		}
	}
	return a
}

// checkAdvertise tells what is wrong with addresses to advertise.
func checkAdvertise(list []string) error {
	for _, s := range list {
		t, err := parseTarget(s)
		if err != nil {
			return fmt.Errorf("cannot advertise: %w", err)
		}
		ip, err := netip.ParseAddr(t.Host)
		if t.Addr != nil {
			_, ip, err = hostOf(t.Addr)
		}
		if err == nil && (ip.IsUnspecified() || ip.IsMulticast()) {
			return fmt.Errorf("cannot advertise %s: %s is the address of no machine: use the one at which others reach this node", s, ip)
		}
	}
	return nil
}

// addrs are the advertised addresses as they are now.
func (a *advertisement) addrs() []ma.Multiaddr {
	if list := a.found.Load(); list != nil {
		return slices.Clone(*list)
	}
	return nil
}

// names tells whether there is anything to look up.
func (a *advertisement) names() bool {
	return slices.ContainsFunc(a.named, func(t target) bool {
		_, err := netip.ParseAddr(t.Host)
		return t.Addr == nil && err != nil
	})
}

// look looks the names up. One that is not found now stands for what it led to last.
func (a *advertisement) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	found, errs := make([][]ma.Multiaddr, len(a.named)), make([]error, len(a.named))
	var wg sync.WaitGroup
	for i, t := range a.named {
		wg.Go(func() { found[i], errs[i] = a.lookUp(ctx, t) }) // one that hangs holds up no other
	}
	wg.Wait()
	var list []ma.Multiaddr
	for i, t := range a.named {
		name := t.String()
		if err := errs[i]; err != nil {
			if a.failed[name] != err.Error() {
				a.log.Warn("an advertised address cannot be looked up; that is tried again", "address", name, "err", err)
			}
			a.failed[name] = err.Error()
		} else {
			if old := a.last[name]; old != nil && !slices.EqualFunc(old, found[i], ma.Multiaddr.Equal) {
				a.log.Info("an advertised name leads elsewhere now", "address", name, "addrs", fmt.Sprint(found[i]))
			}
			delete(a.failed, name)
			a.last[name] = found[i]
		}
		list = append(list, a.last[name]...)
	}
	a.found.Store(&list)
}

// lookUp is where an advertised address leads now, in an order that does not change
// by itself.
func (a *advertisement) lookUp(ctx context.Context, t target) (list []ma.Multiaddr, err error) {
	if t.Addr != nil {
		return []ma.Multiaddr{t.Addr}, nil // a name in a multiaddr is for those who dial it
	}
	for _, scheme := range t.Schemes {
		found, err := a.resolve(ctx, scheme, t.Host, t.Port)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	slices.SortFunc(list, ma.Multiaddr.Compare)
	return list, nil
}

// changed makes it look at once.
func (a *advertisement) changed() {
	select {
	case a.again <- struct{}{}:
	default:
	}
}

// run looks again and again until ctx ends; the host notices within seconds what is
// new.
func (a *advertisement) run(ctx context.Context) {
	for a.names() {
		pause := advertiseLook
		if len(a.failed) > 0 {
			pause = advertiseRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-a.again:
		case <-time.After(pause):
		}
		a.look(ctx)
	}
}
