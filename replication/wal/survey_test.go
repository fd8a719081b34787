package wal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	r "vixp2p/replication"
)

// TestTornCommit cuts the end off a memtable's log, as a crash of the machine in
// the middle of a commit does: that is no damage unless the commit was
// acknowledged.
func TestTornCommit(t *testing.T) {
	base := fastDir(t)
	dir := filepath.Join(base, "original")
	s := openAt(t, dir, "a", sameFiles)
	mustAppend(t, s, put("k", "1"))
	before := takeImage(t, dir)
	mustAppend(t, s, put("k", "2"))
	img := takeImage(t, dir)
	for name, f := range img {
		if filepath.Ext(name) != ".mem" {
			continue
		}
		// The second commit's records, with a hole in the middle and no end.
		data := bytes.Clone(f.data[:len(f.data)-40])
		from := len(before[name].data)
		clear(data[from+20 : from+60])
		img[name] = imageFile{f.size, data}
	}
	acked := filepath.Join(base, "acknowledged")
	img.write(t, acked)
	if a := openAt(t, acked, "a", sameFiles); a.Info().Recovered == "" {
		t.Error("an acknowledged commit is missing, and nothing is reported")
	}
	torn := maps.Clone(img)
	torn[witnessName] = before[witnessName]
	notAcked := filepath.Join(base, "not acknowledged")
	torn.write(t, notAcked)
	b := openAt(t, notAcked, "a", sameFiles)
	if b.Info().Recovered != "" || b.Info().Instance != s.Info().Instance {
		t.Errorf("a commit that was never acknowledged is reported: %s", b.Info().Recovered)
	}
	if a := mustAppend(t, b, put("k", "3")); a.First.Seq != 2 {
		t.Errorf("%+v", a)
	}
	mustBeWhole(t, b)
}

// TestWholeRecordsOfACutTransaction: damage to the end of the last acknowledged
// transaction costs none of its records.
func TestWholeRecordsOfACutTransaction(t *testing.T) {
	base := fastDir(t)
	dir := filepath.Join(base, "original")
	s := openAt(t, dir, "a", sameFiles)
	id := mustAppend(t, s, put("k", "1")).First.Log
	mustAppend(t, s, put("k", "2"))
	img := takeImage(t, dir)
	for name, f := range img {
		if filepath.Ext(name) == ".mem" {
			i := bytes.LastIndex(f.data, []byte("!badger!txn"))
			data := bytes.Clone(f.data)
			data[i] ^= 1
			img[name] = imageFile{f.size, data}
		}
	}
	bad := filepath.Join(base, "bad")
	img.write(t, bad)
	b := openAt(t, bad, "a", sameFiles)
	l, _ := b.Log(id)
	if l.Tip.Seq != 2 || !strings.Contains(b.Info().Recovered, "missing") {
		t.Errorf("tip %d, %q", l.Tip.Seq, b.Info().Recovered)
	}
	mustBeWhole(t, b)
}

// TestDamagedListOfTables: Badger would cut the list and remove the tables that
// it no longer names. All of them are whole, so nothing is lost.
func TestDamagedListOfTables(t *testing.T) {
	base := fastDir(t)
	dir := filepath.Join(base, "original")
	s := openAt(t, dir, "a", sameFiles)
	fill(t, s)
	for range 3 { // each stop adds a table to the list
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openAt(t, dir, "a", sameFiles)
		mustAppend(t, s, put("k", "v"))
	}
	want, _ := content(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	img := takeImage(t, dir)
	name := filepath.Join(dbDir, manifestName)
	f := img[name]
	for pos := 0; pos < len(f.data); pos++ {
		bad := maps.Clone(img)
		data := bytes.Clone(f.data)
		data[pos] ^= 0x20
		bad[name] = imageFile{f.size, data}
		d := filepath.Join(base, "damaged")
		bad.write(t, d)
		s, err := Open(Options{Dir: d, Network: testNetwork, Key: testKey("a"), proof: sameProof, bootID: func() string { return "the same boot" }})
		if err != nil {
			t.Fatal(err)
		}
		got, errs := content(t, s)
		for what, w := range want {
			if !strings.HasPrefix(what, "cursor ") && got[what] != w {
				t.Errorf("byte %d: %s is lost (%v)", pos, what, errs)
			}
		}
		if s.Info().Recovered == "" {
			t.Errorf("byte %d: not reported", pos)
		}
		if err := errors.Join(s.Close(), os.RemoveAll(d)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHalfATable: a process that is killed while Badger writes a table leaves a
// part of it, which no list names; what would be in it is still where it came from.
func TestHalfATable(t *testing.T) {
	dir := filepath.Join(fastDir(t), "db")
	s := openAt(t, dir, "a")
	fill(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	instance := s.Info().Instance
	tables, err := listFiles(filepath.Join(dir, dbDir), ".sst")
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables: %v, %v", tables, err)
	}
	whole, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	half := append(bytes.Clone(whole[:len(whole)/2]), make([]byte, len(whole)-len(whole)/2)...)
	for i, data := range [][]byte{half, {}} {
		next := filepath.Join(dir, dbDir, fmt.Sprintf("%06d.sst", 900+i))
		if err := os.WriteFile(next, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = openAt(t, dir, "a")
	if s.Info().Recovered != "" || s.Info().Instance != instance {
		t.Errorf("found %q", s.Info().Recovered)
	}
	mustBeWhole(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The same damage to one that is listed is damage.
	if tables, err = listFiles(filepath.Join(dir, dbDir), ".sst"); err != nil || len(tables) == 0 {
		t.Fatalf("tables: %v, %v", tables, err)
	}
	if err := os.WriteFile(tables[0], half, 0o600); err != nil {
		t.Fatal(err)
	}
	if s = openAt(t, dir, "a"); !strings.Contains(s.Info().Recovered, filepath.Base(tables[0])) {
		t.Errorf("found %q in %v", s.Info().Recovered, tables)
	}
}

// TestErrorsNameNoKeys: a value that Badger cannot read is told by its reader,
// with log and seq and not with the raw key, and does not count as a failure of
// the commit beside it; other complaints do.
func TestErrorsNameNoKeys(t *testing.T) {
	var log bytes.Buffer
	l := &badgerLog{l: slog.New(slog.NewTextHandler(&log, nil))}
	l.Errorf("Unable to read: Key: %v, Version : %v, meta: %v, userMeta: %v Error: %v", []byte{98, 0}, 1, 2, 0, "EOF")
	l.Errorf("Key: %v, Version : %v, meta: %v, userMeta: %v valuePointer: %+v", []byte{98, 0}, 1, 2, 0, 3)
	if log.Len() > 0 || l.errors.Load() != 0 {
		t.Error(log.String())
	}
	l.Errorf("writeRequests: %v", "sync failed")
	if l.errors.Load() != 1 || !strings.Contains(log.String(), "sync failed") {
		t.Error(log.String())
	}
	none := &r.DamageError{File: "db", Problem: "broken"}
	if said := none.Error(); strings.Contains(said, "log 0") || strings.Contains(said, "seq") {
		t.Error(said)
	}
	one := &r.DamageError{Log: r.LogID{0xab}, Seq: 7, File: "db", Problem: "broken"}
	if said := one.Error(); !strings.Contains(said, "log ab000000 at seq 7") {
		t.Error(said)
	}
}
