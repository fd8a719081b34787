//go:build !linux

package bench

import (
	"io/fs"
	"time"
)

// allocatedBytes is a file's size: what it takes of the disk is not asked here.
func allocatedBytes(fi fs.FileInfo) int64 { return fi.Size() }

func fileSystem(string) string { return "file system not known" }

var errOnlyLinux = &missingError{"measured on Linux only"}

func resident(int) (float64, error) { return 0, errOnlyLinux }

func processorTime(int) (time.Duration, error) { return 0, errOnlyLinux }
