package wal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	r "vixp2p/replication"
)

// TestDamagedLengthUnderUse damages the length of a value in the value log of an
// open store. A read tells of it, and the store can be closed, which the repair
// needs.
func TestDamagedLengthUnderUse(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "a")
	payload := make([]byte, 200<<10)
	if _, err := rand.Read(payload); err != nil {
		t.Fatal(err)
	}
	at := mustAppend(t, s, put("k", string(payload)))

	// A value log's entry: meta, user meta, the lengths of key and value as
	// varints, expiry, key, value, checksum. The value's length has three bytes.
	files, err := filepath.Glob(filepath.Join(dir, dbDir, "*.vlog"))
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		value := bytes.Index(data, payload[:64])
		if value < 0 {
			continue
		}
		key := bytes.LastIndex(data[:value], append([]byte{'b'}, make([]byte, 7)...))
		if key < 5 {
			t.Fatalf("no entry before the value at %d of %s", value, name)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{data[key-2] ^ 0x40}, int64(key-2)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		damaged++
	}
	if damaged != 1 {
		t.Fatalf("the value is in %d value logs, not 1", damaged)
	}

	if run, err := s.ReadRun(at.First.Log, r.Position{}, 0); !errors.Is(err, r.ErrDamaged) {
		t.Errorf("a read over a damaged length: %d bytes, %v", len(run.Data), err)
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Close does not return")
	}
	if s = openAt(t, dir, "a"); s.Info().Recovered == "" {
		t.Error("the repair is not told")
	}
}
