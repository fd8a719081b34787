package wal

import (
	"fmt"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// stageTail keeps the headers that follow the run's last body up to its
// signature, if the run ends at the log's tip; else it forgets an older tail.
func (c *committer) stageTail(t *tx, l *logState, run *r.VerifiedRun) {
	key := tailKey(l.id)
	switch {
	case run.End() != l.tip:
	case len(run.Tail) > 0 && (l.flags&flagTail == 0 || t.logs[l.id] != nil):
		l = t.change(l)
		l.flags |= flagTail
		t.setOther(key, encodeChain(run.Tail))
	case len(run.Tail) == 0 && l.flags&flagTail != 0 && t.logs[l.id] != nil:
		l.flags &^= flagTail
		t.delOther(key)
	}
}

// encodeChain encodes headers and the last one's signature.
func encodeChain(blocks []*r.Block) []byte {
	var out []byte
	for i, b := range blocks {
		var sig []byte
		if i == len(blocks)-1 {
			sig = b.Sig
		}
		out = r.AppendBlock(out, b.HeaderRaw, sig, nil)
	}
	return out
}

// parseChain reads what encodeChain wrote.
func parseChain(raw []byte) ([]*r.Block, error) {
	var blocks []*r.Block
	for len(raw) > 0 {
		b, rest, err := r.ParseBlockHeader(raw)
		if err != nil {
			return nil, problem("a stored chain of headers is damaged: " + err.Error())
		}
		blocks = append(blocks, b)
		raw = rest
	}
	return blocks, nil
}

// readTail reads the headers beyond a log's tip, if there are any.
func (c *committer) readTail(l *logState) (tail []*r.Block, err error) {
	if l.flags&flagTail == 0 {
		return nil, nil
	}
	err = c.s.view(func(txn *badger.Txn) (err error) {
		tail, err = readTail(txn, l.id)
		return err
	})
	return tail, c.s.damaged(l.id, l.tip.Seq, err)
}

// sigOf is a block's verified signature: its own, or the one that came with the
// header of the same block at the end of the tail, so that signatures stay as
// close as they were.
func sigOf(b *r.Block, tail []*r.Block) []byte {
	if b.Sig == nil && len(tail) > 0 && tail[len(tail)-1].Hash == b.Hash {
		return tail[len(tail)-1].Sig
	}
	return b.Sig
}

// contradicts tells whether blocks are of another branch than signed headers.
func contradicts(tail, blocks []*r.Block) bool {
	for _, b := range blocks {
		for _, h := range tail {
			if b.Hash != h.Hash && b.Header.FirstSeq <= h.Header.LastSeq() && h.Header.FirstSeq <= b.Header.LastSeq() {
				return true
			}
		}
	}
	return false
}

// servable refuses blocks that would leave more between two signatures than a
// run may hold: nobody could be served from there.
func (c *committer) servable(l *logState, blocks, tail, newTail []*r.Block) error {
	var n, size int
	err := c.s.view(func(txn *badger.Txn) (err error) {
		n, size, err = unsigned(txn, l)
		return err
	})
	if err != nil {
		return c.s.damaged(l.id, l.tip.Seq, err)
	}
	for _, b := range append(append([]*r.Block(nil), blocks...), newTail...) {
		sig := sigOf(b, tail)
		n++
		if size += b.EncodedLen() + len(sig) - len(b.Sig); n > r.MaxRunBlocks || size > r.MaxRunBytes {
			return fmt.Errorf("%w: log %s: too much lies between two signatures", r.ErrInvalid, l.id.Short())
		}
		if len(sig) > 0 {
			n, size = 0, 0
		}
	}
	return nil
}

// unsigned counts the blocks and bytes after a log's last signature.
func unsigned(txn *badger.Txn, l *logState) (n, size int, err error) {
	for at := l.tip.Seq; at > 0; n++ {
		b, _, err := covering(txn, l, at)
		if err != nil || len(b.Sig) > 0 {
			return n, size, err
		}
		size += b.EncodedLen()
		at = b.Header.FirstSeq - 1
	}
	return n, size, nil
}

func readTail(txn *badger.Txn, id r.LogID) ([]*r.Block, error) {
	raw, err := get(txn, tailKey(id))
	if err != nil {
		return nil, err
	}
	return parseChain(raw)
}
