package wal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// This file and tablefile.go read Badger's own files (v4.9) without Badger: to
// find damage before Badger acts upon it, to say in which file it lies, and to
// save what is whole. Badger cuts a log at the first bad record when it opens
// it, and with it everything that was written later; and it ends the process
// where the footer of a table is damaged.

// fileDamage is one damaged place of a file of the database.
type fileDamage struct {
	path     string
	num, seq uint64 // log number and seq, where the place belongs to a block
	problem  string
	// torn: nothing whole follows. The end of a log looks like this after a
	// crash in the middle of a commit.
	torn bool
}

func (d *fileDamage) String() string { return filepath.Base(d.path) + ": " + d.problem }

// Badger's marks of a record.
const (
	bitDelete       = 1 << 0
	bitValuePointer = 1 << 1
	bitFinTxn       = 1 << 7
)

const manifestName = "MANIFEST"

const (
	recordFileHeader = 20
	recordMaxHeader  = 22
	recordBuffer     = 4 << 20
	versionLen       = 8 // Badger's version after each key
)

// record is one record of a memtable's log or a value log:
//
//	+------+-----------+----------+----------+---------+-----+-------+--------+
//	| meta | user meta | uvarint  | uvarint  | uvarint | key | value | CRC-32C|
//	|      |           | key len  | value len| expires |     |       | 4 bytes|
//	+------+-----------+----------+----------+---------+-----+-------+--------+
//
// Its slices are valid until the next read.
type record struct {
	size  int
	meta  byte
	key   []byte // with Badger's version
	value []byte
	valid bool
}

// visitRecord takes a whole record and where it starts.
type visitRecord func(off int64, rec *record) error

// walkRecords reads the records of a file until the zeros at its end. Damaged
// ones are reported and passed over.
func walkRecords(path string, visit visitRecord, report func(fileDamage)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	w := &recordWalk{in: bufio.NewReaderSize(f, recordBuffer), path: path, report: report}
	if _, err := w.in.Discard(recordFileHeader); err != nil {
		return nil // too short to hold anything
	}
	w.off = recordFileHeader
	for {
		rec, ok := w.peek(0)
		if ok && rec.valid {
			if err := visit(w.off, &rec); err != nil {
				return err
			}
		} else if size, ok := w.passable(rec, ok); ok {
			w.damaged(&rec)
			rec.size = size
		} else {
			more, err := w.resync()
			if err != nil || !more {
				return err
			}
			continue
		}
		if err := w.skip(rec.size); err != nil {
			return err
		}
	}
}

type recordWalk struct {
	in     *bufio.Reader
	off    int64
	path   string
	report func(fileDamage)
}

func (w *recordWalk) skip(n int) error {
	n, err := w.in.Discard(n)
	w.off += int64(n)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// peek looks at a record that starts skip bytes ahead; ok is false where none
// can.
func (w *recordWalk) peek(skip int) (rec record, ok bool) {
	b, _ := w.in.Peek(min(skip+recordMaxHeader, recordBuffer))
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
	if lens[0] <= versionLen || lens[0] > maxMetaName+64 || lens[1] > recordBuffer {
		return rec, false // nobody writes such a key or value here
	}
	rec.size = n + int(lens[0]) + int(lens[1]) + crcLen
	if b, _ = w.in.Peek(min(skip+rec.size, recordBuffer)); len(b) < skip+rec.size {
		return rec, false
	}
	b = b[skip:]
	body := rec.size - crcLen
	rec.meta, rec.key = b[0], b[n:n+int(lens[0])]
	rec.value = b[n+int(lens[0]) : body]
	if !knownKey(rec.key) {
		return rec, true
	}
	rec.valid = crc32.Checksum(b[:body], castagnoli) == binary.BigEndian.Uint32(b[body:])
	return rec, true
}

// knownKey tells keys that the store, a rebuild or Badger's transactions write.
func knownKey(key []byte) bool {
	return key[0] == '!' || key[0] == kindLoose || slices.Contains(allKinds, key[0])
}

// passable tells whether a record's length can be trusted although its checksum
// is wrong: a whole record, or the end, follows it.
func (w *recordWalk) passable(rec record, parsed bool) (size int, ok bool) {
	if !parsed {
		return 0, false
	}
	next, follows := w.peek(rec.size)
	if follows {
		return rec.size, next.valid
	}
	b, _ := w.in.Peek(min(rec.size+recordMaxHeader, recordBuffer))
	// A record that ends before the zeros is damaged, not torn: what a crash
	// interrupts has zeros at its own end.
	return rec.size, len(b) > rec.size && allZero(b[rec.size:]) && !allZero(b[rec.size-crcLen:rec.size])
}

func (w *recordWalk) damaged(rec *record) {
	d := fileDamage{path: w.path, problem: fmt.Sprintf("the record at offset %d does not match its checksum", w.off)}
	d.num, d.seq, _ = parseBlockKey(rec.key[:len(rec.key)-versionLen])
	w.report(d)
}

// resync looks for the next whole record.
func (w *recordWalk) resync() (more bool, err error) {
	start := w.off
	zeros := true
	for {
		b, perr := w.in.Peek(recordBuffer)
		if len(b) == 0 {
			break
		}
		i := leadingZeros(b)
		if i == len(b) && perr != nil {
			break // nothing but zeros to the end
		}
		if i > 2 { // a record may begin with two zero bytes
			if err := w.skip(i - 2); err != nil {
				return false, err
			}
			if i == len(b) {
				continue
			}
		}
		for {
			if rec, ok := w.peek(0); ok && rec.valid {
				w.report(fileDamage{path: w.path, problem: fmt.Sprintf("bytes %d to %d cannot be read", start, w.off)})
				return true, nil
			}
			c, _ := w.in.Peek(1)
			if len(c) == 0 {
				break
			}
			zeros = zeros && c[0] == 0
			if err := w.skip(1); err != nil {
				return false, err
			}
			if next, _ := w.in.Peek(8); allZero(next) {
				break // go through zeros in larger steps
			}
		}
	}
	if !zeros {
		w.report(fileDamage{path: w.path, torn: true, problem: fmt.Sprintf("what follows offset %d cannot be read", start)})
	}
	return false, nil
}

var zeroPage [4096]byte

// leadingZeros counts the zero bytes at the start of b.
func leadingZeros(b []byte) int {
	n := 0
	for len(b) >= len(zeroPage) && bytes.Equal(b[:len(zeroPage)], zeroPage[:]) {
		n += len(zeroPage)
		b = b[len(zeroPage):]
	}
	for _, c := range b {
		if c != 0 {
			break
		}
		n++
	}
	return n
}

func allZero(b []byte) bool { return leadingZeros(b) == len(b) }

// databaseFiles checks the checksums of all files of the database.
func databaseFiles(dir string, report func(fileDamage), stop func() error) error {
	paths, err := listFiles(dir, "")
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := stop(); err != nil {
			return err
		}
		checkFile(path, report)
	}
	return nil
}

// checkFile checks one file of the database.
func checkFile(path string, report func(fileDamage)) {
	var err error
	switch filepath.Ext(path) {
	case ".sst":
		err = checkTable(path, report)
	case ".mem", ".vlog":
		err = walkRecords(path, func(int64, *record) error { return nil }, report)
	case "":
		if filepath.Base(path) == manifestName {
			err = checkManifest(path)
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) { // compaction removes files
		report(fileDamage{path: path, problem: err.Error()})
	}
}

// listFiles lists the files with an extension ("" for all), ascending.
func listFiles(dir, ext string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the database: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if e.Type().IsRegular() && (ext == "" || filepath.Ext(e.Name()) == ext) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// checkManifest checks Badger's list of tables, which Badger cuts at a record
// that it cannot read; and then it removes the tables that are not listed.
//
//	"Bdgr" | 2 + 2 bytes of version | records: length 4 | CRC-32C 4 | data
func checkManifest(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) < 8 || !bytes.Equal(b[:4], []byte("Bdgr")) {
		return problem("the list of tables has no head")
	}
	for b = b[8:]; len(b) > 0; {
		if len(b) < 8 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-8) {
			return problem("the list of tables ends within a record")
		}
		n := int(binary.BigEndian.Uint32(b))
		if crc32.Checksum(b[8:8+n], castagnoli) != binary.BigEndian.Uint32(b[4:]) {
			return problem("a record of the list of tables does not match its checksum")
		}
		b = b[8+n:]
	}
	return nil
}
