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
