package kv

import (
	"bytes"
	"encoding/binary"
	"math"

	"vixp2p/replication"
)

// A pending record says that an operation which is here named, on some key, a
// dot which is not here yet. When that dot arrives on the same key it is dead on
// arrival; whatever it is, its pending records go.
//
// How many of them name one dot is up to whoever writes operations, so that they
// are dropped in passes.

// maxPass is how many pending records one pass drops.
const maxPass = 1024

// pendingStage is staged changes of pending records.
type pendingStage struct {
	// add are new ones, by the dot that they wait for. invariant: none is saved.
	add  map[replication.Dot]map[replication.Hash]struct{}
	drop [][]byte // saved ones to delete, by their keys
}

// addPending remembers that an operation named d on a key.
func (a *applier) addPending(d replication.Dot, l *logState, keyHash replication.Hash) error {
	keys := a.pending.add[d]
	if _, ok := keys[keyHash]; ok {
		return nil
	}
	dbKey := pendingKey(a.space, d, keyHash)
	if l.pend > 0 && d.Seq >= l.next {
		txn, err := a.settled()
		if err != nil {
			return err
		}
		b, err := get(txn, dbKey)
		if err != nil || b != nil {
			return err
		}
	}
	if keys == nil {
		keys = map[replication.Hash]struct{}{}
		a.pending.add[d] = keys
	}
	keys[keyHash] = struct{}{}
	l.pend++
	l.dirty = true
	a.cost(len(dbKey) + logLen + 64)
	return nil
}

// takePending drops every pending record of d and tells whether one named it on
// the key with the hash own, that of d's operation; nil if d counts for nothing.
func (a *applier) takePending(d replication.Dot, l *logState, own *replication.Hash) (dead bool, err error) {
	if l.pend == 0 {
		return false, nil
	}
	// Own goes last, in the transaction of its operation: dropping the others
	// may commit before that.
	if err := a.dropPending(d.Log, l, d.Seq, d.Seq, own); err != nil {
		return false, err
	}
	if own == nil || l.pend == 0 {
		return false, nil
	}
	if keys := a.pending.add[d]; keys != nil { // own alone is left
		delete(a.pending.add, d)
		l.pend--
		return true, nil
	}
	txn, err := a.settled()
	if err != nil {
		return false, err
	}
	dbKey := pendingKey(a.space, d, *own)
	b, err := get(txn, dbKey)
	if err != nil || b == nil {
		return false, err
	}
	a.stageDrop(l, dbKey)
	return true, nil
}

func (a *applier) stageDrop(l *logState, dbKey []byte) {
	a.pending.drop = append(a.pending.drop, dbKey)
	l.pend--
	l.dirty = true
	a.cost(len(dbKey))
}

// dropPending drops the pending records of the dots first to last of a log, but
// those of the key with the hash keep.
func (a *applier) dropPending(id replication.LogID, l *logState, first, last uint64, keep *replication.Hash) error {
	if len(a.pending.add) > 0 {
		for seq := first; seq <= last; seq++ {
			a.unstagePending(replication.Dot{Log: id, Seq: seq}, l, keep)
		}
	}
	from := pendingPrefix(a.space, replication.Dot{Log: id, Seq: first})
	for l.pend > 0 && last >= l.next {
		pass, next, err := a.pendingPass(id, from, last, keep)
		if err != nil {
			return err
		}
		for _, dbKey := range pass {
			a.stageDrop(l, dbKey)
		}
		if len(pass) < maxPass {
			l.next = next
			return nil
		}
		from = append(bytes.Clone(pass[len(pass)-1]), 0)
		if !a.fitsBlock(0) {
			if err := a.commit(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *applier) unstagePending(d replication.Dot, l *logState, keep *replication.Hash) {
	keys := a.pending.add[d]
	for h := range keys {
		if keep == nil || h != *keep {
			delete(keys, h)
			l.pend--
			l.dirty = true
		}
	}
	if len(keys) == 0 {
		delete(a.pending.add, d)
	}
}

// pendingPass lists up to maxPass saved pending records of a log from a key on,
// for dots up to last, but those of the key keep; and the seq of the first
// record beyond last.
func (a *applier) pendingPass(id replication.LogID, from []byte, last uint64, keep *replication.Hash) (pass [][]byte, next uint64, err error) {
	txn, err := a.settled()
	if err != nil {
		return nil, 0, err
	}
	next = math.MaxUint64
	const seqAt = 1 + spaceLen + logLen
	prefix := from[:seqAt]
	err = scan(txn, prefix, from, func(dbKey, _ []byte) error {
		if len(dbKey) != seqAt+8+hashLen {
			return errRecord
		}
		if seq := binary.BigEndian.Uint64(dbKey[seqAt:]); seq > last {
			next = seq
			return errStop
		}
		if keep != nil && replication.Hash(dbKey[seqAt+8:]) == *keep {
			return nil
		}
		pass = append(pass, bytes.Clone(dbKey))
		if len(pass) == maxPass {
			return errStop
		}
		return nil
	})
	return pass, next, err
}
