package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"vixp2p/replication"
)

// settled opens a data directory as Open does where there is no store yet.
func settled(dir, network string) error {
	d, err := openDataDir(dir, openNetwork(network))
	if err != nil {
		return err
	}
	return d.settle()
}

func TestDataDirHasOneNetworkForLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if err := settled(dir, "dev"); err != nil {
			t.Fatal(err)
		}
	}
	name, ok, err := DataDirNetwork(dir)
	if name != "dev" || !ok || err != nil {
		t.Errorf("the network is %q, %v, %v", name, ok, err)
	}
	_, err = openDataDir(dir, openNetwork("other"))
	var other *OtherNetworkError
	if !errors.As(err, &other) || !strings.Contains(err.Error(), `"dev"`) || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("another network: %v", err)
	}
}

// written makes a data directory with one key and returns it.
func written(t *testing.T, network string) string {
	t.Helper()
	dir := t.TempDir()
	n, err := Open(t.Context(), Config{DataDir: dir, NetworkName: network, Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	put(t, n, "k", "1")
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestNetworkFileIsMissing: the data tell which network is right; only then is
// the file written again.
func TestNetworkFileIsMissing(t *testing.T) {
	t.Parallel()
	dir := written(t, "foo")
	remove(t, dir, networkFile)
	remove(t, dir, formatFile)
	before := names(t, dir)
	if name, ok, err := DataDirNetwork(dir); name != "" || !ok || err != nil {
		t.Errorf("the network is %q, %v, %v", name, ok, err)
	}
	_, err := Open(t.Context(), Config{DataDir: dir, Offline: true})
	var other *OtherNetworkError
	if !errors.As(err, &other) || !strings.Contains(err.Error(), "network name that it had") {
		t.Errorf("with the default network: %v", err)
	}
	if after := names(t, dir); !slices.Equal(after, before) {
		t.Errorf("a refused start changed %v to %v", before, after)
	}
	n := open(t, Config{DataDir: dir, NetworkName: "foo", Offline: true})
	if _, err := n.Space("").Get(t.Context(), "k"); err != nil {
		t.Error(err)
	}
	if name, ok, err := DataDirNetwork(dir); name != "foo" || !ok || err != nil {
		t.Errorf("the network is %q, %v, %v", name, ok, err)
	}
}

// TestIdentityIsMissing: no new key takes the place of the one that wrote the
// data.
func TestIdentityIsMissing(t *testing.T) {
	t.Parallel()
	dir := written(t, "dev")
	remove(t, dir, identityFile)
	for range 2 {
		if _, err := Open(t.Context(), Config{DataDir: dir, Offline: true}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "bring the file back") {
			t.Errorf("open without the key: %v", err)
		}
		if slices.Contains(names(t, dir), identityFile) {
			t.Error("a new key was made")
		}
	}
}

// TestLogsAreGone: a node whose logs have disappeared does not start as an empty
// one, unless that is wished.
func TestLogsAreGone(t *testing.T) {
	t.Parallel()
	dir := written(t, "dev")
	if err := os.Rename(filepath.Join(dir, logDir), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	for _, empty := range []bool{false, true} { // as where nothing is mounted
		if empty {
			if err := os.Mkdir(filepath.Join(dir, logDir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Open(t.Context(), Config{DataDir: dir, Offline: true})
		if gone, ok := errors.AsType[*LogsGoneError](err); !ok || gone.Dir != dir || !errors.Is(err, replication.ErrDamaged) {
			t.Errorf("open without logs: %v", err)
		}
		if begun, err := os.ReadDir(filepath.Join(dir, logDir)); len(begun) > 0 || err == nil != empty {
			t.Errorf("new logs are begun: %v, %v", begun, err)
		}
	}
	remove(t, dir, logDir)
	if err := os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, logDir)); err != nil {
		t.Fatal(err)
	}
	n := open(t, Config{DataDir: dir, Offline: true})
	if e, err := n.Space("").Get(deadline(t), "k"); err != nil || string(e.Value) != "1" {
		t.Errorf("they are back: %q, %v", e.Value, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, logDir)), os.RemoveAll(filepath.Join(dir, viewDir))); err != nil {
		t.Fatal(err)
	}
	put(t, open(t, Config{DataDir: dir, Offline: true}), "k", "2")
}

// TestForeignDirectory: a node is not made among files that are not its own.
func TestForeignDirectory(t *testing.T) {
	t.Parallel()
	for name, fine := range map[string]bool{
		"thesis.doc": false, "lost+found": true, identityFile: true, "." + networkFile + ".123": true, "api.token.1.tmp": true,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := openDataDir(dir, openNetwork("dev"))
		if fine && err != nil || !fine && (err == nil || !strings.Contains(err.Error(), "is not empty")) {
			t.Errorf("beside %s: %v", name, err)
		}
		if after := names(t, dir); len(after) != 1 {
			t.Errorf("the directory has %v", after)
		}
		if fine && err == nil {
			// Once it is a data directory anything may lie beside.
			if err := d.settle(); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
				t.Error(err)
			}
			if err := settled(dir, "dev"); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestPermissionProblem(t *testing.T) {
	for _, c := range []struct {
		cause error
		want  []string
	}{
		{&fs.PathError{Op: "remove", Path: "/d/log/db/DISCARD", Err: syscall.EACCES}, []string{"may not read and write /d/log/db/DISCARD", "data directory /d,"}},
		{syscall.EPERM, []string{"may not read and write /d (permission denied)"}},
		{&fs.PathError{Op: "open", Path: "/d/log/lock", Err: syscall.EROFS}, []string{"cannot write /d/log/lock", "read-only"}},
	} {
		err := permissionProblem("/d", fmt.Errorf("cannot: %w", c.cause))
		for _, want := range c.want {
			if !errors.Is(err, c.cause) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not tell %q", err, want)
			}
		}
	}
	if err := permissionProblem("/d", ErrNoSpace); err.Error() != ErrNoSpace.Error() {
		t.Errorf("another error becomes %v", err)
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
	if _, err := openDataDir(dir, openNetwork("dev")); !errors.Is(err, replication.ErrTooNew) || !strings.HasSuffix(err.Error(), "knows 1: upgrade this program") {
		t.Errorf("a newer format: %v", err)
	}
	for _, bad := range []string{"", "vix-node", "vix-node x", "vix-node 0", "another 1"} {
		write(bad)
		if _, err := openDataDir(dir, openNetwork("dev")); err == nil || errors.Is(err, replication.ErrTooNew) {
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
			key, err := (&dataDir{path: dir}).loadIdentity()
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
	if _, err := (&dataDir{path: dir}).loadIdentity(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, identityFile)
	if runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := (&dataDir{path: dir}).loadIdentity(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
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
		if _, err := (&dataDir{path: dir}).loadIdentity(); err == nil || !strings.Contains(err.Error(), "cannot be used") {
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
