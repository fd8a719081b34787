package kv

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"vixp2p/replication"
)

// overlay holds this node's own keyed operations between the committer and the
// view: staged by Resolve, visible to reads from Settle on, gone once applied
// (design 5.3). It is what lets a program read its own writes at once and lets
// an operation name one of the same block.
//
// A reader copies what it needs from here before it opens its snapshot, and then
// skips what the snapshot has applied: the other way round an operation that is
// applied in between would be in neither.
type overlay struct {
	limit int // bytes above which admit waits
	// some is how many keys there are. It may be read without the lock.
	some atomic.Int64

	// mu guards what follows. It is held for moments only.
	mu   sync.Mutex
	keys map[string][]*overlayOp // by space and key, in commit order
	logs map[replication.LogID]*overlayLog
	size int // bytes of all operations
	room chan struct{}
}

// overlayOp is one operation. It does not change once it is staged.
type overlayOp struct {
	at         string // space and key
	del        bool
	sibling    // value never apart
	supersedes []replication.Dot
}

// overlayLog is the staged and settled operations of one log.
type overlayLog struct {
	ops []*overlayOp // ascending by seq
	// settled: operations up to this seq are durable.
	settled uint64
}

// overlayOpCost is what an operation holds in memory beside its bytes.
const overlayOpCost = 256

func (o *overlayOp) size() int {
	return overlayOpCost + len(o.at) + len(o.value) + len(o.supersedes)*dotLen
}

func newOverlay(limit int) *overlay {
	return &overlay{limit: limit, keys: map[string][]*overlayOp{}, logs: map[replication.LogID]*overlayLog{}, room: make(chan struct{})}
}

func overlayAt(space replication.SpaceID, key []byte) string { return string(space[:]) + string(key) }

// admit waits, by wait, until the overlay is below its limit.
func (v *overlay) admit(ctx context.Context, wait func(context.Context, <-chan struct{}) error) error {
	for {
		v.mu.Lock()
		room, ok := v.room, v.size < v.limit
		v.mu.Unlock()
		if ok {
			return nil
		}
		if err := wait(ctx, room); err != nil {
			return err
		}
	}
}

// stage adds resolved operations of one log, ascending.
func (v *overlay) stage(log replication.LogID, ops []*overlayOp) {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.logs[log]
	if l == nil {
		l = &overlayLog{}
		v.logs[log] = l
	}
	l.ops = append(l.ops, ops...)
	for _, o := range ops {
		v.keys[o.at] = append(v.keys[o.at], o)
		v.size += o.size()
	}
	v.some.Store(int64(len(v.keys)))
}

// settle makes the operations of a log up to a seq visible to reads.
func (v *overlay) settle(log replication.LogID, through uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l := v.logs[log]; l != nil {
		l.settled = max(l.settled, through)
	}
}

// drop forgets the operations of a log up to a seq: they are applied.
func (v *overlay) drop(log replication.LogID, through uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.logs[log]
	if l == nil {
		return
	}
	n := 0
	for n < len(l.ops) && l.ops[n].dot.Seq <= through {
		v.removeLocked(l.ops[n])
		n++
	}
	v.keepLocked(log, l, slices.Delete(l.ops, 0, n))
}

// discard forgets the operations of a log from a seq on: they never happened.
func (v *overlay) discard(log replication.LogID, from uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.logs[log]
	if l == nil {
		return
	}
	n := len(l.ops)
	for n > 0 && l.ops[n-1].dot.Seq >= from {
		n--
		v.removeLocked(l.ops[n])
	}
	v.keepLocked(log, l, slices.Delete(l.ops, n, len(l.ops)))
}

func (v *overlay) keepLocked(log replication.LogID, l *overlayLog, ops []*overlayOp) {
	l.ops = ops
	if len(ops) == 0 {
		delete(v.logs, log)
	}
	if v.size < v.limit {
		close(v.room)
		v.room = make(chan struct{})
	}
}

func (v *overlay) removeLocked(o *overlayOp) {
	v.size -= o.size()
	ops := v.keys[o.at]
	if i := slices.Index(ops, o); i >= 0 {
		ops = slices.Delete(slices.Clone(ops), i, i+1) // readers may hold the old one
	}
	if len(ops) == 0 {
		delete(v.keys, o.at)
	} else {
		v.keys[o.at] = ops
	}
	v.some.Store(int64(len(v.keys)))
}

// of returns the operations on a key, in commit order; with staged also those
// that are not durable yet.
func (v *overlay) of(space replication.SpaceID, key []byte, staged bool) []*overlayOp {
	if v.some.Load() == 0 {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.visibleLocked(v.keys[overlayAt(space, key)], staged)
}

func (v *overlay) visibleLocked(ops []*overlayOp, staged bool) []*overlayOp {
	if staged {
		return slices.Clone(ops)
	}
	var out []*overlayOp
	for _, o := range ops {
		if l := v.logs[o.dot.Log]; l != nil && o.dot.Seq <= l.settled {
			out = append(out, o)
		}
	}
	return out
}

// keyOps is the durable operations on one key.
type keyOps struct {
	key []byte
	ops []*overlayOp
}

// under returns the durable operations on the keys with a prefix, by key.
func (v *overlay) under(space replication.SpaceID, prefix []byte) []keyOps {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []keyOps
	at := overlayAt(space, prefix)
	for k, ops := range v.keys {
		if !strings.HasPrefix(k, at) {
			continue
		}
		if ops = v.visibleLocked(ops, false); len(ops) > 0 {
			out = append(out, keyOps{[]byte(k[spaceLen:]), ops})
		}
	}
	slices.SortFunc(out, func(a, b keyOps) int { return bytes.Compare(a.key, b.key) })
	return out
}
