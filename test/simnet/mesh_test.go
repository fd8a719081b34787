package simnet_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/marcopolo/simnet"

	"vixp2p/node"
)

// TestMeshCarriesOnce: whole nodes, each with a session with every other one, of which
// one writes: all receive its log about once, the first block included.
func TestMeshCarriesOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("whole nodes in such a number are for the plain run")
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { meshCarriesOnce(t, dir) })
}

// meshCarriesOnce runs in virtual time.
func meshCarriesOnce(t *testing.T, dir string) {
	const n, blocks = 12, 50
	nw := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(latency)}
	nw.Start()
	var all []host.Host
	var nodes []*node.Node
	defer func() { closeSwarm(t, nw, nodes, all) }()
	for i := 1; i <= n; i++ {
		h := newHost(t, nw, i)
		all = append(all, h)
		x, err := node.Open(t.Context(), node.Config{
			DataDir: filepath.Join(dir, fmt.Sprint(i)), Label: fmt.Sprint(i), Host: h,
			Durability: node.Relaxed, MaxPeers: maxConns, NoDiscovery: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		for k := 1; k < i; k++ {
			if _, _, err := x.Connect(t.Context(), fmt.Sprintf("%s/p2p/%s", addrOf(k), all[k-1].ID())); err != nil {
				t.Fatal(err)
			}
		}
		nodes = append(nodes, x)
	}
	synced := func() {
		t.Helper()
		for i, x := range nodes {
			if err := x.Wait(t.Context(), node.WaitOptions{Peers: n - 1, Synced: true}); err != nil {
				t.Fatalf("node %d: %v", i+1, err)
			}
		}
	}
	synced()
	time.Sleep(5 * time.Second)
	held := func() float64 {
		st, err := nodes[0].Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return float64(st.Spaces["default"].Bytes)
	}
	start, before := held(), make([]uint64, n)
	for i, x := range nodes {
		before[i] = x.Counters().Replication.BytesIn
	}
	random := rand.NewChaCha8([32]byte{}) // what packs would be less than what else is said
	for i := range blocks {
		value := make([]byte, 4000)
		_, _ = random.Read(value)
		if _, err := nodes[n/2].Space("").Put(t.Context(), fmt.Sprint("key/", i), value); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	synced()
	payload, sum, most := held()-start, 0.0, 0.0
	for i, x := range nodes {
		in := float64(x.Counters().Replication.BytesIn - before[i])
		sum += in
		most = max(most, in)
	}
	t.Logf("%.3f times the payload on average, %.3f at most", sum/payload/(n-1), most/payload)
	if sum > 1.1*payload*(n-1) {
		t.Errorf("the nodes received %.0f bytes for %d times %.0f", sum, n-1, payload)
	}
}
