package wal

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	r "vixp2p/replication"
)

var testNetwork = r.OpenNetwork("test")
var testSpace = r.SpaceOf(testNetwork, "default")

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func openAt(t testing.TB, dir, name string, mod ...func(*Options)) *Store {
	t.Helper()
	o := Options{Dir: dir, Network: testNetwork, Key: testKey(name)}
	for _, m := range mod {
		m(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(key, value string) r.Op {
	return r.Op{Kind: r.KindPut, Key: []byte(key), Payload: []byte(value)}
}

func mustAppend(t testing.TB, s *Store, ops ...r.Op) r.Appended {
	t.Helper()
	a, err := s.Append(context.Background(), r.Batch{Space: testSpace, Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// pull copies everything of one log from a to b, run by run.
func pull(t testing.TB, from, to *Store, id r.LogID, maxBytes int) []r.IngestResult {
	t.Helper()
	var results []r.IngestResult
	for {
		var at r.Position
		src := r.RunSource{Network: testNetwork, Log: id, Space: testSpace}
		if l, ok := to.Log(id); ok {
			at = l.Tip
			src.Origin = &l.Origin
		}
		run, err := from.ReadRun(id, at, maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		if run.Data == nil {
			return results
		}
		src.From = at
		v, err := r.VerifyRun(src, run.Data)
		if err != nil {
			t.Fatal(err)
		}
		res := ingest(to, v)
		results = append(results, res)
		if res.Code != r.Committed {
			return results
		}
	}
}

func ingest(s *Store, v *r.VerifiedRun) r.IngestResult {
	done := make(chan r.IngestResult, 1)
	s.Ingest(1, v, func(res r.IngestResult) { done <- res })
	return <-done
}

func verify(t testing.TB, s *Store) []r.Finding {
	t.Helper()
	var found []r.Finding
	if err := s.Verify(context.Background(), func(f r.Finding) { found = append(found, f) }); err != nil {
		t.Fatal(err)
	}
	return found
}

func mustBeWhole(t testing.TB, s *Store) {
	t.Helper()
	if found := verify(t, s); len(found) > 0 {
		t.Fatalf("findings: %+v", found)
	}
}

func TestAppendReadIngest(t *testing.T) {
	a := openAt(t, t.TempDir(), "a")
	b := openAt(t, t.TempDir(), "b")
	var advances []r.Advance
	cancel := b.Subscribe(func(x r.Advance) { advances = append(advances, x) })
	first := mustAppend(t, a, put("k", "v"))
	if first.First.Seq != 1 || first.Pos.Seq != 1 || first.Arrival != 1 {
		t.Fatalf("%+v", first)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if _, err := a.Append(context.Background(), r.Batch{Space: testSpace, Ops: []r.Op{put(fmt.Sprint(i), "x"), put("k", "y")}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	id := first.First.Log
	pull(t, a, b, id, 600)
	cancel()
	la, _ := a.Log(id)
	lb, _ := b.Log(id)
	if la.Tip != lb.Tip || la.Tip.Seq != 101 {
		t.Fatalf("%+v\n%+v", la, lb)
	}
	if len(advances) == 0 || advances[len(advances)-1].Tip != la.Tip {
		t.Fatal("no advance")
	}
	arr, err := b.ReadArrivals(testSpace, 0, 1<<20)
	if err != nil || uint64(len(arr)) != lb.Blocks {
		t.Fatal(len(arr), err)
	}
	mustBeWhole(t, a)
	mustBeWhole(t, b)
}

func TestReopenContinues(t *testing.T) {
	dir := t.TempDir()
	a := openAt(t, dir, "a")
	x := mustAppend(t, a, put("k", "v"))
	in := a.Info().Instance
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = openAt(t, dir, "a")
	if a.Info().Recovered != "" || a.Info().Instance != in {
		t.Fatal(a.Info())
	}
	y := mustAppend(t, a, put("k", "v"))
	if y.First.Log != x.First.Log || y.First.Seq != 2 {
		t.Fatalf("%+v after %+v", y, x)
	}
	mustBeWhole(t, a)
}
