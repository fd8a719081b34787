package kv

import (
	"bytes"
	"testing"

	"vixp2p/replication"
)

// FuzzViewRecord feeds bytes to every decoder of the view's records: none may
// panic, and what one accepts has one encoding.
func FuzzViewRecord(f *testing.F) {
	small := sibling{dot: replication.Dot{Log: replication.LogID{1}, Seq: 300}, order: 5, hlc: 4, value: []byte("value")}
	apart := sibling{dot: replication.Dot{Seq: 1}, order: 1, hlc: 1, apart: true, size: inlineValue + 1, digest: replication.Hash{7}}
	f.Add(appendKeyRecord(nil, &keyRecord{n: 1, sibs: []sibling{small}}))
	f.Add(appendKeyRecord(nil, &keyRecord{n: 2, sibs: []sibling{small, apart}}))
	f.Add(appendKeyRecord(nil, &keyRecord{n: 99, sibs: []sibling{apart}, large: true}))
	f.Add(appendSibling(nil, &small))
	f.Add(appendSibling(nil, &apart))
	f.Add(appendLogRecord(nil, &logRecord{seq: 1 << 40, hash: replication.Hash{1}, pend: 3}))
	f.Add(appendCursor(nil, &cursor{arrival: 1, ops: 2, part: 3, tally: tally{keys: 4, siblings: 5, conflicts: 6, digest: sum{7, 8, 9, 10}}}))
	f.Add(seal([]byte("key"), []byte("record")))
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(what string, again []byte) {
			if !bytes.Equal(again, b) {
				t.Errorf("%s %x encodes as %x", what, b, again)
			}
		}
		if r, err := decodeKeyRecord(b); err == nil {
			same("key record", appendKeyRecord(nil, &r))
		}
		if s, err := decodeSibling(b); err == nil {
			same("sibling", appendSibling(nil, &s))
		}
		if l, err := decodeLogRecord(b); err == nil {
			same("log record", appendLogRecord(nil, &l))
		}
		if c, err := decodeCursor(b); err == nil {
			same("cursor", appendCursor(nil, &c))
		}
		if r, err := unseal([]byte("key"), b); err == nil {
			same("sealed record", seal([]byte("key"), r))
		}
	})
}
