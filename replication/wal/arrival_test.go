package wal

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
	"vixp2p/replication/kv"
)

// flipRecords damages the value of every record of the memtables' logs whose key
// is wanted.
func flipRecords(t *testing.T, dir string, want func(user []byte) bool) {
	t.Helper()
	paths, err := listFiles(filepath.Join(dir, dbDir), ".mem")
	if err != nil {
		t.Fatal(err)
	}
	hits := 0
	for _, path := range paths {
		var at []int64
		visit := func(off int64, rec *record) error {
			if user, _ := versionOf(rec.key); want(user) {
				at = append(at, off+int64(rec.size)-crcLen-1) // the value's last byte
			}
			return nil
		}
		if err := walkRecords(path, visit, func(fileDamage) {}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range at {
			b[i] ^= 0x40
		}
		hits += len(at)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if hits == 0 {
		t.Fatal("no record was damaged")
	}
}

// TestRepairKeepsArrivalOrder loses the pointers to large blocks, which a repair
// finds again in the value log: each log still arrives in its order, no number is
// given twice, and a view applies everything (G4).
func TestRepairKeepsArrivalOrder(t *testing.T) {
	const peers, blocks = 4, 8
	for _, tc := range []struct {
		name string
		lost func(user []byte) bool
	}{
		{"one pointer", func(user []byte) bool {
			num, seq, ok := parseBlockKey(user)
			return ok && num == 2 && seq == 5
		}},
		{"pointers of several logs, and the store's head", func(user []byte) bool {
			num, seq, ok := parseBlockKey(user)
			return ok && num > 1 && seq == 2+num || bytes.Equal(user, keyHead)
		}},
		{"all pointers", func(user []byte) bool { return user[0] == kindBlock }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := fastDir(t)
			a := openAt(t, dir, "a")
			text := func(i int) string { return fmt.Sprint(i, strings.Repeat("x", 70<<10)) }
			var logs []r.LogID
			for i := range blocks {
				mustAppend(t, a, put("own", text(i)))
			}
			for p := range peers {
				b := openAt(t, fastDir(t), fmt.Sprint("peer", p))
				for i := range blocks {
					id := mustAppend(t, b, put(fmt.Sprint("of", p), text(i))).First.Log
					if i == 0 {
						logs = append(logs, id)
					}
				}
				pull(t, b, a, logs[p], 1)
			}
			img := takeImage(t, dir) // as a kill leaves it
			dir = fastDir(t)
			img.write(t, dir)
			flipRecords(t, dir, tc.lost)

			a = openAt(t, dir, "a")
			if a.Info().Recovered == "" {
				t.Fatal("the damage was not found")
			}
			mustBeRepaired(t, a)
			arrivals, err := a.ReadArrivals(testSpace, 0, 1<<30)
			if err != nil || len(arrivals) != (peers+1)*blocks {
				t.Fatalf("%d blocks arrive: %v", len(arrivals), err)
			}
			last := map[r.LogID]uint64{}
			for _, x := range arrivals {
				if h := x.Block.Header; h.FirstSeq != last[h.Log]+1 {
					t.Errorf("log %s: seq %d arrives after %d", h.Log.Short(), h.FirstSeq, last[h.Log])
				} else {
					last[h.Log] = h.LastSeq()
				}
			}
			if next := mustAppend(t, a, put("k", "new")); next.Arrival <= arrivals[len(arrivals)-1].Number {
				t.Errorf("a new block has arrival %d after %d", next.Arrival, arrivals[len(arrivals)-1].Number)
			}

			v, err := kv.Open(kv.Options{Dir: fastDir(t), Store: a})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			for p := range peers {
				e, ok, err := v.Get(ctx, testSpace, fmt.Append(nil, "of", p))
				if err != nil || !ok || !slices.Equal(e.Value, []byte(text(blocks-1))) {
					t.Errorf("the view has not what peer %d wrote last: %v %v", p, ok, err)
				}
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestVerifyFindsArrivalOrder exchanges the arrival numbers of two blocks of one
// log, with an index that names them as they are. A repair puts them in order.
func TestVerifyFindsArrivalOrder(t *testing.T) {
	dir := fastDir(t)
	s := openAt(t, dir, "a")
	var id r.LogID
	for range 3 {
		id = mustAppend(t, s, put("k", "v")).First.Log
	}
	l, _ := s.state(id)
	err := s.db.Update(func(txn *badger.Txn) error {
		for seq, arrival := range map[uint64]uint64{1: 2, 2: 1} {
			key := blockKey(l.num, seq)
			item, err := txn.Get(key)
			if err != nil {
				return err
			}
			value, err := item.ValueCopy(nil)
			if err != nil {
				return err
			}
			sb, err := unsealBlock(key, value)
			if err != nil {
				return err
			}
			akey := arrivalKey(testSpace, arrival)
			if err := txn.Set(akey, seal(akey, arrivalRecord{l.num, seq, arrival - 1}.encode())); err != nil {
				return err
			}
			if err := txn.Set(key, sealBlock(key, sb.data, sb.through, arrival)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	found := verify(t, s)
	if len(found) != 1 || found[0].Log != id || found[0].Seq != 2 || !strings.Contains(found[0].Problem, "arriv") {
		t.Errorf("findings: %+v", found)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, repairName), []byte("asked for"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, "a")
	mustBeWhole(t, s)
	if arrivals, err := s.ReadArrivals(testSpace, 0, 1<<20); err != nil || len(arrivals) != 3 || arrivals[2].Block.Header.FirstSeq != 3 {
		t.Errorf("after the repair %d blocks arrive: %v", len(arrivals), err)
	}
}

// TestOlderFormat opens a directory of format 1, in which each block has an entry of
// the arrival index of its own: nothing is lost, and it is a directory of today.
func TestOlderFormat(t *testing.T) {
	dir := fastDir(t)
	s := openAt(t, dir, "a")
	const blocks = 70
	for range blocks {
		mustAppend(t, s, put("k", "v"))
	}
	before, err := s.ReadArrivals(testSpace, 0, 1<<20)
	if err != nil || len(before) != blocks {
		t.Fatalf("%d blocks arrive: %v", len(before), err)
	}
	l, _ := s.state(before[0].Block.Header.Log)
	entries := 0
	err = s.db.Update(func(txn *badger.Txn) error {
		if err := each(txn, arrivalPrefix(testSpace), nil, func([]byte, []byte) (bool, error) {
			entries++
			return true, nil
		}); err != nil {
			return err
		}
		for i, a := range before {
			key, prev := arrivalKey(testSpace, a.Number), uint64(0)
			if i > 0 {
				prev = before[i-1].Number
			}
			if err := txn.Set(key, seal(key, arrivalRecord{l.num, a.Block.Header.FirstSeq, prev}.encode())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (blocks + maxCovered - 1) / maxCovered; entries != want {
		t.Errorf("%d blocks have %d entries, want %d", blocks, entries, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, formatName), []byte(formatLine(1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, "a")
	if got := s.Info().Recovered; got != "" {
		t.Errorf("opened with a note: %s", got)
	}
	mustBeWhole(t, s)
	mustAppend(t, s, put("k", "v"))
	for after := range uint64(blocks) {
		rest, err := s.ReadArrivals(testSpace, after, 1<<20)
		if err != nil || len(rest) != blocks+1-int(after) || rest[0].Number != after+1 {
			t.Fatalf("after %d arrive %d blocks: %v", after, len(rest), err)
		}
	}
	mustBeWhole(t, s)
}
