package kv

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"vixp2p/replication"
)

// Prefixes of the store's keys; doc.go has the layout.
const (
	prefixApplied = 'a'
	prefixChange  = 'r'
	prefixCursor  = 'c'
	prefixSibling = 'o'
	prefixPending = 'p'
	prefixRule    = 'e'
	prefixKey     = 's'
	prefixValue   = 'v'
)

const (
	// inlineValue is the longest value, in bytes, that stands in its key's
	// record; a longer one has a record of its own.
	inlineValue = 4 << 10
	// maxInline is the most siblings that stand in their key's record. With more
	// the record keeps the winner and every sibling has a record of its own, so
	// that no record and no change of one grows with the number of siblings.
	maxInline = 32
	// backInline is the number of siblings at which they move back.
	backInline = maxInline / 2

	spaceLen = len(replication.SpaceID{})
	logLen   = len(replication.LogID{})
	hashLen  = len(replication.Hash{})
	dotLen   = logLen + 8
	crcLen   = 4

	changeLen = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errRecord: bytes that are not a record as this package writes them.
var errRecord = errors.New("a record is not what was written")

// seal appends the CRC-32C over key and record.
func seal(key, record []byte) []byte {
	return binary.BigEndian.AppendUint32(record, checksum(key, record))
}

// unseal checks and removes what seal appended.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - crcLen
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != checksum(key, sealed[:n]) {
		return nil, errRecord
	}
	return sealed[:n:n], nil
}

func checksum(key, record []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, record)
}

func spacePrefix(prefix byte, space replication.SpaceID, extra int) []byte {
	b := make([]byte, 0, 1+spaceLen+extra)
	b = append(b, prefix)
	return append(b, space[:]...)
}

func cursorKey(space replication.SpaceID) []byte { return spacePrefix(prefixCursor, space, 0) }

func stateKey(space replication.SpaceID, key []byte) []byte {
	return append(spacePrefix(prefixKey, space, len(key)), key...)
}

func appliedKey(space replication.SpaceID, log replication.LogID) []byte {
	return append(spacePrefix(prefixApplied, space, logLen), log[:]...)
}

func appendDot(b []byte, d replication.Dot) []byte {
	return binary.BigEndian.AppendUint64(append(b, d.Log[:]...), d.Seq)
}

func valueKey(space replication.SpaceID, d replication.Dot) []byte {
	return appendDot(spacePrefix(prefixValue, space, dotLen), d)
}

// pendingPrefix stands before every key that waits for the dot.
func pendingPrefix(space replication.SpaceID, d replication.Dot) []byte {
	return appendDot(spacePrefix(prefixPending, space, dotLen+hashLen), d)
}

func pendingKey(space replication.SpaceID, d replication.Dot, keyHash replication.Hash) []byte {
	return append(pendingPrefix(space, d), keyHash[:]...)
}

// siblingPrefix stands before every sibling record of a key.
func siblingPrefix(space replication.SpaceID, keyHash replication.Hash) []byte {
	return append(spacePrefix(prefixSibling, space, hashLen+dotLen), keyHash[:]...)
}

func siblingKey(space replication.SpaceID, keyHash replication.Hash, d replication.Dot) []byte {
	return appendDot(siblingPrefix(space, keyHash), d)
}

// changeKey is that of a change by a retreat: op counts on from the operations of
// the block with the arrival number.
func changeKey(space replication.SpaceID, arrival, op uint64) []byte {
	b := spacePrefix(prefixChange, space, changeLen)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, arrival), op)
}

// hashKey stands for a key of up to 4 KiB where only equality matters.
func hashKey(key []byte) replication.Hash { return sha256.Sum256(key) }

// sibling is one live write of a key.
type sibling struct {
	dot   replication.Dot
	order uint64
	hlc   replication.HLC
	value []byte // the value, unless apart
	// apart tells that the value has a record of its own; then size is its length
	// and digest stands in the record too.
	apart bool
	size  uint64
	// digest is the sibling's part of the view's digest; zero if not known.
	digest replication.Hash
}

// keyRecord is the state of one key. It exists only while the key has siblings.
type keyRecord struct {
	// n is the number of siblings. invariant: n == len(sibs) unless large.
	n uint64
	// sibs is every sibling, winner first; if large, the winner alone.
	sibs  []sibling
	large bool
}

// A key record:
//
//	uvarint n | byte form | siblings
//
// form 0: all n siblings; form 1: the winner, the siblings are records of their
// own. A sibling, there and in its own record:
//
//	log (32) | uvarint seq | hlc (8) | order (8) | byte apart | uvarint size | value or digest (32)
const (
	formInline = 0
	formLarge  = 1
)

// appendKeyRecord encodes a record. The siblings' values alias the result after.
func appendKeyRecord(b []byte, r *keyRecord) []byte {
	b = binary.AppendUvarint(b, r.n)
	form := byte(formInline)
	if r.large {
		form = formLarge
	}
	b = append(b, form)
	for i := range r.sibs {
		s := &r.sibs[i]
		b = appendSibling(b, s)
		if n := len(s.value); !s.apart && n > 0 {
			s.value = b[len(b)-n : len(b) : len(b)]
		}
	}
	return b
}

func appendSibling(b []byte, s *sibling) []byte {
	b = append(b, s.dot.Log[:]...)
	b = binary.AppendUvarint(b, s.dot.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(s.hlc))
	b = binary.BigEndian.AppendUint64(b, s.order)
	if s.apart {
		b = append(b, 1)
		b = binary.AppendUvarint(b, s.size)
		return append(b, s.digest[:]...)
	}
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(len(s.value)))
	return append(b, s.value...)
}

// decodeKeyRecord reads an unsealed key record. The siblings' values alias b.
func decodeKeyRecord(b []byte) (keyRecord, error) {
	var r keyRecord
	n, b, ok := cutUvarint(b)
	if !ok || n == 0 || len(b) == 0 || b[0] > formLarge {
		return r, errRecord
	}
	r.n, r.large = n, b[0] == formLarge
	b = b[1:]
	held := n
	if r.large {
		held = 1
	} else if n > maxInline {
		return r, errRecord
	}
	r.sibs = make([]sibling, held)
	for i := range r.sibs {
		if b, ok = cutSibling(b, &r.sibs[i]); !ok {
			return r, errRecord
		}
	}
	if len(b) != 0 {
		return r, errRecord
	}
	return r, nil
}

// winnerOf reads the first sibling of a key record, and their number.
func winnerOf(b []byte) (s sibling, n uint64, ok bool) {
	n, b, ok = cutUvarint(b)
	if !ok || n == 0 || len(b) == 0 {
		return s, 0, false
	}
	_, ok = cutSibling(b[1:], &s)
	return s, n, ok
}

// decodeSibling reads an unsealed sibling record. Its value aliases b.
func decodeSibling(b []byte) (sibling, error) {
	var s sibling
	if rest, ok := cutSibling(b, &s); !ok || len(rest) != 0 {
		return s, errRecord
	}
	return s, nil
}

func cutSibling(b []byte, s *sibling) (rest []byte, ok bool) {
	if len(b) < logLen {
		return nil, false
	}
	s.dot.Log = replication.LogID(b[:logLen])
	if s.dot.Seq, b, ok = cutUvarint(b[logLen:]); !ok || s.dot.Seq == 0 || len(b) < 17 {
		return nil, false
	}
	s.hlc = replication.HLC(binary.BigEndian.Uint64(b))
	s.order = binary.BigEndian.Uint64(b[8:])
	form := b[16]
	size, b, ok := cutUvarint(b[17:])
	switch {
	case !ok || form > 1:
		return nil, false
	case form == 1:
		if len(b) < hashLen || size <= inlineValue {
			return nil, false
		}
		s.apart, s.size, s.digest = true, size, replication.Hash(b[:hashLen])
		return b[hashLen:], true
	case size > inlineValue || size > uint64(len(b)):
		return nil, false
	}
	s.value = b[:size:size]
	return b[size:], true
}

// cutUvarint reads an unsigned varint in its shortest form.
func cutUvarint(b []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || (n > 1 && b[n-1] == 0) {
		return 0, nil, false
	}
	return v, b[n:], true
}

// logRecord is how far one log is applied.
type logRecord struct {
	seq  uint64           // of the newest operation applied
	hash replication.Hash // of the newest block that is applied whole
	// pend counts the pending records that name dots of this log.
	pend uint64
}

func appendLogRecord(b []byte, r *logRecord) []byte {
	b = binary.AppendUvarint(b, r.seq)
	b = append(b, r.hash[:]...)
	return binary.AppendUvarint(b, r.pend)
}

func decodeLogRecord(b []byte) (logRecord, error) {
	var r logRecord
	seq, b, ok := cutUvarint(b)
	if !ok || len(b) < hashLen {
		return r, errRecord
	}
	r.seq, r.hash = seq, replication.Hash(b[:hashLen])
	if r.pend, b, ok = cutUvarint(b[hashLen:]); !ok || len(b) != 0 {
		return r, errRecord
	}
	return r, nil
}

// cursor is how far a space is applied and what its state adds up to.
type cursor struct {
	arrival uint64 // of the newest block applied whole
	ops     uint64 // of that block, and changes by retreats since
	// part is the number of operations of the next block that are applied
	// already; not zero only between the transactions of one huge block, and
	// then no reader sees this state.
	part uint64
	tally
}

// tally is what a space's records add up to.
type tally struct {
	applied   uint64 // operations: the sum of the seqs of all logs
	keys      uint64 // keys with a sibling
	siblings  uint64
	conflicts uint64 // keys with more than one sibling
	digest    sum    // of all siblings (design 5.4)
}

func appendCursor(b []byte, c *cursor) []byte {
	for _, v := range []uint64{c.arrival, c.ops, c.part, c.applied, c.keys, c.siblings, c.conflicts} {
		b = binary.AppendUvarint(b, v)
	}
	d := c.digest.bytes()
	return append(b, d[:]...)
}

func decodeCursor(b []byte) (cursor, error) {
	var c cursor
	var ok bool
	for _, dst := range []*uint64{&c.arrival, &c.ops, &c.part, &c.applied, &c.keys, &c.siblings, &c.conflicts} {
		if *dst, b, ok = cutUvarint(b); !ok {
			return c, errRecord
		}
	}
	if len(b) != hashLen {
		return c, errRecord
	}
	c.digest = sumOf(replication.Hash(b))
	return c, nil
}
