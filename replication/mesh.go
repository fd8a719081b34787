package replication

import (
	"container/heap"
	"container/list"
	"slices"
	"time"
)

// Mesh decides which of a node's sessions push which log to it (design 6.4; Plumtree,
// Leitao, Pereira, Rodrigues 2007). Like Session it is a function of what it is told
// and when; a session is known to it by a number. It is not safe for concurrent use.
//
// A few sessions are all eager; of more, all but Degree are asked to announce instead
// of pushing. Who pushes what another has brought is asked to announce that
// log from then on; so the way that a log's first block took becomes the log's tree.
// When somebody is ahead of what arrives, or the session that brings a log has ended,
// one of those who announce is asked to push again. Of several sessions that have much
// for this node one is eager, until it has brought what it has.
//
// It keeps state of the logs in which something happens, of the last maxMeshLogs. What
// is forgotten costs at most a repeat, or a second: peers go on as they were asked to,
// and what they announce is noted anew.
type Mesh struct {
	cfg    MeshConfig
	peers  map[uint64]*meshPeer
	order  []*meshPeer      // all of peers, oldest first
	spaces map[SpaceID]bool // in which this node may write
	logs   map[LogID]*meshLog
	recent list.List // of *meshLog, the one in which something happened last in front
	timers timerHeap
	ticket uint64 // orders timers
	now    time.Time
	out    []MeshAction

	stalled  timer // the session that is waited for brings nothing
	exchange timer
}

// MeshConfig says how a mesh is to be. Zero values give the defaults in parentheses.
type MeshConfig struct {
	// Degree is how many sessions push what nobody has pruned (5), if there are more
	// than Few (8); else all do.
	Degree, Few int
	// ExchangeEvery is how often frontiers are compared again with each of the others
	// (5 min).
	ExchangeEvery time.Duration
	// Rand draws who is eager, a number in [0, n); nil: who was first.
	Rand func(n int64) int64
}

const (
	// DefaultMeshDegree is enough that a random mesh holds together when nodes fail,
	// and few enough that the first block of a log costs little. DefaultMeshFew is the
	// default of MeshConfig.Few: where sessions are few they are ways for each other.
	DefaultMeshDegree = 5
	DefaultMeshFew    = 8
	// GraftAfter is for how long at least a log may make no progress before somebody
	// who is ahead is asked for it; four round trips if that is longer.
	GraftAfter = time.Second
	// DefaultExchangeEvery is the default of MeshConfig.ExchangeEvery.
	DefaultExchangeEvery = 5 * time.Minute

	maxMeshLogs    = 8192
	maxAhead       = 1024             // logs of one session; of one that has more all are asked for
	bulkPause      = time.Minute      // until that is done for the same session again
	minPushedTo    = 2                // sessions to which what is written here is pushed, if there are so many
	maxGrafts      = 5                // in vain, until what a session announced is forgotten
	maxOwed        = 16_384           // logs that one session is waited for, by name
	maxArriving    = 30 * time.Second // bytes without a commit are progress for so long
	graftsAtOnce   = 3                // doublings of the wait for one who was grafted
	firstPruneWait = time.Second      // before a Prune is repeated; doubles up to maxPruneWait
	maxPruneWait   = time.Minute
)

// MeshAction is an event for a session.
type MeshAction struct {
	Session uint64
	// Event is MeshPrune, MeshGraft, MeshDefault, MeshHold or MeshExchange. Of a
	// MeshGraft the driver fills in From.
	Event Event
}

// meshPeer is one session.
type meshPeer struct {
	carries  func(SpaceID) bool // nil: every space
	id       uint64
	rtt      time.Duration
	lazy     bool // asked to announce in general
	caughtUp bool // it has brought what it stated, or is not waited for any more
	heard    time.Time
	ahead    int       // logs in which it is ahead; at most maxAhead
	bulk     bool      // it is ahead in more than that: it is to push all of it
	bulkAt   time.Time // when that was last found
	// owes is how far it is to bring logs, as long as it has not caught up; nil: not known
	// yet. owesMore: others too, so that it may bring any.
	owes      map[LogID]uint64
	owesMore  bool
	wantsLazy bool      // it asked for announcements in general
	held      bool      // and is pushed to nevertheless
	exchanged time.Time // when its frontiers were last compared again
}

// meshLog is a log in which something happened.
type meshLog struct {
	id  LogID
	at  *list.Element
	tip uint64 // durable here, as far as the mesh has heard
	// source is the session that brings the log; 0: none is known. Invariant: it
	// lives, and its link is not pruned.
	source uint64
	own    bool // this node writes it
	// progress is when something of it arrived, was asked for, or turned out to be
	// missing; what arrives, of it or in a backlog, counts for maxArriving after began.
	progress, began time.Time
	links           []meshLogLink
	timer           timer // set while a link is ahead
}

// meshLogLink is what is to be remembered of a session for a log.
type meshLogLink struct {
	id        uint64
	pruned    bool
	prunedAt  time.Time
	pruneWait time.Duration
	ahead     uint64 // stated beyond the tip; 0: not
	grafts    int    // since the log last advanced
}

// NewMesh makes a mesh without sessions.
func NewMesh(cfg MeshConfig) *Mesh {
	setDefault(&cfg.Degree, DefaultMeshDegree)
	setDefault(&cfg.Few, max(cfg.Degree, DefaultMeshFew))
	setDefault(&cfg.ExchangeEvery, DefaultExchangeEvery)
	m := &Mesh{cfg: cfg, peers: map[uint64]*meshPeer{}, spaces: map[SpaceID]bool{}, logs: map[LogID]*meshLog{}}
	m.stalled.fire = m.giveUpWaiting
	m.exchange.fire = m.exchangeNext
	return m
}

func (m *Mesh) begin(now time.Time) {
	m.now = now
	m.out = m.out[:0]
}

func (m *Mesh) act(id uint64, ev Event) { m.out = append(m.out, MeshAction{Session: id, Event: ev}) }

// Attach adds a session and tells whether it is to begin as lazy
// (SessionConfig.StartLazy). carries is SessionConfig.Carries. The actions of this and
// the other methods are valid until the next call.
func (m *Mesh) Attach(now time.Time, id uint64, carries func(SpaceID) bool) (startLazy bool, do []MeshAction) {
	m.begin(now)
	p := &meshPeer{id: id, carries: carries, heard: now, lazy: true}
	m.peers[id] = p
	m.order = append(m.order, p)
	if m.exchange.place == 0 {
		m.after(&m.exchange, m.cfg.ExchangeEvery)
	}
	if m.makeRoom() && m.catching() == nil { // else its turn comes
		p.lazy = false
		m.watch()
	}
	return p.lazy, m.out
}

// degree is how many sessions are to be eager.
func (m *Mesh) degree() int {
	if len(m.peers) <= m.cfg.Few {
		return len(m.peers)
	}
	return m.cfg.Degree
}

// makeRoom makes eager sessions lazy if there are too many, and tells whether there is
// room for one that is new: when nobody is given preference, each of all is eager with
// the same probability.
func (m *Mesh) makeRoom() bool {
	degree, eager := m.degree(), m.eager()
	if len(eager) < degree {
		return true
	}
	keep := degree
	join := m.cfg.Rand != nil && m.cfg.Rand(int64(len(m.peers))) < int64(degree)
	if join {
		keep--
	}
	eager = slices.DeleteFunc(eager, func(p *meshPeer) bool {
		if !p.caughtUp {
			keep--
		}
		return !p.caughtUp
	})
	for len(eager) > max(0, keep) {
		i := len(eager) - 1
		if m.cfg.Rand != nil {
			i = int(m.cfg.Rand(int64(len(eager))))
		}
		m.demote(eager[i])
		eager = slices.Delete(eager, i, i+1)
	}
	return join && keep >= 0
}

// Detach takes out a session that ended.
func (m *Mesh) Detach(now time.Time, id uint64) []MeshAction {
	m.begin(now)
	p := m.peers[id]
	if p == nil {
		return nil
	}
	delete(m.peers, id)
	m.order = slices.DeleteFunc(m.order, func(o *meshPeer) bool { return o == p })
	for e := m.recent.Back(); e != nil; {
		l := e.Value.(*meshLog)
		e = e.Prev()
		m.lost(l, id)
	}
	m.promote()
	m.holdSome()
	return m.out
}

// lost takes a session out of a log. If it was the log's source another is asked at
// once.
func (m *Mesh) lost(l *meshLog, id uint64) {
	if k := l.link(id); k != nil {
		m.setAhead(k, 0)
		l.links = slices.DeleteFunc(l.links, func(k meshLogLink) bool { return k.id == id })
	}
	if l.source == id {
		l.source = 0
		m.graftSome(l)
	}
	m.tidy(l)
}

// eager is the sessions that push in general.
func (m *Mesh) eager() []*meshPeer {
	var list []*meshPeer
	for _, p := range m.order {
		if !p.lazy {
			list = append(list, p)
		}
	}
	return list
}

// catching is an eager session that has not brought yet what it stated.
func (m *Mesh) catching() *meshPeer {
	for _, p := range m.order {
		if !p.lazy && !p.caughtUp {
			return p
		}
	}
	return nil
}

// promote makes lazy sessions eager, as long as there are not enough and nobody is
// waited for.
func (m *Mesh) promote() {
	for m.catching() == nil {
		p := m.nextEager()
		if p == nil {
			break
		}
		p.lazy, p.caughtUp, p.heard = false, false, m.now
		m.act(p.id, MeshDefault{})
	}
	m.watch()
}

// nextEager is a lazy session that is to be eager: one that has much for this node, or
// any if there are not enough.
func (m *Mesh) nextEager() *meshPeer {
	var lazy []*meshPeer
	for _, p := range m.order {
		switch {
		case p.lazy && p.bulk:
			return p
		case p.lazy:
			lazy = append(lazy, p)
		}
	}
	if len(lazy) == 0 || len(m.eager()) >= m.degree() {
		return nil
	}
	if m.cfg.Rand == nil {
		return lazy[0]
	}
	return lazy[m.cfg.Rand(int64(len(lazy)))]
}

// caughtUp ends the wait for a session. One that was eager for its backlog alone is
// lazy again.
func (m *Mesh) caughtUp(p *meshPeer) {
	p.caughtUp, p.owes, p.owesMore = true, nil, false
	if p.bulk && len(m.eager()) > m.degree() {
		m.demote(p)
	}
	p.bulk = false
	m.promote()
}

// demote makes an eager session lazy, but for the logs that it brings.
func (m *Mesh) demote(p *meshPeer) {
	p.lazy = true
	m.act(p.id, MeshDefault{Lazy: true})
	for e := m.recent.Front(); e != nil; e = e.Next() {
		if l := e.Value.(*meshLog); l.source == p.id {
			m.act(p.id, MeshGraft{Log: l.id})
		}
	}
}

// watch waits for the session that is catching up, for as long as it brings anything.
func (m *Mesh) watch() {
	m.stop(&m.stalled)
	if p := m.catching(); p != nil {
		m.after(&m.stalled, max(time.Millisecond, m.patience(p)-m.now.Sub(p.heard)))
	}
}

func (m *Mesh) giveUpWaiting() {
	if p := m.catching(); p != nil && m.now.Sub(p.heard) >= m.patience(p) {
		m.caughtUp(p)
	} else {
		m.watch()
	}
}

// patience is for how long somebody may bring nothing.
func (m *Mesh) patience(p *meshPeer) time.Duration { return max(GraftAfter, 4*p.rtt) }

// CaughtUp tells that a session has brought what its peer stated.
func (m *Mesh) CaughtUp(now time.Time, id uint64) []MeshAction {
	m.begin(now)
	if p := m.peers[id]; p != nil && !p.lazy {
		m.caughtUp(p)
	}
	return m.out
}

// Owes tells what an eager session is to bring of a space, and whether that is more than
// these logs. Another's announcement of any other log does not wait for it.
func (m *Mesh) Owes(now time.Time, id uint64, logs []Dot, more bool) []MeshAction {
	m.begin(now)
	p := m.peers[id]
	if p == nil || p.lazy || p.caughtUp {
		return nil
	}
	if p.owes == nil {
		p.owes = map[LogID]uint64{}
	}
	for _, d := range logs {
		p.owes[d.Log] = max(p.owes[d.Log], d.Seq)
	}
	if p.owesMore = p.owesMore || more || len(p.owes) > maxOwed; p.owesMore {
		clear(p.owes)
	}
	return m.out
}

// mayBring tells whether a session that catches up may bring more of a log than there is.
func (p *meshPeer) mayBring(l *meshLog) bool {
	return p.owes == nil || p.owesMore || p.owes[l.id] > l.tip
}

// PeerLazy tells what the peer of a session asked for, for logs in general.
func (m *Mesh) PeerLazy(now time.Time, id uint64, lazy bool) []MeshAction {
	m.begin(now)
	if p := m.peers[id]; p != nil {
		p.wantsLazy = lazy
		m.holdSome()
	}
	return m.out
}

// AddSpace tells of a space in which this node may write.
func (m *Mesh) AddSpace(now time.Time, space SpaceID) []MeshAction {
	m.begin(now)
	m.addSpace(space)
	return m.out
}

func (m *Mesh) addSpace(space SpaceID) {
	if !m.spaces[space] {
		m.spaces[space] = true
		m.holdSome()
	}
}

// holdSome goes on to push what is written here to a few who do not want it, if of those
// who may have a space nearly nobody does: a write in a log that is new must get out.
func (m *Mesh) holdSome() {
	held := map[*meshPeer]bool{}
	for space := range m.spaces {
		missing := minPushedTo
		for _, lazy := range []bool{false, true} {
			for _, p := range m.order {
				if missing > 0 && p.wantsLazy == lazy && p.mayHave(space) {
					missing--
					held[p] = held[p] || lazy
				}
			}
		}
	}
	for _, p := range m.order {
		if hold := held[p]; p.held != hold {
			p.held = hold
			m.act(p.id, MeshHold{Hold: hold})
		}
	}
}

// mayHave tells whether the peer may have a space: else it is no way for its logs.
func (p *meshPeer) mayHave(space SpaceID) bool { return p.carries == nil || p.carries(space) }

// RTT tells a session's round trip time.
func (m *Mesh) RTT(id uint64, rtt time.Duration) {
	if p := m.peers[id]; p != nil {
		p.rtt = rtt
	}
}

// Arriving tells that a session received a run, or a piece of one.
func (m *Mesh) Arriving(now time.Time, id uint64, log LogID) {
	if p := m.peers[id]; p != nil {
		p.heard = now
	}
	if l := m.logs[log]; l != nil && now.Sub(l.began) < maxArriving {
		l.progress = now
	}
}

// Advanced tells that a log of a space is durable here up to seq; id is the session that
// brought that, 0 for a write of this node.
func (m *Mesh) Advanced(now time.Time, space SpaceID, log LogID, seq, id uint64) []MeshAction {
	m.begin(now)
	if id == 0 {
		m.addSpace(space)
	}
	l := m.logs[log]
	p := m.peers[id]
	if l == nil && (p == nil && id != 0 || len(m.peers) <= 1) {
		return m.out
	}
	cold := l == nil
	l = m.touch(log)
	m.grow(l, seq)
	l.progress, l.began = now, now
	for i := range l.links {
		l.links[i].grafts = 0
	}
	if id == 0 {
		l.own, l.source = true, 0
	}
	if p != nil {
		p.heard = now
		if k := l.link(id); k == nil || !k.pruned {
			l.source = id
		}
		if cold && l.source == id {
			m.pruneOthers(l, space)
		}
	}
	m.tidy(l)
	return m.out
}

// pruneOthers asks the other eager sessions not to push a log that has just begun to
// come, where sessions are so many that nearly all of them would. It is what their
// duplicates would lead to; some are in time for the first block.
func (m *Mesh) pruneOthers(l *meshLog, space SpaceID) {
	if len(m.peers) <= m.cfg.Few || m.catching() != nil {
		return
	}
	for _, p := range m.order {
		if !p.lazy && p.id != l.source && p.mayHave(space) {
			m.prune(l, p.id)
		}
	}
}

// Duplicate tells that a session pushed what was here. It is asked to stop if another
// one brings the log, or this node writes it.
func (m *Mesh) Duplicate(now time.Time, log LogID, id uint64) []MeshAction {
	m.begin(now)
	l, p := m.logs[log], m.peers[id]
	if p == nil || l == nil || l.source == id || l.source == 0 && !l.own {
		return nil
	}
	m.prune(l, id)
	return m.out
}

func (m *Mesh) prune(l *meshLog, id uint64) {
	k := l.link(id)
	if k == nil {
		k = l.add(id)
	}
	if k.pruned && m.now.Sub(k.prunedAt) < k.pruneWait {
		return // what comes was under way, or the peer does not know what a Prune is
	}
	k.pruneWait = min(max(firstPruneWait, 2*k.pruneWait), maxPruneWait)
	k.pruned, k.prunedAt = true, m.now
	m.act(id, MeshPrune{Log: l.id})
}

// Refused tells that a session pushed what cannot be taken: it does not bring the log.
func (m *Mesh) Refused(now time.Time, log LogID, id uint64) []MeshAction {
	m.begin(now)
	if l := m.logs[log]; l != nil && m.peers[id] != nil {
		m.lost(l, id)
	}
	return m.out
}

// Ahead tells that the peer of a session holds a log up to seq and does not push it
// unasked; held is what is durable here.
func (m *Mesh) Ahead(now time.Time, log LogID, id, seq, held uint64) []MeshAction {
	m.begin(now)
	if l := m.logs[log]; l != nil {
		held = max(held, l.tip)
	}
	p := m.peers[id]
	if p == nil || seq <= held {
		return nil
	}
	if p.ahead == maxAhead {
		if p.lazy && !p.bulk && (p.bulkAt.IsZero() || now.Sub(p.bulkAt) >= bulkPause) {
			p.bulk, p.bulkAt = true, now
			m.promote()
		}
		return m.out // what is not noted is pushed then, or announced again
	}
	l := m.touch(log)
	m.grow(l, held)
	k := l.link(id)
	if k == nil {
		k = l.add(id)
	}
	m.setAhead(k, max(k.ahead, seq))
	if l.timer.place == 0 {
		l.progress, l.began = now, now
		m.after(&l.timer, m.wait(l))
	}
	return m.out
}

// Forget drops what is known of a log that was cut.
func (m *Mesh) Forget(log LogID) {
	if l := m.logs[log]; l != nil {
		m.drop(l)
	}
}

// late is the timer of a log in which somebody is ahead.
func (m *Mesh) late(l *meshLog) {
	wait := m.wait(l)
	switch {
	case wait > 0:
	case m.graft(l):
		wait = m.wait(l)
	default:
		m.tidy(l)
		return
	}
	m.after(&l.timer, wait)
}

// wait is how much longer a log may make no progress. While a session catches up, brings
// something, and may bring this log, it is waited for, but not for long: it may be slow.
func (m *Mesh) wait(l *meshLog) time.Duration {
	patience, grafts := time.Duration(0), 0
	for i := range l.links {
		k := &l.links[i]
		grafts += k.grafts
		if k.ahead > l.tip {
			if d := m.patience(m.peers[k.id]); patience == 0 || d < patience {
				patience = d
			}
		}
	}
	since := l.progress
	if p := m.catching(); p != nil && p.mayBring(l) && p.heard.After(since) && m.now.Sub(l.began) < maxArriving && l.source == 0 && grafts == 0 {
		since = p.heard
	}
	return max(patience<<max(0, min(grafts-graftsAtOnce, 6)), GraftAfter) - m.now.Sub(since)
}

// graft asks one that is ahead: first who was asked least, and not who is the source
// and does not bring it, then who is nearest. False: nobody is.
func (m *Mesh) graft(l *meshLog) bool {
	var best *meshLogLink
	rank := func(k *meshLogLink) (int, time.Duration) {
		n := k.grafts
		if k.id == l.source {
			n++
		}
		return n, m.peers[k.id].rtt
	}
	for i := range l.links {
		k := &l.links[i]
		if k.ahead <= l.tip {
			continue
		}
		if best == nil {
			best = k
			continue
		}
		n, rtt := rank(k)
		bestN, bestRTT := rank(best)
		if n < bestN || n == bestN && rtt < bestRTT {
			best = k
		}
	}
	if best == nil {
		return false
	}
	if best.grafts++; best.grafts > maxGrafts {
		m.setAhead(best, 0) // it does not have what it says, or will say so again
		best.grafts = 0
		return m.graft(l)
	}
	m.ask(l, best)
	return true
}

// graftSome asks several that were pruned or are ahead, because nobody knows which of
// them had the log by another way than through the one that ended. The first that
// brings something is the source from then on.
func (m *Mesh) graftSome(l *meshLog) {
	asked := 0
	for _, ahead := range []bool{true, false} {
		for i := range l.links {
			k := &l.links[i]
			if asked < m.cfg.Degree && (k.ahead > l.tip) == ahead && (ahead || k.pruned) {
				m.ask(l, k)
				asked++
			}
		}
	}
	l.source = 0
}

func (m *Mesh) ask(l *meshLog, k *meshLogLink) {
	k.pruned, k.pruneWait = false, 0
	l.source, l.progress, l.began = k.id, m.now, m.now
	m.act(k.id, MeshGraft{Log: l.id})
}

// exchangeNext compares frontiers again with one of those who push nothing unasked, or
// are not pushed to: with one at a time, since each costs a look at all logs.
func (m *Mesh) exchangeNext() {
	var next *meshPeer
	quiet := 0
	for _, p := range m.order {
		if p.lazy || p.wantsLazy {
			quiet++
			if next == nil || p.exchanged.Before(next.exchanged) {
				next = p
			}
		}
	}
	if next != nil {
		next.exchanged = m.now
		m.act(next.id, MeshExchange{})
	}
	if len(m.order) > 0 {
		m.after(&m.exchange, m.cfg.ExchangeEvery/time.Duration(max(1, quiet)))
	}
}

// Deadline is when the mesh wants a Tick; zero: never.
func (m *Mesh) Deadline() time.Time {
	if len(m.timers) == 0 {
		return time.Time{}
	}
	return m.timers[0].at
}

// Tick does what is due.
func (m *Mesh) Tick(now time.Time) []MeshAction {
	m.begin(now)
	last := m.ticket
	for len(m.timers) > 0 {
		t := m.timers[0]
		if t.at.After(now) || t.order > last {
			break
		}
		heap.Pop(&m.timers)
		t.fire()
	}
	return m.out
}

func (m *Mesh) after(t *timer, d time.Duration) {
	m.stop(t)
	m.ticket++
	t.at, t.order = m.now.Add(max(d, time.Millisecond)), m.ticket
	heap.Push(&m.timers, t)
}

func (m *Mesh) stop(t *timer) {
	if t.place > 0 {
		heap.Remove(&m.timers, t.place-1)
	}
}

// touch is the state of a log, in which something happens now.
func (m *Mesh) touch(log LogID) *meshLog {
	if l := m.logs[log]; l != nil {
		m.recent.MoveToFront(l.at)
		return l
	}
	if len(m.logs) >= maxMeshLogs {
		m.drop(m.recent.Back().Value.(*meshLog))
	}
	l := &meshLog{id: log}
	l.timer.fire = func() { m.late(l) }
	l.at = m.recent.PushFront(l)
	m.logs[log] = l
	return l
}

// tidy forgets what says nothing: links with nothing to remember, and a log that
// nobody brings and nobody has more of.
func (m *Mesh) tidy(l *meshLog) {
	ahead := false
	l.links = slices.DeleteFunc(l.links, func(k meshLogLink) bool {
		ahead = ahead || k.ahead > 0
		return k.ahead == 0 && !k.pruned && k.grafts == 0
	})
	if !ahead {
		m.stop(&l.timer)
	}
	if l.source == 0 && len(l.links) == 0 && !l.own {
		m.drop(l)
	}
}

func (m *Mesh) drop(l *meshLog) {
	m.stop(&l.timer)
	for i := range l.links {
		m.setAhead(&l.links[i], 0)
	}
	m.recent.Remove(l.at)
	delete(m.logs, l.id)
}

// grow notes what is durable here: who is not ahead of that is not ahead.
func (m *Mesh) grow(l *meshLog, seq uint64) {
	l.tip = max(l.tip, seq)
	for i := range l.links {
		if k := &l.links[i]; k.ahead <= l.tip {
			m.setAhead(k, 0)
		}
	}
}

// setAhead notes how far a session is ahead, 0 for not at all.
func (m *Mesh) setAhead(k *meshLogLink, seq uint64) {
	if p := m.peers[k.id]; p != nil && (k.ahead > 0) != (seq > 0) {
		if seq > 0 {
			p.ahead++
		} else {
			p.ahead--
		}
	}
	k.ahead = seq
}

func (l *meshLog) link(id uint64) *meshLogLink {
	for i := range l.links {
		if l.links[i].id == id {
			return &l.links[i]
		}
	}
	return nil
}

func (l *meshLog) add(id uint64) *meshLogLink {
	l.links = append(l.links, meshLogLink{id: id})
	return &l.links[len(l.links)-1]
}
