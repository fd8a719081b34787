package kv

import (
	"errors"
	"runtime"
	"sync"

	badger "github.com/dgraph-io/badger/v4"

	"vixp2p/replication"
)

// What needs no order is done beside the apply goroutine: the next blocks are
// read, unpacked and hashed while the last ones are written, and the records of
// the keys of a transaction are read on all processors.

// batch is blocks of a space, in arrival order, ready to be applied.
type batch struct {
	after  uint64 // arrival number before the first
	blocks []block
	full   bool  // more may follow
	err    error // why there are no more
	rule   rule  // under which they were read
	ruled  bool  // rule is known
}

// block is one block with what can be computed from it alone.
type block struct {
	number uint64
	header *replication.Header
	hash   replication.Hash
	// ops is empty in a void block: no node counts any of its operations.
	ops []replication.Op
	// digests of the puts among ops (design 5.4); others are zero.
	digests []replication.Hash
}

// readBatch reads about readBytes of blocks. An opener may be nil.
func readBatch(store replication.Store, opener replication.Opener, space replication.SpaceID, after uint64) *batch {
	b := &batch{after: after}
	open, err := openFor(opener, space)
	if err != nil {
		b.err = err
		return b
	}
	b.rule, b.ruled = ruleOf(open), true
	var arrivals []replication.Arrival
	arrivals, b.err = store.ReadArrivals(space, after, readBytes)
	b.blocks = make([]block, 0, len(arrivals))
	size := 0
	var h hasher
	for i := range arrivals {
		at := &arrivals[i]
		ops, err := blockOps(at.Block, open)
		if err != nil {
			b.err = err
			break
		}
		blk := block{number: at.Number, header: at.Block.Header, hash: at.Block.Hash, ops: ops}
		blk.digests = make([]replication.Hash, len(ops))
		for j := range ops {
			if o := &ops[j]; counts(o) && o.Kind == replication.KindPut {
				d := replication.Dot{Log: blk.header.Log, Seq: blk.header.FirstSeq + uint64(j)}
				blk.digests[j] = h.hash(o.Key, d, o.Order, o.Payload)
			}
		}
		b.blocks = append(b.blocks, blk)
		size += at.Block.EncodedLen()
	}
	b.full = size >= readBytes
	return b
}

// blocks applies blocks in as few transactions as may be. flush commits what is
// staged; at the end nothing is, unless there was an error.
func (a *applier) blocks(list []block, flush func() error) error {
	for len(list) > 0 {
		n, raw := 0, uint64(0)
		for ; n < len(list) && (n == 0 || raw+list[n].header.RawLen <= gather/2); n++ {
			if err := upgradeNeeded(&list[n]); err != nil {
				if n > 0 {
					break // those before count
				}
				if failed := a.rest(flush); failed != nil {
					return failed
				}
				return err
			}
			raw += list[n].header.RawLen
		}
		if err := a.preload(list[:n]); err != nil {
			return err
		}
		for i := range list[:n] {
			if a.staged() && !a.fitsBlock(list[i].header.RawLen) {
				if err := flush(); err != nil {
					return err
				}
			}
			if err := a.block(&list[i]); err != nil {
				return err
			}
		}
		list = list[n:]
	}
	return a.rest(flush)
}

// rest flushes if something is staged.
func (a *applier) rest(flush func() error) error {
	if !a.staged() {
		return nil
	}
	return flush()
}

// parallelFrom is the least number of keys that is worth other goroutines.
const parallelFrom = 64

// preload reads the records of the keys of blocks that are going to be applied
// in the next transaction.
func (a *applier) preload(blocks []block) error {
	if a.keysBytes > maxKeys {
		a.forget()
	}
	var fresh []*keyState
	for i := range blocks {
		for j := range blocks[i].ops {
			o := &blocks[i].ops[j]
			if !counts(o) || a.keys[string(o.Key)] != nil {
				continue
			}
			k := a.newKey(o.Key)
			a.keys[k.name] = k // read below
			fresh = append(fresh, k)
		}
	}
	if err := a.loadAll(fresh); err != nil {
		return err
	}
	for _, k := range fresh {
		a.keysBytes += k.cost + overhead
	}
	return nil
}

// loadAll is loadKeys on all processors.
func (a *applier) loadAll(fresh []*keyState) error {
	workers := min(runtime.GOMAXPROCS(0), 4, len(fresh)/parallelFrom)
	if workers <= 1 {
		return a.loadKeys(a.read(), fresh)
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		part := fresh[len(fresh)*w/workers : len(fresh)*(w+1)/workers]
		wg.Go(func() {
			defer faultsPanic()()
			defer guard(&errs[w], a.d.dir)
			txn := a.d.latest()
			defer txn.Discard()
			errs[w] = a.loadKeys(txn, part)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// loadKeys reads the records of keys and the digests of their siblings.
func (a *applier) loadKeys(txn *badger.Txn, keys []*keyState) error {
	var h hasher
	for _, k := range keys {
		b, ok := a.d.cache.get(k.dbKey, a.d.written)
		if !ok {
			var err error
			if b, err = get(txn, k.dbKey); err != nil {
				return err
			}
		}
		k.cost = len(k.dbKey) + len(b)
		if b == nil {
			continue
		}
		var err error
		if k.rec, err = decodeKeyRecord(b); err != nil {
			return err
		}
		k.before = k.rec.n
		for i := range k.rec.sibs {
			s := &k.rec.sibs[i]
			s.digest = h.sibling(k.key, s)
		}
		if k.rec.large {
			k.enlarge()
		}
	}
	return nil
}
