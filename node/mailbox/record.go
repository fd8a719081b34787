package mailbox

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"vixp2p/routing"
)

type recordKind byte

const (
	recBegin recordKind = iota + 1
	recPutHeld
	recSetHops
	recDropHeld
	recPutSeen
	recDropSeen
	recPutInbox
	recDropInbox
	recRead
)

// record is one record of any kind; the fields that its kind has are set.
type record struct {
	kind   recordKind
	key    routing.Key
	hops   uint8
	via    routing.PeerKey
	number uint64 // order, arrival or read
	time   int64  // Unix ms
	id     [8]byte
	read   uint64
	data   []byte // message or text
	at     int    // where data begins in the payload
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// append encodes a record and tells where its data begins.
func (r *record) append(b []byte) ([]byte, int) {
	b = append(b, byte(r.kind))
	key := func() { b = append(append(b, r.key.From[:]...), r.key.ID[:]...) }
	number := func(n uint64) { b = binary.BigEndian.AppendUint64(b, n) }
	data := func() { b = append(binary.BigEndian.AppendUint32(b, uint32(len(r.data))), r.data...) }
	switch r.kind {
	case recBegin:
		b = append(b, r.id[:]...)
		number(r.number)
		number(r.read)
	case recPutHeld:
		key()
		b = append(append(b, r.hops), r.via[:]...)
		number(r.number)
		data()
	case recSetHops:
		key()
		b = append(append(b, r.hops), r.via[:]...)
	case recDropHeld, recDropSeen:
		key()
	case recPutSeen:
		key()
		number(uint64(r.time))
	case recPutInbox:
		number(r.number)
		key()
		number(uint64(r.time))
		data()
	case recDropInbox, recRead:
		number(r.number)
	}
	return b, len(b) - len(r.data)
}

var errRecord = errors.New("a record is not what was written")

// scanner reads the records of a payload.
type scanner struct {
	payload []byte
	at      int
	bad     bool
}

func (s *scanner) take(n int) []byte {
	if s.bad || n < 0 || n > len(s.payload)-s.at {
		s.bad = true
		return make([]byte, max(0, min(n, 64)))
	}
	b := s.payload[s.at : s.at+n]
	s.at += n
	return b
}

func (s *scanner) number() uint64 { return binary.BigEndian.Uint64(s.take(8)) }

func (s *scanner) key() (k routing.Key) {
	copy(k.From[:], s.take(32))
	copy(k.ID[:], s.take(16))
	return k
}

func (s *scanner) data(r *record) {
	n := binary.BigEndian.Uint32(s.take(4))
	r.at = s.at
	r.data = s.take(int(min(n, maxBatch)))
}

// next reads a record; ok is false at the end.
func (s *scanner) next() (r record, ok bool, err error) {
	if s.at == len(s.payload) {
		return r, false, nil
	}
	r.kind = recordKind(s.take(1)[0])
	switch r.kind {
	case recBegin:
		copy(r.id[:], s.take(8))
		r.number, r.read = s.number(), s.number()
	case recPutHeld:
		r.key, r.hops = s.key(), s.take(1)[0]
		copy(r.via[:], s.take(32))
		r.number = s.number()
		s.data(&r)
	case recSetHops:
		r.key, r.hops = s.key(), s.take(1)[0]
		copy(r.via[:], s.take(32))
	case recDropHeld, recDropSeen:
		r.key = s.key()
	case recPutSeen:
		r.key, r.time = s.key(), int64(s.number())
	case recPutInbox:
		r.number = s.number()
		r.key, r.time = s.key(), int64(s.number())
		s.data(&r)
	case recDropInbox, recRead:
		r.number = s.number()
	default:
		s.bad = true
	}
	if s.bad {
		return r, false, errRecord
	}
	return r, true, nil
}

// recordOf is an operation of the router as a record; those of the inbox are
// completed by their caller.
func recordOf(op routing.StoreOp) record {
	switch op := op.(type) {
	case routing.PutHeld:
		h := &op.Held
		return record{kind: recPutHeld, key: h.Msg.Key(), hops: h.Hops, via: h.Via, number: h.Order, data: h.Msg.Raw}
	case routing.SetHops:
		return record{kind: recSetHops, key: op.Key, hops: op.Hops, via: op.Via}
	case routing.DropHeld:
		return record{kind: recDropHeld, key: op.Key}
	case routing.PutSeen:
		return record{kind: recPutSeen, key: op.Key, time: op.Until.UnixMilli()}
	case routing.DropSeen:
		return record{kind: recDropSeen, key: op.Key}
	case routing.PutInbox:
		return record{kind: recPutInbox, key: op.Msg.Key(), time: int64(op.Msg.Created), data: op.Text}
	}
	return record{}
}

// Entry is a text in the inbox.
type Entry struct {
	// Arrival is its place in the order of arrival, from 1.
	Arrival uint64
	From    routing.PeerKey
	ID      routing.ID
	// Created is when its sender says that it wrote it.
	Created time.Time
	Text    []byte
}

// ErrDamaged: what is stored is not what was written.
var ErrDamaged = errors.New("the messages that are stored are damaged")

// DamageError says what is damaged.
type DamageError struct{ What string }

func (e *DamageError) Error() string { return ErrDamaged.Error() + ": " + e.What }

// Is matches ErrDamaged.
func (e *DamageError) Is(t error) bool { return t == ErrDamaged }
