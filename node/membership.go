package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/replication/sealed"
	"vixp2p/trust"
	"vixp2p/trust/keys"
)

// membership is a node's part in a network of members (design 9): what the control
// logs amount to, and what this node shows of itself. It reads the control logs
// from the store, has the store apply what they say about logs, and answers who may
// do what. An open network has none.
//
//	control logs -> trust.Evaluate -> store.Restrict -> sessions
type membership struct {
	network replication.NetworkID
	root    replication.OriginKey
	control replication.SpaceID
	self    replication.OriginKey
	path    string // of the certificate's file
	now     func() time.Time
	log     *slog.Logger

	state   atomic.Pointer[trust.State]
	shown   atomic.Pointer[trust.Chain] // this node's certificate; nil: none
	wake    chan struct{}               // capacity 1: control logs have grown
	changed func(before *trust.State)   // hears of a new state, after the store; nil: nobody

	ring *keys.Ring // the content keys of encrypted spaces

	queue   sync.Mutex // guards waiting
	waiting []func()   // called after the next update

	// refused: members say that this node was revoked, of which it may not have heard
	// otherwise.
	refused *refusal

	issuing sync.Mutex // one decision at a time on what this node states

	mu   sync.Mutex // guards below, and makes evaluations one after the other
	from uint64     // arrival number up to which control logs were read
	logs map[replication.LogID]*trust.ControlLog
	// dirty: control logs have grown since state was made of them.
	dirty bool
	// restricted is the engine that applies state, for this node's generation, since
	// restrictedAt.
	restricted    *engine
	restrictedFor uint64
	restrictedAt  time.Time
	toldState     *trust.State              // what changed was told last
	told          map[replication.Hash]bool // certificates of this node whose end was reported
}

// openMembership reads what a data directory says about its network.
func openMembership(dir *dataDir, key ed25519.PrivateKey, now func() time.Time, log *slog.Logger) (*membership, error) {
	root, err := dir.network.root()
	if err != nil {
		return nil, err
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		return nil, err
	}
	self := replication.OriginKey(key.Public().(ed25519.PublicKey))
	m := &membership{
		network: replication.NetworkOfRoot(root[:]), root: root, self: self,
		path: filepath.Join(dir.path, certificateFile), now: now, log: log,
		ring: ring, wake: make(chan struct{}, 1), told: map[replication.Hash]bool{},
	}
	m.control = trust.ControlSpace(m.network)
	m.state.Store(trust.Evaluate(root[:], nil))
	chain, err := readCertificate(m.path)
	if err != nil {
		return nil, err
	}
	if chain != nil {
		if err := chain.Verify(root[:]); err != nil {
			return nil, fmt.Errorf("the certificate in %s is of no use here: %w", m.path, m.naming(err))
		}
		if chain.Leaf.Subject != self {
			return nil, fmt.Errorf("the certificate in %s is another node's: bring back the file and identity.key of one node, or join again with a new data directory", m.path)
		}
		m.shown.Store(chain)
	}
	m.refused = openRefusal(dir.path, m.shownID(), log)
	return m, nil
}

// follow reads the control logs of an engine that was just opened, and keeps to
// them; nothing was taken or served yet.
func (m *membership) follow(ctx context.Context, e *engine) error {
	e.unfollow = e.store.Subscribe(func(a replication.Advance) {
		if a.Space == m.control {
			m.signal()
		}
	})
	m.mu.Lock()
	m.from, m.logs = 0, map[replication.LogID]*trust.ControlLog{}
	m.mu.Unlock()
	return m.update(ctx, e)
}

func (m *membership) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// update takes up what the control logs say by now, and has the store apply it.
// When it returns nil, answers and store agree with all that was durable before it
// was called.
func (m *membership) update(ctx context.Context, e *engine) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	// What the store was asked for it does: a caller that gives up must not leave its
	// limits and these answers apart.
	ctx = context.WithoutCancel(ctx)
	for {
		grown, err := m.read(e)
		m.dirty = m.dirty || grown
		if err != nil {
			return err
		}
		m.renewShown()
		generation := m.generation()
		applied := m.restricted == e && m.restrictedFor == generation && m.now().Sub(m.restrictedAt).Abs() < restrictAgain
		if !m.dirty && applied {
			break
		}
		next := m.state.Load()
		if m.dirty {
			logs := make([]trust.ControlLog, 0, len(m.logs))
			for _, l := range m.logs {
				logs = append(logs, *l)
			}
			next = trust.Evaluate(m.root[:], logs)
		}
		if applied && next.Digest() == m.state.Load().Digest() {
			m.dirty = false
			continue
		}
		// The store first: whoever reads the new state finds it applied.
		if err := e.store.Restrict(ctx, m.limiter(next)); err != nil {
			return fmt.Errorf("cannot apply what the control logs say: %w", err)
		}
		if m.ring.Update(next, m.now()) && e.view != nil {
			e.view.KeysChanged()
		}
		m.state.Store(next)
		m.restricted, m.restrictedFor, m.restrictedAt, m.dirty = e, generation, m.now(), false
	}
	if before := m.toldState; m.changed != nil && before.Digest() != m.state.Load().Digest() {
		m.toldState = m.state.Load()
		m.changed(before)
	}
	return nil
}

// restrictAgain is after how long the store is asked again, so that what a cut set
// aside long ago is removed.
const restrictAgain = 24 * time.Hour

// tell has changes of the state told from now on.
func (m *membership) tell(changed func(before *trust.State)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed, m.toldState = changed, m.state.Load()
}

// limiter is a state's LogLimit, but that this node does not go on with logs that it
// began in an earlier generation. One that was admitted again may not have heard yet
// that it had been revoked, and what it added to such a log would be lost when it does.
func (m *membership) limiter(st *trust.State) replication.Limiter {
	generation := m.generation()
	return func(g *replication.Genesis) replication.LogLimit {
		limit := st.LogLimit(g)
		limit.Err = m.naming(limit.Err)
		if g.Origin != m.self || !limit.Entire() {
			return limit
		}
		if began, ok := trust.GrantGeneration(g.Grant); ok && began < generation {
			limit.Cut = &replication.Position{Seq: endedHere} // all that is there counts
		}
		return limit
	}
}

// endedHere is the seq at which limiter cuts a log of this node that does not go on: the
// revocation which ended its generation is not known here.
const endedHere = math.MaxUint64

// generation is that of the certificate in hand; 0: there is none.
func (m *membership) generation() uint64 {
	if c := m.shown.Load(); c != nil {
		return c.Leaf.Generation
	}
	return 0
}

// shownID names the certificate in hand; zero: there is none.
func (m *membership) shownID() replication.Hash {
	if c := m.shown.Load(); c != nil {
		return c.Leaf.ID()
	}
	return replication.Hash{}
}

// read takes in the blocks of control logs that arrived since the last time. Blocks
// that a cut has set aside since stay: they change nothing.
func (m *membership) read(e *engine) (grown bool, err error) {
	for {
		list, err := e.store.ReadArrivals(m.control, m.from, 1<<20)
		if err != nil || len(list) == 0 {
			return grown, err
		}
		for _, a := range list {
			h := a.Block.Header
			l := m.logs[h.Log]
			if l == nil {
				l = &trust.ControlLog{Log: h.Log, Origin: a.Origin}
				m.logs[h.Log] = l
			}
			if h.Genesis != nil {
				l.Grant = bytes.Clone(h.Genesis.Grant)
			}
			ops, err := sealed.Ops(a.Block, nil)
			if void := (*replication.VoidError)(nil); err != nil && !errors.As(err, &void) {
				return grown, err
			}
			l.Blocks = append(l.Blocks, trust.BlockOf(h.LastSeq(), ops))
			m.from, grown = a.Number, true
		}
	}
}

// renewShown shows from now on the certificate that the control logs have for this
// node, where it is better than the one in hand, and keeps it.
func (m *membership) renewShown() {
	st, have := m.state.Load(), m.shown.Load()
	best := st.CertificateFor(m.self, m.now())
	if best == nil || have != nil && bytes.Equal(best.Encode(), have.Encode()) {
		return
	}
	if have != nil && best.Leaf.Generation < have.Leaf.Generation {
		return // admitted again, which the control logs here do not say yet
	}
	if have != nil && have.Leaf.ValidAt(m.now()) == nil && best.Leaf.ValidAt(m.now()) != nil {
		return
	}
	m.shown.Store(best)
	if err := writeCertificate(m.path, best); err != nil {
		m.log.Warn("the new certificate is not kept for the next start", "err", err)
	}
	if have != nil {
		m.log.Info("this node has a new certificate", "roles", m.rolesText(m.grantsOf(best)), "expires", expiryText(best.Leaf.NotAfter))
	}
}

// loop takes up what control logs bring, and what time does, until ctx ends. do
// runs on the engine in use.
func (m *membership) loop(ctx context.Context, n *Node) {
	timer, handOut := time.NewTimer(0), time.NewTimer(keysPause())
	defer timer.Stop()
	defer handOut.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
			m.takeUp(ctx, n)
			handOut.Reset(keysPause())
		case <-handOut.C:
			n.tendKeys(ctx)
			continue
		case <-timer.C:
			handOut.Reset(keysPause()) // who was renewed gets keys
		}
		m.tellExpiry()
		n.mesh.reviewTrust(nil)
		timer.Reset(m.untilExpiry())
	}
}

// takeUp updates, and tells who waits for it.
func (m *membership) takeUp(ctx context.Context, n *Node) {
	m.queue.Lock()
	waiting := m.waiting
	m.waiting = nil
	m.queue.Unlock()
	err := n.do(ctx, func(e *engine) error { return m.update(ctx, e) })
	if err == nil {
		for _, applied := range waiting {
			applied()
		}
		return
	}
	if ctx.Err() != nil {
		return
	}
	m.log.Error("the control logs cannot be taken up: it is tried again", "err", err)
	m.queue.Lock()
	m.waiting = append(waiting, m.waiting...)
	m.queue.Unlock()
	time.AfterFunc(time.Second, m.signal)
}

// applyTrust calls applied when the store has the limits that follow from all that it
// holds now. It returns at once.
func (m *membership) applyTrust(applied func()) {
	m.queue.Lock()
	m.waiting = append(m.waiting, applied)
	m.queue.Unlock()
	m.signal()
}

// untilExpiry is how long until a certificate of some member begins or ends to be
// valid, at most an hour: sessions are looked at again then.
func (m *membership) untilExpiry() time.Duration {
	now, wait := m.now(), time.Hour
	consider := func(unix int64) {
		if d := time.Unix(unix, 0).Sub(now); unix != 0 && d > 0 {
			wait = min(wait, d)
		}
	}
	for _, member := range m.state.Load().Members() {
		for _, c := range member.Certificates {
			consider(c.NotBefore)
			consider(c.NotAfter)
		}
	}
	return max(wait, 100*time.Millisecond)
}

// tellExpiry warns once that this node's own certificate has ended or ends soon.
func (m *membership) tellExpiry() {
	c := m.shown.Load()
	if c == nil || c.Leaf.NotAfter == 0 {
		return
	}
	id, left := c.Leaf.ID(), time.Unix(c.Leaf.NotAfter, 0).Sub(m.now())
	m.mu.Lock()
	told := m.told[id]
	m.told[id] = told || left < expiryWarning
	m.mu.Unlock()
	if !told && left < expiryWarning {
		m.log.Warn("this node's certificate ends: members refuse it from then on, until an admin has renewed it (cert export)", "expires", expiryText(c.Leaf.NotAfter))
	}
}

// expiryWarning is how long before its end a certificate is complained of.
const expiryWarning = 7 * 24 * time.Hour

// certificate is what Hello shows.
func (m *membership) certificate() []byte {
	if c := m.shown.Load(); c != nil {
		return c.Encode()
	}
	return nil
}

// grant is what the genesis block of a log of this node delivers.
func (m *membership) grant(space replication.SpaceID) ([]byte, error) {
	raw := m.certificate()
	if raw == nil {
		return nil, fmt.Errorf("this node has no certificate of its network: join it with an invite: %w", replication.ErrNotAllowed)
	}
	if err := m.state.Load().MayWrite(m.self, space, raw); errors.Is(err, replication.ErrNotAllowed) {
		return nil, fmt.Errorf("this node may not write in space %q (it is %s): ask an admin for the role writer: %w", m.spaceTitle(space), m.rolesText(m.grantsOf(m.shown.Load())), replication.ErrNotAllowed)
	} else if err != nil {
		return nil, m.naming(err)
	}
	return raw, nil
}

// check decides on a peer by what it shows in Hello; the error has the code that
// the peer is told.
func (m *membership) check(p protocols.PeerInfo) (*trust.Chain, error) {
	chain, err := m.state.Load().CheckPeer(p.Certificate, p.Key, m.now())
	if err != nil {
		return nil, refusalOf(m.naming(err))
	}
	return chain, nil
}

// revoked refuses a peer of which nothing need be heard.
func (m *membership) revoked(key replication.OriginKey) error {
	if m.state.Load().Revoked(key) {
		return protocols.Refuse(replication.CodeCertRevoked, "")
	}
	return nil
}

// heardRefusal notes that a member takes this node for revoked.
func (m *membership) heardRefusal(id peer.ID, err error) {
	var said *protocols.CodeError
	if m == nil || !errors.As(err, &said) || !said.FromPeer || said.Code != replication.CodeCertRevoked {
		return
	}
	key, err := protocols.OriginOf(id)
	if member, ok := m.state.Load().Member(key); err == nil && ok && !member.Revoked { // anybody can say so
		m.refused.set(m.shownID())
	}
}

// refusalOf gives an error of trust the code that its peer is told.
func refusalOf(err error) error {
	code := replication.CodeNoCertificate
	switch {
	case errors.Is(err, trust.ErrExpired):
		code = replication.CodeCertExpired
	case errors.Is(err, trust.ErrRevoked):
		code = replication.CodeCertRevoked
	case errors.Is(err, trust.ErrOtherNetwork):
		code = replication.CodeOtherNetwork
	}
	return &trustRefusal{cause: err, code: code}
}

// trustRefusal is the reason for this side's log, and a code without it for the
// peer, who may be a stranger.
type trustRefusal struct {
	cause error
	code  replication.Code
}

func (e *trustRefusal) Error() string   { return e.cause.Error() }
func (e *trustRefusal) Unwrap() []error { return []error{e.cause, protocols.Refuse(e.code, "")} }

// carries tells whether a peer gets the blocks of a space.
func (m *membership) carries(key replication.OriginKey, shown *trust.Chain) func(replication.SpaceID) bool {
	return func(space replication.SpaceID) bool {
		return m.state.Load().MayCarry(key, space, m.now(), shown)
	}
}

// takesPart tells whether this node carries a space, by its roles alone: what it holds
// stays its own when its certificate has ended, or it was revoked.
func (m *membership) takesPart(space replication.SpaceID) bool {
	c := m.shown.Load()
	return c != nil && slices.ContainsFunc(m.grantsOf(c), func(g trust.Grant) bool { return g.MayCarry(space) })
}

// carriedNow tells whether members exchange a space with this node: a role in it stands
// whose certificate has not ended.
func (m *membership) carriedNow(space replication.SpaceID) bool {
	return m.state.Load().MayCarry(m.self, space, m.now(), m.shown.Load())
}

// endedSpaces are the spaces that this node and a member exchange no more because the
// certificate of one of them for the space has ended, and why. Spaces in which either
// has no role are none of them.
func (m *membership) endedSpaces(key replication.OriginKey, shown *trust.Chain) map[replication.SpaceID]string {
	st, now, out := m.state.Load(), m.now(), map[replication.SpaceID]string{}
	for _, s := range m.declared() {
		theirs, theirEnd := st.CarryEnded(key, s.ID, now, shown)
		own, ownEnd := st.CarryEnded(m.self, s.ID, now, m.shown.Load())
		switch {
		case !ownEnd && !theirEnd:
		case ownEnd && (theirEnd || st.MayCarry(key, s.ID, now, shown)):
			out[s.ID] = fmt.Sprintf("this node's certificate for it ended at %s: ask an admin to renew it (cert export)", expiryText(own))
		case !ownEnd && st.MayCarry(m.self, s.ID, now, m.shown.Load()):
			out[s.ID] = fmt.Sprintf("the peer's certificate for it ended at %s: an admin renews it (cert export)", expiryText(theirs))
		}
	}
	return out
}

// lacks says which spaces a session goes on without, where a certificate has ended;
// empty: none.
func (m *membership) lacks(key replication.OriginKey, shown *trust.Chain) string {
	var out []string
	for space, why := range m.endedSpaces(key, shown) {
		out = append(out, fmt.Sprintf("space %q is not exchanged: %s", m.spaceTitle(space), why))
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// mayRead tells whether this node is more than a relay in a space.
func (m *membership) mayRead(space replication.SpaceID) bool {
	c := m.shown.Load()
	return c != nil && slices.ContainsFunc(m.grantsOf(c), func(g trust.Grant) bool { return g.MayRead(space) })
}

// spaces are those that this node carries, the control space among them.
func (m *membership) spaces() []replication.SpaceInfo {
	out := []replication.SpaceInfo{{ID: m.control, Name: trust.ControlSpaceName}}
	for _, s := range m.declared() {
		if m.takesPart(s.ID) {
			out = append(out, s)
		}
	}
	return out
}

// declared are the data spaces of the network, `default` among them.
func (m *membership) declared() []replication.SpaceInfo {
	standard := replication.SpaceInfo{ID: replication.SpaceOf(m.network, replication.DefaultSpace), Name: replication.DefaultSpace}
	out := []replication.SpaceInfo{standard}
	for _, s := range m.state.Load().Spaces() {
		if s.ID != standard.ID {
			out = append(out, replication.SpaceInfo{ID: s.ID, Name: s.Name})
		}
	}
	return out
}

// isDeclared tells a space of the network from a name that nobody has declared.
func (m *membership) isDeclared(id replication.SpaceID) bool {
	return slices.ContainsFunc(m.declared(), func(s replication.SpaceInfo) bool { return s.ID == id })
}

// grantsOf are the grants that a chain's subject has by all that is known.
func (m *membership) grantsOf(c *trust.Chain) []trust.Grant {
	if member, ok := m.state.Load().Member(c.Leaf.Subject); ok && member.Generation == c.Leaf.Generation {
		return member.Grants
	}
	return c.Leaf.Grants
}

// rightsDiffer tells whether this node may have other spaces than before.
func (m *membership) rightsDiffer(before *trust.State) bool {
	now, shown := m.now(), m.shown.Load()
	for _, s := range m.declared() {
		if before.MayCarry(m.self, s.ID, now, shown) != m.state.Load().MayCarry(m.self, s.ID, now, shown) {
			return true
		}
	}
	return false
}

// rights are the declared spaces that a peer may have or not have, as they were when
// its session began, or when the space was declared.
type rights struct {
	mu     sync.Mutex // guards spaces
	spaces map[replication.SpaceID]bool
}

// differ tells whether any of them has changed.
func (r *rights) differ(m *membership, key replication.OriginKey, shown *trust.Chain) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spaces == nil {
		r.spaces = map[replication.SpaceID]bool{}
	}
	may, changed := m.carries(key, shown), false
	for _, s := range m.declared() {
		now := may(s.ID)
		had, known := r.spaces[s.ID]
		r.spaces[s.ID] = now
		changed = changed || known && had != now
	}
	return changed
}

// has tells whether the peer may have a space.
func (r *rights) has(space replication.SpaceID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.spaces[space]
}
