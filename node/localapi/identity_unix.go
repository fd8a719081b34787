//go:build unix

package localapi

import (
	"fmt"
	"os"
	"syscall"
)

// directoryID names a directory on this machine: whatever its path, the same as
// long as it is the same, and another for each copy of it.
func directoryID(dir string) (string, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("inode %d %d", st.Dev, st.Ino), nil
	}
	return directoryPath(dir)
}
