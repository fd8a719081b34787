package wal

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"vixp2p/internal/rawdisk"
	"vixp2p/internal/usage"
	r "vixp2p/replication"
	"vixp2p/replication/logtest"
)

// rawSync measures what the disk can do: appends of 256 bytes, each followed by
// an fsync, per second.
func rawSync(b *testing.B, dir string) float64 {
	b.Helper()
	f, err := rawdisk.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	rate, err := f.Rate(context.Background(), 256, 1000)
	if err != nil {
		b.Fatal(err)
	}
	return rate
}

// BenchmarkAppend reports durable appends of 256 bytes by 1, 64 and 512 writers,
// per second and per raw append and fsync of the same run.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 64, 512} {
		b.Run(map[int]string{1: "writers=1", 64: "writers=64", 512: "writers=512"}[writers], func(b *testing.B) {
			dir := b.TempDir()
			before := rawSync(b, dir)
			s := openAt(b, filepath.Join(dir, "s"), "a")
			payload := make([]byte, 256)
			ctx := context.Background()
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						op := r.Op{Kind: r.KindApp, Name: "bench", Payload: payload}
						if _, err := s.Append(ctx, r.Batch{Space: testSpace, Ops: []r.Op{op}}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			rate := float64(b.N) / b.Elapsed().Seconds()
			raw := (before + rawSync(b, dir)) / 2
			b.ReportMetric(rate, "appends/s")
			b.ReportMetric(raw, "fsyncs/s")
			b.ReportMetric(rate/raw, "appends/fsync")
			b.ReportMetric(float64(s.state0().blocks)/float64(b.N), "blocks/op")
		})
	}
}

// BenchmarkAppendLarge reports how many MB a second 64 writers append durably in
// operations of 64 KiB, of which a transaction holds 1 MiB, and what raw appends of 1 MiB
// with their fsync carry in the same run.
func BenchmarkAppendLarge(b *testing.B) {
	dir := b.TempDir()
	raw, err := rawdisk.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	rate, err := raw.Rate(context.Background(), 1<<20, 200)
	if err != nil {
		b.Fatal(err)
	}
	s := openAt(b, filepath.Join(dir, "s"), "a")
	payload := make([]byte, 64<<10-100)
	_, _ = rand.NewChaCha8([32]byte{}).Read(payload)
	b.SetBytes(int64(len(payload)))
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				op := r.Op{Kind: r.KindApp, Name: "bench", Payload: payload}
				if _, err := s.Append(context.Background(), r.Batch{Space: testSpace, Ops: []r.Op{op}}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(rate*(1<<20)/1e6, "raw-MB/s")
}

// BenchmarkCommit reports the medians, in us, of what a lone append is made of, taken
// by turns: a raw append of the same bytes with its fsync, the least synced transaction
// of Badger (one entry) and one with the three entries of a commit, the signature, and
// the append; and what each takes of the processor.
func BenchmarkCommit(b *testing.B) {
	dir := b.TempDir()
	raw, err := rawdisk.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	s := openAt(b, filepath.Join(dir, "s"), "a")
	db, err := badger.Open(badgerOptions(&Options{}, filepath.Join(dir, "badger"), &badgerLog{l: s.opt.Logger}))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if sync := valueSync(db); sync != nil {
		*sync = false
	}
	n := uint64(0)
	put := func(sizes ...int) func() error {
		return func() error {
			return db.Update(func(txn *badger.Txn) error {
				for _, size := range sizes {
					n++
					if err := txn.Set(binary.BigEndian.AppendUint64(make([]byte, 9, 17), n), make([]byte, size)); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	ctx := context.Background()
	payload := make([]byte, 256)
	parts := []struct {
		name string
		fn   func() error
	}{
		{"raw", func() error { _, err := raw.Append(ctx, len(payload), 1); return err }},
		{"badger-1", put(len(payload))},
		{"badger-3", put(470, 190, 110)},
		{"sign", func() error { r.SignBlock(s.opt.Key, r.Hash{}); return nil }},
		{"append", func() error {
			_, err := s.Append(ctx, r.Batch{Space: testSpace, Ops: []r.Op{{Kind: r.KindApp, Name: "bench", Payload: payload}}})
			return err
		}},
	}
	took := make([][]time.Duration, len(parts))
	used := make([]time.Duration, len(parts))
	const turn = 20
	for range (b.N + turn - 1) / turn {
		for i, p := range parts {
			before := usage.ProcessorTime(b)
			for range turn {
				start := time.Now()
				if err := p.fn(); err != nil {
					b.Fatal(err)
				}
				took[i] = append(took[i], time.Since(start))
			}
			used[i] += usage.ProcessorTime(b) - before
		}
	}
	for i, p := range parts {
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/2].Nanoseconds())/1e3, p.name+"-us")
		b.ReportMetric(float64(used[i].Nanoseconds())/1e3/float64(len(took[i])), p.name+"-cpu-us")
	}
	b.ReportMetric(0, "ns/op")
}

// state0 is the state of any log.
func (s *Store) state0() logState {
	for _, l := range s.idx.logs {
		return *l
	}
	return logState{}
}

// BenchmarkIngest reports how fast a store takes a catch-up stream: b.N
// operations of 256 bytes in blocks of 1,000, cut into runs, read from another
// store and verified on the way.
func BenchmarkIngest(b *testing.B) {
	dir := b.TempDir()
	from := openAt(b, filepath.Join(dir, "a"), "a", func(o *Options) { o.Relaxed = true })
	payload := make([]byte, 256)
	var id r.LogID
	for n := 0; n < b.N; n += 1000 {
		ops := make([]r.Op, min(1000, b.N-n))
		for i := range ops {
			ops[i] = r.Op{Kind: r.KindApp, Name: "bench", Payload: payload}
		}
		id = mustAppend(b, from, ops...).First.Log
	}
	var runs []*r.VerifiedRun
	src := r.RunSource{Network: testNetwork, Log: id, Space: testSpace, Origin: &from.self}
	readStart := time.Now()
	for {
		run, err := from.ReadRun(id, src.From, 0)
		if err != nil {
			b.Fatal(err)
		}
		if run.Data == nil {
			break
		}
		v, err := r.VerifyRun(src, run.Data)
		if err != nil {
			b.Fatal(err)
		}
		runs = append(runs, v)
		src.From = v.End()
	}
	reading := time.Since(readStart)
	before := rawSync(b, dir)
	to := openAt(b, filepath.Join(dir, "b"), "b")
	b.ResetTimer()
	window := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for _, v := range runs {
		window <- struct{}{}
		wg.Add(1)
		to.Ingest(1, v, func(res r.IngestResult) {
			if res.Code != r.Committed {
				b.Error(res)
			}
			<-window
			wg.Done()
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64(b.N)/reading.Seconds(), "read+verify-ops/s")
	b.ReportMetric(before, "fsyncs/s")
}

// BenchmarkOpenManyLogs reports what b.N logs cost: time to open, memory per log.
// Run it with -benchtime 100000x.
func BenchmarkOpenManyLogs(b *testing.B) {
	dir := b.TempDir()
	s := openAt(b, dir, "a", func(o *Options) { o.Relaxed = true })
	var wg sync.WaitGroup
	window := make(chan struct{}, 1024)
	for i := range b.N {
		w := logtest.NewWriter(testNetwork, testSpace, uint64(i)).AddMany(1)
		window <- struct{}{}
		wg.Add(1)
		s.Ingest(uint64(i%64)+1, w.Run(b, 0, 1), func(res r.IngestResult) {
			if res.Code != r.Committed {
				b.Error(res)
			}
			<-window
			wg.Done()
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	s = nil
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	s = openAt(b, dir, "a")
	b.StopTimer()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.Elapsed().Milliseconds()), "ms-to-open")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "heap-B/log")
	runtime.KeepAlive(s)
}
