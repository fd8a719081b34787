package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/replication/replicator"
	"vixp2p/trust"
)

// sessionTag protects the connections of peers with a session from being closed
// when there are too many.
const sessionTag = "vix-session"

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
	shown    *trust.Chain // its certificate; nil in an open network
	rights   rights       // likewise none
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

// start makes a completed handshake the session with its peer, in place of an
// older one, unless the user has asked for a disconnect after before. dialled is the
// target that led to it; nil: the peer dialled. On an error it has told the peer and
// closed the stream.
func (m *mesh) start(sess *protocols.Session, st network.Stream, dialled *target, budget *accountBudget, before uint64) (*session, error) {
	conn := protocols.NewConn(sess)
	endpoint, addr := "", ""
	if dialled != nil {
		endpoint, addr = dialled.Key, dialled.String()
	}
	s := &session{
		id: sess.Peer.ID, info: sess.Peer, endpoint: endpoint, dialled: dialled, conn: st.Conn(),
		addr: sessionAddr(st.Conn(), dialled), budget: budget, since: m.now(),
		closed: make(chan struct{}),
	}
	m.mu.Lock()
	m.order++
	sess.Meta.Order = m.order
	s.meta = sess.Meta
	older := m.book.live(s.id)
	err := m.admitLocked(s.id, s.meta)
	if err == nil {
		err = m.book.held(s.id, before)
	}
	var carries func(replication.SpaceID) bool
	var lacks func() string
	var trustNow *trust.State
	if err == nil && m.members != nil {
		trustNow = m.members.state.Load()
		if s.shown, err = m.members.check(s.info); err == nil {
			carries = m.members.carries(s.info.Key, s.shown)
			lacks = func() string { return m.members.lacks(s.info.Key, s.shown) }
			s.rights.differ(m.members, s.info.Key, s.shown) // notes them
		}
	}
	if err == nil {
		s.driver, err = m.engine().replicator.Attach(replicator.PeerInfo{
			ID: s.id.String(), Key: s.info.Key, Instance: s.info.Instance, Label: s.info.Label,
			PieceBytes: pieceBytes(st.Conn()), Carries: carries, Lacks: lacks,
			Spaces: s.info.Spaces, PullOnly: s.info.Has(protocols.FeaturePullOnly), Relaxed: s.info.Has(protocols.FeatureRelaxed),
			Levels: s.info.Has(protocols.FeatureTrie), SharesLevels: s.info.Has(protocols.FeatureTrieShared),
		}, conn)
	}
	copies, twice, again := false, false, false
	if err == nil {
		m.handshakesDone.Add(1)
		m.gate.welcome(s.id)
		m.book.update(s.id, func(r *peerRecord) {
			r.session, r.stale, r.held, r.forgotten, r.parted, r.lastErr = s, false, false, false, time.Time{}, ""
			r.label, r.addr, r.outbound, r.seen, r.skew = s.info.Label, s.addr, endpoint != "", s.since, s.info.Skew
			copies = r.meet(s.info.Instance)
			twice = r.copies
			m.host.ConnManager().Protect(s.id, sessionTag)
			again = r.cut
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
	if m.members != nil {
		m.members.refused.clear()
	}
	if m.members != nil && m.members.state.Load() != trustNow {
		m.reviewTrust(nil) // it may have missed this session
	}
	m.remember(s, addr, m.listens(s.conn))
	m.wishDirect(s)
	if m.met != nil {
		m.met()
	}
	if older != nil {
		older.driver.Close(replication.CodeDuplicate, "")
	}
	level, what := slog.LevelInfo, "connected"
	if older != nil && older.info.Instance == s.info.Instance {
		what = "session moved" // to a direct connection, or of two that dialled each other
	}
	if again || m.gate.noisy(s.id) || twice && !m.refusals.fresh("connected "+s.id.String(), m.now()) {
		level = slog.LevelDebug // one of many
	}
	log.Log(m.dialer.ctx, level, what, "label", s.info.Label, "addr", s.addr, "direction", direction(endpoint != ""), "instance", s.info.Instance.String())
	if copies {
		log.Warn("this peer runs twice: two copies of one data directory use its identity by turns; stop one of them, or give one a new data directory, where it gets an identity of its own", "label", s.info.Label)
	}
	if skew := s.info.Skew; skew.Abs() > skewWarning {
		log.Warn("this peer's clock differs from this machine's: correct the one that is wrong", "ahead", skew)
	}
	return s, nil
}

// sessionAddr is where a session leads to. One that this node began may use a
// connection that the peer dialled, whose port nobody listens on: then it is what was
// to be dialled.
func sessionAddr(c network.Conn, dialled *target) string {
	if dialled != nil && c.Stat().Direction == network.DirInbound && !relayed(c) {
		return dialled.readable()
	}
	return readable(c.RemoteMultiaddr())
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
	// Before the record says that the session has ended: the dialer goes by both.
	if end.Code == replication.CodeProtocol && !end.FromPeer {
		m.gate.offence(s.id, breach(end))
		m.named("a peer broke the protocol", s.conn, end)
	} else if !m.gate.keepsAway(s.id) { // else it has just been put out
		m.gate.forgive(s.id)
	}
	var bad error
	newest := false
	m.book.change(s.id, func(r *peerRecord) {
		if newest = r.session == s; !newest {
			return // a newer one lives, or has ended too
		}
		m.host.ConnManager().Unprotect(s.id, sessionTag)
		r.session, r.stale, r.seen = nil, false, m.now()
		r.lastErr, r.refused, r.cut = end.Error(), time.Time{}, s.cutByRelay()
		if end.Code == replication.CodeDisconnect && end.FromPeer {
			m.part(r)
		}
		if end.Code == replication.CodeShutdown && end.FromPeer {
			r.rest = m.now().Add(shutdownRest)
		}
	})
	if m.members != nil && end.FromPeer && end.Code == replication.CodeCertRevoked {
		m.members.refused.set(m.members.shownID())
	}
	if newest {
		m.ended(s)
	}
	switch {
	case !newest || end.Code == replication.CodeDisconnect || end.Code == replication.CodeShutdown:
	case end.Code == replication.CodeTrustChanged:
		if m.now().Sub(s.since) >= time.Second { // else it happens again and again: in its turn
			m.dialer.again(s.id, s.endpoint)
		}
	case end.Code == replication.CodeDuplicate:
		if m.displaced(s) {
			bad = end
		}
	case s.cutByRelay():
		m.dialer.guard.goOn(s.endpoint)
	case m.now().Sub(s.since) < shortSession:
		bad = end
	}
	level := slog.LevelInfo
	if !newest || end.Code == replication.CodeDuplicate || s.cutByRelay() || m.gate.noisy(s.id) {
		level = slog.LevelDebug // of two sessions of a pair one goes on
	} else if end.Code == replication.CodeCertRevoked && end.FromPeer {
		level = slog.LevelWarn // as where Hello is refused
	}
	if !newest && relayed(s.conn) {
		_ = s.conn.Close() // the session has moved on, and the relay has others to serve
	}
	m.log.Log(m.dialer.ctx, level, "disconnected", "peer", s.id.String(), "label", s.info.Label, "reason", end.Error())
	m.dialer.sessionEnded(s.endpoint, bad)
}

// breach says what a peer did with which it broke the protocol.
func breach(end *replicator.EndError) error {
	what := end.Detail
	if end.Cause != nil {
		what = end.Cause.Error()
	}
	return fmt.Errorf("it broke the protocol (%s)", cmp.Or(what, end.Code.String()))
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
