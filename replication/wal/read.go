package wal

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// parseStored checks a stored block: checksum, canonical header, body hash, its
// log and its key. The block aliases value.
func parseStored(l *logState, key, value []byte) (*r.Block, storedBlock, error) {
	return parseWith(r.ParseBlock, l, key, value)
}

// parseToSend is parseStored without the body's hash: the checksum tells damage of
// the disk as well, and whoever is sent the block computes the hash.
func parseToSend(l *logState, key, value []byte) (*r.Block, storedBlock, error) {
	return parseWith(r.ParseBlockHeader, l, key, value)
}

func parseWith(parse func([]byte) (*r.Block, []byte, error), l *logState, key, value []byte) (*r.Block, storedBlock, error) {
	sb, err := unsealBlock(key, value)
	if err != nil {
		return nil, sb, err
	}
	b, rest, err := parse(sb.data)
	switch {
	case err != nil:
		return nil, sb, problem("a stored block is not valid: " + err.Error())
	case len(rest) != 0:
		return nil, sb, problem("bytes follow a stored block")
	case !b.HasBody():
		return nil, sb, problem("a stored block has no body")
	}
	num, firstSeq, ok := parseBlockKey(key)
	if !ok || num != l.num || firstSeq != b.Header.FirstSeq || b.Header.Log != l.id {
		return nil, sb, problem("a stored block stands in another block's place")
	}
	return b, sb, nil
}

// ReadRun returns the bytes of one run that follows after.
func (s *Store) ReadRun(log r.LogID, after r.Position, maxBytes int) (run r.RunBytes, err error) {
	err = s.steady(func() error {
		run, err = s.readRun(log, after, maxBytes)
		return err
	})
	return run, s.damaged(log, after.Seq+1, err)
}

func (s *Store) readRun(log r.LogID, after r.Position, maxBytes int) (r.RunBytes, error) {
	l, ok := s.state(log)
	if !ok {
		return r.RunBytes{}, fmt.Errorf("%w: %s", r.ErrUnknownLog, log.Short())
	}
	empty := r.RunBytes{From: after, End: after}
	switch {
	case after == l.tip || after.Seq > l.tip.Seq:
		return empty, nil
	case after.Seq == l.tip.Seq:
		return empty, &r.ForkedError{Log: log, Seq: after.Seq, Held: l.tip.Hash}
	case after.Seq == 0 && !after.Hash.IsZero():
		return empty, &r.ForkedError{Log: log}
	}
	var run r.RunBytes
	err := s.view(func(txn *badger.Txn) (err error) {
		run, err = cutRun(txn, &l, after, maxBytes)
		return err
	})
	return run, err
}

// cutRun reads the run that follows a position below the tip.
func cutRun(txn *badger.Txn, l *logState, after r.Position, maxBytes int) (r.RunBytes, error) {
	start := blockKey(l.num, after.Seq+1)
	if maxBytes <= 0 || maxBytes > r.MaxRunBytes {
		maxBytes = r.MaxRunBytes
	}
	c := chainReader{l: l, at: after, most: maxBytes}
	cutter := r.RunCutter{Max: maxBytes}
	var ends []r.Position
	var sizes []int
	err := each(txn, blockPrefix(l.num), start, func(key, value []byte) (bool, error) {
		if len(ends) == 0 && !bytes.Equal(key, start) {
			return false, c.notABoundary(txn, key, value)
		}
		b, sb, err := c.next(key, value)
		if err != nil {
			var forked *r.ForkedError
			if len(ends) == 0 || errors.As(err, &forked) || cutter.Len() == 0 {
				return false, err
			}
			return false, nil // what was read before the damage is a whole run
		}
		if !cutter.Add(b.EncodedLen(), len(b.Sig) > 0) {
			return false, nil
		}
		c.append(sb)
		ends = append(ends, b.End())
		sizes = append(sizes, b.EncodedLen())
		return c.at.Seq < l.tip.Seq, nil
	})
	if err != nil {
		return r.RunBytes{}, err
	}
	if len(ends) == 0 {
		return r.RunBytes{}, problem("blocks before the log's tip are missing")
	}
	bodies := len(ends)
	if c.at.Seq == l.tip.Seq && l.flags&flagTail != 0 && bodies > cutter.Len() {
		tail, err := readTail(txn, l.id)
		if err != nil {
			return r.RunBytes{}, err
		}
		for _, b := range tail {
			if b.PrevPosition() != c.at || !cutter.Add(b.EncodedLen(), len(b.Sig) > 0) {
				break
			}
			c.at = b.End()
			c.out = r.AppendBlock(c.out, b.HeaderRaw, b.Sig, nil)
			sizes = append(sizes, b.EncodedLen())
		}
	}
	n := cutter.Len()
	if n == 0 {
		return r.RunBytes{}, problem("no signature is in reach of a run")
	}
	run := r.RunBytes{From: after, End: ends[min(n, bodies)-1]}
	run.Ops = run.End.Seq - after.Seq
	total := 0
	for _, size := range sizes[:n] {
		total += size
	}
	run.Data = c.out[:total:total]
	return run, nil
}

// chainReader reads the blocks of a log in order and checks each against the one
// before.
type chainReader struct {
	l    *logState
	at   r.Position // where the next block must follow
	most int        // bytes that are wanted
	out  []byte     // of all blocks so far
}

// next checks a block, which aliases value.
func (c *chainReader) next(key, value []byte) (*r.Block, storedBlock, error) {
	b, sb, err := parseToSend(c.l, key, value)
	if err != nil {
		return nil, sb, err
	}
	prev := b.PrevPosition()
	if prev != c.at {
		if prev.Seq == c.at.Seq && len(c.out) == 0 {
			return nil, sb, &r.ForkedError{Log: c.l.id, Seq: c.at.Seq, Held: prev.Hash}
		}
		return nil, sb, problem("a block does not follow the one before")
	}
	c.at = b.End()
	return b, sb, nil
}

// append copies the bytes of a block, the first time into a buffer for all that is
// wanted and there, if the others are about as large as the first one: of small blocks
// a run is at most MaxRunBlocks.
func (c *chainReader) append(sb storedBlock) {
	if c.out == nil {
		size, follow := len(sb.data), 0
		if c.l.bytes > sb.through {
			follow = int(min(c.l.bytes-sb.through, uint64(c.most)))
		}
		c.out = make([]byte, 0, max(size, min(c.most, size+follow, r.MaxRunBlocks*(size+size/8))))
	}
	c.out = append(c.out, sb.data...)
}

// notABoundary tells why no block starts after c.at although the log goes on
// with another: a block of ours covers it, or one is missing.
func (c *chainReader) notABoundary(txn *badger.Txn, key, value []byte) error {
	prev, _, err := lastAtOrBefore(txn, blockPrefix(c.l.num), blockKey(c.l.num, c.at.Seq+1))
	if err != nil {
		return err
	}
	if prev == nil {
		return problem("the log's first block is missing")
	}
	item, err := txn.Get(prev)
	if err != nil {
		return readProblem(err)
	}
	v, err := item.ValueCopy(nil)
	if err != nil {
		return readProblem(err)
	}
	b, _, err := parseStored(c.l, prev, v)
	if err != nil {
		return err
	}
	if b.Header.LastSeq() <= c.at.Seq {
		return problem("a block is missing")
	}
	return &r.ForkedError{Log: c.l.id, Seq: c.at.Seq}
}

// RunCovering returns the run that starts with the block that covers seq; an
// empty one if nothing that is held does.
func (s *Store) RunCovering(log r.LogID, seq uint64) (run r.RunBytes, err error) {
	err = s.steady(func() error {
		run, err = s.runCovering(log, seq)
		return err
	})
	return run, s.damaged(log, seq, err)
}

func (s *Store) runCovering(log r.LogID, seq uint64) (r.RunBytes, error) {
	l, ok := s.state(log)
	if !ok {
		return r.RunBytes{}, fmt.Errorf("%w: %s", r.ErrUnknownLog, log.Short())
	}
	if seq == 0 || seq > l.tip.Seq {
		return r.RunBytes{}, nil
	}
	var run r.RunBytes
	err := s.view(func(txn *badger.Txn) error {
		b, _, err := covering(txn, &l, seq)
		if err != nil {
			return err
		}
		run, err = cutRun(txn, &l, b.PrevPosition(), 0)
		return err
	})
	return run, err
}

// covering reads the block that covers a seq up to the tip.
func covering(txn *badger.Txn, l *logState, seq uint64) (*r.Block, storedBlock, error) {
	key, value, err := lastAtOrBefore(txn, blockPrefix(l.num), blockKey(l.num, seq))
	if err != nil {
		return nil, storedBlock{}, err
	}
	if key == nil {
		return nil, storedBlock{}, problem("the log's first block is missing")
	}
	b, sb, err := parseStored(l, key, value)
	if err != nil {
		return nil, sb, err
	}
	if b.Header.LastSeq() < seq {
		return nil, sb, problem("a block is missing")
	}
	return b, sb, nil
}

// BytesAfter is how many stored bytes of the log lie beyond seq.
func (s *Store) BytesAfter(log r.LogID, seq uint64) (n uint64, err error) {
	err = s.steady(func() error {
		n, err = s.bytesAfter(log, seq)
		return err
	})
	return n, s.damaged(log, seq, err)
}

func (s *Store) bytesAfter(log r.LogID, seq uint64) (uint64, error) {
	l, ok := s.state(log)
	switch {
	case !ok:
		return 0, fmt.Errorf("%w: %s", r.ErrUnknownLog, log.Short())
	case seq == 0:
		return l.bytes, nil
	case seq >= l.tip.Seq:
		return 0, nil
	}
	var through uint64
	err := s.view(func(txn *badger.Txn) error {
		b, sb, err := covering(txn, &l, seq)
		if err != nil {
			return err
		}
		if through = sb.through; b.Header.LastSeq() > seq {
			through -= uint64(len(sb.data)) // a block counts until its last operation is there
		}
		return nil
	})
	return l.bytes - through, err
}

// ReadArrivals returns blocks of a space in the order in which they became
// durable here.
func (s *Store) ReadArrivals(space r.SpaceID, after uint64, maxBytes int) (list []r.Arrival, err error) {
	var at r.Dot // the block that could not be read
	err = s.steady(func() error {
		list, at, err = s.readArrivals(space, after, maxBytes)
		return err
	})
	return list, s.damaged(at.Log, at.Seq, err)
}

func (s *Store) readArrivals(space r.SpaceID, after uint64, maxBytes int) (arrivals []r.Arrival, last r.Dot, err error) {
	s.mu.RLock()
	newest := uint64(0)
	if sp := s.idx.spaces[space]; sp != nil {
		newest = sp.arrival
	}
	s.mu.RUnlock()
	if after >= newest {
		return nil, last, nil
	}
	reader := arrivalReader{s: s, space: space, after: after, newest: newest, max: max(1, maxBytes)}
	err = s.view(func(txn *badger.Txn) error {
		reader.txn = txn
		return reader.read()
	})
	return reader.list, reader.reading, err
}

// stateOf returns a copy of the state of a log by its local number.
func (s *Store) stateOf(num uint64) (logState, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.idx.byNum[num]
	if l == nil {
		return logState{}, false
	}
	return *l, true
}

func parseArrival(key, value []byte) (arrivalRecord, uint64, error) {
	_, number, ok := parseArrivalKey(key)
	if !ok {
		return arrivalRecord{}, 0, problem("a key of the arrival index has another length")
	}
	raw, err := unseal(key, value)
	if err != nil {
		return arrivalRecord{}, 0, err
	}
	a, err := decodeArrival(raw)
	return a, number, err
}
