package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// sameBranch tells whether a run that ends before the log's tip ends in a block
// that is held.
func (s *Store) sameBranch(run *r.VerifiedRun, l *logState) (same bool, err error) {
	end := run.End()
	if end.Seq >= l.tip.Seq {
		return false, nil
	}
	err = s.view(func(txn *badger.Txn) error {
		same, err = endsAt(txn, l, end)
		return err
	})
	return same, s.damaged(l.id, end.Seq, err)
}

// endsAt tells whether a held block below the tip ends at that position, by what
// the block after it says.
func endsAt(txn *badger.Txn, l *logState, at r.Position) (bool, error) {
	b, err := blockAt(txn, l, at.Seq+1)
	if err != nil || b == nil {
		return false, err
	}
	return b.PrevPosition() == at, nil
}

// blockAt reads the block that starts at a seq; nil if none starts there.
func blockAt(txn *badger.Txn, l *logState, firstSeq uint64) (*r.Block, error) {
	key := blockKey(l.num, firstSeq)
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, readProblem(err)
	}
	v, err := item.ValueCopy(nil)
	if err != nil {
		return nil, readProblem(err)
	}
	b, _, err := parseStored(l, key, v)
	return b, err
}

// proveFork builds the proof from our blocks and theirs, from the first place on
// where they contradict each other to a signature.
func (s *Store) proveFork(l *logState, run *r.VerifiedRun) (*r.ForkProof, error) {
	theirs := append(append([]*r.Block(nil), run.Blocks...), run.Tail...)
	proof := &r.ForkProof{Log: l.id, Origin: l.origin}
	err := s.view(func(txn *badger.Txn) error {
		seq, from := run.From.Seq, 0
		if l.tip == run.From || seq == 0 {
			seq++
		} else if same, err := endsAt(txn, l, run.From); err != nil {
			return err
		} else if same {
			seq++
		}
		if seq > run.From.Seq {
			for from < len(theirs)-1 {
				ours, err := blockAt(txn, l, theirs[from].Header.FirstSeq)
				if err != nil {
					return err
				}
				if ours == nil || ours.Hash != theirs[from].Hash {
					break
				}
				from++
			}
			seq = theirs[from].Header.FirstSeq
		}
		ours, err := signedChain(txn, l, seq)
		if err != nil {
			return err
		}
		proof.A, proof.B = encodeChain(ours), encodeChain(theirs[from:])
		return proof.Verify()
	})
	if err != nil {
		return nil, s.damaged(l.id, run.From.Seq, err)
	}
	return proof, nil
}

// signedChain reads our blocks from the one that covers seq up to a signature.
func signedChain(txn *badger.Txn, l *logState, seq uint64) ([]*r.Block, error) {
	start, _, err := lastAtOrBefore(txn, blockPrefix(l.num), blockKey(l.num, seq))
	if err != nil {
		return nil, err
	}
	var chain []*r.Block
	signed := false
	err = each(txn, blockPrefix(l.num), start, func(key, value []byte) (bool, error) {
		b, _, err := parseStored(l, key, append([]byte(nil), value...))
		if err != nil {
			return false, err
		}
		chain = append(chain, b)
		signed = len(b.Sig) > 0
		return !signed && b.Header.LastSeq() < l.tip.Seq && len(chain) < r.MaxRunBlocks, nil
	})
	if err != nil || signed || l.flags&flagTail == 0 {
		return chain, err
	}
	tail, err := readTail(txn, l.id)
	return append(chain, tail...), err
}

// A stored proof: origin, length of A (4 bytes), A, B.
func encodeFork(p *r.ForkProof) []byte {
	b := append([]byte(nil), p.Origin[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(p.A)))
	return append(append(b, p.A...), p.B...)
}

func decodeFork(id r.LogID, b []byte) (r.ForkProof, error) {
	p := r.ForkProof{Log: id}
	if len(b) < 36 || uint64(len(b)) < 36+uint64(binary.BigEndian.Uint32(b[32:])) {
		return p, problem("a fork proof is too short")
	}
	copy(p.Origin[:], b)
	n := binary.BigEndian.Uint32(b[32:])
	p.A, p.B = b[36:36+n], b[36+n:]
	return p, nil
}

// RecordFork keeps the first proof for a log that is held and marks it forked.
// It verifies the proof.
func (s *Store) RecordFork(p r.ForkProof) (bool, error) {
	l, ok := s.state(p.Log)
	if !ok {
		return false, fmt.Errorf("%w: %s", r.ErrUnknownLog, p.Log.Short())
	}
	if p.Origin != l.origin {
		return false, fmt.Errorf("%w: a fork proof for log %s names another origin", r.ErrInvalid, p.Log.Short())
	}
	if err := p.Verify(); err != nil {
		return false, err
	}
	if l.flags&flagForked != 0 {
		return false, nil
	}
	fresh := false
	err := s.control(context.Background(), func(t *tx) error {
		l := t.log(p.Log)
		if fresh = !t.hasOther(forkKey(p.Log)); fresh {
			t.setOther(forkKey(p.Log), encodeFork(&p))
			t.change(l).flags |= flagForked
			if l.origin == s.self && l.epoch == t.epoch() {
				return s.committer.endEpoch(t, "another machine wrote under this node's epoch: a copy of it runs")
			}
		}
		return nil
	})
	return fresh && err == nil, err
}

// ForkProofOf returns the proof that is kept for a log.
func (s *Store) ForkProofOf(id r.LogID) (r.ForkProof, bool) {
	if l, ok := s.state(id); !ok || l.flags&flagForked == 0 {
		return r.ForkProof{}, false
	}
	var p r.ForkProof
	err := s.view(func(txn *badger.Txn) error {
		raw, err := get(txn, forkKey(id))
		if err != nil {
			return err
		}
		p, err = decodeFork(id, raw)
		return err
	})
	if s.damaged(id, 0, err) != nil {
		return r.ForkProof{}, false
	}
	return p, true
}
