package replicator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vixp2p/replication"
)

// receipts knows who stated to hold what, and who waits for that (design 6.8).
//
// Of a member that is connected its newest session answers, as soon as the
// frontiers of the space have been compared; before that, and for a member that
// is not connected, what its current instance last stated counts, because
// nothing has contradicted it since. A loss that a member admits shows in what
// its session answers, and in the cursor that follows it. A new instance voids all
// that an older one stated.
//
// A member that does not fsync gives no receipts, whatever it or its instance stated
// before: a statement is kept with the durability of who made it, in Base of the
// cursor's entry, and one of unknown durability counts for nothing. The entry of no
// log has the durability of the instance's newest session.
type receipts struct {
	store   replication.Store
	waiting atomic.Int64 // WaitReplicated calls under way

	mu      sync.Mutex // guards below; never held during a call of the store
	members map[replication.OriginKey]*member
	waits   map[replication.LogID]map[*wait]struct{}
}

// Durability is what a member's statements are worth (G2). Its numbers are stored.
type Durability uint64

const (
	UnknownDurability Durability = iota
	Strict                       // it fsyncs before it states
	Relaxed                      // it does not
	// forgotten stands in the entry of no log of a member that its user wants to see
	// no more, until its next session (see Replicator.Forget).
	forgotten
)

func (d Durability) String() string {
	return [...]string{"", "strict", "relaxed", ""}[min(d, forgotten)]
}

func (p *PeerInfo) durability() Durability {
	if p.Relaxed {
		return Relaxed
	}
	return Strict
}

// member is another node that was met.
type member struct {
	instance   replication.Instance // the current one
	durability Durability           // of its newest session; unknown: none since the start of this node
	lastAck    time.Time            // of sessions that ended
	live       []*liveSession       // of the current instance, oldest first
	forgotten  bool                 // since its last session; once known, of one from before the start
	// cursor mirrors what the store has of the current instance; nil: not
	// loaded. Invariant: if loaded, it has every statement.
	cursor  map[replication.LogID]replication.FrontierEntry
	version uint64 // counts what changes the cursor, loaded or not
	away    awayPending
}

type liveSession struct {
	p       *Peer
	settled map[replication.SpaceID]bool
}

// wait is one WaitReplicated.
type wait struct {
	space   replication.SpaceID
	dot     replication.Dot
	k       int
	acked   map[replication.OriginKey]bool // who states it now
	reached chan struct{}                  // closed when k of them did, or the write was cut
	done    bool                           // reached is closed
	cut     bool                           // the write lies beyond a cut that came meanwhile
}

// maxCursorEntries bounds what is kept of the cursors of members, over all. A
// member's cursor is loaded when it is needed.
const maxCursorEntries = 1 << 16

// NotReplicatedError tells how far a write got before the wait for it ended. It
// is errors.Is(err, Cause).
type NotReplicatedError struct {
	Dot   replication.Dot
	Want  int
	Acked []replication.OriginKey // those who stated that they hold it durably
	// Relaxed is how many members have a session and do not fsync.
	Relaxed int
	Cause   error // the context's, or ErrClosed
}

func (e *NotReplicatedError) Error() string {
	msg := fmt.Sprintf("the write %s/%d is durable here, but only %d of the %d other members that were asked for have stated that they hold it",
		e.Dot.Log.Short(), e.Dot.Seq, len(e.Acked), e.Want)
	if len(e.Acked) > 0 {
		keys := make([]string, len(e.Acked))
		for i, k := range e.Acked {
			keys[i] = k.String()[:8]
		}
		msg += " (" + strings.Join(keys, ", ") + ")"
	}
	if e.Relaxed > 0 {
		msg += fmt.Sprintf("; %d connected members run with relaxed durability, which does not count", e.Relaxed)
	}
	return msg + "; it goes on to the others as soon as they can be reached: " + e.Cause.Error()
}

func (e *NotReplicatedError) Unwrap() error { return e.Cause }

// newReceipts starts with the newest instance of every member that the store
// knows.
func newReceipts(store replication.Store) (*receipts, error) {
	known, err := store.ListCursors()
	if err != nil {
		return nil, err
	}
	rc := &receipts{
		store:   store,
		members: map[replication.OriginKey]*member{},
		waits:   map[replication.LogID]map[*wait]struct{}{},
	}
	for _, c := range known { // newest last
		rc.members[c.Peer] = &member{instance: c.Instance}
	}
	return rc, nil
}

// meet makes an instance the member's current one, with the durability that its
// newest session named. If it is another one than so far, what the member stated
// before counts no more.
func (rc *receipts) meet(info *PeerInfo) {
	if rc.become(info) {
		// So that a restart of this node knows it too, even if the instance never
		// states a thing: the entry of no log.
		marker := replication.FrontierEntry{Base: uint64(info.durability())}
		rc.store.SaveCursor(info.Key, info.Instance, []replication.FrontierEntry{marker})
	}
}

// become tells whether the store may not know the member like that.
func (rc *receipts) become(info *PeerInfo) bool {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	m := rc.members[info.Key]
	if m == nil {
		m = &member{instance: info.Instance}
		rc.members[info.Key] = m
	}
	same := m.instance == info.Instance
	if same && m.durability == info.durability() {
		return false
	}
	if !same {
		*m = member{instance: info.Instance, version: m.version}
	}
	m.durability, m.forgotten = info.durability(), false
	m.version++
	if m.cursor != nil {
		m.cursor[replication.LogID{}] = replication.FrontierEntry{Base: uint64(m.durability)}
	}
	if !same || info.Relaxed {
		for _, ws := range rc.waits {
			for w := range ws {
				delete(w.acked, info.Key)
			}
		}
	}
	return true
}

// attach notes a session that begins, of an instance that was met.
func (rc *receipts) attach(p *Peer) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	m := rc.members[p.info.Key]
	if m.instance != p.info.Instance {
		return // yet another one came in between: it is the current one
	}
	m.live = append(m.live, &liveSession{p: p, settled: map[replication.SpaceID]bool{}})
}

// detach notes that a session ended. What it stated keeps counting.
func (rc *receipts) detach(p *Peer) {
	rc.mu.Lock()
	m := rc.members[p.info.Key]
	m.live = slices.DeleteFunc(m.live, func(l *liveSession) bool { return l.p == p })
	if at := p.lastAck(); m.instance == p.info.Instance && at.After(m.lastAck) {
		m.lastAck = at
	}
	next := m.newestLocked()
	rc.mu.Unlock()
	if next != nil {
		next.p.post(item{call: next.p.reportAll})
	}
}

func (m *member) newestLocked() *liveSession {
	if len(m.live) == 0 {
		return nil
	}
	return m.live[len(m.live)-1]
}

// settled notes that the session's answers for a space are complete.
func (rc *receipts) settled(p *Peer, space replication.SpaceID) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	for _, l := range rc.members[p.info.Key].live {
		if l.p == p {
			l.settled[space] = true
		}
	}
}

// stated records what a peer said that it holds. The entries are its own from now
// on.
func (rc *receipts) stated(p *Peer, entries []replication.FrontierEntry) {
	for i := range entries {
		entries[i].Base = uint64(p.info.durability())
	}
	rc.store.SaveCursor(p.info.Key, p.info.Instance, entries)
	rc.mu.Lock()
	defer rc.mu.Unlock()
	m := rc.members[p.info.Key]
	if m == nil || m.instance != p.info.Instance {
		return
	}
	m.version++
	if m.cursor != nil {
		for _, e := range entries {
			m.cursor[e.Log] = e
		}
	}
}

// waitsOn returns the waits for these logs, or all without one.
func (rc *receipts) waitsOn(logs []replication.LogID) []*wait {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	var out []*wait
	if logs == nil {
		for _, ws := range rc.waits {
			out = slices.AppendSeq(out, maps.Keys(ws))
		}
		return out
	}
	for _, l := range logs {
		out = slices.AppendSeq(out, maps.Keys(rc.waits[l]))
	}
	return out
}

// report takes what the session of a peer says about a wait.
func (rc *receipts) report(p *Peer, w *wait, acked bool) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	m := rc.members[p.info.Key]
	newest := m.newestLocked()
	if newest == nil || newest.p != p {
		return // another session of the member answers
	}
	switch {
	case acked && m.durability == Strict && !p.info.Relaxed:
		rc.countLocked(w, p.info.Key)
	case acked:
		// It holds the write, and may lose it.
	case newest.settled[w.space]:
		delete(w.acked, p.info.Key)
	}
}

func (rc *receipts) countLocked(w *wait, key replication.OriginKey) {
	if w.done {
		return
	}
	w.acked[key] = true
	if len(w.acked) >= w.k {
		w.done = true
		close(w.reached)
	}
}

// WaitReplicated returns when k other members' current instances have stated
// to this node that they durably hold the write at dot (G2); what they say of others
// counts for nothing. The write must be durable here: ErrUnknownLog otherwise, and
// what its log's limit says, ErrRevoked or ErrNotAllowed, of a write that does not
// count, also if it is cut while this waits. A *NotReplicatedError if ctx ends first.
func (r *Replicator) WaitReplicated(ctx context.Context, space replication.SpaceID, dot replication.Dot, k int) error {
	if k <= 0 {
		return nil
	}
	switch info, ok := r.store.Log(dot.Log); {
	case ok && info.Space == space && info.Tip.Seq < dot.Seq && info.Limit != nil:
		return cutError(dot, info.Limit)
	case !ok || info.Tip.Seq < dot.Seq || info.Space != space:
		return fmt.Errorf("the write %s/%d is not in this node's copy of the space: %w", dot.Log.Short(), dot.Seq, replication.ErrUnknownLog)
	}
	w := &wait{space: space, dot: dot, k: k, acked: map[replication.OriginKey]bool{}, reached: make(chan struct{})}
	rc := r.receipts
	ask := rc.begin(w)
	defer rc.end(w)
	// The log's advances up to the write are in every mailbox by now, before the
	// question.
	for _, p := range ask {
		p.post(item{call: func() { p.report([]*wait{w}) }})
	}
	// A cut from between the look at the log and the begin of the wait.
	if info, _ := r.store.Log(dot.Log); info.Tip.Seq < dot.Seq && info.Limit != nil {
		return cutError(dot, info.Limit)
	}
	if err := r.countCursors(w); err != nil {
		return err
	}
	select {
	case <-w.reached:
		if rc.wasCut(w) {
			info, _ := r.store.Log(dot.Log)
			return cutError(dot, info.Limit)
		}
		return nil
	case <-ctx.Done():
		return rc.unreached(w, ctx.Err())
	case <-r.quit:
		return rc.unreached(w, replication.ErrClosed)
	}
}

// cutError answers a wait for a write that counts nowhere.
func cutError(dot replication.Dot, limit error) error {
	if limit == nil { // it was cut, and is not any more
		limit = replication.ErrRevoked
	}
	return fmt.Errorf("the write %s/%d does not count by the trust state, so that no member takes it: %w", dot.Log.Short(), dot.Seq, limit)
}

// retreated ends the waits for what a cut took back.
func (rc *receipts) retreated(a replication.Advance) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	for w := range rc.waits[a.Log] {
		if w.dot.Seq > a.Tip.Seq && !w.done {
			w.cut, w.done = true, true
			close(w.reached)
		}
	}
}

func (rc *receipts) wasCut(w *wait) bool {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return w.cut
}

// begin registers a wait and returns the sessions to ask.
func (rc *receipts) begin(w *wait) (ask []*Peer) {
	rc.waiting.Add(1)
	rc.mu.Lock()
	defer rc.mu.Unlock()
	ws := rc.waits[w.dot.Log]
	if ws == nil {
		ws = map[*wait]struct{}{}
		rc.waits[w.dot.Log] = ws
	}
	ws[w] = struct{}{}
	for _, m := range rc.members {
		if l := m.newestLocked(); l != nil {
			ask = append(ask, l.p)
		}
	}
	return ask
}

func (rc *receipts) end(w *wait) {
	rc.waiting.Add(-1)
	rc.mu.Lock()
	defer rc.mu.Unlock()
	ws := rc.waits[w.dot.Log]
	if delete(ws, w); len(ws) == 0 {
		delete(rc.waits, w.dot.Log)
	}
}

func (rc *receipts) unreached(w *wait, cause error) error {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	switch {
	case w.cut:
		return cutError(w.dot, nil)
	case w.done:
		return nil
	}
	relaxed := 0
	for _, m := range rc.members {
		if len(m.live) > 0 && m.durability == Relaxed {
			relaxed++
		}
	}
	acked := slices.SortedFunc(maps.Keys(w.acked), func(a, b replication.OriginKey) int { return strings.Compare(string(a[:]), string(b[:])) })
	return &NotReplicatedError{Dot: w.dot, Want: w.k, Acked: acked, Relaxed: relaxed, Cause: cause}
}

// countCursors counts the members whose last statement covers the write and of
// whom no session can tell yet; of these who may have the space.
func (r *Replicator) countCursors(w *wait) error {
	for _, m := range r.receipts.unheard(w, r.self.Self) {
		if !r.memberCarries(m.key, m.session, w.space) {
			continue
		}
		if err := r.receipts.countCursor(w, m.key); err != nil {
			return err
		}
	}
	return nil
}

// recount counts a member whose session has ended by its last statement, for waits that
// began while it ended and asked it in vain.
func (r *Replicator) recount(key replication.OriginKey) {
	for _, w := range r.receipts.waitsOn(nil) {
		for _, m := range r.receipts.unheard(w, r.self.Self) {
			if m.key == key && r.memberCarries(key, m.session, w.space) {
				_ = r.receipts.countCursor(w, key) // what cannot be read counts for nothing
			}
		}
	}
}

// unheard is the members of whom no session can answer a wait yet.
func (rc *receipts) unheard(w *wait, self replication.OriginKey) (list []memberNow) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	for key, m := range rc.members {
		if key == self || m.durability == Relaxed {
			continue
		}
		switch l := m.newestLocked(); {
		case l == nil:
			list = append(list, memberNow{key: key})
		case !l.settled[w.space]:
			list = append(list, memberNow{key: key, session: l.p})
		}
	}
	return list
}

func (rc *receipts) countCursor(w *wait, key replication.OriginKey) error {
	for {
		entry, version, err := rc.cursorEntry(key, w.dot.Log)
		if err != nil {
			return err
		}
		if entry.Pos.Seq < w.dot.Seq || Durability(entry.Base) != Strict || !rc.onBranch(entry) {
			return nil
		}
		rc.mu.Lock()
		m := rc.members[key]
		if m.version != version {
			rc.mu.Unlock()
			continue // it said something else meanwhile
		}
		if l := m.newestLocked(); l == nil || !l.settled[w.space] {
			rc.countLocked(w, key)
		}
		rc.mu.Unlock()
		return nil
	}
}

// onBranch tells whether a stated position is one that this node's copy of the
// log has: on another branch it says nothing about our writes.
func (rc *receipts) onBranch(e replication.FrontierEntry) bool {
	info, ok := rc.store.Log(e.Log)
	if !ok || e.Pos.Seq > info.Tip.Seq {
		return false
	}
	if e.Pos == info.Tip {
		return true
	}
	_, err := rc.store.ReadRun(e.Log, e.Pos, 1)
	return err == nil
}

// cursorEntry is what a member's current instance stated of a log, nothing if it
// does not fsync, with the version of that.
func (rc *receipts) cursorEntry(key replication.OriginKey, log replication.LogID) (replication.FrontierEntry, uint64, error) {
	for {
		rc.mu.Lock()
		m := rc.members[key]
		instance, version := m.instance, m.version
		if m.cursor != nil {
			e := countable(m.cursor, log)
			rc.mu.Unlock()
			return e, version, nil
		}
		rc.mu.Unlock()
		entries, err := rc.store.LoadCursor(key, instance)
		if err != nil {
			return replication.FrontierEntry{}, 0, fmt.Errorf("what members stated earlier cannot be read: %w", err)
		}
		cursor := make(map[replication.LogID]replication.FrontierEntry, len(entries))
		for _, e := range entries {
			cursor[e.Log] = e
		}
		rc.mu.Lock()
		if m.version == version {
			rc.keepCursorLocked(m, cursor)
			e := countable(cursor, log)
			rc.mu.Unlock()
			return e, version, nil
		}
		rc.mu.Unlock()
	}
}

func countable(cursor map[replication.LogID]replication.FrontierEntry, log replication.LogID) replication.FrontierEntry {
	if Durability(cursor[replication.LogID{}].Base) == Relaxed {
		return replication.FrontierEntry{}
	}
	return cursor[log]
}

// lastAck is when the member's current instance last acked in a session that has
// ended; zero: not since the start of this node.
func (rc *receipts) lastAck(key replication.OriginKey, instance replication.Instance) time.Time {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if m := rc.members[key]; m != nil && m.instance == instance {
		return m.lastAck
	}
	return time.Time{}
}

// keepCursorLocked keeps a loaded cursor, in place of others where it gets too
// much.
func (rc *receipts) keepCursorLocked(m *member, cursor map[replication.LogID]replication.FrontierEntry) {
	sum := len(cursor)
	for _, o := range rc.members {
		sum += len(o.cursor)
	}
	if sum > maxCursorEntries {
		for _, o := range rc.members {
			o.cursor = nil
		}
	}
	if len(cursor) <= maxCursorEntries {
		m.cursor = cursor
	}
}
