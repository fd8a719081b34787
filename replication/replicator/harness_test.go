package replicator_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
	"vixp2p/replication/replicator"
)

var (
	network = replication.OpenNetwork("dev")
	space   = replication.SpaceOf(network, replication.DefaultSpace)
	known   = []replication.SpaceInfo{{ID: space, Name: replication.DefaultSpace}}
)

// node is a store with its replicator.
type node struct {
	t     testing.TB
	name  string
	disk  *memlog.Disk
	seed  byte
	store replication.Store
	r     *replicator.Replicator
	o     replicator.Options
}

// newNode opens a node with its own key; close it yourself or let the test do it.
func newNode(t testing.TB, name string, change ...func(*replicator.Options)) *node {
	t.Helper()
	n := &node{t: t, name: name, disk: &memlog.Disk{}, seed: name[0]}
	for _, c := range change {
		c(&n.o)
	}
	n.open()
	t.Cleanup(n.close)
	return n
}

func (n *node) open() {
	n.t.Helper()
	store, err := memlog.Open(memlog.Options{
		Network: network, Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n.name[0]}, 32)),
		Now: time.Now, Rand: rand.NewChaCha8([32]byte{n.seed}), Disk: n.disk,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.seed += 64
	n.start(store)
}

func (n *node) start(store replication.Store) {
	n.t.Helper()
	n.store = store
	n.o.Store = store
	n.o.Spaces = known
	if testing.Verbose() {
		n.o.Logger = slog.New(slog.NewTextHandler(testWriter{n}, nil)).With("node", n.name)
	}
	var err error
	if n.r, err = replicator.New(n.o); err != nil {
		n.t.Fatal(err)
	}
}

type testWriter struct{ n *node }

func (w testWriter) Write(p []byte) (int, error) {
	w.n.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (n *node) close() {
	if n.r == nil {
		return
	}
	if err := n.r.Close(context.Background()); err != nil {
		n.t.Error(err)
	}
	n.r = nil
	if err := n.store.Close(); err != nil {
		n.t.Error(err)
	}
}

// restart closes the node and opens it again on the same disk.
func (n *node) restart() {
	n.t.Helper()
	n.close()
	n.open()
}

func (n *node) key() replication.OriginKey { return n.store.Info().Self }

func (n *node) info() replicator.PeerInfo {
	in := n.store.Info()
	return replicator.PeerInfo{ID: n.name, Key: in.Self, Instance: in.Instance, Label: n.name, Spaces: known, Levels: true}
}

func (n *node) attach(to *node, c replicator.Conn) *replicator.Peer {
	n.t.Helper()
	p, err := n.r.Attach(to.info(), c)
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

// connect joins two nodes. It returns each one's session and a's end.
func connect(a, b *node) (pa, pb *replicator.Peer, c *conn) {
	ca, cb := newConns()
	ca.account, cb.account = a.r.Budget().Open(), b.r.Budget().Open()
	return a.attach(b, ca), b.attach(a, cb), ca
}

// append writes a batch of ops of about size bytes each.
func (n *node) append(ops, size int) replication.Appended {
	n.t.Helper()
	at, err := n.store.Append(context.Background(), replication.Batch{Space: space, Ops: makeOps(ops, size)})
	if err != nil {
		n.t.Fatal(err)
	}
	return at
}

func makeOps(n, size int) []replication.Op {
	ops := make([]replication.Op, n)
	for i := range ops {
		payload := make([]byte, max(8, size))
		binary.LittleEndian.PutUint64(payload, uint64(i))
		ops[i] = replication.Op{Kind: replication.KindApp, Name: "note", Payload: payload}
	}
	return ops
}

// digest is the root of the node's frontier.
func (n *node) digest() replication.Hash {
	var all []replication.FrontierEntry
	for _, l := range n.store.Logs(space) {
		all = append(all, l.Entry())
	}
	return replication.FrontierRoot(all)
}

// tip is how far the node holds a log.
func (n *node) tip(log replication.LogID) uint64 {
	info, _ := n.store.Log(log)
	return info.Tip.Seq
}

// within is a context for what must happen soon.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// arrives waits until all nodes hold the same non-empty frontier.
func arrives(t testing.TB, nodes ...*node) {
	t.Helper()
	eventually(t, "equal frontiers", func() bool {
		first := nodes[0].digest()
		for _, n := range nodes[1:] {
			if n.digest() != first {
				return false
			}
		}
		return !first.IsZero()
	})
}

// eventually waits for a condition that has no event to wait for.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within 30 s", what)
		}
	}
}

// noGoroutines checks that no goroutine of the package is left.
func noGoroutines(t testing.TB) {
	t.Helper()
	var left []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		buf := make([]byte, 1<<20)
		left = left[:0]
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "vixp2p/replication/replicator.") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(time.Millisecond) // a goroutine that is done may still be on its way out
	}
	t.Fatalf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
}
