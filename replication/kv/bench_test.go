package kv

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"vixp2p/replication"
)

const benchOps = 200_000

// fill commits benchOps puts of 256 bytes on as many keys, 1,000 in a block.
func fill(b *testing.B, keys int) (s replication.Store) {
	b.Helper()
	store, a := newStore(b, 1), newAuthor(2, 1)
	var at replication.Position
	var ops []replication.Op
	value := string(make([]byte, 256))
	hlc := replication.HLC(1 << 40)
	for i := range benchOps {
		hlc++
		o := put(fmt.Sprintf("user/%09d", (i*7919)%keys), value)
		o.HLC, o.Order = hlc, uint64(hlc)
		if i >= keys {
			o.Supersedes = []replication.Dot{a.dot(uint64(i-keys) + 1)}
		}
		if ops = append(ops, o); len(ops) == 1000 {
			at = ingest(b, store, a, at, a.block(ops, nil))
			ops = ops[:0]
		}
	}
	return store
}

func benchmarkApply(b *testing.B, keys int) {
	store := fill(b, keys)
	b.ReportAllocs()
	for b.Loop() {
		v, err := Open(Options{Dir: tempDir(b), Store: store, BootID: "boot"})
		if err != nil {
			b.Fatal(err)
		}
		if err := v.WaitApplied(context.Background(), testSpace, store.Head()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		v.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(benchOps)*float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

// BenchmarkApplyNew applies puts of new keys.
func BenchmarkApplyNew(b *testing.B) { benchmarkApply(b, benchOps) }

// BenchmarkApplyOver applies puts that replace others.
func BenchmarkApplyOver(b *testing.B) { benchmarkApply(b, benchOps/10) }

// BenchmarkApplyHot applies puts of few keys, which are coalesced.
func BenchmarkApplyHot(b *testing.B) { benchmarkApply(b, 100) }

func benchmarkView(b *testing.B) (*View, int) {
	const keys = benchOps / 2
	store := fill(b, keys)
	v := openView(b, store, tempDir(b))
	if err := v.WaitApplied(context.Background(), testSpace, store.Head()); err != nil {
		b.Fatal(err)
	}
	return v, keys
}

// BenchmarkGet reads values of 256 bytes of 100,000 keys.
func BenchmarkGet(b *testing.B) {
	v, keys := benchmarkView(b)
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	var n atomic.Int64
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			i := int(n.Add(104729))
			if _, ok, err := v.Get(ctx, testSpace, fmt.Appendf(nil, "user/%09d", i%keys)); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

// BenchmarkList lists 100,000 keys.
func BenchmarkList(b *testing.B) {
	v, keys := benchmarkView(b)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if err := v.List(context.Background(), testSpace, nil, func(Entry) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(keys)*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
}

// BenchmarkVerify checks 100,000 keys, as Open does after an unclean stop.
func BenchmarkVerify(b *testing.B) {
	v, keys := benchmarkView(b)
	for b.Loop() {
		err := v.Verify(context.Background(), VerifyOptions{}, func(f replication.Finding) { b.Fatal(f) })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(keys)*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
}
