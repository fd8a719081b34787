//go:build unix

package kv

import (
	"io/fs"
	"syscall"
)

// stampOf reads a file's stamp. No user can set a ctime.
func stampOf(fi fs.FileInfo) fileStamp {
	s := fileStamp{Modified: fi.ModTime().UnixNano()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		s.Changed, s.Inode = ctimeOf(st), uint64(st.Ino)
	}
	return s
}
