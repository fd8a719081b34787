// Package compress packs and unpacks the bodies of blocks (design 4.2).
//
// Between a stored body and its operations stand two steps, each of which can
// find the body void:
//
//	Block.Body --RawBody (codec)--> raw bytes --replication.DecodeBody--> operations
//
// Whether an operation counts must never depend on one implementation, so the
// zstd frames that are accepted are described by rules (checkFrame), not by what
// the library at hand happens to take. Nothing here keeps state between calls.
package compress

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"vixp2p/replication"
)

var (
	// ErrEncrypted: the body of an encrypted space; open it with its content key
	// first (design 9.6).
	ErrEncrypted = errors.New("the body is encrypted")
	// ErrNoBody: only the block's header is here (the tail of a run, design 4.4).
	ErrNoBody = errors.New("the block's body is not here")
)

// minSaving is what packing must save, in bytes, to be worth the unpacking.
const minSaving = 64

// Codecs are pooled because each holds tables and buffers of some hundred KiB.
var (
	encoders = sync.Pool{New: func() any { return newEncoder() }}
	decoders = sync.Pool{New: func() any { return newDecoder() }}
)

func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithSingleSegment(true),
		zstd.WithEncoderCRC(false)) // the header holds the body's hash
	if err != nil {
		panic(fmt.Sprintf("compress: the fixed options of the zstd encoder are wrong: %v", err))
	}
	return e
}

func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(replication.MaxRawBody))
	if err != nil {
		panic(fmt.Sprintf("compress: the fixed options of the zstd decoder are wrong: %v", err))
	}
	return d
}

// Encode packs a raw body with zstd where that makes it smaller; otherwise it
// returns raw itself.
func Encode(raw []byte) (body []byte, codec replication.Codec) {
	if len(raw) <= minSaving {
		return raw, replication.CodecNone
	}
	e := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(e)
	packed := e.EncodeAll(raw, make([]byte, 0, len(raw)/2))
	if len(packed) > len(raw)-minSaving {
		return raw, replication.CodecNone
	}
	return packed, replication.CodecZstd
}

// RawBody unpacks the body of block h. It may return body itself.
//
// A *replication.VoidError tells that no member counts the block's operations;
// ErrEncrypted and ErrNoBody tell that they cannot be read here.
func RawBody(h *replication.Header, body []byte) ([]byte, error) {
	if len(body) == 0 {
		return nil, fmt.Errorf("block %s/%d: %w", h.Log.Short(), h.FirstSeq, ErrNoBody)
	}
	if len(h.KeyID) > 0 {
		return nil, fmt.Errorf("block %s/%d: %w", h.Log.Short(), h.FirstSeq, ErrEncrypted)
	}
	raw, err := decode(h, body)
	if err != nil {
		return nil, &replication.VoidError{Log: h.Log, FirstSeq: h.FirstSeq, Cause: err}
	}
	return raw, nil
}

func decode(h *replication.Header, body []byte) ([]byte, error) {
	switch h.Codec {
	case replication.CodecNone:
		if uint64(len(body)) != h.RawLen {
			return nil, invalidf("an unpacked body of %d bytes where the header says %d", len(body), h.RawLen)
		}
		return body, nil
	case replication.CodecZstd:
		if err := checkFrame(body, h.RawLen); err != nil {
			return nil, err
		}
		d := decoders.Get().(*zstd.Decoder)
		defer decoders.Put(d)
		raw, err := d.DecodeAll(body, make([]byte, 0, h.RawLen))
		if err != nil {
			return nil, invalidf("the zstd frame does not decode: %v", err)
		}
		if uint64(len(raw)) != h.RawLen {
			return nil, invalidf("a zstd frame of %d bytes where the header says %d", len(raw), h.RawLen)
		}
		return raw, nil
	}
	return nil, invalidf("unknown codec %d", h.Codec)
}

// Ops reads the operations of a block. Errors are those of RawBody; what it
// returns may alias the block.
func Ops(b *replication.Block) ([]replication.Op, error) {
	raw, err := RawBody(b.Header, b.Body)
	if err != nil {
		return nil, err
	}
	return replication.DecodeBody(b.Header, raw)
}

func invalidf(format string, args ...any) error {
	return &replication.InvalidError{Reason: fmt.Sprintf(format, args...)}
}
