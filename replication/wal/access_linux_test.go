package wal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestNoPermission opens directories in which this user may not write. Root
// gives up its rights over files for the length of the open, which checks them
// on its own thread before anything else.
func TestNoPermission(t *testing.T) {
	for name, protect := range map[string]string{"the directory": ".", "the database": dbDir, "a table": "*.sst"} {
		t.Run(name, func(t *testing.T) {
			base, err := os.MkdirTemp("", "wal")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(base) })
			dir := filepath.Join(base, "log")
			s := openAt(t, dir, "a")
			mustAppend(t, s, put("k", "v"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, protect)
			if name == "a table" {
				path = onlyFile(t, dir, ".sst")
			}
			err = errors.Join(filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Chmod(p, 0o777)
			}), os.Chmod(path, 0o555))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(path, 0o777) })
			before := takeImage(t, dir)
			err = openUnprivileged(t, dir)
			var access *AccessError
			if !errors.As(err, &access) || !errors.Is(err, fs.ErrPermission) || access.Path != path || access.Owner == "" {
				t.Fatalf("opened with %v", err)
			}
			if said := err.Error(); !strings.Contains(said, path+", which belongs to "+access.Owner) || strings.Contains(said, "\n") {
				t.Errorf("said %q", said)
			}
			after := takeImage(t, dir)
			for name, f := range before {
				if string(after[name].data) != string(f.data) {
					t.Errorf("%s was changed", name)
				}
			}
			if len(after) != len(before) {
				t.Error("files were made or removed")
			}
			if err := os.Chmod(path, 0o777); err != nil {
				t.Fatal(err)
			}
			// The change of mode shows at the lease, and that is all.
			if s := openAt(t, dir, "a"); strings.Contains(s.Info().Recovered, "damage") {
				t.Error(s.Info().Recovered)
			}
		})
	}
}

// openUnprivileged opens a store without the rights of root.
func openUnprivileged(t *testing.T, dir string) error {
	if os.Geteuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		const nobody = 65534
		if err := syscall.Setfsuid(nobody); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = syscall.Setfsuid(0) }()
	}
	s, err := Open(Options{Dir: dir, Network: testNetwork, Key: testKey("a")})
	if err == nil {
		_ = s.Close()
	}
	return err
}
