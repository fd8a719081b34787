package replication

import (
	"crypto/ed25519"
	"crypto/sha256"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication/canonical"
)

// A block as it is stored and sent (design 4.1, v1), the same bytes everywhere:
//
//	+---------+--------+----------+-----------+---------+------+
//	| uvarint | header | uvarint  | signature | uvarint | body |
//	| length  |        | 0 or 64  |           | length  |      |
//	+---------+--------+----------+-----------+---------+------+
//
// The hash of a block is SHA-256 of its header bytes; the header holds the hash
// of the body. The signature is outside of both, so that dropping one changes
// nothing else. A body length of 0 marks a block whose body is not here (the
// tail of a run, design 4.4); a block always has a body where it was written.
const (
	// FormatVersion is the block format that this code writes and reads.
	FormatVersion = 1
	// MaxRawBody is the largest decoded body, in bytes.
	MaxRawBody = 1 << 20
	// MaxBody is the largest body as stored: a raw body that did not shrink, and
	// the room for a nonce and a tag (design 9.6).
	MaxBody = MaxRawBody + 4<<10
	// MaxOpsPerBlock bounds the operations of a block.
	MaxOpsPerBlock = 4096
	// MaxHeader is the largest header in bytes.
	MaxHeader = 16 << 10
	// MaxGrant is the largest grant in a genesis header, in bytes.
	MaxGrant = 4 << 10
	// MaxReserved bounds each reserved header field, in bytes.
	MaxReserved = 4 << 10

	keyIDBytes = 32
)

// Codec says how a body is packed.
type Codec uint64

const (
	CodecNone Codec = 0
	CodecZstd Codec = 1 // RFC 8878: one frame that states its content size
)

// Header field numbers (v1).
const (
	hVersion      protowire.Number = 1
	hLog          protowire.Number = 2
	hFirstSeq     protowire.Number = 3
	hCount        protowire.Number = 4
	hPrev         protowire.Number = 5 // absent in a genesis block
	hBodyHash     protowire.Number = 6
	hBodyLen      protowire.Number = 7
	hRawLen       protowire.Number = 8
	hCodec        protowire.Number = 9
	hKeyID        protowire.Number = 10
	hFirstHLC     protowire.Number = 11
	hLastHLCDelta protowire.Number = 12 // last minus first
	hNetwork      protowire.Number = 13 // 13 to 20: genesis only
	hSpace        protowire.Number = 14
	hOrigin       protowire.Number = 15
	hEpoch        protowire.Number = 16
	hPrevLog      protowire.Number = 17
	hPrevLogSeq   protowire.Number = 18
	hPrevLogHash  protowire.Number = 19
	hGrant        protowire.Number = 20
	hBranchParent protowire.Number = 21 // 21 to 23: reserved, kept and ignored
	hSnapshotRef  protowire.Number = 22
	hCausalDeps   protowire.Number = 23
)

// Genesis is what the first block of a log adds to its header.
type Genesis struct {
	Network NetworkID
	Space   SpaceID
	Origin  OriginKey
	Epoch   Epoch
	// PrevLog is the origin's log of the epoch before, with its last known
	// position; zero where there is none.
	PrevLog LogID
	PrevPos Position
	// Grant is the certificate under which the origin writes (design 9); empty
	// in an open network.
	Grant []byte
}

// LogID is the log that the genesis block begins.
func (g *Genesis) LogID() LogID { return LogOf(g.Network, g.Space, g.Origin, g.Epoch) }

// Header describes a block. Its encoded bytes are hashed and signed, never
// re-marshalled.
type Header struct {
	Log      LogID
	FirstSeq uint64 // 1 in a genesis block
	Count    uint64 // 1 to MaxOpsPerBlock
	Prev     Hash   // the block before; zero in a genesis block
	BodyHash Hash   // SHA-256 of the body as stored
	BodyLen  uint64
	RawLen   uint64 // length of the decoded body
	Codec    Codec
	KeyID    []byte // content key of an encrypted body, 32 bytes or none
	FirstHLC HLC
	LastHLC  HLC
	Genesis  *Genesis // exactly where FirstSeq is 1

	// Reserved in v1: carried, hashed and signed, not acted upon.
	BranchParent []byte
	SnapshotRef  []byte
	CausalDeps   []byte
}

// LastSeq is the seq of the block's last operation.
func (h *Header) LastSeq() uint64 { return h.FirstSeq + h.Count - 1 }

// AppendHeader appends the canonical encoding of h.
func AppendHeader(b []byte, h *Header) []byte {
	b = canonical.AppendVarint(b, hVersion, FormatVersion)
	b = canonical.AppendBytes(b, hLog, h.Log[:])
	b = canonical.AppendVarint(b, hFirstSeq, h.FirstSeq)
	b = canonical.AppendVarint(b, hCount, h.Count)
	if !h.Prev.IsZero() {
		b = canonical.AppendBytes(b, hPrev, h.Prev[:])
	}
	b = canonical.AppendBytes(b, hBodyHash, h.BodyHash[:])
	b = canonical.AppendVarint(b, hBodyLen, h.BodyLen)
	b = canonical.AppendVarint(b, hRawLen, h.RawLen)
	b = canonical.AppendVarint(b, hCodec, uint64(h.Codec))
	b = canonical.AppendBytes(b, hKeyID, h.KeyID)
	b = canonical.AppendVarint(b, hFirstHLC, uint64(h.FirstHLC))
	b = canonical.AppendVarint(b, hLastHLCDelta, uint64(h.LastHLC-h.FirstHLC))
	if g := h.Genesis; g != nil {
		b = canonical.AppendBytes(b, hNetwork, g.Network[:])
		b = canonical.AppendBytes(b, hSpace, g.Space[:])
		b = canonical.AppendBytes(b, hOrigin, g.Origin[:])
		b = canonical.AppendBytes(b, hEpoch, g.Epoch[:])
		if g.PrevLog != (LogID{}) {
			b = canonical.AppendBytes(b, hPrevLog, g.PrevLog[:])
			b = canonical.AppendVarint(b, hPrevLogSeq, g.PrevPos.Seq)
			if !g.PrevPos.Hash.IsZero() {
				b = canonical.AppendBytes(b, hPrevLogHash, g.PrevPos.Hash[:])
			}
		}
		b = canonical.AppendBytes(b, hGrant, g.Grant)
	}
	b = canonical.AppendBytes(b, hBranchParent, h.BranchParent)
	b = canonical.AppendBytes(b, hSnapshotRef, h.SnapshotRef)
	return canonical.AppendBytes(b, hCausalDeps, h.CausalDeps)
}

// Which fields a header must have, and which only a genesis block has.
var (
	mustFields         = canonical.SetOf(hVersion, hLog, hFirstSeq, hCount, hBodyHash, hBodyLen, hRawLen)
	mustGenesisFields  = canonical.SetOf(hNetwork, hSpace, hOrigin, hEpoch)
	extraGenesisFields = canonical.SetOf(hPrevLog, hPrevLogSeq, hPrevLogHash, hGrant)
)

// DecodeHeader reads the canonical encoding of a header and checks every rule
// that one header alone can break. Byte slices alias b.
func DecodeHeader(b []byte) (*Header, error) {
	h := &Header{}
	if err := h.decode(b); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *Header) decode(b []byte) error {
	if len(b) > MaxHeader {
		return invalidf("a block header has %d bytes, more than %d", len(b), MaxHeader)
	}
	var seen canonical.Set
	r := canonical.NewReader(b, 0)
	for {
		f, ok, err := r.Next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if f.Num >= canonical.FirstFree {
			continue
		}
		seen.Add(f.Num)
		if err := h.decodeField(f); err != nil {
			return err
		}
	}
	h.LastHLC += h.FirstHLC // until here it was the difference
	if missing := mustFields &^ seen; missing != 0 {
		return invalidf("header field %d is missing", missing.First())
	}
	return h.check(seen)
}

func (h *Header) decodeField(f canonical.Field) (err error) {
	var v uint64
	switch f.Num {
	case hVersion:
		if v, err = f.Varint(); err == nil && v != FormatVersion {
			return &VersionError{What: "block format", Got: v, Want: FormatVersion}
		}
	case hLog:
		err = f.Fixed(h.Log[:])
	case hFirstSeq:
		h.FirstSeq, err = f.Varint()
	case hCount:
		h.Count, err = f.Varint()
	case hPrev:
		err = f.Fixed(h.Prev[:])
	case hBodyHash:
		err = f.Fixed(h.BodyHash[:])
	case hBodyLen:
		h.BodyLen, err = f.Varint()
	case hRawLen:
		h.RawLen, err = f.Varint()
	case hCodec:
		v, err = f.Varint()
		h.Codec = Codec(v)
	case hKeyID:
		if h.KeyID, err = f.Bytes(keyIDBytes); err == nil && len(h.KeyID) != keyIDBytes {
			err = invalidf("a content key id of %d bytes, not %d", len(h.KeyID), keyIDBytes)
		}
	case hFirstHLC:
		v, err = f.Varint()
		h.FirstHLC = HLC(v)
	case hLastHLCDelta:
		if v, err = f.Varint(); err == nil && uint64(h.FirstHLC)+v < v {
			err = invalidf("the last HLC overflows")
		}
		h.LastHLC = HLC(v)
	case hBranchParent:
		h.BranchParent, err = f.Bytes(MaxReserved)
	case hSnapshotRef:
		h.SnapshotRef, err = f.Bytes(MaxReserved)
	case hCausalDeps:
		h.CausalDeps, err = f.Bytes(MaxReserved)
	default:
		if !(mustGenesisFields | extraGenesisFields).Has(f.Num) {
			return invalidf("unknown header field %d", f.Num)
		}
		if h.Genesis == nil {
			h.Genesis = &Genesis{}
		}
		err = h.Genesis.decodeField(f)
	}
	return err
}

func (g *Genesis) decodeField(f canonical.Field) (err error) {
	switch f.Num {
	case hNetwork:
		err = f.Fixed(g.Network[:])
	case hSpace:
		err = f.Fixed(g.Space[:])
	case hOrigin:
		err = f.Fixed(g.Origin[:])
	case hEpoch:
		err = f.Fixed(g.Epoch[:])
	case hPrevLog:
		err = f.Fixed(g.PrevLog[:])
	case hPrevLogSeq:
		g.PrevPos.Seq, err = f.Varint()
	case hPrevLogHash:
		err = f.Fixed(g.PrevPos.Hash[:])
	case hGrant:
		g.Grant, err = f.Bytes(MaxGrant)
	}
	return err
}

// check holds the rules that concern more than one field.
func (h *Header) check(seen canonical.Set) error {
	switch {
	case h.Count > MaxOpsPerBlock:
		return invalidf("a block of %d operations, more than %d", h.Count, MaxOpsPerBlock)
	case h.FirstSeq+h.Count-1 < h.FirstSeq:
		return invalidf("seq %d overflows", h.FirstSeq)
	case h.BodyLen > MaxBody:
		return invalidf("a body of %d bytes, more than %d", h.BodyLen, MaxBody)
	case h.RawLen > MaxRawBody:
		return invalidf("a raw body of %d bytes, more than %d", h.RawLen, MaxRawBody)
	case seen.Has(hPrev) && h.Prev.IsZero():
		return invalidf("the previous block's hash is zero")
	}
	if h.FirstSeq > 1 {
		if !seen.Has(hPrev) {
			return invalidf("block at seq %d names no previous block", h.FirstSeq)
		}
		if extra := seen & (mustGenesisFields | extraGenesisFields); extra != 0 {
			return invalidf("header field %d belongs to a genesis block only", extra.First())
		}
		return nil
	}
	if seen.Has(hPrev) {
		return invalidf("a genesis block names a previous block")
	}
	if missing := mustGenesisFields &^ seen; missing != 0 {
		return invalidf("genesis field %d is missing", missing.First())
	}
	if seen.Has(hPrevLogSeq) != seen.Has(hPrevLogHash) || (seen.Has(hPrevLogSeq) && !seen.Has(hPrevLog)) {
		return invalidf("the position in the previous log is incomplete")
	}
	g := h.Genesis
	if (seen.Has(hPrevLog) && g.PrevLog == LogID{}) || (seen.Has(hPrevLogHash) && g.PrevPos.Hash.IsZero()) {
		return invalidf("the previous log or position is zero")
	}
	if g.LogID() != h.Log {
		return invalidf("log id %s does not follow from its genesis block", h.Log.Short())
	}
	return nil
}

// Block is one parsed block. Its slices alias the bytes that it was parsed from.
type Block struct {
	Header    *Header
	HeaderRaw []byte
	Sig       []byte // nil or 64 bytes
	Body      []byte // nil where only the header is here
	Hash      Hash
}

// End is the position of the block's last operation.
func (b *Block) End() Position { return Position{Seq: b.Header.LastSeq(), Hash: b.Hash} }

// PrevPosition is the position that the block follows.
func (b *Block) PrevPosition() Position {
	return Position{Seq: b.Header.FirstSeq - 1, Hash: b.Header.Prev}
}

// HasBody tells whether the block's operations are here.
func (b *Block) HasBody() bool { return len(b.Body) > 0 }

// EncodedLen is the length of the block's bytes, with its signature.
func (b *Block) EncodedLen() int {
	return protowire.SizeBytes(len(b.HeaderRaw)) + protowire.SizeBytes(len(b.Sig)) + protowire.SizeBytes(len(b.Body))
}

// AppendBlock appends the bytes of a block. Leaving out sig or body (nil) is
// the way to drop an unverified signature or to send a header alone.
func AppendBlock(dst, header, sig, body []byte) []byte {
	dst = protowire.AppendBytes(dst, header)
	dst = protowire.AppendBytes(dst, sig)
	return protowire.AppendBytes(dst, body)
}

// ParseBlock reads one block from the front of b and returns the rest. It
// checks the header's rules, the lengths and the body's hash, not the signature
// and not the place in a chain.
func ParseBlock(b []byte) (blk *Block, rest []byte, err error) {
	blk, rest, err = ParseBlockHeader(b)
	if err != nil {
		return nil, nil, err
	}
	if blk.HasBody() {
		sum := sha256.Sum256(blk.Body)
		if sum != blk.Header.BodyHash {
			return nil, nil, invalidf("the body of block %s/%d does not match its hash", blk.Header.Log.Short(), blk.Header.FirstSeq)
		}
	}
	return blk, rest, nil
}

// ParseBlockHeader is ParseBlock without hashing the body.
func ParseBlockHeader(b []byte) (blk *Block, rest []byte, err error) {
	both := &struct { // one allocation
		blk Block
		h   Header
	}{}
	blk = &both.blk
	blk.Header = &both.h
	if blk.HeaderRaw, b, err = cutPrefixed(b, MaxHeader, "header"); err != nil {
		return nil, nil, err
	}
	if blk.Sig, b, err = cutPrefixed(b, ed25519.SignatureSize, "signature"); err != nil {
		return nil, nil, err
	}
	if n := len(blk.Sig); n != 0 && n != ed25519.SignatureSize {
		return nil, nil, invalidf("a signature of %d bytes", n)
	}
	if blk.Body, b, err = cutPrefixed(b, MaxBody, "body"); err != nil {
		return nil, nil, err
	}
	if err = blk.Header.decode(blk.HeaderRaw); err != nil {
		return nil, nil, err
	}
	if blk.HasBody() && uint64(len(blk.Body)) != blk.Header.BodyLen {
		return nil, nil, invalidf("a body of %d bytes where the header says %d", len(blk.Body), blk.Header.BodyLen)
	}
	blk.Hash = sha256.Sum256(blk.HeaderRaw)
	return blk, b, nil
}

func cutPrefixed(b []byte, maxLen int, what string) (v, rest []byte, err error) {
	size, n := canonical.MinimalVarint(b)
	if n < 0 {
		return nil, nil, invalidf("the length of a block's %s is cut short or not minimal", what)
	}
	if size > uint64(maxLen) {
		return nil, nil, invalidf("a block's %s of %d bytes, more than %d", what, size, maxLen)
	}
	if size > uint64(len(b)-n) {
		return nil, nil, invalidf("a block's %s is cut short", what)
	}
	if size == 0 {
		return nil, b[n:], nil
	}
	end := n + int(size)
	return b[n:end:end], b[end:], nil
}

// blockSignDomain precedes the hash in what is signed (v1).
const blockSignDomain = "vix/block/1\x00"

// SignedBytes is what the signature of a block covers.
func SignedBytes(hash Hash) []byte {
	return append([]byte(blockSignDomain), hash[:]...)
}

// SignBlock signs a block hash.
func SignBlock(key ed25519.PrivateKey, hash Hash) []byte {
	return ed25519.Sign(key, SignedBytes(hash))
}

// VerifyBlockSig checks a signature by the rule of Go's crypto/ed25519: RFC
// 8032 without the cofactor, S reduced, the encoding of A as given.
func VerifyBlockSig(origin OriginKey, hash Hash, sig []byte) bool {
	var signed [len(blockSignDomain) + len(hash)]byte // as SignedBytes, without an allocation
	copy(signed[copy(signed[:], blockSignDomain):], hash[:])
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(origin[:], signed[:], sig)
}
