package replication_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/logtest"
)

var (
	network = replication.OpenNetwork("dev")
	space   = replication.SpaceOf(network, replication.DefaultSpace)
)

func writer(seed uint64) *logtest.Writer { return logtest.NewWriter(network, space, seed) }

// sample is a log of six blocks of which the second, third and fifth are not
// signed.
func sample() *logtest.Writer {
	w := writer(1)
	w.Add()
	w.AddUnsigned()
	w.AddUnsigned()
	w.Add()
	w.AddUnsigned()
	w.Add()
	return w
}

func TestVerifyRun(t *testing.T) {
	w := sample()
	for _, tc := range []struct{ from, bodies, to int }{
		{0, 1, 1}, {0, 4, 4}, {0, 6, 6}, {1, 4, 4}, {3, 4, 4}, {2, 6, 6}, {5, 6, 6}, {0, 1, 4}, {1, 2, 4}, {0, 5, 6}, {3, 5, 6},
	} {
		src := w.Source(tc.from)
		if tc.from == 0 {
			src.Origin = nil // an unknown log
		}
		run, err := replication.VerifyRun(src, w.RawTail(tc.from, tc.bodies, tc.to))
		if err != nil {
			t.Fatalf("%+v: %v", tc, err)
		}
		if !run.Verified() || run.Origin != w.Origin || run.Space != space || run.Log != w.Log || run.From != w.Pos(tc.from) ||
			run.End() != w.Pos(tc.bodies) || len(run.Blocks) != tc.bodies-tc.from || len(run.Tail) != tc.to-tc.bodies ||
			(run.Genesis() != nil) != (tc.from == 0) {
			t.Errorf("%+v: %+v", tc, run)
		}
		all := append(run.Blocks[:len(run.Blocks):len(run.Blocks)], run.Tail...)
		for i, b := range all {
			if signed := len(b.Sig) > 0; signed != (i == len(all)-1) {
				t.Errorf("%+v: block %d signed: %v; only the verified signature may stay", tc, i, signed)
			}
		}
	}
}

// TestVerifyRunRefusals: each way in which a run can be wrong.
func TestVerifyRunRefusals(t *testing.T) {
	w := sample()
	other := writer(2).AddMany(3)
	src := func(n int, change func(*replication.RunSource)) replication.RunSource {
		s := w.Source(n)
		if change != nil {
			change(&s)
		}
		return s
	}
	flip := func(raw []byte, i int) []byte {
		raw = bytes.Clone(raw)
		raw[(i+len(raw))%len(raw)] ^= 1
		return raw
	}
	bad := sample()
	bad.AddSpec(logtest.Spec{BadSignature: true})
	many := writer(3)
	for range replication.MaxRunBlocks {
		many.AddUnsigned()
	}
	many.Add()
	late := writer(4)
	late.AddSpec(logtest.Spec{Header: func(h *replication.Header) { h.FirstSeq, h.Prev, h.Genesis = 5, replication.Hash{1}, nil }})
	forked := w.Fork(3)
	forked.Add()
	stranger := replication.OriginKey{7}

	for _, tc := range []struct {
		name string
		src  replication.RunSource
		raw  []byte
		want string
	}{
		{"empty", src(0, nil), nil, "empty run"},
		{"garbage", src(0, nil), []byte("garbage"), "invalid"},
		{"cut short", src(0, nil), w.Raw(0, 4)[:50], "cut short"},
		{"garbage behind", src(0, nil), append(w.Raw(0, 4), 0), "invalid"},
		{"too long", src(0, nil), make([]byte, replication.MaxRunBytes+1), "more than"},
		{"too many blocks", many.Source(0), many.Raw(0, many.Len()), "more than 256 blocks"},
		{"body flipped", src(0, nil), flip(w.Raw(0, 4), -1), "does not match its hash"},
		{"header flipped", src(0, nil), flip(w.Raw(0, 4), 10), "invalid"},
		{"no signature at the end", src(0, nil), w.Raw(0, 3), "does not end in a signature"},
		{"wrong signature", bad.Source(4), bad.Raw(4, 7), "is not its origin's"},
		{"signature of another origin", src(3, func(s *replication.RunSource) { s.Origin = &stranger }), w.Raw(3, 4), "is not its origin's"},
		{"block left out", src(0, nil), append(w.Raw(0, 1), w.Raw(2, 4)...), "does not follow"},
		{"block twice", src(0, nil), append(w.Raw(0, 1), w.Raw(0, 4)...), "does not follow"},
		{"blocks in another order", src(0, nil), append(w.Raw(1, 2), w.Raw(0, 1)...), "does not follow"},
		{"block of another log", src(0, nil), append(w.Raw(0, 1), other.Raw(1, 2)...), "in a run of log"},
		{"all of another log", src(0, nil), other.Raw(0, 2), "in a run of log"},
		{"from another position", src(1, nil), w.Raw(2, 4), "does not follow"},
		{"from another hash", src(1, func(s *replication.RunSource) { s.From.Hash[0] ^= 1 }), w.Raw(1, 4), "does not follow"},
		{"from another branch", forked.Source(4), w.Raw(4, 6), "does not follow"},
		{"genesis does not follow anything", src(1, nil), w.Raw(0, 4), "does not follow"},
		{"unknown log without genesis", src(1, func(s *replication.RunSource) { s.Origin = nil }), w.Raw(1, 4), "does not start with a genesis"},
		{"middle of a log as its start", late.Source(0), late.Raw(0, 1), "does not follow"},
		{"another network", src(0, func(s *replication.RunSource) { s.Network[0] ^= 1 }), w.Raw(0, 4), "another network"},
		{"another space", src(0, func(s *replication.RunSource) { s.Space[0] ^= 1 }), w.Raw(0, 4), "another space"},
		{"another origin than known", src(0, func(s *replication.RunSource) { s.Origin = &stranger }), w.Raw(0, 4), "another origin"},
		{"no body at all", src(0, nil), w.RawTail(0, 0, 4), "without any body"},
		{"a body missing inside", src(0, nil), append(append(w.Raw(0, 1), w.RawTail(1, 1, 2)...), w.Raw(2, 4)...), "has no body inside"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run, err := replication.VerifyRun(tc.src, tc.raw)
			if !errors.Is(err, replication.ErrInvalid) || !strings.Contains(err.Error(), tc.want) || run.Verified() {
				t.Fatalf("got %v, want invalid data with %q", err, tc.want)
			}
		})
	}
	_, err := replication.VerifyRun(bad.Source(4), bad.Raw(4, 7))
	var sig *replication.SignatureError
	if !errors.Is(err, replication.ErrSignature) || !errors.As(err, &sig) || sig.Seq != 7 || sig.Log != w.Log {
		t.Errorf("a wrong signature: %v", err)
	}
}

// TestVerifyRunNoticesEveryByte: no byte of a signed run can be changed.
func TestVerifyRunNoticesEveryByte(t *testing.T) {
	w := sample()
	raw := w.Raw(0, 4)
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 0x40
		run, err := replication.VerifyRun(w.Source(0), changed)
		if err != nil {
			continue
		}
		// Only the first block's signature, which is not looked at and not kept,
		// may differ.
		for k, b := range run.Blocks {
			if b.Hash != w.Block(k).Hash || !bytes.Equal(b.Body, w.Block(k).Body) || (k < 3 && b.Sig != nil) {
				t.Fatalf("byte %d changed and block %d is taken", i, k)
			}
		}
	}
}

func TestRunCutter(t *testing.T) {
	const most = replication.MaxRunBytes
	type block struct {
		size   int
		signed bool
	}
	s, u := func(n int) block { return block{n, true} }, func(n int) block { return block{n, false} }
	for _, tc := range []struct {
		name   string
		max    int
		blocks []block
		added  int // how many Add takes
		keep   int
	}{
		{"one", 0, []block{s(10)}, 1, 1},
		{"nothing", 0, nil, 0, 0},
		{"never signed", 0, []block{u(10), u(10)}, 2, 0},
		{"the last is not signed", 0, []block{s(10), u(10)}, 2, 1},
		{"up to the bytes", 20, []block{s(10), s(10), s(1)}, 2, 2},
		{"beyond the bytes for the first signature", 5, []block{u(10), u(10), s(10), s(1)}, 3, 3},
		{"no further once signed", 15, []block{s(10), u(3), s(3)}, 2, 1},
		{"the largest run", 0, []block{u(most - 10), s(10)}, 2, 2},
		{"one byte too many", 0, []block{u(most - 10), s(11)}, 1, 0},
		{"more than allowed is not allowed", most + 5, []block{s(most), s(1)}, 1, 1},
		{"negative means the default", -1, []block{s(most), s(1)}, 1, 1},
	} {
		c := replication.RunCutter{Max: tc.max}
		added := 0
		for _, b := range tc.blocks {
			if !c.Add(b.size, b.signed) {
				break
			}
			added++
		}
		if added != tc.added || c.Len() != tc.keep {
			t.Errorf("%s: took %d and keeps %d, want %d and %d", tc.name, added, c.Len(), tc.added, tc.keep)
		}
	}
	var c replication.RunCutter
	for i := range replication.MaxRunBlocks {
		if !c.Add(1, i == 3) {
			t.Fatalf("block %d is refused", i)
		}
	}
	if c.Add(1, true) || c.Len() != 4 {
		t.Errorf("a run of more than %d blocks", replication.MaxRunBlocks)
	}
}

// TestRunCutterProperty: from any boundary of a log whose signatures are no
// further apart than a run, a run exists, for any wish for bytes.
func TestRunCutterProperty(t *testing.T) {
	type block struct {
		size   int
		signed bool
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		var log []block
		for range 1 + r.IntN(6) { // intervals between signatures
			n := 1 + r.IntN(replication.MaxRunBlocks)
			room := replication.MaxRunBytes
			for i := range n {
				size := 1 + r.IntN(room/(n-i))
				if i == n-1 && r.IntN(3) == 0 {
					size = room // full to the last byte
				}
				room -= size
				log = append(log, block{size, i == n-1})
			}
		}
		for range 50 {
			from := r.IntN(len(log))
			maxBytes := []int{0, 1, r.IntN(replication.MaxRunBytes), replication.MaxRunBytes}[r.IntN(4)]
			c := replication.RunCutter{Max: maxBytes}
			for _, b := range log[from:] {
				if !c.Add(b.size, b.signed) {
					break
				}
			}
			n := c.Len()
			if n == 0 || !log[from+n-1].signed {
				t.Fatalf("no run from block %d of %d", from, len(log))
			}
			size, signatures := 0, 0
			for _, b := range log[from : from+n] {
				size += b.size
				if b.signed {
					signatures++
				}
			}
			if n > replication.MaxRunBlocks || size > replication.MaxRunBytes || (maxBytes > 0 && size > maxBytes && signatures > 1) {
				t.Fatalf("a run of %d blocks, %d bytes and %d signatures for %d bytes", n, size, signatures, maxBytes)
			}
		}
	}
}

func TestForkProof(t *testing.T) {
	w := sample()
	f := w.Fork(1)
	f.Add(logtest.Put("a", "1"), logtest.Put("b", "1"), logtest.Put("c", "1")) // seqs 2 to 4
	f.AddUnsigned()
	f.Add()
	proof := func(a, b []byte) *replication.ForkProof {
		return &replication.ForkProof{Log: w.Log, Origin: w.Origin, A: a, B: b}
	}
	for name, p := range map[string]*replication.ForkProof{
		"same start":               proof(w.Raw(1, 4), f.Raw(1, 2)),
		"headers alone":            proof(w.RawTail(1, 1, 4), f.RawTail(1, 1, 4)),
		"one starts before":        proof(w.Raw(0, 4), f.Raw(1, 2)),
		"block over three":         proof(w.Raw(3, 4), f.Raw(1, 2)),
		"later on one side":        proof(w.Raw(2, 4), f.Raw(1, 4)),
		"follows another block":    proof(f.Raw(2, 4), w.Raw(3, 4)), // after seq 4
		"follows, the other way":   proof(w.Raw(3, 4), f.Raw(2, 4)),
		"follows inside a block":   proof(w.Raw(2, 4), f.Raw(1, 2)), // seq 2 is inside f's
		"both from the start":      proof(w.Raw(0, 4), f.Raw(0, 2)),
		"two genesis blocks":       proof(w.Raw(0, 1), w.Fork(0).AddMany(1).Raw(0, 1)),
		"more behind on one side":  proof(w.Raw(0, 6), f.Raw(0, 2)),
		"with bodies on one side":  proof(w.RawTail(1, 1, 4), f.Raw(1, 2)),
		"swapped":                  proof(f.Raw(1, 2), w.Raw(1, 4)),
		"a tail on one side":       proof(w.RawTail(1, 2, 4), f.Raw(1, 2)),
		"signature far behind it":  proof(w.Raw(1, 6), f.Raw(1, 4)),
		"unsigned middle on sides": proof(w.Raw(4, 6), f.Raw(1, 4)),
	} {
		if err := p.Verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := writer(2).AddMany(3)
	bad := w.Fork(1)
	bad.AddSpec(logtest.Spec{BadSignature: true})
	heavy := w.Fork(1)
	for range 2 {
		heavy.AddUnsigned(logtest.App("a", make([]byte, 900<<10)))
	}
	heavy.Add()
	long := w.Fork(1)
	for range replication.MaxRunBlocks {
		long.AddUnsigned()
	}
	long.Add()
	for name, p := range map[string]*replication.ForkProof{
		"empty":                   proof(nil, nil),
		"one side empty":          proof(w.Raw(1, 4), nil),
		"garbage":                 proof(w.Raw(1, 4), []byte("garbage")),
		"the same":                proof(w.Raw(1, 4), w.Raw(1, 4)),
		"the same, other cuts":    proof(w.Raw(0, 4), w.Raw(2, 6)),
		"one after the other":     proof(w.Raw(0, 4), w.Raw(4, 6)),
		"not signed":              proof(w.Raw(1, 3), f.Raw(1, 2)),
		"wrong signature":         proof(w.Raw(1, 4), bad.Raw(1, 2)),
		"of another origin":       {Log: w.Log, Origin: other.Origin, A: w.Raw(1, 4), B: f.Raw(1, 2)},
		"of another log":          {Log: other.Log, Origin: w.Origin, A: w.Raw(1, 4), B: f.Raw(1, 2)},
		"another log on one side": proof(w.Raw(1, 4), other.Raw(1, 2)),
		"a hole":                  proof(append(w.Raw(1, 2), w.Raw(3, 4)...), f.Raw(1, 2)),
		"too many blocks":         proof(w.Raw(1, 4), long.Raw(1, long.Len())),
		"too long":                proof(w.Raw(1, 4), heavy.Raw(1, 4)),
		"far apart":               proof(w.Raw(1, 4), f.Raw(3, 4)),
	} {
		if err := p.Verify(); !errors.Is(err, replication.ErrInvalid) {
			t.Errorf("%s: %v, want invalid data", name, err)
		}
	}
}
