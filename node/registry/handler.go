package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// fault is a failed answer.
type fault struct {
	status  int
	code    string
	message string
}

func (e *fault) Error() string { return e.message }

func faultf(status int, code, format string, args ...any) *fault {
	return &fault{status, code, fmt.Sprintf(format, args...)}
}

// handler answers the two paths, and everything else with a JSON error. A web
// page of another site cannot announce anything in its visitors' names.
func (s *Server) handler() http.Handler {
	sites := http.NewCrossOriginProtection()
	sites.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.fail(w, faultf(http.StatusForbidden, CodeForbidden, "a web page may announce nothing to a registry of another site"))
	}))
	return sites.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, f := s.answer(w, r)
		if f != nil {
			s.log.Debug("refused", "from", r.RemoteAddr, "path", shorten(r.URL.Path), "code", f.code, "reason", f.message)
			s.fail(w, f)
			return
		}
		s.write(w, http.StatusOK, answer)
	}))
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) (any, *fault) {
	host, f := s.hostOf(r)
	if f != nil {
		return nil, f
	}
	if !s.rates.allow(host, s.cfg.Now()) {
		w.Header().Set("Retry-After", "5")
		return nil, faultf(http.StatusTooManyRequests, CodeTooMany, "your address asks more than %d times a second: ask less often", requestRate)
	}
	switch path := strings.TrimPrefix(r.URL.Path, Prefix); path {
	case peersPath:
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return nil, wrongMethod(w, http.MethodGet)
		}
		return s.peers(r, host)
	case announcePath:
		if r.Method != http.MethodPost {
			return nil, wrongMethod(w, http.MethodPost)
		}
		return s.announce(w, r, host)
	}
	return nil, faultf(http.StatusNotFound, CodeNotFound, "a registry has GET %s%s and POST %s%s, with or without %s, and nothing else", Prefix, peersPath, Prefix, announcePath, Prefix)
}

func wrongMethod(w http.ResponseWriter, allowed string) *fault {
	w.Header().Set("Allow", allowed)
	return faultf(http.StatusMethodNotAllowed, CodeMethod, "use %s here", allowed)
}

// hostOf is the address of who asks.
func (s *Server) hostOf(r *http.Request) (netip.Addr, *fault) {
	if s.cfg.TrustProxy {
		// Each proxy appends whom it heard: only the last one is ours.
		list := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		host, err := netip.ParseAddr(strings.TrimSpace(list[len(list)-1]))
		if err != nil {
			return host, faultf(http.StatusBadRequest, CodeInvalidRequest, "this registry is to be asked through its proxy, which names you in X-Forwarded-For")
		}
		return host.Unmap().WithZone(""), nil
	}
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return at.Addr(), faultf(http.StatusBadRequest, CodeInvalidRequest, "your address cannot be told")
	}
	return at.Addr().Unmap().WithZone(""), nil
}

func (s *Server) peers(r *http.Request, host netip.Addr) (any, *fault) {
	q := r.URL.Query()
	limit := DefaultLimit
	if text := q.Get("limit"); q.Has("limit") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxLimit {
			return nil, faultf(http.StatusBadRequest, CodeInvalidLimit, "limit is a whole number from 1 to %d, not %q", MaxLimit, shorten(text))
		}
		limit = n
	}
	network := q.Get("network")
	if network != "" && !isNetworkTag(network) {
		return nil, faultf(http.StatusBadRequest, CodeInvalidNetwork, "network is a tag of %d lower-case hex digits", networkTag)
	}
	return peersJSON{s.table.list(limit, network, host.IsLoopback(), s.cfg.Now())}, nil
}

func (s *Server) announce(w http.ResponseWriter, r *http.Request, host netip.Addr) (any, *fault) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxAnnouncement))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, announceFault(ErrTooLarge)
	} else if err != nil {
		return nil, faultf(http.StatusBadRequest, CodeInvalidRequest, "the body did not arrive")
	}
	a, err := Decode(body)
	if err == nil {
		err = a.Verify()
	}
	if err != nil {
		return nil, announceFault(err)
	}
	fresh, err := s.table.put(a, host, s.cfg.Now())
	if err != nil {
		return nil, announceFault(err)
	}
	level := slog.LevelDebug
	if fresh && s.lines.Allow() {
		level = slog.LevelInfo
	}
	s.log.Log(r.Context(), level, "announced", "node_id", a.NodeID, "host", host, "tcp_port", a.TCPPort, "peer", a.PeerID, "network", a.Network, "new", fresh)
	return okJSON{true}, nil
}

// announceFault is the one place where reasons become statuses and codes.
func announceFault(err error) *fault {
	for _, f := range []struct {
		is     error
		status int
		code   string
	}{
		{ErrTooLarge, http.StatusRequestEntityTooLarge, CodeTooLarge},
		{ErrNotJSON, http.StatusBadRequest, CodeInvalidJSON},
		{ErrInvalid, http.StatusBadRequest, CodeInvalidAnnouncement},
		{ErrUnsigned, http.StatusUnauthorized, CodeUnsigned},
		{ErrBadSignature, http.StatusForbidden, CodeBadSignature},
		{errStale, http.StatusForbidden, CodeStale},
		{errReplayed, http.StatusConflict, CodeReplayed},
		{errTaken, http.StatusConflict, CodeTaken},
		{errCrowded, http.StatusTooManyRequests, CodeCrowded},
		{errFull, http.StatusServiceUnavailable, CodeFull},
	} {
		if errors.Is(err, f.is) {
			return &fault{f.status, f.code, err.Error()}
		}
	}
	return &fault{http.StatusInternalServerError, CodeInternal, err.Error()}
}

func (s *Server) fail(w http.ResponseWriter, f *fault) {
	s.write(w, f.status, errorJSON{f.code, f.message})
}

func (s *Server) write(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // the types above cannot fail
		status, data = http.StatusInternalServerError, []byte(`{"error":"internal","message":"the answer cannot be written"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Date", s.cfg.Now().UTC().Format(http.TimeFormat)) // the clock that judges ages
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that is gone needs no answer
}
