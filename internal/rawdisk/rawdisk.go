// Package rawdisk measures what a disk can do at most for durable writes, as the
// limit that benchmarks compare with.
package rawdisk

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// File is a file that is appended to with an fsync each time: the least that one
// durable write costs.
type File struct{ f *os.File }

// Open makes the file in a directory; Close leaves it there.
func Open(dir string) (*File, error) {
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		return nil, err
	}
	return &File{f}, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// Append makes n appends of size bytes and returns what each took with its fsync.
func (f *File) Append(ctx context.Context, size, n int) ([]time.Duration, error) {
	buf := make([]byte, size)
	took := make([]time.Duration, 0, n)
	for range n {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		start := time.Now()
		if _, err := f.f.Write(buf); err != nil {
			return nil, err
		}
		if err := f.f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// Rate is how many appends of size bytes a second takes, as n of them say.
func (f *File) Rate(ctx context.Context, size, n int) (float64, error) {
	start := time.Now()
	_, err := f.Append(ctx, size, n)
	return float64(n) / time.Since(start).Seconds(), err
}
