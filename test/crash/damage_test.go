package crash

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vixp2p/test/internal/proc"
)

// TestDamagedLogIsFetchedBack flips bytes of a log file after a kill -9. The
// node finds it, says so, and has everything again from its peer.
func TestDamagedLogIsFetchedBack(t *testing.T) {
	rng := seeded(t)
	a := proc.New(t, "A").Start()
	b := proc.New(t, "B", "--connect", a.Addr()).Start()
	l := startLoad(t, a, 0, 3000)
	for l.next(t) {
	}
	if err := l.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	proc.Converged(t, a, b)
	a.Kill()

	file := largestFile(t, filepath.Join(a.Dir, "log"))
	used := usedBytes(t, file)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	at := used/4 + rng.Int64N(used/2)
	var one [1]byte
	if _, err := f.ReadAt(one[:], at); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 1 << rng.IntN(8)
	if _, err := f.WriteAt(one[:], at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("flipped a bit of %s at %d of %d", filepath.Base(file), at, used)

	a.Start()
	proc.Converged(t, a, b)
	checkKeys(t, a, 3000)
	checkTail(t, a)
	told := strings.ToLower(a.Stderr())
	if !strings.Contains(told, "damage") && !strings.Contains(told, "lost") {
		t.Errorf("A did not tell of the damage:\n%s", a.Stderr())
	}
	if r := a.Run("verify", "--json"); r.Code != 0 {
		t.Errorf("verify after the repair: exit %d\n%s", r.Code, r.Stdout)
	}
	// What A writes now is a new log: the seqs that it lost are not used again.
	a.OK("put", "after", "the repair")
	proc.Converged(t, a, b)
	checkTail(t, b)
}

// largestFile is the file below dir with the most bytes that were written.
func largestFile(t *testing.T, dir string) string {
	t.Helper()
	var name string
	var most int64
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if n := usedBytes(t, path); n > most {
			name, most = path, n
		}
		return nil
	})
	if err != nil || name == "" {
		t.Fatalf("no file in %s: %v", dir, err)
	}
	return name
}

// usedBytes is the file's length without the zeros at its end: the store's files
// are allocated ahead.
func usedBytes(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return int64(n)
}
