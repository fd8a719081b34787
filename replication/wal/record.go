package wal

import (
	"encoding/binary"
	"math/bits"
	"time"

	r "vixp2p/replication"
)

// head is the record that every commit rewrites. Its hash goes into the
// witness; its digest covers every record but blocks, arrivals and the entries
// of cursors, so that an old version that damage brings back to light is found.
type head struct {
	commits  uint64 // commits so far; never reused
	arrivals uint64 // newest arrival number given; never reused
	logs     uint64 // newest local log number given; never reused
	cursors  uint64 // newest cursor number given; never reused
	digest   digest
	prev     r.Hash // of the head before
}

const headLen = 4*8 + 32 + 32

func (h *head) encode() []byte {
	b := make([]byte, 0, headLen+crcLen)
	for _, v := range []uint64{h.commits, h.arrivals, h.logs, h.cursors} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = append(b, h.digest.bytes()...)
	return append(b, h.prev[:]...)
}

func decodeHead(b []byte) (head, error) {
	var h head
	if len(b) != headLen {
		return h, problem("the store head has another length")
	}
	for i, v := range []*uint64{&h.commits, &h.arrivals, &h.logs, &h.cursors} {
		*v = binary.BigEndian.Uint64(b[8*i:])
	}
	h.digest = digestOf(b[32:64])
	copy(h.prev[:], b[64:])
	return h, nil
}

func (h *head) hash() r.Hash { return r.HashParts("vix/wal/head/1", h.encode()) }

// digest is a sum modulo 2^256 of hashes, one per record (Clarke et al.,
// "Incremental Multiset Hash Functions", 2003). It finds damage; it is no
// defence against someone who chooses the records.
type digest [4]uint64

func digestOf(b []byte) digest {
	var d digest
	for i := range d {
		d[i] = binary.BigEndian.Uint64(b[24-8*i:])
	}
	return d
}

func (d digest) bytes() []byte {
	b := make([]byte, 0, 32)
	for i := range d {
		b = binary.BigEndian.AppendUint64(b, d[len(d)-1-i])
	}
	return b
}

func recordHash(key, value []byte) digest {
	h := r.HashParts("vix/wal/record/1", key, value)
	return digestOf(h[:])
}

func (d *digest) add(o digest) {
	var carry uint64
	for i := range d {
		d[i], carry = bits.Add64(d[i], o[i], carry)
	}
}

func (d *digest) sub(o digest) {
	var borrow uint64
	for i := range d {
		d[i], borrow = bits.Sub64(d[i], o[i], borrow)
	}
}

// identity is what a directory knows about itself (design 4.7); rewritten at
// every open and when an epoch ends.
type identity struct {
	network  r.NetworkID
	self     r.OriginKey
	instance r.Instance
	epoch    r.Epoch // under which this directory appends
	boot     string  // boot id of the open that wrote this; empty where none
	lease    fileProof
	nonce    [16]byte // content of the lease
	witness  uint64   // inode of the witness
	relaxed  bool     // commits of that open are not synced
}

// fileProof tells one incarnation of a file from every copy of it.
type fileProof struct {
	inode uint64
	ctime int64 // nanoseconds
}

func (i *identity) encode() []byte {
	var b []byte
	for _, p := range [][]byte{i.network[:], i.self[:], i.instance[:], i.epoch[:], i.nonce[:]} {
		b = append(b, p...)
	}
	for _, v := range []uint64{i.lease.inode, uint64(i.lease.ctime), i.witness} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	var flags byte
	if i.relaxed {
		flags |= identityRelaxed
	}
	return append(append(b, flags), i.boot...)
}

// identityRelaxed is the flag of identity.relaxed.
const identityRelaxed = 1

func decodeIdentity(b []byte) (identity, error) {
	var i identity
	const fixed = 32 + 32 + 16 + 16 + 16 + 3*8 + 1
	if len(b) < fixed {
		return i, problem("the identity record is too short")
	}
	for _, p := range [][]byte{i.network[:], i.self[:], i.instance[:], i.epoch[:], i.nonce[:]} {
		b = b[copy(p, b):]
	}
	i.lease.inode = binary.BigEndian.Uint64(b)
	i.lease.ctime = int64(binary.BigEndian.Uint64(b[8:]))
	i.witness = binary.BigEndian.Uint64(b[16:])
	i.relaxed = b[24]&identityRelaxed != 0
	i.boot = string(b[25:])
	return i, nil
}

// A log's record. Flags:
const (
	flagForked = 1 << iota // a fork proof is stored
	flagTail               // headers beyond the tip are stored
	flagAside              // blocks beyond the tip wait for what damage took
	flagCut                // a cut set blocks aside: its record has logCut; only stored
)

const (
	logLen = 8 + 16 + 32 + 16 + 8 + 8 + 32 + 8 + 8 + 8 + 8 + 1
	logCut = 3 * 8 // what follows where a cut set blocks aside
)

func (l *logState) encode() []byte {
	b := make([]byte, 0, logLen+logCut+crcLen)
	b = binary.BigEndian.AppendUint64(b, l.num)
	b = append(b, l.space.id[:]...)
	b = append(b, l.origin[:]...)
	b = append(b, l.epoch[:]...)
	b = binary.BigEndian.AppendUint64(b, l.base)
	b = binary.BigEndian.AppendUint64(b, l.tip.Seq)
	b = append(b, l.tip.Hash[:]...)
	for _, v := range []uint64{uint64(l.lastHLC), l.blocks, l.bytes, l.arrival} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	if l.cut == nil {
		return append(b, l.flags)
	}
	b = append(b, l.flags|flagCut)
	for _, v := range []uint64{l.cut.end, uint64(l.cut.hlc), uint64(l.cut.since)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

// decodeLog leaves the space to the caller.
func decodeLog(id r.LogID, b []byte) (*logState, r.SpaceID, error) {
	var space r.SpaceID
	if n := len(b); n != logLen && n != logLen+logCut || (b[logLen-1]&flagCut != 0) != (n > logLen) {
		return nil, space, problem("a log record has another length")
	}
	l := &logState{id: id}
	l.num = binary.BigEndian.Uint64(b)
	b = b[8:]
	for _, p := range [][]byte{space[:], l.origin[:], l.epoch[:]} {
		b = b[copy(p, b):]
	}
	l.base = binary.BigEndian.Uint64(b)
	l.tip.Seq = binary.BigEndian.Uint64(b[8:])
	copy(l.tip.Hash[:], b[16:])
	b = b[48:]
	l.lastHLC = r.HLC(binary.BigEndian.Uint64(b))
	l.blocks = binary.BigEndian.Uint64(b[8:])
	l.bytes = binary.BigEndian.Uint64(b[16:])
	l.arrival = binary.BigEndian.Uint64(b[24:])
	l.flags = b[32] &^ flagCut
	if b = b[33:]; len(b) > 0 {
		l.cut = &cutState{
			end: binary.BigEndian.Uint64(b), hlc: r.HLC(binary.BigEndian.Uint64(b[8:])),
			since: int64(binary.BigEndian.Uint64(b[16:])),
		}
	}
	return l, space, nil
}

// A stored block is its bytes and a trailer: the log's bytes up to its end, its
// arrival number, the checksum over key and value.
const trailerLen = 8 + 8 + crcLen

// storedBlock is a block as read from the store, its checksum proven.
type storedBlock struct {
	data    []byte // as sent
	through uint64 // bytes of the log up to this block's end
	arrival uint64
}

func sealBlock(key, data []byte, through, arrival uint64) []byte {
	data = binary.BigEndian.AppendUint64(data, through)
	data = binary.BigEndian.AppendUint64(data, arrival)
	return seal(key, data)
}

func unsealBlock(key, value []byte) (storedBlock, error) {
	b, err := unseal(key, value)
	if err != nil {
		return storedBlock{}, err
	}
	n := len(b) - 16
	if n < 0 {
		return storedBlock{}, problem("a block is too short for its trailer")
	}
	return storedBlock{
		data:    b[:n:n],
		through: binary.BigEndian.Uint64(b[n:]),
		arrival: binary.BigEndian.Uint64(b[n+8:]),
	}, nil
}

// arrivalRecord points from the arrival index to a block. prev is the arrival
// number before in the same space, so that a lost entry shows.
type arrivalRecord struct{ num, firstSeq, prev uint64 }

func (a arrivalRecord) encode() []byte {
	b := make([]byte, 0, 3*8+crcLen)
	for _, v := range []uint64{a.num, a.firstSeq, a.prev} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func decodeArrival(b []byte) (arrivalRecord, error) {
	if len(b) != 3*8 {
		return arrivalRecord{}, problem("an arrival record has another length")
	}
	return arrivalRecord{
		num:      binary.BigEndian.Uint64(b),
		firstSeq: binary.BigEndian.Uint64(b[8:]),
		prev:     binary.BigEndian.Uint64(b[16:]),
	}, nil
}

// A log's loss, the seq up to which it was held, and what cuts freed are a number.
func encodeCount(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func decodeCount(b []byte) uint64 {
	if len(b) != 8 {
		return 0 // nothing writes it
	}
	return binary.BigEndian.Uint64(b)
}

// cursorHead leads the entries of one peer instance.
type cursorHead struct {
	num     uint64
	updated time.Time
	entries digest // over all entries
}

func (c *cursorHead) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, c.num)
	b = binary.BigEndian.AppendUint64(b, uint64(c.updated.UnixNano()))
	return append(b, c.entries.bytes()...)
}

func decodeCursorHead(b []byte) (cursorHead, error) {
	if len(b) != 8+8+32 {
		return cursorHead{}, problem("a cursor record has another length")
	}
	return cursorHead{
		num:     binary.BigEndian.Uint64(b),
		updated: time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))),
		entries: digestOf(b[16:]),
	}, nil
}

// A cursor's entry: base, seq, hash; log and branch are in the key.
func encodeCursorEntry(e *r.FrontierEntry) []byte {
	b := binary.BigEndian.AppendUint64(nil, e.Base)
	b = binary.BigEndian.AppendUint64(b, e.Pos.Seq)
	return append(b, e.Pos.Hash[:]...)
}

func decodeCursorEntry(key, b []byte) (r.FrontierEntry, error) {
	var e r.FrontierEntry
	id := key[min(len(key), 9):]
	if len(b) != 8+8+32 || (len(id) != 32 && len(id) != 64) {
		return e, problem("a cursor entry has another length")
	}
	copy(e.Log[:], id)
	copy(e.Branch[:], id[32:])
	e.Base = binary.BigEndian.Uint64(b)
	e.Pos.Seq = binary.BigEndian.Uint64(b[8:])
	copy(e.Pos.Hash[:], b[16:])
	return e, nil
}
