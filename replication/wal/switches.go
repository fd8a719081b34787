package wal

import (
	"reflect"

	"github.com/dgraph-io/badger/v4"
)

// valueSync finds the switch by which Badger (4.9.6, valueLog.write) syncs its
// value log at a commit; nil if this version has none there.
//
// Badger syncs that log at every commit, also where it wrote nothing to it, and
// an idle sync still makes the disk flush: a third of what the commit's own sync
// takes. No option turns off the one without the other. The committer, for which
// alone Badger writes, sets the switch before each commit: on where a value goes
// to the value log, which is then synced before the memtable's log names it.
// TestNothingUnsynced asks the kernel whether that is so. Without the switch every
// commit syncs both.
func valueSync(db *badger.DB) *bool { return switchOf(db, "vlog", "opt", "SyncWrites") }

// compactOnClose finds the switch by which Badger merges its newest tables when it is
// closed; nil if this version has none there. An option sets it at the open; but a merge
// writes before it frees, and whether there is room for that is known at the close.
func compactOnClose(db *badger.DB) *bool { return switchOf(db, "opt", "CompactL0OnClose") }

func switchOf(db *badger.DB, path ...string) *bool {
	f := reflect.ValueOf(db).Elem()
	for _, name := range path {
		if f.Kind() != reflect.Struct {
			return nil
		}
		f = f.FieldByName(name)
	}
	if f.Kind() != reflect.Bool {
		return nil
	}
	return (*bool)(f.Addr().UnsafePointer())
}

// mergeAtClose lets Badger merge its newest tables at the close where there is room:
// each commit leaves a head and the records of the logs that it changed, and of a log
// that is written one operation at a time these are as much as its blocks until a merge
// drops the older ones. Where damage was found all files stay as they are: a repair looks
// in the older ones too.
func (s *Store) mergeAtClose() {
	merge := compactOnClose(s.db)
	if merge == nil || s.failure.Load() != nil || len(s.Damaged()) > 0 {
		return
	}
	// What is merged is the newest tables, some memtables' worth of them, and those below
	// with the same keys, of which the first level has about as much.
	const newest = (numLevelZero + 2) * memTableSize
	*merge = checkSpace(&s.opt, 2*newest) == nil
}
