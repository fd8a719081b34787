// Package bench measures a whole node beside the physical limits of the machine,
// in the same run. Machines are noisy: read the ratios, not the figures. Nothing
// here asserts on time.
//
//	go test ./test/bench -run '^$' -bench . -benchtime 1x
package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/node"
	"vixp2p/test/internal/proc"
)

func TestMain(m *testing.M) { proc.Main(m) }

const payloadBytes = 256

func openNode(b *testing.B, cfg node.Config) *node.Node {
	b.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = filepath.Join(b.TempDir(), cfg.Label)
	}
	n, err := node.Open(context.Background(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := n.Close(); err != nil {
			b.Error(err)
		}
	})
	return n
}

// rawFile measures what the disk can do.
type rawFile struct {
	f    *os.File
	n    int
	took time.Duration
}

func openRaw(b *testing.B) *rawFile {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	return &rawFile{f: f}
}

// appends makes n appends of size bytes, each with an fsync.
func (r *rawFile) appends(b *testing.B, size, n int) {
	b.Helper()
	buf := make([]byte, size)
	start := time.Now()
	for range n {
		if _, err := r.f.Write(buf); err != nil {
			b.Fatal(err)
		}
		if err := r.f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	r.n, r.took = r.n+n, r.took+time.Since(start)
}

func (r *rawFile) rate() float64 { return float64(r.n) / r.took.Seconds() }

// BenchmarkDurableAppend: appends of 256 B by 1, 64 and 512 concurrent writers,
// each waiting for its own to be durable. The limit is a raw append with fsync,
// measured in turns with them, because the speed of a shared disk changes within
// seconds.
func BenchmarkDurableAppend(b *testing.B) {
	const turns, rawAppends = 10, 200
	for _, writers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			n := openNode(b, node.Config{Label: "A", Offline: true})
			s := n.Space("default")
			payload := make([]byte, payloadBytes)
			total := max(b.N, writers*400)
			raw := openRaw(b)
			var took time.Duration
			b.ResetTimer()
			for range turns {
				raw.appends(b, payloadBytes, rawAppends)
				var next atomic.Int64
				var wg sync.WaitGroup
				start := time.Now()
				for range writers {
					wg.Go(func() {
						for next.Add(1) <= int64(total/turns) {
							if _, err := s.Append(context.Background(), "bench", payload); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				took += time.Since(start)
			}
			rate := float64(total/turns*turns) / took.Seconds()
			b.ReportMetric(rate, "ops/s")
			b.ReportMetric(raw.rate(), "raw-fsync/s")
			b.ReportMetric(rate/raw.rate(), "ops/raw-fsync")
		})
	}
}

// BenchmarkCatchUp: a node that has nothing fetches 1,000,000 operations of
// 256 B, written in batches of 1,000, over loopback TCP. They count when they are
// durable at the receiver.
func BenchmarkCatchUp(b *testing.B) {
	const ops, batch = 1_000_000, 1000
	a := openNode(b, node.Config{Label: "A", NoQUIC: true})
	s := a.Space("default")
	payload := make([]byte, payloadBytes)
	for range ops / batch {
		_, err := s.Batch(context.Background(), func(tx *node.Batch) error {
			for range batch {
				tx.Append("bench", payload)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	addr := tcpAddr(b, a)
	b.ResetTimer()
	for range b.N {
		dir, err := os.MkdirTemp(b.TempDir(), "B")
		if err != nil {
			b.Fatal(err)
		}
		c, err := node.Open(context.Background(), node.Config{Label: "B", DataDir: dir, NoQUIC: true})
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if _, _, err := c.Connect(context.Background(), addr); err != nil {
			b.Fatal(err)
		}
		waitOps(b, c, ops)
		took := time.Since(start).Seconds()
		b.ReportMetric(ops/took, "ops/s")
		b.ReportMetric(ops*payloadBytes/took/1e6, "payload-MB/s")
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdleMemory reports what the program keeps resident when it serves and
// has nothing to do.
func BenchmarkIdleMemory(b *testing.B) {
	n := proc.New(b, "A").Start()
	for range b.N {
		b.ReportMetric(n.Resident(), "MiB-resident")
	}
}

func tcpAddr(b *testing.B, n *node.Node) string {
	b.Helper()
	for _, a := range n.Addrs() {
		if strings.HasPrefix(a, "/ip4/127.0.0.1/tcp/") {
			return a
		}
	}
	b.Fatalf("no TCP address among %v", n.Addrs())
	return ""
}

func waitOps(b *testing.B, n *node.Node, want uint64) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := n.Wait(ctx, node.WaitOptions{Peers: 1, Synced: true}); err != nil {
		b.Fatal(err)
	}
	st, err := n.Status(ctx)
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range st.Spaces {
		if s.Ops == want {
			return
		}
	}
	b.Fatalf("synced, but %d operations are not here: %+v", want, st.Spaces)
}
