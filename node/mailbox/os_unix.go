//go:build linux || darwin || freebsd

package mailbox

import (
	"errors"
	"os"
	"syscall"
)

// freeBytes is what an unprivileged user can still write where path is.
func freeBytes(path string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}

// syncDir makes the names in a directory durable. A file system that does not know
// the request (EINVAL) makes them durable by itself or not at all.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close() // it was only read
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
