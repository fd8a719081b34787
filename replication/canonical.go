package replication

import (
	"fmt"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// Signed and hashed bytes are a canonical subset of the protobuf wire format
// (design 4.1), so that every implementation accepts exactly the same bytes:
//
//   - fields ascend, each at most once (a repeated field's elements stand
//     together);
//   - only varint and length-delimited wire types;
//   - varints, tags and lengths are minimal;
//   - field numbers are 1 to 2^29-1;
//   - a field with its default value (0, empty) is left out;
//   - numbers below 64 that this version does not know are invalid; numbers from
//     64 on are skipped, whatever their value, each once.

// firstFreeField is the first field number that a later version may use without
// this version refusing the bytes.
const firstFreeField = 64

// fieldSet is a set of field numbers below firstFreeField, a bit each.
type fieldSet uint64

func setOf(nums ...protowire.Number) (s fieldSet) {
	for _, n := range nums {
		s.add(n)
	}
	return s
}

func (s *fieldSet) add(n protowire.Number)     { *s |= 1 << n }
func (s fieldSet) has(n protowire.Number) bool { return n < firstFreeField && s>>n&1 == 1 }

// first is the lowest number of a set that is not empty.
func (s fieldSet) first() protowire.Number { return protowire.Number(bits.TrailingZeros64(uint64(s))) }

// field is one decoded field: val for a varint, data for bytes (aliasing the
// input).
type field struct {
	num  protowire.Number
	typ  protowire.Type
	val  uint64
	data []byte
}

// fieldReader walks canonical bytes.
type fieldReader struct {
	rest     []byte
	last     protowire.Number
	repeated fieldSet // may occur more than once, and be empty
}

// next returns the next field, or ok=false at the end.
func (r *fieldReader) next() (f field, ok bool, err error) {
	if len(r.rest) == 0 {
		return field{}, false, nil
	}
	tag, n := minimalVarint(r.rest)
	if n < 0 {
		return field{}, false, invalidf("a field tag is not a minimal varint")
	}
	num, typ := protowire.DecodeTag(tag)
	if num < protowire.MinValidNumber || num > protowire.MaxValidNumber {
		return field{}, false, invalidf("field number %d", num)
	}
	if num < r.last || (num == r.last && !r.repeated.has(num)) {
		return field{}, false, invalidf("field %d after field %d", num, r.last)
	}
	r.rest = r.rest[n:]
	f.num, f.typ = num, typ
	switch typ {
	case protowire.VarintType:
		f.val, n = minimalVarint(r.rest)
		if n < 0 {
			return field{}, false, invalidf("field %d is not a minimal varint", num)
		}
		if f.val == 0 && num < firstFreeField {
			return field{}, false, invalidf("field %d holds its default value", num)
		}
		r.rest = r.rest[n:]
	case protowire.BytesType:
		size, n := minimalVarint(r.rest)
		if n < 0 || size > uint64(len(r.rest)-n) {
			return field{}, false, invalidf("field %d is cut short", num)
		}
		f.data = r.rest[n : n+int(size)]
		if size == 0 && num < firstFreeField && !r.repeated.has(num) {
			return field{}, false, invalidf("field %d holds its default value", num)
		}
		r.rest = r.rest[n+int(size):]
	default:
		return field{}, false, invalidf("field %d has wire type %d", num, typ)
	}
	r.last = num
	return f, true, nil
}

// minimalVarint reads a varint of at most 64 bits in its shortest form.
// n < 0 means that there is none.
func minimalVarint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	v, n = protowire.ConsumeVarint(b)
	if n < 0 || n != protowire.SizeVarint(v) {
		return 0, -1
	}
	return v, n
}

func (f field) varint() (uint64, error) {
	if f.typ != protowire.VarintType {
		return 0, invalidf("field %d is not a varint", f.num)
	}
	return f.val, nil
}

func (f field) bytes(maxLen int) ([]byte, error) {
	if f.typ != protowire.BytesType {
		return nil, invalidf("field %d is not bytes", f.num)
	}
	if len(f.data) > maxLen {
		return nil, invalidf("field %d has %d bytes, more than %d", f.num, len(f.data), maxLen)
	}
	return f.data, nil
}

// fixed copies a field of exactly len(dst) bytes.
func (f field) fixed(dst []byte) error {
	if f.typ != protowire.BytesType {
		return invalidf("field %d is not bytes", f.num)
	}
	if len(f.data) != len(dst) {
		return invalidf("field %d has %d bytes, not %d", f.num, len(f.data), len(dst))
	}
	copy(dst, f.data)
	return nil
}

func appendVarintField(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendBytesField(b []byte, num protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

// InvalidError says why bytes are not what they claim to be. It is
// errors.Is(err, ErrInvalid).
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string        { return "invalid data: " + e.Reason }
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalidf(format string, args ...any) error {
	return &InvalidError{Reason: fmt.Sprintf(format, args...)}
}
