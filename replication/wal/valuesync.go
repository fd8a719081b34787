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
func valueSync(db *badger.DB) *bool {
	f := reflect.ValueOf(db).Elem()
	for _, name := range []string{"vlog", "opt", "SyncWrites"} {
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
