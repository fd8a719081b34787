package kv

import (
	"fmt"
	"math"
	"sync/atomic"
	"testing"

	"vixp2p/replication"
)

// TestOwnWritesLeaveTheOverlay: own writes that are committed together with the first part
// of somebody else's block leave the overlay with its last part; else writers would wait
// for room for ever.
func TestOwnWritesLeaveTheOverlay(t *testing.T) {
	s, a := newStore(t, 1), newAuthor(2, 1)
	var held atomic.Bool
	applying, goOn := make(chan struct{}), make(chan struct{})
	v := openViewWith(t, Options{
		Dir: tempDir(t), Store: s, OverlayBytes: 500,
		maxBatch: 2*maxInline*(inlineValue+256) + 4<<10, // a block of 64 keys is committed in parts
		FreeBytes: func(string) (uint64, error) {
			if held.CompareAndSwap(true, false) {
				close(applying)
				<-goOn
			}
			return math.MaxUint64, nil
		},
	})
	write(t, s, v, put("first", "1"))
	settled(t, s, v)
	var theirs []replication.Op
	for i := range 64 {
		theirs = append(theirs, put(fmt.Sprint("theirs ", i), "1"))
	}
	held.Store(true)
	feedOps(t, s, a, []replication.Op{put("theirs", "1")})
	<-applying
	write(t, s, v, put("own 1", "1"))
	write(t, s, v, put("own 2", "1")) // fills the overlay
	b := newAuthor(3, 1)
	feedOps(t, s, b, theirs)
	close(goOn)
	settled(t, s, v)
	write(t, s, v, put("own 3", "1"))
}

// TestRecordRoom: the room for a record is enough, so that nothing is copied, and little
// more: what the cache keeps is counted by the length.
func TestRecordRoom(t *testing.T) {
	for _, n := range []int{1, 2, maxInline} {
		for _, size := range []int{0, 1, 100, inlineValue} {
			k := &keyState{rec: keyRecord{n: uint64(n)}}
			for i := range n {
				s := sibling{dot: replication.Dot{Seq: uint64(i + 1)}, value: make([]byte, size)}
				if i%2 == 1 {
					s = sibling{dot: replication.Dot{Seq: math.MaxUint64}, apart: true, size: math.MaxUint64}
				}
				k.rec.sibs = append(k.rec.sibs, s)
			}
			got := len(appendKeyRecord(nil, &k.rec)) + crcLen
			if room := k.size(); room < got || room > got+16+24*n {
				t.Errorf("room of %d bytes for %d siblings with %d of value: %d are taken", room, n, size, got)
			}
		}
	}
}
