package replicator

import (
	"log/slog"
	"sync"
	"time"
)

const (
	// warningBurst warnings come through at once, and then one per warningPause:
	// what a peer can cause with every message must not fill the log.
	warningBurst = 10
	warningPause = 10 * time.Second
)

// warnings lets through as many warnings as a person can use, and tells how many
// it left out.
type warnings struct {
	mu      sync.Mutex // guards below
	used    int        // of the burst
	since   time.Time  // of the oldest that is counted in used
	leftOut int
}

// warn logs a warning unless there were too many.
func (w *warnings) warn(log *slog.Logger, msg string, args ...any) {
	now := time.Now()
	w.mu.Lock()
	if n := int(now.Sub(w.since) / warningPause); n > 0 {
		w.used = max(0, w.used-n)
		w.since = now
	}
	if w.used >= warningBurst {
		w.leftOut++
		w.mu.Unlock()
		return
	}
	w.used++
	leftOut := w.leftOut
	w.leftOut = 0
	w.mu.Unlock()
	if leftOut > 0 {
		args = append(args, "left_out_before", leftOut)
	}
	log.Warn(msg, args...)
}

// end tells how many were left out since the last one.
func (w *warnings) end(log *slog.Logger) {
	w.mu.Lock()
	leftOut := w.leftOut
	w.leftOut = 0
	w.mu.Unlock()
	if leftOut > 0 {
		log.Warn("further warnings about this peer were left out", "count", leftOut)
	}
}

// warn logs a warning that the peer can cause.
func (p *Peer) warn(msg string, args ...any) { p.warnings.warn(p.log, msg, args...) }
