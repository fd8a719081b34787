package routing

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Headers are written in the canonical subset of protobuf's wire format that
// blocks use too (docs/wire.md 6.1), so that every implementation accepts exactly
// the same bytes.

// firstFreeField is the first field number that a later version may use without
// this version refusing the bytes.
const firstFreeField = 64

// field is one decoded field: val of a varint, data of bytes.
type field struct {
	num  protowire.Number
	typ  protowire.Type
	val  uint64
	data []byte
}

// nextField reads the field at the start of b, whose number must be above last.
func nextField(b []byte, last protowire.Number) (f field, rest []byte, err error) {
	tag, n := minimalVarint(b)
	if n < 0 {
		return f, nil, malformedf("a field tag is not a minimal varint")
	}
	f.num, f.typ = protowire.DecodeTag(tag)
	if f.num < protowire.MinValidNumber || f.num > protowire.MaxValidNumber {
		return f, nil, malformedf("field number %d", f.num)
	}
	if f.num <= last {
		return f, nil, malformedf("field %d after field %d", f.num, last)
	}
	b = b[n:]
	size := uint64(0)
	switch f.typ {
	case protowire.VarintType:
		if f.val, n = minimalVarint(b); n < 0 {
			return f, nil, malformedf("field %d is not a minimal varint", f.num)
		}
	case protowire.BytesType:
		if size, n = minimalVarint(b); n < 0 || size > uint64(len(b)-n) {
			return f, nil, malformedf("field %d is cut short", f.num)
		}
		f.data = b[n : n+int(size)]
	default:
		return f, nil, malformedf("field %d has wire type %d", f.num, f.typ)
	}
	if f.num < firstFreeField && f.val == 0 && len(f.data) == 0 {
		return f, nil, malformedf("field %d holds its default value", f.num)
	}
	return f, b[n+int(size):], nil
}

// minimalVarint reads a varint of at most 64 bits in its shortest form; n < 0
// means that there is none.
func minimalVarint(b []byte) (v uint64, n int) {
	v, n = protowire.ConsumeVarint(b)
	if n < 0 || n != protowire.SizeVarint(v) {
		return 0, -1
	}
	return v, n
}

// fixed copies a field of exactly len(dst) bytes.
func (f field) fixed(dst []byte) error {
	if f.typ != protowire.BytesType || len(f.data) != len(dst) {
		return malformedf("field %d has not %d bytes", f.num, len(dst))
	}
	copy(dst, f.data)
	return nil
}

func (f field) number(most uint64) (uint64, error) {
	if f.typ != protowire.VarintType || f.val > most {
		return 0, malformedf("field %d is not a number of at most %d", f.num, most)
	}
	return f.val, nil
}

func appendNumber(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendID(b []byte, num protowire.Number, id []byte) []byte {
	for _, c := range id {
		if c != 0 {
			return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), id)
		}
	}
	return b
}

func malformedf(format string, args ...any) error {
	return &MessageError{Kind: ErrMalformed, Reason: fmt.Sprintf(format, args...)}
}
