package replicator_test

import (
	"context"
	"crypto/ed25519"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"vixp2p/internal/rawdisk"
	"vixp2p/internal/usage"
	"vixp2p/replication"
	"vixp2p/replication/replicator"
	"vixp2p/replication/wal"
)

const benchBytes = 256

// load is how the operations of a benchmark were written.
type load struct{ ops, batch int }

func openWAL(b *testing.B, dir string, seed byte, relaxed bool) *wal.Store {
	b.Helper()
	key := make([]byte, 32)
	key[0] = seed
	s, err := wal.Open(wal.Options{Dir: filepath.Join(dir, "log"), Network: network, Key: ed25519.NewKeyFromSeed(key), Relaxed: relaxed})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func (l load) fill(b *testing.B, s replication.Store) {
	b.Helper()
	for range l.ops / l.batch {
		if _, err := s.Append(context.Background(), replication.Batch{Space: space, Ops: makeOps(l.batch, benchBytes)}); err != nil {
			b.Fatal(err)
		}
	}
}

// bareIngest copies all runs from one store to another without anything in
// between but the verification: what replication can reach at most.
func bareIngest(b *testing.B, from, to replication.Store) time.Duration {
	b.Helper()
	start := time.Now()
	window := make(chan struct{}, 4)
	fail := make(chan error, 1)
	for _, l := range from.Logs(space) {
		for at := (replication.Position{}); at != l.Tip; {
			run, err := from.ReadRun(l.Log, at, replication.MaxRunBytes)
			if err != nil {
				b.Fatal(err)
			}
			src := replication.RunSource{Network: network, Log: l.Log, Origin: &l.Origin, Space: space, From: at}
			verified, err := replication.VerifyRun(src, run.Data)
			if err != nil {
				b.Fatal(err)
			}
			at = run.End
			window <- struct{}{}
			to.Ingest(1, verified, func(res replication.IngestResult) {
				if res.Err != nil {
					select {
					case fail <- res.Err:
					default:
					}
				}
				<-window
			})
		}
	}
	for range cap(window) {
		window <- struct{}{}
	}
	select {
	case err := <-fail:
		b.Fatal(err)
	default:
	}
	return time.Since(start)
}

func benchReplicator(b *testing.B, s replication.Store) *replicator.Replicator {
	b.Helper()
	r, err := replicator.New(replicator.Options{Store: s, Spaces: known})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// BenchmarkCatchUp brings durable operations of 256 bytes from one store to
// another over an in-memory connection, and copies the same without replication
// for comparison: 1,000,000 that were written in batches of 1,000, and 200,000
// that were written one by one. Run it with -benchtime 1x.
func BenchmarkCatchUp(b *testing.B) {
	b.Run("batches", func(b *testing.B) { load{1_000_000, 1000}.catchUp(b) })
	b.Run("single", func(b *testing.B) { load{200_000, 1}.catchUp(b) })
}

func (l load) catchUp(b *testing.B) {
	source := openWAL(b, b.TempDir(), 1, true)
	defer source.Close()
	l.fill(b, source)
	var bare, whole, bareCPU, wholeCPU time.Duration
	for b.Loop() {
		target := openWAL(b, b.TempDir(), 2, false)
		cpu := usage.ProcessorTime(b)
		bare += bareIngest(b, source, target)
		bareCPU += usage.ProcessorTime(b) - cpu
		if err := target.Close(); err != nil {
			b.Fatal(err)
		}

		target = openWAL(b, b.TempDir(), 2, false)
		ra, rb := benchReplicator(b, source), benchReplicator(b, target)
		ca, cb := newConns()
		ca.account, cb.account = ra.Budget().Open(), rb.Budget().Open()
		start := time.Now()
		cpu = usage.ProcessorTime(b)
		attach(b, ra, target, ca)
		attach(b, rb, source, cb)
		if err := rb.WaitSynced(context.Background(), 1, nil); err != nil {
			b.Fatal(err)
		}
		whole += time.Since(start)
		wholeCPU += usage.ProcessorTime(b) - cpu
		if got := rb.Counters(); got.OpsIn != uint64(l.ops) {
			b.Fatalf("counters: %+v", got)
		}
		for _, close := range []func() error{
			func() error { return ra.Close(context.Background()) },
			func() error { return rb.Close(context.Background()) }, target.Close,
		} {
			if err := close(); err != nil {
				b.Fatal(err)
			}
		}
	}
	ops := float64(b.N) * float64(l.ops)
	b.ReportMetric(ops/whole.Seconds(), "ops/s")
	b.ReportMetric(ops/bare.Seconds(), "bare-ops/s")
	b.ReportMetric(float64(bare)/float64(whole), "of-bare")
	b.ReportMetric(float64(wholeCPU.Nanoseconds())/ops, "cpu-ns/op")
	b.ReportMetric(float64(bareCPU.Nanoseconds())/ops, "bare-cpu-ns/op")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLive is one append of 256 bytes after the other, each awaited until it is
// durable on both of two stores with a session over an in-memory connection: median and
// 99th percentile in us, and in medians of raw appends with fsync that are measured by
// turns; and the 99th percentile of these.
func BenchmarkLive(b *testing.B) {
	dir := b.TempDir()
	raw, err := rawdisk.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	near, far := openWAL(b, b.TempDir(), 1, false), openWAL(b, b.TempDir(), 2, false)
	came := make(chan struct{}, 1)
	cancel := far.Subscribe(func(replication.Advance) { came <- struct{}{} })
	ra, rb := benchReplicator(b, near), benchReplicator(b, far)
	ca, cb := newConns()
	ca.account, cb.account = ra.Budget().Open(), rb.Budget().Open()
	attach(b, ra, far, ca)
	attach(b, rb, near, cb)
	ctx := context.Background()
	live := func() time.Duration {
		start := time.Now()
		if _, err := near.Append(ctx, replication.Batch{Space: space, Ops: makeOps(1, benchBytes)}); err != nil {
			b.Fatal(err)
		}
		<-came
		return time.Since(start)
	}
	live()
	var took, fsyncs []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		if len(took)%50 == 0 {
			b.StopTimer()
			f, err := raw.Append(ctx, benchBytes, 50)
			if err != nil {
				b.Fatal(err)
			}
			fsyncs = append(fsyncs, f...)
			b.StartTimer()
		}
		took = append(took, live())
	}
	slices.Sort(took)
	slices.Sort(fsyncs)
	fsync := float64(fsyncs[len(fsyncs)/2])
	p50, p99 := float64(took[len(took)/2]), float64(took[len(took)*99/100])
	b.ReportMetric(fsync/1e3, "fsync-us")
	b.ReportMetric(float64(fsyncs[len(fsyncs)*99/100])/fsync, "fsync-p99-fsyncs")
	b.ReportMetric(p50/1e3, "p50-us")
	b.ReportMetric(p99/1e3, "p99-us")
	b.ReportMetric(p50/fsync, "p50-fsyncs")
	b.ReportMetric(p99/fsync, "p99-fsyncs")
	for _, close := range []func() error{
		func() error { return ra.Close(ctx) }, func() error { return rb.Close(ctx) },
		func() error { cancel(); return nil }, near.Close, far.Close,
	} {
		if err := close(); err != nil {
			b.Fatal(err)
		}
	}
}

func attach(b *testing.B, r *replicator.Replicator, to replication.Store, c *conn) {
	b.Helper()
	in := to.Info()
	if _, err := r.Attach(replicator.PeerInfo{ID: "peer", Key: in.Self, Instance: in.Instance, Spaces: known}, c); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkManyLogs is a session of stores that pretend to have that many logs, all
// equal; fastest-us is the shortest time from its start until both sides know.
func BenchmarkManyLogs(b *testing.B) {
	for _, logs := range []int{10_000, 100_000} {
		b.Run(strconv.Itoa(logs), func(b *testing.B) {
			var ends [2]*node
			for i, name := range []string{"A", "B"} {
				n := newNode(b, name, func(o *replicator.Options) {
					o.Observe = func(p *replicator.Peer, e replication.Effect) {
						if _, ok := e.(replication.Settled); ok {
							settled <- struct{}{}
						}
					}
				})
				if err := n.r.Close(context.Background()); err != nil {
					b.Fatal(err)
				}
				n.start(&counted{Store: n.store, logs: logs})
				n.r.Frontier(space) // once for each start of a node
				ends[i] = n
			}
			fastest := time.Hour
			for b.Loop() {
				began := time.Now()
				p, q, _ := connect(ends[0], ends[1])
				<-settled
				<-settled
				fastest = min(fastest, time.Since(began))
				p.Close(replication.CodeShutdown, "")
				<-p.Done()
				<-q.Done()
			}
			b.ReportMetric(float64(fastest.Microseconds()), "fastest-us")
		})
	}
}

// settled hears of the sessions of BenchmarkManyLogs.
var settled = make(chan struct{}, 2)
