package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const patience = 30 * time.Second

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex // guards below
	at time.Time
}

func newClock() *clock { return &clock{at: time.UnixMilli(int64(sample().TimeMS))} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// logText collects a log.
type logText struct {
	mu  sync.Mutex // guards below
	buf bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// start runs a server that takes the host from X-Forwarded-For.
func start(t *testing.T, cfg ServerConfig) *Server {
	t.Helper()
	cfg.Addr, cfg.TrustProxy = "127.0.0.1:0", true
	return startAs(t, cfg)
}

func startAs(t *testing.T, cfg ServerConfig) *Server {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask makes a request as if from a host, and returns the status and the body.
func ask(t *testing.T, s *Server, method, path, from string, body []byte) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr()+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", "203.0.113.99, "+from)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

func announce(t *testing.T, s *Server, from string, body []byte) (int, string) {
	t.Helper()
	status, _, answer := ask(t, s, "POST", "/announce", from, body)
	return status, answer
}

// accepted announces and expects success.
func accepted(t *testing.T, s *Server, from string, body []byte) {
	t.Helper()
	if status, answer := announce(t, s, from, body); status != 200 || answer != "{\"ok\":true}\n" {
		t.Fatalf("%s from %s: %d %s", body, from, status, answer)
	}
}

// refusedWith announces and expects a failure.
func refusedWith(t *testing.T, s *Server, from string, body []byte, status int, code string) {
	t.Helper()
	got, answer := announce(t, s, from, body)
	var e errorJSON
	if err := json.Unmarshal([]byte(answer), &e); err != nil || got != status || e.Error != code || e.Message == "" {
		t.Errorf("%.200s from %s: %d %s; want %d %s", body, from, got, answer, status, code)
	}
}

// list is what somebody sees.
func list(t *testing.T, s *Server, query, from string) []Peer {
	t.Helper()
	status, _, body := ask(t, s, "GET", "/peers"+query, from, nil)
	var answer peersJSON
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || answer.Peers == nil {
		t.Fatalf("%d %s", status, body)
	}
	return answer.Peers
}

func names(peers []Peer) string {
	var b strings.Builder
	for _, p := range peers {
		fmt.Fprintf(&b, "%s@%s:%d ", p.NodeID, p.Host, p.TCPPort)
	}
	return b.String()
}

const asker = "198.51.100.1"

func plain(name string, port int) []byte {
	return fmt.Appendf(nil, `{"node_id":%q,"tcp_port":%d,"cap":{"proto":"1.0","transport":"tcp"}}`, name, port)
}

// A client that knows node_id and tcp_port is enough, and so is one that knows
// node_id, host and tcp_port; with and without the original's prefix.
func TestOriginalClient(t *testing.T) {
	s := start(t, ServerConfig{})
	status, _, body := ask(t, s, "POST", "/p2p/v1/announce", "192.0.2.1", plain("A", 9001))
	if status != 200 || body != "{\"ok\":true}\n" {
		t.Fatalf("%d %s", status, body)
	}
	for _, path := range []string{"/peers", "/p2p/v1/peers", "/p2p/v1/peers?limit=20"} {
		_, header, body := ask(t, s, "GET", path, asker, nil)
		if want := `{"peers":[{"node_id":"A","host":"192.0.2.1","tcp_port":9001,"peer_id":"","addrs":[]}]}` + "\n"; body != want {
			t.Errorf("%s: %s, want %s", path, body, want)
		}
		if header.Get("Content-Type") != "application/json" {
			t.Errorf("%v", header)
		}
	}
	if got := list(t, start(t, ServerConfig{}), "", asker); len(got) != 0 {
		t.Errorf("an empty registry lists %v", got)
	}
}

// Without a proxy the host is that of the connection, whatever a client writes.
func TestHostOfTheConnection(t *testing.T) {
	s := startAs(t, ServerConfig{Addr: "127.0.0.1:0"})
	accepted(t, s, "192.0.2.1", plain("A", 9001))
	if got := names(list(t, s, "", asker)); got != "A@127.0.0.1:9001 " {
		t.Errorf("%s", got)
	}
}

func TestSignedAnnouncements(t *testing.T) {
	c := newClock()
	s := start(t, ServerConfig{Now: c.now})
	first := signed(t, 1, nil)
	accepted(t, s, "192.0.2.1", encoded(t, first))
	got := list(t, s, "", asker)
	if len(got) != 1 || got[0].PeerID != first.PeerID || got[0].Network != first.Network || fmt.Sprint(got[0].Addrs) != fmt.Sprint(first.Addrs) {
		t.Fatalf("%+v", got)
	}

	// The very same one, and an older one, are replays.
	refusedWith(t, s, "203.0.113.5", encoded(t, first), 409, CodeReplayed)
	older := signed(t, 1, func(a *Announcement) { a.TimeMS-- })
	refusedWith(t, s, "203.0.113.5", encoded(t, older), 409, CodeReplayed)
	// So is one from long ago, or from the future.
	for _, off := range []time.Duration{-maxAge - time.Second, maxAge + time.Second} {
		a := signed(t, 2, func(a *Announcement) { a.TimeMS += uint64(off.Milliseconds()) })
		refusedWith(t, s, "203.0.113.5", encoded(t, a), 403, CodeStale)
	}
	if got := names(list(t, s, "", asker)); got != first.NodeID+"@192.0.2.1:9001 " {
		t.Errorf("after replays: %s", got)
	}

	// No signature, a wrong one, another's.
	bare := *first
	bare.TimeMS, bare.Sig = bare.TimeMS+1, nil
	refusedWith(t, s, "192.0.2.1", encoded(t, &bare), 401, CodeUnsigned)
	bare.Sig = first.Sig
	refusedWith(t, s, "192.0.2.1", encoded(t, &bare), 403, CodeBadSignature)
	bare.Sig = signed(t, 2, nil).Sig
	refusedWith(t, s, "192.0.2.1", encoded(t, &bare), 403, CodeBadSignature)

	// The peer itself may move and change.
	c.pass(time.Second)
	moved := signed(t, 1, func(a *Announcement) { a.TimeMS += 1000; a.TCPPort = 9005 })
	accepted(t, s, "192.0.2.9", encoded(t, moved))
	if got := names(list(t, s, "", asker)); got != first.NodeID+"@192.0.2.9:9005 " {
		t.Errorf("after a move: %s", got)
	}
}

// A replay is refused also after the entry has expired.
func TestReplayAfterExpiry(t *testing.T) {
	c := newClock()
	s := start(t, ServerConfig{Now: c.now, TTL: 10 * time.Second})
	a := signed(t, 1, nil)
	accepted(t, s, "192.0.2.1", encoded(t, a))
	c.pass(time.Minute)
	s.table.sweep(c.now())
	refusedWith(t, s, "203.0.113.5", encoded(t, a), 409, CodeReplayed)
	c.pass(maxAge)
	s.table.sweep(c.now())
	if s.Entries() != 0 {
		t.Errorf("%d entries are kept for ever", s.Entries())
	}
	refusedWith(t, s, "203.0.113.5", encoded(t, a), 403, CodeStale)
}

// Who signs cannot be displaced by who does not; who does not, not from elsewhere.
func TestNobodyIsDisplaced(t *testing.T) {
	c := newClock()
	s := start(t, ServerConfig{Now: c.now})
	a := signed(t, 1, func(a *Announcement) { a.NodeID = "A" })
	accepted(t, s, "192.0.2.1", encoded(t, a))
	refusedWith(t, s, "192.0.2.1", plain("A", 6666), 409, CodeTaken)
	accepted(t, s, "203.0.113.5", plain("A", 6666)) // somebody else's, beside it
	b := signed(t, 2, func(a *Announcement) { a.NodeID = "A"; a.TCPPort = 7777 })
	accepted(t, s, "192.0.2.1", encoded(t, b))
	got := names(list(t, s, "", asker))
	for _, want := range []string{"A@192.0.2.1:9001 ", "A@203.0.113.5:6666 ", "A@192.0.2.1:7777 "} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
	refusedWith(t, s, "192.0.2.1", fmt.Appendf(nil, `{"node_id":%q,"tcp_port":1}`, a.PeerID), 400, CodeInvalidAnnouncement)

	// An unsigned entry is replaced by its own host, and when that signs.
	accepted(t, s, "192.0.2.2", plain("C", 1))
	accepted(t, s, "192.0.2.2", plain("C", 2))
	if got := names(list(t, s, "", asker)); strings.Contains(got, "C@192.0.2.2:1 ") || !strings.Contains(got, "C@192.0.2.2:2 ") {
		t.Errorf("%s", got)
	}
	accepted(t, s, "192.0.2.2", encoded(t, signed(t, 3, func(a *Announcement) { a.NodeID = "C" })))
	if got := names(list(t, s, "", asker)); strings.Contains(got, "C@192.0.2.2:2 ") || !strings.Contains(got, "C@192.0.2.2:9001 ") {
		t.Errorf("%s", got)
	}
}

func TestExpiry(t *testing.T) {
	c := newClock()
	s := start(t, ServerConfig{Now: c.now})
	accepted(t, s, "192.0.2.1", plain("A", 1))
	accepted(t, s, "192.0.2.2", plain("B", 2))
	c.pass(DefaultTTL - time.Second)
	accepted(t, s, "192.0.2.2", plain("B", 2))
	if got := list(t, s, "", asker); len(got) != 2 {
		t.Errorf("%v", got)
	}
	c.pass(time.Second)
	if got := names(list(t, s, "", asker)); got != "B@192.0.2.2:2 " {
		t.Errorf("%s", got)
	}
	s.table.sweep(c.now())
	if s.Entries() != 1 {
		t.Errorf("%d entries", s.Entries())
	}
}

// There is room for so many entries, in all and of one address, and a crowded
// address keeps nobody else out.
func TestBounds(t *testing.T) {
	c := newClock()
	s := start(t, ServerConfig{Now: c.now, MaxEntries: 6, PerAddress: 3})
	for i := range 3 {
		accepted(t, s, "192.0.2.1", plain(fmt.Sprint(i), 1))
	}
	refusedWith(t, s, "192.0.2.1", plain("3", 1), 429, CodeCrowded)
	accepted(t, s, "192.0.2.1", plain("2", 2)) // its own entries it may renew
	for i := range 3 {
		accepted(t, s, "2001:db8::"+fmt.Sprint(i), plain("v6", 1))
	}
	refusedWith(t, s, "2001:db8::ffff:1", plain("v6", 1), 429, CodeCrowded) // one subscriber's network
	refusedWith(t, s, "192.0.2.2", plain("x", 1), 503, CodeFull)
	accepted(t, s, "192.0.2.1", plain("2", 3))
	c.pass(DefaultTTL)
	accepted(t, s, "192.0.2.2", plain("x", 1)) // expired ones make room
	accepted(t, s, "192.0.2.1", plain("3", 1))

	// A peer that moves counts where it is.
	moved := signed(t, 1, func(a *Announcement) { a.TimeMS = uint64(c.now().UnixMilli()) })
	accepted(t, s, "192.0.2.3", encoded(t, moved))
	accepted(t, s, "192.0.2.1", plain("4", 1))
	accepted(t, s, "192.0.2.1", plain("5", 1))
	moved = signed(t, 1, func(a *Announcement) { a.TimeMS = uint64(c.now().UnixMilli()) + 1 })
	refusedWith(t, s, "192.0.2.1", encoded(t, moved), 429, CodeCrowded)
	if n := len(s.table.byAddr); n != 3 {
		t.Errorf("%d addresses are counted", n)
	}
}

func TestRateLimit(t *testing.T) {
	c := newClock()
	s := start(t, ServerConfig{Now: c.now})
	for range requestBurst - 1 {
		s.rates.allow(netip.MustParseAddr("192.0.2.1"), c.now())
	}
	list(t, s, "", "192.0.2.1")
	status, header, body := ask(t, s, "GET", "/peers", "192.0.2.1", nil)
	if status != 429 || header.Get("Retry-After") == "" || !strings.Contains(body, CodeTooMany) {
		t.Errorf("%d %v %s", status, header, body)
	}
	accepted(t, s, "192.0.2.2", plain("A", 1)) // somebody else
	c.pass(time.Second)
	accepted(t, s, "192.0.2.1", plain("A", 1))

	l := newLimiter()
	for i := range 2 * maxLimiters {
		l.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), c.now())
	}
	if len(l.m) > maxLimiters {
		t.Errorf("%d addresses are remembered", len(l.m))
	}
}

func TestBadRequests(t *testing.T) {
	s := start(t, ServerConfig{})
	id := signed(t, 1, nil).PeerID
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/", "", 404, CodeNotFound},
		{"GET", "/p2p/v2/peers", "", 404, CodeNotFound},
		{"GET", "/peers/", "", 404, CodeNotFound},
		{"POST", "/peers", "", 405, CodeMethod},
		{"DELETE", "/p2p/v1/peers", "", 405, CodeMethod},
		{"GET", "/announce", "", 405, CodeMethod},
		{"PUT", "/announce", "{}", 405, CodeMethod},
		{"GET", "/peers?limit=0", "", 400, CodeInvalidLimit},
		{"GET", "/peers?limit=201", "", 400, CodeInvalidLimit},
		{"GET", "/peers?limit=-1", "", 400, CodeInvalidLimit},
		{"GET", "/peers?limit=many", "", 400, CodeInvalidLimit},
		{"GET", "/peers?limit=", "", 400, CodeInvalidLimit},
		{"GET", "/peers?network=dev", "", 400, CodeInvalidNetwork},
		{"POST", "/announce", "", 400, CodeInvalidJSON},
		{"POST", "/announce", "hello", 400, CodeInvalidJSON},
		{"POST", "/announce", "{}{}", 400, CodeInvalidJSON},
		{"POST", "/announce", "{}", 400, CodeInvalidAnnouncement},
		{"POST", "/announce", `{"node_id":"A","tcp_port":99999}`, 400, CodeInvalidAnnouncement},
		{"POST", "/announce", `{"node_id":"A","tcp_port":1,"ts_ms":1,"peer_id":"` + id + `"}`, 401, CodeUnsigned},
		{"POST", "/announce", strings.Repeat(" ", MaxAnnouncement+1), 413, CodeTooLarge},
		{"POST", "/announce", strings.Repeat("x", 1<<20), 413, CodeTooLarge},
	} {
		status, header, body := ask(t, s, c.method, c.path, asker, []byte(c.body))
		var e errorJSON
		if err := json.Unmarshal([]byte(body), &e); err != nil || status != c.status || e.Error != c.code || e.Message == "" {
			t.Errorf("%s %s %.60s: %d %s; want %d %s", c.method, c.path, c.body, status, body, c.status, c.code)
		}
		if status == 405 && header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
	if status, _, body := ask(t, s, "GET", "/peers", "nonsense", nil); status != 400 {
		t.Errorf("without the proxy: %d %s", status, body)
	}
	// A web page of another site announces nothing.
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+s.Addr()+"/announce", bytes.NewReader(plain("A", 1)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 403 || !strings.Contains(string(body), CodeForbidden) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestListing(t *testing.T) {
	c := newClock()
	s := start(t, ServerConfig{Now: c.now})
	networks := []string{"", strings.Repeat("a", 32), strings.Repeat("b", 32)}
	for i := range 60 {
		accepted(t, s, fmt.Sprintf("192.0.2.%d", i+1), fmt.Appendf(nil, `{"node_id":"%d","tcp_port":1,"network":%q}`, i, networks[i%3]))
	}
	if got := list(t, s, "", asker); len(got) != DefaultLimit {
		t.Errorf("%d peers", len(got))
	}
	if got := list(t, s, "?limit=200", asker); len(got) != 60 {
		t.Errorf("%d peers", len(got))
	}
	// A different choice each time, from all.
	seen := map[string]bool{}
	for range 50 {
		for _, p := range list(t, s, "?limit=10", asker) {
			seen[p.NodeID] = true
		}
	}
	if len(seen) < 50 { // of 60; all but certain
		t.Errorf("50 random choices of 10 show %d peers", len(seen))
	}
	// One's own network first, then those that tell none, the others never.
	c.pass(10 * time.Second)
	got := list(t, s, "?limit=30&network="+networks[1], asker)
	if len(got) != 30 {
		t.Fatalf("%d peers", len(got))
	}
	for i, p := range got {
		if want := map[bool]string{true: networks[1]}[i < 20]; p.Network != want {
			t.Errorf("peer %d is of network %q, want %q", i, p.Network, want)
		}
	}
}

// An answer stays within what clients take, however long the entries are.
func TestAnswerIsBounded(t *testing.T) {
	tb := newTable(DefaultTTL, 1000, 1000)
	now := time.Now()
	for i := range 300 {
		a := &Announcement{NodeID: fmt.Sprint(i), TCPPort: 1, PeerID: fmt.Sprint(i), TimeMS: uint64(now.UnixMilli()), Network: strings.Repeat("a", networkTag)}
		for len(a.Addrs) < 10 {
			a.Addrs = append(a.Addrs, "/ip6/2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff/udp/65535/quic-v1")
		}
		if _, err := tb.put(a, netip.MustParseAddr("192.0.2.1"), now); err != nil {
			t.Fatal(err)
		}
	}
	peers := tb.list(MaxLimit, "", false, now)
	data, err := json.Marshal(peersJSON{peers})
	if err != nil || len(data)+1 > MaxAnswer || len(data) < MaxAnswer*9/10 {
		t.Errorf("%d peers make %d bytes, %v", len(peers), len(data), err)
	}
}

// What is at loopback is of use on this machine only.
func TestLoopbackEntries(t *testing.T) {
	c := newClock()
	s := start(t, ServerConfig{Now: c.now})
	accepted(t, s, "127.0.0.1", plain("bare", 1))
	accepted(t, s, "127.0.0.1", encoded(t, signed(t, 1, func(a *Announcement) {
		a.NodeID = "signed"
		a.Addrs = []string{"/ip4/127.0.0.1/tcp/9001", "/ip4/192.0.2.77/udp/9001/quic-v1", "/ip4/192.0.2.77/tcp/9002"}
	})))
	if got := names(list(t, s, "", asker)); got != "signed@192.0.2.77:9002 " {
		t.Errorf("another machine sees %s", got)
	}
	if got := names(list(t, s, "", "127.0.0.1")); !strings.Contains(got, "bare@127.0.0.1:1 ") || !strings.Contains(got, "signed@127.0.0.1:9001 ") {
		t.Errorf("this machine sees %s", got)
	}
}

func TestServerConfig(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, c := range []struct {
		cfg  ServerConfig
		says string
	}{
		{ServerConfig{Addr: "8080"}, "host:port"},
		{ServerConfig{Addr: "host:80"}, "IP address"},
		{ServerConfig{Addr: "127.0.0.1:70000"}, "host:port"},
		{ServerConfig{TTL: time.Millisecond}, "1s"},
		{ServerConfig{TTL: -1}, "1s"},
		{ServerConfig{MaxEntries: -1}, "room"},
		{ServerConfig{Addr: busy.Addr().String()}, "another program"},
	} {
		s, err := Start(c.cfg)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.says)
		}
	}
}

// A client that says nothing, or half of something, is closed in time and keeps
// nobody out; Close does not wait for it.
func TestSilentClients(t *testing.T) {
	s := startAs(t, ServerConfig{Addr: "127.0.0.1:0"})
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range maxAddrConns {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if i%2 == 0 {
			fmt.Fprint(c, "POST /announce HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
		}
	}
	// One more of this address is not served; when they are gone it is.
	extra, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	fmt.Fprint(extra, "GET /peers HTTP/1.0\r\n\r\n")
	_ = extra.SetReadDeadline(time.Now().Add(patience))
	if n, err := extra.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one connection too many is answered, or not closed: %d, %v", n, err)
	}
	for _, c := range conns {
		c.Close()
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get("http://" + s.Addr() + "/peers")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	hanging, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	fmt.Fprint(hanging, "POST /announce HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	began := time.Now()
	if err := s.Close(); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("close: %v after %s", err, time.Since(began))
	}
}

// docs/wire.md names every code.
func TestCodesAreDocumented(t *testing.T) {
	wire, err := os.ReadFile(filepath.Join("..", "..", "docs", "wire.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{
		CodeInvalidJSON, CodeInvalidAnnouncement, CodeInvalidLimit, CodeInvalidNetwork, CodeInvalidRequest, CodeUnsigned, CodeBadSignature, CodeForbidden,
		CodeStale, CodeNotFound, CodeMethod, CodeReplayed, CodeTaken, CodeTooLarge, CodeTooMany, CodeCrowded, CodeInternal, CodeFull,
	} {
		if !bytes.Contains(wire, []byte("`"+code+"`")) {
			t.Errorf("docs/wire.md does not name %s", code)
		}
	}
}
