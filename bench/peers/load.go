package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"strconv"
)

// opBytes is the payload of an operation.
const opBytes = 256

// load is operations to write: the i-th has the i-th payload.
type load struct{ ops, batch int }

// batch is operations that are written together; the first has number from.
type batch struct {
	from     int
	payloads [][]byte
}

// batches makes the batches of a load, from an operation on.
func (l load) batches(from int) iter.Seq[batch] {
	return func(yield func(batch) bool) {
		for end := from + l.ops; from < end; from += l.batch {
			b := batch{from, make([][]byte, min(l.batch, end-from))}
			slab := make([]byte, opBytes*len(b.payloads))
			for i := range b.payloads {
				b.payloads[i] = slab[i*opBytes : (i+1)*opBytes : (i+1)*opBytes]
				fillPayload(b.payloads[i], from+i)
			}
			if !yield(b) {
				return
			}
		}
	}
}

// fillPayload makes the i-th payload: bytes that no compressor shrinks, and no other
// operation has (SplitMix64).
func fillPayload(b []byte, i int) {
	state := uint64(i) << 32
	for ; len(b) >= 8; b = b[8:] {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(b, z^z>>31)
	}
}

// keyOf is the key of the i-th operation, in systems with keys.
func keyOf(i int) string { return "op/" + strconv.Itoa(i) }

// numberOf is the operation of a key.
func numberOf(key string) (int, error) {
	var i int
	if _, err := fmt.Sscanf(key, "op/%d", &i); err != nil || keyOf(i) != key {
		return 0, fmt.Errorf("there is a key %q that was not written", key)
	}
	return i, nil
}

// check is whether a peer holds what was written: each operation once, byte for byte.
type check struct {
	seen []bool
	want [opBytes]byte
	held int
}

func newCheck(ops int) *check { return &check{seen: make([]bool, ops)} }

// add takes an operation that the peer holds.
func (c *check) add(i int, payload []byte) error {
	if i < 0 || i >= len(c.seen) {
		return fmt.Errorf("the peer holds operation %d, which was not written", i)
	}
	if c.seen[i] {
		return fmt.Errorf("the peer holds operation %d twice", i)
	}
	if fillPayload(c.want[:], i); !bytes.Equal(payload, c.want[:]) {
		return fmt.Errorf("the peer holds other bytes for operation %d than were written", i)
	}
	c.seen[i] = true
	c.held++
	return nil
}

// done is an error unless all are held.
func (c *check) done() error {
	if c.held != len(c.seen) {
		return fmt.Errorf("the peer holds %d operations of %d when it is said to hold all", c.held, len(c.seen))
	}
	return nil
}
