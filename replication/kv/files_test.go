package kv

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vixp2p/replication"
)

// rot flips a byte of a closed view's file as a disk does that loses it: nothing
// else tells of a change.
func rot(t *testing.T, dir, name string, at int64) {
	t.Helper()
	h := home{dir}
	st, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.generationDir(st.Generation), name)
	flip(t, path, at)
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range st.Files {
		if st.Files[i].Name == name {
			st.Files[i].Stamp = stampOf(fi)
		}
	}
	if err := h.save(st); err != nil {
		t.Fatal(err)
	}
}

// restamp makes the state of a copied view take the copies for the files that
// were closed.
func restamp(t *testing.T, dir string) {
	t.Helper()
	for name := range files(t, filepath.Join(dir, "g1")) {
		rot(t, dir, name, 0)
		rot(t, dir, name, 0)
	}
}

// openLazily opens a view that compares unchanged tables only while it is open.
func openLazily(t *testing.T, store replication.Store, dir string) *View {
	t.Helper()
	return openViewWith(t, Options{Dir: dir, Store: store, BootID: "boot", memTable: smallTable, checkFirst: -1})
}

// TestRotInATable: a byte that changes in a table while the view is closed, and
// leaves no other trace, is found although the view opens without reading all of
// it; so is any other change, and that before anything is read.
func TestRotInATable(t *testing.T) {
	dir := tempDir(t)
	store, v, want := damageable(t, dir)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	repaired := func(t *testing.T, v *View, file string) {
		t.Helper()
		if err := waitGeneration(testContext(t), v, 2); err != nil {
			t.Fatal(err)
		}
		if got, err := contents(v, t); err != nil || !maps.Equal(got, want) {
			t.Errorf("%d keys of %d, %v", len(got), len(want), err)
		}
		found := []string{}
		err := v.Verify(testContext(t), VerifyOptions{}, func(f replication.Finding) { found = append(found, f.File) })
		// The positions of the logs, first in a table, are read at once: then it is
		// their record that was found to be damaged.
		if err != nil || len(found) != 1 || !strings.HasSuffix(found[0], file) && !strings.HasSuffix(found[0], "g1") {
			t.Errorf("findings in %q, %v", found, err)
		}
	}
	tables := 0
	for name, size := range files(t, filepath.Join(dir, "g1")) {
		if !isTable(name) {
			continue
		}
		tables++
		for _, at := range []int64{0, size / 3, size - 1, size - 4, size - 9, size - 40} {
			t.Run(fmt.Sprint(name, " at ", at), func(t *testing.T) {
				broken := copyDir(t, dir)
				restamp(t, broken)
				rot(t, broken, name, at)
				repaired(t, openLazily(t, store, broken), name)
			})
		}
		t.Run(name+" was written to", func(t *testing.T) {
			broken := copyDir(t, dir)
			restamp(t, broken)
			flip(t, filepath.Join(broken, "g1", name), size/3)
			v := openLazily(t, store, broken)
			if g := v.Generation(); g != 2 {
				t.Errorf("it was opened as generation %d", g)
			}
			repaired(t, v, name)
		})
	}
	if tables == 0 {
		t.Error("there is no table")
	}
	whole := copyDir(t, dir)
	restamp(t, whole)
	v = openLazily(t, store, whole)
	settled(t, store, v)
	if got, err := contents(v, t); err != nil || !maps.Equal(got, want) || v.Generation() != 1 {
		t.Errorf("without damage: generation %d, %d keys of %d, %v", v.Generation(), len(got), len(want), err)
	}
}

// TestRotIsNotForgotten: a view that is closed before the comparison came to a
// damaged table does not take it for whole the next time.
func TestRotIsNotForgotten(t *testing.T) {
	dir := tempDir(t)
	store, v, _ := damageable(t, dir)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	name := tablesOf(t, dir)[0]
	rot(t, dir, name, 100)
	for range 3 {
		known, later, err := compareFiles(filepath.Join(dir, "g1"), savedFiles(t, dir), -1)
		if err != nil || !slices.ContainsFunc(later, func(s fileSum) bool { return s.Name == name }) {
			t.Fatalf("to be compared later: %v, %v", later, err)
		}
		d, err := openDatabase(filepath.Join(dir, "g1"), 1, v.opt)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
		st, err := home{dir}.load()
		if err != nil {
			t.Fatal(err)
		}
		if st.Files, err = sumFiles(d.dir, known); err != nil {
			t.Fatal(err)
		}
		if err := (home{dir}).save(st); err != nil {
			t.Fatal(err)
		}
	}
	v = openLazily(t, store, dir)
	if err := waitGeneration(testContext(t), v, 2); err != nil {
		t.Error(err)
	}
}

func tablesOf(t *testing.T, dir string) []string {
	t.Helper()
	names := slices.Sorted(maps.Keys(files(t, filepath.Join(dir, "g1"))))
	names = slices.DeleteFunc(names, func(n string) bool { return !isTable(n) })
	if len(names) == 0 {
		t.Fatal("there is no table")
	}
	return names
}

func savedFiles(t *testing.T, dir string) []fileSum {
	t.Helper()
	st, err := home{dir}.load()
	if err != nil {
		t.Fatal(err)
	}
	return st.Files
}

// TestComparisonGetsRound: opened again and again for moments, as by commands
// without a running node, a view compares its tables in turn.
func TestComparisonGetsRound(t *testing.T) {
	dir := tempDir(t)
	s := newStore(t, 1)
	const rounds = 4
	for i := range rounds { // a table each
		v := openSmall(t, s, dir)
		write(t, s, v, put(fmt.Sprint(i), "x"))
		settled(t, s, v)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	tables := len(tablesOf(t, dir))
	if tables < 2 {
		t.Fatalf("%d tables", tables)
	}
	list := savedFiles(t, dir)
	for i := range list {
		list[i].Checked = 1
	}
	compared := map[string]bool{}
	for i := range tables {
		known, later, err := compareFiles(filepath.Join(dir, "g1"), list, 1)
		if err != nil || len(later) != tables-1 {
			t.Fatalf("%d of %d tables are left for later, %v", len(later), tables, err)
		}
		list = slices.Collect(maps.Values(known))
		for _, f := range list {
			if isTable(f.Name) && f.Checked > 1 {
				compared[f.Name] = true
			}
		}
		if len(compared) != i+1 {
			t.Errorf("after %d times %d tables are compared", i+1, len(compared))
		}
	}
}

// TestMergedBeforeCompared: what a table held that was merged into others before
// its comparison is checked record by record; until that is done the view does
// not count as closed cleanly.
func TestMergedBeforeCompared(t *testing.T) {
	for name, lost := range map[string]bool{"whole": false, "a key was lost": true} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			s := newStore(t, 1)
			v := openView(t, s, dir)
			write(t, s, v, put("a", "x"), put("b", "x"))
			settled(t, s, v)
			if lost {
				tamper(t, v, prefixKey, func(key, _ []byte) entry { return entry{key, nil} })
			}
			ghost := fileSum{Name: "000099.sst", Size: 1}
			v.d.opened(plan{files: map[string]fileSum{}, unchecked: []fileSum{ghost}})
			if v.d.proven(nil) {
				t.Error("proven before the check")
			}
			v.compareOpen(testContext(t), v.d, []fileSum{ghost})
			if lost {
				if err := waitGeneration(testContext(t), v, 2); err != nil {
					t.Fatal(err)
				}
				wantValue(t, v, "a", "x")
				wantValue(t, v, "b", "x")
				return
			}
			if g := v.Generation(); g != 1 || !v.d.proven(nil) {
				t.Errorf("generation %d, not proven after the check", g)
			}
			v.d.opened(plan{files: map[string]fileSum{}, unchecked: []fileSum{ghost}})
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if st, err := (home{dir}).load(); err != nil || st.Phase != phaseRunning {
				t.Errorf("it counts as %q, %v", st.Phase, err)
			}
			v = openView(t, s, dir)
			wantValue(t, v, "a", "x")
			if g := v.Generation(); g != 1 {
				t.Errorf("generation %d", g)
			}
		})
	}
}
