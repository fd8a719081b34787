package replicator

import (
	"context"
	"slices"
	"sync"
	"time"

	"vixp2p/replication"
)

// writer sends messages from a queue, so that the actor never blocks on the
// network.
type writer struct {
	conn   Conn
	batch  int             // about how many bytes go into one Write
	pace   *Pace           // of runs
	ctx    context.Context // ends with the session; bounds a wait for the pace
	failed func(error)     // called once, from the writer's goroutine
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

func newWriter(ctx context.Context, conn Conn, batch int, pace *Pace) *writer {
	return &writer{ctx: ctx, conn: conn, batch: batch, pace: pace, wake: make(chan struct{}, 1), idle: make(chan struct{})}
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

// finish lets the queue run out, without pushes that would wait for their turn;
// idle tells when it has.
func (w *writer) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished = true
	if w.pace != nil {
		w.queue = slices.DeleteFunc(w.queue, func(o outgoing) bool {
			if bulk(o.msg) > 0 {
				w.bytes -= o.size
				return true
			}
			return false
		})
	}
	w.signal()
}

// run writes until the queue has run out after finish, or until the connection
// breaks.
func (w *writer) run() {
	defer close(w.idle)
	for {
		batch, last := w.next()
		if len(batch) == 0 {
			if last {
				return
			}
			<-w.wake
			continue
		}
		err := w.turn(batch)
		if err == nil {
			err = w.write(batch)
		}
		if err != nil {
			w.drop()
			w.failed(err)
			return
		}
	}
}

// write sends a batch and counts it.
func (w *writer) write(batch []outgoing) error {
	msgs := make([]replication.Message, len(batch))
	size := 0
	for i, o := range batch {
		msgs[i] = o.msg
		size += o.size
	}
	err := w.conn.Write(msgs...)
	for i := 0; err == nil && i < len(batch); i++ {
		w.sent(batch[i].msg)
	}
	clear(batch)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes -= size
	w.progress = time.Now()
	if w.below != nil {
		close(w.below)
		w.below = nil
	}
	return err
}

// turn waits until the pace lets a batch through. What overtakes is sent
// meanwhile.
func (w *writer) turn(batch []outgoing) error {
	n := 0
	for _, o := range batch {
		n += bulk(o.msg)
	}
	d := w.pace.take(time.Now(), n)
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		early, finished := w.overtaking()
		if len(early) > 0 {
			if err := w.write(early); err != nil {
				return err
			}
		}
		if finished {
			return nil
		}
		select {
		case <-timer.C:
			return nil
		case <-w.wake:
		case <-w.ctx.Done():
			return nil
		}
	}
}

// overtaking takes the messages from the queue that may pass the pushes before
// them, and tells whether nothing more comes.
func (w *writer) overtaking() (early []outgoing, finished bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := 0; i < len(w.queue); {
		switch o := w.queue[i]; {
		case overtakes(o.msg):
			early = append(early, o)
			w.queue = slices.Delete(w.queue, i, i+1)
		case bulk(o.msg) == 0:
			return early, w.finished
		default:
			i++
		}
	}
	return early, w.finished
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
		n := base + entry*len(m.Entries)
		for i := range m.Nodes {
			n += base + 16*len(m.Nodes[i].Digests)
		}
		return n
	case *replication.FrontierOpen:
		return 2*base + 2*len(m.Buckets)
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
