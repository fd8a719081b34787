package members_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// wiretap keeps what crosses a proxy, in both directions.
type wiretap struct {
	mu  sync.Mutex // guards all
	all bytes.Buffer
}

func (r *wiretap) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all.Write(b)
}

func (r *wiretap) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all.Len()
}

func (r *wiretap) holds(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.all.Bytes(), []byte(text))
}

// proxy passes connections on to a node and returns where it listens.
func (r *wiretap) proxy(t *testing.T, to string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); served.Wait() })
	served.Go(func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil {
				_ = here.Close()
				continue
			}
			pass := func(dst, src net.Conn) {
				_, _ = io.Copy(io.MultiWriter(dst, r), src) // either end may go
				_ = dst.Close()
				_ = src.Close()
			}
			served.Go(func() { pass(there, here) })
			served.Go(func() { pass(here, there) })
		}
	})
	return l.Addr().String()
}
