package routing_test

import (
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"vixp2p/routing"
)

var (
	simSeed  = flag.Uint64("seed", 0, "run the simulation with this seed alone")
	simSeeds = flag.Uint64("seeds", 12, "how many seeds the simulation runs with")
)

const day = 24 * time.Hour

// expect that a text was delivered and acknowledged, and that no copy is left.
func (w *world) expectDone(from, to int, id routing.ID) {
	w.t.Helper()
	if !w.got(from, to, id) {
		w.failf("%s from %d did not arrive at %d", id, from, to)
	}
	if _, ok := w.outcome(from, id, routing.OutcomeDelivered); !ok {
		w.failf("%d was not told that %s arrived: %+v", from, id, w.nodes[from].reports[id])
	}
	if n := w.copies(); n != 0 {
		w.failf("%d copies are left", n)
	}
}

func TestLine(t *testing.T) {
	w := newWorld(t, 1, 4)
	w.line()
	pushes := 0
	w.tap = func(from, to int, m *routing.Message) { pushes++ }
	id := w.send(0, 3, routing.DefaultTTL, day)
	w.run(time.Second)
	w.expectDone(0, 3, id)
	if pushes != 6 {
		t.Errorf("%d pushes for 3 links there and back", pushes)
	}
	// Both ends know the way now: nothing is copied elsewhere.
	w.link(1, 3)
	w.unlink(1, 3)
	back := w.send(3, 0, routing.DefaultTTL, day)
	w.run(time.Second)
	w.expectDone(3, 0, back)
}

func TestNodeInTheMiddleIsDown(t *testing.T) {
	w := newWorld(t, 2, 4)
	w.line()
	w.crash(2)
	id := w.send(0, 3, routing.DefaultTTL, day)
	w.run(10 * time.Second)
	if w.got(0, 3, id) || w.copies() != 2 {
		t.Fatalf("%d copies", w.copies())
	}
	tr, ok := w.nodes[0].router.Trace(id)
	if !ok || len(tr.Holders) != 1 || tr.Holders[0] != w.nodes[1].pub {
		t.Errorf("the sender knows of %+v", tr)
	}
	// The one that carries it starts again meanwhile.
	w.crash(1)
	w.restart(1)
	w.link(0, 1)
	w.run(10 * time.Minute)
	w.restart(2)
	w.link(1, 2)
	w.link(2, 3)
	w.run(time.Second)
	w.expectDone(0, 3, id)
}

// A ferry: no two links are ever up at one time.
func TestCarried(t *testing.T) {
	w := newWorld(t, 3, 5)
	id := w.send(0, 4, routing.DefaultTTL, day)
	meet := func(i, j int) {
		w.link(i, j)
		w.run(time.Minute)
		w.unlink(i, j)
		w.run(time.Minute)
	}
	for i := range 4 {
		meet(i, i+1)
	}
	if !w.got(0, 4, id) {
		w.failf("it did not arrive")
	}
	if _, told := w.outcome(0, id, routing.OutcomeDelivered); told {
		t.Fatal("told before anything came back")
	}
	for i := 3; i >= 0; i-- {
		meet(i, i+1)
	}
	w.expectDone(0, 4, id)
}

func TestTTL(t *testing.T) {
	for ttl := uint8(1); ttl <= 5; ttl++ {
		w := newWorld(t, 4, 5) // 4 links
		w.line()
		w.tap = func(_, to int, m *routing.Message) {
			if m.Kind == routing.Text && to == int(ttl) && to != 4 {
				t.Errorf("TTL %d: pushed to a node that can do nothing with it", ttl)
			}
		}
		id := w.send(0, 4, ttl, day)
		w.run(time.Minute)
		if ttl >= 4 {
			w.expectDone(0, 4, id)
			continue
		}
		if w.got(0, 4, id) {
			t.Errorf("TTL %d crossed 4 links", ttl)
		}
		r, told := w.outcome(0, id, routing.OutcomeSpent)
		tr, _ := w.nodes[0].router.Trace(id)
		if ttl == 1 {
			if told || tr.TTL != 1 || len(tr.Holders) != 0 {
				t.Errorf("TTL 1: %+v, %+v", r, tr)
			}
			continue
		}
		// The last one that may pass it on to the recipient only, tells.
		if !told || r.At != w.nodes[ttl-1].pub || len(tr.SpentAt) != 1 {
			t.Errorf("TTL %d: the sender was told %+v, %v", ttl, r, told)
		}
		// It is still delivered if the recipient comes by.
		w.link(int(ttl)-1, 4)
		w.run(time.Second)
		w.expectDone(0, 4, id)
	}
}

// An ack goes to all who are known to hold the text, at once.
func TestAcksChaseCopies(t *testing.T) {
	w := newWorld(t, 12, 6)
	w.link(0, 1)
	for i := 2; i < 5; i++ {
		w.link(1, i)
	}
	w.link(4, 5)
	id := w.send(0, 5, routing.DefaultTTL, day)
	w.run(time.Second)
	w.expectDone(0, 5, id)
	// Who never saw the text did not need the ack.
	for i, n := range w.nodes {
		if len(n.held) != 1 {
			t.Errorf("node %d holds %d messages", i, len(n.held))
		}
	}
}

// A copy over a long way must not hide one over a short way.
func TestFewerHopsCount(t *testing.T) {
	w := newWorld(t, 5, 6)
	// 0-1-2-3-5 is too long for TTL 3 beyond 3; 0-4-3 is shorter.
	w.link(0, 1)
	w.link(1, 2)
	w.link(2, 3)
	id := w.send(0, 5, 4, day)
	w.run(time.Second)
	w.link(3, 4)
	w.link(0, 4)
	w.run(time.Second)
	w.unlink(3, 4)
	w.link(3, 1)
	w.run(time.Minute)
	for _, n := range w.nodes {
		for _, h := range n.held {
			if n.index == 3 && h.Msg.Kind == routing.Text && h.Hops != 2 {
				t.Errorf("node 3 counts %d hops", h.Hops)
			}
		}
	}
	w.link(3, 5)
	w.run(time.Second)
	w.expectDone(0, 5, id)
}

func TestNothingComesTwice(t *testing.T) {
	w := newWorld(t, 6, 3)
	w.line()
	var copies []*routing.Message
	w.tap = func(_, _ int, m *routing.Message) { copies = append(copies, m) }
	id := w.send(0, 2, routing.DefaultTTL, time.Hour)
	w.run(time.Second)
	w.expectDone(0, 2, id)
	w.tap = nil
	replay := func(m *routing.Message, hops uint8) {
		w.step(w.nodes[2], routing.Received{Peer: w.nodes[1].pub, Push: 1000, Hops: hops, Msg: m, Text: m.Body, Room: true})
		w.run(time.Second)
	}
	for _, m := range copies {
		for hops := range uint8(4) {
			replay(m, hops) // world fails if it shows twice
		}
	}
	w.crash(2)
	w.restart(2)
	w.link(1, 2)
	replay(copies[0], 2)
	// Beyond its lifetime it is expired, and forgotten only later, so that a clock
	// that is set back does not bring it to life.
	w.run(time.Hour)
	before := w.nodes[2].router.Counters().Expired
	replay(copies[0], 2)
	if w.nodes[2].router.Counters().Expired != before+1 {
		t.Error("it is not dropped as expired")
	}
	w.now = w.now.Add(-2 * time.Minute)
	replay(copies[0], 2)
	w.run(time.Hour)
	if s := w.nodes[2].router.Sizes(); s.Seen != 0 || len(w.nodes[2].seen) != 0 || len(w.nodes[2].held) != 0 {
		t.Errorf("left after all that: %+v", s)
	}
}

func TestExpiry(t *testing.T) {
	w := newWorld(t, 7, 4)
	w.line()
	w.crash(3)
	id := w.send(0, 3, routing.DefaultTTL, time.Minute)
	w.run(30 * time.Second)
	if w.copies() != 3 {
		t.Errorf("%d copies", w.copies())
	}
	w.run(31 * time.Second)
	if _, ok := w.outcome(0, id, routing.OutcomeExpired); !ok || w.copies() != 0 {
		t.Errorf("%d copies after its time, %+v", w.copies(), w.nodes[0].reports[id])
	}
	w.restart(3)
	w.link(2, 3)
	w.run(time.Minute)
	if w.got(0, 3, id) {
		t.Error("it arrived after its time")
	}
}

// What a route promised and did not keep: the text is copied to others.
func TestWrongRoute(t *testing.T) {
	w := newWorld(t, 8, 4)
	w.link(0, 1) // 1 has no other link
	w.link(0, 2)
	w.link(2, 3)
	w.step(w.nodes[0], routing.SetRoute{Route: routing.Route{Target: w.nodes[3].pub, NextHop: w.nodes[1].pub, TTL: 5}})
	if ttl := w.nodes[0].router.TTLTo(w.nodes[3].pub, w.now); ttl != 5 {
		t.Errorf("TTL %d", ttl)
	}
	id := w.send(0, 3, 5, day)
	w.run(20 * time.Second)
	if w.got(0, 3, id) {
		t.Fatal("the route by hand was not taken")
	}
	tr, _ := w.nodes[0].router.Trace(id)
	if tr.NextHop != w.nodes[1].pub {
		t.Errorf("trace %+v", tr)
	}
	w.run(time.Minute)
	if !w.got(0, 3, id) {
		t.Error("it was not copied to others in the end")
	}
}

// What a neighbour refuses is offered again, without holding up the rest.
func TestFullDisk(t *testing.T) {
	w := newWorld(t, 9, 3)
	w.line()
	w.nodes[1].full = true
	id := w.send(0, 2, routing.DefaultTTL, day)
	w.run(time.Minute / 2)
	if w.got(0, 2, id) {
		t.Fatal("it went past a full disk")
	}
	tr, _ := w.nodes[0].router.Trace(id)
	if tr.Refused[w.nodes[1].pub] != routing.Full {
		t.Errorf("trace %+v", tr)
	}
	w.nodes[1].full = false
	w.run(2 * time.Minute)
	w.expectDone(0, 2, id)

	w.nodes[0].full = true
	id = w.send(0, 2, routing.DefaultTTL, day)
	w.run(time.Second)
	if r, ok := w.outcome(0, id, routing.OutcomeFailed); !ok || r.Err == nil {
		t.Errorf("the sender's own disk is full: %+v", w.nodes[0].reports[id])
	}
}

func TestQuotas(t *testing.T) {
	w := newWorld(t, 10, 6)
	w.limits = routing.Limits{Held: 64, HeldBytes: 1 << 20, Own: 64, Seen: 8}
	for i := range w.nodes {
		w.crash(i)
		w.restart(i)
	}
	// 0 and 1 push to 2 what nobody takes; 5 is away.
	w.crash(5)
	w.link(0, 2)
	for range 40 {
		w.send(0, 5, 4, day)
	}
	w.run(time.Minute)
	if n := w.nodes[2].router.Sizes().Transit; n != 4 {
		t.Errorf("one sender has %d of 64 for one recipient", n)
	}
	for range 20 { // the outbox has no room for more
		w.send(0, 4, 4, day)
	}
	w.run(time.Minute)
	if n := w.nodes[2].router.Sizes().Transit; n != 8 {
		t.Errorf("one sender has %d of 64", n)
	}
	// Many senders over one neighbour.
	for sender := range 40 {
		m := foreign(t, w, byte(sender), 5, 8)
		w.step(w.nodes[2], routing.Received{Peer: w.nodes[0].pub, Push: uint64(1000 + sender), Hops: 1, Msg: m})
	}
	w.run(time.Second)
	if n := w.nodes[2].router.Sizes().Transit; n != 16 {
		t.Errorf("one neighbour has %d of 64", n)
	}
	// When all is full, those with the largest share give way.
	for i := range 200 {
		from := []int{1, 3, 4}[i%3]
		w.link(from, 2)
		m := foreign(t, w, byte(110+i), 5, 8)
		w.step(w.nodes[2], routing.Received{Peer: w.nodes[from].pub, Push: uint64(2000 + i), Hops: 1, Msg: m})
		w.run(100 * time.Millisecond)
	}
	if s := w.nodes[2].router.Sizes(); s.Transit > 64 || s.Transit < 60 {
		t.Errorf("sizes %+v", s)
	}
	// The inbox's memory of what was shown is never given up for new ones.
	w.link(0, 1)
	for range 10 {
		w.send(0, 1, 4, day)
	}
	w.run(time.Minute)
	if s := w.nodes[1].router.Sizes(); s.Seen != 2 || len(w.nodes[1].inbox) != 2 {
		t.Errorf("one sender is remembered %d times of 8, %d shown", s.Seen, len(w.nodes[1].inbox))
	}
	// The outbox.
	for range 100 {
		w.send(3, 5, 4, day)
	}
	w.run(time.Second)
	failed := 0
	for _, rs := range w.nodes[3].reports {
		for _, r := range rs {
			if r.State == routing.OutcomeFailed && errors.Is(r.Err, routing.ErrOutboxFull) {
				failed++
			}
		}
	}
	if failed != 36 {
		t.Errorf("%d of 100 refused with room for 64", failed)
	}
}

// foreign is a text of somebody who is no node of the world.
func foreign(t *testing.T, w *world, n byte, to int, ttl uint8) *routing.Message {
	key := identity(n)
	w.ids++
	h := routing.Header{
		Kind: routing.Text, ID: routing.ID{n, byte(w.ids), byte(w.ids >> 8)}, From: keyOf(key), To: w.nodes[to].pub,
		Created: uint64(w.now.UnixMilli()), Lifetime: uint64(day.Milliseconds()), TTL: ttl,
	}
	m, err := routing.New(network, key, h, func([]byte) ([]byte, error) { return make([]byte, 64), nil })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// An ack counts only for texts to its signer, a notice only for own texts.
func TestForeignAcks(t *testing.T) {
	w := newWorld(t, 11, 4)
	w.line()
	w.crash(3)
	id := w.send(0, 3, routing.DefaultTTL, day)
	w.run(time.Second)
	for _, kind := range []routing.Kind{routing.Ack, routing.Notice} {
		h := routing.Header{
			Kind: kind, ID: routing.ID{9, byte(kind)}, From: w.nodes[2].pub, To: w.nodes[0].pub, Ref: id,
			Created: uint64(w.now.UnixMilli()), Lifetime: 1000000, TTL: 8,
		}
		if kind == routing.Notice {
			h.Reason = routing.ReasonTTL
		}
		m, err := routing.New(network, w.nodes[2].key, h, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			w.step(w.nodes[i], routing.Received{Peer: w.nodes[i+1].pub, Push: 5000, Hops: 1, Msg: m})
		}
		w.run(time.Second)
	}
	if _, told := w.outcome(0, id, routing.OutcomeDelivered); told || w.copies() != 3 {
		t.Errorf("a stranger's ack counts: %+v, %d copies", w.nodes[0].reports[id], w.copies())
	}
	// A notice is no reason to give up: it only tells.
	if r, told := w.outcome(0, id, routing.OutcomeSpent); !told || r.At != w.nodes[2].pub {
		t.Errorf("the notice: %+v", w.nodes[0].reports[id])
	}
	w.restart(3)
	w.link(2, 3)
	w.run(time.Second)
	w.expectDone(0, 3, id)
}

func TestLimiter(t *testing.T) {
	l := routing.NewLimiter(10, 5)
	now := started
	for i := range 5 {
		if ok, _ := l.Allow(peer(1), now); !ok {
			t.Fatalf("message %d of a burst of 5", i)
		}
	}
	ok, retry := l.Allow(peer(1), now)
	if ok || retry != 100*time.Millisecond {
		t.Errorf("the sixth: %v, %v", ok, retry)
	}
	if ok, _ := l.Allow(peer(2), now); !ok {
		t.Error("another neighbour is held up")
	}
	if ok, _ := l.Allow(peer(1), now.Add(retry)); !ok {
		t.Error("after the pause")
	}
	if ok, _ := l.Allow(peer(1), now.Add(-time.Hour)); ok {
		t.Error("a clock that is set back gives tokens")
	}
	for i := range 10000 {
		l.Allow(routing.PeerKey{byte(i), byte(i >> 8), 1}, now)
	}
}

// TestSim: whatever fails for a while, what can arrive arrives, once, and is
// acknowledged truly; then nothing is left of it.
func TestSim(t *testing.T) {
	shapes := map[string]func(w *world, i, j int) bool{
		"line":   func(_ *world, i, j int) bool { return j == i+1 },
		"ring":   func(w *world, i, j int) bool { return j == i+1 || i == 0 && j == len(w.nodes)-1 },
		"star":   func(_ *world, i, _ int) bool { return i == 0 },
		"random": func(w *world, i, j int) bool { return j == i+1 || w.rng.IntN(4) == 0 },
		"full":   func(*world, int, int) bool { return true },
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= *simSeeds; seed++ {
				if *simSeed != 0 {
					seed = *simSeed
				}
				simulate(t, seed, shape)
				if *simSeed != 0 {
					return
				}
			}
		})
	}
}

func simulate(t *testing.T, seed uint64, shape func(w *world, i, j int) bool) {
	w := newWorld(t, seed, 7)
	w.loss, w.twice, w.delay = 0.05, 0.1, 300*time.Millisecond
	var edges [][2]int
	for i := range w.nodes {
		for j := i + 1; j < len(w.nodes); j++ {
			if shape(w, i, j) {
				edges = append(edges, [2]int{i, j})
			}
		}
	}
	type sent struct {
		from, to int
		id       routing.ID
	}
	var all []sent
	for range 60 {
		switch w.rng.IntN(8) {
		case 0:
			w.crash(w.rng.IntN(len(w.nodes)))
		case 1, 2:
			if i := w.rng.IntN(len(w.nodes)); !w.nodes[i].up {
				w.restart(i)
			}
		case 3:
			e := edges[w.rng.IntN(len(edges))]
			w.unlink(e[0], e[1])
		case 4, 5:
			e := edges[w.rng.IntN(len(edges))]
			w.link(e[0], e[1])
		case 6:
			n := w.nodes[w.rng.IntN(len(w.nodes))]
			n.full = !n.full
		default:
			from, to := w.rng.IntN(len(w.nodes)), w.rng.IntN(len(w.nodes))
			if from != to && w.nodes[from].up {
				all = append(all, sent{from, to, w.send(from, to, routing.DefaultTTL, 7*day)})
			}
		}
		w.run(time.Duration(w.rng.Int64N(int64(40 * time.Second))))
	}
	// From some time on all is well.
	w.loss, w.twice = 0, 0
	for i, n := range w.nodes {
		n.full = false
		if !n.up {
			w.restart(i)
		}
	}
	for _, e := range edges {
		w.link(e[0], e[1])
	}
	w.run(4 * time.Hour) // the longest pause is one
	for _, s := range all {
		if _, failed := w.outcome(s.from, s.id, routing.OutcomeFailed); failed {
			continue // the sender was told
		}
		if _, stored := w.outcome(s.from, s.id, routing.OutcomeStored); !stored {
			if !w.got(s.from, s.to, s.id) {
				continue // lost in the crash before anybody was told
			}
		}
		if !w.got(s.from, s.to, s.id) {
			w.failf("%s from %d to %d did not arrive", s.id, s.from, s.to)
		}
	}
	if n := w.copies(); n != 0 {
		w.failf("%d copies are left:%s", n, w.describe())
	}
}

// describe lists the texts that are left.
func (w *world) describe() (s string) {
	for _, n := range w.nodes {
		for _, h := range n.held {
			if h.Msg.Kind == routing.Text {
				s += fmt.Sprintf("\nnode %d holds %s from %d to %d, hops %d", n.index, h.Msg.ID, w.indexOf(h.Msg.From), w.indexOf(h.Msg.To), h.Hops)
			}
		}
	}
	return s
}
