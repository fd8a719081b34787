//go:build !unix

package kv

import "io/fs"

// stampOf reads a file's stamp.
func stampOf(fi fs.FileInfo) fileStamp { return fileStamp{Modified: fi.ModTime().UnixNano()} }
