package localapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func proofAnswer(proof string) string {
	body := fmt.Sprintf("{\"proof\":%q}\n", proof)
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// proofAnswerOf is the answer of the node itself.
func proofAnswerOf(e endpoint, nonce string) string {
	body := fmt.Sprintf("{\"proof\":%q,\"dir\":%q}\n", proofOf(e.token, nonce), proofOfDir(e, nonce))
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// stranger is a program that listens where a killed node did.
type stranger struct {
	ln   net.Listener
	done sync.WaitGroup

	mu   sync.Mutex // guards what follows
	seen bytes.Buffer
}

// newStranger listens at addr and answers each thing that it reads.
func newStranger(t *testing.T, addr string, answer func(read string) string) *stranger {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &stranger{ln: ln}
	s.done.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.done.Go(func() {
				defer conn.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := conn.Read(buf)
					s.mu.Lock()
					s.seen.Write(buf[:n])
					s.mu.Unlock()
					if err != nil {
						return
					}
					if _, err := io.WriteString(conn, answer(string(buf[:n]))); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(s.close)
	return s
}

func (s *stranger) close() {
	s.ln.Close()
	s.done.Wait()
}

func (s *stranger) heard() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// Whoever has got the port of a killed node learns neither its token nor what a
// command wants to write.
func TestStrangerLearnsNothing(t *testing.T) {
	token := newToken()
	old := proofAnswer(proofOf(token, strings.Repeat("0", 64)))
	for name, answer := range map[string]string{
		"a pong":            "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"pong\":true}",
		"no proof":          proofAnswer(""),
		"another's proof":   proofAnswer(proofOf(newToken(), strings.Repeat("0", 64))),
		"an old proof":      old,
		"a refusal":         "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
		"a redirect":        "HTTP/1.1 302 Found\r\nLocation: /v1/ping\r\nContent-Length: 0\r\n\r\n",
		"other noise":       "SSH-2.0-OpenSSH_9.2\r\n",
		"an endless answer": "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 10000),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStranger(t, "127.0.0.1:0", func(string) string { return answer })
			dir := t.TempDir()
			if err := writeEndpoint(dir, endpoint{addr: s.ln.Addr().String(), token: token}); err != nil {
				t.Fatal(err)
			}
			var silent *SilentError
			if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) || errors.As(err, &silent) {
				t.Errorf("Dial = %v", err)
			}
			if h := s.heard(); !strings.HasPrefix(h, "GET /v1/prove?nonce=") || strings.Contains(h, token) || strings.Contains(h, "Authorization") {
				t.Errorf("the stranger heard %q", h)
			}
		})
	}
}

// The port changes hands while a client is in use.
func TestStrangerLaterOn(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(Config{Dir: dir, Backend: newFake()})
	if err != nil {
		t.Fatal(err)
	}
	e := s.endpoint
	c, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Close()
	c.Close() // the connection that it had is gone
	x := newStranger(t, e.addr, func(string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" })
	_, err = c.Write(t.Context(), "default", Write{Ops: []Op{{Op: OpPut, Key: []byte("k"), Value: []byte("secret value")}}})
	if CodeOf(err) != CodeClosed || !strings.Contains(err.Error(), "another program answers there") || !strings.Contains(err.Error(), "whether a write") {
		t.Errorf("Write = %v", err)
	}
	if h := x.heard(); !strings.Contains(h, "/v1/prove") || strings.Contains(h, e.token) || strings.Contains(h, "secret value") {
		t.Errorf("the stranger heard %q", h)
	}
}

// Whoever accepts connections and says nothing may be the node, or not.
func TestSilent(t *testing.T) {
	s := newStranger(t, "127.0.0.1:0", func(string) string { return "" })
	dir := t.TempDir()
	if err := writeEndpoint(dir, endpoint{addr: s.ln.Addr().String(), token: newToken()}); err != nil {
		t.Fatal(err)
	}
	_, err := dial(t.Context(), dir, 20*time.Millisecond)
	var silent *SilentError
	if !errors.As(err, &silent) || !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Dial = %v", err)
	}
}

// The question for the proof comes from nobody known: it needs no token, but a
// loopback name.
func TestProveNeedsNoToken(t *testing.T) {
	_, _, dir := start(t)
	e, err := readEndpoint(dir)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{"": http.StatusOK, "evil.example": http.StatusUnauthorized} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.addr+provePath+"?nonce="+strings.Repeat("a", 64), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("host %q: status %d, want %d", host, res.StatusCode, want)
		}
	}
}

// A copy of a running node's directory has its files too, and is not its
// directory: a command on the copy must not reach the original.
func TestCopyOfADirectory(t *testing.T) {
	_, _, dir := start(t)
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	var silent *SilentError
	if _, err := Dial(t.Context(), copied); !errors.Is(err, ErrNotRunning) || errors.As(err, &silent) {
		t.Errorf("Dial of the copy = %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, same := range []string{dir, dir + "/.", link} {
		c, err := Dial(t.Context(), same)
		if err != nil {
			t.Fatalf("Dial(%s) = %v", same, err)
		}
		c.Close()
	}
}
