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
