package wal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unsynced counts the pages of Badger's logs, by file extension, that the kernel
// has not written to the disk yet. In a value log two do not count: the head, which
// Badger does not need where nothing is encrypted, and the one that a finished log
// ends in, which it cuts after it synced it.
func unsynced(t *testing.T, s *Store) map[string]uint64 {
	t.Helper()
	n := map[string]uint64{}
	page := uint64(os.Getpagesize())
	for _, ext := range []string{".mem", ".vlog"} {
		paths, err := listFiles(filepath.Join(s.opt.Dir, dbDir), ext)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			f, err := os.Open(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a memtable that has become a table
			}
			if err != nil {
				t.Fatal(err)
			}
			var all unix.CachestatRange
			if ext == ".vlog" {
				all.Off, all.Len = page, uint64(fileSize(t, f))/page*page-page
			}
			var stat unix.Cachestat_t
			err = unix.Cachestat(uint(f.Fd()), &all, &stat, 0)
			if err := errors.Join(err, f.Close()); err != nil {
				unsyncedUnknown(t, err.Error())
			}
			n[ext] += stat.Dirty + stat.Writeback
		}
	}
	return n
}

func unsyncedUnknown(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("cannot ask the kernel what is not on the disk yet: %s", why)
	}
	t.Skipf("NOT TESTED: that a commit is on the disk. Linux 6.5 and a real file system are needed: %s", why)
}

// TestNothingUnsynced: once an append has returned, nothing of it waits to be
// written to the disk (G1), be its block small or large, and also where Badger has
// gone on to a new memtable or value log.
func TestNothingUnsynced(t *testing.T) {
	small, medium, large := strings.Repeat("s", 200), strings.Repeat("m", valueThreshold*9/10), strings.Repeat("l", 1<<20-4096)
	relaxed := openAt(t, t.TempDir(), "a", func(o *Options) { o.Relaxed = true })
	mustAppend(t, relaxed, put("k", medium))
	mustAppend(t, relaxed, put("k", large))
	if n := unsynced(t, relaxed); n[".mem"] == 0 || n[".vlog"] == 0 {
		unsyncedUnknown(t, "the file system of the tests keeps no count")
	}
	s := openAt(t, t.TempDir(), "a")
	for _, x := range []struct {
		value string
		times int
	}{{small, 20}, {medium, memTableSize/len(medium) + 20}, {small, 5}, {large, 64 + 6}, {small, 5}} {
		for i := range x.times {
			mustAppend(t, s, put("k", x.value))
			if n := unsynced(t, s); n[".mem"]+n[".vlog"] > 0 {
				t.Fatalf("append %d of %d bytes has returned, and pages are not on the disk: %v", i, len(x.value), n)
			}
		}
	}
}

// TestValueSync: an update of Badger that moves the switch costs a sync a commit.
func TestValueSync(t *testing.T) {
	s := openAt(t, t.TempDir(), "a")
	if s.valueSync == nil {
		t.Fatal("Badger syncs an idle value log again: see valueSync")
	}
	mustAppend(t, s, put("k", "small"))
	if *s.valueSync {
		t.Error("the value log was synced for a commit that wrote nothing to it")
	}
	mustAppend(t, s, put("k", strings.Repeat("l", valueThreshold)))
	if !*s.valueSync {
		t.Error("the value log was not synced")
	}
}
