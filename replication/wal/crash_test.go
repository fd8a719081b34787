package wal

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	r "vixp2p/replication"
)

// The test binary runs itself as a child that writes until it is killed.
const childEnv = "WAL_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		run := child
		if os.Getenv(cutChildEnv) != "" {
			run = cutChild
		}
		if err := run(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child appends from eight writers and prints what was acknowledged: log, seq
// and the operation's payload.
func child(dir string) error {
	s, err := Open(Options{Dir: dir, Network: testNetwork, Key: testKey("a"), eager: true})
	if err != nil {
		return err
	}
	fmt.Println("open", s.Info().Instance, s.Info().Recovered)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				payload := fmt.Sprintf("%d-%d-%d-%s", os.Getpid(), w, i, strings.Repeat("x", rand.IntN(3000)))
				a, err := s.Append(context.Background(), r.Batch{Space: testSpace, Ops: []r.Op{put(strconv.Itoa(w), payload)}})
				if err != nil {
					return
				}
				mu.Lock()
				fmt.Printf("ack %s %d %x\n", a.First.Log, a.First.Seq, sha256.Sum256([]byte(payload)))
				mu.Unlock()
			}
		})
	}
	_, _ = io.ReadAll(os.Stdin) // until the parent closes it
	err = s.Close()
	wg.Wait()
	return err
}

// ledger is what children acknowledged.
type ledger struct {
	acked  map[r.Dot]string
	opened []string
}

// runChild runs a child until it has acknowledged n more appends; then it is
// killed, or stopped cleanly.
func (g *ledger) runChild(t *testing.T, dir string, n int, kill bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch f[0] {
		case "open":
			g.opened = append(g.opened, lines.Text())
		case "ack":
			id, err := r.ParseLogID(f[1])
			if err != nil {
				t.Fatal(err)
			}
			seq, _ := strconv.ParseUint(f[2], 10, 64)
			d := r.Dot{Log: id, Seq: seq}
			if g.acked[d] != "" {
				t.Fatalf("seq %d of log %s was given twice", seq, id.Short())
			}
			g.acked[d] = f[3]
			if n--; n == 0 {
				if kill {
					_ = cmd.Process.Kill()
				} else {
					_ = in.Close()
				}
			}
		}
	}
	if err := cmd.Wait(); err != nil && !kill {
		t.Fatal(err)
	}
	if n > 0 {
		t.Fatal("the child ended early")
	}
}

// check finds every acknowledged operation in the store.
func (g *ledger) check(t *testing.T, s *Store) {
	t.Helper()
	left := len(g.acked)
	for after := uint64(0); after < s.Head(); {
		arrivals, err := s.ReadArrivals(testSpace, after, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(arrivals) == 0 {
			break
		}
		for _, a := range arrivals {
			after = a.Number
			ops, err := r.DecodeBody(a.Block.Header, a.Block.Body)
			if err != nil {
				t.Fatal(err)
			}
			for i, op := range ops {
				want := g.acked[r.Dot{Log: a.Block.Header.Log, Seq: a.Block.Header.FirstSeq + uint64(i)}]
				if want == "" {
					continue // not acknowledged before the kill
				}
				if want != fmt.Sprintf("%x", sha256.Sum256(op.Payload)) {
					t.Fatalf("an acknowledged operation has another content")
				}
				left--
			}
		}
	}
	if left != 0 {
		t.Fatalf("%d of %d acknowledged operations are missing", left, len(g.acked))
	}
}

func newLedger() *ledger { return &ledger{acked: map[r.Dot]string{}} }

// TestKilled kills the process again and again: every acknowledged append is
// there, the epoch and the instance go on (design G1, 4.7).
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	g := newLedger()
	for range 6 {
		g.runChild(t, dir, 50+rand.IntN(200), true)
	}
	logs := map[r.LogID]bool{}
	for d := range g.acked {
		logs[d.Log] = true
	}
	if bootID() != "" && len(logs) != 1 {
		t.Errorf("%d epochs in one boot", len(logs))
	}
	for _, line := range g.opened {
		if f := strings.Fields(line); len(f) != 2 || f[1] != strings.Fields(g.opened[0])[1] {
			t.Errorf("opened as %q after %q", line, g.opened[0])
		}
	}
	s := openAt(t, dir, "a")
	g.check(t, s)
	mustBeWhole(t, s)
}

// copyDir copies as an operator would.
func copyDir(t *testing.T, how, from, to string) {
	t.Helper()
	var cmd *exec.Cmd
	switch how {
	case "cp":
		cmd = exec.Command("cp", "-a", "--sparse=always", from+"/.", to)
	case "tar":
		cmd = exec.Command("sh", "-c", `tar -C "$1" -Scf - . | tar -C "$2" -Sxf -`, "sh", from, to)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", how, err, out)
	}
}

// TestCopies starts copies of a stopped directory, made with cp -a and with tar,
// and the original: no seq is given twice, and all converge (design 4.7).
func TestCopies(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			base := fastDir(t)
			original := filepath.Join(base, "original")
			g := newLedger()
			g.runChild(t, original, 100, killed)
			dirs := []string{original}
			for _, how := range []string{"cp", "tar"} {
				dir := filepath.Join(base, how)
				copyDir(t, how, original, dir)
				dirs = append(dirs, dir)
			}
			instances := map[r.Instance]bool{}
			var stores []*Store
			for i, dir := range dirs {
				g.runChild(t, dir, 50, true) // fails where a seq is given twice
				s := openAt(t, dir, "a")
				instances[s.Info().Instance] = true
				if (i > 0) != strings.Contains(g.opened[len(g.opened)-1], "copied") {
					t.Errorf("%s opened as %q", dir, g.opened[len(g.opened)-1])
				}
				stores = append(stores, s)
			}
			if len(instances) != 3 {
				t.Errorf("%d instances in three directories", len(instances))
			}
			for _, from := range stores {
				for _, to := range stores {
					for _, l := range from.Logs(testSpace) {
						pull(t, from, to, l.Log, 0)
					}
				}
			}
			for _, s := range stores {
				g.check(t, s)
				mustBeWhole(t, s)
				for _, l := range s.Logs(testSpace) {
					if l.Forked {
						t.Error("forked")
					}
				}
			}
		})
	}
}

// TestRolledBack restores older files over a directory, in place and by rename,
// some or all of them: what was acknowledged after is reported as lost, and no
// seq is given twice.
func TestRolledBack(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files []string // what is restored; empty: all
		how   string
		found string
	}{
		{"all by rename", nil, "rename", "restored"},
		{"all in place", nil, "write", ""},
		{"the database by rename", []string{dbDir}, "rename", "missing"},
		{"the database in place", []string{dbDir}, "write", "missing"},
		{"the witness by rename", []string{witnessName}, "rename", "restored"},
		{"the witness in place", []string{witnessName}, "write", "older than the store"},
		{"the lease by rename", []string{leaseName}, "rename", "restored"},
		{"the lease in place", []string{leaseName}, "write", "restored"},
	} {
		if testing.Short() && (tc.how == "write") == (tc.found == "restored") {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			base := fastDir(t)
			dir, old := filepath.Join(base, "dir"), filepath.Join(base, "old")
			g := newLedger()
			g.runChild(t, dir, 50, true)
			copyDir(t, "cp", dir, old)
			g.runChild(t, dir, 50, true)
			restore(t, old, dir, tc.how, tc.files)
			g.runChild(t, dir, 50, true) // fails where a seq is given twice
			line := g.opened[len(g.opened)-1]
			if first := strings.Fields(g.opened[0])[1]; strings.Contains(line, first) {
				t.Errorf("the instance goes on: %q", line)
			}
			if !strings.Contains(line, tc.found) || len(strings.Fields(line)) < 3 {
				t.Errorf("opened as %q, want to hear of %q", line, tc.found)
			}
			mustBeRepaired(t, openAt(t, dir, "a"))
		})
	}
}

// restore brings files of a backup back.
func restore(t *testing.T, from, to, how string, only []string) {
	t.Helper()
	err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(to, path)
		if err != nil || d.IsDir() || (only != nil && !slices.Contains(only, strings.Split(rel, "/")[0])) {
			return err
		}
		if _, err := os.Stat(filepath.Join(from, rel)); errors.Is(err, os.ErrNotExist) {
			return os.Remove(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for rel, f := range takeImage(t, from) {
		if only != nil && !slices.Contains(only, strings.Split(rel, "/")[0]) {
			continue
		}
		target := filepath.Join(to, rel)
		path := target
		if how == "rename" {
			path += ".tmp"
		}
		err := errors.Join(os.WriteFile(path, f.data, 0o600), os.Truncate(path, f.size))
		if err == nil && path != target {
			err = os.Rename(path, target)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
