package kv

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	badger "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"

	"vixp2p/replication"
)

const (
	defaultMemTable = 16 << 20 // bytes; a transaction may have 15 % of it
	baseTableSize   = 1 << 20  // bytes of the smallest merged tables, of which a dozen is under way at a time
	minCompact      = 2        // fewest compactors that Badger takes while it compacts at all
)

// badgerOptions keeps an idle view small. Blocks are not compressed, so that
// they are read in place from the mapped file and need no cache; every value
// fits in the tree, so that the value log stays empty. Block checksums are not
// verified on read: Badger would turn a damaged block into "not found", where
// the record's own checksum tells (doc.go, "Damage").
func badgerOptions(dir string, o Options) badger.Options {
	return badger.DefaultOptions(dir).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithMemTableSize(o.memTable).
		WithBaseTableSize(baseTableSize).
		WithNumMemtables(2).
		WithNumCompactors(minCompact).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithValueThreshold(min(1<<20, o.memTable/10)).
		WithVerifyValueChecksum(true). // else a damaged length leaks a lock (see package wal)
		WithValueLogFileSize(1 << 20).
		WithChecksumVerificationMode(options.NoVerification).
		WithLogger(badgerLogger{o.Logger})
}

// database is one open Badger: one generation of the view. It runs Badger in
// its managed mode, with its own timestamps: there is a single writer, so a
// reader can take the newest complete commit without waiting for the one under
// way, and a block that needs several commits stays invisible until its last.
type database struct {
	db         *badger.DB
	dir        string
	generation uint64
	// maxBytes and maxEntries bound a transaction.
	maxBytes, maxEntries int64
	cache                *cache

	// mu guards what follows. It is held for moments only.
	mu sync.Mutex
	// files are those that were there when it was opened, as they were then; nil
	// if that is not known.
	files map[string]fileSum
	// unproven are the tables that were not compared before it was opened, and
	// neither since.
	unproven map[string]bool
	// marks are the timestamps that readers and pins use, oldest first; the last
	// is what new ones get. invariant: never empty; all but the last are in use.
	marks []*mark
	// shown is the timestamp of the last of marks, or noMore once retired. It may be
	// read without the lock.
	shown atomic.Uint64
	// written is the newest commit, shown to readers or not.
	written uint64
	// readers counts open snapshots; retired tells that there will be no more.
	readers int
	retired bool
	done    chan struct{} // closed when retired and without readers
}

// noMore is no timestamp: there are no new readers.
const noMore = math.MaxUint64

type mark struct {
	ts   uint64
	uses int // by readers and pins
}

// openDatabase opens or creates a Badger directory. A panic of Badger on damaged
// files comes back as an error.
func openDatabase(dir string, generation uint64, o Options) (d *database, err error) {
	defer guard(&err, dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the directory of the key-value view: %w", err)
	}
	db, err := badger.OpenManaged(badgerOptions(dir, o))
	if err != nil {
		// Badger has no value to compare with for this one.
		if strings.Contains(err.Error(), "directory lock") {
			return nil, fmt.Errorf("the key-value view in %s is open in another process: stop that one first: %w", dir, replication.ErrLocked)
		}
		return nil, fmt.Errorf("open the key-value view: %w", err)
	}
	ts := db.MaxVersion()
	d = &database{
		db: db, dir: dir, generation: generation,
		maxBytes: min(db.MaxBatchSize(), o.maxBatch), maxEntries: db.MaxBatchCount(),
		cache: newCache(o.CacheBytes, ts),
		marks: []*mark{{ts: ts}}, written: ts, done: make(chan struct{}),
	}
	d.shown.Store(ts)
	return d, nil
}

// snapshot is a consistent state of the view. Close it.
type snapshot struct {
	*badger.Txn
	d *database
	m *mark
}

// snapshot opens the newest state that readers may see; false if the database is
// retired.
func (d *database) snapshot() (snapshot, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.retired {
		return snapshot{}, false
	}
	return d.readLocked(d.marks[len(d.marks)-1]), true
}

// newest is the state that a snapshot would be of; false if the database is retired.
func (d *database) newest() (ts uint64, ok bool) {
	ts = d.shown.Load()
	return ts, ts != noMore
}

func (d *database) readLocked(m *mark) snapshot {
	m.uses++
	d.readers++
	return snapshot{d.db.NewTransactionAt(m.ts, false), d, m}
}

func (s snapshot) close() {
	s.Discard()
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.m.uses--
	s.d.readers--
	s.d.trimLocked()
	if s.d.retired && s.d.readers == 0 {
		close(s.d.done)
	}
}

// record reads and checks the record of a key; nil if there is none. It is not to be
// changed.
func (s snapshot) record(key []byte) ([]byte, error) {
	if b, ok := s.d.cache.get(key, s.m.ts); ok {
		return b, nil
	}
	b, err := get(s.Txn, key)
	if err == nil && b != nil {
		s.d.cache.put(key, b, s.m.ts) // stateKey made the key for this read
	}
	return b, err
}

// pin keeps a state readable without reading it: unlike a snapshot it holds up
// neither retire nor close, which end it. Release it.
type pin struct {
	d *database
	m *mark
}

// pin keeps the newest state that readers may see; false if the database is
// retired.
func (d *database) pin() (pin, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.retired {
		return pin{}, false
	}
	m := d.marks[len(d.marks)-1]
	m.uses++
	return pin{d, m}, true
}

// snapshot opens the state that is kept; false if the database is retired.
func (p pin) snapshot() (snapshot, bool) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if p.d.retired {
		return snapshot{}, false
	}
	return p.d.readLocked(p.m), true
}

func (p pin) release() {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	p.m.uses--
	p.d.trimLocked()
}

// trimLocked drops the states that nobody uses, and lets Badger discard what is
// older than all that are left.
func (d *database) trimLocked() {
	oldest := d.marks[0]
	last := d.marks[len(d.marks)-1]
	d.marks = slices.DeleteFunc(d.marks, func(m *mark) bool { return m != last && m.uses == 0 })
	if d.marks[0] != oldest && !d.retired { // retired, Badger may be closed
		d.db.SetDiscardTs(d.marks[0].ts)
	}
}

// latest is a transaction of the writer, which also sees what is not shown yet.
func (d *database) latest() *badger.Txn {
	return d.db.NewTransactionAt(d.written, false)
}

// transaction is changes that are going to be written together.
type transaction struct {
	d       *database
	txn     *badger.Txn
	entries []entry
}

// transaction takes entries (a nil value deletes), whose slices belong to the database
// from here on. Write or discard it.
func (d *database) transaction(entries []entry) (*transaction, error) {
	txn := d.db.NewTransactionAt(d.written, true)
	for _, e := range entries {
		var err error
		if e.value == nil {
			err = txn.Delete(e.key)
		} else {
			err = txn.Set(e.key, e.value)
		}
		if err != nil {
			txn.Discard()
			return nil, fmt.Errorf("write to the key-value view: %w", err)
		}
	}
	return &transaction{d, txn, entries}, nil
}

func (t *transaction) discard() { t.txn.Discard() }

// write writes it. Only the one writer calls it, after the one before has landed.
func (t *transaction) write() error {
	defer t.txn.Discard()
	if err := t.txn.CommitAt(t.d.written+1, nil); err != nil {
		return fmt.Errorf("write to the key-value view: %w", err)
	}
	return nil
}

// landed lets latest see what was written.
func (t *transaction) landed() {
	t.d.written++
	t.d.cache.changed(t.d.written, t.entries)
}

// entry is one change of a transaction.
type entry struct{ key, value []byte }

// show lets readers see everything written so far.
func (d *database) show() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marks = append(d.marks, &mark{ts: d.written})
	if !d.retired {
		d.shown.Store(d.written)
	}
	d.trimLocked()
}

// retire refuses new readers; done closes when the last one has left.
func (d *database) retire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.retired {
		return
	}
	d.retired = true
	d.shown.Store(noMore)
	if d.readers == 0 {
		close(d.done)
	}
}

// opened notes what is known of the files.
func (d *database) opened(p plan) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files, d.unproven = p.files, map[string]bool{}
	for _, s := range p.unchecked {
		d.unproven[s.Name] = true
	}
}

// known is the files that were there when the database was opened.
func (d *database) known() map[string]fileSum {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.files)
}

// compared notes that a file was found as it was.
func (d *database) compared(s fileSum) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[s.Name] = s
	delete(d.unproven, s.Name)
}

// provenAll notes that the records of all tables were found to add up.
func (d *database) provenAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.unproven)
}

// proven tells whether nothing that these files hold can come from a table that
// was never compared.
func (d *database) proven(files []fileSum) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	there := 0
	for _, s := range files {
		if d.unproven[s.Name] {
			there++
		}
	}
	return there == len(d.unproven)
}

// uses tells whether a table is part of the database: Badger empties one that it
// has merged into others before it removes it.
func (d *database) uses(name string) bool {
	snap, ok := d.snapshot()
	if !ok {
		return false
	}
	defer snap.close()
	return slices.ContainsFunc(d.db.Tables(), func(t badger.TableInfo) bool {
		return filepath.Base(table.NewFilename(t.ID, d.dir)) == name
	})
}

// close closes Badger after the last reader has left.
func (d *database) close() (err error) {
	d.retire()
	<-d.done
	defer guard(&err, d.dir)
	return d.db.Close()
}

// get reads and checks one record; nil if there is none.
func get(txn *badger.Txn, key []byte) ([]byte, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sealed, err := item.ValueCopy(nil)
	if err != nil {
		return nil, err
	}
	return unseal(key, sealed)
}

// scan calls fn for every record with the prefix, checked, in key order, from
// the key start on (nil: from the first). Key and record are valid during the
// call only. fn ends the scan with errStop, or with an error that scan returns.
func scan(txn *badger.Txn, prefix, start []byte, fn func(key, record []byte) error) error {
	opts := badger.DefaultIteratorOptions
	opts.Prefix = prefix
	opts.PrefetchSize = 16
	it := txn.NewIterator(opts)
	defer it.Close()
	if start == nil {
		start = prefix
	}
	for it.Seek(start); it.Valid(); it.Next() {
		item := it.Item()
		err := item.Value(func(sealed []byte) error {
			record, err := unseal(item.Key(), sealed)
			if err != nil {
				return err
			}
			return fn(item.Key(), record)
		})
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errStop = errors.New("stop")

// guard turns a panic or a memory fault of Badger on damaged files into an
// error, and marks a bad record as damage. Use it deferred; the fault handler
// stays with the goroutine only until then.
func guard(err *error, dir string) {
	if r := recover(); r != nil {
		*err = &replication.DamageError{File: dir, Problem: fmt.Sprintf("the database failed on it (%v)", firstLine(fmt.Sprint(r)))}
		return
	}
	if errors.Is(*err, errRecord) {
		*err = &replication.DamageError{File: dir, Problem: (*err).Error()}
	}
}

// faultsPanic makes reads of a mapped file that the disk cannot deliver panic,
// for guard to catch, instead of ending the process. It returns the undoing.
func faultsPanic() func() {
	old := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(old) }
}

func firstLine(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		s = s[:i]
	}
	return s
}

// badgerLogger passes on what Badger says: warnings and errors as they are, the
// rest for debugging.
type badgerLogger struct{ log *slog.Logger }

func (l badgerLogger) Errorf(f string, a ...any) {
	l.log.Error("view database", "text", text(f, a))
}
func (l badgerLogger) Warningf(f string, a ...any) {
	l.log.Warn("view database", "text", text(f, a))
}
func (l badgerLogger) Infof(f string, a ...any) { l.log.Debug("view database", "text", text(f, a)) }
func (l badgerLogger) Debugf(string, ...any)    {}

func text(f string, a []any) string { return strings.TrimSpace(fmt.Sprintf(f, a...)) }
