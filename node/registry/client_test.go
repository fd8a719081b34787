package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func client(t *testing.T, url string, c *clock) *Client {
	t.Helper()
	if c == nil {
		c = newClock()
	}
	cl, err := NewClient(url, c.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func base(s *Server) string { return "http://" + s.Addr() + Prefix }

func TestClientAndServer(t *testing.T) {
	c := newClock()
	s := startAs(t, ServerConfig{Addr: "127.0.0.1:0", Now: c.now})
	for i, url := range []string{base(s), base(s) + "/", "http://" + s.Addr()} {
		cl := client(t, url, c)
		a := sample()
		if err := cl.Announce(t.Context(), key(byte(i+1)), *a); err != nil {
			t.Fatal(err)
		}
		if a.PeerID != "" || a.Sig != nil {
			t.Error("the caller's announcement was changed")
		}
		if err := cl.Announce(t.Context(), key(byte(i+1)), *a); err != nil {
			t.Errorf("again, at the same moment: %v", err)
		}
		peers, err := cl.Peers(t.Context(), 0, "")
		if err != nil || len(peers) != i+1 || peers[0].Host != "127.0.0.1" || peers[0].Network != a.Network {
			t.Errorf("%+v, %v", peers, err)
		}
		if !cl.Local() {
			t.Error("the registry is on this machine")
		}
	}
	cl := client(t, base(s), c)
	if peers, err := cl.Peers(t.Context(), 1, sample().Network); err != nil || len(peers) != 1 {
		t.Errorf("%+v, %v", peers, err)
	}
	if peers, err := cl.Peers(t.Context(), 1, strings.Repeat("0", 32)); err != nil || len(peers) != 0 {
		t.Errorf("of another network: %+v, %v", peers, err)
	}
}

// A node whose clock is wrong is not left out: it takes the registry's time.
func TestClocksDiffer(t *testing.T) {
	for _, off := range []time.Duration{-30 * 365 * 24 * time.Hour, -time.Hour, time.Hour, 20 * 365 * 24 * time.Hour} {
		theirs, ours := newClock(), newClock()
		ours.pass(off)
		s := startAs(t, ServerConfig{Addr: "127.0.0.1:0", Now: theirs.now})
		cl := client(t, base(s), ours)
		for range 3 {
			if err := cl.Announce(t.Context(), key(1), *sample()); err != nil {
				t.Errorf("our clock is off by %s: %v", off, err)
			}
			ours.pass(15 * time.Second)
			theirs.pass(15 * time.Second)
		}
		ours.pass(-off) // somebody sets it right
		if err := cl.Announce(t.Context(), key(1), *sample()); err != nil {
			t.Errorf("our clock is right again: %v", err)
		}
		if s.Entries() != 1 {
			t.Errorf("%d entries", s.Entries())
		}
	}
}

func TestParseURL(t *testing.T) {
	for _, s := range []string{"http://127.0.0.1:8080/p2p/v1", "https://registry.example", "http://[::1]:8080/", "http://user:secret@host/x"} {
		if _, err := ParseURL(s); err != nil {
			t.Error(err)
		}
	}
	for s, says := range map[string]string{
		"": "HTTP", "127.0.0.1:8080": "HTTP", "localhost:8080/p2p/v1": "HTTP", "ftp://host/x": "HTTP", "host": "HTTP", "/ip4/127.0.0.1/tcp/80": "HTTP",
		"file:///etc/passwd": "HTTP", "http://": "no host", "http:///p2p": "no host", "http://host:0/": "port", "http://host:99999/": "port",
		"http://host/?x=1": "query", "http://host/#x": "fragment", "http://ho st/": "not a URL", "http://host:port/": "not a URL",
	} {
		if _, err := ParseURL(s); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "http://127.0.0.1:8080/p2p/v1") {
			t.Errorf("%q: %v, want %q", s, err, says)
		}
	}
	cl := client(t, "http://user:secret@127.0.0.1:1/x", nil)
	if _, err := cl.Peers(t.Context(), 0, ""); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

// A hostile registry costs a little time and memory, and one sentence.
func TestHostileRegistries(t *testing.T) {
	chunk := []byte(strings.Repeat("[[[[[[[[", 4096))
	var sent, looped atomic.Int64
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		trouble Trouble
		says    string
	}{
		{"text", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>\x1b[31mhello\n") }, Garbage, "is the URL right"},
		{"other JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"ok":1}`) }, Garbage, "is the URL right"},
		{"null", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"peers":null}`) }, Garbage, "is the URL right"},
		{"nested", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(chunk) }, Garbage, "is the URL right"},
		{"a gigabyte", func(w http.ResponseWriter, _ *http.Request) {
			for range 1 << 30 / len(chunk) {
				n, err := w.Write(chunk)
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		}, Garbage, "more than 65536 bytes"},
		{"a byte a second", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				fmt.Fprint(w, " ")
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(50 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
		}, TimedOut, "in time"},
		{"silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, TimedOut, "in time"},
		{"loop", func(w http.ResponseWriter, r *http.Request) {
			looped.Add(1)
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, Redirected, "more than 3 times"},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/x", http.StatusTemporaryRedirect)
		}, Redirected, "another host, http://169.254.169.254/x"},
		{"no HTTP", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusTemporaryRedirect)
		}, Redirected, "not HTTP"},
		{"nowhere", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://[::x/")
			w.WriteHeader(307)
		}, Garbage, "no answer that makes sense"},
		{"no location", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(307) }, Refused, "status 307"},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, Refused, "status 500"},
		{"error", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			fmt.Fprint(w, `{"error":"registry_full","message":"no room\n\u001b[31m`+strings.Repeat("x", 1000)+`"}`)
		}, Refused, "refuses: no room"},
		{"huge header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, Garbage, "no answer that makes sense"},
		{"cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		}, Garbage, "no answer that makes sense"},
	} {
		t.Run(c.name, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection is not noticed
				c.handler(w, r)
			}))
			defer web.Close()
			cl := client(t, web.URL, nil)
			if c.trouble == TimedOut {
				cl.timeout = 300 * time.Millisecond
			}
			check := func(what string, err error) {
				t.Helper()
				var e *Error
				if !errors.As(err, &e) || e.Trouble != c.trouble || what == "peers" && !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v; want %s, %q", what, err, c.trouble, c.says)
				}
				if err != nil && (len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\n\x1b")) {
					t.Errorf("%s: %q is not fit for a log", what, err)
				}
			}
			_, err := cl.Peers(t.Context(), 0, "")
			check("peers", err)
			check("announce", cl.Announce(t.Context(), key(1), *sample()))
		})
	}
	if n := looped.Load(); n != 2*(1+maxRedirects) {
		t.Errorf("%d requests in a loop of redirects, in two attempts", n)
	}
	if n := sent.Load(); n > 64<<20 {
		t.Errorf("%d bytes of a gigabyte were taken", n)
	}
}

func TestUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := ln.Addr().String()
	ln.Close()
	for _, host := range []string{dead, "no-such-host.invalid"} {
		var e *Error
		if _, err := client(t, "http://"+host, nil).Peers(t.Context(), 0, ""); !errors.As(err, &e) || e.Trouble != Unreachable {
			t.Errorf("%s: %v", host, err)
		}
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := tcp.Accept(); err == nil {
			cancel()
			defer c.Close()
			<-ctx.Done()
		}
	}()
	if _, err := client(t, "http://"+tcp.Addr().String(), nil).Peers(ctx, 0, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled by the caller: %v", err)
	}
}

// Within its own host a registry may redirect: from http to https, or a changed
// path. An announcement is sent again as it was, or not at all.
func TestRedirectWithinHost(t *testing.T) {
	s := startAs(t, ServerConfig{Addr: "127.0.0.1:0", Now: newClock().now})
	code := 308
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+s.Addr()+r.URL.RequestURI(), code)
	}))
	defer web.Close()
	cl := client(t, web.URL, nil)
	if err := cl.Announce(t.Context(), key(1), *sample()); err != nil {
		t.Error(err)
	}
	if peers, err := cl.Peers(t.Context(), 5, ""); err != nil || len(peers) != 1 {
		t.Errorf("%+v, %v", peers, err)
	}
	code = 302
	if _, err := cl.Peers(t.Context(), 5, ""); err != nil {
		t.Error(err)
	}
	var e *Error
	if err := cl.Announce(t.Context(), key(1), *sample()); !errors.As(err, &e) || e.Trouble != Redirected || !strings.Contains(err.Error(), "lose it") {
		t.Errorf("%v", err)
	}
}

// What makes no sense is left out, and the rest is used.
func TestStrangeEntries(t *testing.T) {
	good := `{"host":"192.0.2.1","tcp_port":9001,"node_id":"A"}`
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"later":1,"peers":[null,7,"x",[],{},{"host":"x"},{"host":"192.0.2.1"},{"host":"192.0.2.1","tcp_port":"9001"},{"host":"192.0.2.1","tcp_port":99999},`+
			`{"host":"localhost","tcp_port":1},{"host":"192.0.2.1","tcp_port":1,"node_id":"\u001b"},{"host":"192.0.2.1","tcp_port":1,"peer_id":"x"},`+
			`{"host":"192.0.2.1","tcp_port":1,"network":"x"},{"host":"192.0.2.1","tcp_port":1,"addrs":["\n"]},`+good+`,`+
			`{"host":"192.0.2.2","tcp_port":9002,"node_id":"B","addrs":null,"later":[1]}]}`)
	}))
	defer web.Close()
	peers, err := client(t, web.URL, nil).Peers(t.Context(), 0, "")
	if err != nil || names(peers) != "A@192.0.2.1:9001 B@192.0.2.2:9002 " {
		t.Errorf("%s, %v", names(peers), err)
	}
	many := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"peers":[`+strings.Repeat(good+",", 1000)+good+`]}`)
	}))
	defer many.Close()
	if peers, err := client(t, many.URL, nil).Peers(t.Context(), 0, ""); err != nil || len(peers) != MaxLimit {
		t.Errorf("%d peers, %v", len(peers), err)
	}
}

// Whatever a registry answers, what is taken from it is fit to be used and shown.
func FuzzReadPeers(f *testing.F) {
	f.Add([]byte(`{"peers":[{"node_id":"A","host":"192.0.2.1","tcp_port":9001,"peer_id":"","addrs":[]}]}`))
	f.Add([]byte(`{"peers":[{"host":"::1","tcp_port":1,"addrs":["/ip4/192.0.2.1/tcp/1"],"network":"00000000000000000000000000000000"},null,7]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		peers, _ := readPeers(data)
		if len(peers) > MaxLimit {
			t.Fatalf("%d peers", len(peers))
		}
		for _, p := range peers {
			if !p.sensible() || strings.ContainsAny(p.NodeID+p.Host+p.PeerID+strings.Join(p.Addrs, ""), "\n\r\x1b") {
				t.Fatalf("%+v", p)
			}
		}
	})
}
