package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/node/mailbox"
	"vixp2p/protocols"
	"vixp2p/replication/replicator"
	"vixp2p/routing"
)

// mailDir is the mailbox's directory in the data directory.
const mailDir = "mail"

// reopenPause is after how long a mailbox that could not be opened, or broke, is
// tried again.
const reopenPause = 30 * time.Second

// messenger carries routed messages: it opens the mailbox, drives the Router, and
// keeps a stream each way with every neighbour that takes messages. What fails here
// is told, and touches nothing else.
type messenger struct {
	self    routing.PeerKey
	key     ed25519.PrivateKey
	network routing.Network
	mail    mailbox.Options
	service *protocols.Service
	book    *peerBook
	timeout time.Duration // for opening a stream
	now     func() time.Time
	log     *slog.Logger
	// up and down bound the bytes of messages, together with those of replication.
	up, down *replicator.Pace

	ctx     context.Context
	counts  messageCounts
	limitMu sync.Mutex // guards limiter
	limiter *routing.Limiter

	mu        sync.Mutex // guards all below; never held while waiting
	courier   *courier   // nil while the mailbox is not open
	changed   chan struct{}
	problem   string // why it is not open
	recovered string // what opening it found damaged, since the node opened
	waiters   map[routing.ID]*Sent
	inbound   map[peer.ID]network.Stream // the newest stream of each peer
}

// messageCounts count messages that were dropped before the Router saw them, by
// reason.
type messageCounts struct {
	limited, malformed, expired, forged, sealed atomic.Uint64
	unasked                                     atomic.Uint64 // answers to nothing that was pushed
}

func newMessenger(n *Node) *messenger {
	return &messenger{
		self: routing.PeerKey(n.key.Public().(ed25519.PublicKey)), key: n.key, network: routing.Network(n.network),
		mail:    mailbox.Options{Dir: filepath.Join(n.cfg.DataDir, mailDir), ReserveBytes: n.cfg.ReserveBytes, FreeBytes: n.cfg.freeBytes, Log: n.log},
		service: n.mesh.service, book: n.mesh.book, timeout: n.cfg.HelloTimeout, now: n.cfg.Now, log: n.log,
		up: n.up, down: n.down, ctx: n.ctx, limiter: routing.NewLimiter(routing.MessagesPerSecond, routing.MessageBurst),
		changed: make(chan struct{}), waiters: map[routing.ID]*Sent{}, inbound: map[peer.ID]network.Stream{},
	}
}

// carryMessages begins to take part in routed messages.
func (n *Node) carryMessages() {
	if n.cfg.NoMessages {
		return
	}
	n.messages = newMessenger(n)
	n.mesh.messages = true
	n.mesh.service.Handle(protocols.MsgProtocol, n.messages.accept)
	n.wg.Go(n.messages.run)
}

// run keeps the mailbox open and in use until the node closes.
func (m *messenger) run() {
	for m.ctx.Err() == nil {
		err := m.live()
		if m.ctx.Err() != nil {
			return
		}
		m.log.Error("messages are not sent and received at this moment; replication is not touched, and this is tried again by itself", "err", err)
		select {
		case <-m.ctx.Done():
		case <-time.After(reopenPause):
		}
	}
}

// live opens the mailbox and carries messages until the node closes or the mailbox
// breaks.
func (m *messenger) live() error {
	box, state, err := mailbox.Open(m.mail)
	if err != nil {
		m.setCourier(nil, err.Error())
		return err
	}
	if told := box.Recovered(); told != "" {
		m.log.Error("stored messages were damaged", "what", told)
		m.mu.Lock()
		m.recovered = told
		m.mu.Unlock()
	}
	m.settle(state)
	c := newCourier(m, box, state)
	m.setCourier(c, "")
	problem := "the node is closing"
	if err = c.run(); err != nil {
		problem = err.Error()
	}
	m.setCourier(nil, problem)
	close(c.done)
	c.wg.Wait()
	if closeErr := box.Close(); err == nil {
		err = closeErr
	}
	return err
}

func (m *messenger) setCourier(c *courier, problem string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.courier, m.problem = c, problem
	close(m.changed)
	m.changed = make(chan struct{})
}

// settle tells those who wait for texts that a mailbox which was opened does not
// have: damage took them.
func (m *messenger) settle(state routing.State) {
	m.mu.Lock()
	missing := maps.Clone(m.waiters)
	m.mu.Unlock()
	for _, h := range state.Held {
		if h.Msg.From == m.self && h.Msg.Kind == routing.Text {
			delete(missing, h.Msg.ID)
		}
	}
	for id := range missing {
		m.told(routing.Report{ID: id, State: routing.OutcomeLost})
	}
}

// use waits until messages can be carried. An error says why they cannot.
func (m *messenger) use(ctx context.Context) (*courier, error) {
	for {
		m.mu.Lock()
		c, problem, changed := m.courier, m.problem, m.changed
		m.mu.Unlock()
		switch {
		case m.ctx.Err() != nil:
			return nil, errNodeClosed
		case c != nil:
			return c, nil
		case problem != "":
			return nil, &MessagesOffError{Why: problem}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-m.ctx.Done():
			return nil, errNodeClosed
		}
	}
}

// told takes what the Router reports of a text of this node.
func (m *messenger) told(r routing.Report) {
	m.mu.Lock()
	w := m.waiters[r.ID]
	if r.State.Final() {
		delete(m.waiters, r.ID)
	}
	m.mu.Unlock()
	if r.State == routing.OutcomeSpent {
		m.log.Info("a message may go no further: its TTL is used up", "id", r.ID.String(), "at", m.name(r.At))
	}
	if w != nil {
		w.outcome(r)
	}
}

// name is a peer for people: its label, if it is known, and its ID.
func (m *messenger) name(k routing.PeerKey) string {
	id, err := peerIDOf(replicationKey(k))
	if err != nil {
		return k.String()
	}
	if label := m.book.label(id); label != "" {
		return label + " (" + id.String() + ")"
	}
	return id.String()
}

// accept takes the messages that a peer pushes on one stream.
func (m *messenger) accept(st network.Stream) error {
	id := st.Conn().RemotePeer()
	key, err := routingKey(id)
	if err != nil {
		return err
	}
	s := m.sessionOf(id)
	if s == nil {
		return errNoSession
	}
	m.mu.Lock()
	older := m.inbound[id]
	m.inbound[id] = st
	m.mu.Unlock()
	if older != nil {
		older.Reset()
	}
	ctx, end := context.WithCancel(m.ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-s.driver.Done():
		case <-ctx.Done():
		}
		end()
		st.Reset() // the stream lives no longer than the session
	})
	defer watching.Wait()
	defer end()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.inbound[id] == st {
			delete(m.inbound, id)
		}
	}()
	stream := protocols.AnswerStream(st)
	for {
		push, err := stream.NextPush()
		if err != nil {
			return err
		}
		m.down.Wait(ctx, len(push.Data)) // its neighbour has few under way and waits too
		answer := m.take(key, push)
		if m.ctx.Err() != nil {
			return errNodeClosed
		}
		if err := stream.Answer(&protocols.MsgAnswer{Number: push.Number, Verdict: answer.Verdict, Retry: answer.Retry}); err != nil {
			return err
		}
	}
}

var errNoSession = errors.New("messages from a peer with which there is no session, or which did not name the feature")

// sessionOf is the live session with a peer that takes messages, or one that just
// begins; nil if there is none.
func (m *messenger) sessionOf(id peer.ID) *session {
	s := m.book.live(id)
	if s == nil && m.book.waitLive(m.ctx, id) {
		s = m.book.live(id)
	}
	if s == nil || !s.info.Has(protocols.FeatureMsg) {
		return nil
	}
	return s
}

// reply is the answer to a push.
type reply struct {
	Verdict routing.Verdict
	Retry   time.Duration
}

// take checks a message, cheapest first, and gives it to the Router.
func (m *messenger) take(from routing.PeerKey, push *protocols.MsgPush) reply {
	now := m.now()
	m.limitMu.Lock()
	ok, retry := m.limiter.Allow(from, now)
	m.limitMu.Unlock()
	if !ok {
		m.counts.limited.Add(1)
		return reply{routing.Busy, retry}
	}
	msg, err := routing.Parse(push.Data)
	if err != nil {
		m.counts.malformed.Add(1)
		return m.dropped(from, msg, err)
	}
	if msg.CheckTime(now) != nil {
		m.counts.expired.Add(1)
		return reply{Verdict: routing.Expired}
	}
	if err := msg.Verify(m.network); err != nil {
		m.counts.forged.Add(1)
		return m.dropped(from, msg, err)
	}
	ev := routing.Received{Peer: from, Hops: push.Hops, Msg: msg}
	if msg.To == m.self && msg.Kind == routing.Text {
		if ev.Text, err = m.open(msg); err != nil {
			m.counts.sealed.Add(1)
			return m.dropped(from, msg, err)
		}
	}
	c, err := m.use(m.ctx)
	if err != nil {
		return reply{routing.Full, reopenPause}
	}
	return c.receive(ev)
}

func (m *messenger) dropped(from routing.PeerKey, msg *routing.Message, err error) reply {
	attrs := []any{"peer", m.name(from), "err", err}
	if msg != nil {
		attrs = append(attrs, "id", msg.ID.String())
	}
	m.log.Debug("a message is dropped", attrs...)
	return reply{Verdict: routing.Invalid}
}
