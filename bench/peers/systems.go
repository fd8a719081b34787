package main

import (
	"context"
	"time"
)

// pair is a writer and a peer of one system on this machine.
type pair interface {
	// start begins to replicate from the writer to the peer.
	start(ctx context.Context) error
	// write writes a batch as the system does that, and returns when the writer
	// acknowledges it, or may write on.
	write(ctx context.Context, b batch) error
	// await waits until all writes are acknowledged and the peer holds so many
	// operations.
	await(ctx context.Context, ops int) error
	// read tells all operations that the peer holds.
	read(ctx context.Context, fn func(op int, payload []byte) error) error
	// close ends both; their directories stay.
	close() error
}

// system is one of those that are compared.
type system struct {
	name    string
	modules []string // whose versions matter
	// acked says what it means that the writer acknowledges and that the peer holds.
	acked string
	// prepare writes a load to a new directory of a writer without a peer, as fast as
	// it can; open opens both on their directories.
	prepare func(ctx context.Context, dir string, l load) error
	open    func(ctx context.Context, writer, peer string) (pair, error)
	// Operations of each workload, so many that a turn takes a second or two.
	sizes map[string]size
}

// size is operations in a full and in a quick run.
type size struct{ full, quick int }

// The workloads.
const (
	liveSingle     = "live-single"
	liveBatched    = "live-batched"
	catchUpBatched = "catchup-batched"
	catchUpSingle  = "catchup-single"
)

// ours is what the others are compared with.
const ours = "vix"

var systems = []system{
	{
		name:    ours,
		acked:   "signed, chained and fsynced; the peer has checked hashes and signatures and fsynced too; no view",
		prepare: prepareVix, open: openVix,
		sizes: map[string]size{liveSingle: {2_000, 300}, liveBatched: {200_000, 20_000}, catchUpBatched: {1_000_000, 100_000}, catchUpSingle: {200_000, 20_000}},
	},
	{
		name:    "vix-node",
		acked:   "the same between whole nodes, each operation a put; the peer's key-value view shows it too",
		prepare: prepareNode, open: openNodes,
		sizes: map[string]size{liveSingle: {2_000, 300}, liveBatched: {100_000, 10_000}, catchUpBatched: {200_000, 50_000}, catchUpSingle: {50_000, 10_000}},
	},
	{
		name:    "go-ds-crdt",
		modules: []string{"github.com/ipfs/go-ds-crdt", "github.com/ipfs/go-ds-pebble", "github.com/cockroachdb/pebble/v2", "github.com/ipfs/boxo", "github.com/libp2p/go-libp2p-pubsub"},
		acked:   "merged into the writer's Pebble, not fsynced (the default); the peer shows the key from its own Pebble, not fsynced",
		prepare: prepareCRDT, open: openCRDT,
		sizes: map[string]size{liveSingle: {100, 20}, liveBatched: {20_000, 5_000}, catchUpBatched: {40_000, 5_000}, catchUpSingle: {100, 20}},
	},
	{
		name:    "nats",
		modules: []string{"github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go"},
		acked:   "PubAck of the leaf's file stream, not fsynced (the default); stored in the hub's mirror, not fsynced",
		prepare: prepareNATS, open: openNATS(false),
		sizes: map[string]size{liveSingle: {5_000, 500}, liveBatched: {100_000, 10_000}, catchUpBatched: {200_000, 20_000}, catchUpSingle: {200_000, 20_000}},
	},
	{
		name:    "nats-fsync",
		modules: []string{"github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go"},
		acked:   "the same with SyncAlways at both servers: each message is fsynced before its PubAck, and in the mirror",
		prepare: prepareNATS, open: openNATS(true),
		sizes: map[string]size{liveSingle: {2_000, 200}, liveBatched: {5_000, 500}, catchUpBatched: {5_000, 500}, catchUpSingle: {5_000, 500}},
	},
}

// poll asks every interval until it is so; for systems that tell nobody.
func poll(ctx context.Context, interval time.Duration, is func() (bool, error)) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		if yes, err := is(); yes || err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
