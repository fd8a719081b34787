package wal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
)

// This file reads Badger's own files (v4.9) without Badger, to say where damage
// lies and to find it before Badger acts upon it: Badger cuts a log at the first
// bad record when it opens it, and with it everything that was written later.

// fileDamage is one damaged place of a file of the database.
type fileDamage struct {
	path    string
	offset  int64
	num     uint64 // log and seq, where the place belongs to a block
	seq     uint64
	problem string
	// fixable: the record's checksum is wrong but its length is right, so that
	// what follows can be read.
	fixable bool
	sumAt   int64 // where the record's checksum stands
	sum     uint32
}

// databaseFiles checks the checksums of all files of the database. It may run
// beside writes; what looks damaged at the end of a file that is being written
// is for the caller to look at again. stop ends it early.
func databaseFiles(dir string, report func(fileDamage), stop func() error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot list the database: %w", err)
	}
	for _, e := range entries {
		if err := stop(); err != nil {
			return err
		}
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".sst":
			err = checkTable(path)
		case ".mem", ".vlog":
			err = checkRecords(path, report)
		default:
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			report(fileDamage{path: path, problem: err.Error()})
		}
	}
	return nil
}

// checkTable verifies every checksum of a table.
func checkTable(path string) error {
	return guard(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		mf, err := z.OpenMmapFileUsing(f, 0, false)
		if err != nil {
			return errors.Join(err, f.Close())
		}
		t, err := table.OpenTable(mf, table.Options{ReadOnly: true, ChkMode: options.OnTableRead, BlockSize: 4 << 10})
		if err != nil {
			return err
		}
		return t.Close(-1)
	})
}

const (
	recordFileHeader = 20
	recordMaxHeader  = 22
	recordBuffer     = 4 << 20
)

// checkRecords reports the damaged records of a memtable's log or a value log.
func checkRecords(path string, report func(fileDamage)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = walkRecords(f, path, report)
	return err
}

// walkRecords reads records as Badger wrote them until the zeros at the end, and
// returns where they end:
//
//	+------+-----------+----------+----------+---------+-----+-------+--------+
//	| meta | user meta | uvarint  | uvarint  | uvarint | key | value | CRC-32C|
//	|      |           | key len  | value len| expires |     |       | 4 bytes|
//	+------+-----------+----------+----------+---------+-----+-------+--------+
//
// A record with a wrong checksum is reported and passed over if a whole record
// or the end follows it; otherwise the rest cannot be read.
func walkRecords(f io.Reader, path string, report func(fileDamage)) (end int64, err error) {
	in := bufio.NewReaderSize(f, recordBuffer)
	if _, err := in.Discard(recordFileHeader); err != nil {
		return 0, nil // too short to hold anything
	}
	off := int64(recordFileHeader)
	for {
		rec, ok := peekRecord(in, 0)
		if !ok {
			break
		}
		if !rec.valid {
			next, follows := peekRecord(in, rec.size)
			if !(follows && next.valid) && !(!follows && endsAfter(in, rec.size)) {
				break
			}
			d := rec.damage(path, off)
			d.fixable = true
			report(d)
		}
		if _, err := in.Discard(rec.size); err != nil {
			return off, err
		}
		off += int64(rec.size)
	}
	clean, err := onlyZeros(in)
	if err != nil {
		return off, err
	}
	if !clean {
		report(fileDamage{path: path, offset: off, problem: fmt.Sprintf("what follows offset %d cannot be read", off)})
	}
	return off, nil
}

// record is one record in the buffer.
type record struct {
	size  int
	key   []byte
	valid bool
	sum   uint32 // as it should be
}

func (r *record) damage(path string, off int64) fileDamage {
	d := fileDamage{
		path: path, offset: off, sum: r.sum, sumAt: off + int64(r.size) - crcLen,
		problem: fmt.Sprintf("the record at offset %d does not match its checksum", off),
	}
	if len(r.key) > 8 {
		d.num, d.seq, _ = parseBlockKey(r.key[:len(r.key)-8]) // without Badger's version
	}
	return d
}

// peekRecord looks at a record that starts skip bytes ahead; ok is false where
// none can start.
func peekRecord(in *bufio.Reader, skip int) (rec record, ok bool) {
	b, _ := in.Peek(min(skip+recordMaxHeader, recordBuffer))
	if len(b) < skip+5 {
		return rec, false
	}
	h := b[skip:]
	n := 2
	var lens [3]uint64
	for i := range lens {
		v, used := binary.Uvarint(h[n:])
		if used <= 0 {
			return rec, false
		}
		lens[i] = v
		n += used
	}
	if lens[0] == 0 || lens[0] > 1<<16 || lens[1] > recordBuffer {
		return rec, false
	}
	rec.size = n + int(lens[0]) + int(lens[1]) + crcLen
	b, _ = in.Peek(min(skip+rec.size, recordBuffer))
	if len(b) < skip+rec.size {
		return rec, false
	}
	b = b[skip:]
	body := rec.size - crcLen
	rec.key = b[n : n+int(lens[0])]
	rec.sum = crc32.Checksum(b[:body], castagnoli)
	rec.valid = rec.sum == binary.BigEndian.Uint32(b[body:])
	return rec, true
}

// endsAfter tells whether zeros or the end of the file follow skip bytes ahead.
func endsAfter(in *bufio.Reader, skip int) bool {
	b, _ := in.Peek(min(skip+recordMaxHeader, recordBuffer))
	return len(b) >= skip && !slices.ContainsFunc(b[skip:], func(c byte) bool { return c != 0 })
}

// onlyZeros reads to the end.
func onlyZeros(in io.Reader) (bool, error) {
	buf := make([]byte, 256<<10)
	clean := true
	for {
		n, err := in.Read(buf)
		if slices.ContainsFunc(buf[:n], func(c byte) bool { return c != 0 }) {
			clean = false
		}
		if errors.Is(err, io.EOF) {
			return clean, nil
		}
		if err != nil {
			return clean, err
		}
	}
}
