package replicator_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

// meshOf connects every node with every other one, and waits until all are in step.
func meshOf(t *testing.T, n int) []*node {
	t.Helper()
	nodes := make([]*node, n)
	for i := range nodes {
		nodes[i] = newNode(t, string(rune('A'+i)), func(o *replicator.Options) { o.Rand = rand.Int64N })
		for _, o := range nodes[:i] {
			connect(nodes[i], o)
		}
	}
	allInStep(t, nodes...)
	time.Sleep(time.Second)
	return nodes
}

func allInStep(t *testing.T, nodes ...*node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, n := range nodes {
		if err := n.r.WaitSynced(ctx, 1, nil); err != nil {
			t.Fatalf("%s: %v", n.name, err)
		}
	}
}

// TestMeshCarriesOnce: in a full mesh each node receives what another writes about
// once; what announcements lead to is exact: receipts of all, and nothing pending.
func TestMeshCarriesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		size, blocks := 20, 50
		if testing.Short() {
			size, blocks = 10, 50
		}
		nodes := meshOf(t, size)
		writer := nodes[7]
		for range blocks {
			at := writer.append(1, 1000)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if err := writer.r.WaitReplicated(ctx, space, at.First, len(nodes)-1); err != nil {
				t.Fatal(err)
			}
			cancel()
			time.Sleep(100 * time.Millisecond)
		}
		log := writer.store.Logs(space)[0]
		sum := uint64(0)
		for _, n := range nodes {
			in := n.r.Counters().BytesIn
			sum += in
			// Which session is quicker may differ in the first few blocks.
			if float64(in) > 1.2*float64(log.Bytes) {
				t.Errorf("%s received %d bytes of a log of %d", n.name, in, log.Bytes)
			}
		}
		if mean := float64(sum) / float64(len(nodes)-1); mean > 1.1*float64(log.Bytes) {
			t.Errorf("the nodes received %.0f bytes of a log of %d on average", mean, log.Bytes)
		}
		allInStep(t, nodes...)
		for _, n := range nodes {
			all, err := n.r.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range all {
				if !st.InStep() {
					t.Errorf("%s with %s: %+v", n.name, st.ID, st)
				}
			}
		}
	})
}

// TestMeshOutlivesItsSource: the node that brings a log to the others goes in the middle
// of a stream of writes. What follows comes at once, or where a node further up has
// lost its source unseen, as soon as somebody asks whom it hears of.
func TestMeshOutlivesItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c, d := newNode(t, "A"), newNode(t, "B"), newNode(t, "C"), newNode(t, "D")
		for _, p := range [][2]*node{{a, b}, {a, c}, {b, c}, {b, d}, {c, d}} { // from A to D two ways
			connect(p[0], p[1])
		}
		allInStep(t, a, b, c, d)
		var at replication.Appended
		for range 10 {
			at = a.append(1, 100)
			arrives(t, a, b, c, d)
			time.Sleep(100 * time.Millisecond)
		}
		source := b
		if c.pushedTo(d) > b.pushedTo(d) {
			source = c
		}
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					at = a.append(1, 100)
				}
			}
		}()
		time.Sleep(200 * time.Millisecond)
		source.close()
		time.Sleep(100 * time.Millisecond)
		close(stop)
		<-stopped
		began := time.Now()
		eventually(t, "the last write at D", func() bool { return d.tip(at.First.Log) == at.First.Seq })
		if took := time.Since(began); took > replication.GraftAfter+200*time.Millisecond {
			t.Errorf("the last write took %s", took)
		}
		for _, n := range []*node{a, b, c, d} {
			if n != source {
				allInStep(t, n)
			}
		}
	})
}

// pushedTo is how many runs a node has pushed to another.
func (n *node) pushedTo(to *node) uint64 {
	for _, p := range n.r.Peers() {
		if p.Info().ID == to.name {
			st, _ := p.Status(context.Background())
			return st.Counters.RunsOut
		}
	}
	return 0
}

// TestMeshWithOneThatKnowsNoPrune: a peer of before pushes on. It hears of that now and
// then, and all else goes on.
func TestMeshWithOneThatKnowsNoPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, "A"), newNode(t, "B")
		connect(a, b)
		allInStep(t, a, b)
		old := play(a, "old")
		old.settle()
		var prunes, acks int
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				m, _, err := old.c.Read()
				if err != nil {
					return
				}
				switch m := m.(type) {
				case *replication.Prune:
					prunes++
				case *replication.WalAck:
					acks += len(m.Entries)
				case *replication.Ping:
					old.say(&replication.Pong{Nonce: m.Nonce})
				}
			}
		}()
		for range 100 {
			at := b.append(1, 100)
			arrives(t, a, b)
			run, err := b.store.RunCovering(at.First.Log, at.First.Seq)
			if err != nil {
				t.Fatal(err)
			}
			old.say(&replication.WalPush{Space: space, Log: at.First.Log, From: run.From, End: run.End, Total: uint64(len(run.Data)), Data: run.Data})
			time.Sleep(100 * time.Millisecond)
		}
		old.c.cut()
		<-done
		if prunes == 0 || prunes > 6 || acks < 100 {
			t.Errorf("in 10 s it heard %d prunes and %d acks", prunes, acks)
		}
	})
}

// TestHostileMesh: a peer that wants nothing pushed, says of itself that it has what
// nobody has, and asks again and again for everything, harms nobody else.
func TestHostileMesh(t *testing.T) {
	for name, next := range map[string]func(i int) replication.Message{
		"announcements": func(i int) replication.Message {
			m := &replication.Announce{Space: space}
			for k := range 120 {
				m.Entries = append(m.Entries, replication.FrontierEntry{
					Log: replication.LogID{byte(i), byte(i >> 8), byte(i >> 16), byte(k)},
					Pos: replication.Position{Seq: 1 << 62, Hash: replication.Hash{1}},
				})
			}
			return m
		},
		"prunes": func(i int) replication.Message {
			m := &replication.Prune{}
			for k := range 256 {
				m.Logs = append(m.Logs, replication.LogID{byte(i), byte(i >> 8), byte(i >> 16), byte(k)})
			}
			return m
		},
		"grafts": func(i int) replication.Message {
			return &replication.Graft{Log: replication.LogID{byte(i), byte(i >> 8), byte(i >> 16)}}
		},
		"changes of mind": func(i int) replication.Message {
			if i%2 == 0 {
				return &replication.Prune{Logs: []replication.LogID{{}}}
			}
			return &replication.Graft{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, c := newNode(t, "A"), newNode(t, "B"), newNode(t, "C")
				connect(a, b)
				connect(a, c)
				bad := play(a, "evil")
				bad.settle()
				said := bad.flood(next)
				seconds := 60
				if testing.Short() {
					seconds = 15
				}
				for range seconds {
					began := time.Now()
					b.append(5, 10)
					arrives(t, a, b, c)
					if d := time.Since(began); d > 100*time.Millisecond {
						t.Fatalf("an honest write took %s", d)
					}
					time.Sleep(time.Second)
				}
				t.Logf("%d messages were read in %d s", said.Load(), seconds)
				bad.c.cut()
			})
		})
	}
}

// TestMeshTellsNothingOfOtherSpaces: a peer hears nothing of the logs of a space that it
// may not have: not by what the mesh wants of it, and not if it names one in a space
// that it may have.
func TestMeshTellsNothingOfOtherSpaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A", func(o *replicator.Options) { o.MeshDegree, o.MeshFew = 2, 1 })
		b := newNode(t, "B")
		outsider := play(a, "X", without(other))
		outsider.settle()
		connect(a, b)
		time.Sleep(3 * time.Second)
		at, err := b.store.Append(within(t), replication.Batch{Space: other, Ops: makeOps(3, 10)})
		if err != nil {
			t.Fatal(err)
		}
		log := at.First.Log
		eventually(t, "the log at A", func() bool { return a.tip(log) == 3 })
		outsider.say(&replication.Announce{Space: space, Entries: []replication.FrontierEntry{
			{Log: log, Base: 1, Pos: replication.Position{Seq: 9, Hash: replication.Hash{9}}},
		}})
		time.Sleep(5 * time.Second)
		outsider.say(&replication.Ping{Nonce: 77})
		for {
			m, _, err := outsider.c.Read()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *replication.Pong:
				if m.Nonce == 77 {
					outsider.c.cut()
					return
				}
			case *replication.Prune:
				if slices.Contains(m.Logs, log) {
					t.Error("it is asked not to push a log of the other space")
				}
			case *replication.Graft:
				if m.Log == log {
					t.Errorf("it is asked for what follows %d", m.From.Seq)
				}
			case *replication.WalAck:
				for _, e := range m.Entries {
					if e.Log == log && e.Pos.Seq > 0 {
						t.Errorf("it is told that the log is here up to %d", e.Pos.Seq)
					}
				}
			}
		}
	})
}

// TestPruneOfEverything: a peer that wants all announced and answers nothing gets it
// pushed after a while.
func TestPruneOfEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newNode(t, "A"), newNode(t, "B"), newNode(t, "C")
		connect(a, b)
		connect(a, c)
		allInStep(t, a, b, c)
		odd := play(a, "odd")
		odd.settle()
		odd.say(&replication.Prune{Logs: []replication.LogID{{}}})
		time.Sleep(time.Second)
		at := a.append(1, 10)
		began := time.Now()
		announced := 0
		for {
			m, _, err := odd.c.Read()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *replication.Announce:
				announced++
			case *replication.Ping:
				odd.say(&replication.Pong{Nonce: m.Nonce})
			case *replication.WalPush:
				if m.Log != at.First.Log || announced < 2 || time.Since(began) < 10*time.Second {
					t.Errorf("pushed after %s and %d announcements", time.Since(began), announced)
				}
				odd.c.cut()
				return
			}
		}
	})
}

// TestMeshCatchesUpFromOne: a node that was away gets what it missed about once, however
// many have it.
func TestMeshCatchesUpFromOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := meshOf(t, 6)
		for range 30 {
			for _, n := range nodes {
				n.append(20, 500)
			}
		}
		allInStep(t, nodes...)
		late := newNode(t, "Z")
		for _, n := range nodes {
			connect(late, n)
		}
		arrives(t, append(nodes, late)...)
		allInStep(t, append(nodes, late)...)
		sum := uint64(0)
		for _, l := range late.store.Logs(space) {
			sum += l.Bytes
		}
		if in := late.r.Counters().BytesIn; float64(in) > 1.2*float64(sum) {
			t.Errorf("it received %d bytes for %d", in, sum)
		}
	})
}
