package routing

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"maps"
	"slices"
	"time"
)

// ErrOutboxFull: too many texts of this node are under way.
var ErrOutboxFull = errors.New("too many messages of this node are under way: wait until some are delivered or expire")

// Limits bound what a Router keeps. Zero values are replaced by the defaults.
type Limits struct {
	// Held and HeldBytes bound the texts of others in custody. One sender may have
	// 1/8 of either, half of it to one recipient, and one neighbour may hand over
	// 1/4, beyond which only its own texts go. Beside them there are acks of others and notices, up to 1/2 of Held.
	Held      int
	HeldBytes int
	// Own bounds the texts of this node that are under way.
	Own int
	// Seen bounds the texts to this node whose lifetime is not over, which must be
	// remembered so that none is shown twice. One sender may have 1/4.
	Seen int
}

// The defaults of Limits.
const (
	DefaultHeld      = 8192
	DefaultHeldBytes = 64 << 20
	DefaultOwn       = 2048
	DefaultSeen      = 32768
)

func (l Limits) withDefaults() Limits {
	l.Held, l.HeldBytes = cmp.Or(l.Held, DefaultHeld), cmp.Or(l.HeldBytes, DefaultHeldBytes)
	l.Own, l.Seen = cmp.Or(l.Own, DefaultOwn), cmp.Or(l.Seen, DefaultSeen)
	return l
}

// Config says whose Router it is.
type Config struct {
	Self PeerKey
	// Sign signs a header without a body: acks and notices of this node.
	Sign   func(Header) (*Message, error)
	Limits Limits
}

// Router decides which message goes to whom when. It is a pure state machine: Step
// takes the time and an event and returns effects. It is not safe for concurrent
// use.
//
// A message goes along the best route whose next hop is a neighbour; where there is
// none, or no acknowledgement came in time, it is copied to every neighbour, also
// to those that come later. Every holder keeps its copy until the ack comes past or
// the message expires, and offers it again with growing pauses, which heals
// whatever was lost on the way. An ack goes to those who are known to hold the
// text, and along the route to its sender; a node that has it answers the text with
// it from then on.
type Router struct {
	cfg    Config
	limits Limits
	now    time.Time // of the step under way
	out    []Effect  // of the step under way
	table  *Table

	held  map[Key]*held
	acks  map[acked]*held // held acks by the text that they are about
	seen  map[Key]time.Time
	seenB map[PeerKey]int // entries of seen by sender
	links map[PeerKey]*link
	order uint64 // the last that was given

	// pending are persists that were asked for and are not confirmed, with what
	// follows from them. arriving are the messages among them: at most one persist
	// for each is under way.
	pending  map[uint64]func(error)
	batch    uint64
	arriving map[Key]*arrival

	// What bounds the custody: texts of others; acks of others and all notices;
	// texts of this node. Messages that are being stored count.
	texts, replies shares
	own            int

	timers   timers
	counters Counters
}

// acked names a text by whose ack counts for it: that of its recipient only.
type acked struct {
	text Key
	by   PeerKey
}

// held is a message in custody; its bytes are in the store.
type held struct {
	Header
	size  int
	hops  uint8
	via   PeerKey
	order uint64

	// wide: every neighbour is to have a copy; else next alone, if it is set.
	wide bool
	next PeerKey
	// chase are neighbours that are to have this ack, since they hold its text.
	chase map[PeerKey]struct{}
	// copies is what is known of neighbours' copies; at most maxCopies.
	copies map[PeerKey]copyState
	tries  int
	// retryAt is when a text is offered again.
	retryAt time.Time
	// passed: somebody has taken this ack over.
	passed bool
	spent  []PeerKey // of a text of this node: where its TTL was used up; at most maxSpent
	// notice is this node's notice about this text; it ends with it.
	notice *held
	// leaving: its drop is being made durable. It counts in no share any more.
	leaving bool
}

const (
	maxCopies = 256
	maxSpent  = 8
)

type copyState struct {
	state copyKind
	hops  uint8 // with which it was pushed
	again bool  // it is to be pushed once more, whatever the state
	retry time.Time
	why   Verdict // of refused and later
}

type copyKind uint8

const (
	flying  copyKind = iota + 1 // pushed, not answered
	has                         // it holds the message, or knows the ack
	refused                     // it does not take it
	later                       // it has no room; not before retry
)

// link is a neighbour.
type link struct {
	peer   PeerKey
	flying map[uint64]Key // at most window
	push   uint64
	// Two queues; of ackTurns pushes one is of the rest, and else acks go first. A key
	// is in them at most once, so that they are no longer than held.
	acks, rest []Key
	turn       uint64 // counts what was taken from them
	queued     map[Key]struct{}
	paused     time.Time
}

// ackTurns: who sends a node many texts makes it push as many acks, and these must
// not hold up its own texts.
const ackTurns = 4

// window is how many pushes to one neighbour may wait for their answers.
const window = 16

// arrival is a message whose persist is under way.
type arrival struct {
	hops    uint8 // the fewest of all copies that came meanwhile
	via     PeerKey
	answers []Answer // to give when it is durable
}

// Counters count since NewRouter.
type Counters struct {
	Sent      uint64 // texts of this node that were made durable
	Delivered uint64 // of those, acknowledged by their recipients
	Received  uint64 // texts to this node
	Forwarded uint64 // pushes of others' messages that neighbours stored
	Copies    uint64 // messages that came again
	// Undelivered are those that ended without: their lifetime did, or the store
	// lost them.
	Undelivered uint64
	Expired     uint64 // messages that came, or texts that were held, beyond their lifetime
	Full        uint64 // messages that were refused for lack of room
	Spent       uint64 // messages whose TTL was used up here
	Evicted     uint64 // texts of others that made room for those of other neighbours
}

// NewRouter is a Router that goes on from a durable state.
func NewRouter(cfg Config, now time.Time, state State) *Router {
	r := &Router{
		cfg: cfg, limits: cfg.Limits.withDefaults(), now: now, table: NewTable(),
		held: map[Key]*held{}, acks: map[acked]*held{}, seen: map[Key]time.Time{}, seenB: map[PeerKey]int{},
		links: map[PeerKey]*link{}, pending: map[uint64]func(error){}, arriving: map[Key]*arrival{},
	}
	replies := max(1, r.limits.Held/replyFraction)
	r.texts = newShares(usage{r.limits.Held, r.limits.HeldBytes})
	r.replies = newShares(usage{replies, replies * maxReply})
	for _, h := range state.Held {
		r.order = max(r.order, h.Order)
		if r.held[h.Msg.Key()] == nil {
			r.hold(h)
		}
	}
	for _, h := range r.held {
		if text := r.held[h.RefKey()]; h.Kind == Notice && h.From == cfg.Self && text != nil {
			text.notice = h
		}
	}
	for _, s := range state.Seen {
		r.addSeen(s.Key, s.Until)
	}
	return r
}

// Step takes in an event. Time must not go back by much; where it does, what is
// due waits.
func (r *Router) Step(now time.Time, ev Event) []Effect {
	r.now, r.out = now, nil
	r.fire()
	r.compact()
	switch ev := ev.(type) {
	case LinkUp:
		r.linkDown(ev.Peer)
		r.linkUp(ev)
	case LinkDown:
		r.linkDown(ev.Peer)
	case Submit:
		r.submit(ev.Msg)
	case Received:
		r.receive(ev)
	case Answered:
		r.answered(ev)
	case Committed:
		if then, ok := r.pending[ev.Batch]; ok {
			delete(r.pending, ev.Batch)
			then(ev.Err)
		}
	case Lost:
		r.lost(ev)
	case SetRoute:
		if r.table.Upsert(ev.Route) == nil {
			r.rechoose()
		}
	case RemoveRoute:
		r.table.Remove(ev.Target)
		r.rechoose()
	}
	for _, l := range r.sortedLinks() {
		r.pump(l)
	}
	return r.out
}

// Counters since NewRouter.
func (r *Router) Counters() Counters { return r.counters }

// Routes lists the table.
func (r *Router) Routes(now time.Time) []Route { return r.table.Routes(now) }

// CheckRoute says what would be wrong with SetRoute of that route.
func (r *Router) CheckRoute(route Route) error { return r.table.Check(route) }

// TTLTo is the TTL of a text of this node that is given none: that of the route.
func (r *Router) TTLTo(target PeerKey, now time.Time) uint8 {
	if route, ok := r.table.Resolve(target, now); ok {
		return uint8(cmp.Or(route.TTL, DefaultTTL))
	}
	return DefaultTTL
}

// Sizes are what is in custody now.
type Sizes struct {
	Own          int // texts of this node that are not acknowledged
	Transit      int // texts of others
	Replies      int // acks of others, and notices
	TransitBytes int // of both
	Seen         int
}

// Sizes tells how much is held.
func (r *Router) Sizes() Sizes {
	return Sizes{
		Own: r.own, Transit: r.texts.all.count, Replies: r.replies.all.count,
		TransitBytes: r.texts.all.bytes + r.replies.all.bytes, Seen: len(r.seen),
	}
}

// Trace is what is known of a text of this node that is not acknowledged.
type Trace struct {
	To      PeerKey
	Expires time.Time
	TTL     int
	// NextHop is the neighbour along the route; zero: there is none, and every
	// neighbour is to have a copy.
	NextHop PeerKey
	// Links counts the neighbours that there are now.
	Links int
	// Holders are neighbours that hold a copy; Refused those that do not take it.
	Holders []PeerKey
	Refused map[PeerKey]Verdict
	// SpentAt are members that told that its TTL is used up there.
	SpentAt []PeerKey
}

// Trace tells where a text of this node is; false if it is not under way.
func (r *Router) Trace(id ID) (Trace, bool) {
	h := r.held[Key{r.cfg.Self, id}]
	if h == nil || h.Kind != Text {
		return Trace{}, false
	}
	t := Trace{
		To: h.To, Expires: h.Expires(), TTL: int(h.TTL), Links: len(r.links),
		Refused: map[PeerKey]Verdict{}, SpentAt: slices.Clone(h.spent),
	}
	if !h.wide {
		t.NextHop = h.next
	}
	for peer, c := range h.copies {
		switch c.state {
		case has:
			t.Holders = append(t.Holders, peer)
		case refused, later:
			t.Refused[peer] = c.why
		}
	}
	slices.SortFunc(t.Holders, compareKeys)
	return t, true
}

func compareKeys(a, b PeerKey) int { return bytes.Compare(a[:], b[:]) }

// submit takes a text of this node.
func (r *Router) submit(m *Message) {
	key := m.Key()
	if r.own >= r.limits.Own {
		r.emit(Report{ID: m.ID, State: OutcomeFailed, Err: ErrOutboxFull})
		return
	}
	r.own++
	r.order++
	h := Held{Msg: m, Order: r.order}
	r.arriving[key] = &arrival{}
	r.persist([]StoreOp{PutHeld{h}}, func(err error) {
		delete(r.arriving, key)
		r.own--
		if err != nil {
			r.emit(Report{ID: m.ID, State: OutcomeFailed, Err: err})
			return
		}
		r.counters.Sent++
		r.emit(Report{ID: m.ID, State: OutcomeStored})
		r.spread(r.hold(h))
	})
}

// hold takes a durable message into custody.
func (r *Router) hold(d Held) *held {
	h := &held{Header: d.Msg.Header, size: len(d.Msg.Raw), hops: d.Hops, via: d.Via, order: d.Order}
	if h.via != (PeerKey{}) {
		h.note(h.via, copyState{state: has, hops: h.hops - 1})
	}
	r.held[h.Key()] = h
	if h.Kind == Ack {
		r.acks[acked{h.RefKey(), h.From}] = h
	}
	r.count(h, 1)
	r.timers.add(timer{at: h.Expires(), kind: timerExpire, key: h.Key()})
	if h.Kind == Text {
		h.retryAt = r.now.Add(firstRetry)
		r.timers.add(timer{at: h.retryAt, kind: timerRetry, key: h.Key()})
	}
	return h
}

// release takes a message out of custody; its bytes are dropped by whoever calls.
// With a text goes the notice about it.
func (r *Router) release(h *held) {
	if r.held[h.Key()] != h {
		return
	}
	if n := h.notice; n != nil && r.held[n.Key()] == n {
		r.release(n)
		r.forget(n)
	}
	delete(r.held, h.Key())
	if h.Kind == Ack {
		delete(r.acks, acked{h.RefKey(), h.From})
	}
	r.count(h, -1)
}

// lost gives up a message whose bytes cannot be read. One that leaves has none.
func (r *Router) lost(ev Lost) {
	for _, l := range r.links {
		maps.DeleteFunc(l.flying, func(_ uint64, key Key) bool { return key == ev.Key }) // it was not pushed
	}
	h := r.held[ev.Key]
	if h == nil || h.leaving {
		return
	}
	r.release(h)
	r.forget(h)
	if h.Kind == Text && h.From == r.cfg.Self {
		r.counters.Undelivered++
		r.emit(Report{ID: h.ID, State: OutcomeLost, Err: ev.Err})
	}
}

// forget drops the bytes of a message that is not in custody any more. If that
// fails they are dropped after the next start.
func (r *Router) forget(h *held) { r.persist([]StoreOp{DropHeld{h.Key()}}, func(error) {}) }

// note keeps what is known of a neighbour's copy.
func (h *held) note(peer PeerKey, c copyState) {
	if h.copies == nil {
		h.copies = map[PeerKey]copyState{}
	}
	if _, known := h.copies[peer]; known || len(h.copies) < maxCopies {
		h.copies[peer] = c
	}
}

func (r *Router) addSeen(key Key, until time.Time) {
	if _, known := r.seen[key]; !known {
		r.seenB[key.From]++
	}
	r.seen[key] = until
	r.timers.add(timer{at: until, kind: timerSeen, key: key})
}

func (r *Router) dropSeen(key Key) {
	delete(r.seen, key)
	if r.seenB[key.From]--; r.seenB[key.From] == 0 {
		delete(r.seenB, key.From)
	}
}

// persist asks for a durable change; then follows its end.
func (r *Router) persist(ops []StoreOp, then func(error)) {
	r.batch++
	r.pending[r.batch] = then
	r.emit(Persist{Batch: r.batch, Ops: ops})
}

func (r *Router) emit(e Effect) { r.out = append(r.out, e) }

// reply makes the header of an ack or notice of this node about a text. Its ID
// follows from what it says, so that saying it again is the same message.
func (r *Router) reply(kind Kind, reason Reason, to PeerKey, ref ID, lifetime time.Duration) Header {
	sum := sha256.New()
	sum.Write([]byte("vix/msg/reply/1"))
	sum.Write([]byte{byte(kind), byte(reason)})
	sum.Write(r.cfg.Self[:])
	sum.Write(to[:])
	sum.Write(ref[:])
	lifetime = max(time.Millisecond, min(lifetime, MaxLifetime))
	return Header{
		Kind: kind, ID: ID(sum.Sum(nil)[:16]), From: r.cfg.Self, To: to,
		Created: uint64(r.now.UnixMilli()), Lifetime: uint64(lifetime / time.Millisecond),
		TTL: MaxTTL, Ref: ref, Reason: reason,
	}
}
