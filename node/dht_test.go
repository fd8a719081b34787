package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// fakeTable is a distributed hash table in a test's hands.
type fakeTable struct {
	mu        sync.Mutex // guards below
	near      []peer.AddrInfo
	others    []peer.AddrInfo
	fail      error
	announced int
	lookups   []time.Time
	tidied    int
	closed    bool
}

func (f *fakeTable) with(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

func (f *fakeTable) peers() (list []peer.AddrInfo) {
	f.with(func() { list = slices.Clone(f.near) })
	return list
}

func (f *fakeTable) announce(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.announced++
	return f.fail
}

func (f *fakeTable) members(context.Context) ([]peer.AddrInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups = append(f.lookups, time.Now())
	return slices.Clone(f.others), f.fail
}

func (f *fakeTable) tidy()        { f.with(func() { f.tidied++ }) }
func (f *fakeTable) close() error { f.with(func() { f.closed = true }); return nil }

func somebody(t *testing.T, addrs ...string) peer.AddrInfo {
	t.Helper()
	p := peer.AddrInfo{ID: somePeer(t)}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, ma.StringCast(a))
	}
	return p
}

// TestDHTRounds: it waits for a first member, announces itself to whoever is new
// in the table, and asks at intervals that grow while nobody new is found.
func TestDHTRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table fakeTable
		var mu sync.Mutex // guards below
		var offers []found
		var live []peer.ID
		d := newDHT(somePeer(t), slog.New(slog.DiscardHandler))
		d.open = func(DHTMode) (dhtTable, error) { return &table, nil }
		d.usable = func(a ma.Multiaddr) bool { return !a.Equal(ma.StringCast("/ip4/127.0.0.1/tcp/1")) }
		d.now, d.wanting = time.Now, func() bool { return true }
		d.connected = func() []peer.ID {
			mu.Lock()
			defer mu.Unlock()
			return live
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.run(ctx, DHTAuto, func(f found) {
				mu.Lock()
				defer mu.Unlock()
				offers = append(offers, f)
			})
		}()
		lookups := func() (n int) {
			synctest.Wait()
			table.with(func() { n, table.lookups = len(table.lookups), nil })
			return n
		}
		time.Sleep(time.Minute)
		if n := lookups(); n != 0 {
			t.Errorf("%d lookups in an empty table", n)
		}
		if st := d.snapshot(); st.Mode != DHTAuto || st.Why != waitsForMember || !st.Lookup.IsZero() {
			t.Errorf("status %+v", st)
		}
		mu.Lock()
		live = []peer.ID{somePeer(t)}
		mu.Unlock()
		time.Sleep(2*dhtEmpty + dhtEmpty/4) // so that what follows comes between two looks
		if st := d.snapshot(); st.Why != waitsForServer {
			t.Errorf("with a member that has no part in it: %+v", st)
		}

		first := somebody(t, "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1")
		other := somebody(t, "/ip4/10.0.0.2/tcp/1", "/ip4/10.0.0.2/udp/1/quic-v1")
		self := peer.AddrInfo{ID: d.self, Addrs: first.Addrs}
		table.with(func() {
			table.near = []peer.AddrInfo{first}
			table.others = []peer.AddrInfo{other, self, {ID: somePeer(t)}}
		})
		mu.Lock()
		live = []peer.ID{first.ID}
		mu.Unlock()
		time.Sleep(2 * dhtEmpty)
		if n := lookups(); n != 1 {
			t.Errorf("%d lookups when a first member is there", n)
		}
		mu.Lock()
		var got []string
		for _, f := range offers {
			if f.from != fromDHT || f.ID != first.ID && f.ID != other.ID || !f.expires.After(time.Now()) {
				t.Errorf("offered %+v", f)
			}
			got = append(got, f.Key)
		}
		mu.Unlock()
		if want := []string{"tcp://10.0.0.2:1", "quic://10.0.0.2:1", "tcp://10.0.0.1:1"}; !slices.Equal(got, want) {
			t.Errorf("offered %v", got)
		}
		time.Sleep(30 * time.Second)
		if n := lookups(); n < 3 || n > 6 {
			t.Errorf("%d lookups in the first 30 s", n)
		}
		time.Sleep(30 * time.Minute)
		if n := lookups(); n < 14 || n > 22 {
			t.Errorf("%d lookups in half an hour of rest", n)
		}
		table.with(func() {
			if table.announced < 3 || table.announced > 5 {
				t.Errorf("announced %d times in half an hour", table.announced)
			}
			table.announced = 0
			table.near = append(table.near, somebody(t, "/ip4/10.0.0.3/tcp/1"))
		})
		time.Sleep(dhtLatest + time.Second)
		lookups()
		table.with(func() {
			if table.announced != 1 || table.tidied == 0 {
				t.Errorf("a new member in the table is told %d times", table.announced)
			}
			table.announced = 0
		})
		d.changed()
		if n := lookups(); n != 1 {
			t.Errorf("%d lookups at once after the network has changed", n)
		}
		table.with(func() {
			if table.announced != 1 {
				t.Errorf("announced %d times after the network has changed", table.announced)
			}
			table.fail = errors.New("nobody answers")
		})
		mu.Lock()
		live = nil
		mu.Unlock()
		time.Sleep(10 * time.Minute)
		lookups()
		time.Sleep(time.Minute)
		if n := lookups(); n < 6 || n > 8 {
			t.Errorf("%d lookups in a minute without any session", n)
		}
		if st := d.snapshot(); st.Error != "nobody answers" || st.Table != 2 || st.Found != 2 { // not this node itself
			t.Errorf("status %+v", st)
		}
		cancel()
		<-done
		if !table.closed {
			t.Error("the table is left open")
		}
	})
}

func TestDHTConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		says string
	}{
		{Config{DHT: "maybe"}, "off, client, server or auto"},
		{Config{DHT: DHTOff, DHTBootstrap: []string{"127.0.0.1:1"}}, "the DHT is off"},
		{Config{DHTBootstrap: []string{"nonsense"}}, "nonsense"},
		{Config{DHT: DHTServer, NoConnect: true}, "connects to nobody"},
		{Config{DHTBootstrap: []string{"127.0.0.1:1"}, NoConnect: true}, "connects to nobody"},
		{Config{DHT: DHTOff, NoConnect: true}, ""},
		{Config{DHT: DHTAuto, DHTBootstrap: []string{"127.0.0.1:1"}}, ""},
	} {
		c.cfg.DataDir = t.TempDir()
		wantError(t, c.cfg, c.says)
	}
}

func wantError(t *testing.T, cfg Config, says string) {
	t.Helper()
	err := cfg.Check()
	if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
		t.Errorf("%+v: %v; want %q", cfg, err, says)
	}
}

// fullTable waits until a node's table has so many peers.
func fullTable(t *testing.T, n *Node, peers int) {
	t.Helper()
	until(t, n.Label()+" has a table", func() bool { return n.Discovery().DHT.Table >= peers })
}

// TestDHT: five nodes that know one member find each other and converge; that one
// dies, they go on, and a sixth enters through any other. A node of another
// network that enters through the same address finds nobody.
func TestDHT(t *testing.T) {
	t.Parallel()
	boot := open(t, Config{Label: "boot", DHT: DHTServer})
	nodes := []*Node{}
	for _, label := range []string{"A", "B", "C", "D"} {
		nodes = append(nodes, open(t, Config{Label: label, DHT: DHTAuto, DHTBootstrap: []string{hostPort(t, boot)}}))
	}
	stranger := open(t, Config{Label: "X", NetworkName: "other", DHTBootstrap: []string{hostPort(t, boot)}})
	put(t, boot, "from-boot", "1")
	all := append(slices.Clone(nodes), boot)
	converge(t, 1, all...)
	start := time.Now()
	for _, n := range nodes {
		until(t, n.Label()+" has sessions with the others", func() bool { return n.Counters().PeersConnected == len(all)-1 })
	}
	t.Logf("five nodes with one bootstrap address: all connected with each other %s after they have converged", time.Since(start).Round(time.Millisecond))
	// The others may have found it before it has looked for them.
	until(t, "a lookup that went well", func() bool {
		st := nodes[0].Discovery().DHT
		return st.Mode == DHTAuto && st.Why == "" && !st.Lookup.IsZero() && st.Error == ""
	})

	if err := boot.Close(); err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		put(t, n, "after-"+n.Label(), string(rune('0'+i)))
	}
	converge(t, 5, nodes...)
	for _, n := range nodes {
		fullTable(t, n, 3)
	}
	sixth := open(t, Config{Label: "F", DHTBootstrap: []string{hostPort(t, nodes[2])}})
	put(t, sixth, "from-sixth", "1")
	nodes = append(nodes, sixth)
	converge(t, 6, nodes...)
	until(t, "the sixth has sessions with all", func() bool { return sixth.Counters().PeersConnected == len(nodes)-1 })

	if st, c := stranger.Discovery().DHT, stranger.Counters(); st.Table != 0 || st.Why != waitsForMember || c.PeersConnected != 0 {
		t.Errorf("the node of another network: %+v, %+v", st, c)
	}
}

// TestDHTClient: a client is found by others and finds them, and serves nobody.
func TestDHTClient(t *testing.T) {
	t.Parallel()
	server := open(t, Config{Label: "S", DHT: DHTServer})
	one := open(t, Config{Label: "A", DHT: DHTClient, DHTBootstrap: []string{hostPort(t, server)}})
	two := open(t, Config{Label: "B", DHT: DHTClient, DHTBootstrap: []string{hostPort(t, server)}})
	until(t, "the clients find each other", func() bool {
		return one.Counters().PeersConnected == 2 && two.Counters().PeersConnected == 2
	})
	if st := one.Discovery().DHT; st.Table != 1 || st.Mode != DHTClient {
		t.Errorf("the table of a client: %+v", st)
	}
}

// TestDHTIsOffOnLoopback: what listens on loopback only and names no member has no
// table, and says so.
func TestDHTIsOffOnLoopback(t *testing.T) {
	t.Parallel()
	n := open(t, Config{Label: "A"})
	until(t, "the status tells", func() bool { return n.Discovery().DHT.Why != "" })
	if st := n.Discovery().DHT; st.Mode != DHTOff || !strings.Contains(st.Why, "loopback only") {
		t.Errorf("status %+v", st)
	}
	for _, p := range n.host.Mux().Protocols() {
		if strings.Contains(string(p), "kad") {
			t.Errorf("it speaks %s", p)
		}
	}
	o := offline(t)
	if st := o.Discovery(); st.DHT.Mode != DHTOff || st.LAN.On {
		t.Errorf("offline: %+v", st)
	}
}

// TestUsable: of what members tell only that is dialled which can lead to another
// machine, or on loopback to another node of this one.
func TestUsable(t *testing.T) {
	t.Parallel()
	near := open(t, Config{Label: "A", NoConnect: true})
	far := open(t, Config{Label: "B", NoConnect: true, NoDiscovery: true, Open: true, Listen: []string{"0.0.0.0:0"}})
	for _, c := range []struct {
		addr      string
		near, far bool
	}{
		{"/ip4/127.0.0.1/tcp/1", true, false},
		{"/ip6/::1/udp/1/quic-v1", true, false},
		{"/ip4/192.0.2.1/tcp/1", false, true},
		{"/ip4/169.254.1.1/tcp/1", false, true},
		{"/ip6/2001:db8::1/udp/1/quic-v1", false, true},
		{"/ip6/fe80::1/tcp/1", false, false}, // of which link?
		{"/ip6zone/eth0/ip6/fe80::1/tcp/1", false, false},
		{"/ip4/0.0.0.0/tcp/1", false, false},
		{"/ip6/::/tcp/1", false, false},
		{"/ip4/224.0.0.1/tcp/1", false, false},
		{"/ip4/255.255.255.255/tcp/1", false, false},
		{"/dns4/peer.example/tcp/1", false, false},
	} {
		a, err := ma.NewMultiaddr(c.addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := near.discovery.usable(a); got != c.near {
			t.Errorf("on loopback %s is of use: %v", c.addr, got)
		}
		if got := far.discovery.usable(a); got != c.far {
			t.Errorf("beyond it %s is of use: %v", c.addr, got)
		}
	}
}
