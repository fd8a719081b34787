package node

import (
	"path/filepath"

	"vixp2p/replication/wal"
)

// DataDirInUse tells whether a process, a node or a command, has a data directory
// open. An Open at the very moment of the question gets ErrLocked.
func DataDirInUse(dir string) bool { return wal.InUse(filepath.Join(dir, logDir)) }
