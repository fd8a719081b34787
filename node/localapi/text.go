package localapi

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"unicode/utf8"
)

var (
	errNotUTF8   = errors.New("it is not valid UTF-8: send such bytes as base64 under a name that ends in _base64")
	errSurrogate = errors.New(`it has half of a surrogate pair (\ud800 to \udfff), which no text can hold: send such bytes as base64 under a name that ends in _base64`)
)

// checkText refuses JSON that decoding would change in silence: bytes that are
// not UTF-8 and lone surrogates both become U+FFFD in package encoding/json.
func checkText(raw []byte) error {
	if !utf8.Valid(raw) {
		return errNotUTF8
	}
	for i := 0; i < len(raw); {
		n := bytes.IndexByte(raw[i:], '\\')
		if n < 0 {
			return nil
		}
		i += n
		switch unit := escapedUnit(raw[i:]); {
		case unit >= 0xD800 && unit < 0xDC00:
			if low := escapedUnit(raw[i+6:]); low < 0xDC00 || low > 0xDFFF {
				return errSurrogate
			}
			i += 12
		case unit >= 0xDC00 && unit <= 0xDFFF:
			return errSurrogate
		default:
			i += 2 // past the escape's letter, so that \\u is no escape
		}
	}
	return nil
}

// escapedUnit is the UTF-16 unit of an escape \uXXXX at the start of b, or -1.
func escapedUnit(b []byte) int {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	unit := 0
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		unit = unit<<4 | int(c)
	}
	return unit
}

// bodyError is the sentence for a body, or the part of it that what names, that
// cannot be read.
func bodyError(what string, err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return Errorf(CodeTooLarge, "the body is more than the limit of %d bytes: split it", large.Limit)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Errorf(CodeInvalidJSON, "%s is cut off in the middle of its JSON", what)
	case errors.Is(err, io.EOF):
		return Errorf(CodeInvalidJSON, "%s is empty, and a JSON object was expected", what)
	}
	return Errorf(CodeInvalidJSON, "%w", jsonError(what, err))
}

// jsonError says why the JSON that what names is not as it should be.
func jsonError(what string, err error) error {
	if at, ok := errors.AsType[base64.CorruptInputError](err); ok {
		return fmt.Errorf("%s has a text under a name that ends in _base64 which is no base64 (standard alphabet, padded) from its byte %d on", what, int64(at)+1)
	}
	return fmt.Errorf("%s is not valid JSON: %w", what, err)
}
