package bench

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// allocated is how many bytes of the disk the files of a directory take.
func allocated(dir string) (total float64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			total += float64(allocatedBytes(fi))
		}
		return err
	})
	return total, err
}

// proxy passes TCP connections on and counts what goes over them.
type proxy struct {
	l     net.Listener
	to    string
	bytes atomic.Int64

	running sync.WaitGroup
	mu      sync.Mutex // guards below
	conns   []net.Conn
	closed  bool
}

func openProxy(to ma.Multiaddr) (*proxy, error) {
	addr, err := manet.ToNetAddr(to)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{l: l, to: addr.String()}
	p.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			p.running.Go(func() { p.pass(c) })
		}
	})
	return p, nil
}

func (p *proxy) port() int { return p.l.Addr().(*net.TCPAddr).Port }

// keep notes a connection to be closed; false after close.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	p.conns = append(p.conns, c)
	return true
}

func (p *proxy) pass(near net.Conn) {
	far, err := net.Dial("tcp", p.to)
	if err != nil {
		_ = near.Close() // the dialer sees that
		return
	}
	if !p.keep(near) || !p.keep(far) {
		_, _ = near.Close(), far.Close()
		return
	}
	copy := func(to, from net.Conn) {
		_, _ = io.Copy(struct{ io.Writer }{to}, countedReader{from, &p.bytes})
		_, _ = to.Close(), from.Close() // the other direction ends too
	}
	p.running.Go(func() { copy(near, far) })
	copy(far, near)
}

type countedReader struct {
	io.Reader
	n *atomic.Int64
}

func (c countedReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func (p *proxy) close() error {
	err := p.l.Close()
	p.mu.Lock()
	p.closed = true
	for _, c := range p.conns {
		if e := c.Close(); !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	p.mu.Unlock()
	p.running.Wait()
	return err
}
