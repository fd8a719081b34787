package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	r "vixp2p/replication"
	"vixp2p/replication/logtest"
)

// image is a directory in memory: of each file its size and its bytes up to the
// last that is not zero.
type image map[string]imageFile

type imageFile struct {
	size int64
	data []byte
}

func takeImage(t testing.TB, dir string) image {
	t.Helper()
	img := image{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		n := len(b)
		for zeros := make([]byte, 4<<10); n >= len(zeros) && bytes.Equal(b[n-len(zeros):n], zeros); {
			n -= len(zeros) // one by one they take the race detector seconds a file
		}
		for n > 0 && b[n-1] == 0 {
			n--
		}
		img[rel] = imageFile{int64(len(b)), bytes.Clone(b[:n])}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (img image) write(t testing.TB, dir string) {
	t.Helper()
	for rel, f := range img {
		path := filepath.Join(dir, rel)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, f.data, 0o600), os.Truncate(path, f.size)); err != nil {
			t.Fatal(err)
		}
	}
}

// sameFiles makes copies of a directory look like the original.
func sameFiles(o *Options) {
	o.proof = sameProof
	o.bootID = func() string { return "the same boot" }
}

func sameProof(fs.FileInfo) fileProof { return fileProof{inode: 1, ctime: 1} }

// content is all that a store serves, by name.
func content(t testing.TB, s *Store) (c map[string]string, errs []error) {
	t.Helper()
	c = map[string]string{}
	for _, space := range s.Spaces() {
		for _, l := range s.Logs(space) {
			name := "log " + l.Log.Short()
			var at r.Position
			for at.Seq < l.Tip.Seq {
				run, err := s.ReadRun(l.Log, at, 1)
				if err != nil {
					errs = append(errs, err)
					break
				}
				c[name] += string(run.Data)
				at = run.End
			}
			if p, ok := s.ForkProofOf(l.Log); ok {
				c["fork "+l.Log.Short()] = string(p.A) + string(p.B)
			}
		}
		var after uint64
		for after < s.Head() {
			arrivals, err := s.ReadArrivals(space, after, 1)
			if err != nil {
				errs = append(errs, err)
				break
			}
			if len(arrivals) == 0 {
				break
			}
			for _, a := range arrivals {
				after = a.Number
				c["arrivals "+space.String()] += fmt.Sprintf("%d:%s ", a.Number, a.Block.Hash)
			}
		}
	}
	for _, name := range []string{"one", "two", "large"} {
		v, err := s.Meta(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c["meta "+name] = string(v)
	}
	list, err := s.ListCursors()
	if err != nil {
		errs = append(errs, err)
	}
	for _, info := range list {
		e, err := s.LoadCursor(info.Peer, info.Instance)
		if err != nil {
			errs = append(errs, err)
		}
		c["cursor "+info.Instance.String()] = fmt.Sprint(e)
	}
	return c, errs
}

// fill writes some of everything.
func fill(t testing.TB, s *Store) {
	t.Helper()
	ctx := context.Background()
	other := r.SpaceOf(testNetwork, "other")
	for i := range 12 {
		mustAppend(t, s, put(fmt.Sprint("key", i), strings.Repeat("v", 50*i)))
		if i%4 == 0 {
			if _, err := s.Append(ctx, r.Batch{Space: other, Ops: []r.Op{put("k", "v")}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustAppend(t, s, put("large", strings.Repeat("L", 90<<10)))
	mustAppend(t, s, put("after", "large"))
	env := logtestWriter(t, 7)
	env.ingest(s, 3)
	for name, size := range map[string]int{"one": 10, "two": 1000, "large": 64 << 10} {
		if err := s.SetMeta(ctx, name, bytes.Repeat([]byte{7}, size/2)); err != nil {
			t.Fatal(err)
		}
		if err := s.SetMeta(ctx, name, bytes.Repeat([]byte{8}, size)); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range s.Logs(testSpace) {
		s.SaveCursor(l.Origin, r.Instance{1}, []r.FrontierEntry{l.Entry()})
	}
	if err := s.SetMeta(ctx, "one", []byte("takes the cursors along")); err != nil {
		t.Fatal(err)
	}
}

// foreign is another origin's log that is fed to a store.
type foreign struct {
	t testing.TB
	w *logtest.Writer
}

func logtestWriter(t testing.TB, seed uint64) *foreign {
	return &foreign{t, logtest.NewWriter(testNetwork, testSpace, seed)}
}

// ingest adds n blocks of the writer, and a fork of the last.
func (f *foreign) ingest(s *Store, n int) {
	from := f.w.Len()
	f.w.AddMany(n)
	if res := ingest(s, f.w.Run(f.t, from, from+n)); res.Code != r.Committed {
		f.t.Fatal(res)
	}
	fork := f.w.Fork(from + n - 1).AddMany(1)
	if res := ingest(s, fork.Run(f.t, from+n-1, from+n)); res.Code != r.Forked {
		f.t.Fatal(res)
	}
}

// checkDamaged opens a damaged directory. Everything must read back as before,
// or be reported; nothing may read back as something else.
func checkDamaged(t *testing.T, dir string, want map[string]string) (reported bool) {
	t.Helper()
	o := Options{Dir: dir, Network: testNetwork, Key: testKey("a")}
	sameFiles(&o)
	s, err := Open(o)
	if err != nil {
		if !errors.Is(err, r.ErrDamaged) && !errors.Is(err, r.ErrInvalid) && !errors.Is(err, r.ErrTooNew) {
			t.Errorf("open: %v", err)
		}
		return true
	}
	defer func() { _ = s.Close() }()
	got, errs := content(t, s)
	reported = s.Info().Recovered != "" || len(errs) > 0
	var found []r.Finding
	if err := s.Verify(context.Background(), func(f r.Finding) { found = append(found, f) }); err != nil {
		t.Errorf("verify: %v", err)
	}
	lost := s.Lost()
	found = slices.DeleteFunc(found, func(f r.Finding) bool { return lost.Any() && f.File == lost.Dir })
	if missing := missingLogs(got, want); len(missing) > 0 && s.Info().Recovered != "" && !lost.Any() {
		t.Errorf("%q are lost, and that is not told any more: %s", missing, s.Info().Recovered)
	}
	if s.Info().Recovered != "" && len(found) > 0 {
		t.Errorf("after the repair: %+v", found)
	}
	reported = reported || len(found) > 0
	for name, w := range want {
		g := got[name]
		if strings.HasPrefix(name, "log ") && !strings.HasPrefix(w, g) {
			t.Errorf("%s reads back differently", name)
		}
		if strings.HasPrefix(name, "meta ") && g != "" && g != w && s.Info().Recovered == "" {
			t.Errorf("%s reads back differently", name)
		}
	}
	if !maps.Equal(got, want) && !reported {
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("%s: silently not what was written (%d bytes for %d)", name, len(got[name]), len(want[name]))
			}
		}
	}
	return reported
}

// missingLogs are the logs of which less is there than was.
func missingLogs(got, want map[string]string) (names []string) {
	for name, w := range want {
		if strings.HasPrefix(name, "log ") && len(got[name]) < len(w) {
			names = append(names, name)
		}
	}
	return names
}

// fastDir is a directory in memory where there is one: these tests write much
// and need no disk.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "wal")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// damageFlips is how many bytes are flipped in each kind of stop; VIX_SWEEP
// asks for more.
func damageFlips(t *testing.T) int {
	var n int
	if _, err := fmt.Sscan(os.Getenv("VIX_SWEEP"), &n); err == nil {
		return n
	}
	if testing.Short() {
		return 2
	}
	return 12
}

// TestEveryFlippedByteIsFound damages one byte at a time, of every file, after a
// clean stop and after a kill (design G9).
func TestEveryFlippedByteIsFound(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean=%v", clean), func(t *testing.T) {
			base := fastDir(t)
			dir := filepath.Join(base, "original")
			s := openAt(t, dir, "a", sameFiles)
			fill(t, s)
			if clean {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openAt(t, dir, "a", sameFiles) // a second table
				mustAppend(t, s, put("later", "1"))
				fillAgain := logtestWriter(t, 8)
				fillAgain.ingest(s, 2)
			}
			want, errs := content(t, s)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			if clean {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			img := takeImage(t, dir)
			names := slices.Sorted(maps.Keys(img))
			seed := rand.Uint64()
			rng := rand.New(rand.NewPCG(seed, 1))
			t.Logf("seed %d", seed)
			whole := filepath.Join(base, "whole")
			img.write(t, whole)
			if checkDamaged(t, whole, want) {
				t.Fatal("an undamaged copy is reported")
			}
			unreported := 0
			for _, name := range names {
				f := img[name]
				if len(f.data) == 0 || name == "lock" {
					continue
				}
				flips := min(damageFlips(t)/2+len(f.data)/4096, 2*damageFlips(t), len(f.data))
				for range flips {
					pos := rng.IntN(len(f.data))
					mask := byte(1 + rng.IntN(255))
					bad := maps.Clone(img)
					data := bytes.Clone(f.data)
					data[pos] ^= mask
					bad[name] = imageFile{f.size, data}
					d := filepath.Join(base, "damaged")
					bad.write(t, d)
					if !checkDamaged(t, d, want) {
						unreported++
					}
					if t.Failed() {
						t.Fatalf("seed %d: byte %d of %s, mask %#x", seed, pos, name, mask)
					}
					_ = os.RemoveAll(d)
				}
			}
			t.Logf("%d flips changed nothing", unreported)
		})
	}
}
