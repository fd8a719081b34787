package kv

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"vixp2p/replication"
)

// domainView separates the hash of a sibling (design 5.4).
const domainView = "vix/view/1"

// sum is a number modulo 2^256, least significant limb first. Addition commutes,
// so that a sum of hashes does not depend on the order in which they came.
type sum [4]uint64

// sumOf reads a hash as a big-endian number.
func sumOf(h replication.Hash) sum {
	return sum{
		binary.BigEndian.Uint64(h[24:]), binary.BigEndian.Uint64(h[16:]),
		binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint64(h[0:]),
	}
}

func (s sum) bytes() (h replication.Hash) {
	for i, limb := range s {
		binary.BigEndian.PutUint64(h[24-8*i:], limb)
	}
	return h
}

func (s *sum) add(h replication.Hash) {
	o, carry := sumOf(h), uint64(0)
	for i := range s {
		s[i], carry = bits.Add64(s[i], o[i], carry)
	}
}

func (s *sum) sub(h replication.Hash) {
	o, borrow := sumOf(h), uint64(0)
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], o[i], borrow)
	}
}

// hasher computes the hash of siblings:
//
//	SHA-256 HashParts("vix/view/1", key, log, seq, order, value)
//
// with seq and order as 8 bytes, most significant first. It keeps its buffer and
// is not safe for concurrent use.
type hasher struct{ buf []byte }

func (h *hasher) hash(key []byte, d replication.Dot, order uint64, value []byte) replication.Hash {
	var seq, ord [8]byte
	binary.BigEndian.PutUint64(seq[:], d.Seq)
	binary.BigEndian.PutUint64(ord[:], order)
	b := h.buf[:0]
	b = append(binary.AppendUvarint(b, uint64(len(domainView))), domainView...)
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	b = append(binary.AppendUvarint(b, uint64(logLen)), d.Log[:]...)
	b = append(append(b, 8), seq[:]...)
	b = append(append(b, 8), ord[:]...)
	b = append(binary.AppendUvarint(b, uint64(len(value))), value...)
	h.buf = b
	return sha256.Sum256(b)
}

// sibling is the hash of a sibling of key: the known one, if it is.
func (h *hasher) sibling(key []byte, s *sibling) replication.Hash {
	if s.digest != (replication.Hash{}) {
		return s.digest
	}
	return h.hash(key, s.dot, s.order, s.value)
}
