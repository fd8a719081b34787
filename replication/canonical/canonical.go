// Package canonical reads and writes the canonical subset of the protobuf wire
// format in which signed and hashed bytes are kept (design 4.1), so that every
// implementation accepts exactly the same bytes:
//
//   - fields ascend, each at most once (a repeated field's elements stand
//     together);
//   - only varint and length-delimited wire types;
//   - varints, tags and lengths are minimal;
//   - field numbers are 1 to 2^29-1;
//   - a field with its default value (0, empty) is left out;
//   - numbers below 64 that this version does not know are invalid; numbers from
//     64 on are skipped, whatever their value, each once.
//
// Blocks and bodies (package replication) and the statements of package trust
// are written in it.
package canonical

import (
	"errors"
	"fmt"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// FirstFree is the first field number that a later version may use without this
// version refusing the bytes. A reader of fields skips what is not below it.
const FirstFree = 64

// Set is a set of field numbers below FirstFree, a bit each.
type Set uint64

// SetOf is the set of these numbers.
func SetOf(nums ...protowire.Number) (s Set) {
	for _, n := range nums {
		s.Add(n)
	}
	return s
}

// Add puts a number into the set.
func (s *Set) Add(n protowire.Number) { *s |= 1 << n }

// Has tells whether a number, of any size, is in the set.
func (s Set) Has(n protowire.Number) bool { return n < FirstFree && s>>n&1 == 1 }

// First is the lowest number of a set that is not empty.
func (s Set) First() protowire.Number { return protowire.Number(bits.TrailingZeros64(uint64(s))) }

// Field is one decoded field: Val for a varint, Data for bytes (aliasing the
// input).
type Field struct {
	Num  protowire.Number
	typ  protowire.Type // beside Num: fields are passed by value
	Val  uint64
	Data []byte
}

// Reader walks canonical bytes.
type Reader struct {
	rest     []byte
	last     protowire.Number
	repeated Set // may occur more than once, and be empty
}

// NewReader reads b, in which the fields of the set may repeat.
func NewReader(b []byte, repeated Set) Reader { return Reader{rest: b, repeated: repeated} }

// Next returns the next field, or ok=false at the end.
func (r *Reader) Next() (f Field, ok bool, err error) {
	if len(r.rest) == 0 {
		return Field{}, false, nil
	}
	tag, n := MinimalVarint(r.rest)
	if n < 0 {
		return Field{}, false, Invalidf("a field tag is not a minimal varint")
	}
	num, typ := protowire.DecodeTag(tag)
	if num < protowire.MinValidNumber || num > protowire.MaxValidNumber {
		return Field{}, false, Invalidf("field number %d", num)
	}
	if num < r.last || (num == r.last && !r.repeated.Has(num)) {
		return Field{}, false, Invalidf("field %d after field %d", num, r.last)
	}
	r.rest = r.rest[n:]
	f.Num, f.typ = num, typ
	switch typ {
	case protowire.VarintType:
		f.Val, n = MinimalVarint(r.rest)
		if n < 0 {
			return Field{}, false, Invalidf("field %d is not a minimal varint", num)
		}
		if f.Val == 0 && num < FirstFree {
			return Field{}, false, Invalidf("field %d holds its default value", num)
		}
		r.rest = r.rest[n:]
	case protowire.BytesType:
		size, n := MinimalVarint(r.rest)
		if n < 0 || size > uint64(len(r.rest)-n) {
			return Field{}, false, Invalidf("field %d is cut short", num)
		}
		f.Data = r.rest[n : n+int(size)]
		if size == 0 && num < FirstFree && !r.repeated.Has(num) {
			return Field{}, false, Invalidf("field %d holds its default value", num)
		}
		r.rest = r.rest[n+int(size):]
	default:
		return Field{}, false, Invalidf("field %d has wire type %d", num, typ)
	}
	r.last = num
	return f, true, nil
}

// MinimalVarint reads a varint of at most 64 bits in its shortest form.
// n < 0 means that there is none.
func MinimalVarint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	v, n = protowire.ConsumeVarint(b)
	if n < 0 || n != protowire.SizeVarint(v) {
		return 0, -1
	}
	return v, n
}

// Varint is the number in a field.
func (f Field) Varint() (uint64, error) {
	if f.typ != protowire.VarintType {
		return 0, Invalidf("field %d is not a varint", f.Num)
	}
	return f.Val, nil
}

// Bytes is what a field of at most maxLen bytes holds.
func (f Field) Bytes(maxLen int) ([]byte, error) {
	if f.typ != protowire.BytesType {
		return nil, Invalidf("field %d is not bytes", f.Num)
	}
	if len(f.Data) > maxLen {
		return nil, Invalidf("field %d has %d bytes, more than %d", f.Num, len(f.Data), maxLen)
	}
	return f.Data, nil
}

// Fixed copies a field of exactly len(dst) bytes.
func (f Field) Fixed(dst []byte) error {
	if f.typ != protowire.BytesType {
		return Invalidf("field %d is not bytes", f.Num)
	}
	if len(f.Data) != len(dst) {
		return Invalidf("field %d has %d bytes, not %d", f.Num, len(f.Data), len(dst))
	}
	copy(dst, f.Data)
	return nil
}

// AppendVarint appends a number, or nothing for 0.
func AppendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// AppendBytes appends bytes, or nothing for none.
func AppendBytes(b []byte, num protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

// ErrInvalid: bytes that break a rule of the format.
var ErrInvalid = errors.New("invalid data")

// Error says why bytes are not what they claim to be. It is errors.Is(err,
// ErrInvalid).
type Error struct{ Reason string }

func (e *Error) Error() string        { return "invalid data: " + e.Reason }
func (e *Error) Is(target error) bool { return target == ErrInvalid }

// Invalidf makes an *Error.
func Invalidf(format string, args ...any) error {
	return &Error{Reason: fmt.Sprintf(format, args...)}
}
