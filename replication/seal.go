package replication

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

// Encrypted spaces (design 9.6). A store seals the bodies that this node writes
// and never opens one; what reads operations opens bodies and never writes. Both
// ask who has the content keys, for one space at a time:
//
//	EncodeBody -> Seal -> stored body -> Open -> DecodeBody
//
// The answer is a function of what is known at that moment. Keep it for one block
// or one read of blocks, and ask again for the next.

// Sealer tells a store how the bodies that it writes are sealed.
type Sealer interface {
	// SealFor returns what seals bodies in a space; nil where bodies are stored as
	// they are. An error refuses the append: a *NoKeyError where the space is
	// encrypted, or may be, and the key that writers use is not here.
	SealFor(space SpaceID) (Seal, error)
}

// Seal makes the stored body of a block of its raw body, and sets the header's
// KeyID. All other fields must be set but those of the stored body, BodyHash and
// BodyLen. It keeps neither raw, which it may return, nor the body.
type Seal func(h *Header, raw []byte) (body []byte)

// Opener tells a reader how the bodies of a space are opened.
type Opener interface {
	// OpenFor returns what opens the bodies of a space; nil where the space is not
	// encrypted. An error tells that its blocks cannot be read now: ErrNoKey while
	// it is not known whether the space is
	// encrypted, a *NotReaderError where this node only carries it.
	OpenFor(space SpaceID) (Open, error)
}

// Open makes the raw body of a block of its stored body. A *NoKeyError tells that
// the key is not here, a *VoidError that no member counts the block's operations.
type Open func(h *Header, body []byte) (raw []byte, err error)

// SetBody fills in the fields of the header that describe its body and returns the
// body as stored. seal may be nil.
func (h *Header) SetBody(raw []byte, seal Seal) (body []byte) {
	h.RawLen, body = uint64(len(raw)), raw
	if seal != nil {
		body = seal(h, raw)
	}
	h.BodyLen, h.BodyHash = uint64(len(body)), sha256.Sum256(body)
	return body
}

// SetPacked is SetBody of a body that a codec packed, and that is rawLen bytes long
// unpacked; it is not sealed.
func (h *Header) SetPacked(rawLen int, codec Codec, body []byte) {
	h.RawLen, h.Codec = uint64(rawLen), codec
	h.BodyLen, h.BodyHash = uint64(len(body)), sha256.Sum256(body)
}

// NoKeyError: a content key that is not here, yet. It is errors.Is(err, ErrNoKey).
type NoKeyError struct {
	Space SpaceID
	// Name is the space's for people, where it is known.
	Name string
	// KeyID is the key that is missing; zero where none is known.
	KeyID [keyIDBytes]byte
	// Log and Seq are where a block was met that cannot be read; zero where a write
	// was refused.
	Log LogID
	Seq uint64
}

func (e *NoKeyError) Error() string {
	what := "no content key was handed out to this node yet"
	if e.KeyID != ([keyIDBytes]byte{}) {
		what = "this node does not have its content key " + hex.EncodeToString(e.KeyID[:4]) + " yet"
	}
	if e.Seq != 0 {
		what += fmt.Sprintf(", under which log %s is sealed at seq %d", e.Log.Short(), e.Seq)
	}
	return fmt.Sprintf("the space %s is encrypted and %s: it goes on by itself when the statement of an admin with the key has arrived; connect to a member, and see that an admin's node runs", spaceText(e.Name, e.Space), what)
}
func (e *NoKeyError) Is(t error) bool { return t == ErrNoKey }

// NotReaderError: this node keeps and forwards the blocks of an encrypted space and
// may not read them. It is errors.Is(err, ErrNotReader).
type NotReaderError struct {
	Space SpaceID
	Name  string // for people, where it is known
}

func (e *NotReaderError) Error() string {
	return fmt.Sprintf("the space %s is encrypted and this node may not read it, only store and forward it: ask an admin for the role reader, or to admit this node again if it was revoked", spaceText(e.Name, e.Space))
}
func (e *NotReaderError) Is(t error) bool { return t == ErrNotReader }

// spaceText names a space in an error.
func spaceText(name string, id SpaceID) string {
	if name == "" {
		return id.String()
	}
	return strconv.Quote(name)
}
