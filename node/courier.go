package node

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/node/mailbox"
	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/routing"
	"vixp2p/routing/seal"
)

// courier drives the Router of one open mailbox. One goroutine, run, owns the Router
// and the links; it carries out its effects in order, and everything that one round
// of events makes durable is one transaction.
type courier struct {
	m   *messenger
	box *mailbox.Box

	events chan arrived
	calls  chan func(*courier)
	lost   chan *msgLink // links that failed
	done   chan struct{} // closed when run has returned
	wg     sync.WaitGroup

	// Of run's goroutine alone:
	router  *routing.Router
	links   map[peer.ID]*msgLink
	peers   map[routing.PeerKey]*msgLink
	rests   map[peer.ID]rest
	pushes  uint64
	replies map[uint64]chan reply // of pushes that were not answered
	broken  error                 // why the mailbox is of no further use
	warned  time.Time             // when it was last told that something cannot be stored
}

// arrived is an event from outside of run's goroutine.
type arrived struct {
	ev     routing.Event
	answer chan reply // of a Received; it has room
	link   *msgLink   // of an Answered: counts only while it is the peer's link
}

// rest is a pause after a link failed.
type rest struct {
	until time.Time
	times int
}

const (
	// maxRound bounds the events of one transaction.
	maxRound = 64
	// firstRest and lastRest are the pauses before a stream to a peer is tried again.
	firstRest, lastRest = time.Second, time.Minute
)

func newCourier(m *messenger, box *mailbox.Box, state routing.State) *courier {
	return &courier{
		m: m, box: box, events: make(chan arrived, maxRound), calls: make(chan func(*courier)),
		lost: make(chan *msgLink), done: make(chan struct{}),
		router: routing.NewRouter(routing.Config{Self: m.self, Sign: func(h routing.Header) (*routing.Message, error) {
			return routing.New(m.network, m.key, h, nil)
		}}, m.now(), state),
		links: map[peer.ID]*msgLink{}, peers: map[routing.PeerKey]*msgLink{}, rests: map[peer.ID]rest{}, replies: map[uint64]chan reply{},
	}
}

// run serves until the node closes, or the mailbox breaks, which is the error.
func (c *courier) run() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer func() {
		for _, l := range c.links {
			l.cancel()
		}
	}()
	for c.broken == nil {
		changed := c.m.book.watch() // before looking
		c.refresh()
		timer.Reset(c.pause())
		select {
		case <-c.m.ctx.Done():
			return nil
		case <-changed:
		case <-timer.C:
			c.carryOut(c.router.Step(c.m.now(), routing.Tick{}))
		case l := <-c.lost:
			c.drop(l)
		case fn := <-c.calls:
			fn(c)
		case a := <-c.events:
			c.round(a)
		}
	}
	return c.broken
}

// pause is until when nothing is to be done by itself.
func (c *courier) pause() time.Duration {
	pause := time.Hour
	if at := c.router.Deadline(); !at.IsZero() {
		pause = min(pause, at.Sub(c.m.now()))
	}
	for _, r := range c.rests {
		if left := r.until.Sub(c.m.now()); left > 0 {
			pause = min(pause, left)
		}
	}
	return max(pause, 0)
}

// refresh makes the links those of the live sessions.
func (c *courier) refresh() {
	live := c.m.book.sessionsWith(protocols.FeatureMsg)
	for id, l := range c.links {
		if live[id] != l.session {
			c.unlink(l)
		}
	}
	for id := range c.rests {
		if live[id] == nil {
			delete(c.rests, id)
		}
	}
	for id, s := range live {
		if c.links[id] != nil || c.m.now().Before(c.rests[id].until) {
			continue
		}
		key, err := routingKey(id)
		if err != nil {
			continue // the handshake refuses such keys
		}
		l := newMsgLink(c, id, key, s)
		c.links[id], c.peers[key] = l, l
		c.wg.Go(l.run)
		c.carryOut(c.router.Step(c.m.now(), routing.LinkUp{Peer: key, Relayed: s.conn.Stat().Limited}))
	}
}

func (c *courier) unlink(l *msgLink) {
	l.cancel()
	delete(c.links, l.id)
	delete(c.peers, l.key)
	c.carryOut(c.router.Step(c.m.now(), routing.LinkDown{Peer: l.key}))
}

// drop ends a link whose stream failed; it is tried again after a pause.
func (c *courier) drop(l *msgLink) {
	if c.links[l.id] != l {
		return
	}
	r := c.rests[l.id]
	if l.worked {
		r.times = 0
	}
	r.until = c.m.now().Add(min(firstRest<<min(r.times, 10), lastRest))
	r.times++
	c.rests[l.id] = r
	c.unlink(l)
}

// round takes in an event, and those that wait behind it.
func (c *courier) round(a arrived) {
	var effects []routing.Effect
	for i := 0; ; i++ {
		if a.link == nil || c.links[a.link.id] == a.link {
			effects = append(effects, c.router.Step(c.m.now(), c.prepare(a))...)
		}
		if i == maxRound-1 {
			break
		}
		select {
		case a = <-c.events:
			continue
		default:
		}
		break
	}
	c.carryOut(effects)
}

// prepare completes an event with what only run's goroutine knows.
func (c *courier) prepare(a arrived) routing.Event {
	ev, ok := a.ev.(routing.Received)
	if !ok {
		return a.ev
	}
	c.pushes++
	ev.Push = c.pushes
	ev.Room = c.box.Room(ev.Msg.From, len(ev.Text))
	c.replies[ev.Push] = a.answer
	return ev
}

// carryOut does what the Router wants. All that is to be made durable goes into one
// transaction, before anything that follows from it is known to the Router.
func (c *courier) carryOut(effects []routing.Effect) {
	for len(effects) > 0 && c.broken == nil {
		var ops []routing.StoreOp
		var batches []uint64
		for _, e := range effects {
			if p, ok := e.(routing.Persist); ok {
				ops = append(ops, p.Ops...)
				batches = append(batches, p.Batch)
			}
		}
		var err error
		if len(batches) > 0 {
			if err = c.box.Apply(ops); err != nil && c.m.now().Sub(c.warned) >= time.Minute {
				c.warned = c.m.now()
				c.m.log.Warn("messages cannot be stored", "err", err)
			}
			c.broken = c.box.Broken()
		}
		var next []routing.Effect
		for _, e := range effects {
			next = append(next, c.do(e)...)
		}
		for _, b := range batches {
			next = append(next, c.router.Step(c.m.now(), routing.Committed{Batch: b, Err: err})...)
		}
		effects = next
	}
}

// do carries out one effect.
func (c *courier) do(e routing.Effect) []routing.Effect {
	switch e := e.(type) {
	case routing.Send:
		raw, err := c.box.Held(e.Key)
		if err != nil {
			c.m.log.Error("a stored message cannot be read and is given up", "id", e.Key.ID.String(), "err", err)
		}
		if err != nil || raw == nil {
			return c.router.Step(c.m.now(), routing.Lost{Key: e.Key, Err: err})
		}
		if l := c.peers[e.Peer]; l != nil {
			l.send(&protocols.MsgPush{Number: e.Push, Hops: e.Hops, Data: raw})
		}
	case routing.Answer:
		if ch := c.replies[e.Push]; ch != nil {
			delete(c.replies, e.Push)
			ch <- reply{e.Verdict, e.Retry}
		}
	case routing.Report:
		c.m.told(e)
	}
	return nil
}

// receive gives a message to the Router and waits for its verdict.
func (c *courier) receive(ev routing.Received) reply {
	a := arrived{ev: ev, answer: make(chan reply, 1)}
	select {
	case c.events <- a:
	case <-c.done:
		return reply{routing.Full, reopenPause}
	}
	select {
	case r := <-a.answer:
		return r
	case <-c.done:
		return reply{routing.Full, reopenPause}
	}
}

// call runs fn in run's goroutine and returns when it has; false if run ended.
func (c *courier) call(fn func(*courier)) bool {
	ran := make(chan struct{})
	select {
	case c.calls <- func(c *courier) { defer close(ran); fn(c) }:
		<-ran
		return true
	case <-c.done:
		return false
	}
}

// open gives the text of a message to this node.
func (m *messenger) open(msg *routing.Message) ([]byte, error) {
	return seal.Open(m.network, m.key, msg.HeaderRaw, msg.Body)
}

// watch is closed at the next change of the book.
func (b *peerBook) watch() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// sessionsWith are the live sessions whose peers named a feature.
func (b *peerBook) sessionsWith(feature string) map[peer.ID]*session {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[peer.ID]*session{}
	for id, r := range b.records {
		if r.session.alive() && r.session.info.Has(feature) {
			out[id] = r.session
		}
	}
	return out
}

// label is what a peer calls itself; empty if that is not known.
func (b *peerBook) label(id peer.ID) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.records[id]; r != nil {
		return r.label
	}
	return ""
}

// routingKey is a peer as package routing knows it: an Ed25519 key.
func routingKey(id peer.ID) (routing.PeerKey, error) {
	pub, err := id.ExtractPublicKey()
	if err != nil {
		return routing.PeerKey{}, err
	}
	raw, err := pub.Raw()
	if err != nil || len(raw) != len(routing.PeerKey{}) {
		return routing.PeerKey{}, errNotEd25519
	}
	return routing.PeerKey(raw), nil
}

func replicationKey(k routing.PeerKey) replication.OriginKey { return replication.OriginKey(k) }
