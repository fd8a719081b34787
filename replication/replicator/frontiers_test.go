package replicator_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/replicator"
)

// TestFrontiersThatNeverEnd: peers that begin to state large frontiers and do not come
// to the end make a node hold a bounded sum; who goes beyond is told that it is busy,
// and the others go on.
func TestFrontiersThatNeverEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "A")
		honest := play(n, "honest")
		honest.settle()
		busy, live := 0, 0
		for i := range 8 {
			s := play(n, string(rune('a'+i)))
			q := hear[*replication.FrontierDigest](s)
			s.say(&replication.FrontierDigest{Space: space, Round: q.Round, Reply: true, Digest: replication.Hash{1}, Logs: 1 << 20})
			for part := uint64(0); part*replication.MaxDiffEntries+replication.MaxDiffEntries <= replication.MaxFrontierEntries && alive(s); part++ {
				if s.c.Write(&replication.FrontierDiff{Space: space, Round: q.Round, Part: part, Entries: manyEntries(i, part)}) != nil {
					break
				}
			}
			time.Sleep(time.Second) // of virtual time
			synctest.Wait()
			var end *replicator.EndError
			switch {
			case alive(s):
				live++
			case errors.As(s.peer.Err(), &end) && end.Code == replication.CodeBusy && !end.FromPeer:
				busy++
			default:
				t.Fatalf("the session ended: %v", s.peer.Err())
			}
		}
		if live != 2 || busy != 6 {
			t.Errorf("%d sessions live and %d were busy, want 2 and 6", live, busy)
		}
		if !alive(honest) {
			t.Errorf("the honest session ended: %v", honest.peer.Err())
		}
	})
}

func alive(s *script) bool {
	select {
	case <-s.peer.Done():
		return false
	default:
		return true
	}
}

func manyEntries(peer int, part uint64) []replication.FrontierEntry {
	out := make([]replication.FrontierEntry, replication.MaxDiffEntries)
	for i := range out {
		out[i].Pos = replication.Position{Seq: 1, Hash: replication.Hash{1}}
		binary.BigEndian.PutUint64(out[i].Log[:], uint64(peer)<<48|part<<16|uint64(i))
	}
	return out
}

// lateStore tells of what is durable only when it is let.
type lateStore struct {
	replication.Store
	let chan struct{} // nil: at once
}

func (s *lateStore) Subscribe(fn func(replication.Advance)) (cancel func()) {
	return s.Store.Subscribe(func(a replication.Advance) {
		if s.let != nil {
			<-s.let
		}
		fn(a)
	})
}

// TestCursorKnowsOnlyWhatWasTold: a write that the store has, and of which the sessions
// have not heard yet, is not taken for one that the peer holds.
func TestCursorKnowsOnlyWhatWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "A")
		if err := n.r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		store := &lateStore{Store: n.store}
		n.start(store)
		at := n.append(1, 8)
		c := play(n, "C")
		c.settle(replication.FrontierEntry{Log: at.First.Log, Pos: at.Pos})
		n.append(1, 8)
		held := hear[*replication.WalPush](c).End
		c.ack(at.First.Log, held)
		synctest.Wait()

		store.let = make(chan struct{})
		written := make(chan struct{})
		go func() {
			defer close(written)
			if _, err := n.store.Append(t.Context(), replication.Batch{Space: space, Ops: makeOps(1, 8)}); err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(time.Second) // until the cursor was compared
		cursor, err := n.store.LoadCursor(c.peer.Info().Key, c.peer.Info().Instance)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range cursor {
			if e.Log == at.First.Log && e.Pos != held {
				t.Errorf("the peer stated %d, and %d is kept", held.Seq, e.Pos.Seq)
			}
		}
		close(store.let)
		<-written
	})
}
