package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"vixp2p/protocols"
	"vixp2p/replication"
)

// goroutines are the stacks of all goroutines but the caller's, without their
// numbers.
func goroutines() map[string]int {
	buf := make([]byte, 8<<20)
	buf = buf[:runtime.Stack(buf, true)]
	out := map[string]int{}
	for i, g := range strings.Split(string(buf), "\n\n") {
		if i == 0 {
			continue // the caller
		}
		_, stack, _ := strings.Cut(g, "\n")
		var frames []string
		for line := range strings.Lines(stack) {
			if !strings.HasPrefix(line, "\t") {
				name, _, _ := strings.Cut(line, "(0x")
				frames = append(frames, strings.TrimSpace(name))
			}
		}
		out[strings.Join(frames, " < ")]++
	}
	return out
}

// running counts the goroutines that are in or below a function.
func running(name string) (n int) {
	for stack, count := range goroutines() {
		if strings.Contains(stack, name) {
			n += count
		}
	}
	return n
}

// TestCloseLeavesNothing: after Close, whatever was under way, no goroutine of a
// node is left.
func TestCloseLeavesNothing(t *testing.T) {
	ctx := deadline(t)
	before := goroutines()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	a, err := Open(ctx, Config{Label: "A", DataDir: t.TempDir(), Registerer: prometheus.NewRegistry(), API: "127.0.0.1:0", DHT: DHTServer})
	if err != nil {
		t.Fatal(err)
	}
	// dead accepts and says nothing: the dial hangs in its handshake.
	b, err := Open(ctx, Config{Label: "B", DataDir: t.TempDir(), Connect: []string{hostPort(t, a), dead.Addr().String()}, DHT: DHTAuto})
	if err != nil {
		t.Fatal(err)
	}
	put(t, a, "k", "1")
	converge(t, 1, a, b)
	ended := make(chan error, 3)
	tail := b.Space("").Tail(ctx, Now, true)
	go func() {
		for _, err := range tail {
			ended <- err
		}
	}()
	watch := b.Space("").Watch(ctx, "", Now)
	go func() {
		for _, err := range watch {
			ended <- err
		}
	}()
	// A stranger opens a session with A and says nothing.
	stranger, err := libp2p.New(libp2p.NoListenAddrs)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	silent := peer.AddrInfo{ID: a.id, Addrs: a.host.Addrs()}
	if err := stranger.Connect(ctx, silent); err != nil {
		t.Fatal(err)
	}
	st, err := stranger.NewStream(ctx, a.id, protocols.SyncProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(nil); err != nil { // sends the name of the protocol
		t.Fatal(err)
	}
	until(t, "A waits for the stranger's Hello", func() bool { return running("node.(*mesh).accept") == 2 })
	w := put(t, b, "k2", "2")
	go func() { ended <- w.WaitReplicated(ctx, 5) }()
	for _, n := range []*Node{b, a} {
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", n.Label(), err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("close %s again: %v", n.Label(), err)
		}
	}
	handlers := running("node.(*mesh)") + running("node.(*dialer)") + running("replicator.(*")
	if handlers > 0 {
		t.Errorf("%d goroutines of the nodes run after Close", handlers)
	}
	stranger.Close()
	for errs := 0; errs < 3; {
		select {
		case err := <-ended:
			if err != nil {
				errs++
				if !errors.Is(err, ErrClosed) {
					t.Errorf("a call that the close ended: %v", err)
				}
			}
		case <-ctx.Done():
			t.Fatal("a call goes on after Close")
		}
	}
	if _, err := a.Space("").Put(ctx, "k", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("put after close: %v", err)
	}
	if _, err := a.Space("").Get(ctx, "k"); !errors.Is(err, ErrClosed) {
		t.Errorf("get after close: %v", err)
	}
	if _, _, err := a.Connect(ctx, "127.0.0.1:1"); !errors.Is(err, ErrClosed) {
		t.Errorf("connect after close: %v", err)
	}
	dead.Close()
	var left []string
	end := time.Now().Add(patience)
	for time.Now().Before(end) {
		left = nil
		for stack, n := range goroutines() {
			if n > before[stack] && !keptByLibraries(stack) {
				left = append(left, fmt.Sprintf("%d x %s", n-before[stack], stack))
			}
		}
		if left == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("goroutines are left:\n%s", strings.Join(left, "\n"))
}

// keptByLibraries tells goroutines that a library starts once per process.
func keptByLibraries(stack string) bool {
	for _, once := range []string{
		"github.com/golang/glog", "go.opencensus.io", "internal/singleflight",
		"testing.", "os/signal.",
	} {
		if strings.Contains(stack, once) {
			return true
		}
	}
	return false
}

func TestBadListen(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	other := open(t, Config{Label: "other"})
	_, otherPort, _ := net.SplitHostPort(hostPort(t, other))
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	_, udpPort, _ := net.SplitHostPort(udp.LocalAddr().String())
	for _, c := range []struct {
		name   string
		cfg    Config
		says   string
		target error
	}{
		{"a port in use", Config{Listen: []string{port}}, "TCP port " + port + " of 127.0.0.1: another program uses it", nil},
		{"another node's port", Config{Listen: []string{otherPort}}, "TCP port " + otherPort + " of 127.0.0.1: another program uses it", nil},
		{"another node's UDP port", Config{Listen: []string{otherPort}, NoTCP: true}, "UDP port " + otherPort + " of 127.0.0.1: another program uses it", nil},
		{"a UDP port in use", Config{Listen: []string{udpPort}}, "UDP port " + udpPort + " of 127.0.0.1: another program uses it", nil},
		{"a multiaddr in use", Config{Listen: []string{tcp4 + port}}, "another program uses it", nil},
		{"beyond loopback", Config{Listen: []string{"0.0.0.0:0"}}, "--open", ErrNeedsOpen},
		{"not an address of this machine", Config{Listen: []string{"192.0.2.1:0"}, Open: true}, "does not have that address", nil},
		{"a transport that is off", Config{Listen: []string{quic4 + "0/quic-v1"}, NoQUIC: true}, "switched off", nil},
		{"nonsense", Config{Listen: []string{"nonsense"}}, "not a port, host:port or multiaddr", nil},
		{"a bad target", Config{Connect: []string{"nonsense"}}, "not host:port", nil},
		{"a bad label", Config{Label: "a\nb"}, "cannot be shown", nil},
		{"a stale time before the ping", Config{PingEvery: time.Minute}, "stale", nil},
		{"a small budget", Config{BudgetBytes: 1}, "budget", nil},
		{"no transport", Config{NoTCP: true, NoQUIC: true}, "switched off", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.DataDir = t.TempDir()
			n, err := Open(t.Context(), c.cfg)
			if err == nil {
				n.Close()
				t.Fatal("it opened")
			}
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") || c.target != nil && !errors.Is(err, c.target) {
				t.Errorf("%v; want one line with %q", err, c.says)
			}
			// The directory is free again.
			c.cfg = Config{DataDir: c.cfg.DataDir, Offline: true}
			again, err := Open(t.Context(), c.cfg)
			if err != nil {
				t.Fatalf("after the failure: %v", err)
			}
			again.Close()
		})
	}
}

// TestListen: a port means TCP and UDP of one number; nothing beyond loopback
// without Open, and a warning with it.
func TestListen(t *testing.T) {
	t.Parallel()
	n := open(t, Config{Label: "A"})
	port := hostPort(t, n)[len("127.0.0.1:"):]
	if udp := addr(t, n, quic4); !strings.HasPrefix(udp, quic4+port+"/") {
		t.Errorf("TCP has port %s, and QUIC %s", port, udp)
	}
	for _, a := range n.Addrs() {
		if !strings.HasPrefix(a, "/ip4/127.0.0.1/") && !strings.HasPrefix(a, "/ip6/::1/") {
			t.Errorf("listens on %s", a)
		}
	}
	var log logBuffer
	o := open(t, Config{Label: "O", Open: true, Logger: log.logger(), Advertise: []string{"192.0.2.7:4001"}})
	if !log.has("level=WARN", "this node is open") {
		t.Error("an open node does not warn")
	}
	all := fmt.Sprint(o.Addrs())
	for _, want := range []string{"/ip4/192.0.2.7/tcp/4001", "/ip4/192.0.2.7/udp/4001/quic-v1", "/ip4/127.0.0.1/tcp/"} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is not in %s", want, all)
		}
	}
}

func TestLockedDirectory(t *testing.T) {
	t.Parallel()
	n := offline(t)
	_, err := Open(t.Context(), Config{DataDir: n.DataDir(), Offline: true})
	if !errors.Is(err, ErrLocked) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a directory in use: %v", err)
	}
	put(t, n, "k", "the first is not disturbed")
}

// TestOwnHost: a caller's host is used and left open.
func TestOwnHost(t *testing.T) {
	t.Parallel()
	h, err := libp2p.New(libp2p.ListenAddrStrings(tcp4 + "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	a := open(t, Config{Label: "A"})
	dir := t.TempDir()
	b, err := Open(t.Context(), Config{Label: "B", DataDir: dir, Host: h, Connect: []string{hostPort(t, a)}, Logger: testLog(t, "B")})
	if err != nil {
		t.Fatal(err)
	}
	if b.ID() != h.ID().String() {
		t.Errorf("the node is %s, not its host %s", b.ID(), h.ID())
	}
	put(t, b, "k", "1")
	converge(t, 1, a, b)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if len(h.Network().ListenAddresses()) == 0 {
		t.Error("Close closed the caller's host")
	}
	if matches, _ := filepath.Glob(filepath.Join(dir, identityFile)); matches != nil {
		t.Error("a second identity was made")
	}
	// The directory belongs to that key.
	if c, err := Open(t.Context(), Config{DataDir: dir, Offline: true}); err == nil || !strings.Contains(err.Error(), "written with its key") {
		t.Errorf("the directory with another key: %v, %v", c, err)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	a := open(t, Config{Label: "A", Registerer: reg})
	b := open(t, Config{Label: "B", Registerer: reg})
	if _, _, err := a.Connect(deadline(t), hostPort(t, b)); err != nil {
		t.Fatal(err)
	}
	put(t, a, "k", "1")
	converge(t, 1, a, b)
	for name, want := range map[string]float64{"vix_peers_connected": 1, "vix_ops": 1, "vix_handshakes_completed_total": 1, "vix_replicated_ops_in_total": 1} {
		// What arrives can be read a moment before it counts, and so can a session be used.
		until(t, fmt.Sprintf("%s is %v", name, want), func() bool { return gathered(t, reg, b)[name] == want })
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := reg.Gather(); err != nil {
		t.Errorf("after the close of one of two nodes: %v", err)
	}
}

// TestDiskFull: writes are refused with a clear error, replication pauses, reads
// work, and all of it goes on by itself when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	var free atomic.Uint64
	free.Store(1 << 40)
	a := open(t, Config{Label: "A"})
	b := open(t, Config{
		Label: "B", Connect: []string{hostPort(t, a)},
		freeBytes: func(string) (uint64, error) { return free.Load(), nil },
	})
	put(t, b, "k", "1")
	converge(t, 1, a, b)
	free.Store(1 << 20)
	_, err := b.Space("").Put(deadline(t), "k", []byte("2"))
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("put on a full disk: %v", err)
	}
	if e, err := b.Space("").Get(deadline(t), "k"); err != nil || string(e.Value) != "1" {
		t.Errorf("get on a full disk: %+v, %v", e, err)
	}
	put(t, a, "from a", "1")
	until(t, "B shows that it takes nothing", func() bool {
		paused := peerState(t, b, a.ID()).Paused
		return len(paused) == 1 && strings.Contains(paused[0].Why, "disk full") && paused[0].Here
	})
	free.Store(1 << 40)
	put(t, b, "k", "2")
	converge(t, 2, a, b)
}

func TestSyncMeter(t *testing.T) {
	var m syncMeter
	at := time.Unix(1000, 0)
	for _, c := range []struct {
		after         time.Duration
		missing, have uint64
		want          SyncProgress
	}{
		{0, 0, 50, SyncProgress{}},
		{time.Second, 100, 50, SyncProgress{Total: 100, Remaining: -1}},
		{11 * time.Second, 75, 75, SyncProgress{Done: 25, Total: 100, Remaining: 30 * time.Second}},
		{12 * time.Second, 0, 150, SyncProgress{}},
		{20 * time.Second, 10, 150, SyncProgress{Total: 10, Remaining: -1}},
	} {
		if got := m.progress(at.Add(c.after), c.missing, c.have); got != c.want {
			t.Errorf("after %s: %+v, want %+v", c.after, got, c.want)
		}
	}
	if p := (SyncProgress{}).Percent(); p != 100 {
		t.Errorf("with nothing missing: %v %%", p)
	}
}

func TestMeetTellsCopies(t *testing.T) {
	a, b, c := replication.Instance{1}, replication.Instance{2}, replication.Instance{3}
	var r peerRecord
	for i, step := range []struct {
		instance replication.Instance
		copies   bool
	}{{a, false}, {a, false}, {b, false}, {c, false}, {c, false}, {b, true}, {c, false}} {
		if got := r.meet(step.instance); got != step.copies {
			t.Errorf("step %d: copies %v, want %v", i, got, step.copies)
		}
	}
	if !r.copies {
		t.Error("it is forgotten")
	}
}

// TestPeerBookIsBounded: strangers cannot fill memory, and peers with a session
// are not forgotten.
func TestPeerBookIsBounded(t *testing.T) {
	b := newPeerBook()
	first, err := randomPeerID()
	if err != nil {
		t.Fatal(err)
	}
	b.update(first, func(r *peerRecord) { r.session = &session{} }) // it counts as long as it is there
	for range maxPeerRecords + 10 {
		id, err := randomPeerID()
		if err != nil {
			t.Fatal(err)
		}
		b.update(id, func(*peerRecord) {})
	}
	if total, connected := b.counts(); total != maxPeerRecords || connected != 1 {
		t.Errorf("%d peers, %d connected", total, connected)
	}
}

// TestSpacesAreBounded: names come from peers.
func TestSpacesAreBounded(t *testing.T) {
	network := replication.OpenNetwork("dev")
	s := newSpaceNames(network)
	info := func(name string) replication.SpaceInfo {
		return replication.SpaceInfo{ID: replication.SpaceOf(network, name), Name: name}
	}
	for i := range MaxSpaces - 1 {
		if !s.learn(info(fmt.Sprint("s", i))) {
			t.Fatalf("space %d is refused", i)
		}
	}
	if s.learn(info("one more")) {
		t.Error("one more is taken")
	}
	if !s.learn(info("s1")) {
		t.Error("a known one is refused")
	}
	fresh := newSpaceNames(network)
	for _, bad := range []replication.SpaceInfo{
		{ID: replication.SpaceOf(network, "a"), Name: "b"},
		info("line\nbreak"), info(strings.Repeat("x", 129)),
	} {
		if fresh.learn(bad) {
			t.Errorf("%+v is taken", bad)
		}
	}
	if !fresh.learn(replication.SpaceInfo{ID: replication.SpaceOf(network, "later")}) || !fresh.learn(info("later")) {
		t.Error("a space whose name comes later is refused")
	}
	if fresh.name(replication.SpaceOf(network, "later")) != "later" {
		t.Error("its name is not learned")
	}
}

// TestOpenIsBounded: a context that has ended opens nothing.
func TestOpenIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Config{DataDir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
