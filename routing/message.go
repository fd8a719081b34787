package routing

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// A message as it is stored and sent (v1), the same bytes at every hop:
//
//	+---------+--------+-----------+------+
//	| uvarint | header | signature | body |
//	| length  |        | 64        |      |
//	+---------+--------+-----------+------+
//
// The signature is the sender's, over network, header and body; so a message of
// one network is nothing in another, and a hop can alter nothing. How many hops a
// message has taken travels beside it and is not signed: a hop that lies about it
// can make a message die early or live up to its expiry, which it could do by
// dropping or repeating it too.
const (
	// FormatVersion is the message format that this code writes and reads.
	FormatVersion = 1
	// MaxText is the longest text of a message, in bytes.
	MaxText = 16 << 10
	// MaxBody is the longest sealed body: a text, its padding, an encapsulated
	// key (32 bytes) and a tag (16 bytes).
	MaxBody = MaxText + 512
	// MaxHeader is the longest header, in bytes. The fields of this version take
	// about 140; the rest is room for later ones.
	MaxHeader = 512
	// MaxMessage is the longest message, in bytes.
	MaxMessage = 2 + MaxHeader + ed25519.SignatureSize + MaxBody

	// DefaultTTL and MaxTTL are numbers of hops: links that a message may cross.
	DefaultTTL = 8
	MaxTTL     = 32
	// DefaultLifetime and MaxLifetime are how long after its creation a message is
	// still delivered.
	DefaultLifetime = 24 * time.Hour
	MaxLifetime     = 7 * 24 * time.Hour
	// ClockMargin is by how much clocks of members may differ without a message
	// being shown twice, or refused because it seems to live too long.
	ClockMargin = 10 * time.Minute
)

// PeerKey is a member's Ed25519 public key, which its peer ID contains.
type PeerKey [32]byte

// ID names a message among those of its sender; 16 random bytes in a text.
type ID [16]byte

// Network is the id of the network in which a message is valid.
type Network [32]byte

// Key is the identity of a message. The sender belongs to it: somebody else's
// message of the same ID is another message.
type Key struct {
	From PeerKey
	ID   ID
}

func (k PeerKey) String() string { return hex.EncodeToString(k[:]) }
func (i ID) String() string      { return hex.EncodeToString(i[:]) }

// Kind says what a message is.
type Kind uint8

const (
	// Text carries the sender's bytes, sealed to the recipient.
	Text Kind = 1
	// Ack is the recipient's statement that it holds a text durably.
	Ack Kind = 2
	// Notice tells the sender what became of a text at some hop.
	Notice Kind = 3
)

func (k Kind) String() string {
	switch k {
	case Text:
		return "text"
	case Ack:
		return "ack"
	case Notice:
		return "notice"
	}
	return "unknown kind"
}

// Reason is what a notice tells.
type Reason uint8

// ReasonTTL: the text may cross no further link; who signed the notice had it
// last.
const ReasonTTL Reason = 1

// Header field numbers (v1).
const (
	hVersion  protowire.Number = 1
	hKind     protowire.Number = 2
	hID       protowire.Number = 3
	hFrom     protowire.Number = 4
	hTo       protowire.Number = 5
	hCreated  protowire.Number = 6 // Unix milliseconds
	hLifetime protowire.Number = 7 // milliseconds
	hTTL      protowire.Number = 8
	hRef      protowire.Number = 9  // ack and notice: the text's ID
	hReason   protowire.Number = 10 // notice only
)

// maxCreated keeps sums of times far from overflow: the year 10000.
const maxCreated = 253402300800000

// Header says what a message is, from whom, to whom and for how long.
type Header struct {
	Kind     Kind
	ID       ID
	From, To PeerKey
	// Created is when, by the sender's clock, in Unix milliseconds; Lifetime how
	// long after that it is void, in milliseconds.
	Created, Lifetime uint64
	// TTL is how many links the message may cross.
	TTL uint8
	// Ref is the text that an ack or notice is about: From and To of that text are
	// this header's To and, of an ack, From.
	Ref    ID
	Reason Reason // of a notice
}

// Key is the message's identity.
func (h *Header) Key() Key { return Key{h.From, h.ID} }

// RefKey is the text that an ack or notice is about.
func (h *Header) RefKey() Key { return Key{h.To, h.Ref} }

// Expires is when the message becomes void.
func (h *Header) Expires() time.Time { return time.UnixMilli(int64(h.Created + h.Lifetime)) }

// CreatedAt is Created as a time.
func (h *Header) CreatedAt() time.Time { return time.UnixMilli(int64(h.Created)) }

// AppendHeader appends the canonical encoding of h.
func AppendHeader(b []byte, h *Header) []byte {
	b = appendNumber(b, hVersion, FormatVersion)
	b = appendNumber(b, hKind, uint64(h.Kind))
	b = appendID(b, hID, h.ID[:])
	b = appendID(b, hFrom, h.From[:])
	b = appendID(b, hTo, h.To[:])
	b = appendNumber(b, hCreated, h.Created)
	b = appendNumber(b, hLifetime, h.Lifetime)
	b = appendNumber(b, hTTL, uint64(h.TTL))
	b = appendID(b, hRef, h.Ref[:])
	return appendNumber(b, hReason, uint64(h.Reason))
}

// DecodeHeader reads the canonical encoding of a header and checks every rule
// that a header alone can break.
func DecodeHeader(b []byte) (*Header, error) {
	if len(b) > MaxHeader {
		return nil, malformedf("a header of %d bytes, more than %d", len(b), MaxHeader)
	}
	h := &Header{}
	var version uint64
	for last := protowire.Number(0); len(b) > 0; {
		f, rest, err := nextField(b, last)
		if err != nil {
			return nil, err
		}
		b, last = rest, f.num
		if f.num == hVersion {
			version, err = f.number(math.MaxUint32)
		} else {
			err = h.decodeField(f)
		}
		if err != nil {
			return nil, err
		}
	}
	if version > FormatVersion {
		return nil, &MessageError{Kind: ErrTooNew, Reason: "its format is of a later version"}
	}
	if version == 0 {
		return nil, malformedf("the format version is missing")
	}
	return h, h.Check()
}

func (h *Header) decodeField(f field) error {
	var n uint64
	var err error
	switch f.num {
	case hKind:
		n, err = f.number(math.MaxUint8)
		h.Kind = Kind(n)
	case hID:
		err = f.fixed(h.ID[:])
	case hFrom:
		err = f.fixed(h.From[:])
	case hTo:
		err = f.fixed(h.To[:])
	case hCreated:
		h.Created, err = f.number(maxCreated)
	case hLifetime:
		h.Lifetime, err = f.number(uint64(MaxLifetime / time.Millisecond))
	case hTTL:
		n, err = f.number(MaxTTL)
		h.TTL = uint8(n)
	case hRef:
		err = f.fixed(h.Ref[:])
	case hReason:
		n, err = f.number(math.MaxUint8)
		h.Reason = Reason(n)
	default:
		if f.num < firstFreeField {
			return malformedf("field %d is not known", f.num)
		}
	}
	return err
}

// Check says which rule a header breaks; nil if none.
func (h *Header) Check() error {
	about := h.Ref != ID{}
	switch {
	case h.ID == ID{} || h.From == PeerKey{} || h.To == PeerKey{}:
		return malformedf("the id, the sender or the recipient is missing")
	case h.From == h.To:
		return malformedf("the sender is the recipient")
	case h.Created == 0 || h.Created > maxCreated:
		return malformedf("the time of creation is missing or out of range")
	case h.Lifetime == 0 || h.Lifetime > uint64(MaxLifetime/time.Millisecond):
		return malformedf("a lifetime of %d ms, not 1 to %d", h.Lifetime, MaxLifetime.Milliseconds())
	case h.TTL == 0 || h.TTL > MaxTTL:
		return malformedf("a TTL of %d hops, not 1 to %d", h.TTL, MaxTTL)
	case h.Kind != Text && h.Kind != Ack && h.Kind != Notice:
		return malformedf("kind %d is not known", h.Kind)
	case about != (h.Kind != Text):
		return malformedf("an ack or notice names a text, and only these do")
	case (h.Reason != 0) != (h.Kind == Notice):
		return malformedf("a notice has a reason, and only a notice")
	}
	return nil
}

// Message is a message as it is stored and sent.
type Message struct {
	Header
	// Raw is the whole message; the others alias it.
	Raw       []byte
	HeaderRaw []byte // what is signed, and the associated data of the seal
	Sig       []byte
	Body      []byte // sealed; empty in an ack or notice
}

// minBody is the shortest body of a text: a sealed empty one.
const minBody = 32 + 16 + 1

// Parse reads a message. It does not verify the signature. The result aliases raw.
func Parse(raw []byte) (*Message, error) {
	if len(raw) > MaxMessage {
		return nil, malformedf("a message of %d bytes, more than %d", len(raw), MaxMessage)
	}
	size, n := minimalVarint(raw)
	if n < 0 || size > MaxHeader || uint64(len(raw)-n) < size+ed25519.SignatureSize {
		return nil, malformedf("a message that is cut short")
	}
	m := &Message{Raw: raw, HeaderRaw: raw[n : n+int(size)]}
	rest := raw[n+int(size):]
	m.Sig, m.Body = rest[:ed25519.SignatureSize], rest[ed25519.SignatureSize:]
	h, err := DecodeHeader(m.HeaderRaw)
	if err != nil {
		return nil, err
	}
	m.Header = *h
	return m, checkBody(h.Kind, len(m.Body))
}

func checkBody(k Kind, n int) error {
	if k != Text && n > 0 {
		return malformedf("an %s with a body", k)
	}
	if k == Text && (n < minBody || n > MaxBody) {
		return malformedf("a body of %d bytes, not %d to %d", n, minBody, MaxBody)
	}
	return nil
}

// domain separates this signature from every other that an identity makes.
const domain = "vix/msg/1"

// signed is what the signature covers: domain, a zero byte, and the SHA-256 of
// domain, network, header and body, each preceded by its length as a uvarint.
func signed(network Network, header, body []byte) []byte {
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(domain), network[:], header, body} {
		sum.Write(protowire.AppendVarint(nil, uint64(len(part))))
		sum.Write(part)
	}
	return sum.Sum(append([]byte(domain), 0))
}

// New signs a message. body seals the text of a Text with the header's encoding as
// associated data; it is nil for the other kinds.
func New(network Network, key ed25519.PrivateKey, h Header, body func(header []byte) ([]byte, error)) (*Message, error) {
	if err := h.Check(); err != nil {
		return nil, err
	}
	header := AppendHeader(nil, &h)
	var sealed []byte
	if body != nil {
		var err error
		if sealed, err = body(header); err != nil {
			return nil, err
		}
	}
	if err := checkBody(h.Kind, len(sealed)); err != nil {
		return nil, err
	}
	raw := protowire.AppendBytes(nil, header)
	raw = append(raw, ed25519.Sign(key, signed(network, header, sealed))...)
	return Parse(append(raw, sealed...))
}

// Verify checks the sender's signature: ErrForged if it is not the sender's, of
// another network, or something was altered.
func (m *Message) Verify(network Network) error {
	if !ed25519.Verify(m.From[:], signed(network, m.HeaderRaw, m.Body), m.Sig) {
		return &MessageError{Kind: ErrForged, Reason: "the signature is not the sender's"}
	}
	return nil
}

// CheckTime says whether the message may be handled now: ErrExpired if it is void,
// or claims to live longer than any message may.
func (m *Message) CheckTime(now time.Time) error {
	switch left := m.Expires().Sub(now); {
	case left <= 0:
		return &MessageError{Kind: ErrExpired, Reason: "its lifetime is over"}
	case left > MaxLifetime+ClockMargin:
		return &MessageError{Kind: ErrExpired, Reason: "it was made in the future: one of the two clocks is wrong"}
	}
	return nil
}

// Why a message is dropped. Each comes as a *MessageError.
var (
	ErrMalformed = errors.New("malformed message")
	ErrTooNew    = errors.New("message of a later version")
	ErrForged    = errors.New("forged message")
	ErrExpired   = errors.New("expired message")
)

// MessageError says why bytes are no message that counts.
type MessageError struct {
	Kind   error // one of the sentinels above
	Reason string
}

func (e *MessageError) Error() string { return e.Kind.Error() + ": " + e.Reason }
func (e *MessageError) Unwrap() error { return e.Kind }
