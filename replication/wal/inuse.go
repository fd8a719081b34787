package wal

import (
	"errors"
	"os"
	"path/filepath"
)

// InUse tells whether a process has the store of a directory open. To ask takes
// the lock for a moment, so that an Open at that moment gets ErrLocked. It is
// always false where the system has no locks that end with a process.
func InUse(dir string) bool {
	path := filepath.Join(dir, "lock")
	if _, err := os.Stat(path); err != nil {
		return false // and makes no file
	}
	lock, err := lockFile(path)
	if err != nil {
		return errors.Is(err, errHeld)
	}
	_ = lock.Close()
	return false
}
