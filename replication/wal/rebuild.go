package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// A rebuild makes a new database of all that is whole in the files of a damaged
// one, read without Badger, and sets the old one aside:
//
//	collect   every record whose checksum holds goes into db.new
//	mend      each log keeps its unbroken prefix; what lies beyond waits aside
//	swap      db -> db.damaged-TIME, db.new -> db
//
// Blocks carry their arrival number, so that logs' records and the arrival index
// follow from them. Where a number is lost, that block and all later ones of its
// log get new ones.
const (
	newDir     = "db.new"
	damagedDir = "db.damaged"
)

// rebuilt tells what a rebuild found.
type rebuilt struct {
	identity *identity
	logs     int    // that end earlier than they did, as far as it is known
	note     string // what is missing besides
	aside    int    // blocks that wait for what is missing
	kept     uint64
	setAside string // where the damaged database is
}

func (b *rebuilt) String() string {
	what := []string{many(b.kept, "block was", "blocks were") + " kept"}
	if b.logs > 0 || b.note == "" {
		what = append(what, endEarlier(b.logs))
	}
	if b.aside > 0 {
		what = append(what, many(uint64(b.aside), "block waits", "blocks wait")+" for what is missing")
	}
	if b.note != "" {
		what = append(what, b.note)
	}
	return strings.Join(what, ", ") + "; the damaged database is in " + b.setAside
}

// many counts things.
func many(n uint64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", more)
}

func endEarlier(logs int) string {
	return many(uint64(logs), "log ends earlier than it", "logs end earlier than they") + " did"
}

// rebuild replaces the database of a directory. w is what the witness said.
func rebuild(o *Options, w testimony) (*rebuilt, error) {
	old, fresh := filepath.Join(o.Dir, dbDir), filepath.Join(o.Dir, newDir)
	if err := os.RemoveAll(fresh); err != nil {
		return nil, fmt.Errorf("cannot rebuild the database: %w", err)
	}
	setAside := filepath.Join(o.Dir, damagedDir+"-"+o.Now().UTC().Format("20060102T150405Z"))
	// A damaged database of an earlier rebuild makes room for this one. That its
	// directory is there shows, until this rebuild is done, that what it lost was
	// not dismissed.
	earlier, err := filepath.Glob(filepath.Join(o.Dir, damagedDir+"-*"))
	for _, dir := range earlier {
		err = errors.Join(err, empty(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot remove an earlier damaged database: %w", err)
	}
	size, err := treeSize(old)
	if err != nil {
		return nil, fmt.Errorf("cannot rebuild the database: %w", err)
	}
	if err := checkSpace(o, size); err != nil {
		return nil, fmt.Errorf("the damaged database cannot be rebuilt: %w", err)
	}
	l := &badgerLog{l: o.Logger}
	db, err := badger.Open(badgerOptions(o, fresh, l).WithSyncWrites(false))
	if err != nil {
		return nil, fmt.Errorf("cannot rebuild the database: %w", err)
	}
	c := &collector{
		db: db, out: db.NewWriteBatch(), records: map[string]smallRecord{}, certified: map[place]bool{},
		held: map[uint64]uint64{}, numbers: map[uint64]bool{}, cursors: map[r.LogID]uint64{},
		setAside: filepath.Base(setAside), dismissed: len(earlier) == 0,
	}
	res, err := c.run(o, old, w)
	if err := errors.Join(err, db.Close()); err != nil {
		return nil, fmt.Errorf("cannot rebuild the database: %w", err)
	}
	if err := o.syncDatabase(fresh); err != nil {
		return nil, fmt.Errorf("cannot rebuild the database: %w", err)
	}
	res.setAside = setAside
	if slices.Contains(earlier, setAside) { // two rebuilds within a second
		err = os.Remove(setAside)
	}
	err = errors.Join(err, os.Rename(old, setAside))
	if errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(setAside, 0o700) // what is removed to dismiss the loss
	}
	if err == nil {
		err = errors.Join(os.Rename(fresh, old), syncDir(o.Dir))
	}
	for _, dir := range earlier {
		if err == nil && dir != setAside {
			err = os.Remove(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot put the rebuilt database in place: %w", err)
	}
	return res, nil
}

// empty removes what is in a directory.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// finishSwap completes a rebuild that a crash interrupted between its renames.
func finishSwap(dir string) error {
	set, err := filepath.Glob(filepath.Join(dir, damagedDir+"-*"))
	if err != nil || len(set) == 0 || fileExists(dir, dbDir) || !fileExists(dir, newDir) {
		return err
	}
	if err := os.Rename(filepath.Join(dir, newDir), filepath.Join(dir, dbDir)); err != nil {
		return fmt.Errorf("cannot put the rebuilt database in place: %w", err)
	}
	return syncDir(dir)
}

// treeSize is about what the whole records of a database take.
func treeSize(dir string) (uint64, error) {
	paths, err := listFiles(dir, ".sst")
	if err != nil {
		return 0, err
	}
	var size uint64
	for _, path := range paths {
		if fi, err := os.Stat(path); err == nil {
			size += uint64(fi.Size())
		}
	}
	logs, err := listFiles(dir, ".vlog")
	if err != nil {
		return 0, err
	}
	for i, path := range logs {
		// The last one is mostly room for what comes.
		if fi, err := os.Stat(path); err == nil && i < len(logs)-1 {
			size += uint64(fi.Size())
		}
	}
	return size, nil
}

// syncDatabase makes all files of a database durable.
func (o *Options) syncDatabase(dir string) error {
	paths, err := listFiles(dir, "")
	if err != nil {
		return err
	}
	for _, path := range paths {
		if filepath.Base(path) == "LOCK" {
			continue // of a process, not data
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // Badger removed what it had merged
		}
		if err != nil {
			return err
		}
		if err := errors.Join(o.syncFile(f), f.Close()); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// collector copies whole records of the old database's files.
type collector struct {
	db  *badger.DB
	out *badger.WriteBatch
	// records are the newest versions of the small ones.
	records map[string]smallRecord
	// certified are the places in value logs that a table or memtable names. A
	// block that is only in a value log may never have been committed, and
	// another may have taken its seq since.
	certified map[place]bool
	// arrivals is the highest arrival number of all whole blocks.
	arrivals uint64

	// What tells of blocks that are not whole: the highest first seq of a log's
	// block, by its number; the arrival numbers of blocks and of the arrival
	// index; and what peers said that they hold.
	held    map[uint64]uint64
	numbers map[uint64]bool
	cursors map[r.LogID]uint64
	// setAside is the name of the directory that the old database goes to.
	setAside string
	// dismissed: the user removed what the last repair set aside.
	dismissed bool
}

type place struct{ file, off uint32 }

type smallRecord struct {
	version uint64
	deleted bool
	at      place // where the value is, if not here
	value   []byte
}

// kindLoose is for blocks that nothing certifies; in db.new while it is made.
const kindLoose = 'y'

func (c *collector) run(o *Options, old string, w testimony) (*rebuilt, error) {
	tables, err := listFiles(old, ".sst")
	if err != nil {
		return nil, err
	}
	for _, path := range tables {
		t, err := openTable(path)
		if err != nil {
			blocks, scanErr := scanTable(path, c.entry)
			o.Logger.Warn("a table is read without its index", "file", path, "error", err, "blocks", blocks)
			if scanErr != nil {
				return nil, scanErr
			}
			continue
		}
		_, err = t.entries(c.entry)
		t.close()
		if err != nil {
			return nil, err
		}
	}
	ignore := func(fileDamage) {}
	memtables, err := listFiles(old, ".mem")
	if err != nil {
		return nil, err
	}
	for _, path := range memtables {
		err := walkRecords(path, func(_ int64, rec *record) error { return c.entry(rec.key, rec.meta, rec.value) }, ignore)
		if err != nil {
			return nil, err
		}
	}
	logs, err := listFiles(old, ".vlog")
	if err != nil {
		return nil, err
	}
	for _, path := range logs {
		id := fileID(path)
		err := walkRecords(path, func(off int64, rec *record) error { return c.value(place{id, uint32(off)}, rec) }, ignore)
		if err != nil {
			return nil, err
		}
	}
	if err := c.out.Flush(); err != nil {
		return nil, err
	}
	m := newMender(o, c)
	return m.run(w)
}

// versionOf splits Badger's version off a key.
func versionOf(key []byte) (user []byte, version uint64) {
	n := len(key) - versionLen
	return key[:n], ^binary.BigEndian.Uint64(key[n:])
}

// entry takes a record of a table or memtable: committed, or about to be.
func (c *collector) entry(key []byte, meta byte, value []byte) error {
	user, version := versionOf(key)
	rec := smallRecord{version: version, deleted: meta&bitDelete != 0}
	if meta&bitFinTxn != 0 || len(user) == 0 {
		return nil
	}
	if meta&bitValuePointer != 0 {
		if len(value) != 12 {
			return nil
		}
		// A pointer: file, length, offset in the machine's byte order.
		rec.at = place{binary.NativeEndian.Uint32(value), binary.NativeEndian.Uint32(value[8:])}
		c.certified[rec.at] = true
	}
	switch user[0] {
	case kindBlock, kindAside, kindCut:
		num, seq, ok := parseBlockKey(user)
		if rec.deleted || !ok {
			return nil
		}
		if user[0] == kindBlock {
			c.held[num] = max(c.held[num], seq)
		}
		if rec.at != (place{}) {
			return nil
		}
		return c.block(user, value)
	case kindArrival:
		if rec.deleted {
			return nil
		}
		if a, number, err := parseArrival(user, value); err == nil {
			c.held[a.num] = max(c.held[a.num], a.firstSeq)
			c.numbers[number] = true
		}
	case kindCursor:
		c.cursor(user, value)
	case kindHead, kindLog, kindIdentity, kindFork, kindMeta, kindTail, kindCursors, kindLost, kindFreed:
		if !rec.deleted && rec.at == (place{}) {
			v, err := unseal(user, value)
			if err != nil {
				return nil // not whole
			}
			rec.value = append([]byte(nil), v...)
		}
		if old, ok := c.records[string(user)]; !ok || old.version < version {
			c.records[string(user)] = rec
		}
	}
	return nil
}

// block keeps a block whose checksum holds.
func (c *collector) block(user, value []byte) error {
	sb, err := unsealBlock(user, value)
	if err != nil {
		return nil // not whole
	}
	c.arrivals = max(c.arrivals, sb.arrival)
	c.numbers[sb.arrival] = true
	return c.out.Set(append([]byte(nil), user...), append([]byte(nil), value...))
}

// cursor takes what a peer said that it holds.
func (c *collector) cursor(user, value []byte) {
	v, err := unseal(user, value)
	if err != nil {
		return
	}
	if e, err := decodeCursorEntry(user, v); err == nil && e.Branch.IsZero() {
		c.cursors[e.Log] = max(c.cursors[e.Log], e.Pos.Seq)
	}
}

// value takes a record of a value log.
func (c *collector) value(at place, rec *record) error {
	user, version := versionOf(rec.key)
	switch user[0] {
	case kindBlock, kindAside, kindCut:
		num, seq, ok := parseBlockKey(user)
		if !ok {
			return nil
		}
		if c.certified[at] {
			return c.block(user, rec.value)
		}
		sb, err := unsealBlock(user, rec.value)
		if err != nil {
			return nil
		}
		c.arrivals = max(c.arrivals, sb.arrival)
		return c.out.Set(looseKey(num, seq, version), sealLoose(sb))
	default:
		if small, ok := c.records[string(user)]; ok && small.at == at && small.version == version {
			if v, err := unseal(user, rec.value); err == nil {
				small.value = append([]byte(nil), v...)
				small.at = place{}
				c.records[string(user)] = small
			}
		}
	}
	return nil
}

// record returns the newest whole version of a small record, nil if there is
// none.
func (c *collector) record(key []byte) []byte {
	rec, ok := c.records[string(key)]
	if !ok || rec.deleted || rec.at != (place{}) {
		return nil
	}
	return rec.value
}

// repairNote is what Recovered says.
func repairNote(why string, b *rebuilt) string {
	return "damage was found (" + why + ") and the database was rebuilt: " + b.String()
}
