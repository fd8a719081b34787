package wal

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	r "vixp2p/replication"
)

const (
	dbDir        = "db"
	memTableSize = 16 << 20
	numLevelZero = 4 // newest tables before they are merged
	// valueThreshold sends larger blocks to the value log, where they are
	// written once and never compacted. Below it a commit touches one file only.
	valueThreshold = 64 << 10
	// blockSize is that of a table: any record fits that is not in the value log. Badger
	// doubles the room of one that does not fit, and keeps such memory for the tables
	// after: with its 4 KiB a table of records of 5 KB took three times its size.
	blockSize = valueThreshold + 4<<10
	// baseTableSize is the size of the smallest merged tables. Badger has a dozen under
	// way in a merge, and keeps room for twice that of each.
	baseTableSize = 1 << 20
)

func badgerOptions(o *Options, dir string, l *badgerLog) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(l).
		WithSyncWrites(!o.Relaxed).
		WithDetectConflicts(false). // there is one writer
		WithMetricsEnabled(false).
		WithMemTableSize(memTableSize).
		WithBlockSize(blockSize).
		WithBaseTableSize(baseTableSize).
		WithNumMemtables(2).
		WithNumLevelZeroTables(numLevelZero).
		WithNumLevelZeroTablesStall(12).
		WithBlockCacheSize(8 << 20).
		WithIndexCacheSize(8 << 20).
		WithValueLogFileSize(64 << 20).
		WithValueThreshold(valueThreshold).
		// Without it a damaged length in a value log is found after a file lock is
		// taken and never given back (Badger 4.9.6, valueLog.Read): Close would wait
		// for ever.
		WithVerifyValueChecksum(true).
		WithCompression(options.None). // bodies may be packed already
		WithNumCompactors(2).
		WithBypassLockGuard(true) // our own lock is taken before anything is read
}

// badgerLog hands Badger's lines on. Badger tells of some failures, a failed
// sync of its value log among them, in its log only: errors counts them.
type badgerLog struct {
	l      *slog.Logger
	errors atomic.Uint64
}

func (b *badgerLog) Errorf(f string, a ...any) {
	// A value that cannot be read is no failure of a write, and whoever reads it
	// tells of it, with its log and seq instead of the raw key.
	for _, start := range []string{"Unable to read: Key:", "Key: %v, Version", "Invalid read: vp:"} {
		if strings.HasPrefix(f, start) {
			b.l.Debug("badger: " + strings.TrimSpace(fmt.Sprintf(f, a...)))
			return
		}
	}
	b.errors.Add(1)
	b.l.Error("badger: " + strings.TrimSpace(fmt.Sprintf(f, a...)))
}
func (b *badgerLog) Warningf(f string, a ...any) {
	b.l.Warn("badger: " + strings.TrimSpace(fmt.Sprintf(f, a...)))
}
func (b *badgerLog) Infof(string, ...any)  {}
func (b *badgerLog) Debugf(string, ...any) {}

// problem is what is wrong with a record; whoever knows the log and seq wraps it
// in a DamageError.
type problem string

func (p problem) Error() string        { return string(p) }
func (p problem) Is(target error) bool { return target == r.ErrDamaged }

// guard runs fn and turns a panic, also one of a read beyond the end of a mapped
// file, into damage: Badger trusts its files.
func guard(fn func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			err = problem(fmt.Sprintf("the database cannot be read: %v", p))
		}
	}()
	return fn()
}

// view reads a snapshot of the database.
func (s *Store) view(fn func(*badger.Txn) error) error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return r.ErrClosed
	}
	return guard(func() error { return s.db.View(fn) })
}

// get reads and checks one record; nil if there is none.
func get(txn *badger.Txn, key []byte) ([]byte, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, readProblem(err)
	}
	value, err := item.ValueCopy(nil)
	if err != nil {
		return nil, readProblem(err)
	}
	return unseal(key, value)
}

// readProblem makes damage of an error that Badger gives for a read: of what was
// committed everything must be readable.
func readProblem(err error) error {
	if err == nil || errors.Is(err, r.ErrDamaged) {
		return err
	}
	return problem("the database cannot be read: " + err.Error())
}

// each calls fn for all records under a prefix, from key from on (nil: all), in
// order, their raw values valid during the call.
func each(txn *badger.Txn, prefix, from []byte, fn func(key, value []byte) (more bool, err error)) error {
	opt := badger.DefaultIteratorOptions
	opt.PrefetchValues = false
	opt.Prefix = prefix
	it := txn.NewIterator(opt)
	defer it.Close()
	if from == nil {
		from = prefix
	}
	for it.Seek(from); it.Valid(); it.Next() {
		item := it.Item()
		var more bool
		var fnErr error
		err := item.Value(func(v []byte) error {
			more, fnErr = fn(item.Key(), v)
			return nil
		})
		if err != nil {
			return readProblem(err)
		}
		if fnErr != nil {
			return fnErr
		}
		if !more {
			return nil
		}
	}
	return nil
}

// lastAtOrBefore returns a copy of the last key under prefix that is <= key, with
// its raw value; nil if there is none.
func lastAtOrBefore(txn *badger.Txn, prefix, key []byte) (k, v []byte, err error) {
	opt := badger.DefaultIteratorOptions
	opt.PrefetchValues = false
	opt.Reverse = true
	opt.Prefix = prefix
	it := txn.NewIterator(opt)
	defer it.Close()
	it.Seek(key)
	if !it.Valid() {
		return nil, nil, nil
	}
	if v, err = it.Item().ValueCopy(nil); err != nil {
		return nil, nil, readProblem(err)
	}
	return it.Item().KeyCopy(nil), v, nil
}
