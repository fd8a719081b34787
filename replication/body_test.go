package replication

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

var bodyLog = LogID{5}

// bodyHeader is what a header says about operations and their body.
func bodyHeader(ops []Op, raw []byte) *Header {
	h := &Header{Log: bodyLog, FirstSeq: 1, Count: uint64(len(ops)), RawLen: uint64(len(raw))}
	if len(ops) > 0 {
		h.FirstHLC, h.LastHLC = ops[0].HLC, ops[len(ops)-1].HLC
	}
	return h
}

func TestBodyRoundTrip(t *testing.T) {
	for name, ops := range map[string][]Op{
		"put":    {{Kind: KindPut, Key: []byte("k"), Payload: []byte("v"), HLC: 100, Order: 100}},
		"delete": {{Kind: KindDelete, Key: []byte("k"), HLC: 100, Order: 105, Supersedes: []Dot{{bodyLog, 1}}}},
		"app":    {{Kind: KindApp, Name: "chat", Payload: []byte("hi"), HLC: 100}},
		"app with a key": {
			{Kind: KindApp, Name: strings.Repeat("n", MaxAppName), Key: []byte("k"), HLC: 100, Order: 200, Critical: true},
		},
		"reserved": {{Kind: KindPut, Key: []byte("k"), HLC: 1, Order: 1, Flags: 3, Expiry: 9, Content: []byte("ref")}},
		"unknown kind": {
			{Kind: 4, HLC: 1, Payload: []byte("p")}, {Kind: math.MaxUint32, Critical: true, Key: []byte("k"), HLC: 2, Order: 2},
		},
		"several, with dots of several logs": {
			{Kind: KindPut, Key: []byte("a"), HLC: 1 << 40, Order: 1 << 40},
			{Kind: KindPut, Key: []byte("b"), HLC: 1<<40 + 1, Order: 1<<40 + 1, Supersedes: []Dot{
				{LogID{1}, 3}, {LogID{1}, 4}, {bodyLog, 1}, {LogID{9}, math.MaxUint64},
			}},
			{Kind: KindDelete, Key: []byte("c"), HLC: 1 << 50, Order: 1<<50 + 1<<32, Supersedes: []Dot{{LogID{9}, 1}}},
		},
		"longest key":  {{Kind: KindPut, Key: bytes.Repeat([]byte("k"), MaxKey), HLC: 1, Order: 1}},
		"largest time": {{Kind: KindPut, Key: []byte("k"), HLC: math.MaxUint64, Order: math.MaxUint64}},
	} {
		for i := range ops {
			if err := CheckOp(&ops[i]); err != nil {
				t.Errorf("%s: operation %d: %v", name, i, err)
			}
		}
		raw := EncodeBody(bodyLog, ops)
		h := bodyHeader(ops, raw)
		got, err := DecodeBody(h, raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, ops) {
			t.Errorf("%s: got %+v, want %+v", name, got, ops)
		}
		if _, err := DecodeBody(h, join(raw, vi(64, 1))); err == nil {
			t.Errorf("%s: a body longer than the header says", name)
		}
		h.RawLen += uint64(len(vi(64, 1)))
		if _, err := DecodeBody(h, join(raw, vi(64, 1))); err != nil {
			t.Errorf("%s with a field of a later version: %v", name, err)
		}
	}
}

// opBytes is one operation of a body, from its fields.
func opBytes(fields ...[]byte) []byte { return by(bodyOp, string(join(fields...))) }

func dotBytes(pairs ...uint64) string {
	var b []byte
	for _, v := range pairs {
		b = protowire.AppendVarint(b, v)
	}
	return string(b)
}

// TestVoidBodies breaks each rule of a body: every one voids it as a whole.
func TestVoidBodies(t *testing.T) {
	var (
		put   = vi(opKind, uint64(KindPut)<<1)
		app   = vi(opKind, uint64(KindApp)<<1)
		key   = by(opKey, "k")
		good  = opBytes(put, key)
		later = opBytes(put, key, vi(opHLC, 1))
		log1  = by(bodyTable, string(bytes.Repeat([]byte{1}, 32)))
		log2  = by(bodyTable, string(bytes.Repeat([]byte{2}, 32)))
		self  = by(bodyTable, string(bodyLog[:]))
	)
	many := make([]uint64, 0, 2*(MaxSupersedes+1))
	for i := range MaxSupersedes + 1 {
		many = append(many, 0, uint64(i+1))
	}
	for _, tc := range []struct {
		name  string
		count uint64
		last  HLC // minus the first
		raw   []byte
		want  string // empty: valid
	}{
		{"one put", 1, 0, good, ""},
		{"two puts", 2, 1, join(good, later), ""},
		{"a table that nobody uses", 1, 0, join(log1, log2, good), ""},
		{"1,024 dots", 1, 0, opBytes(put, key, by(opDots, dotBytes(many[2:]...))), ""},

		{"empty", 1, 0, nil, "0 operations"},
		{"too few", 2, 0, good, "1 operations"},
		{"too many", 1, 0, join(good, later), "more than 1"},
		{"operation before the table", 1, 0, join(good, log1), "field 1 after field 2"},
		{"table descends", 1, 0, join(log2, log1, good), "strictly ascending"},
		{"table twice", 1, 0, join(log1, log1, good), "strictly ascending"},
		{"table names its own log", 1, 0, join(self, good), "its own log"},
		{"table of 31 bytes", 1, 0, join(by(bodyTable, strings.Repeat("x", 31)), good), "not 32"},
		{"empty table entry", 1, 0, join(by(bodyTable, ""), good), "not 32"},
		{"table entry as a number", 1, 0, join(vi(bodyTable, 1), good), "not bytes"},
		{"operation as a number", 1, 0, vi(bodyOp, 1), "not bytes"},
		{"unknown body field", 1, 0, join(good, vi(3, 1)), "unknown body field 3"},
		{"last unknown body field", 1, 0, join(good, vi(63, 1)), "unknown body field 63"},
		{"garbage", 1, 0, []byte{0xff}, "tag"},

		{"empty operation", 1, 0, opBytes(), "kind 0"},
		{"kind 0", 1, 0, opBytes(vi(opKind, 1), key), "kind 0"},
		{"kind beyond 32 bits", 1, 0, opBytes(vi(opKind, 1<<33), key), "kind 4294967296"},
		{"kind as bytes", 1, 0, opBytes(by(opKind, "x")), "not a varint"},
		{"fields descend", 1, 0, opBytes(key, put), "field 1 after field 3"},
		{"unknown operation field", 1, 0, opBytes(put, key, vi(11, 1)), "unknown operation field 11"},
		{"put without a key", 1, 0, opBytes(put), "needs a key"},
		{"delete without a key", 1, 0, opBytes(vi(opKind, uint64(KindDelete)<<1)), "needs a key"},
		{"key too long", 1, 0, opBytes(put, by(opKey, strings.Repeat("k", MaxKey+1))), "more than 4096"},
		{"put with a name", 1, 0, opBytes(put, by(opName, "n"), key), "only an application's kind"},
		{"app without a name", 1, 0, opBytes(app), "name of 1 to 64"},
		{"name too long", 1, 0, opBytes(app, by(opName, strings.Repeat("n", MaxAppName+1))), "more than 64"},
		{"order without a key", 1, 0, opBytes(app, by(opName, "n"), vi(opOrder, 1)), "without a key"},
		{"dots without a key", 1, 0, opBytes(app, by(opName, "n"), by(opDots, dotBytes(0, 1))), "without a key"},
		{"order overflows", 1, 0, opBytes(put, key, vi(opOrder, math.MaxUint64)), "order that overflows"},

		{"first time is not the header's", 1, 1, opBytes(put, key, vi(opHLC, 1)), "does not ascend"},
		{"time stands", 2, 0, join(good, good), "does not ascend"},
		{"time overflows", 2, 1, join(good, opBytes(put, key, vi(opHLC, math.MaxUint64))), "does not ascend"},
		{"last time is not the header's", 2, 2, join(good, later), "last HLC"},

		{"dot of a log that is not there", 1, 0, join(log1, opBytes(put, key, by(opDots, dotBytes(2, 1)))), "not in the table"},
		{"dot of seq 0", 1, 0, opBytes(put, key, by(opDots, dotBytes(0, 0))), "without a seq"},
		{"dot cut short", 1, 0, opBytes(put, key, by(opDots, dotBytes(0))), "without a seq"},
		{"dot not minimal", 1, 0, opBytes(put, key, by(opDots, "\x00\x81\x00")), "without a seq"},
		{"log of a dot not minimal", 1, 0, opBytes(put, key, by(opDots, "\x80\x00\x01")), "not in the table"},
		{"dots descend", 1, 0, opBytes(put, key, by(opDots, dotBytes(0, 2, 0, 1))), "strictly ascending"},
		{"dot twice", 1, 0, opBytes(put, key, by(opDots, dotBytes(0, 1, 0, 1))), "strictly ascending"},
		{"dots by table index, not by log", 1, 0, join(log1, opBytes(put, key, by(opDots, dotBytes(0, 1, 1, 1)))), "strictly ascending"},
		{"1,025 dots", 1, 0, opBytes(put, key, by(opDots, dotBytes(many...))), "more than 1024"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &Header{Log: bodyLog, FirstSeq: 8, Count: tc.count, RawLen: uint64(len(tc.raw)), FirstHLC: 100, LastHLC: 100 + tc.last}
			ops, err := DecodeBody(h, tc.raw)
			if tc.want == "" {
				if err != nil {
					t.Fatalf("a valid body is void: %v", err)
				}
				return
			}
			var void *VoidError
			if !errors.As(err, &void) || void.Log != bodyLog || void.FirstSeq != 8 || ops != nil {
				t.Fatalf("got %v, want a void body", err)
			}
			wantInvalid(t, err, tc.want)
		})
	}
}

func TestOrderVoid(t *testing.T) {
	for _, tc := range []struct {
		hlc   HLC
		order uint64
		want  bool
	}{
		{100, 0, false}, // no key
		{100, 100, false},
		{100, 100 + MaxOrderLead - 1, false},
		{100, 100 + MaxOrderLead, true},
		{0, math.MaxUint64, true},
		{math.MaxUint64, math.MaxUint64, false},
		{math.MaxUint64, 5, false},
		{math.MaxUint64 - MaxOrderLead + 1, math.MaxUint64, false},
		{math.MaxUint64 - MaxOrderLead, math.MaxUint64, true},
	} {
		if got := (&Op{HLC: tc.hlc, Order: tc.order}).OrderVoid(); got != tc.want {
			t.Errorf("order %d at %d: void %v, want %v", tc.order, tc.hlc, got, tc.want)
		}
	}
}

func TestCheckOp(t *testing.T) {
	for _, tc := range []struct {
		name string
		op   Op
		want error
	}{
		{"put", Op{Kind: KindPut, Key: []byte("k")}, nil},
		{"app", Op{Kind: KindApp, Name: "n"}, nil},
		{"unknown", Op{Kind: 99}, nil},
		{"kind 0", Op{Key: []byte("k")}, ErrInvalid},
		{"kind beyond 32 bits", Op{Kind: 1 << 32}, ErrInvalid},
		{"key", Op{Kind: KindPut, Key: make([]byte, MaxKey+1)}, ErrTooLarge},
		{"key of an app", Op{Kind: KindApp, Name: "n", Key: make([]byte, MaxKey+1)}, ErrTooLarge},
		{"keyless order", Op{Kind: KindApp, Name: "n", Order: 1}, ErrInvalid},
		{"keyless dots", Op{Kind: KindApp, Name: "n", Supersedes: []Dot{{bodyLog, 1}}}, ErrInvalid},
		{"dots", Op{Kind: KindPut, Key: []byte("k"), Supersedes: make([]Dot, MaxSupersedes+1)}, ErrTooLarge},
		{"dots descend", Op{Kind: KindPut, Key: []byte("k"), Supersedes: []Dot{{bodyLog, 2}, {bodyLog, 1}}}, ErrInvalid},
		{"dot twice", Op{Kind: KindPut, Key: []byte("k"), Supersedes: []Dot{{bodyLog, 2}, {bodyLog, 2}}}, ErrInvalid},
		{"name of a put", Op{Kind: KindPut, Key: []byte("k"), Name: "n"}, ErrInvalid},
	} {
		if err := CheckOp(&tc.op); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if (&Op{Kind: 0}).Known() || (&Op{Kind: 4}).Known() || !(&Op{Kind: KindPut}).Known() || !(&Op{Kind: KindApp}).Known() {
		t.Error("the wrong kinds are known")
	}
}

// randomOps makes valid operations whose numbers take all lengths.
func randomOps(r *rand.Rand, n int) []Op {
	number := func() uint64 { return r.Uint64() >> r.IntN(64) }
	hlc := HLC(number() >> 8)
	ops := make([]Op, n)
	for i := range ops {
		o := &ops[i]
		*o = Op{Kind: Kind(r.IntN(5) + 1), Critical: r.IntN(2) == 0, HLC: hlc, Flags: number(), Expiry: number()}
		hlc += HLC(number()>>8 + 1)
		o.Payload = make([]byte, r.IntN(300))
		o.Content = make([]byte, r.IntN(3))
		if o.Kind == KindApp {
			o.Name = strings.Repeat("n", r.IntN(MaxAppName)+1)
		}
		if o.Kind <= KindDelete || r.IntN(2) == 0 {
			o.Key = make([]byte, r.IntN(200)+1)
			o.Order = uint64(o.HLC) + number()>>9
			for seq := range uint64(r.IntN(5)) {
				o.Supersedes = append(o.Supersedes, Dot{LogID{byte(seq)}, number() | 1})
			}
		}
	}
	return ops
}

// TestOpSizeIsABound: what fits by OpSize fits, and any valid body comes back.
func TestOpSizeIsABound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		ops := randomOps(r, 1+r.IntN(4))
		bound := 0
		for i := range ops {
			bound += OpSize(&ops[i])
		}
		raw := EncodeBody(bodyLog, ops)
		if len(raw) > bound {
			t.Fatalf("a body of %d bytes, bound %d: %+v", len(raw), bound, ops)
		}
		got, err := DecodeBody(bodyHeader(ops, raw), raw)
		if err != nil {
			t.Fatalf("%v: %+v", err, ops)
		}
		if !bytes.Equal(EncodeBody(bodyLog, got), raw) {
			t.Fatalf("encoded again, it is other bytes: %+v", ops)
		}
	}
	worst := Op{
		Kind: math.MaxUint32, Critical: true, Key: make([]byte, MaxKey), Payload: make([]byte, 300_000), Content: make([]byte, 300_000),
		HLC: math.MaxUint64, Order: math.MaxUint64, Flags: math.MaxUint64, Expiry: math.MaxUint64,
	}
	for i := range MaxSupersedes {
		worst.Supersedes = append(worst.Supersedes, Dot{LogID{byte(i >> 8), byte(i)}, math.MaxUint64})
	}
	first := Op{Kind: KindApp, Name: "n"}
	both := []Op{first, worst}
	if n := len(EncodeBody(bodyLog, both)); n > OpSize(&first)+OpSize(&worst) {
		t.Errorf("the largest operation has %d bytes, bound %d", n, OpSize(&worst))
	}
}
