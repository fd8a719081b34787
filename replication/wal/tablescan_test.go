package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// TestDamagedFooter: without footer and index all blocks of a table are found, and
// nothing is lost.
func TestDamagedFooter(t *testing.T) {
	base := fastDir(t)
	dir := filepath.Join(base, "original")
	s := openAt(t, dir, "a", sameFiles)
	fill(t, s)
	rng := rand.New(rand.NewPCG(1, 2))
	noise := rand.NewChaCha8([32]byte{1})
	for i := range 200 {
		value := make([]byte, rng.IntN(20<<10))
		_, _ = noise.Read(value)
		mustAppend(t, s, put(fmt.Sprint("noise", i), string(value)))
	}
	for range 2 { // the second stop leaves nothing but tables
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openAt(t, dir, "a", sameFiles)
	}
	want, _ := content(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	img := takeImage(t, dir)
	for what, change := range map[string]func([]byte){
		"footer": func(b []byte) { clear(b[len(b)-4:]) },
		"index":  func(b []byte) { b[len(b)-100] ^= 1 },
	} {
		d := filepath.Join(base, what)
		img.write(t, d)
		tables, err := listFiles(filepath.Join(d, dbDir), ".sst")
		if err != nil || len(tables) == 0 {
			t.Fatal(tables, err)
		}
		for _, path := range tables {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			change(b)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := openAt(t, d, "a", sameFiles)
		lost := s.Lost()
		if found := s.Info().Recovered; !strings.Contains(found, what) || lost.Any() {
			t.Errorf("%s: found %q, lost %+v", what, found, lost)
		}
		got, errs := content(t, s)
		for name, w := range want {
			if !strings.HasPrefix(name, "cursor ") && got[name] != w {
				t.Errorf("%s: %s is lost (%v)", what, name, errs)
			}
		}
		mustBeRepaired(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// tableBlockOf makes a block with one entry.
func tableBlockOf(key string, value []byte) []byte {
	b := binary.LittleEndian.AppendUint16(nil, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(key)))
	b = append(append(b, key...), 0, 0, 0) // meta, user meta, expires
	b = append(b, value...)
	b = append(b, 0, 0, 0, 0) // the offset
	return endBlock(binary.BigEndian.AppendUint32(b, 1))
}

// endBlock adds the checksum of all before it, and its length.
func endBlock(b []byte) []byte {
	sum := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), uint64(crc32.Checksum(b, castagnoli)))
	return binary.BigEndian.AppendUint32(append(b, sum...), uint32(len(sum)))
}

func TestScanTable(t *testing.T) {
	one, two, three := tableBlockOf("one-------", []byte("1")), tableBlockOf("two-------", make([]byte, 60<<10)), tableBlockOf("three-----", nil)
	bad := append([]byte(nil), two...)
	bad[100] ^= 1
	// The value holds a block of its own, and another ends in it with a checksum
	// that covers what is before the value too.
	inner := tableBlockOf("planted---", one)
	forged := tableBlockOf("outer-----", nil)
	prefix := append(append([]byte(nil), forged[:4+10+3]...), 0, 0, 0, 0, 0, 0, 0, 1)
	forged = tableBlockOf("outer-----", append(endBlock(prefix)[4+10+3:], "rest"...))
	for name, tt := range map[string]struct {
		file [][]byte
		want string
	}{
		"whole":               {[][]byte{one, two, three, []byte("index and footer")}, "one two three"},
		"nothing":             {nil, ""},
		"cut":                 {[][]byte{one, two[:len(two)-1]}, "one"},
		"damaged":             {[][]byte{one, bad, three}, "one"},
		"zeros":               {[][]byte{one, make([]byte, 10<<10), three}, "one"},
		"a block in a value":  {[][]byte{one, inner, three}, "one planted three"},
		"two ends of a block": {[][]byte{one, forged, three}, "one"},
	} {
		path := filepath.Join(t.TempDir(), "1.sst")
		var file []byte
		for _, b := range tt.file {
			file = append(file, b...)
		}
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		n, err := scanTable(path, func(key []byte, _ byte, _ []byte) error {
			got = append(got, strings.TrimRight(string(key), "-"))
			return nil
		})
		if err != nil || strings.Join(got, " ") != tt.want || n != len(got) {
			t.Errorf("%s: %d blocks, %v, %v", name, n, got, err)
		}
	}
	path := filepath.Join(t.TempDir(), "1.sst")
	if err := os.WriteFile(path, one, 0o600); err != nil {
		t.Fatal(err)
	}
	full := errors.New("full")
	if _, err := scanTable(path, func([]byte, byte, []byte) error { return full }); !errors.Is(err, full) {
		t.Error(err)
	}
}
