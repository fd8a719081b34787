package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	r "vixp2p/replication"
)

// Hold takes the lock of a directory without opening the store in it, for a
// program that uses what lies beside the store. It makes the directory if it is
// not there. ErrLocked: another process has it.
func Hold(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, accessProblem(filepath.Dir(dir), fmt.Errorf("cannot make the data directory: %w", err))
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	switch {
	case errors.Is(err, errHeld):
		return nil, fmt.Errorf("%w: another process has %s open, or this one already: close that, or use another data directory", r.ErrLocked, dir)
	case err != nil:
		return nil, accessProblem(dir, fmt.Errorf("cannot lock the data directory: %w", err))
	}
	return lock, nil
}
