package bench

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"vixp2p/internal/rawdisk"
)

// rawRate is appends of size bytes to a file, each with an fsync, per second.
func rawRate(raw *rawdisk.File, size, n int) measure {
	return func(ctx context.Context) (float64, error) { return raw.Rate(ctx, size, n) }
}

// withRaw runs fn with a raw file of the scene.
func withRaw(s *scene, fn func(*rawdisk.File) ([][]turn, error)) ([][]turn, error) {
	raw, err := rawdisk.Open(s.dir)
	if err != nil {
		return nil, err
	}
	turns, err := fn(raw)
	return turns, errors.Join(err, raw.Close())
}

func measureRawAppend(ctx context.Context, s *scene) ([][]turn, error) {
	return withRaw(s, func(raw *rawdisk.File) ([][]turn, error) {
		return one(byTurns(ctx, 5, nil, rawRate(raw, payloadBytes, pick(s.stage, 1000, 200))))
	})
}

// openBadger opens a Badger with the sizes that the log has (replication/wal), so
// that a limit has no other memory or files than what is compared with it.
func openBadger(dir string, synced bool) (*badger.DB, error) {
	return badger.Open(badger.DefaultOptions(dir).WithLogger(nil).WithSyncWrites(synced).
		WithDetectConflicts(false).WithMetricsEnabled(false).
		WithMemTableSize(16 << 20).WithNumMemtables(2).WithNumLevelZeroTables(4).WithNumLevelZeroTablesStall(12).
		WithBlockSize(68 << 10).WithBaseTableSize(1 << 20).
		WithBlockCacheSize(8 << 20).WithIndexCacheSize(8 << 20).WithValueLogFileSize(64 << 20).
		WithValueThreshold(64 << 10).WithCompression(options.None).WithNumCompactors(2))
}

// withBadger runs fn on an empty Badger.
func (s *scene) withBadger(synced bool, fn func(*badger.DB) error) error {
	dir, err := s.sub()
	if err != nil {
		return err
	}
	db, err := openBadger(dir, synced)
	if err != nil {
		return err
	}
	return errors.Join(fn(db), db.Close(), os.RemoveAll(dir))
}

// puts is what so many transactions of puts make per second, in puts.
func (s *scene) puts(synced bool, txns, perTxn, size int) measure {
	return func(ctx context.Context) (rate float64, err error) {
		err = s.withBadger(synced, func(db *badger.DB) error {
			value := make([]byte, size)
			start := time.Now()
			for i := range txns {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				err := db.Update(func(txn *badger.Txn) error {
					for k := range perTxn {
						if err := txn.Set(number(i*perTxn+k), value); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			rate = perSecond(txns*perTxn, start)
			return nil
		})
		return rate, err
	}
}

// number is a key of 16 bytes.
func number(i int) []byte { return binary.BigEndian.AppendUint64(make([]byte, 8, 16), uint64(i)) }

func measureRawBadger(ctx context.Context, s *scene) ([][]turn, error) {
	return one(byTurns(ctx, 3, nil, s.puts(true, pick(s.stage, 200, 30), 1000, payloadBytes)))
}

// measureStream sends bytes over one stream of a transport until the far end has
// read them.
func measureStream(transport string) func(context.Context, *scene) ([][]turn, error) {
	return func(ctx context.Context, s *scene) ([][]turn, error) {
		l, err := openLink(ctx, transport)
		if err != nil {
			return nil, err
		}
		turns, err := byTurns(ctx, 3, nil, l.throughput(pick(s.stage, 512<<20, 64<<20)))
		return [][]turn{turns}, errors.Join(err, l.close())
	}
}

// throughput is MB per second of one stream that carries n bytes.
func (l *link) throughput(n int) measure {
	return func(ctx context.Context) (float64, error) {
		near, far, err := l.stream(ctx)
		if err != nil {
			return 0, err
		}
		defer near.Reset()
		defer far.Reset()
		defer context.AfterFunc(ctx, func() { near.Reset() })()
		sent := make(chan error, 1)
		start := time.Now()
		go func() {
			buf := make([]byte, 256<<10)
			for left := n; left > 0; left -= len(buf) {
				if _, err := near.Write(buf); err != nil {
					sent <- err
					return
				}
			}
			sent <- near.CloseWrite()
		}()
		_, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{far}, make([]byte, 256<<10))
		rate := float64(n) / 1e6 / time.Since(start).Seconds()
		return rate, errors.Join(err, <-sent)
	}
}

// roundTrip is ms that a byte takes to the far end and back, the median of many.
func (l *link) roundTrip(ctx context.Context) (float64, error) {
	near, far, err := l.stream(ctx)
	if err != nil {
		return 0, err
	}
	defer near.Reset()
	defer far.Reset()
	go func() { _, _ = io.Copy(far, struct{ io.Reader }{far}) }() // until the stream is reset
	var took []time.Duration
	buf := make([]byte, 1)
	for range 50 {
		start := time.Now()
		if _, err := near.Write(buf); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(near, buf); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	return milliseconds(quantile(took, 0.5)), nil
}

func measureCrypto(ctx context.Context, s *scene) ([][]turn, error) {
	n := pick(s.stage, 5000, 1000)
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	pub, msg := key.Public().(ed25519.PublicKey), make([]byte, 64)
	sig := ed25519.Sign(key, msg)
	buf := make([]byte, 1<<20)
	times := func(n int, each float64, fn func()) measure {
		return func(context.Context) (float64, error) {
			start := time.Now()
			for range n {
				fn()
			}
			return perSecond(n, start) * each, nil
		}
	}
	var rows [][]turn
	for _, m := range []measure{
		times(n, 1, func() { ed25519.Sign(key, msg) }),
		times(n, 1, func() { ed25519.Verify(pub, msg, sig) }),
		times(n/20, float64(len(buf))/1e6, func() { sha256.Sum256(buf) }),
	} {
		turns, err := byTurns(ctx, 5, nil, m)
		if err != nil {
			return nil, err
		}
		rows = append(rows, turns)
	}
	return rows, nil
}

// pipe is the least that replication can be: n blocks of a size over one libp2p
// TCP stream, each hashed, into one Badger with synced transactions of pipeTxn
// bytes. The far end reads and hashes while a transaction commits.
func (s *scene) pipe(blocks, size int) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (took time.Duration, err error) {
		l, err := openLink(ctx, "tcp")
		if err != nil {
			return 0, err
		}
		err = s.withBadger(true, func(db *badger.DB) error {
			near, far, err := l.stream(ctx)
			if err != nil {
				return err
			}
			defer near.Reset()
			defer far.Reset()
			defer context.AfterFunc(ctx, func() { near.Reset(); far.Reset() })()
			start := time.Now()
			sent := make(chan error, 1)
			go func() { sent <- sendBlocks(near, blocks, size) }()
			came := make(chan []byte, max(1, pipeTxn/size))
			read := make(chan error, 1)
			go func() { read <- readBlocks(far, blocks, size, came) }()
			err = storeBlocks(db, came)
			took = time.Since(start)
			return errors.Join(err, <-read, <-sent)
		})
		return took, errors.Join(err, l.close())
	}
}

// pipeTxn is what the pipe commits at once, in bytes: of what Badger takes, 15 % of
// a memtable, all but room for a last block.
const pipeTxn = 3 << 19

func sendBlocks(w io.Writer, blocks, size int) error {
	out := bufio.NewWriterSize(w, 256<<10)
	block := make([]byte, size)
	for i := range blocks {
		binary.BigEndian.PutUint64(block, uint64(i))
		if _, err := out.Write(block); err != nil {
			return err
		}
	}
	return out.Flush()
}

// readBlocks hands on what comes, with its hash at the end, and closes came.
func readBlocks(r io.Reader, blocks, size int, came chan<- []byte) error {
	defer close(came)
	in := bufio.NewReaderSize(r, 256<<10)
	for range blocks {
		block := make([]byte, size, size+sha256.Size)
		if _, err := io.ReadFull(in, block); err != nil {
			return err
		}
		sum := sha256.Sum256(block)
		came <- append(block, sum[:]...)
	}
	return nil
}

// storeBlocks commits what comes, in transactions of pipeTxn bytes. It reads to the
// end also after an error.
func storeBlocks(db *badger.DB, came <-chan []byte) (err error) {
	for n, open := 0, true; open; {
		txn, size := db.NewTransaction(true), 0
		for size < pipeTxn {
			var block []byte
			if block, open = <-came; !open {
				break
			}
			if err == nil {
				err = txn.Set(number(n), block)
			}
			n++
			size += len(block)
		}
		if err == nil {
			err = txn.Commit()
		}
		txn.Discard()
	}
	return err
}

func measurePipe(ctx context.Context, s *scene) ([][]turn, error) {
	const perBlock = 1000
	blocks := pick(s.stage, 1000, 100)
	pipe := s.pipe(blocks, perBlock*(payloadBytes+10))
	return one(byTurns(ctx, 3, nil, func(ctx context.Context) (float64, error) {
		took, err := pipe(ctx)
		return float64(blocks*perBlock) / took.Seconds(), err
	}))
}
