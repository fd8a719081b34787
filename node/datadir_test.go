package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"vixp2p/replication"
)

func TestDataDirHasOneNetworkForLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	id, err := openDataDir(dir, "dev")
	if err != nil || id != replication.OpenNetwork("dev") {
		t.Fatalf("first open: %s, %v", id, err)
	}
	if _, err := openDataDir(dir, "dev"); err != nil {
		t.Fatalf("second open: %v", err)
	}
	_, err = openDataDir(dir, "other")
	var other *OtherNetworkError
	if !errors.As(err, &other) || !strings.Contains(err.Error(), `"dev"`) || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("another network: %v", err)
	}
}

func TestDataDirOfNewerFormat(t *testing.T) {
	dir := t.TempDir()
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, formatFile), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("vix-node 2\n")
	if _, err := openDataDir(dir, "dev"); !errors.Is(err, replication.ErrTooNew) {
		t.Errorf("a newer format: %v", err)
	}
	for _, bad := range []string{"", "vix-node", "vix-node x", "vix-node 0", "another 1"} {
		write(bad)
		if _, err := openDataDir(dir, "dev"); err == nil || errors.Is(err, replication.ErrTooNew) {
			t.Errorf("format file %q: %v", bad, err)
		}
	}
}

func TestIdentityIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	const n = 8
	keys := make([][]byte, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			key, err := loadIdentity(dir)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	wg.Wait()
	for i := range keys {
		if !bytes.Equal(keys[i], keys[0]) {
			t.Fatal("two processes that made the identity at once have different ones")
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("files left in the directory: %v, %v", left, err)
	}
	info, err := os.Stat(filepath.Join(dir, identityFile))
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestIdentityIsRefused(t *testing.T) {
	dir := t.TempDir()
	if _, err := loadIdentity(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, identityFile)
	if runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := loadIdentity(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("a key that the group can read: %v", err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{"", "garbage", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadIdentity(dir); err == nil || !strings.Contains(err.Error(), "cannot be used") {
			t.Errorf("identity %q: %v", bad, err)
		}
	}
}

func TestDefaultDataDir(t *testing.T) {
	t.Setenv("VIX_DATA_DIR", "/somewhere")
	if dir, err := DefaultDataDir("A"); dir != "/somewhere" || err != nil {
		t.Errorf("from the environment: %q, %v", dir, err)
	}
	t.Setenv("VIX_DATA_DIR", "")
	home := t.TempDir()
	for _, name := range []string{"XDG_DATA_HOME", "LocalAppData", "HOME"} {
		t.Setenv(name, home)
	}
	dir, err := DefaultDataDir("A")
	if err != nil || !strings.HasPrefix(dir, home) || !strings.HasSuffix(dir, filepath.Join("vix-node", "A")) {
		t.Errorf("default: %q, %v", dir, err)
	}
	for _, bad := range []string{"..", "a/b", `a\b`, "a\x00", strings.Repeat("x", 65)} {
		if dir, err := DefaultDataDir(bad); err == nil {
			t.Errorf("label %q gives %q", bad, dir)
		}
	}
}
