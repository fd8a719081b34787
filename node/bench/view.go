package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"

	"vixp2p/replication"
	"vixp2p/replication/kv"
	"vixp2p/replication/wal"
)

// viewKey is a key of 24 bytes.
func viewKey(i int) []byte { return fmt.Appendf(nil, "user/%019d", i) }

// fillPuts writes puts of keys by turns, in batches of 1,000. Each replaces the
// put before of its key, as the view would have it.
func fillPuts(ctx context.Context, store *wal.Store, ops, keys int) error {
	const batch = 1000
	var log replication.LogID
	for from := 0; from < ops; from += batch {
		list := make([]replication.Op, batch)
		for k := range list {
			i := from + k
			list[k] = replication.Op{Kind: replication.KindPut, Key: viewKey(i % keys), Payload: payload(i, payloadBytes)}
			if i >= keys {
				list[k].Supersedes = []replication.Dot{{Log: log, Seq: uint64(i-keys) + 1}}
			}
		}
		at, err := store.Append(ctx, replication.Batch{Space: benchSpace, Ops: list})
		if err != nil {
			return err
		}
		log = at.First.Log
	}
	return nil
}

// withPuts runs fn with a store of so many puts.
func (s *scene) withPuts(ctx context.Context, ops, keys int, fn func(*wal.Store) ([][]turn, error)) ([][]turn, error) {
	dir, err := s.sub()
	if err != nil {
		return nil, err
	}
	store, err := openStore(dir, farKey, true)
	if err != nil {
		return nil, err
	}
	var turns [][]turn
	if err = fillPuts(ctx, store, ops, keys); err == nil {
		turns, err = fn(store)
	}
	return turns, errors.Join(err, store.Close())
}

// openView opens a new view and waits until it has applied everything.
func (s *scene) openView(ctx context.Context, store *wal.Store) (v *kv.View, dir string, err error) {
	if dir, err = s.sub(); err != nil {
		return nil, "", err
	}
	if v, err = kv.Open(kv.Options{Dir: dir, Store: store}); err != nil {
		return nil, "", err
	}
	if err = v.WaitApplied(ctx, benchSpace, store.Head()); err != nil {
		return nil, "", errors.Join(err, v.Close())
	}
	return v, dir, nil
}

// measureApply lets new views apply the same puts.
func measureApply(ctx context.Context, s *scene) ([][]turn, error) {
	ops := pick(s.stage, 200_000, 50_000)
	return s.withPuts(ctx, ops, ops/10, func(store *wal.Store) ([][]turn, error) {
		limit := s.puts(false, ops/1000, 1000, payloadBytes)
		return one(byTurns(ctx, pick(s.stage, 3, 2), limit, func(ctx context.Context) (float64, error) {
			start := time.Now()
			v, dir, err := s.openView(ctx, store)
			if err != nil {
				return 0, err
			}
			rate := perSecond(ops, start)
			return rate, errors.Join(v.Close(), os.RemoveAll(dir))
		}))
	})
}

// measureGet reads all keys, on as many goroutines as there are processors, from
// a view and from a Badger.
func measureGet(ctx context.Context, s *scene) ([][]turn, error) {
	keys := pick(s.stage, 100_000, 20_000)
	return s.withPuts(ctx, keys, keys, func(store *wal.Store) (turns [][]turn, err error) {
		v, _, err := s.openView(ctx, store)
		if err != nil {
			return nil, err
		}
		err = s.withBadger(false, func(db *badger.DB) error {
			if err := putAll(db, keys); err != nil {
				return err
			}
			reads := 2 * keys
			turns, err = one(byTurns(ctx, pick(s.stage, 5, 2),
				gets(reads, keys, func(key []byte) error {
					return db.View(func(txn *badger.Txn) error {
						item, err := txn.Get(key)
						if err == nil {
							_, err = item.ValueCopy(nil)
						}
						return err
					})
				}),
				gets(reads, keys, func(key []byte) error {
					if _, ok, err := v.Get(ctx, benchSpace, key); err != nil || !ok {
						return errors.Join(err, fmt.Errorf("key %s is not in the view", key))
					}
					return nil
				})))
			return err
		})
		return turns, errors.Join(err, v.Close())
	})
}

// putAll writes the keys of a view into a Badger.
func putAll(db *badger.DB, keys int) error {
	batch := db.NewWriteBatch()
	defer batch.Cancel()
	for i := range keys {
		if err := batch.Set(viewKey(i), make([]byte, payloadBytes)); err != nil {
			return err
		}
	}
	return batch.Flush()
}

// gets is reads per second over all processors, of keys in no order.
func gets(reads, keys int, get func(key []byte) error) measure {
	return func(ctx context.Context) (float64, error) {
		workers := runtime.GOMAXPROCS(0)
		var next atomic.Int64
		failed := make(chan error, workers)
		start := time.Now()
		for range workers {
			go func() {
				for {
					i := next.Add(1)
					if i > int64(reads) || ctx.Err() != nil {
						failed <- nil
						return
					}
					if err := get(viewKey(int(i) * 104729 % keys)); err != nil {
						failed <- err
						return
					}
				}
			}()
		}
		var err error
		for range workers {
			err = errors.Join(err, <-failed)
		}
		return perSecond(reads, start), err
	}
}
