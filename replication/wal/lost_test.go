package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	r "vixp2p/replication"
)

// largeLog fills a log with n blocks that stand in the value log, and smaller
// ones of another space between them if mixed is set.
func largeLog(t *testing.T, s *Store, n int, mixed bool) (id r.LogID) {
	t.Helper()
	for i := range n {
		id = mustAppend(t, s, put("k", fmt.Sprintf("text %d %s", i, strings.Repeat("abc", 30<<10)))).First.Log
		if mixed {
			b := r.Batch{Space: r.SpaceOf(testNetwork, "other"), Ops: []r.Op{put("k", "small")}}
			if _, err := s.Append(context.Background(), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	return id
}

// onlyFile is the one file of the database with an extension.
func onlyFile(t *testing.T, dir, ext string) string {
	t.Helper()
	paths, err := listFiles(filepath.Join(dir, dbDir), ext)
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	return paths[0]
}

func removeTables(t *testing.T, dir string) {
	t.Helper()
	tables, err := listFiles(filepath.Join(dir, dbDir), ".sst")
	for _, path := range tables {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func flipByte(t *testing.T, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += int64(len(b))
	}
	b[at] ^= 0x40
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLossStaysTold: what a repair could not keep is a finding of every verify,
// in this process and later ones, until a peer has sent it.
func TestLossStaysTold(t *testing.T) {
	dir := fastDir(t)
	a, b := openAt(t, dir, "a"), openAt(t, fastDir(t), "b")
	id := largeLog(t, a, 5, false)
	before, _ := a.Log(id)
	pull(t, a, b, id, 0)
	if lost := a.Lost(); lost.Any() || lost.String() != "" {
		t.Errorf("lost: %+v", lost)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	damageBytes(t, dir, "text 2 abcabc")
	for i := range 2 {
		a = openAt(t, dir, "a")
		if recovered := a.Info().Recovered != ""; recovered != (i == 0) {
			t.Errorf("open %d: %q", i, a.Info().Recovered)
		}
		lost, found := a.Lost(), verify(t, a)
		if len(lost.Logs) != 1 || lost.Logs[0] != (LostLog{id, 2, before.Tip.Seq}) || lost.Note != "" || !strings.Contains(lost.String(), lost.Dir) {
			t.Fatalf("open %d: %+v", i, lost)
		}
		if len(found) != 1 || found[0].Log != id || found[0].Seq != 3 || found[0].File != lost.Dir {
			t.Fatalf("open %d: %+v", i, found)
		}
		if len(a.Damaged()) > 0 {
			t.Error("the loss counts as damage that a repair mends")
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a = openAt(t, dir, "a")
	pull(t, b, a, id, 0)
	mustBeWhole(t, a)
	if a.Lost().Logs != nil {
		t.Error("still lost:", a.Lost())
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = openAt(t, dir, "a")
	mustBeWhole(t, a)
	if _, kept := a.others[string(keyLost)]; kept {
		t.Error("the record of the loss is kept")
	}
}

// TestLossIsDismissed: removing the damaged database says that nothing is
// missed; a later repair does not bring the old loss up again.
func TestLossIsDismissed(t *testing.T) {
	for _, dismiss := range []bool{true, false} {
		dir := fastDir(t)
		a := openAt(t, dir, "a")
		first := largeLog(t, a, 3, false)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		damageBytes(t, dir, "text 1 abcabc")
		a = openAt(t, dir, "a")
		if !strings.Contains(a.Info().Recovered, "1 log ends earlier than it did") {
			t.Error(a.Info().Recovered)
		}
		second := largeLog(t, a, 6, false)
		lost := a.Lost()
		if dismiss {
			if err := os.RemoveAll(lost.Dir); err != nil {
				t.Fatal(err)
			}
			mustBeWhole(t, a)
			lost = a.Lost()
			if lost.Any() {
				t.Error("dismissed:", lost.String())
			}
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		damageBytes(t, dir, "text 4 abcabc")
		a = openAt(t, dir, "a")
		want := map[r.LogID]uint64{second: 6}
		if !dismiss {
			want[first] = 3
		}
		got := map[r.LogID]uint64{}
		lost = a.Lost()
		for _, l := range lost.Logs {
			got[l.Log] = l.Held
		}
		if !maps.Equal(got, want) || lost.Note != "" {
			t.Errorf("dismissed %v: %+v", dismiss, lost)
		}
		if kept, _ := filepath.Glob(filepath.Join(dir, damagedDir+"-*")); len(kept) != 1 {
			t.Error("kept:", kept)
		}
	}
}

// TestBlocksWithoutTheirTable: the only table is damaged at both ends, cut or gone.
// The blocks in the value log prove themselves; what else is missing is told.
func TestBlocksWithoutTheirTable(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string) error{
		"flipped": func(t *testing.T, path string) error { flipByte(t, path, -1); flipByte(t, path, 20); return nil },
		"cut":     func(_ *testing.T, path string) error { return os.Truncate(path, 30) },
		"removed": func(_ *testing.T, path string) error { return os.Remove(path) },
		"all gone": func(t *testing.T, path string) error {
			return os.RemoveAll(filepath.Dir(path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fastDir(t)
			a := openAt(t, dir, "a")
			id := largeLog(t, a, 10, true)
			before, _ := a.Log(id)
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			if err := damage(t, onlyFile(t, dir, ".sst")); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				a = openAt(t, dir, "a")
				if l, _ := a.Log(id); name != "all gone" && l.Tip != before.Tip {
					t.Fatalf("the log ends at %v, want %v: %s", l.Tip, before.Tip, a.Info().Recovered)
				}
				if strings.Contains(a.Info().Recovered, "0 logs") {
					t.Error(a.Info().Recovered)
				}
				lost, found := a.Lost(), verify(t, a)
				if !strings.Contains(lost.Note, "acknowledged commits") || len(found) != 1 || found[0].Log != (r.LogID{}) {
					t.Fatalf("%+v, %+v", lost, found)
				}
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
			}
			a = openAt(t, dir, "a")
			lost := a.Lost()
			if err := os.RemoveAll(lost.Dir); err != nil {
				t.Fatal(err)
			}
			mustBeWhole(t, a)
			if next := mustAppend(t, a, put("k", "new")); next.First.Log == id {
				t.Error("the epoch goes on")
			}
		})
	}
}

// TestLinkNamesALostLog: neither the tables nor the first block of a log can be
// read. The own log that links to it tells up to where it was held.
func TestLinkNamesALostLog(t *testing.T) {
	dir := fastDir(t)
	a, b := openAt(t, dir, "a"), openAt(t, fastDir(t), "b")
	first := largeLog(t, a, 4, false)
	pull(t, a, b, first, 0)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, leaseName)); err != nil { // a new epoch
		t.Fatal(err)
	}
	a = openAt(t, dir, "a")
	second := largeLog(t, a, 3, false)
	if second == first {
		t.Fatal("the epoch goes on")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	removeTables(t, dir)
	flipByte(t, filepath.Join(dir, dbDir, "000001.vlog"), 25)
	a = openAt(t, dir, "a")
	if l, _ := a.Log(second); l.Tip.Seq != 3 {
		t.Errorf("the second log ends at %d", l.Tip.Seq)
	}
	lost := a.Lost()
	if len(lost.Logs) != 1 || lost.Logs[0] != (LostLog{first, 0, 4}) {
		t.Fatalf("%+v", lost)
	}
	pull(t, b, a, first, 0)
	if lost = a.Lost(); len(lost.Logs) > 0 {
		t.Errorf("%+v", lost)
	}
}

// TestLooseBranches: without tables the longer of two branches in a value log
// stays, and blocks of another network do not count.
func TestLooseBranches(t *testing.T) {
	dir := fastDir(t)
	a := openAt(t, dir, "a", sameFiles)
	large := largeLog(t, a, 3, false)
	img := takeImage(t, dir) // the machine is copied
	mustAppend(t, a, put("k", "original "+strings.Repeat("x", 90<<10)))
	short, err := os.ReadFile(onlyFile(t, dir, ".vlog"))
	if err != nil {
		t.Fatal(err)
	}
	dir = fastDir(t)
	img.write(t, dir)
	a = openAt(t, dir, "a", sameFiles)
	largeLog(t, a, 2, false)
	before, _ := a.Log(large)
	if before.Tip.Seq != 5 {
		t.Fatal(before)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	// The other branch stands in a later value log.
	short = short[:len(bytes.TrimRight(short, "\x00"))]
	if err := os.WriteFile(filepath.Join(dir, dbDir, "000009.vlog"), short, 0o600); err != nil {
		t.Fatal(err)
	}
	removeTables(t, dir)
	a = openAt(t, dir, "a", sameFiles)
	if l, _ := a.Log(large); l.Tip != before.Tip {
		t.Errorf("the log ends at %v, want %v", l.Tip, before.Tip)
	}
}

// mustBeRepaired checks that nothing is wrong but what a repair could not keep.
func mustBeRepaired(t testing.TB, s *Store) {
	t.Helper()
	lost := s.Lost()
	for _, f := range verify(t, s) {
		if !lost.Any() || f.File != lost.Dir {
			t.Errorf("finding: %+v", f)
		}
	}
}
