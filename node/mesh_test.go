package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/replication"
)

// hostPort is the 127.0.0.1:port of a node's TCP listener.
func hostPort(t *testing.T, n *Node) string {
	t.Helper()
	return "127.0.0.1:" + addr(t, n, tcp4)[len(tcp4):]
}

// until waits for a condition that the network brings about.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// peerState is how one node sees another.
func peerState(t *testing.T, n *Node, id string) PeerStatus {
	t.Helper()
	list, err := n.Peers(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.PeerID == id {
			return p
		}
	}
	return PeerStatus{}
}

// TestConnectWithoutPeerID: every form of address works, learns the peer, and
// leaves nothing of the made-up ID behind.
func TestConnectWithoutPeerID(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A"})
	port := hostPort(t, a)[len("127.0.0.1:"):]
	for _, form := range []string{
		"127.0.0.1:" + port, "localhost:" + port, "0.0.0.0:" + port, "tcp://127.0.0.1:" + port, "quic://127.0.0.1:" + port,
		tcp4 + port, tcp4 + port + "/p2p/" + a.ID(), quic4 + port + "/quic-v1",
	} {
		t.Run(strings.ReplaceAll(form, "/", "_"), func(t *testing.T) {
			b := open(t, Config{Label: "B"})
			id, endpoint, err := b.Connect(deadline(t), form)
			if err != nil || id != a.ID() {
				t.Fatalf("connect to %s: %q, %v", form, id, err)
			}
			if !strings.HasSuffix(endpoint, ":"+port) {
				t.Errorf("endpoint %q", endpoint)
			}
			for _, p := range b.host.Peerstore().PeersWithAddrs() {
				if p != a.id && p != b.id {
					t.Errorf("the peerstore still has %s with %v", p, b.host.Peerstore().Addrs(p))
				}
			}
			c := b.Counters()
			if c.ConnectAttempts != 1 || c.HandshakesCompleted != 1 || c.PeersConnected != 1 {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

// TestTCPIsPreferred: of host:port on this machine TCP is taken, not QUIC.
func TestTCPIsPreferred(t *testing.T) {
	t.Parallel()
	a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B"})
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	if at := peerState(t, b, a.ID()).Addr; !strings.HasPrefix(at, "tcp://") {
		t.Errorf("connected over %s", at)
	}
}

func TestConnectFails(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A"})
	b := open(t, Config{Label: "B"})
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	deadAddr := dead.Addr().String()
	dead.Close()
	garbage, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	var served sync.WaitGroup
	defer served.Wait()
	defer garbage.Close()
	served.Go(func() {
		for {
			c, err := garbage.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			c.Close()
		}
	})
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	other := peer.ID("")
	if other, err = randomPeerID(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, addr, says string }{
		{"a dead port", deadAddr, "nothing listens at tcp://" + deadAddr},
		{"another program", garbage.Addr().String(), "is no vix-node"},
		{"a web server", strings.TrimPrefix(web.URL, "http://"), "is no vix-node"},
		{"itself", hostPort(t, b), "this node itself"},
		{"itself by its ID", "/ip4/127.0.0.1/tcp/1/p2p/" + b.ID(), "this node itself"},
		{"itself over quic", "quic://" + hostPort(t, b), "this node itself"},
		{"another peer", addr(t, a, tcp4) + "/p2p/" + other.String(), "is peer " + a.ID() + ", not " + other.String()},
		{"no host", "no-such-host.invalid:1", "cannot be resolved"},
		{"no address", "nonsense", "is not host:port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			_, _, err := b.Connect(deadline(t), c.addr)
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v; want one line with %q", err, c.says)
			}
			if took := time.Since(start); took > twiceAsked {
				t.Errorf("it took %s", took)
			}
		})
	}
	if c := b.Counters(); c.ConnectFailures == 0 || c.PeersConnected != 0 {
		t.Errorf("counters %+v", c)
	}
}

// TestChain: A and C never meet and converge through B.
func TestChain(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A"})
	b := open(t, Config{Label: "B", Connect: []string{hostPort(t, a)}})
	c := open(t, Config{Label: "C", Connect: []string{hostPort(t, b)}})
	put(t, a, "a", "1")
	put(t, c, "c", "1")
	converge(t, 2, a, b, c)
	if len(a.host.Network().ConnsToPeer(c.id)) != 0 {
		t.Error("A and C have met")
	}
	if _, err := a.Space("notes").Put(deadline(t), "n", []byte("x")); err != nil {
		t.Fatal(err)
	}
	until(t, "a space that only A knew reaches C with its name", func() bool {
		e, err := c.Space("notes").Get(deadline(t), "n")
		return err == nil && string(e.Value) == "x" && strings.Contains(fmt.Sprint(c.Spaces()), "notes")
	})
	st, err := b.Status(deadline(t))
	if err != nil || len(st.Peers) != 2 || st.Peers[0].State != Connected || st.Spaces["default"].Logs != 2 {
		t.Errorf("status of B: %+v, %v", st, err)
	}
}

// TestRestart: a configured peer that is away is found when it comes, data
// outlives both, and the names of spaces too.
func TestRestart(t *testing.T) {
	t.Parallel()
	dirs, at := map[string]string{"A": t.TempDir(), "B": t.TempDir()}, steadyAddr(t)
	a, err := Open(t.Context(), Config{Label: "A", DataDir: dirs["A"], Listen: []string{at}, Logger: testLog(t, "A")})
	if err != nil {
		t.Fatal(err)
	}
	id := a.ID()
	if _, err := a.Space("notes").Put(deadline(t), "n", []byte("1")); err != nil {
		t.Fatal(err)
	}
	put(t, a, "k", "1")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b := open(t, Config{Label: "B", DataDir: dirs["B"], Connect: []string{at}})
	until(t, "B notices that nobody is there", func() bool { return b.Counters().ConnectFailures > 0 })
	a = open(t, Config{Label: "A", DataDir: dirs["A"], Listen: []string{at}})
	if a.ID() != id {
		t.Errorf("the identity changed")
	}
	converge(t, 1, a, b)
	until(t, "the space arrives", func() bool {
		_, err := b.Space("notes").Get(deadline(t), "n")
		return err == nil
	})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, Config{Label: "B", DataDir: dirs["B"], Offline: true})
	converge(t, 1, b)
	if got := fmt.Sprint(b.Spaces()); got != "[default notes]" {
		t.Errorf("after a restart the spaces are %v", got)
	}
}

// TestLastNameIsRemembered: what a peer called a space just before the node closes is
// known after a restart without it.
func TestLastNameIsRemembered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := open(t, Config{DataDir: dir, Offline: true})
	if _, err := n.Space("notes").Put(deadline(t), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	// As if a peer had told it, and the name were still to be saved.
	id := n.Space("notes").id
	if err := n.engines.get().store.SetMeta(deadline(t), metaSpace+id.String(), nil); err != nil {
		t.Fatal(err)
	}
	n.names.mu.Lock()
	n.names.names[id] = spaceName{name: "notes"}
	n.names.mu.Unlock()
	closeNow(t, n)
	if got := open(t, Config{DataDir: dir, Offline: true}).Spaces(); !slices.Contains(got, "notes") {
		t.Errorf("after a restart the spaces are %v", got)
	}
}

// TestCrossedDials: two nodes that dial each other at one moment end with exactly
// one session, and it works, every time (design 7.3).
func TestCrossedDials(t *testing.T) {
	a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B"})
	atA, atB := hostPort(t, a), hostPort(t, b)
	for i := range 30 {
		var wg sync.WaitGroup
		for _, dial := range []struct {
			n  *Node
			to string
		}{{a, atB}, {b, atA}} {
			wg.Go(func() {
				if _, _, err := dial.n.Connect(deadline(t), dial.to); err != nil {
					t.Errorf("round %d: %s: %v", i, dial.n.Label(), err)
				}
			})
		}
		wg.Wait()
		if err := put(t, a, "k", fmt.Sprint(i)).WaitReplicated(deadline(t), 1); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		one := func(n *Node) bool { return len(n.engines.get().replicator.Peers()) == 1 }
		until(t, fmt.Sprintf("round %d: one session on each side", i), func() bool { return one(a) && one(b) })
		if _, err := a.Disconnect(deadline(t), b.ID()); err != nil {
			t.Fatal(err)
		}
		until(t, "B has noticed", func() bool { return b.mesh.book.live(a.id) == nil })
	}
	if c := a.Counters(); c.ConnectFailures > 0 {
		t.Errorf("a lost race counts as a failure: %+v", c)
	}
}

// TestDisconnect: neither side dials again by itself; Connect does.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A"})
	b := open(t, Config{Label: "B", Connect: []string{hostPort(t, a)}})
	for _, n := range []*Node{a, b} {
		if err := n.Wait(deadline(t), WaitOptions{Peers: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if id, err := a.Disconnect(deadline(t), "B"); err != nil || id != b.ID() {
		t.Fatalf("disconnect by label: %q, %v", id, err)
	}
	until(t, "both see it closed", func() bool {
		return peerState(t, a, b.ID()).State == Closed && peerState(t, b, a.ID()).State == Closed
	})
	// More than the window in which B would have dialled again.
	before := b.Counters().ConnectAttempts
	b.dialer.kick()
	time.Sleep(2 * dedupeWindow)
	if after := b.Counters().ConnectAttempts; after != before {
		t.Errorf("B dialled %d times", after-before)
	}
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	put(t, a, "k", "1")
	converge(t, 1, a, b)
	var unknown *UnknownPeerError
	if _, err := a.Disconnect(deadline(t), "nobody"); !errors.As(err, &unknown) {
		t.Errorf("disconnect of an unknown label: %v", err)
	}
}

// TestDisconnectEndsWithARestart: only B knows the other's address. What A's user
// asked for stands while A runs, B asks now and then, and they meet again when A
// starts anew.
func TestDisconnectEndsWithARestart(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), steadyAddr(t)
	a := open(t, Config{Label: "A", DataDir: dir, Listen: []string{address}})
	b := open(t, Config{Label: "B"})
	b.mesh.pause = 100 * time.Millisecond
	if _, _, err := b.Connect(deadline(t), address); err != nil {
		t.Fatal(err)
	}
	connected(t, a, b) // A has its end of the session a moment after B
	if _, err := a.Disconnect(deadline(t), b.ID()); err != nil {
		t.Fatal(err)
	}
	before := b.Counters().HandshakesStarted
	until(t, "B has asked twice", func() bool { return b.Counters().HandshakesStarted >= before+2 })
	if p := peerState(t, b, a.ID()); p.State == Connected || !strings.Contains(p.LastError, "disconnected by its user") {
		t.Errorf("B sees A as %+v", p)
	}
	if p := peerState(t, a, b.ID()); p.State != Closed {
		t.Errorf("A sees B as %+v", p)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, Config{Label: "A", DataDir: dir, Listen: []string{address}})
	if err := a.Wait(deadline(t), WaitOptions{Peers: 1, Synced: true}); err != nil {
		t.Fatal(err)
	}
}

// logBuffer is a log that a test reads.
type logBuffer struct {
	mu sync.Mutex // guards below
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// count is how many lines have all the parts.
func (l *logBuffer) count(parts ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			n++
		}
	}
	return n
}

func (l *logBuffer) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			return true
		}
	}
	return false
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestOtherNetworkIsRefused: nothing crosses, and both logs say why.
func TestOtherNetworkIsRefused(t *testing.T) {
	t.Parallel()
	var logA, logB logBuffer
	a := open(t, Config{Label: "A", NetworkName: "one", Logger: logA.logger()})
	b := open(t, Config{Label: "B", NetworkName: "two", Logger: logB.logger(), Connect: []string{hostPort(t, a)}})
	put(t, a, "k", "1")
	until(t, "both logs show the refusal", func() bool {
		return logA.has(b.ID(), "other network") && logB.has(a.ID(), "other network")
	})
	until(t, "B's status shows it too", func() bool { // it may just be trying again
		st := peerState(t, b, a.ID())
		return st.State == Disconnected && strings.Contains(st.LastError, "other network")
	})
	if _, err := b.Space("").Get(deadline(t), "k"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a write crossed the networks: %v", err)
	}
	if len(peerState(t, a, b.ID()).PeerID) > 0 {
		t.Error("A remembers a stranger")
	}
}

func TestMaxPeers(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A", MaxPeers: 1})
	b, c := open(t, Config{Label: "B"}), open(t, Config{Label: "C"})
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	connected(t, a, b) // B has its session a moment before A
	if _, _, err := c.Connect(deadline(t), hostPort(t, a)); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("one peer too many: %v", err)
	}
}

// TestConflicts: concurrent writes show as siblings everywhere until a write that
// has seen them resolves them.
func TestConflicts(t *testing.T) {
	t.Parallel()
	a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B"})
	put(t, a, "k", "from a")
	put(t, b, "k", "from b")
	if _, _, err := a.Connect(deadline(t), hostPort(t, b)); err != nil {
		t.Fatal(err)
	}
	converge(t, 1, a, b)
	for _, n := range []*Node{a, b} {
		list, err := n.Space("").Conflicts(deadline(t), "k")
		if err != nil || len(list) != 2 || list[0].Conflicts != 1 {
			t.Fatalf("%s: %+v, %v", n.Label(), list, err)
		}
		if e, err := n.Space("").Get(deadline(t), "k"); err != nil || string(e.Value) != string(list[0].Value) {
			t.Errorf("%s: get shows %q and not the winner %q, %v", n.Label(), e.Value, list[0].Value, err)
		}
	}
	e, err := a.Space("").Get(deadline(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	w, err := a.Space("").PutIf(deadline(t), "k", []byte("merged"), e)
	if err != nil {
		t.Fatalf("a conditional put on what Get showed, siblings included: %v", err)
	}
	if err := w.WaitReplicated(deadline(t), 1); err != nil {
		t.Fatal(err)
	}
	converge(t, 1, a, b)
	if list, err := b.Space("").Conflicts(deadline(t), "k"); err != nil || len(list) != 1 || string(list[0].Value) != "merged" {
		t.Errorf("after the merge: %+v, %v", list, err)
	}
}

func TestWaitReplicatedTellsHowFar(t *testing.T) {
	t.Parallel()
	a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B"})
	if _, _, err := a.Connect(deadline(t), hostPort(t, b)); err != nil {
		t.Fatal(err)
	}
	w := put(t, a, "k", "1")
	if err := w.WaitReplicated(deadline(t), 1); err != nil || w.Replicas() != 1 {
		t.Fatalf("%d replicas, %v", w.Replicas(), err)
	}
	var short *ReplicaError
	err := timedOut(t, func(ctx context.Context) error { return w.WaitReplicated(ctx, 2) }, func(err error) bool {
		return errors.As(err, &short) && len(short.Acked) > 0
	})
	if !errors.Is(err, ErrReplicas) || len(short.Acked) != 1 || short.Acked[0] != b.ID() || short.Connected != 1 {
		t.Errorf("asked for one more than there are: %v, %+v", err, short)
	}
	o := offline(t)
	if err := put(t, o, "k", "1").WaitReplicated(deadline(t), 1); !errors.Is(err, ErrOffline) {
		t.Errorf("offline: %v", err)
	}
}

// copyTree copies a data directory as cp -a would.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// TestClonedDirectory: two nodes with one identity take turns at a third; all
// three converge, nothing forks, and the third says what is wrong.
func TestClonedDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := Open(t.Context(), Config{Label: "A", DataDir: dir, Offline: true, Logger: testLog(t, "A")})
	if err != nil {
		t.Fatal(err)
	}
	put(t, first, "before", "1")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	clone := copyTree(t, dir)
	var log logBuffer
	c := open(t, Config{Label: "C", Logger: log.logger()})
	one := open(t, Config{Label: "A1", DataDir: dir, Connect: []string{hostPort(t, c)}})
	two := open(t, Config{Label: "A2", DataDir: clone, Connect: []string{hostPort(t, c)}})
	if one.ID() != two.ID() {
		t.Fatal("the copy has another identity")
	}
	put(t, one, "one", "1")
	put(t, two, "two", "2")
	converge(t, 3, one, two, c)
	put(t, one, "one more", "1")
	put(t, two, "two more", "2")
	converge(t, 5, one, two, c)
	until(t, "C reports the copies", func() bool { return log.has("two copies of one data directory", one.ID()) })
	st, err := c.Status(deadline(t))
	if err != nil || !peerState(t, c, one.ID()).Copies || st.Spaces["default"].ForkedLogs != 0 {
		t.Errorf("status of C: %+v, %v", st, err)
	}
	until(t, "one of the copies knows", func() bool { return statusOf(t, one).Copies || statusOf(t, two).Copies })
	until(t, "they go on in turns", func() bool { return c.Counters().HandshakesCompleted >= 10 })
	if n := log.count("level=INFO", "msg=connected"); n > 5 {
		t.Errorf("C logs %d sessions of the copies", n)
	}
	if statusOf(t, c).Copies {
		t.Error("C takes itself for a copy")
	}
}

// TestLostSessionIsReplaced: a peer that lost a session dials again although this
// side has not noticed; a crossed dial of the same moment still loses.
func TestLostSessionIsReplaced(t *testing.T) {
	a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B"})
	if _, _, err := a.Connect(deadline(t), hostPort(t, b)); err != nil {
		t.Fatal(err)
	}
	have := a.mesh.book.live(b.id)
	worse := have.meta
	worse.Attempt--
	admit := func() error {
		a.mesh.mu.Lock()
		defer a.mesh.mu.Unlock()
		return a.mesh.admitLocked(b.id, worse)
	}
	if err := admit(); !errors.Is(err, protocols.ErrDuplicate) {
		t.Errorf("the worse of two sessions of one moment: %v", err)
	}
	a.mesh.mu.Lock()
	have.since = have.since.Add(-2 * DefaultHelloTimeout)
	a.mesh.mu.Unlock()
	if err := admit(); err != nil {
		t.Errorf("a session much younger than the one that is there: %v", err)
	}
}

// TestProbe: the handshake alone tells whether this node would be let in, and
// makes no session.
func TestProbe(t *testing.T) {
	t.Parallel()
	a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B"})
	for name, good := range map[string]bool{"dev": true, "other": false} {
		ctx := deadline(t)
		if err := b.host.Connect(ctx, peer.AddrInfo{ID: a.id, Addrs: a.host.Addrs()}); err != nil {
			t.Fatal(err)
		}
		st, release, err := b.mesh.service.Open(ctx, a.id, protocols.HelloProtocol)
		if err != nil {
			t.Fatal(err)
		}
		hello := b.mesh.hello(a.id, nil)
		hello.Network, hello.Attempt = replication.OpenNetwork(name), b.mesh.attempts.Add(1)
		sess, err := protocols.Initiate(st, hello)
		if good && (err != nil || sess.Peer.Label != "A") || !good && !errors.Is(err, protocols.ErrOtherNetwork) {
			t.Errorf("probe of a node in network %q: %+v, %v", name, sess, err)
		}
		st.Reset()
		release()
	}
	if c := a.Counters(); c.PeersTotal != 0 {
		t.Errorf("a probe left something behind: %+v", c)
	}
}

// TestPeerOfBefore: who does not name the feature of the levels of a frontier is asked
// without them.
func TestPeerOfBefore(t *testing.T) {
	t.Parallel()
	a, b := open(t, Config{Label: "A"}), open(t, Config{Label: "B"})
	ctx := deadline(t)
	if err := b.host.Connect(ctx, peer.AddrInfo{ID: a.id, Addrs: a.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	for _, levels := range []bool{false, true} {
		st, release, err := b.mesh.service.Open(ctx, a.id, protocols.SyncProtocol)
		if err != nil {
			t.Fatal(err)
		}
		hello := b.mesh.hello(a.id, nil)
		hello.Attempt = b.mesh.attempts.Add(1)
		if !slices.Contains(hello.Features, protocols.FeatureTrie) {
			t.Fatal("a node of this version does not name it")
		}
		if !levels {
			hello.Features = nil
		}
		sess, err := protocols.Initiate(st, hello)
		if err != nil {
			t.Fatal(err)
		}
		c := protocols.NewConn(sess)
		for asked := false; !asked; {
			m, done, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			done()
			if q, ok := m.(*replication.FrontierDigest); ok && !q.Reply {
				if asked = true; q.Levels != levels {
					t.Errorf("a peer with the feature %v is asked with levels %v", levels, q.Levels)
				}
			}
		}
		if err := c.Close(replication.CodeShutdown, ""); err != nil {
			t.Error(err)
		}
		release()
	}
}
