package protocols

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"vixp2p/replication"
)

// Conn carries replication's messages over a stream after Hello. One goroutine
// may read while others write and close. It starts no goroutine.
type Conn struct {
	sess *Session
	s    Stream
	r    *Reader

	byeHeard atomic.Bool // the peer said Bye: no answer is due

	// writing is a lock of one slot that guards w, byeSaid and the order of
	// frames. It is held while a write waits for the peer, which a mutex would
	// hide from virtual time in tests.
	writing chan struct{}
	w       *Writer
	byeSaid bool

	mu      sync.Mutex // guards all below and write deadlines; never held while waiting
	closing bool
	werr    error // first failure of a write; the stream is then broken

	closed   chan struct{} // closed by the first Close at its end
	closeErr error         // set before closed is closed
}

// NewConn goes on with a session's stream. The Conn owns it.
func NewConn(sess *Session) *Conn {
	return &Conn{
		sess: sess, s: sess.stream, r: sess.r, w: sess.w,
		writing: make(chan struct{}, 1), closed: make(chan struct{}),
	}
}

// Session is the handshake that the Conn goes on from.
func (c *Conn) Session() *Session { return c.sess }

// Read returns the next message. A WalPush, ForkProof or Control holds bytes of
// the budget until release is called, once, by whoever keeps the message;
// release is never nil.
//
// io.EOF means that the peer closed the stream without a Bye; replication.ErrClosed
// that this side closed it; ErrStale that a frame began and did not end in its
// time. After a *ProtocolError the peer is told by Close(CodeOf(err), ...). After
// a failed Write, Read goes on for ByeTimeout, since the peer may have said why,
// and then returns the error of that Write.
func (c *Conn) Read() (m replication.Message, release func(), err error) {
	f, err := c.r.Next()
	if err != nil {
		return nil, func() {}, c.readError(err)
	}
	release = c.releaser(len(f.Attachment))
	v, err := Decode(f)
	if err == nil {
		m, err = c.check(v)
	}
	if err != nil {
		release()
		return nil, func() {}, err
	}
	return m, release, nil
}

// check looks at what a message says about this network and session.
func (c *Conn) check(v any) (replication.Message, error) {
	m, ok := v.(replication.Message)
	if !ok {
		return nil, faultf(ErrUnexpected, TypeOf(v), "it does not belong to a session")
	}
	switch m := m.(type) {
	case *replication.FrontierDigest:
		if m.Name != "" && replication.SpaceOf(c.sess.Network, m.Name) != m.Space {
			return nil, faultf(ErrMessage, TypeFrontierDigest, "space %s does not follow from its name", m.Space)
		}
	case *replication.Receipt:
		if m.Network != c.sess.Network {
			return nil, faultf(ErrMessage, TypeReceipt, "it is of another network")
		}
	case *replication.Bye:
		c.byeHeard.Store(true)
	}
	return m, nil
}

func (c *Conn) releaser(n int) func() {
	if n == 0 {
		return func() {}
	}
	var done atomic.Bool
	return func() {
		if !done.Swap(true) {
			c.r.release(n)
		}
	}
}

func (c *Conn) readError(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
		return replication.ErrClosed
	case c.werr != nil:
		return c.werr
	case isTimeout(err):
		return fmt.Errorf("a frame of the peer did not end in its time: %w", ErrStale)
	}
	return err
}

// Serve reads messages and hands each to its handler, until reading or a handler
// fails; the messages' bytes are released after the handler. A Bye with a
// handler ends it like any other message, by the handler's error.
func (c *Conn) Serve(d *Dispatcher) error {
	for {
		m, release, err := c.Read()
		if err != nil {
			return err
		}
		err = d.Handle(m)
		release()
		if err != nil {
			return err
		}
	}
}

// Write sends messages in order and returns when all are handed to the stream.
// It fails with ErrSlowReader if the peer does not take them in time (FrameTimeout
// and the attachments' bytes at MinBytesPerSecond), and with
// replication.ErrClosed after Close. A message that cannot be sent, because it
// breaks a limit, fails alone with a *ProtocolError: those before it are sent.
func (c *Conn) Write(msgs ...replication.Message) error {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	for _, m := range msgs {
		for _, part := range split(m) {
			if err := c.writeLocked(part); err != nil {
				return err
			}
		}
	}
	return c.failed(c.w.Flush())
}

// writeLocked queues one message; writing is held.
func (c *Conn) writeLocked(m replication.Message) error {
	f, err := Encode(m)
	if err != nil {
		return errors.Join(err, c.failed(c.w.Flush()))
	}
	if err := c.allow(frameTime(len(f.Attachment))); err != nil {
		return err
	}
	if err := c.w.WriteFrame(f); err != nil {
		if errors.Is(err, ErrProtocol) { // refused before a byte of it was written
			return errors.Join(err, c.failed(c.w.Flush()))
		}
		return c.failed(err)
	}
	if f.Type == TypeBye {
		c.byeSaid = true
	}
	return nil
}

// allow gives the next write that much time, unless the Conn is closed or
// broken.
func (c *Conn) allow(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return replication.ErrClosed
	}
	if c.werr != nil {
		return c.werr
	}
	return c.s.SetWriteDeadline(time.Now().Add(d))
}

// failed notes the error of a write, which ends the reading side soon.
func (c *Conn) failed(err error) error {
	if err == nil {
		return nil
	}
	if isTimeout(err) {
		err = fmt.Errorf("the peer did not take what was sent to it in time: %w", ErrSlowReader)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return replication.ErrClosed
	}
	if c.werr == nil {
		c.werr = err
		c.r.endBy(time.Now().Add(ByeTimeout))
	}
	return c.werr
}

// Close ends the session: it says Bye with the code, unless either side already
// did, and closes the stream. It takes at most about ByeTimeout and ends a Read
// or Write under way. The error tells that the Bye could not be sent. Called
// again, it waits for the first call and returns the same.
func (c *Conn) Close(code replication.Code, detail string) error {
	c.mu.Lock()
	first := !c.closing
	c.closing = true
	if first {
		_ = c.s.SetWriteDeadline(time.Now().Add(ByeTimeout)) // a stream that is gone says so in sayBye
	}
	c.mu.Unlock()
	if !first {
		<-c.closed
		return c.closeErr
	}
	err := c.sayBye(code, detail)
	c.r.endBy(time.Unix(1, 0))
	if err != nil || c.s.Close() != nil {
		abort(c.s) // Close fails if the peer has given up its side: the Bye was in time or not
	}
	c.closeErr = err
	close(c.closed)
	return err
}

// sayBye sends what is queued and a Bye. It fails if the stream is broken.
func (c *Conn) sayBye(code replication.Code, detail string) error {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	if !c.byeSaid && !c.byeHeard.Load() {
		f, err := Encode(&replication.Bye{Code: code, Detail: detail})
		if err != nil {
			return err
		}
		if err := c.w.WriteFrame(f); err != nil {
			return err
		}
	}
	return c.w.Flush()
}

// split cuts a message with too many entries for one frame into several that
// say the same.
func split(m replication.Message) []replication.Message {
	switch m := m.(type) {
	case *replication.WalAck:
		return chunks(m, m.Entries, acksPerFrame, func(e []replication.AckEntry) replication.Message {
			return &replication.WalAck{Entries: e}
		})
	case *replication.Announce:
		return chunks(m, m.Entries, EntriesPerDiff, func(e []replication.FrontierEntry) replication.Message {
			return &replication.Announce{Space: m.Space, Entries: e}
		})
	case *replication.Prune:
		return chunks(m, m.Logs, MaxEntries, func(l []replication.LogID) replication.Message {
			return &replication.Prune{Logs: l}
		})
	}
	return []replication.Message{m}
}

func chunks[E any](whole replication.Message, all []E, n int, part func([]E) replication.Message) []replication.Message {
	if len(all) <= n {
		return []replication.Message{whole}
	}
	var out []replication.Message
	for len(all) > 0 {
		k := min(n, len(all))
		out = append(out, part(all[:k]))
		all = all[k:]
	}
	return out
}
