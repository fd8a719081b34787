package wal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	r "vixp2p/replication"
)

// storeFormat is the version of the directory's layout that this code writes.
// It is written to a file of its own, so that an older program can refuse a
// newer directory before it touches the database.
//
// 2: an entry of the arrival index may stand for several blocks. A directory of format
// 1, where each has its own, is read as it is and marked anew.
const storeFormat = 2

const formatName = "FORMAT"

func formatLine(version uint64) string {
	line := fmt.Sprintf("vix-store %d", version)
	return fmt.Sprintf("%s %08x\n", line, crc32.Checksum([]byte(line), castagnoli))
}

// checkFormat refuses a newer directory and marks a new one. A damaged or
// missing mark is written anew; note tells of it.
func checkFormat(dir string) (note string, err error) {
	path := filepath.Join(dir, formatName)
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Join(dir, dbDir)); err == nil {
			note = "the file " + formatName + " was missing"
		}
	case err != nil:
		return "", fmt.Errorf("cannot read the format of the data directory: %w", err)
	default:
		var version uint64
		var sum uint32
		n, _ := fmt.Sscanf(string(b), "vix-store %d %08x\n", &version, &sum)
		if n == 2 && string(b) == formatLine(version) {
			if version > storeFormat {
				return "", &r.VersionError{What: "the store in " + dir + " has format", Got: version, Want: storeFormat}
			}
			if version == storeFormat {
				return "", nil
			}
			break // an older one
		}
		note = "the file " + formatName + " was damaged"
	}
	if err := writeDurably(path, []byte(formatLine(storeFormat))); err != nil {
		return "", fmt.Errorf("cannot mark the data directory: %w", err)
	}
	return note, nil
}
