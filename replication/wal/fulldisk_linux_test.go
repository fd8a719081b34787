package wal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	r "vixp2p/replication"
)

// TestRealFullDisk fills a small file system of its own. Without the right to
// mount one TestFullDisk stands for it.
func TestRealFullDisk(t *testing.T) {
	mnt := t.TempDir()
	if err := syscall.Mount("tmpfs", mnt, "tmpfs", 0, "size=160m"); err != nil {
		t.Logf("not allowed to mount (%v): TestFullDisk covers the refusal", err)
		return
	}
	t.Cleanup(func() { _ = syscall.Unmount(mnt, syscall.MNT_DETACH) })
	s := openAt(t, filepath.Join(mnt, "s"), "a")
	ctx := context.Background()
	payload := strings.Repeat("x", 200<<10)
	acked := 0
	var err error
	for range 2000 {
		if _, err = s.Append(ctx, r.Batch{Space: testSpace, Ops: []r.Op{put("k", payload)}}); err != nil {
			break
		}
		acked++
	}
	wantErr(t, err, r.ErrNoSpace, mnt)
	if acked < 50 {
		t.Errorf("refused after %d appends", acked)
	}
	// The rest of the disk fills up, too: still no crash, and reads go on.
	filler := filepath.Join(mnt, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 1<<20))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, r.Batch{Space: testSpace, Ops: []r.Op{put("k", "small")}}); !errors.Is(err, r.ErrNoSpace) {
		t.Error(err)
	}
	mustBeWhole(t, s)
	// A nearly full disk is opened to be read.
	if err := errors.Join(f.Truncate(fileSize(t, f)-minOpenBytes-(2<<20)), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, filepath.Join(mnt, "s"), "a")
	if _, err := s.Append(ctx, r.Batch{Space: testSpace, Ops: []r.Op{put("k", "small")}}); !errors.Is(err, r.ErrNoSpace) {
		t.Error(err)
	}
	mustBeWhole(t, s)
	if err := errors.Join(f.Close(), os.Remove(filler), syscall.Mount("", mnt, "", syscall.MS_REMOUNT, "size=400m")); err != nil {
		t.Fatal(err)
	}
	if a := mustAppend(t, s, put("k", "after")); a.First.Seq != uint64(acked)+1 {
		t.Errorf("seq %d after %d acknowledged", a.First.Seq, acked)
	}
	mustBeWhole(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustBeWhole(t, openAt(t, filepath.Join(mnt, "s"), "a"))
}

func fileSize(t *testing.T, f *os.File) int64 {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}
