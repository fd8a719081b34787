package replication

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"
)

// Frontier is what a node holds of one space: an entry for each log, in the trie of
// design 6.3: 256 x 256 buckets by the first two bytes of SHA-256(LogID). A leaf is
// the hash of its entries sorted by (log, branch); an inner node hashes its 256
// children, 16 bytes of each; what is empty is zero. Base is not part of it: two
// nodes that hold the same positions are equal even if one has dropped its oldest
// blocks.
//
// A Frontier does not change: With makes another one that shares all that is equal,
// so that many sessions can stand on frontiers of different times at the cost of
// what changed between. Its digests are computed when it is made. nil is the empty
// one. It is safe for concurrent use.
type Frontier struct {
	root  Hash
	count int
	inner [256]*innerNode // nil: empty
}

// innerNode is never changed, and never empty.
type innerNode struct {
	digest  ChildDigest
	count   int // entries
	present ChildSet
	leaves  []leafNode // of the children that are present, ascending
}

type leafNode struct {
	digest  ChildDigest
	entries []FrontierEntry // ascending by (log, branch); at least one
}

const (
	domainFrontierLeaf  = "vix/frontier/leaf/1"
	domainFrontierInner = "vix/frontier/inner/1"
	childDigestBytes    = 16
	leafEntryBytes      = 32 + 32 + 8 + 32
)

// ChildDigest is what a node of the trie keeps of a child: the first bytes of its
// hash; zero if it is empty.
type ChildDigest [childDigestBytes]byte

// ChildSet is a set of the 256 children of a node: child i is bit i%8 of byte i/8.
type ChildSet [32]byte

// Add adds a child.
func (s *ChildSet) Add(i byte) { s[i/8] |= 1 << (i % 8) }

// Remove removes a child.
func (s *ChildSet) Remove(i byte) { s[i/8] &^= 1 << (i % 8) }

// Has tells whether a child is in the set.
func (s *ChildSet) Has(i byte) bool { return s[i/8]&(1<<(i%8)) != 0 }

// Len is how many children are in the set.
func (s *ChildSet) Len() (n int) {
	for w := range 4 {
		n += bits.OnesCount64(s.word(w))
	}
	return n
}

// Empty tells whether no child is in the set.
func (s *ChildSet) Empty() bool { return *s == ChildSet{} }

// All ranges over the children, ascending.
func (s *ChildSet) All() iter.Seq[byte] {
	return func(yield func(byte) bool) {
		for w := range 4 {
			for rest := s.word(w); rest != 0; rest &= rest - 1 {
				if !yield(byte(64*w + bits.TrailingZeros64(rest))) {
					return
				}
			}
		}
	}
}

// rank is how many children below i are in the set.
func (s *ChildSet) rank(i byte) (n int) {
	w := int(i) / 64
	for k := range w {
		n += bits.OnesCount64(s.word(k))
	}
	return n + bits.OnesCount64(s.word(w)&(1<<(i%64)-1))
}

func (s *ChildSet) word(w int) uint64 { return binary.LittleEndian.Uint64(s[8*w:]) }

var allChildren = ChildSet(bytes.Repeat([]byte{0xff}, 32))

// bucketOf is where a log stands in the trie: the child of the root in the high
// byte, the leaf below it in the low one.
func bucketOf(log LogID) uint16 {
	sum := sha256.Sum256(log[:])
	return binary.BigEndian.Uint16(sum[:2])
}

// NewFrontier is the frontier of these entries, in any order. Of several of one log
// and branch the highest counts, one without a position not at all.
func NewFrontier(entries []FrontierEntry) *Frontier {
	var none *Frontier
	return none.With(entries)
}

// Root is the digest of all: the root of the trie, zero if it is empty.
func (f *Frontier) Root() Hash {
	if f == nil {
		return Hash{}
	}
	return f.root
}

// Len is how many entries it has.
func (f *Frontier) Len() int {
	if f == nil {
		return 0
	}
	return f.count
}

// Position is where the trunk of a log ends; zero if it is not held.
func (f *Frontier) Position(log LogID) Position { return f.trunk(log).Pos }

// trunk is the entry of the trunk of a log.
func (f *Frontier) trunk(log LogID) FrontierEntry {
	for _, e := range f.leaf(bucketOf(log)) {
		if e.Log == log && e.Branch.IsZero() {
			return e
		}
	}
	return FrontierEntry{}
}

// All ranges over the entries, bucket by bucket.
func (f *Frontier) All() iter.Seq[FrontierEntry] {
	return func(yield func(FrontierEntry) bool) {
		if f == nil {
			return
		}
		for _, n := range f.inner {
			if n == nil {
				continue
			}
			for _, l := range n.leaves {
				for _, e := range l.entries {
					if !yield(e) {
						return
					}
				}
			}
		}
	}
}

// at is an inner node; nil if it is empty.
func (f *Frontier) at(i byte) *innerNode {
	if f == nil {
		return nil
	}
	return f.inner[i]
}

// leaf is the entries of a bucket.
func (f *Frontier) leaf(bucket uint16) []FrontierEntry {
	if f == nil {
		return nil
	}
	return f.inner[bucket>>8].leaf(byte(bucket))
}

func (n *innerNode) leaf(i byte) []FrontierEntry {
	if n == nil || !n.present.Has(i) {
		return nil
	}
	return n.leaves[n.present.rank(i)].entries
}

// child is the digest of a leaf.
func (n *innerNode) child(i byte) ChildDigest {
	if n == nil || !n.present.Has(i) {
		return ChildDigest{}
	}
	return n.leaves[n.present.rank(i)].digest
}

// len is how many entries the node has.
func (n *innerNode) len() int {
	if n == nil {
		return 0
	}
	return n.count
}

// change is an entry on its way to its bucket.
type change struct {
	bucket uint16
	e      *FrontierEntry
}

func (a change) compare(b change) int {
	switch {
	case a.bucket != b.bucket:
		return int(a.bucket) - int(b.bucket)
	case a.e.Log != b.e.Log:
		return a.e.Log.Compare(b.e.Log)
	}
	return bytes.Compare(a.e.Branch[:], b.e.Branch[:])
}

// With is the frontier after these changes, in any order: each replaces the entry of
// its log and branch, or removes it if it has no position. Of several of one log and
// branch the highest counts.
func (f *Frontier) With(changes []FrontierEntry) *Frontier {
	if len(changes) == 0 {
		return f
	}
	list := make([]change, len(changes))
	for i := range changes {
		list[i] = change{bucketOf(changes[i].Log), &changes[i]}
	}
	slices.SortFunc(list, func(a, b change) int {
		if c := a.compare(b); c != 0 {
			return c
		}
		return -cmpSeq(a.e.Pos, b.e.Pos)
	})
	list = slices.CompactFunc(list, func(a, b change) bool { return a.compare(b) == 0 })
	out := &Frontier{}
	if f != nil {
		*out = *f
	}
	m := merger{store: make([]FrontierEntry, 0, len(list))}
	for len(list) > 0 {
		i, n := list[0].bucket>>8, 1
		for n < len(list) && list[n].bucket>>8 == i {
			n++
		}
		old := out.inner[i]
		out.inner[i] = m.inner(old, list[:n])
		out.count += out.inner[i].len() - old.len()
		list = list[n:]
	}
	if out.count == 0 {
		return nil
	}
	m.buf = appendNode(m.buf[:0], domainFrontierInner, 256*childDigestBytes)
	for _, n := range out.inner {
		var d ChildDigest
		if n != nil {
			d = n.digest
		}
		m.buf = append(m.buf, d[:]...)
	}
	out.root = sha256.Sum256(m.buf)
	return out
}

func cmpSeq(a, b Position) int {
	switch {
	case a.Seq < b.Seq:
		return -1
	case a.Seq > b.Seq:
		return 1
	}
	return 0
}

// merger makes nodes out of old ones and changes.
type merger struct {
	buf   []byte          // what is hashed
	store []FrontierEntry // of new leaves, one after the other
}

// inner is a node after changes of its buckets; nil if nothing is left.
func (m *merger) inner(old *innerNode, list []change) *innerNode {
	if old == nil {
		old = &innerNode{}
	}
	n := &innerNode{leaves: make([]leafNode, 0, min(len(old.leaves)+len(list), 256))}
	add := func(i byte, l leafNode) {
		if len(l.entries) > 0 {
			n.present.Add(i)
			n.leaves = append(n.leaves, l)
			n.count += len(l.entries)
		}
	}
	kept := 0 // leaves of old that are dealt with
	for i := range old.present.All() {
		for len(list) > 0 && byte(list[0].bucket) < i {
			list = m.leaf(list, nil, add)
		}
		if len(list) > 0 && byte(list[0].bucket) == i {
			list = m.leaf(list, old.leaves[kept].entries, add)
		} else {
			add(i, old.leaves[kept])
		}
		kept++
	}
	for len(list) > 0 {
		list = m.leaf(list, nil, add)
	}
	if n.count == 0 {
		return nil
	}
	m.buf = appendNode(m.buf[:0], domainFrontierInner, 256*childDigestBytes)
	start := len(m.buf)
	m.buf = append(m.buf, make([]byte, 256*childDigestBytes)...)
	k := 0
	for i := range n.present.All() {
		copy(m.buf[start+int(i)*childDigestBytes:], n.leaves[k].digest[:])
		k++
	}
	h := sha256.Sum256(m.buf)
	n.digest = ChildDigest(h[:])
	return n
}

// leaf adds the bucket of the first changes after these, and returns the others.
func (m *merger) leaf(list []change, old []FrontierEntry, add func(byte, leafNode)) (rest []change) {
	bucket, from := list[0].bucket, len(m.store)
	for len(list) > 0 && list[0].bucket == bucket {
		for len(old) > 0 && list[0].compare(change{bucket, &old[0]}) > 0 {
			m.store = append(m.store, old[0])
			old = old[1:]
		}
		if len(old) > 0 && list[0].compare(change{bucket, &old[0]}) == 0 {
			old = old[1:]
		}
		if list[0].e.Pos.Seq > 0 {
			m.store = append(m.store, *list[0].e)
		}
		list = list[1:]
	}
	m.store = append(m.store, old...)
	l := leafNode{entries: m.store[from:len(m.store):len(m.store)]}
	m.buf = appendNode(m.buf[:0], domainFrontierLeaf, len(l.entries)*leafEntryBytes)
	for i := range l.entries {
		m.buf = appendLeafEntry(m.buf, &l.entries[i])
	}
	h := sha256.Sum256(m.buf)
	l.digest = ChildDigest(h[:])
	add(byte(bucket), l)
	return list
}

// hash is that of the node, of which the digest among its parent's children is the first
// bytes.
func (n *FrontierNode) hash() Hash {
	const size = 256 * childDigestBytes
	b := appendNode(make([]byte, 0, size+64), domainFrontierInner, size)
	children := b[len(b) : len(b)+size]
	k := 0
	for i := range n.Present.All() {
		copy(children[int(i)*childDigestBytes:], n.Digests[k][:])
		k++
	}
	return sha256.Sum256(b[:len(b)+size])
}

// appendNode begins what HashParts hashes for one part of size bytes.
func appendNode(b []byte, domain string, size int) []byte {
	b = binary.AppendUvarint(b, uint64(len(domain)))
	b = append(b, domain...)
	return binary.AppendUvarint(b, uint64(size))
}

func appendLeafEntry(b []byte, e *FrontierEntry) []byte {
	b = append(b, e.Log[:]...)
	b = append(b, e.Branch[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Pos.Seq)
	return append(b, e.Pos.Hash[:]...)
}
