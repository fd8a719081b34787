package compress

import (
	"github.com/klauspost/compress/zstd"

	"vixp2p/replication"
)

// maxWindow is the largest window of an accepted frame: more than a body has is
// never needed, and every decoder must have room for it.
const maxWindow = replication.MaxRawBody

// The parts of a zstd frame (RFC 8878, section 3.1.1) that are walked here.
const (
	blockHeaderBytes = 3
	checksumBytes    = 4
	blockTypeRaw     = 0
	blockTypeRLE     = 1
	blockTypeInvalid = 3
)

// checkFrame checks what this format asks of a packed body beyond being valid
// zstd: exactly one frame and nothing else, no skippable frame, no dictionary,
// the content size present and equal to rawLen, a window of at most 1 MiB. A frame
// that lies about its size in blocks of known size is found out before any of it is
// unpacked.
func checkFrame(body []byte, rawLen uint64) error {
	var h zstd.Header
	if err := h.Decode(body); err != nil {
		return invalidf("not a zstd frame: %v", err)
	}
	switch {
	case h.Skippable:
		return invalidf("a skippable zstd frame")
	case h.DictionaryID != 0:
		return invalidf("a zstd frame with a dictionary")
	case !h.HasFCS:
		return invalidf("a zstd frame without its content size")
	case h.FrameContentSize != rawLen:
		return invalidf("a zstd frame of %d bytes where the header says %d", h.FrameContentSize, rawLen)
	case !h.SingleSegment && h.WindowSize > maxWindow:
		return invalidf("a zstd frame with a window of %d bytes, more than %d", h.WindowSize, maxWindow)
	}
	rest, known := body[h.HeaderSize:], uint64(0)
	for last := false; !last; {
		if len(rest) < blockHeaderBytes {
			return invalidf("a zstd frame that is cut short")
		}
		bh := int(rest[0]) | int(rest[1])<<8 | int(rest[2])<<16
		last = bh&1 == 1
		size := bh >> 3
		switch bh >> 1 & 3 {
		case blockTypeRaw:
			known += uint64(size)
		case blockTypeRLE:
			known += uint64(size)
			size = 1
		case blockTypeInvalid:
			return invalidf("a zstd block of the reserved type")
		}
		rest = rest[blockHeaderBytes:]
		if size > len(rest) {
			return invalidf("a zstd frame that is cut short")
		}
		rest = rest[size:]
		if known > rawLen {
			return invalidf("a zstd frame with more in it than its %d bytes", rawLen)
		}
	}
	if h.HasCheckSum {
		if len(rest) < checksumBytes {
			return invalidf("a zstd frame without its checksum")
		}
		rest = rest[checksumBytes:]
	}
	if len(rest) != 0 {
		return invalidf("%d bytes after the zstd frame", len(rest))
	}
	return nil
}
