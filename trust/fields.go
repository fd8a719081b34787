package trust

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication/canonical"
)

// maxTime bounds times and durations, in seconds: the last second of the year
// 9999, so that no sum of two overflows.
const maxTime = 253402300799

// errUnknownField is a decoder's answer to a field number that it does not know.
var errUnknownField = errors.New("unknown field")

// decodeFields walks a canonical message: each field below canonical.FirstFree
// goes to fn, those of must have to be there.
func decodeFields(what string, b []byte, repeated, must canonical.Set, fn func(canonical.Field) error) error {
	var seen canonical.Set
	r := canonical.NewReader(b, repeated)
	for {
		f, ok, err := r.Next()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if !ok {
			break
		}
		if f.Num >= canonical.FirstFree {
			continue
		}
		seen.Add(f.Num)
		switch err := fn(f); {
		case errors.Is(err, errUnknownField):
			return canonical.Invalidf("%s: field %d is not known", what, f.Num)
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if missing := must &^ seen; missing != 0 {
		return canonical.Invalidf("%s: field %d is missing", what, missing.First())
	}
	return nil
}

// decodeInner is decodeFields for a message inside a field.
func decodeInner(what string, f canonical.Field, repeated, must canonical.Set, fn func(canonical.Field) error) error {
	b, err := f.Bytes(len(f.Data))
	if err != nil {
		return err
	}
	return decodeFields(what, b, repeated, must, fn)
}

// fixedID copies an id or key, which is never all zero.
func fixedID(f canonical.Field, dst []byte) error {
	if err := f.Fixed(dst); err != nil {
		return err
	}
	if isZero(dst) {
		return canonical.Invalidf("field %d is all zero", f.Num)
	}
	return nil
}

// appendID appends an id or key, or nothing if it is all zero.
func appendID(b []byte, num protowire.Number, id []byte) []byte {
	if isZero(id) {
		return b
	}
	return canonical.AppendBytes(b, num, id)
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func numberUpTo(f canonical.Field, most uint64) (uint64, error) {
	v, err := f.Varint()
	if err == nil && v > most {
		err = canonical.Invalidf("field %d is %d, more than %d", f.Num, v, most)
	}
	return v, err
}

func seconds(f canonical.Field) (int64, error) {
	v, err := numberUpTo(f, maxTime)
	return int64(v), err
}

func text(f canonical.Field, maxLen int) (string, error) {
	b, err := f.Bytes(maxLen)
	if err != nil {
		return "", err
	}
	return string(b), nil
}

// checkText accepts UTF-8 without the characters that move a terminal's cursor
// or turn the direction of writing. The list is fixed: whether a statement counts
// must not depend on the version of Unicode that a program was built with. Who
// shows a text to people still has to see to its other characters.
func checkText(what, s string, maxLen int) error {
	if len(s) > maxLen {
		return canonical.Invalidf("the %s has %d bytes, more than %d", what, len(s), maxLen)
	}
	if !utf8.ValidString(s) {
		return canonical.Invalidf("the %s is not UTF-8", what)
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x200e || r == 0x200f ||
			r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return canonical.Invalidf("the %s holds the control character U+%04X", what, r)
		}
	}
	return nil
}

func checkSeconds(what string, v int64) error {
	if v < 0 || v > maxTime {
		return canonical.Invalidf("the %s is %d s: it must be 0 to %d", what, v, int64(maxTime))
	}
	return nil
}
