package kv

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
)

// limits is how far logs count; a log that is not in it counts entire.
type limits map[replication.LogID]replication.LogLimit

func (l limits) of(g *replication.Genesis) replication.LogLimit {
	if limit, ok := l[g.LogID()]; ok {
		return limit
	}
	return replication.Unlimited
}

// cutAt is the limit of a log that was cut at a position.
func cutAt(at replication.Position) replication.LogLimit {
	return replication.LogLimit{Allowed: true, Cut: &at, Err: replication.ErrRevoked}
}

func restrict(t testing.TB, s replication.Store, l limits) {
	t.Helper()
	if err := s.Restrict(testContext(t), l.of); err != nil {
		t.Fatal(err)
	}
}

// retained is the part of a history that counts at a store.
func (h *history) retained(s replication.Store) *history {
	part := &history{authors: h.authors}
	for _, w := range h.ops {
		if info, ok := s.Log(w.dot.Log); ok && w.dot.Seq <= info.Tip.Seq {
			part.ops = append(part.ops, w)
		}
	}
	return part
}

// ends is where the blocks of a log end.
func (h *history) ends(t testing.TB, a *author) (list []replication.Position) {
	for _, raw := range h.blocks[a] {
		b, _, err := replication.ParseBlock(raw)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, b.End())
	}
	return list
}

// randomLimits cuts some logs: at the end of a block, inside one, at nothing, on
// another branch, beyond what there is.
func randomLimits(t testing.TB, rnd *rand.Rand, h *history) limits {
	l := limits{}
	for _, a := range h.authors {
		ends := h.ends(t, a)
		if rnd.IntN(2) == 0 || len(ends) == 0 {
			continue
		}
		at := ends[rnd.IntN(len(ends))]
		switch rnd.IntN(8) {
		case 0:
			at = replication.Position{}
		case 1:
			at.Hash[0] ^= 1
		case 2:
			at.Seq++
		case 3:
			l[a.log] = replication.LogLimit{Err: replication.ErrNotAllowed}
			continue
		}
		l[a.log] = cutAt(at)
	}
	return l
}

// feedWithin is feed with the blocks that count by the limits.
func (f *feeder) feedWithin(t testing.TB, s replication.Store, l limits, n int) {
	whole := f.left
	defer func() {
		for a, left := range whole {
			if len(f.left[a]) < len(left) {
				whole[a] = f.left[a]
			}
		}
		f.left = whole
	}()
	for range n {
		f.left = map[*author][][]byte{}
		for a, left := range whole {
			info, _ := s.Log(a.log)
			if len(left) == 0 || info.Tip != f.at[a] {
				continue
			}
			b, _, err := replication.ParseBlock(left[0])
			if err != nil {
				t.Fatal(err)
			}
			if limit := l.of(&a.gen); limit.Counts(b.End()) {
				f.left[a] = left
			}
		}
		before := fmt.Sprint(f.at)
		f.feed(t, s, 1)
		if fmt.Sprint(f.at) == before {
			return
		}
		for a, left := range f.left {
			whole[a] = left
		}
	}
}

// TestCutsAreTakenBack feeds random histories, cuts logs at random places, lowers
// and lifts the cuts, closes the view on the way and has its disk full in the
// middle; whatever it did, it ends up with what the pure function gives over the
// operations that count, as does a view that is built anew (design 5.5, G5).
func TestCutsAreTakenBack(t *testing.T) {
	seeds, steps := uint64(6), 30
	if testing.Short() {
		seeds, steps = 1, 15
	}
	for name, s := range shapes {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				t.Parallel()
				cutsAreTakenBack(t, s, seed, steps)
			})
		}
	}
}

func cutsAreTakenBack(t *testing.T, s shape, seed uint64, steps int) {
	rnd := rand.New(rand.NewPCG(seed, 9))
	h := makeHistory(rnd, s)
	store, dir := openStore(t, 100, &memlog.Disk{}), tempDir(t)
	f, l := newFeeder(h, rnd), limits{}
	var full atomic.Int64 // commits until the disk is full once
	open := func() *View {
		return openViewWith(t, Options{
			Dir: dir, Store: store, BootID: "boot", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), maxBatch: int64(rnd.IntN(2)), retryMin: time.Millisecond,
			FreeBytes: func(string) (uint64, error) {
				if full.Add(-1) == 0 {
					return 0, nil
				}
				return 1 << 40, nil
			},
		})
	}
	v := open()
	for range steps {
		switch rnd.IntN(6) {
		case 0, 1:
			f.feedWithin(t, store, l, 1+rnd.IntN(20))
		case 2:
			full.Store(int64(1 + rnd.IntN(30)))
			l = randomLimits(t, rnd, h)
			restrict(t, store, l)
		case 3:
			l = limits{}
			restrict(t, store, l)
		case 4:
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			for range rnd.IntN(3) {
				l = randomLimits(t, rnd, h)
				restrict(t, store, l)
			}
			v = open()
		case 5:
			settled(t, store, v)
			checkState(t, v, h.retained(store))
		}
	}
	settled(t, store, v)
	full.Store(0)
	checkState(t, v, h.retained(store))
	if g := v.Generation(); g != 1 {
		t.Errorf("generation %d: it was rebuilt", g)
	}
	if err := v.Verify(testContext(t), VerifyOptions{Deep: true}, func(f replication.Finding) { t.Errorf("deep verify: %+v", f) }); err != nil {
		t.Error(err)
	}
	before := countRecords(v)
	delete(before, prefixChange)
	if err := v.Rebuild(testContext(t)); err != nil {
		t.Fatal(err)
	}
	checkState(t, v, h.retained(store))
	if after := countRecords(v); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("a rebuild leaves records %v, not %v", after, before)
	}
}

// revoked writes put operations of another node, each in a block of its own.
type revoked struct {
	*author
	ends []replication.Position
}

func (r *revoked) put(t testing.TB, s replication.Store, key, value string, supersedes ...replication.Dot) replication.Dot {
	t.Helper()
	o := put(key, value)
	o.HLC = replication.HLCAt(time.Now().Add(time.Minute))
	o.Order, o.Supersedes = uint64(o.HLC)+uint64(len(r.ends)), supersedes
	slices.SortFunc(o.Supersedes, func(a, b replication.Dot) int { return cmp.Or(a.Log.Compare(b.Log), cmp.Compare(a.Seq, b.Seq)) })
	d := r.dot(r.next)
	from := replication.Position{}
	if n := len(r.ends); n > 0 {
		from = r.ends[n-1]
	}
	r.ends = append(r.ends, ingest(t, s, r.author, from, r.block([]replication.Op{o}, nil)))
	return d
}
