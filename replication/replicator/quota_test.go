package replicator_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
)

// counted is a store that counts looks at all of its logs, and pretends that there
// are many.
type counted struct {
	replication.Store
	looks atomic.Int64
	logs  int
}

func (s *counted) Logs(id replication.SpaceID) []replication.LogInfo {
	s.looks.Add(1)
	logs := s.Store.Logs(id)
	for i := len(logs); i < s.logs; i++ {
		l := replication.LogInfo{Space: id, Tip: replication.Position{Seq: 1, Hash: replication.Hash{1}}}
		l.Log[0], l.Log[1], l.Log[2], l.Log[3] = 1, byte(i), byte(i>>8), byte(i>>16)
		logs = append(logs, l)
	}
	return logs
}

// flood says one message after the other until the test is over, and counts those
// that were taken.
func (s *script) flood(next func(i int) replication.Message) (said *atomic.Int64) {
	said = new(atomic.Int64)
	s.c.out.set(func() { s.c.out.limit = 1000 })
	go func() {
		for i := 0; s.c.Write(next(i)) == nil; i++ {
			said.Add(1)
		}
	}()
	go func() {
		for {
			if _, _, err := s.c.Read(); err != nil {
				return
			}
		}
	}()
	return said
}

// TestAFloodOfQuestionsIsReadSlowly: a peer that does nothing but ask has its burst,
// and then its rate. Its session lives, and another peer is served at once.
func TestAFloodOfQuestionsIsReadSlowly(t *testing.T) {
	for name, next := range map[string]func(i int) replication.Message{
		"pings": func(i int) replication.Message { return &replication.Ping{Nonce: uint64(i)} },
		"questions": func(i int) replication.Message {
			return &replication.FrontierDigest{Space: space, Round: uint64(i + 1), Digest: replication.Hash{9}, Logs: 1 << 20}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, honest := newNode(t, "A"), newNode(t, "B")
				bad := play(a, "evil")
				bad.settle()
				said := bad.flood(next)
				time.Sleep(time.Minute)
				// The burst, a minute's worth, and what lies in the connection's buffers.
				if n := said.Load(); n < 2048+50*100 || n > 2048+60*100+200 {
					t.Errorf("%d were read in a minute", n)
				}
				select {
				case <-bad.peer.Done():
					t.Error("its session has ended: ", bad.peer.Err())
				default:
				}
				began := time.Now()
				connect(a, honest)
				honest.append(5, 10)
				arrives(t, a, honest)
				if d := time.Since(began); d > time.Second {
					t.Errorf("an honest peer waits %s", d)
				}
				bad.c.cut()
			})
		})
	}
}

// TestRunsThatDoNotVerifyCostTheirSender: it is read slowly after a burst.
func TestRunsThatDoNotVerifyCostTheirSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		bad := play(a, "evil")
		bad.settle()
		push := newOrigin(9).push("x")
		push.Data[len(push.Data)-1] ^= 1
		said := bad.flood(func(i int) replication.Message {
			m := *push
			m.Log[0], m.Log[1] = byte(i), byte(i>>8) // each of another log, so that none is a repetition
			return &m
		})
		time.Sleep(time.Minute)
		// 26 are the burst; then the session's own bounds on what waits leave some out
		// unchecked, and one a second comes through.
		if n := said.Load(); n > 3000 {
			t.Errorf("%d were read in a minute", n)
		}
		bad.c.cut()
	})
}

// TestASessionRenewsNoShare: what a peer took in one session is missing in the next.
func TestASessionRenewsNoShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		total := int64(0)
		for range 20 {
			bad := play(a, "evil")
			bad.settle()
			said := bad.flood(func(i int) replication.Message { return &replication.Ping{Nonce: uint64(i)} })
			time.Sleep(time.Second)
			bad.c.cut()
			<-bad.peer.Done()
			total += said.Load()
		}
		// One burst, 20 seconds' worth, and what lies in the buffers of each connection.
		if total > 2048+20*100+20*200 {
			t.Errorf("%d were read in twenty sessions", total)
		}
	})
}

// TestEntriesOfFrontiersAreCounted: a message full of them costs as much as thirty.
func TestEntriesOfFrontiersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, "A")
		bad := play(a, "evil")
		bad.settle()
		entries := make([]replication.FrontierEntry, 120)
		for i := range entries {
			entries[i] = replication.FrontierEntry{Log: replication.LogID{1, byte(i)}, Base: 1, Pos: replication.Position{Seq: 1, Hash: replication.Hash{1}}}
		}
		said := bad.flood(func(i int) replication.Message {
			return &replication.FrontierDiff{Space: space, Round: 1 << 40, Part: uint64(i), Entries: entries}
		})
		time.Sleep(10 * time.Second)
		// The burst, ten seconds' worth, and what lies in the connection's buffers.
		if n := said.Load(); n < (2048+9*100)*100/31 || n > (2048+10*100)*100/31+200 {
			t.Errorf("%d were read in ten seconds", n)
		}
		select {
		case <-bad.peer.Done():
			t.Error("its session has ended: ", bad.peer.Err())
		default:
		}
		bad.c.cut()
	})
}
