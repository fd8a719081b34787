package bench

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"vixp2p/internal/rawdisk"
	"vixp2p/node"
)

// openNode opens a node that takes part in nothing but what is measured.
func openNode(ctx context.Context, dir string, change func(*node.Config)) (*node.Node, error) {
	cfg := node.Config{DataDir: dir, NetworkName: "bench", NoDiscovery: true, NoConnect: true, NoQUIC: true}
	if change != nil {
		change(&cfg)
	}
	return node.Open(ctx, cfg)
}

func offline(c *node.Config) { c.Offline = true }

// measureAppend appends through the library, every writer waiting for its own to
// be durable.
func measureAppend(writers int) func(context.Context, *scene) ([][]turn, error) {
	return func(ctx context.Context, s *scene) ([][]turn, error) {
		// Short turns: a shared disk changes within a second.
		perWriter := max(pick(s.stage, 40, 10), 200/writers)
		return withRaw(s, func(raw *rawdisk.File) ([][]turn, error) {
			dir, err := s.sub()
			if err != nil {
				return nil, err
			}
			n, err := openNode(ctx, dir, offline)
			if err != nil {
				return nil, err
			}
			turns, err := byTurns(ctx, pick(s.stage, 21, 5), rawRate(raw, payloadBytes, 100),
				appends(n.Space("default"), writers, perWriter, payloadBytes))
			return [][]turn{turns}, errors.Join(err, n.Close())
		})
	}
}

// appends is operations per second of so many concurrent writers.
func appends(space *node.Space, writers, perWriter, size int) measure {
	return func(ctx context.Context) (float64, error) {
		var wrote atomic.Int64
		var failed atomic.Pointer[error]
		var wg sync.WaitGroup
		start := time.Now()
		for range writers {
			wg.Go(func() {
				for range perWriter {
					if _, err := space.Append(ctx, "bench", payload(int(wrote.Add(1)), size)); err != nil {
						failed.Store(&err)
						return
					}
				}
			})
		}
		wg.Wait()
		if err := failed.Load(); err != nil {
			return 0, *err
		}
		return perSecond(writers*perWriter, start), nil
	}
}
