package replicator

import (
	"context"
	"sync"
	"time"

	"vixp2p/replication"
)

// writer sends messages from a queue, so that the actor never blocks on the
// network.
type writer struct {
	conn   Conn
	batch  int         // about how many bytes go into one Write
	failed func(error) // called once, from the writer's goroutine
	sent   func(msg replication.Message)

	wake chan struct{} // holds a token while there may be work
	idle chan struct{} // closed when finish was called and all is written, or writing failed

	mu       sync.Mutex // guards below
	queue    []outgoing
	bytes    int           // queued or being written
	progress time.Time     // when the transport last took something, or when the queue became non-empty
	finished bool          // nothing more is queued
	below    chan struct{} // closed when bytes shrinks; nil if nobody waits
}

type outgoing struct {
	msg  replication.Message
	size int
}

// batchBytes is about how much goes into one Conn.Write, so that acks and pings
// cost no system call each and a write's time says something about the path. On a
// path that is cut often it is one piece, so that what was sent before the cut is
// known.
const batchBytes = 256 << 10

func newWriter(conn Conn, batch int) *writer {
	return &writer{conn: conn, batch: batch, wake: make(chan struct{}, 1), idle: make(chan struct{})}
}

// put queues a message, unless the writer has finished.
func (w *writer) put(now time.Time, msg replication.Message) {
	o := outgoing{msg: msg, size: messageSize(msg)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.finished {
		return
	}
	if w.bytes == 0 {
		w.progress = now
	}
	w.queue = append(w.queue, o)
	w.bytes += o.size
	w.signal()
}

// backlog is how many bytes wait for the peer, and since when it took none.
func (w *writer) backlog() (bytes int, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes, w.progress
}

// room waits until at most limit bytes wait for the peer; false if ctx ends first.
func (w *writer) room(ctx context.Context, limit int) bool {
	for {
		w.mu.Lock()
		if w.bytes <= limit {
			w.mu.Unlock()
			return ctx.Err() == nil
		}
		if w.below == nil {
			w.below = make(chan struct{})
		}
		below := w.below
		w.mu.Unlock()
		select {
		case <-below:
		case <-ctx.Done():
			return false
		}
	}
}

// finish lets the queue run out; idle tells when it has.
func (w *writer) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished = true
	w.signal()
}

// run writes until the queue has run out after finish, or until the connection
// breaks.
func (w *writer) run() {
	defer close(w.idle)
	var msgs []replication.Message
	for {
		batch, last := w.next()
		if len(batch) == 0 {
			if last {
				return
			}
			<-w.wake
			continue
		}
		msgs = msgs[:0]
		size := 0
		for _, o := range batch {
			msgs = append(msgs, o.msg)
			size += o.size
		}
		err := w.conn.Write(msgs...)
		clear(msgs)
		for i := 0; err == nil && i < len(batch); i++ {
			w.sent(batch[i].msg)
		}
		clear(batch)
		w.mu.Lock()
		w.bytes -= size
		w.progress = time.Now()
		if w.below != nil {
			close(w.below)
			w.below = nil
		}
		w.mu.Unlock()
		if err != nil {
			w.drop()
			w.failed(err)
			return
		}
	}
}

// next takes one batch from the queue; last tells that nothing follows it.
func (w *writer) next() (batch []outgoing, last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, size := 0, 0
	for n < len(w.queue) && (n == 0 || size+w.queue[n].size <= w.batch) {
		size += w.queue[n].size
		n++
	}
	batch = w.queue[:n:n]
	if w.queue = w.queue[n:]; len(w.queue) == 0 {
		w.queue = nil
	}
	return batch, w.finished && len(w.queue) == 0
}

// drop empties the queue and refuses what comes.
func (w *writer) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished = true
	w.queue, w.bytes = nil, 0
}

func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// messageSize is about how many bytes a message holds in memory and on the wire.
func messageSize(m replication.Message) int {
	const base, entry = 64, 112
	switch m := m.(type) {
	case *replication.WalPush:
		return 2*base + len(m.Data)
	case *replication.WalAck:
		return base + 2*entry*len(m.Entries)
	case *replication.FrontierDiff:
		return base + entry*len(m.Entries)
	case *replication.Announce:
		return base + entry*len(m.Entries)
	case *replication.Prune:
		return base + 32*len(m.Logs)
	case *replication.Receipt:
		return 3*base + entry*len(m.Entries)
	case *replication.Control:
		return base + len(m.Data)
	case *replication.ForkProofMsg:
		return 2*base + len(m.Proof.A) + len(m.Proof.B)
	}
	return base
}
