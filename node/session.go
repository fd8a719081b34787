package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

// skewWarning is the clock difference from which on a peer's is reported.
const skewWarning = time.Minute

// session is a live session with a peer.
type session struct {
	id       peer.ID
	meta     protocols.SessionMeta
	info     protocols.PeerInfo
	endpoint string  // that was dialled; empty: the peer dialled
	dialled  *target // of that endpoint; nil likewise
	addr     string
	conn     network.Conn
	driver   *replicator.Peer
	budget   *accountBudget
	since    time.Time
	moving   bool          // to a direct connection; guarded by the mesh's mu
	closed   chan struct{} // closed when the node has drawn its conclusions from the end
}

// alive tells whether the session has not ended: what a peer's record has may
// have a moment ago.
func (s *session) alive() bool {
	if s == nil {
		return false
	}
	select {
	case <-s.driver.Done():
		return false
	default:
		return true
	}
}

// mesh makes and keeps the sessions: at most one with each peer, at most
// MaxPeers in all.
type mesh struct {
	host      host.Host
	connector connector
	service   *protocols.Service
	book      *peerBook
	engine    func() *engine // the one in use
	network   replication.NetworkID
	names     *spaceNames
	label     string
	agent     string
	boot      protocols.BootNonce
	maxPeers  int
	timeout   time.Duration // of a handshake
	pause     time.Duration // in place of partedPause, in tests
	now       func() time.Time
	log       *slog.Logger
	dialer    *dialer      // set before the first session, like addresses
	addresses *addressBook // who is met
	redial    bool         // peers that are remembered are dialled

	attempts                          atomic.Uint64 // handshakes begun as dialer
	handshakesStarted, handshakesDone atomic.Uint64
	refusals                          refusalLog
	moves                             *network.NotifyBundle                 // set before serve, like attend
	attend                            func(ctx context.Context, id peer.ID) // see reach.attend
	wg                                sync.WaitGroup                        // dialled sessions
	mu                                sync.Mutex                            // guards below; taken before the book's
	closed                            bool
	order                             uint64
	inbound                           int // handshakes that peers began, under way
}

// serve answers peers that dial this node.
func (m *mesh) serve() {
	m.service.Handle(protocols.SyncProtocol, m.accept)
	m.service.Handle(protocols.HelloProtocol, m.probe)
	m.host.Network().Notify(m.moves)
}

// errTooManyHandshakes resets a stream unread: who opens so many at once does
// not wait for an answer.
var errTooManyHandshakes = errors.New("too many handshakes at one time")

// RefusedError: the peer and this node do not make a session.
type RefusedError struct {
	Peer  peer.ID
	Cause error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("no session with %s: %v", e.Peer, e.Cause)
}
func (e *RefusedError) Unwrap() error { return e.Cause }

// establish implements link: connection, Hello, session.
func (m *mesh) establish(ctx context.Context, t target, hint peer.ID, by time.Time) (peer.ID, error) {
	expected := cmp.Or(t.ID, hint)
	if expected != "" {
		m.book.change(expected, func(r *peerRecord) { r.connecting++ })
		defer m.book.change(expected, func(r *peerRecord) { r.connecting-- })
	}
	by, err := m.dropStale(ctx, t, expected, by)
	if err != nil {
		return "", err
	}
	conn, err := m.connector.connect(ctx, t, hint, by)
	if err != nil {
		m.note(expected, err)
		return "", err
	}
	id := conn.RemotePeer()
	if s := m.book.live(id); s != nil && (relayed(conn) || !relayed(s.conn)) {
		return id, errLostRace
	}
	m.book.update(id, func(r *peerRecord) { r.handshakes++ })
	defer m.book.change(id, func(r *peerRecord) { r.handshakes-- })
	err = m.initiate(ctx, id, &t)
	if err != nil && !errors.Is(err, errLostRace) {
		m.note(id, err)
	}
	return id, err
}

// note keeps why there is no session with a peer, for status.
func (m *mesh) note(id peer.ID, err error) {
	if id != "" {
		m.book.change(id, func(r *peerRecord) {
			r.lastErr = err.Error()
			if errors.Is(err, protocols.ErrDisconnect) {
				m.part(r)
			}
		})
	}
}

// initiate runs the handshake as the dialer and starts the session.
func (m *mesh) initiate(ctx context.Context, id peer.ID, dialled *target) error {
	m.handshakesStarted.Add(1)
	opening, cancel := context.WithTimeout(ctx, m.timeout)
	st, release, err := m.service.Open(opening, id, protocols.SyncProtocol)
	cancel()
	if err != nil {
		m.giveUp(id)
		return &RefusedError{Peer: id, Cause: fmt.Errorf("it does not answer to %s (%w): is it a vix node?", protocols.SyncProtocol, err)}
	}
	stop := context.AfterFunc(ctx, func() { st.Reset() })
	budget := newAccountBudget(m.engine().budget)
	hello := m.hello(id, budget)
	hello.Attempt = m.attempts.Add(1)
	sess, err := protocols.Initiate(st, hello)
	if !stop() && err == nil {
		err = ctx.Err() // the stream was reset at the last moment
	}
	if err == nil {
		var s *session
		if s, err = m.start(sess, st, dialled, budget); err == nil {
			m.wg.Go(func() {
				m.watch(s)
				release()
			})
			m.moveIfRelayed(s)
			return nil
		}
	}
	release()
	switch {
	case errors.Is(err, protocols.ErrDuplicate):
		// The other one was dialled by the peer and arrives here in a moment.
		if m.book.waitLive(ctx, id) {
			return errLostRace
		}
	case errors.Is(err, protocols.ErrHelloTimeout) || ctx.Err() != nil:
		m.giveUp(id)
	}
	return &RefusedError{Peer: id, Cause: err}
}

// giveUp closes connections to a peer that do not answer, so that the next attempt
// does not find and use them.
func (m *mesh) giveUp(id peer.ID) {
	if m.book.live(id) == nil {
		_ = m.host.Network().ClosePeer(id) // they are given up
	}
}

// accept runs the handshake as the responder, and the session to its end.
func (m *mesh) accept(st network.Stream) error {
	if !m.enter() {
		return errTooManyHandshakes
	}
	id := st.Conn().RemotePeer()
	m.handshakesStarted.Add(1)
	budget := newAccountBudget(m.engine().budget)
	sess, err := protocols.Respond(st, m.hello(id, budget))
	m.leave()
	if err != nil {
		m.refused(st, err)
		return err
	}
	s, err := m.start(sess, st, nil, budget)
	if err != nil {
		m.refused(st, err)
		return nil // start has told the peer
	}
	m.watch(s)
	return nil
}

// probe answers a peer that asks whether it would be let in.
func (m *mesh) probe(st network.Stream) error {
	if !m.enter() {
		return errTooManyHandshakes
	}
	id := st.Conn().RemotePeer()
	defer m.leave()
	sess, err := protocols.Respond(st, m.hello(id, nil))
	if err != nil {
		m.refused(st, err)
		return err
	}
	return sess.Close()
}

// enter counts a handshake that a peer began; false if there are too many.
func (m *mesh) enter() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inbound >= 2*m.maxPeers {
		return false
	}
	m.inbound++
	return true
}

func (m *mesh) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inbound--
}

// hello is what this node shows to a peer, and how it decides on it.
func (m *mesh) hello(id peer.ID, budget *accountBudget) protocols.HelloConfig {
	cfg := protocols.HelloConfig{
		Network: m.network, Self: m.host.ID(), Peer: id,
		Instance: m.engine().store.Info().Instance, Boot: m.boot,
		Label: m.label, Spaces: m.names.list(), Agent: m.agent,
		Verdict: m.verdict, Timeout: m.timeout, Now: m.now,
	}
	if m.book.parted(id) {
		cfg.Features = append(cfg.Features, protocols.FeatureAgain)
	}
	if m.engine().store.Info().Relaxed {
		cfg.Features = append(cfg.Features, protocols.FeatureRelaxed)
	}
	if budget != nil {
		cfg.Budget = budget
	}
	return cfg
}

// verdict refuses what start would refuse, in time for the peer to hear it
// before the session begins.
func (m *mesh) verdict(p protocols.PeerHello) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, held, until := m.busy(p.ID); held && until.IsZero() && p.Has(protocols.FeatureAgain) {
		return protocols.Refuse(replication.CodeDisconnect, "")
	}
	meta := p.Meta
	meta.Order = m.order + 1
	return m.admitLocked(p.ID, meta)
}

// admitLocked decides on a session: an error matches ErrShutdown, ErrDuplicate
// or ErrBusy of package protocols.
func (m *mesh) admitLocked(id peer.ID, meta protocols.SessionMeta) error {
	if m.closed {
		return protocols.Refuse(replication.CodeShutdown, "")
	}
	if m.engine().isRetired() {
		return protocols.Refuse(replication.CodeBusy, "it repairs its data at this moment")
	}
	if have := m.book.live(id); have != nil {
		// A peer dials only if it has no session. So a session that is older than
		// any handshake under way is no crossed dial: the peer has lost it, and
		// this side has not noticed yet.
		crossed := m.now().Sub(have.since) < 2*m.timeout
		if crossed && protocols.KeepWhich(have.meta, meta) == protocols.KeepFirst {
			return protocols.Refuse(replication.CodeDuplicate, "")
		}
		return nil
	}
	if _, connected := m.book.counts(); connected >= m.maxPeers {
		return protocols.Refuse(replication.CodeBusy, fmt.Sprintf("it has %d peers already", connected))
	}
	return nil
}

// start makes a completed handshake the session with its peer, in place of an
// older one. dialled is the target that led to it; nil: the peer dialled. On an
// error it has told the peer and closed the stream.
func (m *mesh) start(sess *protocols.Session, st network.Stream, dialled *target, budget *accountBudget) (*session, error) {
	conn := protocols.NewConn(sess)
	endpoint, addr := "", ""
	if dialled != nil {
		endpoint, addr = dialled.Key, dialled.String()
	}
	s := &session{
		id: sess.Peer.ID, info: sess.Peer, endpoint: endpoint, dialled: dialled, conn: st.Conn(),
		addr: readable(st.Conn().RemoteMultiaddr()), budget: budget, since: m.now(),
		closed: make(chan struct{}),
	}
	m.mu.Lock()
	m.order++
	sess.Meta.Order = m.order
	s.meta = sess.Meta
	older := m.book.live(s.id)
	err := m.admitLocked(s.id, s.meta)
	if err == nil {
		s.driver, err = m.engine().replicator.Attach(replicator.PeerInfo{
			ID: s.id.String(), Key: s.info.Key, Instance: s.info.Instance, Label: s.info.Label,
			PieceBytes: pieceBytes(st.Conn()),
			Spaces:     s.info.Spaces, PullOnly: s.info.Has(protocols.FeaturePullOnly), Relaxed: s.info.Has(protocols.FeatureRelaxed),
		}, conn)
	}
	copies := false
	if err == nil {
		m.handshakesDone.Add(1)
		m.book.update(s.id, func(r *peerRecord) {
			r.session, r.stale, r.held, r.parted, r.lastErr = s, false, false, time.Time{}, ""
			r.label, r.addr, r.outbound, r.seen, r.skew = s.info.Label, s.addr, endpoint != "", s.since, s.info.Skew
			copies = r.meet(s.info.Instance)
		})
	}
	m.mu.Unlock()

	log := m.log.With("peer", s.id.String())
	if err != nil {
		budget.close()
		// The stream ends either way; err is what counts.
		_ = conn.Close(protocols.CodeOf(err), "")
		return nil, err
	}
	m.remember(s, addr, m.listens(s.conn))
	m.wishDirect(s)
	if older != nil {
		older.driver.Close(replication.CodeDuplicate, "")
	}
	log.Info("connected", "label", s.info.Label, "addr", s.addr, "direction", direction(endpoint != ""), "instance", s.info.Instance.String())
	if copies {
		log.Warn("this peer runs twice: two copies of one data directory use its identity by turns; stop one of them, or give one a new data directory, where it gets an identity of its own", "label", s.info.Label)
	}
	if skew := s.info.Skew; skew.Abs() > skewWarning {
		log.Warn("this peer's clock differs from this machine's: correct the one that is wrong", "ahead", skew)
	}
	return s, nil
}

func direction(outbound bool) string {
	if outbound {
		return "out"
	}
	return "in"
}

// watch waits for the end of a session and draws the conclusions.
func (m *mesh) watch(s *session) {
	defer close(s.closed)
	<-s.driver.Done()
	s.budget.close()
	var end *replicator.EndError
	if !errors.As(s.driver.Err(), &end) {
		end = &replicator.EndError{Peer: s.id.String()}
	}
	told := *end
	told.Cause = broken(end.Cause)
	end = &told
	if end.Cause != nil || end.Code == replication.CodeStale {
		// Another attempt must not find the dead connection and use it.
		_ = s.conn.Close() // it is given up
	}
	var bad error
	newest := false
	m.book.change(s.id, func(r *peerRecord) {
		if newest = r.session == s; !newest {
			return // a newer one lives, or has ended too
		}
		r.session, r.stale, r.seen = nil, false, m.now()
		r.lastErr = end.Error()
		if end.Code == replication.CodeDisconnect && end.FromPeer {
			m.part(r)
		}
		if end.Code == replication.CodeShutdown && end.FromPeer {
			r.rest = m.now().Add(shutdownRest)
		}
	})
	m.addresses.left(s.id, m.now())
	switch {
	case !newest || end.Code == replication.CodeDisconnect || end.Code == replication.CodeShutdown:
	case end.Code == replication.CodeDuplicate:
		if m.displaced(s) {
			bad = end
		}
	case s.cutByRelay():
	case m.now().Sub(s.since) < shortSession:
		bad = end
	}
	level := slog.LevelInfo
	if end.Code == replication.CodeDuplicate || s.cutByRelay() {
		level = slog.LevelDebug // of two sessions of a pair one goes on
	}
	if !newest && relayed(s.conn) {
		_ = s.conn.Close() // the session has moved on, and the relay has others to serve
	}
	m.log.Log(m.dialer.ctx, level, "disconnected", "peer", s.id.String(), "label", s.info.Label, "reason", end.Error())
	m.dialer.sessionEnded(s.endpoint, bad)
}

// displacedWarning is after how many sessions in a row that went to another node
// with this identity it is reported.
const displacedWarning = 2

// displaced tells whether the peer ended a session in favour of one that is not
// with this node: then another one uses its identity. In crossed dials the other
// session arrives here in a moment.
func (m *mesh) displaced(s *session) bool {
	if m.book.waitLive(m.dialer.ctx, s.id) || m.dialer.ctx.Err() != nil {
		m.book.change(s.id, func(r *peerRecord) { r.displaced = 0 })
		return false
	}
	times := 0
	m.book.change(s.id, func(r *peerRecord) { r.displaced++; times = r.displaced })
	if times == displacedWarning {
		m.log.Warn("another node takes over this node's sessions: it runs from a copy of this data directory; stop one of them, or give one a new data directory, where it gets an identity of its own", "peer", s.id.String())
	}
	return true
}

// busy implements link.
func (m *mesh) busy(id peer.ID) (connected, held bool, until time.Time) {
	return m.book.busy(id, m.now())
}

// unhold implements link.
func (m *mesh) unhold(id peer.ID) {
	m.book.change(id, func(r *peerRecord) { r.held, r.parted, r.rest = false, time.Time{}, time.Time{} })
}

// self implements link.
func (m *mesh) self() peer.ID { return m.host.ID() }

// room implements link: automatic attempts leave half of the sessions to peers
// that dial this node, so that newcomers find room in a network of nodes that
// have found each other. Without any session there is always room.
func (m *mesh) room() int {
	_, connected := m.book.counts()
	return (m.maxPeers+1)/2 - connected
}

// shutdownRest is how long a peer is left alone that said that it shuts down.
const shutdownRest = time.Second

// partedPause is after how long a peer is asked whether its user still wants no
// session.
const partedPause = time.Minute

// part leaves a peer alone for a while whose user wants no session.
func (m *mesh) part(r *peerRecord) {
	r.parted = m.now().Add(cmp.Or(m.pause, partedPause))
}

// disconnect ends the session with a peer and leaves it alone until a user asks
// for it again.
func (m *mesh) disconnect(ctx context.Context, id peer.ID) error {
	var s *session
	known := false
	m.book.change(id, func(r *peerRecord) { s, known, r.held = r.session, true, true })
	switch {
	case !known:
		return fmt.Errorf("peer %s: %w", id, ErrNotConnected)
	case s == nil:
		return nil // it is not dialled any more
	}
	s.driver.Close(replication.CodeDisconnect, "")
	select {
	case <-s.closed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the session with %s is ending: %w", id, context.Cause(ctx))
	}
}

// observe hears of what sessions report, and log themselves; it is called by
// their actors.
func (m *mesh) observe(p *replicator.Peer, e replication.Effect) {
	change, ok := e.(replication.StateChanged)
	if !ok {
		return
	}
	id, err := peer.Decode(p.Info().ID)
	if err != nil {
		return
	}
	m.book.change(id, func(r *peerRecord) {
		if r.session != nil && r.session.driver == p {
			r.stale = change.Stale
		}
	})
	m.dialer.kick() // a stale session may be replaced
}

// closing refuses new sessions from now on.
func (m *mesh) closing() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
}

// wait returns when every session has ended. The service must be closed first.
func (m *mesh) wait() { m.wg.Wait() }

// refused logs a refusal of an inbound handshake: one line, and the same one at
// most once a minute.
func (m *mesh) refused(st network.Stream, err error) {
	if errors.Is(err, protocols.ErrDuplicate) || errors.Is(err, protocols.ErrDisconnect) {
		return // crossed dials, or what our user asked for: nothing is wrong
	}
	id := st.Conn().RemotePeer().String()
	if m.refusals.fresh(id+err.Error(), m.now()) {
		m.log.Warn("handshake refused", "peer", id, "addr", readable(st.Conn().RemoteMultiaddr()), "err", err)
	}
}
