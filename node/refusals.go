package node

import (
	"sync"
	"time"
)

// refusalLog remembers what was logged in the last minute.
type refusalLog struct {
	mu   sync.Mutex // guards below
	last map[string]time.Time
}

const (
	refusalPause = time.Minute
	maxRefusals  = 256
)

func (r *refusalLog) fresh(key string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.last[key]; ok && now.Sub(at) < refusalPause {
		return false
	}
	if len(r.last) >= maxRefusals || r.last == nil {
		r.last = map[string]time.Time{}
	}
	r.last[key] = now
	return true
}
