package wal

import (
	"context"
	"fmt"
	"strings"
	"testing"

	r "vixp2p/replication"
)

// TestLongRunsRejoin damages one block of a log that came in runs of full length,
// with one signature each, or block by block. Once a peer has sent the missing
// run alone, everything behind it joins again, also where that is more than one
// transaction can hold.
func TestLongRunsRejoin(t *testing.T) {
	for _, tc := range []struct {
		name         string
		size, blocks int
		runBytes     int // how much the peer sends at once
	}{
		{"large blocks, a signature per run", 30 << 10, 200, 0},
		{"large blocks, a signature each", 30 << 10, 200, 1},
		{"the largest blocks, a signature per run", 850 << 10, 8, 0},
		{"small blocks, a signature per run", 100, 3000, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := openAt(t, fastDir(t), "a")
			dir := fastDir(t)
			b := openAt(t, dir, "b")
			var id r.LogID
			text := func(i int) string { return fmt.Sprintf("text %d %s.", i, strings.Repeat("abc", tc.size/3)) }
			for i := range tc.blocks {
				id = mustAppend(t, a, put("k", text(i))).First.Log
			}
			pull(t, a, b, id, tc.runBytes)
			before, _ := b.Log(id)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			damageBytes(t, dir, text(3))
			b = openAt(t, dir, "b")
			broken, _ := b.Log(id)
			if b.Info().Recovered == "" || broken.Tip.Seq > 3 {
				t.Fatalf("the log ends at %d: %q", broken.Tip.Seq, b.Info().Recovered)
			}
			run, err := a.ReadRun(id, broken.Tip, tc.runBytes)
			if err != nil {
				t.Fatal(err)
			}
			v, err := r.VerifyRun(r.RunSource{Network: testNetwork, Log: id, Space: testSpace, From: broken.Tip, Origin: &before.Origin}, run.Data)
			if err != nil {
				t.Fatal(err)
			}
			if res := ingest(b, v); res.Code != r.Committed {
				t.Fatalf("%+v", res)
			}
			if err := b.SetMeta(context.Background(), "wait for", []byte("the committer")); err != nil {
				t.Fatal(err)
			}
			if l, _ := b.Log(id); l.Tip != before.Tip {
				t.Errorf("the log ends at %d of %d", l.Tip.Seq, before.Tip.Seq)
			}
			if l, _ := b.state(id); l.flags&flagAside != 0 {
				t.Error("blocks still wait")
			}
			mustBeWhole(t, b)
		})
	}
}

// TestCoveredBlocksAreForgotten: what waits behind a damaged block is dropped
// where a peer sent it too, also where that is more than one transaction can hold.
func TestCoveredBlocksAreForgotten(t *testing.T) {
	const blocks = 60_000
	s := openAt(t, fastDir(t), "a")
	id := mustAppend(t, s, put("k", "v")).First.Log
	l, _ := s.state(id)
	batch := s.db.NewWriteBatch()
	for i := range blocks {
		key := asideKey(l.num, uint64(i+1)) // not whole: nothing to keep either
		if err := batch.Set(key, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Flush(); err != nil {
		t.Fatal(err)
	}
	err := s.control(context.Background(), func(tx *tx) error {
		tx.change(tx.log(id)).flags |= flagAside
		s.committer.rejoin = append(s.committer.rejoin, id)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetMeta(context.Background(), "wait for", []byte("the committer")); err != nil {
		t.Fatal(err)
	}
	if l, _ := s.state(id); l.flags&flagAside != 0 {
		t.Error("blocks still wait")
	}
	mustBeWhole(t, s)
}
