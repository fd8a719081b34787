package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// TestMemoryLimitLeavesRoom: what is in use raises the limit, so that the runtime does
// not collect without end, and it falls again with it.
func TestMemoryLimitLeavesRoom(t *testing.T) {
	const limit, room, used = 64 << 20, 32 << 20, 128 << 20
	before := debug.SetMemoryLimit(-1)
	stop := limitMemory(limit, room)
	await := func(what string, cond func(now int64) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !cond(debug.SetMemoryLimit(-1)); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the limit is %d MiB", what, debug.SetMemoryLimit(-1)>>20)
			}
			runtime.GC()
		}
	}
	if now := debug.SetMemoryLimit(-1); now != limit {
		t.Fatalf("the limit is %d at first, want %d", now, limit)
	}
	held := make([]byte, used)
	await("much is in use", func(now int64) bool { return now >= used+room && now < used+room+limit })
	runtime.KeepAlive(held)
	await("it was given back", func(now int64) bool { return now == limit })
	stop()
	if now := debug.SetMemoryLimit(math.MaxInt64); now != before {
		t.Errorf("the limit is %d in the end, it was %d", now, before)
	}
	debug.SetMemoryLimit(before)
}
