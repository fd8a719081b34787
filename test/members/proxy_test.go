package members_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy passes connections on to a node, and keeps what crosses it in both directions.
type proxy struct {
	late time.Duration // by how much what the node says is held up

	mu  sync.Mutex // guards all
	all bytes.Buffer
}

func (p *proxy) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Write(b)
}

func (p *proxy) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Len()
}

func (p *proxy) holds(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Contains(p.all.Bytes(), []byte(text))
}

// listen begins to pass connections on, and returns where.
func (p *proxy) listen(t *testing.T, to string) (addr string) {
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
			pass := func(dst, src net.Conn, late time.Duration) {
				_, _ = io.Copy(io.MultiWriter(p, lateWriter{dst, late}), src) // either end may go
				_ = dst.Close()
				_ = src.Close()
			}
			served.Go(func() { pass(there, here, 0) })
			served.Go(func() { pass(here, there, p.late) })
		}
	})
	return l.Addr().String()
}

// lateWriter holds up what is written.
type lateWriter struct {
	io.Writer
	late time.Duration
}

func (w lateWriter) Write(b []byte) (int, error) {
	time.Sleep(w.late)
	return w.Writer.Write(b)
}
