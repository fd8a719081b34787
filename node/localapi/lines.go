package localapi

import (
	"bufio"
	"net/http"
	"sync"
	"time"
)

// flushAfter is how long a line may wait in the buffer: long enough to send many
// in one write, short enough for a person who watches.
const flushAfter = 5 * time.Millisecond

// lineWriter sends lines of an answer soon, but not each in a write of its own.
type lineWriter struct {
	mu      sync.Mutex // guards the rest; held while writing
	w       http.ResponseWriter
	buf     *bufio.Writer
	timer   *time.Timer // runs while something waits in buf
	started bool        // the header is out
	closed  bool
	err     error // of an earlier write: the client is gone
}

func newLineWriter(w http.ResponseWriter) *lineWriter {
	l := &lineWriter{w: w, buf: bufio.NewWriterSize(w, 32<<10)}
	l.timer = time.AfterFunc(time.Hour, l.flush)
	l.timer.Stop()
	return l
}

func (l *lineWriter) beginLocked() {
	if !l.started {
		l.started = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.WriteHeader(http.StatusOK)
	}
}

func (l *lineWriter) begun() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.started
}

func (l *lineWriter) write(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.beginLocked()
	if l.buf.Buffered() == 0 {
		l.timer.Reset(flushAfter)
	}
	if _, err := l.buf.Write(line); err != nil {
		l.err = err
	}
	return l.err
}

func (l *lineWriter) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushLocked()
}

func (l *lineWriter) flushLocked() {
	if l.closed || l.err != nil || !l.started {
		return
	}
	if l.err = l.buf.Flush(); l.err == nil {
		l.err = http.NewResponseController(l.w).Flush()
	}
}

// finish sends what is left, and the header if there was no line.
func (l *lineWriter) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beginLocked()
	l.flushLocked()
}

// close makes sure that the timer touches the answer no more.
func (l *lineWriter) close() {
	l.timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}
