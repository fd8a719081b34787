package kv

import (
	"bytes"
	"cmp"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	badger "github.com/dgraph-io/badger/v4"

	"vixp2p/replication"
)

// written is an operation of a history with its place.
type written struct {
	dot    replication.Dot
	author *author
	op     replication.Op
	counts bool // not void in any way
}

// history is logs of which every node that holds them must show the same state.
type history struct {
	authors []*author
	blocks  map[*author][][]byte
	ops     []written
}

// oracle is the pure function of design 5.2: the puts on k that no operation on k
// names, ranked by (order, HLC, origin, epoch, seq).
func (h *history) oracle() map[string][]written {
	type naming struct {
		key string
		dot replication.Dot
	}
	named := map[naming]bool{}
	for _, w := range h.ops {
		for _, d := range w.op.Supersedes {
			if w.counts && d != w.dot {
				named[naming{string(w.op.Key), d}] = true
			}
		}
	}
	state := map[string][]written{}
	for _, w := range h.ops {
		key := string(w.op.Key)
		if w.counts && w.op.Kind == replication.KindPut && !named[naming{key, w.dot}] {
			state[key] = append(state[key], w)
		}
	}
	for _, list := range state {
		slices.SortFunc(list, func(a, b written) int {
			return -cmp.Or(
				cmp.Compare(a.op.Order, b.op.Order), cmp.Compare(a.op.HLC, b.op.HLC),
				bytes.Compare(a.author.gen.Origin[:], b.author.gen.Origin[:]),
				bytes.Compare(a.author.gen.Epoch[:], b.author.gen.Epoch[:]),
				cmp.Compare(a.dot.Seq, b.dot.Seq))
		})
	}
	return state
}

// wanted tells by design 5.1 whether an operation counts.
func wanted(o *replication.Op) bool {
	keyed := o.Kind == replication.KindPut || o.Kind == replication.KindDelete
	return keyed && o.Order < uint64(o.HLC)+1<<32
}

// digestOf is the definition of design 5.4, with big integers.
func digestOf(state map[string][]written) replication.Hash {
	sum := new(big.Int)
	for key, list := range state {
		for _, w := range list {
			var seq, order [8]byte
			big.NewInt(0).SetUint64(w.dot.Seq).FillBytes(seq[:])
			big.NewInt(0).SetUint64(w.op.Order).FillBytes(order[:])
			h := replication.HashParts("vix/view/1", []byte(key), w.dot.Log[:], seq[:], order[:], w.op.Payload)
			sum.Add(sum, new(big.Int).SetBytes(h[:]))
		}
	}
	sum.Mod(sum, new(big.Int).Lsh(big.NewInt(1), 256))
	var out replication.Hash
	sum.FillBytes(out[:])
	return out
}

// pending counts the pairs of a dot that no log has and a key on which it is
// named.
func (h *history) pending() int {
	arrived := map[replication.Dot]bool{}
	for _, w := range h.ops {
		arrived[w.dot] = true
	}
	waiting := map[string]bool{}
	for _, w := range h.ops {
		for _, d := range w.op.Supersedes {
			if w.counts && !arrived[d] {
				waiting[d.String()+string(w.op.Key)] = true
			}
		}
	}
	return len(waiting)
}

// shape says what kind of history makeHistory makes.
type shape struct {
	logs, blocks, maxOps, keys int
	name                       float64 // chance that an operation names others
	maxNames                   int
	big                        float64 // chance of a value with a record of its own
}

// makeHistory makes a random history with everything that peers may send.
func makeHistory(rnd *rand.Rand, s shape) *history {
	h := &history{blocks: map[*author][][]byte{}}
	for i := range s.logs {
		h.authors = append(h.authors, newAuthor(uint64(i/2), byte(i%2+1))) // two epochs each
	}
	clock := map[*author]replication.HLC{}
	for range s.blocks {
		a := h.authors[rnd.IntN(len(h.authors))]
		void := rnd.IntN(20) == 0
		var ops []replication.Op
		for range 1 + rnd.IntN(s.maxOps) {
			clock[a] += replication.HLC(1 + rnd.IntN(3)) // readings of different logs collide
			o := h.randomOp(rnd, s, a.dot(a.next+uint64(len(ops))))
			o.HLC = clock[a]
			switch rnd.IntN(30) {
			case 0:
				o.Order = uint64(o.HLC) + replication.MaxOrderLead // void
			case 1, 2:
				o.Order = uint64(o.HLC) + rnd.Uint64N(4)
			default:
				o.Order = uint64(o.HLC)
			}
			if o.Kind != replication.KindPut && o.Kind != replication.KindDelete && len(o.Key) == 0 {
				o.Order = 0
			}
			h.ops = append(h.ops, written{dot: a.dot(a.next + uint64(len(ops))), author: a, op: o, counts: !void && wanted(&o)})
			ops = append(ops, o)
		}
		var mangle func(*replication.Header, []byte) []byte
		if void {
			mangle = func(_ *replication.Header, body []byte) []byte {
				body[len(body)/2] ^= 0xff
				body[0] = 0xff
				return body
			}
		}
		h.blocks[a] = append(h.blocks[a], a.block(ops, mangle))
	}
	return h
}

func (h *history) randomOp(rnd *rand.Rand, s shape, self replication.Dot) replication.Op {
	key := fmt.Sprintf("key %d", rnd.IntN(s.keys))
	value := fmt.Sprintf("value of %s", self)
	if rnd.Float64() < s.big {
		value += string(make([]byte, inlineValue))
	}
	o := put(key, value)
	switch rnd.IntN(12) {
	case 0, 1:
		o = del(key)
	case 2:
		if rnd.IntN(2) == 0 {
			return replication.Op{Kind: replication.KindApp, Name: "note", Payload: []byte(value)}
		}
		return replication.Op{Kind: 77, Key: []byte(key), Payload: []byte(value)}
	}
	if rnd.Float64() >= s.name {
		return o
	}
	for range 1 + rnd.IntN(s.maxNames) {
		switch a := h.authors[rnd.IntN(len(h.authors))]; rnd.IntN(10) {
		case 0: // perhaps not written yet, perhaps never
			o.Supersedes = append(o.Supersedes, a.dot(a.next+rnd.Uint64N(6)))
		case 1:
			o.Supersedes = append(o.Supersedes, self)
		case 2: // any key
			if len(h.ops) > 0 {
				o.Supersedes = append(o.Supersedes, h.ops[rnd.IntN(len(h.ops))].dot)
			}
		default: // the same key
			for range 8 {
				if len(h.ops) == 0 {
					break
				}
				if w := h.ops[rnd.IntN(len(h.ops))]; string(w.op.Key) == key {
					o.Supersedes = append(o.Supersedes, w.dot)
					break
				}
			}
		}
	}
	slices.SortFunc(o.Supersedes, replication.Dot.Compare)
	o.Supersedes = slices.Compact(o.Supersedes)
	return o
}

// feeder commits a history's blocks to a store in a random order that keeps the
// order of each log.
type feeder struct {
	h    *history
	rnd  *rand.Rand
	left map[*author][][]byte
	at   map[*author]replication.Position
}

func newFeeder(h *history, rnd *rand.Rand) *feeder {
	f := &feeder{h: h, rnd: rnd, left: map[*author][][]byte{}, at: map[*author]replication.Position{}}
	for a, b := range h.blocks {
		f.left[a] = b
	}
	return f
}

// feed commits up to n blocks and tells whether some are left.
func (f *feeder) feed(t testing.TB, s replication.Store, n int) bool {
	for range n {
		var open []*author
		for _, a := range f.h.authors {
			if len(f.left[a]) > 0 {
				open = append(open, a)
			}
		}
		if len(open) == 0 {
			return false
		}
		a := open[f.rnd.IntN(len(open))]
		f.at[a] = ingest(t, s, a, f.at[a], f.left[a][0])
		f.left[a] = f.left[a][1:]
	}
	return true
}

// checkState compares a settled view with the oracle: siblings, winners, digest,
// counts, and that nothing else is in the database.
func checkState(t testing.TB, v *View, h *history) {
	t.Helper()
	ctx := testContext(t)
	want := h.oracle()
	siblings, conflicts, apart, large := 0, 0, 0, 0
	keys := map[string]bool{}
	for _, w := range h.ops {
		keys[string(w.op.Key)] = true
	}
	for key := range keys {
		list := want[key]
		got, err := v.Siblings(ctx, testSpace, []byte(key), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(list) {
			t.Fatalf("%s has %d siblings, want %d", key, len(got), len(list))
		}
		for i, w := range list {
			g := got[i]
			if g.Dot != w.dot || g.Order != w.op.Order || g.HLC != w.op.HLC || g.Origin != w.author.gen.Origin ||
				!bytes.Equal(g.Value, w.op.Payload) || g.Conflicts != uint64(len(list)-1) {
				t.Fatalf("%s: sibling %d is %v, want %v", key, i, g.Dot, w.dot)
			}
			if len(w.op.Payload) > inlineValue {
				apart++
			}
		}
		siblings += len(list)
		if len(list) > 1 {
			conflicts++
		}
		if len(list) > 0 {
			if e, ok, err := v.Get(ctx, testSpace, []byte(key)); err != nil || !ok || e.Dot != list[0].dot {
				t.Fatalf("%s: the winner is %v, want %v (%v)", key, e.Dot, list[0].dot, err)
			}
		}
	}
	sum, err := v.Summary(ctx, testSpace)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Keys != uint64(len(want)) || sum.Siblings != uint64(siblings) || sum.Conflicts != uint64(conflicts) {
		t.Errorf("counts are %d keys, %d siblings, %d conflicts; want %d, %d, %d",
			sum.Keys, sum.Siblings, sum.Conflicts, len(want), siblings, conflicts)
	}
	if d := digestOf(want); sum.Digest != d {
		t.Errorf("digest %v, want %v", sum.Digest, d)
	}
	if err := v.Verify(ctx, VerifyOptions{}, func(f replication.Finding) { t.Errorf("verify: %+v", f) }); err != nil {
		t.Error(err)
	}

	found := countRecords(v)
	for key, list := range want {
		rec := savedRecord(t, v, key)
		if rec.large {
			large += len(list)
		}
	}
	if found[prefixKey] != len(want) || found[prefixPending] != h.pending() || found[prefixValue] != apart || found[prefixSibling] != large {
		t.Errorf("records %v; want %d keys, %d pending, %d values, %d siblings apart", found, len(want), h.pending(), apart, large)
	}
}

// countRecords counts what is in the database, by prefix.
func countRecords(v *View) map[byte]int {
	found := map[byte]int{}
	txn := v.d.latest()
	defer txn.Discard()
	it := txn.NewIterator(badger.DefaultIteratorOptions)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		found[it.Item().Key()[0]]++
	}
	return found
}

func savedRecord(t testing.TB, v *View, key string) keyRecord {
	txn := v.d.latest()
	defer txn.Discard()
	rec, err := loadKey(txn, testSpace, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}
