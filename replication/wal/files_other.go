//go:build !unix

package wal

import (
	"io/fs"
	"os"
)

// proofOf knows nothing here: every open starts a new epoch, as there is no boot
// id either, but a copy keeps the instance of its original.
func proofOf(fs.FileInfo) fileProof { return fileProof{} }

func bootID() string { return "" }

// ownerOf is not known here.
func ownerOf(fs.FileInfo) string { return "" }

// syncDir has no counterpart here.
func syncDir(string) error { return nil }

// freeBytes is not known here.
func freeBytes(string) (uint64, error) { return ^uint64(0), nil }

// lockFile makes a file that the system removes with the process; Badger's own
// lock is the second guard.
func lockFile(path string) (*os.File, error) {
	return lockExclusive(path)
}
