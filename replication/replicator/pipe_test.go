package replicator_test

import (
	"context"
	"errors"
	"io"
	"sync"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

var errCut = errors.New("the cable was cut")

// pipe is one direction of an in-memory connection. It takes messages up to a
// number of bytes before a writer has to wait.
type pipe struct {
	limit int

	mu      sync.Mutex                                      // guards below
	tamper  func(replication.Message) []replication.Message // nil: as they are
	queue   []replication.Message
	bytes   int
	stalled bool // the reader takes nothing
	err     error
	eof     bool
	changed chan struct{} // closed and replaced at every change
}

func newPipe() *pipe { return &pipe{limit: 1 << 20, changed: make(chan struct{})} }

func (p *pipe) changeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// await calls try under the lock until it says true.
func (p *pipe) await(try func() bool) {
	for {
		p.mu.Lock()
		if try() {
			p.changeLocked()
			p.mu.Unlock()
			return
		}
		changed := p.changed
		p.mu.Unlock()
		<-changed
	}
}

func size(m replication.Message) int { return 100 + attached(m) }

// attached is how many bytes of a message the reader reserves.
func attached(m replication.Message) int {
	switch m := m.(type) {
	case *replication.WalPush:
		return len(m.Data)
	case *replication.ForkProofMsg:
		return len(m.Proof.A) + len(m.Proof.B)
	}
	return 0
}

func (p *pipe) write(m replication.Message) (err error) {
	p.await(func() bool {
		switch {
		case p.err != nil || p.eof:
			err = errors.Join(p.err, io.ErrClosedPipe)
		case p.bytes > 0 && p.bytes+size(m) > p.limit:
			return false
		default:
			p.queue = append(p.queue, m)
			p.bytes += size(m)
		}
		return true
	})
	return err
}

func (p *pipe) read() (m replication.Message, err error) {
	p.await(func() bool {
		switch {
		case p.err != nil:
			err = p.err
		case p.stalled:
			return false
		case len(p.queue) > 0:
			m = p.queue[0]
			p.queue = p.queue[1:]
			p.bytes -= size(m)
		case p.eof:
			err = io.EOF
		default:
			return false
		}
		return true
	})
	return m, err
}

func (p *pipe) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.changeLocked()
}

// conn is one end of a connection.
type conn struct {
	in, out *pipe
	account *replicator.Account // nil: no budget
	ctx     context.Context
	cancel  context.CancelFunc

	mu     sync.Mutex // guards below
	code   replication.Code
	closed bool
}

// newConns makes a connection.
func newConns() (a, b *conn) {
	ab, ba := newPipe(), newPipe()
	mk := func(in, out *pipe) *conn {
		c := &conn{in: in, out: out}
		c.ctx, c.cancel = context.WithCancel(context.Background())
		return c
	}
	return mk(ba, ab), mk(ab, ba)
}

func (c *conn) Read() (replication.Message, func(), error) {
	m, err := c.in.read()
	if err != nil {
		return nil, nil, err
	}
	n := attached(m)
	if n == 0 || c.account == nil {
		return m, nil, nil
	}
	release, err := c.account.Reserve(c.ctx, n)
	return m, release, err
}

func (c *conn) Write(msgs ...replication.Message) error {
	var tamper func(replication.Message) []replication.Message
	c.out.set(func() { tamper = c.out.tamper })
	for _, m := range msgs {
		all := []replication.Message{m}
		if tamper != nil {
			all = tamper(m)
		}
		for _, m := range all {
			if err := c.out.write(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close lets the peer read what was written before.
func (c *conn) Close(code replication.Code, _ string) error {
	c.mu.Lock()
	if !c.closed {
		c.closed, c.code = true, code
	}
	c.mu.Unlock()
	c.cancel()
	if c.account != nil {
		c.account.Close()
	}
	c.out.set(func() { c.out.eof = true })
	c.in.set(func() { c.in.err = io.ErrClosedPipe })
	return nil
}

// cut breaks the connection for both ends; what is under way is lost.
func (c *conn) cut() {
	for _, p := range []*pipe{c.in, c.out} {
		p.set(func() { p.err = errCut })
	}
}

// stall stops or lets go on the reading of what this end writes.
func (c *conn) stall(on bool) { c.out.set(func() { c.out.stalled = on }) }

// cutAfter breaks the connection once what was written before is read.
func (c *conn) cutAfter() {
	c.out.set(func() { c.out.eof = true })
	c.in.set(func() { c.in.err = errCut })
}
