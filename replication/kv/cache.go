package kv

import (
	"bytes"
	"hash/maphash"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
)

// cache keeps records of keys that were read or written lately, checked, least recently
// used first out. Bytes bound it. Its parts have a lock each.
//
// A record is what the state of a commit says, and stays so until a commit changes its
// key: the writer puts in what it changes, and a reader only what it read of the newest
// commit. So a hit is right for every state from the one on that it is of.
//
// Records and keys in it are never changed, so that they are given out as they are.
type cache struct {
	seed  maphash.Seed
	parts []cachePart // a power of two
}

type cachePart struct {
	max int // bytes

	mu     sync.Mutex // guards below; held for moments only
	newest uint64     // commit
	// records are by the hash of the key; of two keys with one hash the later one stays.
	records *lru.LRU[uint64, *cached]
	bytes   int
}

type cached struct {
	key, record []byte
	since       uint64 // the state that it is of
}

const (
	// cachedOverhead is about what an entry takes beside key and record, in bytes.
	cachedOverhead = 192
	// cacheParts is the most parts, and cachePartMin how many bytes each has at least.
	cacheParts   = 16
	cachePartMin = 1 << 20
)

func newCache(limit int, newest uint64) *cache {
	n := 1
	for n < cacheParts && limit/(2*n) >= cachePartMin {
		n *= 2
	}
	c := &cache{seed: maphash.MakeSeed(), parts: make([]cachePart, n)}
	for i := range c.parts {
		p := &c.parts[i]
		p.max, p.newest = max(0, limit)/n, newest
		// The number of entries has no bound of its own; the error is of one below 1.
		p.records, _ = lru.NewLRU(max(1, p.max/cachedOverhead), func(_ uint64, r *cached) { p.bytes -= r.cost() })
	}
	return c
}

func (r *cached) cost() int { return len(r.key) + len(r.record) + cachedOverhead }

func (c *cache) part(key []byte) (*cachePart, uint64) {
	h := maphash.Bytes(c.seed, key)
	return &c.parts[h%uint64(len(c.parts))], h
}

// get returns the record that a key has in a state.
func (c *cache) get(key []byte, ts uint64) ([]byte, bool) {
	p, h := c.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.records.Get(h)
	if !ok || r.since > ts || !bytes.Equal(r.key, key) {
		return nil, false
	}
	return r.record, true
}

// put keeps a record that was read of a state.
func (c *cache) put(key, record []byte, ts uint64) {
	p, h := c.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if ts == p.newest { // else a commit may have changed it
		p.putLocked(h, cached{key, record, ts})
	}
}

func (p *cachePart) putLocked(h uint64, r cached) {
	n := r.cost()
	if n > p.max/8 {
		p.records.Remove(h)
		return
	}
	if was, ok := p.records.Get(h); ok {
		p.bytes -= was.cost()
		*was = r
	} else {
		p.records.Add(h, &r)
	}
	p.bytes += n
	for p.bytes > p.max {
		p.records.RemoveOldest()
	}
}

// changed takes what a commit changes. It is called before any reader sees the commit.
func (c *cache) changed(ts uint64, entries []entry) {
	for i := range c.parts {
		p := &c.parts[i]
		p.mu.Lock()
		p.newest = ts // before any of them goes in: from here on no reader puts what was
		p.mu.Unlock()
	}
	for _, e := range entries {
		if e.key[0] == prefixKey {
			c.change(ts, e)
		}
	}
}

func (c *cache) change(ts uint64, e entry) {
	p, h := c.part(e.key)
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.value == nil {
		p.records.Remove(h)
		return
	}
	n := len(e.value) - crcLen
	p.putLocked(h, cached{e.key, e.value[:n:n], ts})
}
