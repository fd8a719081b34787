// Package sealed seals the bodies of blocks in encrypted spaces and opens them
// (design 9.6).
//
//	stored body = nonce (24) || XChaCha20-Poly1305( codec (1) || packed raw body ) || tag (16)
//
// # Keys
//
// A content key is 32 random bytes, shared by all that may read a space. Two values
// follow from it by HKDF-Expand (SHA-256, RFC 5869), with different labels: the
// cipher's key and the key id.
//
// The id stands in headers and control logs for everybody to see. It gives the key
// away to nobody: it is the output of a pseudorandom function under a uniform key,
// and independent of the cipher's key, which is another output of it. And it
// commits to the key: it is HMAC-SHA256 of a fixed text, and two keys of 32 bytes
// with one id are a collision of SHA-256. That matters because a ciphertext of
// XChaCha20-Poly1305 can be made to open under two keys, to two texts: members that
// were handed different keys under one id would then disagree on what a block says.
// Whoever obtains a key compares the id (FromSecret, ID), and with that a header
// has one key.
//
// # What is bound
//
// The associated data has the log, the first seq, the count, the previous block's
// hash, the key id and the raw length: a body opens only in its place, so that a
// writer who holds the key cannot pass a part of another log off as its own. The
// rest of the header, the body's hash included, is what the origin signs.
//
// Nonces are random, 192 bits: members that write under one key need not agree on
// anything, and 2^80 blocks are still far from a repetition.
//
// # What it does not hide
//
// Whoever stores a block sees its header: who wrote, when, how many operations, and
// their length, to the byte. Bodies are not padded: a batch of one value tells the
// value's length. Bodies are not packed either (the codec none), since the length of
// a packed text tells something about the text where a stranger can put words into
// it; a packed one is read.
//
// There is no forward secrecy: who has a key reads everything that was ever sealed
// under it. A new key (package trust/keys) keeps a former reader out of what is
// written from then on.
package sealed

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/chacha20poly1305"

	"vixp2p/replication"
	"vixp2p/replication/compress"
)

const (
	// SecretBytes is the length of a content key.
	SecretBytes = chacha20poly1305.KeySize
	// Overhead is by how much a stored body is longer than its packed one, in bytes.
	Overhead = chacha20poly1305.NonceSizeX + codecBytes + chacha20poly1305.Overhead

	codecBytes = 1

	labelID   = "vix/content-key/1 id"
	labelBody = "vix/content-key/1 body"
	// domain precedes the associated data.
	domain = "vix/body/1\x00"
)

// KeyID names a content key and commits to it.
type KeyID [32]byte

func (id KeyID) String() string { return fmt.Sprintf("%x", id[:]) }

// Key is a content key. It shows itself nowhere: whatever prints it prints its id.
type Key struct {
	secret [SecretBytes]byte
	id     KeyID
	aead   cipher.AEAD
}

// NewKey makes a key of 32 bytes of rand.
func NewKey(rand io.Reader) (*Key, error) {
	var secret [SecretBytes]byte
	if _, err := io.ReadFull(rand, secret[:]); err != nil {
		return nil, fmt.Errorf("make a content key: %w", err)
	}
	return FromSecret(secret[:])
}

// FromSecret is the key that Secret gave. Compare its ID with the one that it was
// handed out under.
func FromSecret(secret []byte) (*Key, error) {
	if len(secret) != SecretBytes {
		return nil, fmt.Errorf("a content key of %d bytes, not %d", len(secret), SecretBytes)
	}
	k := &Key{secret: [SecretBytes]byte(secret)}
	id, err := hkdf.Expand(sha256.New, secret, labelID, len(k.id))
	if err != nil {
		return nil, err
	}
	k.id = KeyID(id)
	body, err := hkdf.Expand(sha256.New, secret, labelBody, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	k.aead, err = chacha20poly1305.NewX(body)
	return k, err
}

// ID names the key.
func (k *Key) ID() KeyID { return k.id }

// Secret is the key itself, to be wrapped for a member and for nothing else.
func (k *Key) Secret() []byte { return append([]byte(nil), k.secret[:]...) }

// Format and LogValue keep the secret out of everything that is printed or logged
// with any verb; MarshalText keeps it out of JSON.
func (k Key) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, k.String()) }
func (k Key) String() string               { return fmt.Sprintf("content key %x", k.id[:4]) }
func (k Key) LogValue() slog.Value         { return slog.StringValue(k.String()) }
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Seal is a replication.Seal: it seals the raw body of a block under a fresh nonce
// of the system's random numbers.
func (k *Key) Seal(h *replication.Header, raw []byte) []byte {
	var nonce [chacha20poly1305.NonceSizeX]byte
	_, _ = rand.Read(nonce[:]) // it never fails: it ends the program first
	return k.seal(nonce, h, replication.CodecNone, raw)
}

func (k *Key) seal(nonce [chacha20poly1305.NonceSizeX]byte, h *replication.Header, codec replication.Codec, packed []byte) []byte {
	h.KeyID = append([]byte(nil), k.id[:]...)
	body := make([]byte, 0, Overhead+len(packed))
	body = append(append(body, nonce[:]...), byte(codec))
	body = append(body, packed...)
	n := len(nonce)
	return k.aead.Seal(body[:n], nonce[:], body[n:], associated(h)) // in place
}

// Open gives the raw body of block h, which names this key. A *VoidError tells that
// it was not sealed under this key for this place, or breaks another rule.
func (k *Key) Open(h *replication.Header, body []byte) ([]byte, error) {
	raw, err := k.open(h, body)
	if err != nil {
		return nil, &replication.VoidError{Log: h.Log, FirstSeq: h.FirstSeq, Cause: err}
	}
	return raw, nil
}

// errTag: authentication failed.
var errTag = errors.New("the sealed body does not open in this place under its key")

func (k *Key) open(h *replication.Header, body []byte) ([]byte, error) {
	switch {
	case !bytes.Equal(h.KeyID, k.id[:]):
		return nil, fmt.Errorf("the body is sealed under the key %x", h.KeyID)
	case h.Codec != replication.CodecNone:
		return nil, invalidf("codec %d in the header of a sealed body, where it stands inside", h.Codec)
	case len(body) <= Overhead:
		return nil, invalidf("a sealed body of %d bytes, too short to hold anything", len(body))
	}
	nonce, ciphertext := body[:chacha20poly1305.NonceSizeX], body[chacha20poly1305.NonceSizeX:]
	plain, err := k.aead.Open(nil, nonce, ciphertext, associated(h))
	if err != nil {
		return nil, errTag
	}
	inside := replication.Header{Log: h.Log, FirstSeq: h.FirstSeq, RawLen: h.RawLen, Codec: replication.Codec(plain[0])}
	raw, err := compress.RawBody(&inside, plain[codecBytes:])
	if void := (*replication.VoidError)(nil); errors.As(err, &void) {
		return nil, void.Cause
	}
	return raw, err
}

// associated is what a body is bound to, beside its key: 131 bytes, numbers big
// endian.
func associated(h *replication.Header) []byte {
	b := make([]byte, 0, len(domain)+3*32+3*8)
	b = append(b, domain...)
	b = append(b, h.Log[:]...)
	b = binary.BigEndian.AppendUint64(b, h.FirstSeq)
	b = binary.BigEndian.AppendUint64(b, h.Count)
	b = append(b, h.Prev[:]...)
	b = append(b, h.KeyID...)
	return binary.BigEndian.AppendUint64(b, h.RawLen)
}

// Ops reads the operations of a block of a space that open was asked for (nil: the
// space is not encrypted). A *VoidError tells that no member counts the block: also
// where it is sealed in a space that is not encrypted, or is not in one that is. A
// *NoKeyError tells that it cannot be read yet. What Ops returns may alias the block.
func Ops(b *replication.Block, open replication.Open) ([]replication.Op, error) {
	h := b.Header
	isSealed := len(h.KeyID) > 0
	switch {
	case isSealed && open == nil:
		return nil, void(h, "a sealed body in a space that is not encrypted")
	case !isSealed && open != nil:
		return nil, void(h, "a body that is not sealed in an encrypted space")
	case open == nil || !b.HasBody():
		return compress.Ops(b)
	}
	raw, err := open(h, b.Body)
	if err != nil {
		return nil, err
	}
	return replication.DecodeBody(h, raw)
}

func void(h *replication.Header, why string) error {
	return &replication.VoidError{Log: h.Log, FirstSeq: h.FirstSeq, Cause: invalidf("%s", why)}
}

func invalidf(format string, args ...any) error {
	return &replication.InvalidError{Reason: fmt.Sprintf(format, args...)}
}
