package replication

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// FrontierEntry states the contiguous prefix of one log that a node holds
// durably.
type FrontierEntry struct {
	Log LogID
	// Branch is the hash of the first block after a fork's common position; zero
	// for the trunk, the only branch that v1 carries (design 4.8).
	Branch Hash
	// Base is the first seq still held; 0 and 1 both mean from the start.
	Base uint64
	Pos  Position
}

const (
	domainFrontierLeaf  = "vix/frontier/leaf/1"
	domainFrontierInner = "vix/frontier/inner/1"
	childDigestBytes    = 16
)

// FrontierRoot is the root of the trie of design 6.3 over the entries: 256 x
// 256 buckets by the first two bytes of SHA-256(LogID). Empty is zero; a leaf is
// the hash of its entries sorted by (log, branch); an inner node hashes its 256
// children, 16 bytes of each. Base is not part of it: two nodes that hold the
// same positions are equal even if one has dropped its oldest blocks.
func FrontierRoot(entries []FrontierEntry) Hash {
	if len(entries) == 0 {
		return Hash{}
	}
	type slot struct {
		bucket uint16
		e      *FrontierEntry
	}
	slots := make([]slot, len(entries))
	for i := range entries {
		sum := sha256.Sum256(entries[i].Log[:])
		slots[i] = slot{binary.BigEndian.Uint16(sum[:2]), &entries[i]}
	}
	slices.SortFunc(slots, func(a, b slot) int {
		if a.bucket != b.bucket {
			return int(a.bucket) - int(b.bucket)
		}
		if c := a.e.Log.Compare(b.e.Log); c != 0 {
			return c
		}
		return bytes.Compare(a.e.Branch[:], b.e.Branch[:])
	})
	var root, inner [256][childDigestBytes]byte
	buf := make([]byte, 0, 256*childDigestBytes+64)
	for i := 0; i < len(slots); {
		bucket := slots[i].bucket
		end := i + 1
		for end < len(slots) && slots[end].bucket == bucket {
			end++
		}
		buf = appendNode(buf[:0], domainFrontierLeaf, (end-i)*leafEntryBytes)
		for ; i < end; i++ {
			buf = appendLeafEntry(buf, slots[i].e)
		}
		h := sha256.Sum256(buf)
		copy(inner[bucket&0xff][:], h[:])
		if i == len(slots) || slots[i].bucket>>8 != bucket>>8 {
			buf = appendChildren(buf[:0], &inner)
			h := sha256.Sum256(buf)
			copy(root[bucket>>8][:], h[:])
			clear(inner[:])
		}
	}
	return sha256.Sum256(appendChildren(buf[:0], &root))
}

// appendNode begins what HashParts hashes for one part of size bytes.
func appendNode(b []byte, domain string, size int) []byte {
	b = binary.AppendUvarint(b, uint64(len(domain)))
	b = append(b, domain...)
	return binary.AppendUvarint(b, uint64(size))
}

func appendChildren(b []byte, c *[256][childDigestBytes]byte) []byte {
	b = appendNode(b, domainFrontierInner, len(c)*childDigestBytes)
	for i := range c {
		b = append(b, c[i][:]...)
	}
	return b
}

const leafEntryBytes = 32 + 32 + 8 + 32

func appendLeafEntry(b []byte, e *FrontierEntry) []byte {
	b = append(b, e.Log[:]...)
	b = append(b, e.Branch[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Pos.Seq)
	return append(b, e.Pos.Hash[:]...)
}
