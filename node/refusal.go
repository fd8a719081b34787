package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"vixp2p/replication"
)

// refusedFile names, in hex, the certificate with which members refused this node as
// revoked last; there is none where they let it in.
const refusedFile = "refused"

// refusal is what this node knows of a revocation of itself by hearsay: since the last
// session began a member has said so. It lasts over restarts, as long as the node has
// the same certificate.
type refusal struct {
	path string
	log  *slog.Logger
	is   atomic.Bool
	mu   sync.Mutex // guards the file, and changes of is
}

// openRefusal reads what a data directory says of a node that shows a certificate.
func openRefusal(dir string, shown replication.Hash, log *slog.Logger) *refusal {
	r := &refusal{path: filepath.Join(dir, refusedFile), log: log}
	text, err := os.ReadFile(r.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("whether members refuse this node is not known until it meets one", "file", r.path, "err", err)
	}
	r.is.Store(err == nil && strings.TrimSpace(string(text)) == shown.String())
	if err == nil && !r.is.Load() && shown != (replication.Hash{}) {
		_ = os.Remove(r.path) // of an earlier certificate: it says nothing any more
	}
	return r
}

// set notes that a member refuses the certificate.
func (r *refusal) set(shown replication.Hash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.is.Swap(true) {
		return
	}
	if err := replaceFile(r.path, []byte(shown.String()+"\n")); err != nil {
		r.log.Warn("that members refuse this node is not remembered for the next start", "err", err)
	}
}

// clear notes that a member lets this node in.
func (r *refusal) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.is.Swap(false) {
		return
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("that members let this node in again is not remembered for the next start", "err", err)
	}
}
