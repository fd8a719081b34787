//go:build linux

// Package disk tests a full disk with a real, small file system.
package disk

import (
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vixp2p/test/internal/proc"
)

func TestMain(m *testing.M) { proc.Main(m) }

// records gives n records of about 60 KiB that do not compress.
func records(prefix string, n int) io.Reader {
	rng := rand.New(rand.NewPCG(1, 2))
	r, w := io.Pipe()
	go func() {
		raw := make([]byte, 45<<10)
		for i := range n {
			for j := range raw {
				raw[j] = byte(rng.Uint32())
			}
			if _, err := fmt.Fprintf(w, "{\"key\":\"%s/%d\",\"value\":%q}\n", prefix, i, base64.StdEncoding.EncodeToString(raw)); err != nil {
				return
			}
		}
		_ = w.Close()
	}()
	return r
}

// free is how many bytes of a file system are free.
func free(t *testing.T, mnt string) uint64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(mnt, &st); err != nil {
		t.Fatal(err)
	}
	return st.Bavail * uint64(st.Bsize)
}

// fillUpTo makes a file grow until no more than limit bytes are free.
func fillUpTo(t *testing.T, mnt string, limit uint64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(mnt, "filler"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for free(t, mnt) > limit {
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullDisk fills the file system of a running node. Writes are refused with
// one clear sentence, what was acknowledged stays readable, the node stays up,
// and it takes writes again by itself when there is room.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: a full disk needs a file system of its own, and mounting one needs root")
	}
	mnt := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", mnt, "tmpfs", 0, "size=256m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mount: %v", err)
		}
		t.Skipf("NOT TESTED: cannot mount a small file system here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mnt, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	a := proc.New(t, "A")
	a.Dir = filepath.Join(mnt, "A")
	a.Start()
	t.Cleanup(func() { // before the file system goes
		if a.Running() {
			a.Kill()
		}
	})
	a.OK("put", "before", "kept")

	r := a.RunInput(records("big", 8000), "load", "-")
	if r.Code != 1 {
		t.Fatalf("a load of 480 MB into 256 MB: exit %d\n%s", r.Code, r.Stderr)
	}
	if !strings.Contains(r.Stderr, "disk full") {
		t.Errorf("the refusal does not say why: %q", r.Stderr)
	}
	if !a.Running() {
		t.Fatalf("the node died on a full disk:\n%s", a.Stderr())
	}
	// A block of the load that did not fit leaves room for smaller ones. Badger may
	// just now turn a memtable into a table, and give room back in the middle of this:
	// only what happens while the disk stays full counts.
	const full = 60 << 20
	for range 20 {
		fillUpTo(t, mnt, full)
		r = a.Run("put", "refused", strings.Repeat("x", 1000))
		if r.Code != 0 || free(t, mnt) <= full {
			break
		}
	}
	if r.Code != 1 || strings.Count(strings.TrimSpace(r.Stderr), "\n") != 0 {
		t.Errorf("put on a full disk: exit %d, %q", r.Code, r.Stderr)
	}
	if got := a.OK("get", "before"); got != "kept" {
		t.Errorf("what was there before reads %q", got)
	}

	if err := syscall.Mount("tmpfs", mnt, "tmpfs", syscall.MS_REMOUNT, "size=1g"); err != nil {
		t.Fatal(err)
	}
	a.OK("put", "after", "there is room")

	// A peer gets all of it, and the node survives a kill in this state.
	a.Kill()
	a.Start()
	b := proc.New(t, "B", "--connect", a.Addr()).Start()
	proc.Converged(t, a, b)
	if got := b.OK("get", "after"); got != "there is room" {
		t.Errorf("B reads %q", got)
	}
	if r := a.Run("verify", "--json"); r.Code != 0 {
		t.Errorf("verify: exit %d\n%s", r.Code, r.Stdout)
	}
}
