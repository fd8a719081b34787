// Package canonicaltest writes fields by hand, with whatever rules of package
// canonical broken, for the tests of decoders.
package canonicaltest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication/canonical"
)

// Tag is a field's tag alone.
func Tag(num protowire.Number, typ protowire.Type) []byte {
	return protowire.AppendTag(nil, num, typ)
}

// Varint is a field that holds a number, 0 included.
func Varint(num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(Tag(num, protowire.VarintType), v)
}

// Bytes is a field that holds bytes, none included.
func Bytes(num protowire.Number, v string) []byte {
	return protowire.AppendString(Tag(num, protowire.BytesType), v)
}

// Join puts fields one after the other.
func Join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// Long makes a varint one byte longer than it must be.
func Long(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] |= 0x80
	return append(b, 0)
}

// WantInvalid fails the test unless err is canonical.ErrInvalid and says part.
func WantInvalid(t testing.TB, err error, part string) {
	t.Helper()
	if !errors.Is(err, canonical.ErrInvalid) || !strings.Contains(err.Error(), part) {
		t.Fatalf("got %v, want invalid data with %q", err, part)
	}
}
