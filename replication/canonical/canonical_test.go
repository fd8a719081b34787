package canonical_test

import (
	"bytes"
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication/canonical"
	"vixp2p/replication/canonical/canonicaltest"
)

// Short names of package canonicaltest.
var (
	tag, vi, by = canonicaltest.Tag, canonicaltest.Varint, canonicaltest.Bytes
	join, long  = canonicaltest.Join, canonicaltest.Long
	wantInvalid = canonicaltest.WantInvalid
)

func TestCanonicalFields(t *testing.T) {
	const rep = 5 // the number that may repeat
	for _, tc := range []struct {
		name string
		in   []byte
		want string // part of the error; empty: valid
	}{
		{"empty", nil, ""},
		{"ascending", join(vi(1, 7), by(2, "x"), vi(63, 1)), ""},
		{"repeated stand together", join(by(rep, "a"), by(rep, "b"), vi(6, 1)), ""},
		{"a repeated element may be empty", join(by(rep, ""), by(rep, "")), ""},
		{"largest value", vi(1, math.MaxUint64), ""},
		{"largest number", vi(protowire.MaxValidNumber, 1), ""},
		{"free numbers with default values", join(vi(64, 0), by(65, "")), ""},

		{"descending", join(vi(2, 1), vi(1, 1)), "field 1 after field 2"},
		{"twice", join(vi(1, 1), vi(1, 1)), "field 1 after field 1"},
		{"repeated do not stand together", join(by(rep, "a"), vi(6, 1), by(rep, "b")), "field 5 after field 6"},
		{"free number twice", join(vi(64, 1), vi(64, 1)), "field 64 after field 64"},
		{"number 0", vi(0, 1), "field number"},
		{"number beyond 2^29-1", join(protowire.AppendVarint(nil, uint64(1<<29)<<3), []byte{1}), "field number"},
		{"number beyond 2^31-1", join(protowire.AppendVarint(nil, uint64(1<<40)<<3), []byte{1}), "field number"},
		{"default varint", vi(1, 0), "default value"},
		{"default bytes", by(1, ""), "default value"},
		{"long value", long(vi(1, 1)), "not a minimal varint"},
		{"long zero", long(vi(64, 0)), "not a minimal varint"},
		{"long tag", join(long(tag(1, protowire.VarintType)), []byte{1}), "tag is not a minimal varint"},
		{"long length", join(tag(2, protowire.BytesType), []byte{0x81, 0}, []byte("x")), "cut short"},
		{"value of more than 64 bits", join(tag(1, protowire.VarintType), bytes.Repeat([]byte{0xff}, 9), []byte{2}), "not a minimal varint"},
		{"value of eleven bytes", join(tag(1, protowire.VarintType), bytes.Repeat([]byte{0xff}, 10), []byte{1}), "not a minimal varint"},
		{"value cut short", tag(1, protowire.VarintType), "not a minimal varint"},
		{"tag cut short", []byte{0x80}, "tag is not a minimal varint"},
		{"bytes cut short", by(2, "abc")[:4], "cut short"},
		{"length beyond memory", join(tag(2, protowire.BytesType), protowire.AppendVarint(nil, math.MaxUint64)), "cut short"},
		{"fixed32", join(tag(1, protowire.Fixed32Type), make([]byte, 4)), "wire type 5"},
		{"fixed64", join(tag(1, protowire.Fixed64Type), make([]byte, 8)), "wire type 1"},
		{"group", join(tag(1, protowire.StartGroupType), tag(1, protowire.EndGroupType)), "wire type 3"},
		{"free number, fixed32", join(tag(64, protowire.Fixed32Type), make([]byte, 4)), "wire type 5"},
		{"wire type 7", tag(1, 7), "wire type 7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := canonical.NewReader(tc.in, canonical.SetOf(rep))
			var err error
			for ok := true; ok && err == nil; {
				_, ok, err = r.Next()
			}
			if tc.want == "" {
				if err != nil {
					t.Fatalf("valid bytes are refused: %v", err)
				}
				return
			}
			wantInvalid(t, err, tc.want)
		})
	}
}

func TestFieldTypesAndLengths(t *testing.T) {
	r := canonical.NewReader(join(vi(1, 3), by(2, "abc")), 0)
	num, _, _ := r.Next()
	raw, ok, err := r.Next()
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if v, err := num.Varint(); v != 3 || err != nil {
		t.Errorf("%d %v", v, err)
	}
	if v, err := raw.Bytes(3); string(v) != "abc" || err != nil {
		t.Errorf("%q %v", v, err)
	}
	var three [3]byte
	if err := raw.Fixed(three[:]); err != nil || string(three[:]) != "abc" {
		t.Errorf("%q %v", three, err)
	}
	_, err = raw.Varint()
	wantInvalid(t, err, "not a varint")
	_, err = num.Bytes(9)
	wantInvalid(t, err, "not bytes")
	wantInvalid(t, num.Fixed(three[:]), "not bytes")
	_, err = raw.Bytes(2)
	wantInvalid(t, err, "more than 2")
	wantInvalid(t, raw.Fixed(three[:2]), "not 2")
}
