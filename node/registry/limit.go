package registry

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits of what one address may ask of a server, and all together.
const (
	requestRate   = 50  // a second, for one address: more than DefaultPerAddress nodes need
	requestBurst  = 500 // at once, for one address
	maxLimiters   = 4096
	maxConns      = 1024
	maxAddrConns  = 128
	linesPerMin   = 60 // of the log, about announcements
	logLinesBurst = 20
)

// limiter bounds the rate of requests of each address.
type limiter struct {
	mu sync.Mutex // guards below
	m  map[netip.Prefix]*rate.Limiter
}

func newLimiter() *limiter { return &limiter{m: map[netip.Prefix]*rate.Limiter{}} }

// allow tells whether a request of this host may be served now.
func (l *limiter) allow(host netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	address := addressOf(host)
	b := l.m[address]
	if b == nil {
		l.roomLocked(now)
		b = rate.NewLimiter(requestRate, requestBurst)
		l.m[address] = b
	}
	return b.AllowN(now, 1)
}

// roomLocked forgets addresses that have not asked for a while, else any one: a
// crowd of addresses gets more than its rate rather than keeping others out.
func (l *limiter) roomLocked(now time.Time) {
	if len(l.m) < maxLimiters {
		return
	}
	for address, b := range l.m {
		if b.TokensAt(now) >= requestBurst {
			delete(l.m, address)
		}
	}
	for address := range l.m {
		if len(l.m) < maxLimiters {
			return
		}
		delete(l.m, address)
	}
}

// limitListener closes connections beyond maxConns in all, and beyond
// maxAddrConns of one address if perAddress, at once.
type limitListener struct {
	net.Listener
	perAddress bool

	mu     sync.Mutex // guards below
	total  int
	byAddr map[netip.Prefix]int // no zeros
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		at, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		address := addressOf(at.Addr().Unmap())
		if l.admit(address) {
			return &limitedConn{Conn: c, release: sync.OnceFunc(func() { l.release(address) })}, nil
		}
		_ = c.Close() // nothing was read or written
	}
}

func (l *limitListener) admit(address netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxConns || l.perAddress && l.byAddr[address] >= maxAddrConns {
		return false
	}
	l.total++
	l.byAddr[address]++
	return true
}

func (l *limitListener) release(address netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.byAddr[address]--; l.byAddr[address] == 0 {
		delete(l.byAddr, address)
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	c.release()
	return c.Conn.Close()
}
