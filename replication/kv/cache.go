package kv

import (
	"bytes"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
)

// cache keeps records of keys that were read or written lately, checked, least recently
// used first out. Bytes bound it.
//
// A record is what the state of a commit says, and stays so until a commit changes its
// key: the writer puts in what it changes, and a reader only what it read of the newest
// commit. So a hit is right for every state from the one on that it is of.
type cache struct {
	max int // bytes

	mu      sync.Mutex // guards below; held for moments only
	newest  uint64     // commit
	records *lru.LRU[string, cached]
	bytes   int
}

type cached struct {
	record []byte
	since  uint64 // the state that it is of
}

// cachedOverhead is about what an entry takes beside key and record, in bytes.
const cachedOverhead = 192

func newCache(limit int, newest uint64) *cache {
	c := &cache{max: max(0, limit), newest: newest}
	// The number of entries has no bound of its own; the error is of one below 1.
	c.records, _ = lru.NewLRU(max(1, c.max/cachedOverhead), func(key string, r cached) { c.bytes -= r.cost(key) })
	return c
}

func (r cached) cost(key string) int { return len(key) + len(r.record) + cachedOverhead }

// get returns a copy of the record that a key has in a state.
func (c *cache) get(key []byte, ts uint64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.records.Get(string(key))
	if !ok || r.since > ts {
		return nil, false
	}
	return bytes.Clone(r.record), true
}

// put keeps a record that was read of a state. The cache copies it.
func (c *cache) put(key, record []byte, ts uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ts == c.newest { // else a commit may have changed it
		c.putLocked(string(key), cached{bytes.Clone(record), ts})
	}
}

func (c *cache) putLocked(key string, r cached) {
	c.records.Remove(key) // what it cost is taken off
	n := r.cost(key)
	if n > c.max/8 {
		return
	}
	c.bytes += n
	c.records.Add(key, r)
	for c.bytes > c.max {
		c.records.RemoveOldest()
	}
}

// changed takes what a commit changes, whose slices it keeps. It is called before any
// reader sees the commit.
func (c *cache) changed(ts uint64, entries []entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newest = ts
	for _, e := range entries {
		switch {
		case e.key[0] != prefixKey:
		case e.value == nil:
			c.records.Remove(string(e.key))
		default:
			c.putLocked(string(e.key), cached{e.value[:len(e.value)-crcLen], ts})
		}
	}
}
