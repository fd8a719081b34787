package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// Defaults of ServerConfig.
const (
	DefaultTTL        = 60 * time.Second // four of a node's announcements
	DefaultMaxEntries = 10_000
	DefaultPerAddress = 256
)

// Deadlines of the server. A connection that does less is closed.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second // the whole request
	writeTimeout  = 10 * time.Second // the whole answer
	idleTimeout   = 30 * time.Second // between requests of one connection
	closeTimeout  = 2 * time.Second  // for answers under way at the end
	maxHeader     = 8 << 10          // bytes
	// sweepEvery is how often expired entries are forgotten and the file is
	// written if more changed than times: a crash loses no more than that, and
	// nodes announce themselves again.
	sweepEvery = 10 * time.Second
)

// ServerConfig says how to run a registry. Zero values are good defaults.
type ServerConfig struct {
	// Addr is host:port to listen on; no host: every interface, port 0: any free
	// one. Default ":8080".
	Addr string
	// File keeps the entries over a restart. Default none.
	File string
	// TTL is how long an entry is listed after its last announcement. Default 60 s.
	TTL time.Duration
	// MaxEntries bounds the entries, PerAddress those of one IPv4 address or IPv6
	// /56. Defaults 10,000 and 256.
	MaxEntries, PerAddress int
	// TrustProxy takes a node's host from the last X-Forwarded-For header: only
	// for a server that nobody can reach but a proxy which sets it. Default off.
	TrustProxy bool
	// Logger; nil discards.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (c ServerConfig) withDefaults() (ServerConfig, error) {
	if c.Addr == "" {
		c.Addr = ":8080"
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.MaxEntries == 0 {
		c.MaxEntries = DefaultMaxEntries
	}
	if c.PerAddress == 0 {
		c.PerAddress = DefaultPerAddress
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.TTL < time.Second || c.TTL > 24*time.Hour:
		return c, fmt.Errorf("entries cannot live %s: use 1s to 24h", c.TTL)
	case c.MaxEntries < 1 || c.PerAddress < 1:
		return c, errors.New("a registry without room for an entry is of no use: allow 1 or more")
	}
	host, port, err := net.SplitHostPort(c.Addr)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return c, fmt.Errorf("cannot listen on %q: use host:port, or :port for every interface", c.Addr)
	}
	if host != "" && net.ParseIP(host) == nil && host != "localhost" {
		return c, fmt.Errorf("cannot listen on %q: %q is not an IP address of this machine", c.Addr, host)
	}
	return c, nil
}

// CheckConfig tells what is wrong with a configuration, without any effect.
func CheckConfig(c ServerConfig) error {
	_, err := c.withDefaults()
	return err
}

// Server is a running registry.
type Server struct {
	cfg    ServerConfig
	log    *slog.Logger
	table  *table
	rates  *limiter
	lines  *rate.Limiter // of log lines that others cause
	http   *http.Server
	addr   string
	stop   chan struct{} // closed by Close
	wg     sync.WaitGroup
	saving bool // the last save worked; of run only, and of Close after it

	closeOnce sync.Once
	closeErr  error
}

// Start reads the file, listens and serves. Close must be called.
func Start(cfg ServerConfig) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, table: newTable(cfg.TTL, cfg.MaxEntries, cfg.PerAddress),
		rates: newLimiter(), lines: rate.NewLimiter(rate.Every(time.Minute/linesPerMin), logLinesBurst),
		stop: make(chan struct{}), saving: true,
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, listenError(cfg.Addr, err)
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	s.addr = ln.Addr().String()
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	limited := &limitListener{Listener: ln, perAddress: !cfg.TrustProxy, byAddr: map[netip.Prefix]int{}}
	s.wg.Go(func() { _ = s.http.Serve(limited) }) // always http.ErrServerClosed: Close is the only way out
	s.wg.Go(s.run)
	return s, nil
}

func listenError(addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("cannot listen on %s: another program uses it: stop that program, or listen on another port (0 = any free one)", addr)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("cannot listen on %s: this user may not: use a port of 1024 or above", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("cannot listen on %s: this machine does not have that address", addr)
	}
	return fmt.Errorf("cannot listen on %s: %w", addr, err)
}

// Addr is host:port where the registry answers.
func (s *Server) Addr() string { return s.addr }

// Entries is how many entries the registry has now.
func (s *Server) Entries() int { return s.table.size() }

// Close ends the service, waits for what is under way, and saves the entries.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := s.http.Shutdown(ctx); err != nil {
			_ = s.http.Close() // a client that does not read: cut it off
		}
		close(s.stop)
		s.wg.Wait()
		s.table.changed() // renewals too
		s.closeErr = s.save()
	})
	return s.closeErr
}

// run forgets expired entries and saves the rest, until Close.
func (s *Server) run() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		s.table.sweep(s.cfg.Now())
		err := s.save()
		switch {
		case err != nil && s.saving:
			s.log.Warn("the entries cannot be saved; they are kept in memory", "err", err)
		case err == nil && !s.saving:
			s.log.Info("the entries are saved again", "file", s.cfg.File)
		}
		s.saving = err == nil
	}
}

// load reads the file, and sees that it can be written. A damaged file is told
// and set aside.
func (s *Server) load() error {
	if s.cfg.File == "" {
		return nil
	}
	list, err := readEntries(s.cfg.File)
	if errors.Is(err, errDamaged) {
		aside := damagedName(s.cfg.File)
		if renameErr := os.Rename(s.cfg.File, aside); renameErr != nil {
			return fmt.Errorf("%s: %w, and cannot be set aside: %w", s.cfg.File, err, renameErr)
		}
		s.log.Warn("the file of entries is damaged; it is set aside, and what was whole is kept", "err", err, "moved_to", aside, "kept", len(list))
		err = nil
	}
	if err != nil {
		return fmt.Errorf("the file of entries %s cannot be read: %w", s.cfg.File, err)
	}
	s.table.restore(list, s.cfg.Now())
	s.table.changed()
	return s.save()
}

// save writes the file if there is one and something changed.
func (s *Server) save() error {
	if s.cfg.File == "" {
		return nil
	}
	list, changed := s.table.export(s.cfg.Now())
	if !changed {
		return nil
	}
	if err := writeEntries(s.cfg.File, list); err != nil {
		s.table.changed()
		return fmt.Errorf("the file of entries %s cannot be written: %w", s.cfg.File, err)
	}
	return nil
}
