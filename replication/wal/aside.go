package wal

import (
	"bytes"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// Blocks beyond a damaged place wait aside. Once the log has grown up to one of
// them again, because peers sent what was missing, they join it: what this node
// acknowledged and nobody else has yet is then not lost (G1).

// takeBackCost bounds what joins in one transaction, as Badger counts it: the run
// that follows the tip always fits, further ones while there is room. Badger also
// bounds the records of a transaction, to one per hundred bytes of its limit.
const (
	takeBackCost = maxTxLSM - 64<<10
	recordCost   = 104
)

// waiting is a block that was set aside.
type waiting struct {
	key  []byte
	b    *r.Block
	data []byte
}

// asideScan sorts what waits for a log. A block counts only with a signature at
// or after it, as far away as a run may be long: what joined without one could
// not be served.
type asideScan struct {
	l       *logState
	limit   r.LogLimit
	at      r.Position // where the next block must follow
	join    []waiting  // follow the tip, the last one signed
	run     []waiting  // follow join, none signed yet
	covered [][]byte   // keys of what the log has by now, or of what is not whole
	left    bool       // something goes on waiting
	cost    int        // of join and covered
	runCost int        // of run
	raw     int        // bytes of join and run
	runRaw  int        // bytes of run
}

// add takes the next stored block, ascending by seq, and tells whether there is
// room for more.
func (a *asideScan) add(key, value []byte) bool {
	b, sb, err := parseStored(a.l, key, value)
	switch {
	case err != nil || b.Header.LastSeq() <= a.l.tip.Seq:
		a.covered = append(a.covered, key)
		a.cost += recordCost
		a.left = a.cost >= takeBackCost
		return !a.left
	case b.PrevPosition() != a.at || !a.limit.Counts(b.End()):
		a.left = true
		return false
	}
	a.at = b.End()
	a.run = append(a.run, waiting{key, b, sb.data})
	a.runCost += lsmCost(0, len(value)) + 3*recordCost // the block, its arrival, the old key
	a.runRaw += len(sb.data)
	if full := a.cost+a.runCost > takeBackCost || a.raw+a.runRaw > maxTx; full && a.cost > 0 ||
		len(a.run) > r.MaxRunBlocks || a.runRaw > r.MaxRunBytes {
		a.left = true
		return false
	}
	if len(b.Sig) > 0 {
		a.join, a.run = append(a.join, a.run...), nil
		a.cost, a.runCost = a.cost+a.runCost, 0
		a.raw, a.runRaw = a.raw+a.runRaw, 0
	}
	return true
}

// takeBack joins what waits after a log's tip. After an error the blocks still wait.
func (c *committer) takeBack(id r.LogID) error {
	for {
		t := c.s.newTx()
		if err := c.stageAside(t, id); err != nil {
			c.s.opt.Logger.Error("blocks that were set aside cannot be read", "log", id, "error", err)
			return err
		}
		if t.empty() {
			return nil
		}
		if err := c.s.commit(t); err != nil {
			return err
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
	scan := asideScan{l: l, limit: c.s.limitOf(l.id), at: l.tip}
	err := c.s.view(func(txn *badger.Txn) error {
		return each(txn, asideKey(l.num, 0)[:9], nil, func(key, value []byte) (bool, error) {
			return scan.add(bytes.Clone(key), bytes.Clone(value)), nil
		})
	})
	if err != nil {
		return err
	}
	left := scan.left || len(scan.run) > 0
	if len(scan.join) == 0 && len(scan.covered) == 0 && left {
		return nil
	}
	l = t.change(l)
	prev, before := l.tip, l.bytes
	for _, w := range scan.join {
		t.addBlock(l, w.b.Header, w.b.Hash, append(make([]byte, 0, len(w.data)+trailerLen), w.data...))
		t.del(w.key)
	}
	for _, key := range scan.covered {
		t.del(key)
	}
	if !left {
		l.flags &^= flagAside
	}
	if len(scan.join) > 0 {
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
