package bench

import (
	"context"
	"errors"
	"fmt"

	"vixp2p/replication"
	"vixp2p/replication/compress"
)

// Pair is a writer and a peer, each a store and its replicator on a libp2p host over
// TCP, without a view: for comparisons with other systems (bench/peers).
type Pair struct {
	link         *link
	writer, peer *member
	session      *session
}

// Prepare writes batches to a new directory for a writer, and closes it. It does not
// wait for the disk, which changes nothing of the bytes.
func Prepare(ctx context.Context, dir string, batches func(yield func([][]byte) bool)) error {
	store, err := openStore(dir, farKey, true)
	if err != nil {
		return err
	}
	for payloads := range batches {
		if _, err = store.Append(ctx, batchOf(payloads)); err != nil {
			break
		}
	}
	return errors.Join(err, store.Close())
}

// OpenPair opens both on their directories, new ones or of an earlier Pair, and
// connects the hosts. Nothing is replicated before Start.
func OpenPair(ctx context.Context, writer, peer string) (p *Pair, err error) {
	p = &Pair{}
	if p.link, err = openLink(ctx, "tcp"); err != nil {
		return nil, err
	}
	if p.peer, err = openMember(peer, p.link.keys[0], false); err == nil {
		p.writer, err = openMember(writer, p.link.keys[1], false)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Start begins the session, from Hello on.
func (p *Pair) Start(ctx context.Context) error {
	s, err := p.link.start(ctx, p.peer, p.writer)
	if err == nil {
		p.session = s
	}
	return err
}

// Append writes a batch and returns when it is durable at the writer.
func (p *Pair) Append(ctx context.Context, payloads [][]byte) error {
	_, err := p.writer.store.Append(ctx, batchOf(payloads))
	return err
}

// Await waits until so many operations are durable at the peer since it was opened.
func (p *Pair) Await(ctx context.Context, ops int) error {
	return p.peer.reach(ctx, uint64(ops))
}

// Read tells the payloads that the peer holds, in the order of the writer's log.
func (p *Pair) Read(fn func(payload []byte) error) error {
	const bytes = 1 << 20
	for after := uint64(0); ; {
		arrivals, err := p.peer.store.ReadArrivals(benchSpace, after, bytes)
		if err != nil || len(arrivals) == 0 {
			return err
		}
		for _, a := range arrivals {
			ops, err := compress.Ops(a.Block)
			if err != nil {
				return fmt.Errorf("cannot read block %d: %w", a.Number, err)
			}
			for _, op := range ops {
				if err := fn(op.Payload); err != nil {
					return err
				}
			}
			after = a.Number
		}
	}
}

// Close closes both and their hosts; the directories stay.
func (p *Pair) Close() (err error) {
	if p.session != nil {
		p.session.end()
	}
	for _, m := range []*member{p.peer, p.writer} {
		if m != nil {
			err = errors.Join(err, m.close())
		}
	}
	return errors.Join(err, p.link.close())
}

func batchOf(payloads [][]byte) replication.Batch {
	ops := make([]replication.Op, len(payloads))
	for i, b := range payloads {
		ops[i] = replication.Op{Kind: replication.KindApp, Name: "bench", Payload: b}
	}
	return replication.Batch{Space: benchSpace, Ops: ops}
}
