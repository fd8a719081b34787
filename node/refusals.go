package node

import (
	"maps"
	"sync"
	"time"
)

// refusalLog remembers what was logged in the last minute.
type refusalLog struct {
	mu      sync.Mutex // guards below
	last    map[string]time.Time
	leftOut int // since it was last told
}

const (
	refusalPause = time.Minute
	// maxRefusals bounds the lines of one refusalPause: peer IDs cost nothing.
	maxRefusals = 256
)

// fresh tells whether a line with that key is due.
func (r *refusalLog) fresh(key string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.last[key]; ok && now.Sub(at) < refusalPause {
		return false
	}
	if len(r.last) >= maxRefusals {
		maps.DeleteFunc(r.last, func(_ string, at time.Time) bool { return now.Sub(at) >= refusalPause })
	}
	if len(r.last) >= maxRefusals {
		r.leftOut++
		return false
	}
	if r.last == nil {
		r.last = map[string]time.Time{}
	}
	r.last[key] = now
	return true
}

// takeLeftOut is how many lines were left out because there were too many others,
// since the last call.
func (r *refusalLog) takeLeftOut() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.leftOut
	r.leftOut = 0
	return n
}
