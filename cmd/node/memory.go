package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// memoryLimit is how much memory the runtime aims to stay below where GOMEMLIMIT
	// does not say otherwise: several times what a busy node needs, and so that a node
	// under attack stays below 256 MB (test/hostile).
	memoryLimit = 160 << 20
	// memoryRoom is what may be allocated between two collections even if that goes
	// beyond memoryLimit. Badger keeps the buffers of the tables that it writes, mostly
	// not touched since, and they count: while it merges, up to 300 MB are in use of
	// which half is resident. At its limit the runtime would collect a hundred times a
	// second, and take half of the processor time of a loaded node.
	memoryRoom = 32 << 20
	// memoryStep is the least change of the limit: each stops the world for a moment.
	memoryStep = 4 << 20
)

// limitMemory lets the runtime aim to stay below a limit, or as much above what is in
// use as leaves room, until stop is called.
func limitMemory(limit, room int64) (stop func()) {
	before := debug.SetMemoryLimit(limit)
	l := &memoryLimiter{limit: limit, room: room, set: limit}
	l.await()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stopped = true
		debug.SetMemoryLimit(before)
	}
}

// memoryLimiter follows the memory that is in use, from one collection to the next.
type memoryLimiter struct {
	limit, room int64

	mu      sync.Mutex
	set     int64
	stopped bool
}

// await has collected called after the next collection.
func (l *memoryLimiter) await() {
	runtime.AddCleanup(new([16]byte), (*memoryLimiter).collected, l)
}

func (l *memoryLimiter) collected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	want := max(l.limit, int64(live[0].Value.Uint64())+l.room)
	if d := want - l.set; max(d, -d) >= memoryStep || want == l.limit && d != 0 {
		debug.SetMemoryLimit(want)
		l.set = want
	}
	l.await()
}
