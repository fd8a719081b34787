package routing

// What a peer can make this node keep is bounded three times: by sender, by the
// neighbour that hands it over (identities cost nothing in an open network,
// sessions do), and in all. When all is full, the neighbour with the largest share
// gives way to those with less, its oldest message first: one that floods loses
// only its own.

// usage is a share of the custody.
type usage struct{ count, bytes int }

func (u usage) plus(n, bytes int) usage { return usage{u.count + n, u.bytes + bytes} }

// over tells whether u exceeds that fraction of the limits.
func (u usage) over(l Limits, fraction int) bool {
	return u.count > max(1, l.Held/fraction) || u.bytes > max(MaxMessage, l.HeldBytes/fraction)
}

// size puts shares in an order: the larger of the two fractions that they take.
func (u usage) size(l Limits) float64 {
	return max(float64(u.count)/float64(l.Held), float64(u.bytes)/float64(l.HeldBytes))
}

const (
	senderFraction = 8
	viaFraction    = 4
	seenFraction   = 4
)

// count adds or takes away a held message. This node's own texts count as such;
// its acks and notices are bounded by what they are about.
func (r *Router) count(h *held, n int) {
	if h.From == r.cfg.Self {
		if h.Kind == Text {
			r.own += n
		}
		return
	}
	r.take(h.From, h.via, n, n*h.size)
}

// take adds to the shares of a sender and a neighbour.
func (r *Router) take(from, via PeerKey, n, bytes int) {
	r.usage = r.usage.plus(n, bytes)
	add(r.bySender, from, n, bytes)
	add(r.byVia, via, n, bytes)
}

func add(m map[PeerKey]usage, k PeerKey, n, bytes int) {
	if u := m[k].plus(n, bytes); u == (usage{}) {
		delete(m, k)
	} else {
		m[k] = u
	}
}

// room tells whether there is room for a message of size bytes, and which messages
// must go for it.
func (r *Router) room(from, via PeerKey, size int) (victims []*held, ok bool) {
	if r.bySender[from].plus(1, size).over(r.limits, senderFraction) || r.byVia[via].plus(1, size).over(r.limits, viaFraction) {
		return nil, false
	}
	all, gone := r.usage.plus(1, size), map[PeerKey]usage{}
	for all.over(r.limits, 1) {
		// The neighbour with the largest share, less what goes already.
		var worst PeerKey
		most := r.byVia[via].plus(1, size).size(r.limits)
		for peer, u := range r.byVia {
			u = u.plus(-gone[peer].count, -gone[peer].bytes)
			if s := u.size(r.limits); peer != via && (s > most || s == most && worst != (PeerKey{}) && compareKeys(peer, worst) < 0) {
				worst, most = peer, s
			}
		}
		v := r.oldestOf(worst, victims)
		if v == nil {
			return nil, false // the newcomer's own share is the largest
		}
		victims = append(victims, v)
		add(gone, worst, 1, v.size)
		all = all.plus(-1, -v.size)
	}
	return victims, true
}

// oldestOf is the oldest message that came from a neighbour, without some.
func (r *Router) oldestOf(via PeerKey, without []*held) *held {
	if via == (PeerKey{}) {
		return nil
	}
	var oldest *held
next:
	for _, h := range r.held {
		if h.via != via || h.From == r.cfg.Self || oldest != nil && h.order >= oldest.order {
			continue
		}
		for _, w := range without {
			if w == h {
				continue next
			}
		}
		oldest = h
	}
	return oldest
}
