package node

import (
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"vixp2p/replication"
)

// A loop that stands still in the middle of a listing, a tail or a watch holds up
// neither a repair nor Close.
func TestStalledReaderHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	const keys = 3 * pageEntries
	for _, how := range []string{"repair", "close"} {
		for _, what := range []string{"list", "tail", "watch"} {
			t.Run(how+" during a "+what, func(t *testing.T) {
				t.Parallel()
				n := open(t, Config{Offline: true, repairPause: time.Millisecond})
				if _, err := n.Space("").Batch(t.Context(), func(b *Batch) error {
					for i := range keys {
						b.Put(fmt.Sprintf("k%04d", i), []byte("v"))
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				stall := func() {
					if how == "close" {
						if err := n.Close(); err != nil {
							t.Error(err)
						}
						return
					}
					n.damaged(&replication.DamageError{File: "test", Problem: "said by the test"})
					until(t, "the repair", func() bool { _, done := n.health.snapshot(); return done == 1 })
				}
				seen, err := readStalled(t, n.Space(""), what, how == "close", stall)
				if how == "close" {
					if err == nil || !strings.Contains(err.Error(), "the node is closed") {
						t.Errorf("after %d: %v", seen, err)
					}
					return
				}
				switch {
				case what != "list" && (err != nil || seen != keys):
					t.Errorf("after %d of %d: %v", seen, keys, err)
				case what == "list" && (err == nil || seen >= keys || !strings.Contains(err.Error(), "cut short: list again")):
					t.Errorf("after %d of %d: %v", seen, keys, err)
				}
				all, err := readStalled(t, n.Space(""), "list", true, func() {})
				if err != nil || all != keys {
					t.Errorf("listed again: %d of %d: %v", all, keys, err)
				}
			})
		}
	}
}

// readStalled ranges over all keys, to the end if there is one, and stalls at the
// first.
func readStalled(t *testing.T, s *Space, what string, toEnd bool, stall func()) (seen int, err error) {
	ctx := deadline(t)
	count := func(e error) bool {
		if err = e; e != nil {
			return false
		}
		if seen++; seen == 1 {
			stall()
		}
		return what == "list" || toEnd || seen < 3*pageEntries
	}
	switch what {
	case "list":
		each(s.List(ctx, "k"), count)
	case "tail":
		each(s.Tail(ctx, Start, true), count)
	case "watch":
		each(s.Watch(ctx, "k", Start), count)
	}
	return seen, err
}

func each[T any](seq iter.Seq2[T, error], fn func(error) bool) {
	for _, err := range seq {
		if !fn(err) {
			return
		}
	}
}

// The pages of a listing join without a gap, whatever their size, and a listing
// may be left at any place.
func TestListPages(t *testing.T) {
	t.Parallel()
	n := open(t, Config{Offline: true})
	for i := range 2*pageEntries + 1 {
		put(t, n, fmt.Sprintf("small/%04d", i), "v")
	}
	for i := range 5 {
		put(t, n, fmt.Sprintf("big/%d", i), strings.Repeat("x", pageBytes/2))
	}
	for prefix, want := range map[string]int{"small/": 2*pageEntries + 1, "big/": 5, "": 2*pageEntries + 6, "none": 0} {
		for _, most := range []int{1, pageEntries, pageEntries + 1, want} {
			got, last := 0, ""
			for e, err := range n.Space("").List(deadline(t), prefix) {
				if err != nil {
					t.Fatal(err)
				}
				if e.Key <= last {
					t.Fatalf("%q comes after %q", e.Key, last)
				}
				last = e.Key
				if got++; got == most {
					break
				}
			}
			if got != min(most, want) {
				t.Errorf("%q: %d entries, want %d", prefix, got, min(most, want))
			}
		}
	}
}
