package replication

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

func frontier(n int) []FrontierEntry {
	entries := make([]FrontierEntry, n)
	for i := range entries {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(i))
		entries[i] = FrontierEntry{
			Log: sha256.Sum256(b[:]), Base: 1, Pos: Position{Seq: uint64(i%7 + 1), Hash: sha256.Sum256(b[:4])},
		}
	}
	return entries
}

// naiveRoot is the trie of design 6.3 built in the plainest way.
func naiveRoot(entries []FrontierEntry) Hash {
	if len(entries) == 0 {
		return Hash{}
	}
	node := func(domain string, children [][]byte) Hash {
		var all []byte
		for _, c := range children {
			all = append(all, c...)
		}
		return HashParts(domain, all)
	}
	var top [][]byte
	for a := range 256 {
		var inner [][]byte
		empty := true
		for b := range 256 {
			var leaf []FrontierEntry
			for _, e := range entries {
				if sum := sha256.Sum256(e.Log[:]); int(sum[0]) == a && int(sum[1]) == b {
					leaf = append(leaf, e)
				}
			}
			child := make([]byte, 16)
			if len(leaf) > 0 {
				empty = false
				slices.SortFunc(leaf, func(x, y FrontierEntry) int {
					return slices.Compare(slices.Concat(x.Log[:], x.Branch[:]), slices.Concat(y.Log[:], y.Branch[:]))
				})
				var parts [][]byte
				for _, e := range leaf {
					parts = append(parts, e.Log[:], e.Branch[:], binary.BigEndian.AppendUint64(nil, e.Pos.Seq), e.Pos.Hash[:])
				}
				h := node(domainFrontierLeaf, parts)
				copy(child, h[:])
			}
			inner = append(inner, child)
		}
		child := make([]byte, 16)
		if !empty {
			h := node(domainFrontierInner, inner)
			copy(child, h[:])
		}
		top = append(top, child)
	}
	return node(domainFrontierInner, top)
}

func TestFrontierRootIsTheTrie(t *testing.T) {
	for _, n := range []int{0, 1, 2, 40} {
		e := frontier(n)
		if n > 1 { // two branches of one log share a leaf
			b := e[0]
			b.Branch = Hash{1}
			e = append(e, b)
		}
		if FrontierRoot(e) != naiveRoot(e) {
			t.Errorf("%d entries: not the root of the trie", n)
		}
	}
}

func TestFrontierRootDoesNotDependOnOrder(t *testing.T) {
	e := frontier(500)
	want := FrontierRoot(e)
	r := rand.New(rand.NewPCG(1, 1))
	for range 10 {
		r.Shuffle(len(e), func(i, j int) { e[i], e[j] = e[j], e[i] })
		before := slices.Clone(e)
		if FrontierRoot(e) != want {
			t.Fatal("another order gives another root")
		}
		if !slices.Equal(e, before) {
			t.Fatal("the caller's entries were sorted")
		}
	}
}

func TestFrontierRootSeesEveryChange(t *testing.T) {
	e := frontier(100)
	roots := map[Hash]string{FrontierRoot(e): "unchanged", FrontierRoot(nil): "empty"}
	note := func(what string, entries []FrontierEntry) {
		t.Helper()
		root := FrontierRoot(entries)
		if other, taken := roots[root]; taken {
			t.Errorf("%s has the root of %s", what, other)
		}
		roots[root] = what
	}
	for i := range e {
		for what, change := range map[string]func(*FrontierEntry){
			"log":    func(x *FrontierEntry) { x.Log[31] ^= 1 },
			"branch": func(x *FrontierEntry) { x.Branch[0] ^= 1 },
			"seq":    func(x *FrontierEntry) { x.Pos.Seq++ },
			"hash":   func(x *FrontierEntry) { x.Pos.Hash[31] ^= 1 },
		} {
			c := slices.Clone(e)
			change(&c[i])
			note(what, c)
		}
		note("one less", slices.Delete(slices.Clone(e), i, i+1))
	}
	base := slices.Clone(e)
	base[3].Base = 17
	if FrontierRoot(base) != FrontierRoot(e) {
		t.Error("what was pruned changes the root")
	}
}
