package wal

import (
	"os"
	"testing"
)

func TestInUse(t *testing.T) {
	dir := t.TempDir()
	if InUse(dir) {
		t.Error("an empty directory is in use")
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("to ask made %v", names)
	}
	s, err := Open(Options{Dir: dir, Network: testNetwork, Key: testKey("a")})
	if err != nil {
		t.Fatal(err)
	}
	if !InUse(dir) {
		t.Error("an open store is not in use")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if InUse(dir) {
		t.Error("a closed store is in use")
	}
}
