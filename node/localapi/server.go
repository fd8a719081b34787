package localapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// Limits of the API.
const (
	// MaxValue is the largest value or payload that the API carries, in bytes.
	// The store's own limit, of a whole block, is a little lower.
	MaxValue = 1 << 20

	maxBatchBody  = 8 << 20 // JSON of a batch; a byte of text may need 6
	maxBatchOps   = 4096
	maxObjectBody = 64 << 10
	maxHeader     = 64 << 10 // a key may be 4 KiB, each byte of it three in a query
	maxRequests   = 128      // at once, streams included
	maxQuick      = 16       // at once of those that only say who answers; more wait

	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	closeTimeout  = 2 * time.Second // for answers under way when the node stops
)

const pingPath = "/v1/ping"

// Config of a Server.
type Config struct {
	// Dir is the data directory that gets the address and the token.
	Dir string
	// Addr to listen on, loopback only. Default 127.0.0.1:0, any free port.
	Addr    string
	Backend Backend
	// PeerID and Version are shown by ping.
	PeerID  string
	Version string
	// Logger; nil discards.
	Logger *slog.Logger

	stall time.Duration // for tests: replaces stallTimeout
}

// Server is the local API of one running node.
type Server struct {
	cfg      Config
	endpoint endpoint
	auth     [sha256.Size]byte // hash of the token: comparing hashes hides its length too
	slots    chan struct{}     // maxRequests
	quick    chan struct{}     // maxQuick
	http     *http.Server
	cancel   context.CancelFunc
	served   chan struct{} // closed when Serve has returned
}

// Start listens, serves and writes the files that commands look for. Close must
// be called.
func Start(cfg Config) (*Server, error) {
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if err := checkLoopback(cfg.Addr); err != nil {
		return nil, err
	}
	id, err := directoryID(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("the local API has no directory for its files: %w", err)
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, listenProblem(cfg.Addr, err)
	}
	s := newServer(cfg, endpoint{addr: ln.Addr().String(), token: newToken(), dir: id})
	go func() {
		defer close(s.served)
		_ = s.http.Serve(ln) // always http.ErrServerClosed: Close is the only way out
	}()
	if err := writeEndpoint(cfg.Dir, s.endpoint); err != nil {
		s.Close()
		return nil, fmt.Errorf("the local API cannot write its files: %w", err)
	}
	return s, nil
}

func newServer(cfg Config, e endpoint) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.stall == 0 {
		cfg.stall = stallTimeout
	}
	base, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg:      cfg,
		endpoint: e,
		auth:     sha256.Sum256([]byte(e.token)),
		slots:    make(chan struct{}, maxRequests),
		quick:    make(chan struct{}, maxQuick),
		cancel:   cancel,
		served:   make(chan struct{}),
	}
	s.http = &http.Server{
		Handler:           s.guard(s.routes()),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Addr is host:port where the API answers.
func (s *Server) Addr() string { return s.endpoint.addr }

// Close removes the files, ends streams and waits for every request.
func (s *Server) Close() {
	if err := removeEndpoint(s.cfg.Dir, s.endpoint); err != nil {
		s.cfg.Logger.Warn("cannot remove the files of the local API", "err", err)
	}
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // a client that does not read: cut it off
	}
	<-s.served
	for _, slots := range []chan struct{}{s.slots, s.quick} {
		for range cap(slots) { // handlers that Close has just cut off
			slots <- struct{}{}
		}
	}
}

// guard lets in who knows the token, or asks this node to prove itself; asks for a
// loopback name (a web page that points its own name at this machine does not);
// and is not one too many.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(plain http.ResponseWriter, r *http.Request) {
		w := newPatient(plain, s.cfg.stall)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !loopbackHost(r.Host) || r.URL.Path != provePath && !s.authorized(r) {
			writeError(w, Errorf(CodeUnauthorized, "this needs the token of the node: send \"Authorization: Bearer TOKEN\" with the content of %s in its data directory", TokenFile))
			return
		}
		if r.URL.Path == provePath || r.URL.Path == pingPath {
			// However many streams there are, the node tells that it is there.
			select {
			case s.quick <- struct{}{}:
				defer func() { <-s.quick }()
				next.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
			return
		}
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
			next.ServeHTTP(w, r)
		default:
			writeError(w, Errorf(CodeBusy, "the node answers %d requests already: end some of the commands that follow it (watch, tail --follow, wait) and try again", maxRequests))
		}
	})
}

func (s *Server) authorized(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(token))
	return ok && subtle.ConstantTimeCompare(sum[:], s.auth[:]) == 1
}

func loopbackHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// listenProblem says in a sentence why the address of the API is of no use.
func listenProblem(addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("the local API cannot listen on %s, which another program uses: stop that program, or give another address with --api (port 0 = any free one)", addr)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		err = op.Err
	}
	return fmt.Errorf("the local API cannot listen on %s: %w: give another address with --api, or 127.0.0.1:0", addr, err)
}
