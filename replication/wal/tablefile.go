package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4/fb"
	"google.golang.org/protobuf/encoding/protowire"
)

// A table as Badger writes it, without compression and encryption:
//
//	+--------+-----+-------+---------+----------+----------+
//	| block  | ... | index | index   | checksum | checksum |
//	|        |     |       | length 4|          | length 4 |
//	+--------+-----+-------+---------+----------+----------+
//
//	block: entries | offsets 4 each | their count 4 | checksum | its length 4
//	entry: overlap 2 | rest 2 | rest of the key | meta | user meta | expires | value

// tableFile is a table whose footer and index are whole.
type tableFile struct {
	f      *os.File
	path   string
	blocks []tableBlock
}

type tableBlock struct{ off, len int64 }

// openTable checks the footer and the index.
func openTable(path string) (t *tableFile, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	t = &tableFile{f: f, path: path}
	if err := guard(t.readIndex); err != nil {
		_ = f.Close()
		return nil, err
	}
	return t, nil
}

func (t *tableFile) close() { _ = t.f.Close() }

var errFooter = problem("the table's footer is damaged")

func (t *tableFile) readIndex() error {
	fi, err := t.f.Stat()
	if err != nil {
		return err
	}
	end := fi.Size()
	length := func() (int64, error) {
		b, err := t.read(end-4, 4)
		if err != nil {
			return 0, err
		}
		end -= 4
		return int64(binary.BigEndian.Uint32(b)), nil
	}
	n, err := length()
	if err != nil || n > 64 {
		return errFooter
	}
	sum, err := t.read(end-n, n)
	if err != nil {
		return errFooter
	}
	end -= n
	if n, err = length(); err != nil {
		return errFooter
	}
	index, err := t.read(end-n, n)
	if err != nil || n == 0 {
		return errFooter
	}
	if !checksumOf(sum, index) {
		return problem("the table's index does not match its checksum")
	}
	start := end - n
	ti := fb.GetRootAsTableIndex(index, 0)
	var bo fb.BlockOffset
	for i := range ti.OffsetsLength() {
		if !ti.Offsets(&bo, i) {
			return problem("the table's index cannot be read")
		}
		b := tableBlock{int64(bo.Offset()), int64(bo.Len())}
		if b.off+b.len > start {
			return problem("the table's index points beyond its blocks")
		}
		t.blocks = append(t.blocks, b)
	}
	if len(t.blocks) == 0 {
		return problem("the table has no blocks")
	}
	return nil
}

// read reads n bytes at off.
func (t *tableFile) read(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || n > 1<<30 {
		return nil, errFooter
	}
	b := make([]byte, n)
	_, err := t.f.ReadAt(b, off)
	return b, err
}

// checksumOf checks data against an encoded checksum.
func checksumOf(enc, data []byte) bool {
	sum, ok := decodeChecksum(enc)
	return ok && sum == crc32.Checksum(data, castagnoli)
}

// decodeChecksum reads an encoded checksum: field 1 the algorithm (0, CRC-32C, is
// left out), field 2 the sum.
func decodeChecksum(enc []byte) (sum uint32, ok bool) {
	num, typ, n := protowire.ConsumeTag(enc)
	if n < 0 || num != 2 || typ != protowire.VarintType {
		return 0, false
	}
	v, m := protowire.ConsumeVarint(enc[n:])
	return uint32(v), m > 0 && n+m == len(enc) && v <= math.MaxUint32
}

// block reads a block and tells whether its checksum holds; data is entries and
// offsets up to their count.
func (t *tableFile) block(i int) (data []byte, whole bool, err error) {
	b, err := t.read(t.blocks[i].off, t.blocks[i].len)
	if err != nil {
		return nil, false, problem("a block of the table cannot be read: " + err.Error())
	}
	n := int64(len(b)) - 4
	if n < 4 {
		return nil, false, problem("a block of the table is too short")
	}
	sumLen := int64(binary.BigEndian.Uint32(b[n:]))
	if sumLen > 64 || n-sumLen < 4 {
		return nil, false, problem("a block of the table has no checksum")
	}
	data = b[:n-sumLen]
	return data, checksumOf(b[n-sumLen:n], data), nil
}

// checkTable verifies every checksum of a table.
func checkTable(path string, report func(fileDamage)) error {
	t, err := openTable(path)
	if err != nil {
		return err
	}
	defer t.close()
	for i := range t.blocks {
		t.check(i, report)
	}
	return nil
}

// check verifies the checksum of one block.
func (t *tableFile) check(i int, report func(fileDamage)) {
	_, whole, err := t.block(i)
	if err == nil && !whole {
		err = problem("it does not match its checksum")
	}
	if err != nil {
		report(fileDamage{path: t.path, problem: fmt.Sprintf("block %d at offset %d: %v", i, t.blocks[i].off, err)})
	}
}

// entries calls visit for every entry that can be read, also of damaged blocks:
// our own checksums tell what of it is whole. key includes Badger's version.
func (t *tableFile) entries(visit func(key []byte, meta byte, value []byte) error) (lost int, err error) {
	var fnErr error
	for i := range t.blocks {
		err := guard(func() error {
			data, whole, err := t.block(i)
			if err != nil {
				return err
			}
			if !whole {
				lost++
			}
			blockEntries(data, func(key []byte, meta byte, value []byte) {
				if fnErr == nil {
					fnErr = visit(key, meta, value)
				}
			})
			return nil
		})
		if err != nil {
			lost++
		}
		if fnErr != nil {
			return lost, fnErr
		}
	}
	return lost, nil
}

// blockEntries decodes the entries of a block; it panics on damage that it
// cannot read past.
func blockEntries(data []byte, visit func(key []byte, meta byte, value []byte)) {
	n := int(binary.BigEndian.Uint32(data[len(data)-4:]))
	offsets := data[len(data)-4-4*n : len(data)-4]
	data = data[:len(data)-4-4*n]
	var base []byte
	for i := range n {
		start := int(binary.LittleEndian.Uint32(offsets[4*i:]))
		end := len(data)
		if i+1 < n {
			end = int(binary.LittleEndian.Uint32(offsets[4*i+4:]))
		}
		if start < 0 || start+4 > end || end > len(data) {
			continue
		}
		e := data[start:end]
		overlap, rest := int(binary.LittleEndian.Uint16(e)), int(binary.LittleEndian.Uint16(e[2:]))
		if i == 0 {
			base = e[4:min(4+rest, len(e))]
		}
		if overlap > len(base) || 4+rest+3 > len(e) {
			continue
		}
		key := append(append([]byte(nil), base[:overlap]...), e[4:4+rest]...)
		v := e[4+rest:]
		_, used := binary.Uvarint(v[2:])
		if used <= 0 || len(key) <= versionLen {
			continue
		}
		visit(key, v[0], v[2+used:])
	}
}

// fileID is the number in the name of a file of the database.
func fileID(path string) uint32 {
	var id uint32
	_, _ = fmt.Sscanf(filepath.Base(path), "%d", &id)
	return id
}
