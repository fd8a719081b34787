package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"vixp2p/node"
	"vixp2p/node/bench"
)

// vixPair is two stores with their replicators, without views.
type vixPair struct{ *bench.Pair }

func prepareVix(ctx context.Context, dir string, l load) error {
	return bench.Prepare(ctx, dir, func(yield func([][]byte) bool) {
		for b := range l.batches(0) {
			if !yield(b.payloads) {
				return
			}
		}
	})
}

func openVix(ctx context.Context, writer, peer string) (pair, error) {
	p, err := bench.OpenPair(ctx, writer, peer)
	if err != nil {
		return nil, err
	}
	return vixPair{p}, nil
}

func (p vixPair) start(ctx context.Context) error          { return p.Start(ctx) }
func (p vixPair) write(ctx context.Context, b batch) error { return p.Append(ctx, b.payloads) }
func (p vixPair) await(ctx context.Context, ops int) error { return p.Await(ctx, ops) }
func (p vixPair) close() error                             { return p.Close() }
func (p vixPair) read(_ context.Context, fn func(int, []byte) error) error {
	i := -1
	return p.Read(func(payload []byte) error {
		i++
		return fn(i, payload)
	})
}

// nodePair is two whole nodes, and puts in their default space.
type nodePair struct{ writer, peer *node.Node }

func prepareNode(ctx context.Context, dir string, l load) error {
	n, err := openNode(ctx, dir, func(c *node.Config) { c.Offline, c.Durability = true, node.Relaxed })
	if err != nil {
		return err
	}
	for b := range l.batches(0) {
		if err = putBatch(ctx, n.Space("default"), b); err != nil {
			break
		}
	}
	return errors.Join(err, n.Close())
}

func openNodes(ctx context.Context, writer, peer string) (pair, error) {
	w, err := openNode(ctx, writer, nil)
	if err != nil {
		return nil, err
	}
	p, err := openNode(ctx, peer, nil)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return &nodePair{w, p}, nil
}

// openNode opens a node that takes part in nothing but what is measured.
func openNode(ctx context.Context, dir string, change func(*node.Config)) (*node.Node, error) {
	cfg := node.Config{DataDir: dir, NetworkName: "bench", NoDiscovery: true, NoConnect: true, NoQUIC: true}
	if change != nil {
		change(&cfg)
	}
	return node.Open(ctx, cfg)
}

func (p *nodePair) start(ctx context.Context) error {
	for _, a := range p.writer.Addrs() {
		if strings.HasPrefix(a, "/ip4/127.0.0.1/tcp/") {
			_, _, err := p.peer.Connect(ctx, a)
			return err
		}
	}
	return fmt.Errorf("the writer does not listen on loopback, but on %v", p.writer.Addrs())
}

func (p *nodePair) write(ctx context.Context, b batch) error {
	return putBatch(ctx, p.writer.Space("default"), b)
}

func putBatch(ctx context.Context, s *node.Space, b batch) error {
	if len(b.payloads) == 1 {
		_, err := s.Put(ctx, keyOf(b.from), b.payloads[0])
		return err
	}
	_, err := s.Batch(ctx, func(n *node.Batch) error {
		for i, payload := range b.payloads {
			n.Put(keyOf(b.from+i), payload)
		}
		return nil
	})
	return err
}

// await waits for the last key: the view follows the log in its order.
func (p *nodePair) await(ctx context.Context, ops int) error {
	return poll(ctx, time.Millisecond, func() (bool, error) {
		_, err := p.peer.Space("default").Get(ctx, keyOf(ops-1))
		if errors.Is(err, node.ErrNotFound) {
			return false, nil
		}
		return true, err
	})
}

func (p *nodePair) read(ctx context.Context, fn func(int, []byte) error) error {
	for e, err := range p.peer.Space("default").List(ctx, "") {
		if err != nil {
			return err
		}
		i, err := numberOf(e.Key)
		if err == nil {
			err = fn(i, e.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *nodePair) close() error { return errors.Join(p.peer.Close(), p.writer.Close()) }
