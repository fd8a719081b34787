package wal

import (
	"bytes"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// Blocks beyond a damaged place wait aside. Once the log has grown up to one of
// them again, because peers sent what was missing, they join it: what this node
// acknowledged and nobody else has yet is then not lost (G1).

// takeBackBytes bounds the blocks that join in one transaction.
const takeBackBytes = 1 << 20

// takeBack joins what waits after a log's tip.
func (c *committer) takeBack(id r.LogID) {
	for {
		t := c.s.newTx()
		if err := c.stageAside(t, id); err != nil {
			c.s.opt.Logger.Error("blocks that were set aside cannot be read", "log", id, "error", err)
			return
		}
		if t.empty() {
			return
		}
		if err := c.s.commit(t); err != nil {
			return // told by the commit; the blocks still wait
		}
		c.s.subs.publish(t.advances)
	}
}

// stageAside stages blocks that follow the tip up to a signature, and removes
// those that the log has by now.
func (c *committer) stageAside(t *tx, id r.LogID) error {
	l := t.log(id)
	if l == nil || l.flags&flagAside == 0 {
		return nil
	}
	type waiting struct {
		key  []byte
		b    *r.Block
		data []byte
	}
	var join, run []waiting
	var covered [][]byte
	left, size, at := false, 0, l.tip
	err := c.s.view(func(txn *badger.Txn) error {
		return each(txn, asideKey(l.num, 0)[:9], nil, func(key, value []byte) (bool, error) {
			key, value = bytes.Clone(key), bytes.Clone(value)
			b, sb, err := parseStored(l, key, value)
			switch {
			case err != nil || b.Header.LastSeq() <= l.tip.Seq:
				covered = append(covered, key)
			case b.PrevPosition() == at:
				at = b.End()
				run = append(run, waiting{key, b, sb.data})
				if size += len(sb.data); len(b.Sig) > 0 {
					join, run = append(join, run...), nil
				}
			default:
				left = true
				return false, nil
			}
			return size < takeBackBytes, nil
		})
	})
	if err != nil {
		return err
	}
	left = left || len(run) > 0 || size >= takeBackBytes
	if len(join) == 0 && len(covered) == 0 && left {
		return nil
	}
	l = t.change(l)
	prev, before := l.tip, l.bytes
	for _, w := range join {
		t.addBlock(l, w.b.Header, w.b.Hash, append(make([]byte, 0, len(w.data)+trailerLen), w.data...))
		t.del(w.key)
	}
	for _, key := range covered {
		t.del(key)
	}
	if !left {
		l.flags &^= flagAside
	}
	if len(join) > 0 {
		c.dropTail(t, l)
		c.observe(l.origin, l.lastHLC)
		t.advance(l, prev, l.bytes-before, 0)
	}
	return nil
}

// dropTail forgets headers that no longer follow the tip.
func (c *committer) dropTail(t *tx, l *logState) {
	if l.flags&flagTail != 0 {
		l.flags &^= flagTail
		t.delOther(tailKey(l.id))
	}
}
