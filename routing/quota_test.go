package routing_test

import (
	"errors"
	"testing"
	"time"

	"vixp2p/routing"
)

// instantly hands an event to a node whose disk takes no time: what its router says to
// others is lost.
func (w *world) instantly(n *simNode, ev routing.Event) {
	var carryOut func([]routing.Effect)
	carryOut = func(effects []routing.Effect) {
		for _, e := range effects {
			if p, ok := e.(routing.Persist); ok {
				carryOut(n.router.Step(w.now, routing.Committed{Batch: p.Batch, Err: w.commit(n, p.Ops)}))
			}
		}
	}
	carryOut(n.router.Step(w.now, ev))
}

// about is an ack or notice of one node to another, about a text.
func (w *world) about(kind routing.Kind, from, to int, ref routing.ID, lifetime time.Duration) *routing.Message {
	return w.reply(kind, from, w.nodes[to].pub, ref, lifetime)
}

func (w *world) reply(kind routing.Kind, from int, to routing.PeerKey, ref routing.ID, lifetime time.Duration) *routing.Message {
	w.ids++
	h := routing.Header{
		Kind: kind, ID: routing.ID{byte(kind), byte(w.ids), byte(w.ids >> 8), byte(w.ids >> 16)},
		From: w.nodes[from].pub, To: to, Ref: ref,
		Created: uint64(w.now.UnixMilli()), Lifetime: uint64(lifetime.Milliseconds()), TTL: 8,
	}
	if kind == routing.Notice {
		h.Reason = routing.ReasonTTL
	}
	m, err := routing.New(network, w.nodes[from].key, h, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// Who sends somebody many texts makes it acknowledge them all. That must not take
// the room of its own texts, nor of acks to others, at the members that carry them.
func TestAcksTakeNoRoomOfTexts(t *testing.T) {
	w := newWorld(t, 20, 4) // the attacker, who goes; its victim; a hop; a friend
	w.limits = routing.Limits{Held: 64, HeldBytes: 1 << 20}
	w.crash(2)
	w.restart(2)
	victim := w.nodes[1]
	w.link(1, 2)
	w.link(2, 3)
	for i := range 200 {
		m := w.text(0, 1, 8, 7*day)
		w.step(victim, routing.Received{Peer: w.nodes[0].pub, Push: uint64(i + 1), Hops: 1, Msg: m, Text: []byte("x"), Room: true})
		w.run(20 * time.Millisecond)
	}
	w.run(time.Minute)
	if s := w.nodes[2].router.Sizes(); s.Transit != 0 || s.Replies == 0 || s.Replies > 8 {
		t.Errorf("the hop holds %+v", s)
	}
	there, back := w.send(1, 3, 8, day), w.send(3, 1, 8, day)
	w.run(time.Second)
	for _, id := range []routing.ID{there, back} {
		from, to := 1, 3
		if id == back {
			from, to = 3, 1
		}
		if _, ok := w.outcome(from, id, routing.OutcomeDelivered); !ok || !w.got(from, to, id) {
			t.Errorf("from %d to %d: %+v", from, to, w.nodes[from].reports[id])
		}
	}
}

// Acks of many pairs, and of one: the newest is always taken, and the older give way.
func TestRepliesAreBounded(t *testing.T) {
	w := newWorld(t, 21, 40)
	w.limits = routing.Limits{Held: 64, HeldBytes: 1 << 20} // 32 replies, 8 of a neighbour, 2 of a pair
	w.crash(0)
	w.restart(0)
	hop := w.nodes[0]
	push := uint64(0)
	take := func(via int, m *routing.Message) {
		push++
		w.instantly(hop, routing.Received{Peer: w.nodes[via].pub, Push: push, Hops: 1, Msg: m})
		if _, held := hop.held[m.Key()]; !held {
			w.failf("%s number %d is not taken", m.Kind, push)
		}
	}
	for _, c := range []struct {
		name string
		do   func(i int) (via int, m *routing.Message)
		want int
	}{
		{"one pair", func(int) (int, *routing.Message) { return 1, w.about(routing.Ack, 2, 3, routing.ID{1}, day) }, 2},
		{"one neighbour", func(i int) (int, *routing.Message) { return 1, w.about(routing.Notice, 2+i%30, 33, routing.ID{1}, day) }, 8},
		{"all", func(i int) (int, *routing.Message) {
			return 1 + i%20, w.about(routing.Ack, 34, 1+i%30, routing.ID{1}, day)
		}, 32},
	} {
		for i := range 100 {
			take(c.do(i))
		}
		if s := hop.router.Sizes(); s.Replies != c.want || len(hop.held) != c.want || s.Transit != 0 {
			t.Errorf("%s: %+v, %d stored, want %d", c.name, s, len(hop.held), c.want)
		}
	}
}

// A notice ends with its text, and there are never more than their share.
func TestNoticesAreBounded(t *testing.T) {
	w := newWorld(t, 22, 3) // two keys of an attacker, and a hop between them
	w.limits = routing.Limits{Held: 64, HeldBytes: 1 << 20}
	w.crash(1)
	w.restart(1)
	hop, attacker := w.nodes[1], w.nodes[0]
	w.instantly(hop, routing.LinkUp{Peer: attacker.pub})
	push := uint64(0)
	take := func(m *routing.Message) {
		push++
		w.instantly(hop, routing.Received{Peer: attacker.pub, Push: push, Hops: 1, Msg: m})
	}
	notices := func() (n int) {
		for _, h := range hop.held {
			if h.Msg.Kind == routing.Notice && h.Msg.From == hop.pub {
				n++
			}
		}
		return n
	}
	for range 500 { // texts that are spent here, and at once acknowledged
		m := w.text(0, 2, 2, day)
		take(m)
		if notices() != 1 {
			t.Fatalf("%d notices for one text", notices())
		}
		take(w.about(routing.Ack, 2, 0, m.ID, day))
		if notices() != 0 {
			t.Fatal("the notice outlives its text")
		}
	}
	for range 20 { // texts that stay
		take(w.text(0, 2, 2, day))
	}
	if n := notices(); n != 2 {
		t.Errorf("%d notices to one sender, whose share is 2", n)
	}
	for i := range 30 { // of many senders
		take(foreign(t, w, byte(i), 2, 2))
	}
	if n := notices(); n != 8 {
		t.Errorf("%d notices, whose share is 8", n)
	}
	// After a restart a notice still ends with its text.
	w.crash(1)
	w.restart(1)
	for _, h := range hop.held {
		if m := h.Msg; m.Kind == routing.Text {
			take(w.reply(routing.Ack, 2, m.From, m.ID, day))
		}
	}
	if n := notices(); n != 0 {
		t.Errorf("%d notices outlive their texts", n)
	}
}

// Who gives way goes when the newcomer is durable, and stays if that fails.
func TestNobodyGivesWayToWhatIsNotStored(t *testing.T) {
	w := newWorld(t, 23, 10)
	w.limits = routing.Limits{Held: 8, HeldBytes: 1 << 20}
	w.crash(0)
	w.restart(0)
	hop := w.nodes[0]
	push := uint64(0)
	take := func(via int, m *routing.Message) []routing.Effect {
		push++
		return hop.router.Step(w.now, routing.Received{Peer: w.nodes[via].pub, Push: push, Hops: 1, Msg: m})
	}
	pushed := map[routing.Key]bool{}
	commit := func(effects []routing.Effect, err error) (answers []routing.Verdict) {
		for _, e := range effects {
			if p, ok := e.(routing.Persist); ok {
				if err == nil {
					err = w.commit(hop, p.Ops)
				}
				for _, e := range hop.router.Step(w.now, routing.Committed{Batch: p.Batch, Err: err}) {
					switch e := e.(type) {
					case routing.Answer:
						answers = append(answers, e.Verdict)
					case routing.Send:
						pushed[e.Key] = true
					}
				}
			}
		}
		return answers
	}
	// Texts of seven neighbours fill it, two of them of the first; and two acks of one
	// pair are one too many.
	var texts, acks []*routing.Message
	for i := range 8 {
		texts = append(texts, foreign(t, w, byte(i), 9, 8))
		commit(take(max(1, i), texts[i]), nil)
	}
	for i := range 2 {
		acks = append(acks, w.about(routing.Ack, 1, 2, routing.ID{byte(i + 1)}, day))
	}
	commit(take(1, acks[0]), nil)
	before := hop.router.Sizes()
	if before.Transit != 8 || before.Replies != 1 || len(hop.held) != 9 {
		t.Fatalf("%+v", before)
	}
	newcomer, broken := foreign(t, w, 50, 9, 8), errors.New("the disk is broken")
	for _, c := range []struct {
		via           int
		newer, oldest *routing.Message
	}{{8, newcomer, texts[0]}, {1, acks[1], acks[0]}} {
		effects := take(c.via, c.newer)
		for _, e := range hop.router.Step(w.now, routing.LinkUp{Peer: w.nodes[9].pub}) {
			if send, ok := e.(routing.Send); ok && send.Key == c.oldest.Key() {
				t.Errorf("%s: it is pushed while its bytes may be gone", c.oldest.Kind)
			}
		}
		if got := commit(effects, broken); len(got) != 1 || got[0] != routing.Full {
			t.Errorf("%s: answers %v", c.newer.Kind, got)
		}
		if _, held := hop.held[c.oldest.Key()]; !held || hop.router.Sizes() != before {
			t.Errorf("%s: the older one is gone, and the newer one too: %+v", c.newer.Kind, hop.router.Sizes())
		}
		if !pushed[c.oldest.Key()] {
			t.Errorf("%s: it stayed, and is not pushed any more", c.oldest.Kind)
		}
		hop.router.Step(w.now, routing.LinkDown{Peer: w.nodes[9].pub})
	}
	commit(take(8, newcomer), nil)
	commit(take(1, acks[1]), nil)
	for _, gone := range []*routing.Message{texts[0], acks[0]} {
		if _, held := hop.held[gone.Key()]; held {
			t.Errorf("the older %s is still there", gone.Kind)
		}
	}
	if got := hop.router.Sizes(); got != before || hop.router.Counters().Evicted != 1 {
		t.Errorf("%+v, %+v", got, hop.router.Counters())
	}
}

// An ack that cannot be stored ends no text.
func TestAckThatIsNotStored(t *testing.T) {
	w := newWorld(t, 24, 3)
	w.line()
	w.crash(2)
	id := w.send(0, 2, routing.DefaultTTL, day)
	w.run(time.Second)
	for _, i := range []int{1, 0} {
		n, ack := w.nodes[i], w.about(routing.Ack, 2, 0, id, day)
		n.full = true
		w.step(n, routing.Received{Peer: w.nodes[i+1].pub, Push: 7000, Hops: 1, Msg: ack})
		w.run(time.Second)
		n.full = false
	}
	if _, told := w.outcome(0, id, routing.OutcomeDelivered); told || w.copies() != 2 {
		t.Errorf("%d copies, %+v", w.copies(), w.nodes[0].reports[id])
	}
	w.restart(2)
	w.link(1, 2)
	w.run(time.Second)
	w.expectDone(0, 2, id)
}

// The sender is told when its text is lost where it is stored, once; not when its
// bytes are gone because the ack is there.
func TestLost(t *testing.T) {
	w := newWorld(t, 25, 2)
	id := w.send(0, 1, routing.DefaultTTL, day)
	w.run(time.Second)
	n := w.nodes[0]
	broken := errors.New("it does not match its checksum")
	for range 2 {
		w.step(n, routing.Lost{Key: routing.Key{From: n.pub, ID: id}, Err: broken})
		w.run(time.Second)
	}
	if r := n.reports[id]; len(r) != 2 || r[1].State != routing.OutcomeLost || !r[1].State.Final() || !errors.Is(r[1].Err, broken) {
		t.Errorf("told %+v", r)
	}
	if s := n.router.Sizes(); s.Own != 0 || len(n.held) != 0 || n.router.Counters().Undelivered != 1 {
		t.Errorf("%+v, %d stored", s, len(n.held))
	}

	id = w.send(0, 1, routing.DefaultTTL, day)
	w.run(time.Second)
	ack := w.about(routing.Ack, 1, 0, id, day)
	effects := n.router.Step(w.now, routing.Received{Peer: w.nodes[1].pub, Push: 1, Hops: 1, Msg: ack})
	w.step(n, routing.Lost{Key: routing.Key{From: n.pub, ID: id}}) // a push of it that was under way
	for _, e := range effects {
		if p, ok := e.(routing.Persist); ok {
			if err := w.commit(n, p.Ops); err != nil {
				t.Fatal(err)
			}
			for _, e := range n.router.Step(w.now, routing.Committed{Batch: p.Batch}) {
				if r, ok := e.(routing.Report); ok {
					n.reports[id] = append(n.reports[id], r)
				}
			}
		}
	}
	if r := n.reports[id]; len(r) != 2 || r[1].State != routing.OutcomeDelivered {
		t.Errorf("told %+v", r)
	}
}

// What somebody makes a node carry takes no room of that node's own texts at the
// next one, and the acks that it makes it sign do not hold them up on the way.
func TestOwnTextsGoBeforeWhatIsCarried(t *testing.T) {
	w := newWorld(t, 26, 10)
	w.limits = routing.Limits{Held: 64, HeldBytes: 1 << 20} // 16 of a neighbour
	w.crash(0)
	w.restart(0)
	hop := w.nodes[0]
	push := uint64(0)
	take := func(via int, m *routing.Message) bool {
		push++
		w.instantly(hop, routing.Received{Peer: w.nodes[via].pub, Push: push, Hops: 1, Msg: m})
		_, held := hop.held[m.Key()]
		return held
	}
	first := w.text(1, 8, 8, day)
	take(1, first)
	carried := 0
	for i := range 40 {
		if take(1, foreign(t, w, byte(i), 9, 8)) {
			carried++
		}
	}
	if carried != 15 || !take(1, w.text(1, 8, 8, day)) {
		t.Errorf("%d of 64 are carried for a neighbour beside its own text, and the next of its own is refused", carried)
	}
	// Also when all is full.
	for i := range 60 {
		take(2+i%4, foreign(t, w, byte(40+i), 9, 8))
	}
	if s := hop.router.Sizes(); s.Transit != 64 {
		t.Fatalf("%+v", s)
	}
	if !take(1, w.text(1, 7, 8, day)) {
		t.Error("its own text is refused when all is full")
	}
	if _, held := hop.held[first.Key()]; !held {
		t.Error("its own texts give way to each other before what it carries does")
	}
	if s := hop.router.Sizes(); s.Transit != 64 || len(hop.held) != 64 {
		t.Errorf("%+v", s)
	}

	// Sixteen pushes wait for their answers on a link: the text is among the first.
	victim := w.nodes[6]
	for range 40 {
		m := w.text(7, 6, 8, day)
		push++
		w.instantly(victim, routing.Received{Peer: w.nodes[7].pub, Push: push, Hops: 1, Msg: m, Room: true})
	}
	id := w.send(6, 9, 8, day)
	w.run(time.Second)
	pushed := false
	for _, e := range victim.router.Step(w.now, routing.LinkUp{Peer: w.nodes[8].pub}) {
		if send, ok := e.(routing.Send); ok && send.Key.ID == id {
			pushed = true
		}
	}
	if !pushed {
		t.Error("acks hold up the node's own text")
	}
}
