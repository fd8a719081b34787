package wal

import (
	"encoding/binary"
	"hash/crc32"

	r "vixp2p/replication"
)

// First bytes of the keys; doc.go draws the layout.
const (
	kindArrival  = 'a'
	kindBlock    = 'b'
	kindCursor   = 'c'
	kindCursors  = 'C'
	kindFork     = 'f'
	kindIdentity = 'i'
	kindHead     = 'h'
	kindLog      = 'l'
	kindMeta     = 'm'
	kindLost     = 'd'
	kindTail     = 't'
	kindAside    = 'x'
	kindCut      = 'z'
	kindFreed    = 'n'
)

// allKinds are the kinds that a database may hold.
var allKinds = []byte{
	kindArrival, kindBlock, kindCursor, kindCursors, kindFork, kindIdentity,
	kindHead, kindLog, kindLost, kindMeta, kindTail, kindAside, kindCut, kindFreed,
}

var (
	keyHead     = []byte{kindHead}
	keyIdentity = []byte{kindIdentity}
)

// blockPrefix covers all blocks of a log.
func blockPrefix(num uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kindBlock}, num)
}

func blockKey(num, firstSeq uint64) []byte {
	k := make([]byte, 1, 17)
	k[0] = kindBlock
	k = binary.BigEndian.AppendUint64(k, num)
	return binary.BigEndian.AppendUint64(k, firstSeq)
}

func parseBlockKey(k []byte) (num, firstSeq uint64, ok bool) {
	if len(k) != 17 || k[0] != kindBlock && k[0] != kindAside && k[0] != kindCut {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(k[1:]), binary.BigEndian.Uint64(k[9:]), true
}

// asideKey is where a block waits whose predecessor was damaged.
func asideKey(num, firstSeq uint64) []byte {
	k := blockKey(num, firstSeq)
	k[0] = kindAside
	return k
}

func arrivalPrefix(space r.SpaceID) []byte {
	return append([]byte{kindArrival}, space[:]...)
}

func arrivalKey(space r.SpaceID, arrival uint64) []byte {
	k := make([]byte, 0, 25)
	k = append(k, kindArrival)
	k = append(k, space[:]...)
	return binary.BigEndian.AppendUint64(k, arrival)
}

func parseArrivalKey(k []byte) (space r.SpaceID, arrival uint64, ok bool) {
	if len(k) != 25 || k[0] != kindArrival {
		return space, 0, false
	}
	copy(space[:], k[1:])
	return space, binary.BigEndian.Uint64(k[17:]), true
}

func logKey(id r.LogID) []byte  { return append([]byte{kindLog}, id[:]...) }
func forkKey(id r.LogID) []byte { return append([]byte{kindFork}, id[:]...) }
func lostKey(id r.LogID) []byte { return append([]byte{kindLost}, id[:]...) }
func tailKey(id r.LogID) []byte { return append([]byte{kindTail}, id[:]...) }

func metaKey(name string) []byte { return append([]byte{kindMeta}, name...) }

func cursorsKey(peer r.OriginKey, instance r.Instance) []byte {
	return append(append([]byte{kindCursors}, peer[:]...), instance[:]...)
}

func parseCursorsKey(k []byte) (id cursorID) {
	k = k[1:]
	copy(id.instance[:], k[copy(id.peer[:], k):])
	return id
}

func cursorPrefix(num uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kindCursor}, num)
}

func cursorKey(num uint64, e *r.FrontierEntry) []byte {
	k := append(cursorPrefix(num), e.Log[:]...)
	if !e.Branch.IsZero() {
		k = append(k, e.Branch[:]...)
	}
	return k
}

const crcLen = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the CRC-32C (RFC 3720) over key and value.
func sum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// seal appends the checksum to a value.
func seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, sum(key, value))
}

// unseal checks and cuts off what seal appended.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - crcLen
	if n < 0 {
		return nil, problem("a record is too short for its checksum")
	}
	if binary.BigEndian.Uint32(sealed[n:]) != sum(key, sealed[:n]) {
		return nil, problem("a record does not match its checksum")
	}
	return sealed[:n:n], nil
}
