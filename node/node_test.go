package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// patience is how long a test waits for what must come. It is far beyond what a
// busy machine needs: no test measures time with it.
const patience = 2 * time.Minute

// testLog sends a node's log to the test.
func testLog(t *testing.T, label string) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", label)
}

// open opens a node in a directory of its own, closed at the end of the test.
func open(t *testing.T, cfg Config) *Node {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	if cfg.Logger == nil {
		cfg.Logger = testLog(t, cfg.Label)
	}
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", n.Label(), err)
		}
	})
	return n
}

// addr is an address of a node that starts with prefix, such as /ip4/127.0.0.1/tcp.
func addr(t *testing.T, n *Node, prefix string) string {
	t.Helper()
	for _, a := range n.Addrs() {
		if len(a) > len(prefix) && a[:len(prefix)] == prefix {
			return a
		}
	}
	t.Fatalf("%s listens on %v, not on %s", n.Label(), n.Addrs(), prefix)
	return ""
}

// steadyAddr is a free address on loopback for a node that comes back there: its port is
// below those that the system picks by itself, so that nobody gets it meanwhile.
func steadyAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		at := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))
		tcp, err := net.Listen("tcp", at)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", at)
		_ = tcp.Close()
		if err != nil {
			continue
		}
		_ = udp.Close()
		return at
	}
	t.Fatal("no free port on loopback")
	return ""
}

const (
	tcp4  = "/ip4/127.0.0.1/tcp/"
	quic4 = "/ip4/127.0.0.1/udp/"
)

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func put(t *testing.T, n *Node, key, value string) *Write {
	t.Helper()
	w, err := n.Space("").Put(deadline(t), key, []byte(value))
	if err != nil {
		t.Fatalf("put on %s: %v", n.Label(), err)
	}
	return w
}

// converge waits until all nodes show the same state with so many keys.
func converge(t *testing.T, keys uint64, nodes ...*Node) {
	t.Helper()
	ctx := deadline(t)
	for {
		var seen []string
		same := true
		for _, n := range nodes {
			d, k, err := n.Space("").Digest(ctx)
			if err != nil {
				t.Fatalf("%s does not converge: %v; saw %v", n.Label(), err, seen)
			}
			seen = append(seen, fmt.Sprintf("%s:%d:%.8s", n.Label(), k, d))
			same = same && k == keys && d[:8] == seen[0][len(seen[0])-8:]
		}
		if same {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the nodes do not converge: %v", seen)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestTwoNodesConverge: writes on both sides before and after they meet, over
// each transport, in both forms of address.
func TestTwoNodesConverge(t *testing.T) {
	for _, c := range []struct {
		name, prefix string
		cfg          Config
	}{
		{"tcp", tcp4, Config{NoQUIC: true}},
		{"quic", quic4, Config{NoTCP: true}},
		{"both", tcp4, Config{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := c.cfg
			cfg.Label = "A"
			a := open(t, cfg)
			cfg.Label = "B"
			b := open(t, cfg)
			put(t, a, "from-a", "1")
			put(t, b, "from-b", "2")
			id, _, err := b.Connect(deadline(t), addr(t, a, c.prefix))
			if err != nil || id != a.ID() {
				t.Fatalf("connect: %q, %v", id, err)
			}
			converge(t, 2, a, b)
			if err := put(t, a, "later", "3").WaitReplicated(deadline(t), 1); err != nil {
				t.Error(err)
			}
			if err := b.Wait(deadline(t), WaitOptions{Peers: 1, Synced: true}); err != nil {
				t.Error(err)
			}
			converge(t, 3, a, b)
			e, err := b.Space("").Get(deadline(t), "later")
			if err != nil || string(e.Value) != "3" || e.Origin != a.ID() || e.Conflicts != 0 {
				t.Errorf("get: %+v, %v", e, err)
			}
			if _, err := b.Space("").Get(deadline(t), "none"); !errors.Is(err, ErrNotFound) {
				t.Errorf("get of an absent key: %v", err)
			}
		})
	}
}

// timedOut lets calls run out of their time, each with more than the one before, until
// one has had enough to hear all that its error is to tell.
func timedOut(t *testing.T, call func(context.Context) error, tells func(error) bool) (err error) {
	t.Helper()
	for d := 50 * time.Millisecond; d < patience; d *= 2 {
		ctx, cancel := contextWithTimeout(t, d)
		err = call(ctx)
		cancel()
		if err == nil || tells(err) {
			return err
		}
	}
	t.Fatalf("it is not told what there is to tell: %v", err)
	return err
}

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
