package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	r "vixp2p/replication"
)

// damageBytes flips one byte in the middle of the first place where text stands
// in the files of a stopped store.
func damageBytes(t *testing.T, dir, text string) {
	t.Helper()
	paths, err := listFiles(filepath.Join(dir, dbDir), "")
	if err != nil {
		t.Fatal(err)
	}
	hit := false
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, []byte(text)); i >= 0 {
			b[i+len(text)/2] ^= 0x40
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			hit = true
		}
	}
	if !hit {
		t.Fatalf("%q is in no file", text)
	}
}

// TestDamageIsFetchedBack damages one block of the own log. The log then ends
// before it, the instance is new, and what lies beyond waits: once a peer has
// sent the one missing block, everything is there again, also what no peer had.
func TestDamageIsFetchedBack(t *testing.T) {
	for _, tc := range []struct {
		name    string
		clean   bool
		running bool // found by a read
		size    int
	}{
		{"in a table", true, false, 500},
		{"in a memtable's log", false, false, 500},
		{"in the value log", true, false, 100 << 10},
		{"found while it runs", true, true, 500},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := fastDir(t)
			a := openAt(t, dir, "a")
			b := openAt(t, fastDir(t), "b")
			var id r.LogID
			text := func(i int) string { return fmt.Sprintf("text %d %s", i, strings.Repeat("abc", tc.size/3)) }
			for i := range 10 {
				id = mustAppend(t, a, put("k", text(i))).First.Log
				if i == 4 {
					pull(t, a, b, id, 0)
				}
			}
			before, _ := a.Log(id)
			instance := a.Info().Instance
			if tc.clean {
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				img := takeImage(t, dir) // as a kill leaves it
				dir = fastDir(t)
				img.write(t, dir)
			}
			if tc.running {
				told := make(chan *r.DamageError, 1)
				a = openAt(t, dir, "a", func(o *Options) { o.OnDamage = func(d *r.DamageError) { told <- d } })
				(&suiteDir{t: t, store: a}).Damage(id, 3)
				run, _ := a.ReadRun(id, r.Position{}, 1)
				run, _ = a.ReadRun(id, run.End, 1)
				if _, err := a.ReadRun(id, run.End, 1); !errors.Is(err, r.ErrDamaged) {
					t.Fatalf("reading the damaged block: %v", err)
				}
				if d := a.Damaged(); len(d) != 1 || d[0].Log != id || d[0].Seq != 3 {
					t.Errorf("damaged: %+v", d)
				}
				if d := <-told; d.Log != id || d.Seq != 3 {
					t.Errorf("told of %+v", d)
				}
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				damageBytes(t, dir, text(2))
			}
			a = openAt(t, dir, "a")
			if a.Info().Recovered == "" || a.Info().Instance == instance {
				t.Fatalf("%+v", a.Info())
			}
			if lost := a.Lost(); lost.Any() == tc.running || len(verify(t, a)) != len(lost.Logs) {
				t.Errorf("%+v, %+v", lost, verify(t, a))
			}
			l, _ := a.Log(id)
			if tc.running && l.Tip != before.Tip {
				t.Error("the version before the damage was not found")
			}
			if !tc.running && l.Tip.Seq != 2 {
				t.Fatalf("the log ends at %d (%s)", l.Tip.Seq, a.Info().Recovered)
			}
			if next := mustAppend(t, a, put("k", "new")); next.First.Log == id {
				t.Error("the epoch goes on")
			}
			pull(t, b, a, id, 0)
			if err := a.SetMeta(context.Background(), "wait for", []byte("the committer")); err != nil {
				t.Fatal(err)
			}
			if l, _ = a.Log(id); l.Tip != before.Tip {
				t.Errorf("the log ends at %v, want %v", l.Tip, before.Tip)
			}
			mustBeWhole(t, a)
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			a = openAt(t, dir, "a")
			if a.Info().Recovered != "" {
				t.Error("again:", a.Info().Recovered)
			}
			mustBeWhole(t, a)
			pull(t, a, b, id, 0)
			if lb, _ := b.Log(id); lb.Tip != before.Tip {
				t.Error("the peer does not get the rest")
			}
		})
	}
}

// TestCutAndMissingFiles cuts or removes each file, or fills a part of it with
// zeros or noise.
func TestCutAndMissingFiles(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean=%v", clean), func(t *testing.T) {
			base := fastDir(t)
			dir := filepath.Join(base, "original")
			s := openAt(t, dir, "a", sameFiles)
			fill(t, s)
			want, _ := content(t, s)
			if clean {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			img := takeImage(t, dir)
			seed := rand.Uint64()
			rng := rand.New(rand.NewPCG(seed, 1))
			for _, name := range slices.Sorted(maps.Keys(img)) {
				f := img[name]
				if len(f.data) == 0 || name == "lock" {
					continue
				}
				at := rng.IntN(len(f.data))
				end := min(len(f.data), at+1+rng.IntN(200))
				for what, change := range map[string]func(image){
					"removed": func(i image) { delete(i, name) },
					"emptied": func(i image) { i[name] = imageFile{} },
					"cut":     func(i image) { i[name] = imageFile{int64(at), f.data[:at]} },
					"zeroed": func(i image) {
						b := bytes.Clone(f.data)
						clear(b[at:end])
						i[name] = imageFile{f.size, b}
					},
					"overwritten": func(i image) {
						b := bytes.Clone(f.data)
						for j := at; j < end; j++ {
							b[j] = byte(rng.Uint32())
						}
						i[name] = imageFile{f.size, b}
					},
				} {
					bad := maps.Clone(img)
					change(bad)
					d := filepath.Join(base, "damaged")
					bad.write(t, d)
					reported := checkDamaged(t, d, want)
					if t.Failed() {
						t.Fatalf("seed %d: %s %s at %d to %d, reported %v", seed, name, what, at, end, reported)
					}
					if err := os.RemoveAll(d); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}
