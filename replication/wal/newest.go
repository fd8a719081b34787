package wal

import r "vixp2p/replication"

const (
	maxNewest      = 16       // blocks that are kept
	maxNewestBytes = 64 << 10 // of one of them
)

// newestBlock is the block at the tip of a log, as it is sent.
type newestBlock struct {
	log       r.LogID
	from, end r.Position
	data      []byte
}

// newestBlocks are those that were committed last, so that what is pushed as soon as
// it is durable is not read back. Guarded by Store.mu.
type newestBlocks struct {
	blocks [maxNewest]newestBlock
	next   int // the oldest, which is replaced
}

// keepNewest stages the block that was just added to a log. data, which may alias what
// goes to the database, is signed and not changed any more.
func (t *tx) keepNewest(l *logState, from r.Position, data []byte) {
	if len(data) > maxNewestBytes {
		return
	}
	b := newestBlock{log: l.id, from: from, end: l.tip, data: data}
	if n := len(t.newest); n > 0 && t.newest[n-1].log == l.id {
		t.newest[n-1] = b
		return
	}
	t.newest = append(t.newest, b)
}

// add takes the blocks of a transaction that is durable.
func (n *newestBlocks) add(blocks []newestBlock) {
	for _, b := range blocks[max(0, len(blocks)-maxNewest):] {
		n.blocks[n.next] = b
		n.next = (n.next + 1) % maxNewest
	}
}

// LastRun is the log's newest block if that is all that follows after and it is still
// in memory.
func (s *Store) LastRun(log r.LogID, after r.Position) (r.RunBytes, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.idx.logs[log]
	if l == nil || l.flags&flagTail != 0 {
		return r.RunBytes{}, false
	}
	for i := range s.newest.blocks {
		b := &s.newest.blocks[i]
		if b.log == log && b.end == l.tip && b.from == after && len(b.data) > 0 {
			return r.RunBytes{From: after, End: b.end, Ops: b.end.Seq - after.Seq, Data: b.data}, true
		}
	}
	return r.RunBytes{}, false
}
