package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/node/registry"
	"vixp2p/replication"
)

// startRegistry runs a registry on this machine; addr is host:port, "" any. A
// registry that comes back needs a port that no connection gets meanwhile: one
// below those that the system picks by itself.
func startRegistry(t *testing.T, addr string) *registry.Server {
	t.Helper()
	for tries := 0; ; tries++ {
		at := addr
		if addr == "" {
			at = fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))
		}
		s, err := registry.Start(registry.ServerConfig{Addr: at, Logger: testLog(t, "registry")})
		if err == nil {
			t.Cleanup(func() { _ = s.Close() })
			return s
		}
		if addr != "" || tries == 100 {
			t.Fatal(err)
		}
	}
}

func registryURL(s *registry.Server) string { return "http://" + s.Addr() + registry.Prefix }

// withRegistry opens a node that knows nothing but a registry.
func withRegistry(t *testing.T, label, url string) *Node {
	t.Helper()
	return open(t, Config{Label: label, Registry: url, RegistryInterval: 200 * time.Millisecond})
}

// Five nodes with only a registry URL converge. The registry dies: nothing breaks.
// It comes back, empty, and a sixth still joins.
func TestRegistry(t *testing.T) {
	t.Parallel()
	s := startRegistry(t, "")
	var nodes []*Node
	for i := range 5 {
		n := withRegistry(t, fmt.Sprint("N", i), registryURL(s))
		put(t, n, fmt.Sprint("k", i), "1")
		nodes = append(nodes, n)
	}
	converge(t, 5, nodes...)
	for _, n := range nodes { // one that was found by the others may not have asked yet
		until(t, n.Label()+" has announced itself", func() bool {
			st := n.Discovery().Registry
			return st.On && st.Announced && st.URL == registryURL(s) && !st.LastSuccess.IsZero()
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the nodes notice", func() bool { return nodes[0].Discovery().Registry.LastError != "" })
	put(t, nodes[4], "while it is away", "1")
	converge(t, 6, nodes...)

	s = startRegistry(t, s.Addr())
	until(t, "the nodes are back at the registry", func() bool { return s.Entries() == 5 })
	sixth := withRegistry(t, "N5", registryURL(s))
	nodes = append(nodes, sixth)
	converge(t, 6, nodes...)
	until(t, "the others know that it is back", func() bool {
		st := nodes[0].Discovery().Registry
		return st.LastError == "" && st.Failures == 0 && st.Peers == 5
	})
}

// Nodes of different networks at one registry leave each other alone, and who only
// announces or only asks does just that.
func TestRegistryAndOthers(t *testing.T) {
	t.Parallel()
	s := startRegistry(t, "")
	const every = 200 * time.Millisecond
	a := open(t, Config{Label: "A", Registry: registryURL(s), RegistryInterval: every, NoConnect: true})
	x := open(t, Config{Label: "X", Registry: registryURL(s), RegistryInterval: every, NetworkName: "other"})
	until(t, "both are there", func() bool { return s.Entries() == 2 })
	b := open(t, Config{Label: "B", Registry: registryURL(s), RegistryInterval: every, NoAnnounce: true})
	until(t, "B finds A", func() bool { return peerState(t, b, a.ID()).State == Connected })
	if s.Entries() != 2 || b.Discovery().Registry.Announced || a.Counters().ConnectAttempts != 0 {
		t.Errorf("%d entries; A: %+v; B: %+v", s.Entries(), a.Counters(), b.Discovery().Registry)
	}
	if c := x.Counters(); c.ConnectAttempts != 0 || c.TrackedEndpoints != 0 {
		t.Errorf("the other network's node dialled: %+v", c)
	}
	until(t, "the other network's node has its answer", func() bool { return !x.Discovery().Registry.LastSuccess.IsZero() })
	if st := x.Discovery().Registry; st.Peers != 0 {
		t.Errorf("%+v", st)
	}
}

// A registry that misbehaves costs a line when its trouble changes, and the node
// goes on.
func TestHostileRegistry(t *testing.T) {
	t.Parallel()
	const honest = 4
	var mode, asked atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch mode.Load() {
		case 0:
			fmt.Fprintf(w, "garbage %d", asked.Load())
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		case 3:
			for range 1 << 14 {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		case honest: // but names 200 addresses where nobody is
			if r.Method == http.MethodPost {
				fmt.Fprint(w, `{"ok":true}`)
				return
			}
			var list []registry.Peer
			for i := range 200 {
				list = append(list, registry.Peer{NodeID: "x", Host: "127.0.0.1", TCPPort: uint16(1 + i), Addrs: []string{}})
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"peers": list})
		}
	}))
	defer web.Close()
	var log lockedBuffer
	n := open(t, Config{
		Label: "A", Registry: web.URL, RegistryInterval: MinRegistryInterval,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	for i, says := range []string{"is the URL right", "status 500", "redirects more than", "more than 65536 bytes"} {
		mode.Store(int64(i))
		until(t, says+", twice", func() bool {
			st := n.Discovery().Registry
			return st.Failures > 1 && strings.Contains(st.LastError, says)
		})
		if got := strings.Count(log.String(), "the registry is of no use"); got != i+1 {
			t.Errorf("%s: %d lines about it:\n%s", says, got, log.String())
		}
		mode.Store(honest)
		// It may turn honest between an announcement and the question that follows, which
		// has a line of its own.
		until(t, "it answers", func() bool { return n.Discovery().Registry.LastError == "" })
		if got := strings.Count(log.String(), `msg="the registry answers"`); got != i+1 {
			t.Errorf("%d lines that it answers:\n%s", got, log.String())
		}
	}
	until(t, "what it names is tried", func() bool { return n.Counters().ConnectFailures > 0 })
	put(t, n, "k", "v")
}

// lockedBuffer is a log that a test reads while it is written.
type lockedBuffer struct {
	mu  sync.Mutex // guards below
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// testSource is a source that asks nobody.
func testSource(t *testing.T, url string) *registrySource {
	t.Helper()
	client, err := registry.NewClient(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	self, err := randomPeerID()
	if err != nil {
		t.Fatal(err)
	}
	return &registrySource{
		client: client, every: DefaultRegistryInterval, self: self, network: registry.NetworkTag(replication.OpenNetwork("dev")),
		now: time.Now, rand: func(int64) int64 { return 0 }, connected: func() []peer.ID { return nil },
		log: testLog(t, "A"), named: map[string]time.Time{},
	}
}

// What a registry names becomes targets: those of others, that lead anywhere.
func TestRegistryEndpoints(t *testing.T) {
	t.Parallel()
	r := testSource(t, "http://registry.example/")
	other, err := randomPeerID()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		peer registry.Peer
		want string
	}{
		{"three fields", registry.Peer{NodeID: "B", Host: "192.0.2.1", TCPPort: 9001}, "tcp://192.0.2.1:9001"},
		{"IPv6", registry.Peer{NodeID: "B", Host: "2001:db8::1", TCPPort: 9001}, "tcp://[2001:db8::1]:9001"},
		{"all", registry.Peer{NodeID: other.String(), Host: "192.0.2.1", TCPPort: 9001, PeerID: other.String(), Network: r.network, Addrs: []string{
			"/ip4/192.0.2.1/tcp/9001", "/ip4/10.0.0.1/udp/9001/quic-v1", "/dns4/b.example/tcp/1/p2p/" + other.String(), "/ip4/127.0.0.1/tcp/1",
			"/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1", "/ip4/192.0.2.1/udp/1", "/p2p/" + other.String(), "nonsense", "",
			"/ip4/192.0.2.1/tcp/2/p2p/" + r.self.String(), "/unix/tmp/x",
		}}, "tcp://192.0.2.1:9001 quic://10.0.0.1:9001 tcp://b.example:1"},
		{"a registry that knows three fields only", registry.Peer{NodeID: other.String(), Host: "192.0.2.1", TCPPort: 1}, "tcp://192.0.2.1:1"},
		{"QUIC only", registry.Peer{PeerID: other.String(), Host: "192.0.2.1", Addrs: []string{"/ip4/192.0.2.1/udp/9/quic-v1"}}, "quic://192.0.2.1:9"},
		{"itself", registry.Peer{NodeID: "A", Host: "192.0.2.1", TCPPort: 1, PeerID: r.self.String()}, ""},
		{"itself by its name", registry.Peer{NodeID: r.self.String(), Host: "192.0.2.1", TCPPort: 1}, ""},
		{"another network", registry.Peer{NodeID: "B", Host: "192.0.2.1", TCPPort: 1, Network: strings.Repeat("0", 32)}, ""},
		{"loopback of another machine", registry.Peer{NodeID: "B", Host: "127.0.0.1", TCPPort: 1}, ""},
		{"addresses of nobody", registry.Peer{NodeID: "B", Host: "192.0.2.1", TCPPort: 1, Addrs: []string{"/ip4/192.0.2.9/tcp/1"}}, "tcp://192.0.2.1:1"},
		{"no port", registry.Peer{NodeID: "B", Host: "192.0.2.1"}, ""},
	} {
		var got []string
		for _, f := range r.endpoints(&c.peer, time.Time{}) {
			got = append(got, f.Key)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
	if local := testSource(t, "http://localhost:1"); len(local.endpoints(&registry.Peer{NodeID: "B", Host: "127.0.0.1", TCPPort: 1}, time.Time{})) != 1 {
		t.Error("loopback, told by a registry of this machine")
	}
}

// A peer that is gone from the list and comes back has announced itself.
func TestRegistryHearsWhoComesBack(t *testing.T) {
	t.Parallel()
	r := testSource(t, "http://registry.example/")
	peers := []registry.Peer{{Host: "192.0.2.1", TCPPort: 1}, {Host: "192.0.2.2", TCPPort: 1}}
	for _, c := range []struct{ list, heard int }{{2, 2}, {2, 0}, {1, 0}, {2, 1}} {
		heard := 0
		r.offer(peers[:c.list], func(f found) { heard += b2i(f.heard) })
		if heard != c.heard {
			t.Errorf("%d of %d are heard, want %d", heard, c.list, c.heard)
		}
	}
}

// Each answer brings at most 8 new endpoints, one of each peer first, and none of
// peers that are connected; what is known is named again.
func TestRegistryOffers(t *testing.T) {
	t.Parallel()
	r := testSource(t, "http://registry.example/")
	var peers []registry.Peer
	for i := range 20 {
		id, err := randomPeerID()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			r.connected = func() []peer.ID { return []peer.ID{id} }
		}
		peers = append(peers, registry.Peer{NodeID: "x", Host: fmt.Sprintf("192.0.2.%d", i), TCPPort: 1, PeerID: id.String(), Addrs: []string{fmt.Sprintf("/ip4/192.0.2.%d/udp/1/quic-v1", i)}})
	}
	var got []string
	offer := func(f found) { got = append(got, f.Key) }
	r.offer(peers, offer)
	if len(got) != newPerTick || got[0] != "tcp://192.0.2.1:1" || got[7] != "tcp://192.0.2.8:1" {
		t.Errorf("first %v", got)
	}
	got = nil
	r.offer(peers, offer)
	if len(got) != 2*newPerTick || got[0] != "tcp://192.0.2.1:1" || got[15] != "tcp://192.0.2.16:1" {
		t.Errorf("then %v", got)
	}
	got = nil
	r.offer(peers, offer)
	if len(got) != 3*newPerTick || got[19] != "quic://192.0.2.1:1" {
		t.Errorf("then %v", got)
	}
	for i := range 200 {
		for j := range peers {
			peers[j].Host = fmt.Sprintf("10.%d.0.%d", i, j)
		}
		r.offer(peers, func(found) {})
	}
	if len(r.named) > namedEndpoints {
		t.Errorf("%d endpoints are remembered", len(r.named))
	}
	later := time.Now().Add(2 * registryKeep)
	r.now = func() time.Time { return later }
	r.offer(nil, offer)
	if len(r.named) != 0 {
		t.Errorf("%d endpoints are remembered for ever", len(r.named))
	}
}

func TestRegistryBackoff(t *testing.T) {
	t.Parallel()
	r := testSource(t, "http://registry.example/")
	fails := outcome{asked: &registry.Error{Trouble: registry.Unreachable, Message: "nobody there"}}
	for i, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 15 * time.Second} {
		if got := r.report(fails); got != want {
			t.Errorf("after %d failures: %s, want %s", i+1, got, want)
		}
	}
	if st := r.snapshot(); st.Failures != 5 || st.LastError != "nobody there" {
		t.Errorf("%+v", st)
	}
	if got := r.report(outcome{}); got != 15*time.Second || r.snapshot().Failures != 0 {
		t.Errorf("after success: %s", got)
	}
	// An announcement that is refused is no reason to ask less often.
	if got := r.report(outcome{told: errors.New("no room")}); got != 15*time.Second || r.snapshot().LastError != "no room" || r.snapshot().LastSuccess.IsZero() {
		t.Errorf("after a refusal: %s, %+v", got, r.snapshot())
	}
	r.every = 5 * time.Minute
	for i, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
		if got := r.report(fails); got != want*time.Second {
			t.Errorf("a long interval, after %d failures: %s, want %s", i+1, got, want*time.Second)
		}
	}
	r.report(outcome{})
	r.every = 500 * time.Millisecond
	if got := r.report(fails); got != r.every {
		t.Errorf("a short interval: %s", got)
	}
	r.report(outcome{})
	r.every, r.rand = 5*time.Minute, func(n int64) int64 { return n - 1 }
	if got := r.report(fails); got <= time.Second || got >= 2*time.Second {
		t.Errorf("the first retry, with jitter: %s", got)
	}
	r.every = 15 * time.Second
	if got := r.report(outcome{}); got < 12*time.Second || got >= 15*time.Second {
		t.Errorf("with jitter: %s", got)
	}
}

// A node that only this machine reaches announces itself to a registry of this
// machine, and to no other.
func TestAnnouncesOnlyWhatIsOfUse(t *testing.T) {
	t.Parallel()
	n := open(t, Config{Label: "A"})
	w := n.whereabouts()
	if !w.local || len(w.addrs) == 0 || !strings.HasPrefix(w.addrs[0], tcp4) || w.transports() != "tcp,quic" || fmt.Sprint(w.port) != w.addrs[0][len(tcp4):] {
		t.Errorf("on loopback: %+v", w)
	}
	r := testSource(t, "http://192.0.2.1/")
	r.announces, r.where = true, n.whereabouts
	if err := r.announce(t.Context()); err != nil || !strings.Contains(r.snapshot().Why, "this machine only") {
		t.Errorf("%v, %+v", err, r.snapshot())
	}
	n = open(t, Config{Label: "B", Advertise: []string{"198.51.100.7:4001"}})
	if w := n.whereabouts(); w.local || w.port != 4001 || fmt.Sprint(w.addrs) != "[/ip4/198.51.100.7/tcp/4001 /ip4/198.51.100.7/udp/4001/quic-v1]" {
		t.Errorf("advertised: %+v", w)
	}
	n = open(t, Config{Label: "C", Open: true, Listen: []string{"127.0.0.1:0", "0.0.0.0:0"}, NoDiscovery: true})
	for _, s := range n.whereabouts().addrs {
		if addr, err := ma.NewMultiaddr(s); err != nil || !reachesBeyond(addr) {
			t.Errorf("loopback is announced beside others: %s", s)
		}
	}
}

func TestRegistryConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg  Config
		says string
	}{
		{Config{Registry: "127.0.0.1:8080"}, "not an HTTP URL"},
		{Config{Registry: "ftp://127.0.0.1/"}, "not an HTTP URL"},
		{Config{Registry: "http://"}, "no host"},
		{Config{RegistryInterval: time.Millisecond}, "burden"},
		{Config{RegistryInterval: -1}, "negative"},
	} {
		if err := c.cfg.Check(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.says)
		}
	}
}
