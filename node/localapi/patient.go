package localapi

import (
	"net/http"
	"time"
)

// stallTimeout is how long an answer waits for a client that reads nothing: a
// person may look at a page of `ls | less` for a while, but not hold a place, and
// what the answer is made from, for ever.
const stallTimeout = 5 * time.Minute

// patient is an answer each part of which must be written within a time. How long
// it takes as a whole, or is silent in between, does not matter.
type patient struct {
	http.ResponseWriter
	stall time.Duration
}

// newPatient begins an answer. The deadline of the one before, on the same
// connection, is gone.
func newPatient(w http.ResponseWriter, stall time.Duration) patient {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // a recorder of tests has none
	return patient{w, stall}
}

func (p patient) extend() {
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(p.stall))
}

func (p patient) Write(b []byte) (int, error) {
	p.extend()
	return p.ResponseWriter.Write(b)
}

// FlushError is what http.ResponseController calls.
func (p patient) FlushError() error {
	p.extend()
	return http.NewResponseController(p.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController too.
func (p patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }
