package replicator

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"vixp2p/replication"
)

// Peer is one session.
type Peer struct {
	r      *Replicator
	info   PeerInfo
	conn   Conn
	source uint64 // of what it brings, as in Advance.Source
	since  time.Time
	log    *slog.Logger

	box      *mailbox
	incoming chan incoming
	out      *writer
	reads    lane
	commits  lane
	inflight flights
	quota    *quota
	io       sync.WaitGroup  // reader, writer and lanes
	ctx      context.Context // ends with the session
	cancel   context.CancelFunc
	done     chan struct{} // closed when nothing of the session runs any more
	count    counters
	warnings warnings
	pushed   map[replication.LogID]uint64 // the highest seq pushed of each log; the writer's

	mu  sync.Mutex // guards below
	now published
	err *EndError // set before done is closed

	// The rest belongs to the actor.
	session    *replication.Session
	timer      *time.Timer
	end        *EndError // why the session ends; nil while it lives
	flush      bool      // what was sent is still to be taken
	mute       mute      // writing has failed
	held       holding
	fromMemory []replication.Event // runs of this step that were read at once
	weighed    int                 // entries of the peer's frontiers that are counted in Replicator.entries
	due        due
	pulls      []chan struct{} // Pull calls, oldest first; closed when answered
	probes     []probe         // Answers calls, oldest first
	inStep     bool            // it was in step with the peer when last looked at
}

// published is what the actor tells others of its session.
type published struct {
	stale   bool
	rtt     time.Duration
	heard   time.Time
	lastAck time.Time
}

// mute is a session that can no longer write. It reads on for a while, since the
// peer may have said why it went.
type mute struct {
	err error // nil: writing works
	end time.Time
}

// incoming is what the reader hands to the actor: a message or its last error.
type incoming struct {
	msg     replication.Message
	release func()
	err     error
}

func newPeer(r *Replicator, info PeerInfo, conn Conn, source uint64, share *share) *Peer {
	p := &Peer{
		r: r, info: info, conn: conn, source: source, since: time.Now(),
		log:      r.o.Logger.With("peer", info.ID),
		box:      newMailbox(source),
		incoming: make(chan incoming),
		done:     make(chan struct{}),
		timer:    time.NewTimer(time.Hour),
		pushed:   map[replication.LogID]uint64{},
		quota:    &quota{share: share},
	}
	p.now.heard = p.since
	p.reads.wg, p.commits.wg = &p.io, &p.io
	p.ctx, p.cancel = context.WithCancel(context.Background())
	piece := r.o.PieceBytes
	if info.PieceBytes != 0 {
		piece = info.PieceBytes
	}
	batch := batchBytes
	if limit := r.o.Up.bytesIn(paceTurn, minTurn, batch); limit < batch || info.PieceBytes > 0 {
		if piece <= 0 || piece > limit {
			piece = limit
		}
		batch = piece
	}
	p.out = newWriter(p.ctx, conn, batch, r.o.Up)
	p.out.sent = p.countSent
	p.out.failed = func(err error) { p.post(item{call: func() { p.writeFailed(err) }}) }
	p.session = replication.NewSession(replication.SessionConfig{
		Instance: info.Instance, PeerPullOnly: info.PullOnly, PeerLevels: info.Levels, PeerShares: info.SharesLevels,
		WindowBytes: r.o.WindowBytes, PieceBytes: max(0, piece),
		RetryAfter: r.o.RetryAfter, RetryMax: r.o.RetryMax,
		PingEvery: r.o.PingEvery, StaleAfter: r.o.StaleAfter, CloseAfter: r.o.CloseAfter,
		Resume: r.kept.take(info.Key, info.Instance), Rand: r.o.Rand,
		Control: r.o.Control, Carries: info.Carries,
		Mesh: true, StartLazy: r.mesh.attach(p),
	})
	return p
}

// Info is what Attach was told.
func (p *Peer) Info() PeerInfo { return p.info }

// Done is closed when the session has ended and nothing of it runs any more.
func (p *Peer) Done() <-chan struct{} { return p.done }

// Err says why the session ended, an *EndError; nil until Done is closed.
func (p *Peer) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		return nil
	}
	return p.err
}

// Close asks the session to say Bye with this reason and to end. It returns at
// once; wait for Done.
func (p *Peer) Close(code replication.Code, detail string) {
	p.post(item{event: replication.Stop{Code: code, Detail: detail}})
}

// ackPatience is how long a session that ends well waits for the store, so that the
// peer hears that what it sent is durable.
const ackPatience = time.Second

// leave is Close once the runs under way are answered, or that took too long.
func (p *Peer) leave(ctx context.Context, code replication.Code, detail string) {
	timer := time.NewTimer(ackPatience)
	defer timer.Stop()
	select {
	case <-p.inflight.landed():
	case <-timer.C:
	case <-ctx.Done():
	case <-p.done:
	}
	p.Close(code, detail)
}

// Pull asks the peer for about maxOps operations or maxBytes bytes of what it has
// of a space for this node, 0 meaning no limit of that kind, and the zero space
// all shared ones (design 6.5). It returns when the answer is complete; the last
// runs may still be on their way to the disk.
func (p *Peer) Pull(ctx context.Context, space replication.SpaceID, maxOps, maxBytes uint64) error {
	answered := make(chan struct{})
	p.post(item{call: func() {
		if p.end == nil {
			p.pulls = append(p.pulls, answered)
			p.step(replication.Pull{Space: space, MaxOps: maxOps, MaxBytes: maxBytes})
		}
	}})
	select {
	case <-answered:
		return nil
	case <-p.done:
		return p.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// probe is a call of Answers: answered is closed when the ping is.
type probe struct {
	ping     uint64
	answered chan struct{}
}

// Answers pings the peer and returns when it answers that ping: what was on its way
// before says nothing about now. It returns false if the session or ctx ends first. A
// slow path or a long queue can be the reason.
func (p *Peer) Answers(ctx context.Context) bool {
	answered := make(chan struct{})
	if !p.ask(ctx, func() {
		if p.end == nil {
			p.step(replication.Probe{})
			p.probes = append(p.probes, probe{p.session.Pinged(), answered})
		}
	}) {
		return false
	}
	select {
	case <-answered:
		return true
	case <-p.done:
	case <-ctx.Done():
	}
	return false
}

func (p *Peer) post(it item) bool { return p.box.post(it) }

// run is the actor.
func (p *Peer) run(spaces []replication.SpaceInfo) {
	defer close(p.done)
	defer p.timer.Stop()
	p.io.Go(p.read)
	p.io.Go(p.out.run)
	p.step(replication.Started{Spaces: spaces})
	for p.end == nil {
		p.arm()
		select {
		case in := <-p.incoming:
			p.receive(in)
		case <-p.box.wake:
			p.empty()
		case <-p.timer.C:
			p.tick()
		}
		p.reportDue()
		p.ringIfInStep()
	}
	p.finish()
}

// read is the reader: it takes one message ahead of the actor.
func (p *Peer) read() {
	for {
		var in incoming
		in.msg, in.release, in.err = p.conn.Read()
		size, cost := bulk(in.msg), costOf(in.msg) // the actor owns the message from then on
		select {
		case p.incoming <- in:
			if in.err != nil {
				return
			}
			p.r.o.Down.Wait(p.ctx, size)
			if p.quota.pace(p.ctx, cost) {
				p.warn("the peer asks for more work than its share, or sends runs that are refused: it is read slowly")
			}
		case <-p.ctx.Done():
			if in.release != nil {
				in.release()
			}
			return
		}
	}
}

func (p *Peer) receive(in incoming) {
	if in.err != nil {
		p.broke(in.err)
		return
	}
	p.mu.Lock()
	p.now.heard = time.Now()
	p.mu.Unlock()
	if pong, ok := in.msg.(*replication.Pong); ok {
		p.answeredProbes(pong.Nonce)
	}
	p.countReceived(in.msg)
	p.held.arrived(in.msg, in.release)
	ev := replication.Received{Msg: in.msg}
	switch m := in.msg.(type) {
	case *replication.WalPush:
		info, _ := p.r.store.Log(m.Log)
		ev.Held = info.Tip.Seq
		p.r.mesh.arriving(p, m)
	case *replication.Announce:
		ev.Tips = make([]replication.Position, len(m.Entries))
		for i := range m.Entries {
			// The answer is about this space, which the peer may have.
			if info, ok := p.r.store.Log(m.Entries[i].Log); ok && info.Space == m.Space {
				ev.Tips[i] = info.Tip
			}
		}
	}
	p.step(ev)
	p.held.settle(p.session)
	p.weighFrontier()
}

// answeredProbes tells those who wait for this ping or one before it.
func (p *Peer) answeredProbes(ping uint64) {
	for len(p.probes) > 0 && p.probes[0].ping <= ping {
		close(p.probes[0].answered)
		p.probes = p.probes[1:]
	}
}

// empty carries out what is in the mailbox.
func (p *Peer) empty() {
	items := p.box.takeItems()
	p.tellAdvances()
	for i, it := range items {
		if p.end != nil {
			p.abandon(items[i:])
			return
		}
		if it.call != nil {
			it.call()
		} else {
			p.step(it.event)
		}
	}
}

// abandon lets those go on who wait for a call.
func (p *Peer) abandon(items []item) {
	for _, it := range items {
		if it.call != nil {
			it.call()
		}
	}
}

// step feeds the session and carries out what it says, in order.
func (p *Peer) step(ev replication.Event) {
	now := time.Now()
	for {
		for _, e := range p.session.Step(now, ev) {
			p.carryOut(now, e)
		}
		p.note(ev)
		if len(p.fromMemory) == 0 {
			return
		}
		ev, p.fromMemory = p.fromMemory[0], p.fromMemory[1:]
	}
}

// arm sets the one timer to what comes first: the session's deadline or the end
// of the patience with a slow reader.
func (p *Peer) arm() {
	at := p.session.Deadline()
	if bytes, since := p.out.backlog(); bytes > 0 {
		slowAt := since.Add(p.r.o.SlowAfter)
		if bytes > p.r.o.QueueBytes {
			slowAt = since // the queue is full: no more patience
		}
		if at.IsZero() || slowAt.Before(at) {
			at = slowAt
		}
	}
	if p.mute.err != nil {
		at = p.mute.end
	}
	if at.IsZero() {
		p.timer.Stop()
		return
	}
	p.timer.Reset(max(0, time.Until(at)))
}

func (p *Peer) tick() {
	now := time.Now()
	if p.mute.err != nil && !now.Before(p.mute.end) {
		p.broke(p.mute.err)
		return
	}
	if bytes, since := p.out.backlog(); bytes > p.r.o.QueueBytes || bytes > 0 && now.Sub(since) >= p.r.o.SlowAfter {
		p.fail(replication.CodeSlowReader, fmt.Sprintf("it took nothing for %s while %d bytes wait",
			now.Sub(since).Round(time.Millisecond), bytes))
		return
	}
	if at := p.session.Deadline(); !at.IsZero() && !now.Before(at) {
		p.step(replication.Tick{})
	}
}

// fail ends the session without saying Bye.
func (p *Peer) fail(code replication.Code, detail string) {
	if p.end == nil {
		p.end = &EndError{Peer: p.info.ID, Code: code, Detail: detail}
	}
}

// writeFailed ends the session soon.
func (p *Peer) writeFailed(err error) {
	p.mute = mute{err: err, end: time.Now().Add(p.r.o.ByeAfter)}
}

// broke ends the session because its connection did. Of two errors the first
// tells more.
func (p *Peer) broke(err error) {
	if p.end == nil {
		if p.mute.err != nil {
			err = p.mute.err
		}
		p.end = &EndError{Peer: p.info.ID, Code: p.r.o.CodeOf(err), Cause: err}
	}
}

// cut closes the connection from outside of the actor, which then ends.
func (p *Peer) cut() {
	if err := p.conn.Close(replication.CodeShutdown, ""); err != nil {
		p.log.Debug("closing the connection", "error", err)
	}
}

// finish ends everything of the session and waits for it.
func (p *Peer) finish() {
	p.out.finish()
	if p.flush {
		p.timer.Reset(p.r.o.ByeAfter)
		select {
		case <-p.out.idle:
		case <-p.timer.C:
		}
	}
	if err := p.conn.Close(p.end.Code, p.end.Detail); err != nil {
		p.log.Debug("closing the connection", "error", err)
	}
	p.cancel()
	p.abandon(p.box.close())
	p.io.Wait()
	p.held.releaseAll()
	p.dropFrontier()
	p.r.kept.keep(p.info.Key, p.info.Instance, p.session.Partial())
	p.mu.Lock()
	p.err = p.end
	p.mu.Unlock()
	p.r.detach(p)
	p.warnings.end(p.log)
	p.log.Debug("session ended", "reason", p.end.Error())
}
