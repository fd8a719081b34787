package wal

import (
	"encoding/binary"
	"hash/crc32"
	"os"
)

// maxTableBlock is more than a block of a table can have: Badger ends it after 4
// KiB, and the last entry is a key and less than valueThreshold.
const maxTableBlock = 256 << 10

// scanTable calls visit for the entries of the blocks of a table whose footer or
// index is damaged, and returns how many blocks that were. Without an index only
// the blocks tell where they end, so it goes from one to the next, and stops where
// none ends for certain.
func scanTable(path string, visit func(key []byte, meta byte, value []byte) error) (blocks int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, maxTableBlock)
	for off := int64(0); ; blocks++ {
		n, _ := f.ReadAt(buf, off) // what cannot be read is not there
		data, length := firstBlock(buf[:n])
		if length == 0 {
			return blocks, nil
		}
		var fnErr error
		_ = guard(func() error { // its own checksum holds; an entry that cannot be read is none
			blockEntries(data, func(key []byte, meta byte, value []byte) {
				if fnErr == nil {
					fnErr = visit(key, meta, value)
				}
			})
			return nil
		})
		if fnErr != nil {
			return blocks, fnErr
		}
		off += int64(length)
	}
}

// firstBlock finds the block with which b begins: its entries and offsets, as
// tableFile.block returns them, and its length; 0 if there is none for certain. A
// value may hold what looks like the end of a block, also on purpose; the checksum,
// which covers all from the block's start, speaks against it, and where it holds at
// two places neither is believed.
func firstBlock(b []byte) (data []byte, length int) {
	var sum uint32 // of the first summed bytes
	summed := 0
	for end := 4; end <= len(b); end++ {
		if b[end-4]|b[end-3]|b[end-2] != 0 || b[end-1] > 16 {
			continue // not the length of a checksum
		}
		at := end - 4 - int(b[end-1])
		if at < 4 || !endsInOffsets(b[:at]) {
			continue
		}
		want, ok := decodeChecksum(b[at : end-4])
		if !ok {
			continue
		}
		if at < summed {
			sum, summed = 0, 0
		}
		sum, summed = crc32.Update(sum, castagnoli, b[summed:at]), at
		if sum != want {
			continue
		}
		if length > 0 {
			return nil, 0
		}
		data, length = b[:at], end
	}
	return data, length
}

// endsInOffsets tells whether data ends as a block's entries do: with the offsets
// of all entries, which ascend from 0, and their count.
func endsInOffsets(data []byte) bool {
	rest := len(data) - 4
	n := binary.BigEndian.Uint32(data[rest:])
	if n == 0 || uint64(n) > uint64(rest)/4 {
		return false
	}
	entries := rest - 4*int(n)
	last := -1
	for i := entries; i < rest; i += 4 {
		at := int(binary.LittleEndian.Uint32(data[i:]))
		if at <= last || at >= entries || last < 0 && at != 0 {
			return false
		}
		last = at
	}
	return true
}
