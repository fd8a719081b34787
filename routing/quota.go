package routing

// The shares of the custody; the package documentation says which there are, and
// why each is bounded.

// usage is an amount of messages.
type usage struct{ count, bytes int }

func (u usage) plus(n, bytes int) usage { return usage{u.count + n, u.bytes + bytes} }

// over tells whether u exceeds that fraction of a limit, which is room for one
// message at least.
func (u usage) over(limit usage, fraction int) bool {
	return u.count > max(1, limit.count/fraction) || u.bytes > max(MaxMessage, limit.bytes/fraction)
}

// size puts shares in an order: the larger of the two fractions that they take.
func (u usage) size(limit usage) float64 {
	return max(float64(u.count)/float64(limit.count), float64(u.bytes)/float64(limit.bytes))
}

const (
	senderFraction = 8  // of the texts, for one sender
	pairFraction   = 16 // of either, for one sender to one recipient
	viaFraction    = 4  // of either, from one neighbour
	seenFraction   = 4

	// replyFraction is how many acks and notices there may be beside the texts.
	replyFraction = 2
	// maxReply is the longest ack or notice, in bytes.
	maxReply = MaxMessage - MaxBody
)

// shares count the messages of one class and whose they are.
type shares struct {
	limit    usage
	all      usage
	bySender map[PeerKey]usage
	byPair   map[pair]usage
	byVia    map[PeerKey]usage // the zero key: made here
	// members are those of it that are in custody and stay. The rest of the counts
	// is of messages that are being stored.
	members map[*held]struct{}
}

// pair is a sender and a recipient.
type pair struct{ from, to PeerKey }

func newShares(limit usage) shares {
	return shares{
		limit: limit, bySender: map[PeerKey]usage{}, byPair: map[pair]usage{}, byVia: map[PeerKey]usage{},
		members: map[*held]struct{}{},
	}
}

// take adds n messages of so many bytes together; negative: takes them away.
func (s *shares) take(h *Header, via PeerKey, n, bytes int) {
	s.all = s.all.plus(n, bytes)
	add(s.bySender, h.From, n, bytes)
	add(s.byPair, pair{h.From, h.To}, n, bytes)
	add(s.byVia, via, n, bytes)
}

func add[K comparable](m map[K]usage, k K, n, bytes int) {
	if u := m[k].plus(n, bytes); u == (usage{}) {
		delete(m, k)
	} else {
		m[k] = u
	}
}

// Whether one more message of size bytes would exceed a share.
func (s *shares) senderFull(h *Header, size int) bool {
	return s.bySender[h.From].plus(1, size).over(s.limit, senderFraction)
}

func (s *shares) pairFull(h *Header, size int) bool {
	return s.byPair[pair{h.From, h.To}].plus(1, size).over(s.limit, pairFraction)
}

func (s *shares) viaFull(via PeerKey, size int) bool {
	return s.byVia[via].plus(1, size).over(s.limit, viaFraction)
}

func (s *shares) full(size int) bool { return s.all.plus(1, size).over(s.limit, 1) }

// largest is the neighbour with the largest share once it takes one more message
// from via.
func (s *shares) largest(via PeerKey, size int) PeerKey {
	worst, most := via, s.byVia[via].plus(1, size).size(s.limit)
	for peer, u := range s.byVia {
		if peer == via {
			continue
		}
		if x := u.size(s.limit); x > most || x == most && worst != via && compareKeys(peer, worst) < 0 {
			worst, most = peer, x
		}
	}
	return worst
}

// first is the member that goes first of some: one that can be spared, else the
// oldest. nil if there is none.
func (s *shares) first(of func(*held) bool) (v *held) {
	for h := range s.members {
		if of(h) && (v == nil || h.spare() && !v.spare() || h.spare() == v.spare() && h.order < v.order) {
			v = h
		}
	}
	return v
}

// spare tells of an ack that somebody took over, and of a text that its neighbour
// only carried: what others make it carry takes no room of its own texts.
func (h *held) spare() bool { return h.passed || h.Kind == Text && h.From != h.via }

// sharesOf are the shares in which a message of others, or a notice, counts.
func (r *Router) sharesOf(k Kind) *shares {
	if k == Text {
		return &r.texts
	}
	return &r.replies
}

// count adds or takes away a held message.
func (r *Router) count(h *held, n int) {
	switch {
	case h.leaving: // its room was given away
	case h.From == r.cfg.Self && h.Kind == Text:
		r.own += n
	case h.From == r.cfg.Self && h.Kind == Ack: // bounded by Limits.Seen
	default:
		s := r.sharesOf(h.Kind)
		s.take(&h.Header, h.via, n, n*h.size)
		if n > 0 {
			s.members[h] = struct{}{}
		} else {
			delete(s.members, h)
		}
	}
}

// leave gives the room of a held message away, whose drop is being made durable:
// it is not pushed any more, and in custody until release or stay.
func (r *Router) leave(h *held) {
	r.count(h, -1)
	h.leaving = true
}

// stay takes leave back: the drop failed.
func (r *Router) stay(h *held) {
	if h.leaving && r.held[h.Key()] == h {
		h.leaving = false
		r.count(h, 1)
		r.spread(h)
	}
}

// room tells whether there is room for a message of others of size bytes. For it
// the victims leave, whose drop is to be made durable together with the newcomer.
//
// A text whose sender or neighbour has its share is refused, and stays with the hop
// before; but a neighbour's own texts do not wait for what it carries. An ack or
// notice is not refused: the first of the same share gives way to it.
func (r *Router) room(m *Header, via PeerKey, size int) (victims []*held, ok bool) {
	s := r.sharesOf(m.Kind)
	own := m.From == via
	if m.Kind == Text && (s.senderFull(m, size) || s.pairFull(m, size) || !own && s.viaFull(via, size)) {
		return nil, false
	}
	evict := func(of func(*held) bool) bool {
		v := s.first(of)
		if v == nil {
			return false
		}
		r.leave(v)
		victims = append(victims, v)
		return true
	}
	ok = true
	for ok && s.pairFull(m, size) {
		ok = evict(func(h *held) bool { return h.From == m.From && h.To == m.To })
	}
	for ok && m.Kind != Text && s.viaFull(via, size) {
		ok = evict(func(h *held) bool { return h.via == via })
	}
	for ok && s.full(size) {
		switch worst := s.largest(via, size); {
		case worst != via || m.Kind != Text:
			ok = evict(func(h *held) bool { return h.via == worst })
		case own:
			ok = evict(func(h *held) bool { return h.via == via && h.From != via })
		default:
			ok = false // the newcomer's own share is the largest
		}
	}
	if !ok {
		r.stayAll(victims)
		return nil, false
	}
	return victims, true
}

func (r *Router) stayAll(victims []*held) {
	for _, v := range victims {
		r.stay(v)
	}
}
