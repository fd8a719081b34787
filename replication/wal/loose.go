package wal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// Loose blocks are whole in a value log, and no table or memtable that can be
// read names them: damage took the name, or they were never committed, and
// another block may have taken their seq since. The hash chain tells which of
// them continue what is kept, and a signature at the end of the chain that they
// are their origin's. That they were acknowledged is not required: the epoch ends
// with the repair anyway.

// looseBlock is a loose block without its body.
type looseBlock struct {
	link
	log     r.LogID
	genesis *r.Genesis // of a first block
	sig     []byte
	proven  bool // a signature at or after it was verified
}

// looseKey is where a loose block is kept while db.new is made. Of two blocks
// of one seq and version the later written one stays.
func looseKey(num, seq, version uint64) []byte {
	return binary.BigEndian.AppendUint64(blockKeyOf(kindLoose, num, seq), version)
}

// sealLoose is what is stored there: block and arrival number.
func sealLoose(sb storedBlock) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(sb.data), sb.arrival)
}

func unsealLoose(value []byte) storedBlock {
	n := max(len(value)-8, 0)
	sb := storedBlock{data: value[:n:n]}
	if n > 0 {
		sb.arrival = binary.BigEndian.Uint64(value[n:])
	}
	return sb
}

// looseBlocks are those of one log.
type looseBlocks struct {
	byEnd map[r.Position]*looseBlock
	all   []*looseBlock // the highest end first, of two the later written
}

// looseOf reads the loose blocks under a log's number.
func (m *mender) looseOf(txn *badger.Txn, num uint64) (looseBlocks, error) {
	x := looseBlocks{byEnd: map[r.Position]*looseBlock{}}
	err := each(txn, blockKeyOf(kindLoose, num, 0)[:9], nil, func(key, value []byte) (bool, error) {
		sb := unsealLoose(value)
		b, rest, err := r.ParseBlock(sb.data)
		if err != nil || len(rest) > 0 || !b.HasBody() {
			return true, nil
		}
		l := &looseBlock{link: linkOf(held{key: bytes.Clone(key), b: b, sb: sb}), log: b.Header.Log, sig: bytes.Clone(b.Sig)}
		if g := b.Header.Genesis; g != nil {
			if g.Network != m.o.Network {
				return true, nil
			}
			m.linked(g)
			own := *g
			own.Grant = nil // aliases value
			l.genesis = &own
		}
		x.byEnd[l.end] = l
		return true, nil
	})
	for _, l := range x.byEnd {
		x.all = append(x.all, l)
	}
	slices.SortFunc(x.all, func(a, b *looseBlock) int {
		return cmp.Or(cmp.Compare(b.end.Seq, a.end.Seq), cmp.Compare(b.arrival, a.arrival), bytes.Compare(b.key, a.key))
	})
	return x, err
}

// path returns the loose blocks that lead from one position to another,
// ascending; nil if they do not.
func (x *looseBlocks) path(from, to r.Position) []*looseBlock {
	var path []*looseBlock
	for to != from {
		b := x.byEnd[to]
		if b == nil || to.Seq <= from.Seq {
			return nil
		}
		path = append(path, b)
		to = b.prev
	}
	slices.Reverse(path)
	return path
}

// longest returns the loose blocks that lead from a position the furthest and
// end in a signature of their origin, but not beyond limit (zero: none) except
// exactly to it.
func (x *looseBlocks) longest(l *logState, from, limit r.Position) []*looseBlock {
	dead := map[r.Position]bool{}
	for _, end := range x.all {
		if limit != (r.Position{}) && end.end.Seq >= limit.Seq && end.end != limit || !end.signed || dead[end.end] {
			continue
		}
		path := x.path(from, end.end)
		if path == nil {
			for b := end; b != nil && !dead[b.end]; b = x.byEnd[b.prev] {
				dead[b.end] = true
			}
			continue
		}
		origin, id := l.origin, l.id
		if g := path[0].genesis; g != nil {
			origin, id = g.Origin, path[0].log
		}
		if (l.id == id || l.id == (r.LogID{})) && end.log == id && r.VerifyBlockSig(origin, end.end.Hash, end.sig) {
			return path
		}
	}
	return nil
}

// provenAfter returns the loose blocks of a log beyond its tip whose chain leads
// to a signature of its origin, one of each seq.
func (x *looseBlocks) provenAfter(l *logState) []*looseBlock {
	var out []*looseBlock
	taken := map[uint64]bool{}
	for _, end := range x.all {
		if end.log != l.id || !end.signed || end.proven || !r.VerifyBlockSig(l.origin, end.end.Hash, end.sig) {
			continue
		}
		for b := end; b != nil && !b.proven && b.prev.Seq >= l.tip.Seq; b = x.byEnd[b.prev] {
			b.proven = true
			if !taken[b.prev.Seq] {
				taken[b.prev.Seq] = true
				out = append(out, b)
			}
		}
	}
	return out
}
