package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// Verify checks everything that is stored: each block's checksum, header, body
// hash, place in its log's chain and arrival after the block before it, signatures
// as far apart as a run, the arrival index against the blocks and the other way
// round, every small record against the head, the head against the witness, and
// the checksums of the database's own files. It calls fn for each finding, reads
// a snapshot and may run beside writes. The error is about the check itself.
//
// What it found counts, once it is done, as if a read had found it: OnDamage is
// told, and the next Open repairs it. What an earlier repair lost is told too
// (Lost); no further repair brings it back.
func (s *Store) Verify(ctx context.Context, fn func(r.Finding)) error {
	var first []r.Finding // of each log
	seen := map[r.LogID]bool{}
	err := s.verify(ctx, func(f r.Finding) {
		fn(f)
		if !seen[f.Log] {
			seen[f.Log] = true
			first = append(first, f)
		}
	})
	for _, f := range first {
		// It returns what it is given: the caller was told.
		_ = s.damaged(f.Log, f.Seq, &r.DamageError{Log: f.Log, Seq: f.Seq, File: f.File, Problem: f.Problem})
	}
	if err == nil {
		lost := s.Lost()
		lost.report(fn)
	}
	return err
}

func (s *Store) verify(ctx context.Context, fn func(r.Finding)) error {
	v := &verifier{s: s, ctx: ctx, report: fn}
	v.files()
	s.mu.RLock()
	known := s.idx.head
	s.mu.RUnlock()
	err := s.view(func(txn *badger.Txn) error {
		v.txn = txn
		return v.snapshot(&known)
	})
	if errors.Is(err, r.ErrDamaged) {
		v.found(nil, 0, err.Error())
		err = nil
	}
	if err != nil {
		return err
	}
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return r.ErrClosed
	}
	return v.database()
}

// database checks the database's own files. A file that looks cut off is looked
// at again while the committer rests: it may have been in the middle of a write.
func (v *verifier) database() error {
	finding := func(d fileDamage) {
		v.report(r.Finding{Log: v.logOf(d.num), Seq: d.seq, File: d.path, Problem: d.problem})
	}
	live := map[uint32]bool{} // tables that are complete
	for _, t := range v.s.db.Tables() {
		live[uint32(t.ID)] = true
	}
	var again []string
	err := databaseFiles(filepath.Join(v.s.opt.Dir, dbDir), func(d fileDamage) {
		switch {
		case filepath.Ext(d.path) == ".sst" && !live[fileID(d.path)]:
		case d.torn || filepath.Base(d.path) == manifestName:
			again = append(again, d.path)
		default:
			finding(d)
		}
	}, v.stopped)
	if err != nil || len(again) == 0 {
		return err
	}
	return v.s.control(context.Background(), func(*tx) error {
		for _, path := range again {
			checkFile(path, finding)
		}
		return nil
	})
}

// verifier is one run of Verify.
type verifier struct {
	s      *Store
	ctx    context.Context
	report func(r.Finding)
	txn    *badger.Txn

	head   head
	sum    digest
	logs   map[r.LogID]*logState
	byNum  map[uint64]*logState
	spaces map[r.SpaceID]uint64 // newest arrival by the logs' records
	blocks uint64
	// leads sums up what the blocks say of the arrival index; partial: not of all.
	leads   digest
	partial bool
}

func (v *verifier) found(l *logState, seq uint64, problem string) {
	f := r.Finding{Seq: seq, File: filepath.Join(v.s.opt.Dir, dbDir), Problem: problem}
	if l != nil {
		f.Log = l.id
	}
	v.report(f)
}

// part runs one part of the check; what it cannot read is a finding, and the
// other parts go on.
func (v *verifier) part(l *logState, fn func() error) error {
	err := guard(fn)
	if errors.Is(err, r.ErrDamaged) {
		v.found(l, 0, err.Error())
		return nil
	}
	return err
}

// stopped ends a check that nobody waits for any more.
func (v *verifier) stopped() error {
	select {
	case <-v.s.closing:
		return r.ErrClosed
	default:
		return v.ctx.Err()
	}
}

func (v *verifier) logOf(num uint64) r.LogID {
	if l := v.byNum[num]; l != nil {
		return l.id
	}
	return r.LogID{}
}

// files checks the small files beside the database.
func (v *verifier) files() {
	dir := v.s.opt.Dir
	file := func(name, problem string) {
		v.report(r.Finding{File: filepath.Join(dir, name), Problem: problem})
	}
	if b, err := os.ReadFile(filepath.Join(dir, formatName)); err != nil || string(b) != formatLine(storeFormat) {
		file(formatName, "the format mark is damaged or missing")
	}
	v.s.mu.RLock()
	id := v.s.identity
	commits, hash := v.s.idx.head.commits, v.s.headHash
	v.s.mu.RUnlock()
	lease, err := readLease(&v.s.opt)
	if err != nil || !lease.present || lease.nonce != id.nonce {
		file(leaseName, "the lease is not the one that this open wrote")
	}
	w, err := readWitness(&v.s.opt)
	switch {
	case err != nil || !w.valid:
		file(witnessName, "the witness is damaged or missing")
	case w.commits < commits || w.commits == commits && w.head != hash:
		file(witnessName, "the witness is older than the store")
	}
}

// snapshot checks what the database holds.
func (v *verifier) snapshot(known *head) error {
	v.logs, v.byNum, v.spaces = map[r.LogID]*logState{}, map[uint64]*logState{}, map[r.SpaceID]uint64{}
	raw, err := get(v.txn, keyHead)
	if err == nil && raw == nil {
		err = problem("the store head is missing")
	}
	if err == nil {
		v.head, err = decodeHead(raw)
	}
	if err != nil {
		return err
	}
	if v.head.commits < known.commits {
		v.found(nil, 0, "missing: the last "+many(known.commits-v.head.commits, "commit", "commits"))
	}
	if err := v.part(nil, v.logRecords); err != nil {
		return err
	}
	for _, kind := range otherKinds {
		if err := v.part(nil, func() error { return v.otherRecords(kind) }); err != nil {
			return err
		}
	}
	if v.sum != v.head.digest {
		v.found(nil, 0, "small records are missing or old")
	}
	for _, l := range v.byNum {
		if err := v.part(l, func() error { return v.logBlocks(l) }); err != nil {
			return err
		}
	}
	if err := v.part(nil, v.arrivals); err != nil {
		return err
	}
	return v.part(nil, v.strays)
}

// logRecords reads all logs.
func (v *verifier) logRecords() error {
	return each(v.txn, []byte{kindLog}, nil, func(key, value []byte) (bool, error) {
		b, err := unseal(key, value)
		if err != nil {
			return false, err
		}
		l, space, err := decodeLog(r.LogID(key[1:]), b)
		if err != nil {
			return false, err
		}
		v.sum.add(recordHash(key, b))
		l.space = &spaceState{id: space}
		v.logs[l.id], v.byNum[l.num] = l, l
		v.spaces[space] = max(v.spaces[space], l.arrival)
		if l.id != r.LogOf(v.s.opt.Network, space, l.origin, l.epoch) {
			v.found(l, 0, "the log's id does not follow from its space, origin and epoch")
		}
		return true, v.stopped()
	})
}

// otherRecords reads the small records of one kind.
func (v *verifier) otherRecords(kind byte) error {
	return each(v.txn, []byte{kind}, nil, func(key, value []byte) (bool, error) {
		b, err := unseal(key, value)
		if err != nil {
			return false, err
		}
		v.sum.add(recordHash(key, b))
		switch kind {
		case kindFork:
			p, err := decodeFork(r.LogID(key[1:]), b)
			if err == nil {
				err = p.Verify()
			}
			if err != nil {
				v.found(v.logs[r.LogID(key[1:])], 0, "the stored fork proof proves nothing: "+err.Error())
			}
		case kindCursors:
			if _, err := readCursor(v.txn, parseCursorsKey(key)); err != nil {
				v.found(nil, 0, err.Error())
			}
		}
		return true, v.stopped()
	})
}

// logBlocks checks the chain of one log.
func (v *verifier) logBlocks(l *logState) error {
	at := r.Position{Seq: l.base - 1}
	var bytesSeen, blocks, arrival uint64
	var led span
	whole := false
	defer func() { v.partial = v.partial || !whole }()
	sigs := signatureCheck{origin: l.origin}
	err := each(v.txn, blockPrefix(l.num), nil, func(key, value []byte) (bool, error) {
		if err := v.stopped(); err != nil {
			return false, err
		}
		value = bytes.Clone(value)
		b, sb, err := parseStored(l, key, value)
		if err != nil {
			_, seq, _ := parseBlockKey(key)
			v.found(l, seq, err.Error())
			return false, nil
		}
		if b.PrevPosition() != at {
			v.found(l, at.Seq+1, "blocks are missing or do not follow each other")
			return false, nil
		}
		at = b.End()
		blocks++
		bytesSeen += uint64(len(sb.data))
		if sb.through != bytesSeen && l.base == 1 {
			v.found(l, b.Header.FirstSeq, "the log's bytes do not add up")
		}
		if sb.arrival <= arrival {
			v.partial = true
			v.found(l, b.Header.FirstSeq, "the block arrives before the one that it follows")
		}
		arrival = sb.arrival
		if err := sigs.add(b); err != nil {
			v.found(l, b.Header.FirstSeq, err.Error())
		}
		return true, v.checkArrival(l, b, sb, &led)
	})
	v.blocks += blocks
	if err != nil {
		return err
	}
	v.leads.add(led.digest(l.space.id))
	if at != l.tip || blocks != l.blocks || bytesSeen != l.bytes {
		v.found(l, at.Seq+1, fmt.Sprintf("the log ends at seq %d after %s where its record says %d after %d",
			at.Seq, many(blocks, "block", "blocks"), l.tip.Seq, l.blocks))
		return nil
	}
	whole = true
	if l.flags&flagTail != 0 {
		tail, err := readTail(v.txn, l.id)
		if err != nil {
			return err
		}
		for _, b := range tail {
			if b.PrevPosition() != at {
				v.found(l, at.Seq, "the headers after the log's end do not follow it")
				return nil
			}
			at = b.End()
			if err := sigs.add(b); err != nil {
				v.found(l, b.Header.FirstSeq, err.Error())
			}
		}
	}
	if err := sigs.end(); err != nil {
		v.found(l, l.tip.Seq, err.Error())
	}
	return v.setAside(l)
}

// setAside checks what a cut set aside of a log. Parts of it may be there twice, or
// be of another branch than what came since; nothing may be missing.
func (v *verifier) setAside(l *logState) error {
	at := l.tip.Seq
	err := each(v.txn, cutPrefix(l.num), nil, func(key, value []byte) (bool, error) {
		if err := v.stopped(); err != nil {
			return false, err
		}
		_, seq, _ := parseBlockKey(key)
		if seq == cutTailSeq {
			_, err := parseCutTail(key, bytes.Clone(value))
			return false, err
		}
		b, _, err := parseStored(l, key, bytes.Clone(value))
		if err != nil {
			v.found(l, seq, err.Error())
			return false, nil
		}
		if b.PrevPosition().Seq > at {
			v.found(l, at+1, "blocks that a cut set aside are missing")
		}
		at = max(at, b.Header.LastSeq())
		return true, nil
	})
	if err == nil && at != l.held() {
		v.found(l, at, fmt.Sprintf("blocks up to seq %d are set aside where the log's record says %d", at, l.held()))
	}
	return err
}

// span is what an entry of the arrival index stands for: from its own number to the
// last one. The zero value is none.
type span struct{ number, last uint64 }

func (p span) digest(space r.SpaceID) digest {
	if p == (span{}) {
		return digest{}
	}
	return recordHash(arrivalKey(space, p.number), binary.BigEndian.AppendUint64(nil, p.last))
}

// checkArrival looks a block up in the arrival index. led is what leads to the block
// before it.
func (v *verifier) checkArrival(l *logState, b *r.Block, sb storedBlock, led *span) error {
	key := arrivalKey(l.space.id, sb.arrival)
	raw, err := get(v.txn, key)
	if err != nil {
		return err
	}
	if raw == nil && led.number > 0 {
		led.last = sb.arrival
		return nil
	}
	a, err := decodeArrival(raw)
	if err != nil || a.num != l.num || a.firstSeq != b.Header.FirstSeq {
		v.found(l, b.Header.FirstSeq, "the arrival index does not lead to this block")
	}
	v.leads.add(led.digest(l.space.id))
	*led = span{sb.arrival, sb.arrival}
	return nil
}

// arrivals checks the arrival index as a chain. Its entries must lead from and to the
// same numbers as the blocks say.
func (v *verifier) arrivals() error {
	var leads digest
	newest := map[r.SpaceID]span{}
	err := each(v.txn, []byte{kindArrival}, nil, func(key, value []byte) (bool, error) {
		a, number, err := parseArrival(key, value)
		if err != nil {
			return false, err
		}
		space, _, _ := parseArrivalKey(key)
		if before, ok := newest[space]; ok {
			before.last = a.prev
			leads.add(before.digest(space))
			if a.prev < before.number {
				v.found(v.byNum[a.num], a.firstSeq, "the arrival index is not in order")
			}
		} else if a.prev != 0 {
			v.found(v.byNum[a.num], a.firstSeq, "an entry of the arrival index before this block's is missing")
		}
		newest[space] = span{number: number}
		return true, v.stopped()
	})
	if err != nil {
		return err
	}
	for space, arrival := range v.spaces {
		before, ok := newest[space]
		before.last = arrival
		leads.add(before.digest(space))
		if arrival < before.number || !ok && arrival > 0 {
			v.found(nil, 0, "the arrival index ends early")
		}
	}
	if leads != v.leads && !v.partial {
		v.found(nil, 0, "the arrival index and the blocks do not agree: entries are missing, or lead to other blocks")
	}
	return nil
}

// strays looks for keys that belong to nothing.
func (v *verifier) strays() error {
	opt := badger.DefaultIteratorOptions
	opt.PrefetchValues = false
	it := v.txn.NewIterator(opt)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		key := it.Item().Key()
		if bytes.IndexByte(allKinds, key[0]) < 0 {
			v.found(nil, 0, fmt.Sprintf("a key that nobody wrote: %x", key))
			continue
		}
		if num, seq, ok := parseBlockKey(key); ok && v.byNum[num] == nil {
			v.found(nil, seq, "a block of a log that has no record")
		}
		if err := v.stopped(); err != nil {
			return err
		}
	}
	return nil
}

// signatureCheck verifies signatures as far apart as a run may be long: one
// proves all blocks before it by the hash chain.
type signatureCheck struct {
	origin  r.OriginKey
	pending *r.Block // newest signed block that was not verified yet
	blocks  int      // since the newest verified signature
	bytes   int
	gap     int // blocks since the newest signature
	gapLen  int // bytes since then
}

func (c *signatureCheck) add(b *r.Block) error {
	n := b.EncodedLen()
	c.blocks++
	c.bytes += n
	c.gap++
	c.gapLen += n
	if c.pending != nil && (c.blocks > r.MaxRunBlocks || c.bytes > r.MaxRunBytes) {
		if err := c.verify(); err != nil {
			return err
		}
		c.blocks, c.bytes = c.gap, c.gapLen
	}
	if c.gap > r.MaxRunBlocks || c.gapLen > r.MaxRunBytes {
		c.gap, c.gapLen = 0, 0
		return errors.New("signatures are further apart than a run may be long")
	}
	if len(b.Sig) > 0 {
		c.pending, c.gap, c.gapLen = b, 0, 0
	}
	return nil
}

func (c *signatureCheck) verify() error {
	b := c.pending
	c.pending = nil
	if b != nil && !r.VerifyBlockSig(c.origin, b.Hash, b.Sig) {
		return &r.SignatureError{Log: b.Header.Log, Seq: b.Header.LastSeq()}
	}
	return nil
}

// end checks what the last blocks of a log owe.
func (c *signatureCheck) end() error {
	if c.gap > 0 {
		return errors.New("the log does not end in a signature")
	}
	return c.verify()
}
