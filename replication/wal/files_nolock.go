//go:build !unix && !windows

package wal

import "os"

// lockExclusive has no counterpart here; Badger's own lock file guards.
func lockExclusive(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
