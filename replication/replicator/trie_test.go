package replicator_test

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

// ingest stores one more block of an origin, as if a peer had pushed it.
func (n *node) ingest(o *origin) {
	n.t.Helper()
	m := o.push("x")
	src := replication.RunSource{Network: network, Log: m.Log, Space: space, Origin: &o.gen.Origin, From: m.From}
	run, err := replication.VerifyRun(src, m.Data)
	if err != nil {
		n.t.Fatal(err)
	}
	done := make(chan replication.IngestResult, 1)
	n.store.Ingest(0, run, func(r replication.IngestResult) { done <- r })
	if r := <-done; r.Code != replication.Committed {
		n.t.Fatalf("%s: %v", r.Code, r.Err)
	}
}

// manyOrigins are n origins with an own log each.
func manyOrigins(n int) []*origin {
	all := make([]*origin, n)
	for i := range all {
		all[i] = newOrigin(byte(i))
		binary.BigEndian.PutUint32(all[i].gen.Epoch[4:], uint32(i))
		all[i].log = all[i].gen.LogID()
	}
	return all
}

// TestFrontierFollowsTheStore: the frontier that is kept for all sessions is that of
// the store after any appends, runs and cuts, without a pass over all logs.
func TestFrontierFollowsTheStore(t *testing.T) {
	a := newNode(t, "A")
	a.r.Close(within(t))
	store := &counted{Store: a.store}
	a.start(store)
	rng := rand.New(rand.NewPCG(1, 2))
	origins := manyOrigins(40)
	check := func(what string) {
		t.Helper()
		if got, want := a.r.Frontier(space).Root(), replication.FrontierRoot(entriesOf(a.store)); got != want {
			t.Fatalf("after %s the root is %.8s, that of the store %.8s", what, got, want)
		}
	}
	check("nothing")
	for range 300 {
		switch o := origins[rng.IntN(len(origins))]; rng.IntN(10) {
		case 0:
			a.append(1, 10)
			check("an append")
		case 1:
			a.restrict(cutAt(o.log, replication.Position{Seq: uint64(rng.IntN(3)), Hash: replication.Hash{1}}))
			check("a cut")
			a.restrict(nil)
		case 2:
			check("several")
		default:
			a.ingest(o)
		}
	}
	check("all")
	store.looks.Store(0)
	a.ingest(origins[0])
	if a.r.Frontier(space); store.looks.Load() != 0 {
		t.Error("after one more block it looks at all logs")
	}
}

func entriesOf(s replication.Store) (all []replication.FrontierEntry) {
	if c, ok := s.(*counted); ok {
		s = c.Store
	}
	for _, l := range s.Logs(space) {
		all = append(all, l.Entry())
	}
	return all
}

// TestLevelsAndTheWholeFrontierBothConverge: two nodes that go down the levels state
// little more than what differs; a node of before, which does not, is sent nothing
// that it does not know, and all is exchanged.
func TestLevelsAndTheWholeFrontierBothConverge(t *testing.T) {
	for name, levels := range map[string]bool{"levels": true, "whole": false} {
		t.Run(name, func(t *testing.T) {
			a, b := newNode(t, "A"), newNode(t, "B")
			for i, o := range manyOrigins(150) {
				at := o.pos
				a.ingest(o)
				switch i % 50 {
				case 0: // unknown to the other
				case 1: // ahead of it
					o.pos, o.hlc = at, o.hlc-1
					b.ingest(o)
					a.ingest(o)
				default:
					o.pos, o.hlc = at, o.hlc-1
					b.ingest(o)
				}
			}
			ca, cb := newConns()
			var entries, asked atomic.Int64
			watch := func(m replication.Message) []replication.Message {
				switch m := m.(type) {
				case *replication.FrontierDigest:
					if m.Levels {
						asked.Add(1)
					}
				case *replication.FrontierOpen:
					asked.Add(1)
				case *replication.FrontierDiff:
					entries.Add(int64(len(m.Entries)))
					asked.Add(int64(len(m.Nodes)))
				}
				return []replication.Message{m}
			}
			ca.out.tamper, cb.out.tamper = watch, watch
			attach := func(n, to *node, c *conn) {
				c.account = n.r.Budget().Open()
				info := to.info()
				info.Levels = levels
				if _, err := n.r.Attach(info, c); err != nil {
					t.Fatal(err)
				}
			}
			attach(a, b, ca)
			attach(b, a, cb)
			arrives(t, a, b)
			if err := a.r.WaitSynced(within(t), 1, nil); err != nil {
				t.Fatal(err)
			}
			switch n := entries.Load(); {
			case levels && (n == 0 || n > 60):
				t.Errorf("%d entries are stated where 6 logs differ", n)
			case !levels && asked.Load() > 0:
				t.Error("a node of before is sent what it does not know")
			case !levels && n < 140: // of one side at least: the other may be in step before it asks
				t.Errorf("%d entries are stated: the test is not of the whole frontier", n)
			}
		})
	}
}

// TestLooksAtManyLogsAreCounted: with 50,000 logs few questions are answered that make
// this node show them all, by whatever way they are asked.
func TestLooksAtManyLogsAreCounted(t *testing.T) {
	all := replication.ChildSet{}
	for i := range 256 {
		all.Add(byte(i))
	}
	for name, next := range map[string]func(i int) replication.Message{
		"the whole": func(i int) replication.Message {
			return &replication.FrontierDigest{Space: space, Round: uint64(i + 1), Digest: replication.Hash{9}, Logs: 1 << 20}
		},
		"whole nodes": func(i int) replication.Message {
			return &replication.FrontierOpen{Space: space, Round: 1, Step: uint64(i + 1), Whole: all}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newNode(t, "A", func(o *replicator.Options) { o.QueueBytes = 1 << 30 })
				a.r.Close(within(t))
				store := &counted{Store: a.store, logs: 50_000}
				a.start(store)
				bad := play(a, "evil")
				var shown atomic.Int64
				bad.c.in.set(func() {
					bad.c.in.tamper = func(m replication.Message) []replication.Message {
						if m, ok := m.(*replication.FrontierDiff); ok {
							shown.Add(int64(len(m.Entries)))
						}
						return nil
					}
				})
				said := bad.flood(next)
				time.Sleep(4 * time.Second)
				// Ten times at once and once a second.
				if n := shown.Load() / 50_000; n < 8 || n > 20 {
					t.Errorf("all is shown %d times for %d questions", n, said.Load())
				}
				if n := store.looks.Load(); n != 1 {
					t.Errorf("it looks %d times at all logs", n)
				}
				bad.c.cut()
			})
		})
	}
}
