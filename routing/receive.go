package routing

import (
	"slices"
	"time"
)

const (
	// noticeLifetime bounds how long a notice looks for its way.
	noticeLifetime = time.Hour
	// fullRetry is after how long a neighbour may offer again what had no room.
	fullRetry = time.Minute
)

// receive takes a message that a neighbour pushed.
func (r *Router) receive(ev Received) {
	m := ev.Msg
	switch {
	case m.CheckTime(r.now) != nil:
		r.counters.Expired++
		r.answer(ev, Expired)
	case ev.Hops == 0 || ev.Hops > m.TTL:
		r.answer(ev, Invalid)
	case m.From == r.cfg.Self:
		r.cameBack(ev)
	case r.arriving[m.Key()] != nil:
		a := r.arriving[m.Key()]
		if ev.Hops < a.hops {
			a.hops, a.via = ev.Hops, ev.Peer
		}
		if len(a.answers) < maxCopies {
			a.answers = append(a.answers, Answer{ev.Peer, ev.Push, Duplicate, 0})
		}
	case m.To != r.cfg.Self:
		r.receiveTransit(ev)
	case m.Kind == Text:
		r.receiveText(ev)
	case m.Kind == Ack:
		r.receiveAck(ev)
	default:
		r.receiveNotice(ev)
	}
}

func (r *Router) answer(ev Received, v Verdict) {
	a := Answer{Peer: ev.Peer, Push: ev.Push, Verdict: v}
	switch v {
	case Full:
		a.Retry = fullRetry
		r.counters.Full++
	case Duplicate, Acked:
		r.counters.Copies++
	}
	r.emit(a)
}

// immune answers a text whose ack is held with that ack; false if there is none.
func (r *Router) immune(ev Received) bool {
	m := ev.Msg
	ack := r.acks[acked{m.Key(), m.To}]
	if m.Kind != Text || ack == nil {
		return false
	}
	r.answer(ev, Acked)
	r.chase(ack, ev.Peer)
	r.spread(ack)
	return true
}

// chase gives an ack to a neighbour, once more if it is said to have it.
func (r *Router) chase(ack *held, peer PeerKey) {
	if ack.chase == nil {
		ack.chase = map[PeerKey]struct{}{}
	}
	if _, known := ack.chase[peer]; known || len(ack.chase) < maxCopies {
		ack.chase[peer] = struct{}{}
	}
	if c, known := ack.copies[peer]; known && c.state != flying {
		c.again = true
		ack.copies[peer] = c
	}
}

// cameBack answers a message of this node that a neighbour pushes to it.
func (r *Router) cameBack(ev Received) {
	if r.immune(ev) {
		return
	}
	if h := r.held[ev.Msg.Key()]; h != nil {
		h.note(ev.Peer, copyState{state: has, hops: ev.Hops - 1})
	}
	r.answer(ev, Duplicate)
}

// arrive makes a message durable; then runs when it is or cannot be, with the
// fewest hops that any copy of it had by then.
func (r *Router) arrive(ev Received, ops []StoreOp, then func(hops uint8, via PeerKey, err error)) {
	key := ev.Msg.Key()
	a := &arrival{hops: ev.Hops, via: ev.Peer, answers: []Answer{{ev.Peer, ev.Push, Stored, 0}}}
	r.arriving[key] = a
	r.persist(ops, func(err error) {
		delete(r.arriving, key)
		for _, answer := range a.answers {
			if err != nil {
				answer.Verdict, answer.Retry = Full, fullRetry
			}
			r.emit(answer)
		}
		if err == nil {
			r.table.Learn(ev.Msg.From, a.via, int(a.hops), r.now)
		}
		then(a.hops, a.via, err)
	})
}

// receiveText takes a text to this node.
func (r *Router) receiveText(ev Received) {
	m := ev.Msg
	key := m.Key()
	_, seen := r.seen[key]
	if seen && r.immune(ev) {
		return
	}
	if !seen && (!ev.Room || len(r.seen) >= r.limits.Seen || r.seenB[m.From] >= max(1, r.limits.Seen/seenFraction)) {
		r.answer(ev, Full)
		return
	}
	ack, err := r.cfg.Sign(r.reply(Ack, 0, m.From, m.ID, m.Expires().Sub(r.now)))
	if err != nil {
		r.answer(ev, Full)
		return
	}
	// Remembered for longer than it lives: a clock that is set back must not bring
	// it to life again.
	until := m.Expires().Add(ClockMargin)
	r.order++
	mine := Held{Msg: ack, Order: r.order}
	ops := []StoreOp{PutHeld{mine}}
	if !seen {
		ops = append(ops, PutSeen{key, until}, PutInbox{m, ev.Text})
	}
	if !seen {
		r.addSeen(key, until) // the place is taken now
	}
	r.arrive(ev, ops, func(_ uint8, via PeerKey, err error) {
		if err != nil && !seen {
			r.dropSeen(key)
		}
		if err != nil {
			return
		}
		if !seen {
			r.counters.Received++
		}
		h := r.hold(mine)
		r.chase(h, via)
		r.spread(h)
	})
}

// receiveAck takes an ack of a text of this node.
func (r *Router) receiveAck(ev Received) {
	m := ev.Msg
	text := r.ackedBy(m)
	if text == nil {
		r.answer(ev, Duplicate) // it is known, or about nothing
		return
	}
	// An ack of one's own text counts in its recipient's share like one of others.
	victims, ok := r.room(&m.Header, ev.Peer, len(m.Raw))
	if !ok {
		r.answer(ev, Full)
		return
	}
	r.leave(text)
	r.order++
	order := r.order
	ops := append(drops(victims), PutHeld{Held{m, ev.Hops, ev.Peer, order}}, DropHeld{text.Key()})
	r.arriveFor(victims, ev, ops, func(hops uint8, via PeerKey, err error) {
		if err != nil {
			r.stay(text)
			return
		}
		if r.held[text.Key()] == text { // not expired meanwhile
			r.counters.Delivered++
			r.emit(Report{ID: m.Ref, State: OutcomeDelivered})
		}
		r.retire(text, r.hold(Held{m, hops, via, order}))
	})
}

// retire ends the custody of a text whose ack came, which goes on to those who
// hold the text too.
func (r *Router) retire(text, ack *held) {
	r.release(text)
	for peer, c := range text.copies {
		if (c.state == has || c.state == flying) && peer != ack.via && peer != ack.From {
			r.chase(ack, peer)
		}
	}
	r.spread(ack)
}

// receiveNotice takes a notice about a text of this node.
func (r *Router) receiveNotice(ev Received) {
	m := ev.Msg
	r.answer(ev, Duplicate) // nothing is stored: it only tells
	text := r.held[m.RefKey()]
	if text == nil || m.Reason != ReasonTTL || slices.Contains(text.spent, m.From) {
		return
	}
	r.table.Learn(m.From, ev.Peer, int(ev.Hops), r.now)
	if len(text.spent) < maxSpent {
		text.spent = append(text.spent, m.From)
		r.emit(Report{ID: m.Ref, State: OutcomeSpent, At: m.From})
	}
}

// receiveTransit takes a message that others have with each other.
func (r *Router) receiveTransit(ev Received) {
	m := ev.Msg
	key := m.Key()
	if r.immune(ev) {
		return
	}
	if h := r.held[key]; h != nil {
		r.receiveAgain(h, ev)
		return
	}
	if ev.Hops == m.TTL {
		r.counters.Spent++
		r.answer(ev, Spent)
		return
	}
	victims, ok := r.room(&m.Header, ev.Peer, len(m.Raw))
	if !ok {
		r.answer(ev, Full)
		return
	}
	r.order++
	order := r.order
	ops := append(drops(victims), PutHeld{Held{m, ev.Hops, ev.Peer, order}})
	text := r.ackedBy(m)
	if text != nil {
		r.leave(text)
		ops = append(ops, DropHeld{text.Key()})
	}
	r.arriveFor(victims, ev, ops, func(hops uint8, via PeerKey, err error) {
		if err != nil {
			if text != nil {
				r.stay(text)
			}
			return
		}
		h := r.hold(Held{m, hops, via, order})
		switch ack := r.acks[acked{h.Key(), h.To}]; {
		case text != nil:
			r.retire(text, h)
		case h.Kind == Text && ack != nil: // it came while the text was being stored
			r.retire(h, ack)
			r.forget(h)
		default:
			r.spread(h)
			r.tellSpent(h)
		}
	})
}

// ackedBy is the held text that an ack ends; nil if there is none.
func (r *Router) ackedBy(m *Message) *held {
	if text := r.held[m.RefKey()]; m.Kind == Ack && text != nil && text.Kind == Text && text.To == m.From && !text.leaving {
		return text
	}
	return nil
}

func drops(victims []*held) (ops []StoreOp) {
	for _, v := range victims {
		ops = append(ops, DropHeld{v.Key()})
	}
	return ops
}

// arriveFor is arrive of a message of others, for which some leave: they go when it
// is durable, in the same transaction, and stay if that fails. Its room is taken
// from the beginning, so that what arrives meanwhile does not take it too.
func (r *Router) arriveFor(victims []*held, ev Received, ops []StoreOp, then func(hops uint8, via PeerKey, err error)) {
	s, h, size := r.sharesOf(ev.Msg.Kind), &ev.Msg.Header, len(ev.Msg.Raw)
	s.take(h, ev.Peer, 1, size)
	r.arrive(ev, ops, func(hops uint8, via PeerKey, err error) {
		s.take(h, ev.Peer, -1, -size)
		if err != nil {
			r.stayAll(victims)
		} else {
			for _, v := range victims {
				if v.Kind == Text {
					r.counters.Evicted++
				}
				r.release(v)
			}
		}
		then(hops, via, err)
	})
}

// receiveAgain takes another copy of a message that is held. One that crossed fewer
// links may go further: it counts from now on.
func (r *Router) receiveAgain(h *held, ev Received) {
	h.note(ev.Peer, copyState{state: has, hops: ev.Hops - 1})
	switch {
	case h.leaving:
		r.answer(ev, Full) // whether it stays shows when it is offered again
		return
	case ev.Hops >= h.hops || h.From == r.cfg.Self:
		r.answer(ev, Duplicate)
		return
	}
	r.arrive(ev, []StoreOp{SetHops{h.Key(), ev.Hops, ev.Peer}}, func(hops uint8, via PeerKey, err error) {
		if err != nil || r.held[h.Key()] != h || hops >= h.hops {
			return
		}
		r.count(h, -1)
		h.hops, h.via = hops, via
		r.count(h, 1)
		r.spread(h)
	})
}

// tellSpent tells the sender of a text that it may cross one more link only, and
// the recipient is no neighbour: the copy stays here, in case it becomes one. It is
// only told while there is room for notices; nothing gives way to them.
func (r *Router) tellSpent(text *held) {
	if text.Kind != Text || text.hops+1 < text.TTL || r.links[text.To] != nil {
		return
	}
	r.counters.Spent++
	notice, err := r.cfg.Sign(r.reply(Notice, ReasonTTL, text.From, text.ID, min(noticeLifetime, text.Expires().Sub(r.now))))
	if err != nil || r.held[notice.Key()] != nil || r.arriving[notice.Key()] != nil {
		return
	}
	s, made, size := &r.replies, PeerKey{}, len(notice.Raw)
	if s.pairFull(&notice.Header, size) || s.viaFull(made, size) || s.full(size) {
		return
	}
	r.order++
	mine := Held{Msg: notice, Order: r.order}
	s.take(&notice.Header, made, 1, size)
	r.arriving[notice.Key()] = &arrival{}
	r.persist([]StoreOp{PutHeld{mine}}, func(err error) {
		s.take(&notice.Header, made, -1, -size)
		delete(r.arriving, notice.Key())
		if err != nil {
			return
		}
		h := r.hold(mine)
		if r.held[text.Key()] != text { // it went meanwhile, and the notice with it
			r.release(h)
			r.forget(h)
			return
		}
		text.notice = h
		r.spread(h)
	})
}
