package wal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
	"vixp2p/replication/logtest"
)

// cutLog limits one log at a position.
func cutLog(id r.LogID, at r.Position) r.Limiter {
	return func(g *r.Genesis) r.LogLimit {
		if g.LogID() == id {
			return r.LogLimit{Allowed: true, Cut: &at, Err: r.ErrRevoked}
		}
		return r.Unlimited
	}
}

func mustRestrict(t testing.TB, s *Store, fn r.Limiter) {
	t.Helper()
	if err := s.Restrict(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// damageEverywhere flips a byte wherever text stands in the files of a stopped
// store.
func damageEverywhere(t *testing.T, dir string, text []byte) {
	t.Helper()
	paths, err := listFiles(filepath.Join(dir, dbDir), "")
	if err != nil {
		t.Fatal(err)
	}
	hits := 0
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; hits++ {
			k := bytes.Index(b[i:], text)
			if k < 0 {
				break
			}
			b[i+k+len(text)/2] ^= 0x40
			i += k + len(text)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if hits == 0 {
		t.Fatalf("%q is in no file", text)
	}
}

// TestCutSurvivesRepair damages a store in which a cut set blocks aside, more than
// once: they are set aside after the repair too, and what is whole of them comes
// back.
func TestCutSurvivesRepair(t *testing.T) {
	const blocks, cut = 12, 6
	text := func(i int) string { return fmt.Sprintf("text of seq %d.", i) }
	for _, tc := range []struct {
		name   string
		damage func(w *logtest.Writer) []byte
		tip    uint64 // after the repair
		lifted uint64 // after that
	}{
		{"before the cut", func(*logtest.Writer) []byte { return []byte(text(3)) }, 2, 2},
		{"beyond the cut", func(*logtest.Writer) []byte { return []byte(text(9)) }, cut, 8},
		{"another log", func(*logtest.Writer) []byte { return []byte("of another log") }, cut, blocks},
		// Nothing tells then which of the cuts was the last: what once was set aside is.
		{"the log's record", func(w *logtest.Writer) []byte { return append([]byte{kindLog}, w.Log[:]...) }, 0, blocks},
	} {
		if testing.Short() && (tc.tip == 2 || tc.tip == cut && tc.lifted == blocks) {
			continue
		}
		for _, clean := range []bool{true, false} {
			for _, size := range []int{100, 80 << 10} {
				if testing.Short() && (!clean || size > 100) {
					continue
				}
				t.Run(fmt.Sprintf("%s, clean=%v, %d bytes", tc.name, clean, size), func(t *testing.T) {
					w := logtest.NewWriter(testNetwork, testSpace, 1)
					for i := range blocks {
						w.Add(put("k", text(i+1)+strings.Repeat("x", size)))
					}
					other := logtest.NewWriter(testNetwork, testSpace, 2)
					other.Add(put("k", "of another log"))
					dir := fastDir(t)
					s := openAt(t, dir, "a")
					for i := range blocks {
						ingest(s, w.Run(t, i, i+1))
					}
					for _, fn := range []r.Limiter{cutLog(w.Log, w.Pos(2)), nil, cutLog(w.Log, w.Pos(cut))} {
						mustRestrict(t, s, fn)
					}
					ingest(s, other.Run(t, 0, 1))
					if clean { // and compacted, so that no older version is left
						if err := s.Close(); err != nil {
							t.Fatal(err)
						}
						db, err := badger.Open(badgerOptions(&s.opt, filepath.Join(dir, dbDir), s.dblog).WithCompactL0OnClose(true))
						if err != nil {
							t.Fatal(err)
						}
						if err := db.Close(); err != nil {
							t.Fatal(err)
						}
					} else {
						img := takeImage(t, dir)
						dir = fastDir(t)
						img.write(t, dir)
					}
					damageEverywhere(t, dir, tc.damage(w))
					// Damage in a value log that is not the last is found by a read.
					if err := os.WriteFile(filepath.Join(dir, repairName), nil, 0o600); err != nil {
						t.Fatal(err)
					}
					s = openAt(t, dir, "a")
					if s.Info().Recovered == "" {
						t.Fatal("nothing was repaired")
					}
					l, _ := s.Log(w.Log)
					if l.Tip.Seq != tc.tip && tc.tip > 0 {
						t.Fatalf("the log ends at %d, want %d (%s)", l.Tip.Seq, tc.tip, s.Info().Recovered)
					}
					if want := tc.lifted - l.Tip.Seq; l.SetAside != want {
						t.Errorf("%d operations are set aside, want %d", l.SetAside, want)
					}
					if lost := s.Lost(); lost.Note != "" {
						t.Errorf("the note says %q", lost.Note)
					}
					mustBeRepaired(t, s)
					mustRestrict(t, s, nil)
					if l, _ := s.Log(w.Log); l.Tip.Seq != tc.lifted {
						t.Fatalf("lifted, the log ends at %d, want %d", l.Tip.Seq, tc.lifted)
					}
					if tc.lifted < blocks { // a peer sends what is missing
						if res := ingest(s, w.Run(t, int(tc.lifted), int(tc.lifted)+1)); res.Code != r.Committed {
							t.Fatalf("%+v", res)
						}
						if err := s.SetMeta(context.Background(), "wait for", []byte("the committer")); err != nil {
							t.Fatal(err)
						}
					}
					if l, _ := s.Log(w.Log); l.Tip != w.Tip() || l.SetAside != 0 {
						t.Errorf("in the end the log is at %d, %d set aside", l.Tip.Seq, l.SetAside)
					}
					mustBeRepaired(t, s)
				})
			}
		}
	}
}

// TestRestrictWaits: what waits aside because of damage does not join beyond a cut,
// and has joined when Restrict returns that lets it.
func TestRestrictWaits(t *testing.T) {
	w := logtest.NewWriter(testNetwork, testSpace, 1)
	for i := range 8 {
		w.Add(put("k", fmt.Sprintf("text of seq %d.", i+1)))
	}
	dir := fastDir(t)
	s := openAt(t, dir, "a")
	for i := range 8 {
		ingest(s, w.Run(t, i, i+1))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damageEverywhere(t, dir, []byte("text of seq 3."))
	s = openAt(t, dir, "a")
	mustRestrict(t, s, cutLog(w.Log, w.Pos(5)))
	ingest(s, w.Run(t, 2, 3))
	if err := s.SetMeta(context.Background(), "wait for", []byte("the committer")); err != nil {
		t.Fatal(err)
	}
	mustEndAt(t, s, w, 5)
	mustRestrict(t, s, nil)
	mustEndAt(t, s, w, 8)
}

// TestRestrictTakesBackAll: also what damage set aside behind blocks that a cut did,
// where these take several transactions to come back.
func TestRestrictTakesBackAll(t *testing.T) {
	const blocks, cut = 14, 12
	w := logtest.NewWriter(testNetwork, testSpace, 1)
	for i := range blocks {
		w.Add(put("k", fmt.Sprintf("text of seq %d.", i+1)+strings.Repeat("x", 900<<10)))
	}
	dir := fastDir(t)
	s := openAt(t, dir, "a")
	for i := range blocks {
		ingest(s, w.Run(t, i, i+1))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damageEverywhere(t, dir, []byte("text of seq 2."))
	s = openAt(t, dir, "a")
	mustRestrict(t, s, cutLog(w.Log, w.Pos(cut)))
	ingest(s, w.Run(t, 1, 2))
	mustRestrict(t, s, cutLog(w.Log, w.Pos(cut))) // comes after what the run let join
	mustEndAt(t, s, w, cut)
	mustRestrict(t, s, cutLog(w.Log, w.Pos(3)))
	mustEndAt(t, s, w, 3)
	mustRestrict(t, s, nil)
	mustEndAt(t, s, w, blocks)
}

func mustEndAt(t *testing.T, s *Store, w *logtest.Writer, seq int) {
	t.Helper()
	if l, _ := s.Log(w.Log); l.Tip != w.Pos(seq) {
		t.Errorf("the log ends at %d, want %d", l.Tip.Seq, seq)
	}
	mustBeRepaired(t, s)
}

// cutChildEnv makes the child cut and lift instead of append.
const cutChildEnv = "WAL_TEST_CHILD_CUT"

// cutChild cuts most of all logs and lifts that, again and again, and prints each change of a log.
func cutChild(dir string) error {
	s, err := Open(Options{Dir: dir, Network: testNetwork, Key: testKey("a")})
	if err != nil {
		return err
	}
	s.Subscribe(func(a r.Advance) { fmt.Println(a.Log.Short(), a.Tip.Seq) })
	low := func(*r.Genesis) r.LogLimit {
		return r.LogLimit{Allowed: true, Cut: &r.Position{Seq: 5}, Err: r.ErrRevoked}
	}
	for {
		for _, fn := range []r.Limiter{low, nil} {
			if err := s.Restrict(context.Background(), fn); err != nil {
				return err
			}
		}
	}
}

// TestKilledWhileCutting kills a process between, or in, the transactions of a cut
// or of its lifting: nothing is lost, and the next Restrict completes it.
func TestKilledWhileCutting(t *testing.T) {
	logs, rounds := 3, 4
	if testing.Short() {
		rounds = 1
	}
	dir := fastDir(t)
	s := openAt(t, dir, "a")
	var writers []*logtest.Writer
	for i := range logs {
		w := logtest.NewWriter(testNetwork, testSpace, uint64(i+1))
		for k := range 40 {
			op := put("k", fmt.Sprint(k, strings.Repeat("x", 100<<10)))
			if k%3 == 2 {
				w.Add(op)
			} else {
				w.AddUnsigned(op)
			}
		}
		w.Add(put("k", "last"))
		for k := 0; k < w.Len(); k += 3 {
			if res := ingest(s, w.Run(t, k, min(k+3, w.Len()))); res.Code != r.Committed {
				t.Fatalf("%+v", res)
			}
		}
		writers = append(writers, w)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range rounds {
		killWhileCutting(t, dir, 2+3*round)
		s := openAt(t, dir, "a")
		mustBeWhole(t, s)
		if s.Info().Recovered != "" {
			t.Errorf("recovered: %s", s.Info().Recovered)
		}
		for _, w := range writers {
			l, _ := s.Log(w.Log)
			if l.Tip.Seq+l.SetAside != w.Tip().Seq {
				t.Fatalf("%d operations and %d set aside of %d", l.Tip.Seq, l.SetAside, w.Tip().Seq)
			}
		}
		if round%2 == 0 {
			mustRestrict(t, s, func(*r.Genesis) r.LogLimit {
				return r.LogLimit{Allowed: true, Cut: &r.Position{Seq: 10}, Err: r.ErrRevoked}
			})
			for _, w := range writers {
				if l, _ := s.Log(w.Log); l.Tip != w.Pos(9) || l.SetAside != w.Tip().Seq-9 {
					t.Errorf("the log ends at %d, %d set aside", l.Tip.Seq, l.SetAside)
				}
			}
			mustBeWhole(t, s)
		}
		mustRestrict(t, s, nil)
		for _, w := range writers {
			if l, _ := s.Log(w.Log); l.Tip != w.Tip() || l.SetAside != 0 {
				t.Errorf("the log ends at %d, %d set aside", l.Tip.Seq, l.SetAside)
			}
		}
		mustBeWhole(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killWhileCutting kills a cutting child after it told of n changes.
func killWhileCutting(t *testing.T, dir string, n int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, cutChildEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n--; n == 0 {
			_ = cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); err == nil || n > 0 {
		t.Fatalf("the child ended early: %v", err)
	}
}

// TestReadsBesideCuts reads while blocks go and come: whatever is read is whole,
// and never taken for damage.
func TestReadsBesideCuts(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	s := openAt(t, fastDir(t), "a")
	w := logtest.NewWriter(testNetwork, testSpace, 1)
	w.AddMany(30)
	for i := range 30 {
		ingest(s, w.Run(t, i, i+1))
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	reader := func(read func() error) {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := read(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	reader(func() error {
		run, err := s.ReadRun(w.Log, r.Position{}, 0)
		if err != nil || run.End != w.Pos(int(run.End.Seq)) {
			return fmt.Errorf("a run up to %v: %w", run.End, err)
		}
		return nil
	})
	reader(func() error {
		for after := uint64(0); ; {
			list, err := s.ReadArrivals(testSpace, after, 2000)
			if err != nil || len(list) == 0 {
				return err
			}
			after = list[len(list)-1].Number
		}
	})
	reader(func() error {
		_, err := s.BytesAfter(w.Log, 20)
		return err
	})
	reader(func() error {
		_, err := s.RunCovering(w.Log, 20)
		return err
	})
	for i := range rounds {
		mustRestrict(t, s, cutLog(w.Log, w.Pos(1+i%20)))
		mustAppend(t, s, put("k", "v"))
		mustRestrict(t, s, nil)
	}
	close(done)
	wg.Wait()
	if d := s.Damaged(); len(d) > 0 {
		t.Errorf("damaged: %v", d[0])
	}
	mustBeWhole(t, s)
}

// TestAppendBetweenSteps: a long cut does not hold up appends.
func TestAppendBetweenSteps(t *testing.T) {
	s := openAt(t, fastDir(t), "a")
	w := logtest.NewWriter(testNetwork, testSpace, 1)
	for range 20 {
		w.Add(put("k", strings.Repeat("x", 900<<10)))
	}
	for i := range w.Len() {
		ingest(s, w.Run(t, i, i+1))
	}
	appended := make(chan error, 1)
	var once sync.Once
	var order []string
	s.Subscribe(func(a r.Advance) {
		order = append(order, fmt.Sprint(a.Log == w.Log))
		once.Do(func() {
			req, err := newAppend(r.Batch{Space: testSpace, Ops: []r.Op{put("k", "v")}})
			if err == nil {
				err = s.queue.pushLocal(context.Background(), req)
			}
			appended <- err
		})
	})
	mustRestrict(t, s, cutLog(w.Log, r.Position{}))
	if err := <-appended; err != nil {
		t.Fatal(err)
	}
	if len(order) < 3 || order[1] != "false" || order[len(order)-1] != "true" {
		t.Errorf("of the log that was cut: %v", order)
	}
}

// TestRestrictRefused: a full disk refuses a cut, and the next Restrict completes it.
func TestRestrictRefused(t *testing.T) {
	full := false
	s := openAt(t, fastDir(t), "a", func(o *Options) {
		o.FreeBytes = func(string) (uint64, error) {
			if full {
				return 1 << 20, nil
			}
			return 1 << 40, nil
		}
	})
	w := logtest.NewWriter(testNetwork, testSpace, 1).AddMany(3)
	ingest(s, w.Run(t, 0, 3))
	full = true
	fn := cutLog(w.Log, r.Position{})
	if err := s.Restrict(context.Background(), fn); !errors.Is(err, r.ErrNoSpace) {
		t.Errorf("on a full disk: %v", err)
	}
	full = false
	mustRestrict(t, s, fn)
	if l, _ := s.Log(w.Log); l.Tip.Seq != 0 || l.SetAside != 3 {
		t.Errorf("%+v", l)
	}
	mustBeWhole(t, s)
}
