package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
)

// contents reads the whole of a space.
func contents(v *View, t testing.TB) (map[string]string, error) {
	all := map[string]string{}
	err := v.List(testContext(t), testSpace, nil, func(e Entry) error {
		siblings, err := v.Siblings(testContext(t), testSpace, e.Key, 1<<20)
		all[string(e.Key)] = fmt.Sprint(string(e.Value), e.Dot, siblings)
		return err
	})
	return all, err
}

// copyDir copies a view's directory: with the view open it is what a process
// leaves that is killed now.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := tempDir(t)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(from, path)
		switch {
		case err != nil || rel == ".":
			return err
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		case isLock(d.Name()):
			return nil
		}
		return copySparse(path, filepath.Join(to, rel))
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// copySparse copies a file and leaves holes where it has zeros: Badger's files
// are long and mostly empty.
func copySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	buf := make([]byte, 64<<10)
	zero := make([]byte, len(buf))
	size := int64(0)
	for {
		n, err := in.Read(buf)
		if n > 0 && string(buf[:n]) != string(zero[:n]) {
			if _, err := out.WriteAt(buf[:n], size); err != nil {
				return err
			}
		}
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return out.Truncate(size)
		}
		if err != nil {
			return err
		}
	}
}

// smallTable keeps Badger's files short where a test copies them often.
const smallTable = 1 << 20

func openSmall(t testing.TB, store replication.Store, dir string) *View {
	t.Helper()
	return openViewWith(t, Options{Dir: dir, Store: store, BootID: "boot", memTable: smallTable})
}

// damageable makes a view with all kinds of records, partly in tables.
func damageable(t testing.TB, dir string) (*memlog.Store, *View, map[string]string) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(3, 4))
	store := openStore(t, 100, &memlog.Disk{})
	s := shapes["piling"]
	s.keys, s.blocks = 6, 80
	f := newFeeder(makeHistory(rnd, s), rnd)
	v := openSmall(t, store, dir)
	f.feed(t, store, 40)
	settled(t, store, v)
	if err := v.Close(); err != nil { // flushes to a table
		t.Fatal(err)
	}
	v = openSmall(t, store, dir)
	f.feed(t, store, 1<<20)
	settled(t, store, v)
	want, err := contents(v, t)
	if err != nil {
		t.Fatal(err)
	}
	return store, v, want
}

// files lists a directory's files with their sizes, without trailing zeros.
func files(t testing.TB, dir string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		n := len(b)
		for n > 0 && b[n-1] == 0 {
			n--
		}
		rel, _ := filepath.Rel(dir, path)
		out[rel] = int64(n)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func flip(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// sweep flips one byte at a time in copies of a directory, opens each, and wants
// the contents from it that it had, whatever that takes.
func sweep(t *testing.T, store *memlog.Store, dir string, want map[string]string, perFile int) (rebuilt int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(5, 6))
	for name, size := range files(t, dir) {
		n := perFile
		if isTable(name) {
			n *= 3
		}
		for i := range n {
			at := int64(0)
			switch {
			case size == 0:
				continue
			case i < 2:
				at = size - 1 - int64(i) // a footer
			case i > 2:
				at = rnd.Int64N(size)
			}
			broken := copyDir(t, dir)
			flip(t, filepath.Join(broken, name), at)
			v, err := Open(Options{Dir: broken, Store: store, BootID: "boot", memTable: smallTable})
			if err != nil {
				t.Fatalf("%s at %d: open: %v", name, at, err)
			}
			got, err := contents(v, t)
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("%s at %d: %d keys of %d, %v", name, at, len(got), len(want), err)
			}
			found := 0
			err = v.Verify(testContext(t), VerifyOptions{}, func(f replication.Finding) {
				if f.File == "" || f.Problem == "" || isTable(name) && !strings.HasSuffix(f.File, name) {
					t.Errorf("%s at %d: a finding without its place or a problem: %+v", name, at, f)
				}
				found++
			})
			if err != nil {
				t.Error(err)
			}
			if v.Generation() > 1 {
				rebuilt++
				if found == 0 {
					t.Errorf("%s at %d: damage was repaired and verify does not tell", name, at)
				}
			}
			v.Close()
			os.RemoveAll(broken)
		}
	}
	return rebuilt
}

// TestFlippedByteWhileClosed: any changed byte of a view that was closed is found
// at Open (G9).
func TestFlippedByteWhileClosed(t *testing.T) {
	dir := tempDir(t)
	store, v, want := damageable(t, dir)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if n := sweep(t, store, dir, want, 3); n < 10 {
		t.Errorf("only %d flipped bytes were found", n)
	}
}

// TestFlippedByteAfterKill: the same of what a killed process leaves.
func TestFlippedByteAfterKill(t *testing.T) {
	dir := tempDir(t)
	store, v, want := damageable(t, dir)
	killed := copyDir(t, dir)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if n := sweep(t, store, killed, want, 5); n < 5 {
		t.Errorf("only %d flipped bytes were found", n)
	}
}

// TestFlippedByteWhileOpen: Verify finds every byte that changes under an open
// view and changes what a read returns.
func TestFlippedByteWhileOpen(t *testing.T) {
	dir := tempDir(t)
	store, v, want := damageable(t, dir)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	flipped := 0
	for name, size := range files(t, dir) {
		if !isTable(name) {
			continue
		}
		for range 6 {
			broken := copyDir(t, dir)
			v := openSmall(t, store, broken)
			settled(t, store, v)
			at := rnd.Int64N(size)
			flip(t, filepath.Join(broken, name), at)
			flipped++
			got, readErr := contents(v, t)
			found := 0
			if err := v.Verify(testContext(t), VerifyOptions{}, func(replication.Finding) { found++ }); err != nil && !errors.Is(err, replication.ErrDamaged) {
				t.Error(err)
			}
			if readErr == nil && !maps.Equal(got, want) && found == 0 {
				t.Errorf("%s at %d: reads changed and verify found nothing", name, at)
			}
			if readErr != nil && !errors.Is(readErr, replication.ErrDamaged) {
				t.Errorf("%s at %d: %v", name, at, readErr)
			}
			if found > 0 || readErr != nil {
				if err := waitGeneration(testContext(t), v, 2); err != nil { // it was asked for
					t.Fatal(err)
				}
			}
			if got, err := contents(v, t); found > 0 && (err != nil || !maps.Equal(got, want)) {
				t.Errorf("%s at %d: not repaired: %v", name, at, err)
			}
			v.Close()
			os.RemoveAll(broken)
		}
	}
	if flipped == 0 {
		t.Error("there is no table to damage")
	}
}

// TestCheckTables: any changed byte of a table is found before Badger sees it.
func TestCheckTables(t *testing.T) {
	dir := tempDir(t)
	_, v, _ := damageable(t, dir)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	g := filepath.Join(dir, "g1")
	if err := checkTables(g); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(9, 9))
	missed, tried := 0, 0
	for name, size := range files(t, g) {
		if !isTable(name) {
			continue
		}
		path := filepath.Join(g, name)
		for i := range int64(64) {
			at := size - 1 - i
			if i > 20 {
				at = rnd.Int64N(size)
			}
			flip(t, path, at)
			tried++
			if err := checkTables(g); err == nil {
				missed++ // in a byte that nothing reads: padding of the index
			} else if !errors.Is(err, replication.ErrDamaged) {
				t.Errorf("%s at %d: %v", name, at, err)
			}
			flip(t, path, at)
		}
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		if err := checkTables(g); !errors.Is(err, replication.ErrDamaged) {
			t.Errorf("without %s: %v", name, err)
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
	if tried == 0 || missed > 0 {
		t.Errorf("%d of %d flipped bytes were missed", missed, tried)
	}
}

// tamper changes a record behind the view's back, with a right checksum.
func tamper(t *testing.T, v *View, prefix byte, change func(key, record []byte) entry) {
	t.Helper()
	var e entry
	txn := v.d.latest()
	err := scan(txn, []byte{prefix}, nil, func(key, record []byte) error {
		e = change(bytes.Clone(key), bytes.Clone(record))
		return errStop
	})
	txn.Discard()
	if err != nil || e.key == nil {
		t.Fatalf("no record %q to tamper with: %v", prefix, err)
	}
	tx, err := v.d.transaction([]entry{e})
	if err == nil {
		err = tx.write()
	}
	if err != nil {
		t.Fatal(err)
	}
	tx.landed()
	v.d.show()
}

// TestInconsistentRecords: records that are whole but do not belong together, as
// lost transactions leave them, are found by Verify and after a kill.
func TestInconsistentRecords(t *testing.T) {
	remove := func(key, _ []byte) entry { return entry{key, nil} }
	changes := map[string]struct {
		prefix byte
		change func(key, record []byte) entry
	}{
		"a key is lost":            {prefixKey, remove},
		"a sibling record is lost": {prefixSibling, remove},
		"a value is lost":          {prefixValue, remove},
		"a pending record is lost": {prefixPending, remove},
		"a log's position is lost": {prefixApplied, remove},
		"a cursor is lost":         {prefixCursor, remove},
		"a key is there twice":     {prefixKey, func(key, r []byte) entry { k := append(key, 'x'); return entry{k, seal(k, r)} }},
		"a value is another":       {prefixValue, func(key, r []byte) entry { r[0] ^= 1; return entry{key, seal(key, r)} }},
		"an unknown record":        {prefixKey, func(key, r []byte) entry { key[0] = 'z'; return entry{key, seal(key, r)} }},
		"a record with a bad sum":  {prefixKey, func(key, r []byte) entry { return entry{key, append(r, 1, 2, 3, 4)} }},
		"a cursor behind its records": {prefixCursor, func(key, r []byte) entry {
			c, _ := decodeCursor(r)
			c.siblings--
			return entry{key, seal(key, appendCursor(nil, &c))}
		}},
	}
	dir := tempDir(t)
	store, v, want := damageable(t, dir)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, dir)
			v := openSmall(t, store, dir)
			settled(t, store, v)
			if found := countRecords(v); found[c.prefix] == 0 {
				t.Fatalf("records %v", found)
			}
			tamper(t, v, c.prefix, c.change)
			killed := openSmall(t, store, copyDir(t, dir))
			if got, err := contents(killed, t); err != nil || !maps.Equal(got, want) || killed.Generation() != 2 {
				t.Errorf("after a kill: generation %d, %d keys of %d, %v", killed.Generation(), len(got), len(want), err)
			}
			found := 0
			err := v.Verify(testContext(t), VerifyOptions{}, func(f replication.Finding) { found++; t.Log(f.Problem) })
			if err != nil || found != 1 {
				t.Errorf("%d findings, %v", found, err)
			}
			if err := waitGeneration(testContext(t), v, 2); err != nil {
				t.Fatal(err)
			}
			if got, err := contents(v, t); err != nil || !maps.Equal(got, want) {
				t.Errorf("after the repair: %d keys of %d, %v", len(got), len(want), err)
			}
		})
	}
}

// TestDeepVerify finds a state that is consistent in itself and does not follow
// from the logs.
func TestDeepVerify(t *testing.T) {
	s := newStore(t, 1)
	v := openView(t, s, tempDir(t))
	write(t, s, v, put("a", "1"), put("b", "1"))
	settled(t, s, v)
	tamper(t, v, prefixKey, func(key, record []byte) entry {
		r, _ := decodeKeyRecord(record)
		r.sibs[0].value = []byte("2")
		return entry{key, seal(key, appendKeyRecord(nil, &r))}
	})
	tamper(t, v, prefixCursor, func(key, record []byte) entry {
		c, _ := decodeCursor(record)
		c.digest = sum{}
		for _, k := range []string{"a", "b"} {
			rec := savedRecord(t, v, k)
			var h hasher
			c.digest.add(h.sibling([]byte(k), &rec.sibs[0]))
		}
		return entry{key, seal(key, appendCursor(nil, &c))}
	})
	for _, deep := range []bool{false, true} {
		found := 0
		err := v.Verify(testContext(t), VerifyOptions{Deep: deep}, func(replication.Finding) { found++ })
		if err != nil || (found > 0) != deep {
			t.Errorf("deep %v: %d findings, %v", deep, found, err)
		}
	}
}

// TestUncleanStop: files of a killed process are kept within one boot only.
func TestUncleanStop(t *testing.T) {
	dir := tempDir(t)
	store, v, want := damageable(t, dir)
	killed := copyDir(t, dir)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for boot, generation := range map[string]uint64{"boot": 1, "another boot": 2, "": 2} {
		v := openViewWith(t, Options{Dir: copyDir(t, killed), Store: store, BootID: boot, memTable: smallTable})
		got, err := contents(v, t)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("boot %q: %d keys of %d, %v", boot, len(got), len(want), err)
		}
		if v.Generation() != generation {
			t.Errorf("boot %q: generation %d, want %d", boot, v.Generation(), generation)
		}
		if boot != "boot" { // no damage
			if err := v.Verify(testContext(t), VerifyOptions{}, func(f replication.Finding) { t.Errorf("finding %+v", f) }); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestOtherInstance: a view of another history is not served.
func TestOtherInstance(t *testing.T) {
	dir := tempDir(t)
	s := newStore(t, 1)
	v := openView(t, s, dir)
	write(t, s, v, put("a", "1"))
	settled(t, s, v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	other := newStore(t, 2)
	v = openView(t, other, dir)
	wantValue(t, v, "a", "")
	if v.Generation() != 2 {
		t.Errorf("generation %d", v.Generation())
	}
	if left := v.home.generations(); !slices.Equal(left, []uint64{2}) {
		t.Errorf("generations %v are left", left)
	}
}

// TestLocked: a view that is open elsewhere is left alone.
func TestLocked(t *testing.T) {
	dir := tempDir(t)
	s := newStore(t, 1)
	v := openView(t, s, dir)
	write(t, s, v, put("a", "1"))
	if _, err := Open(Options{Dir: dir, Store: s, BootID: "boot"}); !errors.Is(err, replication.ErrLocked) {
		t.Fatalf("a second open: %v", err)
	}
	wantValue(t, v, "a", "1")
	if err := v.Rebuild(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantValue(t, v, "a", "1")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if left := v.home.generations(); !slices.Equal(left, []uint64{2}) {
		t.Errorf("generations %v are left", left)
	}
}
