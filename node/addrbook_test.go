package node

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/replication"
)

// numbered is the peer ID of a key made from a number.
func numbered(t testing.TB, nr int) peer.ID {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, fmt.Sprint(nr))
	id, err := peerIDOf(replication.OriginKey(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func testBook(t *testing.T, dir string) *addressBook {
	t.Helper()
	return openAddressBook(dir, testLog(t, "book"))
}

// connected waits until two nodes both see their session.
func connected(t *testing.T, a, b *Node) {
	t.Helper()
	until(t, "they are connected", func() bool {
		return peerState(t, a, b.ID()).State == Connected && peerState(t, b, a.ID()).State == Connected
	})
}

// TestRememberedPeers: peers that once worked are dialled again after a restart,
// whoever dialled the first time.
func TestRememberedPeers(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A", NoConnect: true}) // or it could begin a session over B's connection first
	dir := t.TempDir()
	b := open(t, Config{Label: "B", DataDir: dir, Connect: []string{hostPort(t, a)}})
	connected(t, a, b)
	id := b.ID()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, Config{Label: "B", DataDir: dir})
	until(t, "B dials A again", func() bool { return peerState(t, b, a.ID()).State == Connected })
	if got := peerState(t, b, a.ID()); got.Direction != "out" || got.Label != "A" {
		t.Errorf("B sees A as %+v", got)
	}
	// A never dialled B, and has learned where it listens.
	until(t, "A knows where B listens", func() bool {
		return slices.ContainsFunc(a.addresses.addrs(b.id), func(addr string) bool {
			tgt, err := parseTarget(addr)
			return err == nil && tgt.Key == "tcp://"+hostPort(t, b)
		})
	})
	addr := a.DataDir()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, Config{Label: "A", DataDir: addr}) // at another port: B cannot find it
	until(t, "A dials B", func() bool { return peerState(t, a, id).State == Connected })
}

// TestNoConnectDialsNobody: what is remembered is not dialled where the user wants
// nothing to be.
func TestNoConnectDialsNobody(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A"})
	dir := t.TempDir()
	b := open(t, Config{Label: "B", DataDir: dir, Connect: []string{hostPort(t, a)}})
	connected(t, a, b)
	if err := errors.Join(b.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	b = open(t, Config{Label: "B", DataDir: dir, NoConnect: true})
	if got := peerState(t, b, a.ID()); got.State != Disconnected || got.Label != "A" {
		t.Errorf("B remembers A as %+v", got)
	}
	if n := targetCount(b); n != 0 {
		t.Errorf("%d addresses are dialled", n)
	}
}

// TestAddressBookFile: the book comes back as it was saved, readable by its owner
// alone.
func TestAddressBookFile(t *testing.T) {
	dir := t.TempDir()
	b := testBook(t, dir)
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	one, two := numbered(t, 1), numbered(t, 2)
	b.meet(one, "one", "example.com:9001", []string{"/ip4/192.0.2.1/tcp/9001", "nonsense"}, now)
	b.meet(two, "", "", []string{"/ip4/192.0.2.2/udp/9001/quic-v1"}, now.Add(time.Minute))
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	want := []bookEntry{
		{ID: two, Addrs: []string{"/ip4/192.0.2.2/udp/9001/quic-v1"}, Last: now.Add(time.Minute)},
		{ID: one, Label: "one", Addrs: []string{"example.com:9001", "/ip4/192.0.2.1/tcp/9001"}, Last: now},
	}
	same := func(x, y bookEntry) bool {
		return x.ID == y.ID && x.Label == y.Label && slices.Equal(x.Addrs, y.Addrs) && x.Last.Equal(y.Last)
	}
	if got := testBook(t, dir).list(); !slices.EqualFunc(got, want, same) {
		t.Errorf("the book comes back as %+v, want %+v", got, want)
	}
	info, err := os.Stat(filepath.Join(dir, peersFile))
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	b.forget(one)
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	if got := testBook(t, dir).list(); len(got) != 1 || got[0].ID != two {
		t.Errorf("after forget: %+v", got)
	}
}

// TestDamagedAddressBook: it is told, kept aside and begun anew; the node starts.
func TestDamagedAddressBook(t *testing.T) {
	id := numbered(t, 1).String()
	for name, content := range map[string]string{
		"empty":       "",
		"half":        `{"version":1,"peers":[{"peer_id":"` + id,
		"another":     `[1,2,3]`,
		"newer":       `{"version":2,"peers":[]}`,
		"no peer":     `{"version":1,"peers":[{"addrs":["h:1"]}]}`,
		"bad address": `{"version":1,"peers":[{"peer_id":"` + id + `","addrs":["h"]}]}`,
		"bad label":   `{"version":1,"peers":[{"peer_id":"` + id + `","label":"\u0007","addrs":[]}]}`,
		"huge":        strings.Repeat(" ", maxBookBytes+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, peersFile)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			b := openAddressBook(dir, slog.New(slog.NewTextHandler(&out, nil)))
			if !strings.Contains(out.String(), "the address book cannot be used") {
				t.Errorf("it is not told: %s", &out)
			}
			if kept, err := os.ReadFile(path + damagedSuffix); err != nil || string(kept) != content {
				t.Errorf("it is not kept aside: %v", err)
			}
			b.meet(numbered(t, 2), "", "h:1", nil, time.Now())
			if err := b.save(); err != nil || len(testBook(t, dir).list()) != 1 {
				t.Errorf("the new one does not work: %v", err)
			}
		})
	}
}

// TestAddressBookIsBounded: what peers say about themselves does not grow it
// without end, and the ones met last stay.
func TestAddressBookIsBounded(t *testing.T) {
	b := testBook(t, t.TempDir())
	now := time.Unix(1e9, 0)
	for i := range maxBookPeers + 10 {
		b.meet(numbered(t, i), "", fmt.Sprintf("h%d:1", i), nil, now.Add(time.Duration(i)*time.Second))
	}
	list := b.list()
	if len(list) != maxBookPeers || list[len(list)-1].ID != numbered(t, 10) {
		t.Errorf("%d peers, the oldest %s", len(list), list[len(list)-1].Addrs)
	}
	id := list[0].ID
	for i := range 20 {
		b.meet(id, "", "", []string{fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", i+1)}, now)
	}
	long := "/dns4/" + strings.Repeat("a.", maxBookAddr/2) + "example/tcp/1"
	b.meet(id, "", "best:9001", []string{long, "/ip4/192.0.2.1/tcp/20"}, now)
	addrs := b.addrs(id)
	if len(addrs) != maxBookAddrs || addrs[0] != "best:9001" || addrs[1] != "/ip4/192.0.2.1/tcp/20" || slices.Contains(addrs, long) {
		t.Errorf("addresses %v", addrs)
	}
	if got := b.targets(); len(got) != maxTargets || got[0].from != fromRemembered {
		t.Errorf("%d targets", len(got))
	}
}

// seenFrom is a connection of which only the remote address is asked.
type seenFrom struct {
	network.Conn
	addr ma.Multiaddr
}

func (s seenFrom) RemoteMultiaddr() ma.Multiaddr { return s.addr }

func TestPlausibleAddresses(t *testing.T) {
	const (
		loop, lan, lan2 = "/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.2/tcp/1", "/ip4/10.0.0.2/udp/1/quic-v1"
		public, public2 = "/ip4/8.8.8.8/tcp/1", "/ip6/2606:4700::1/tcp/1"
		name, link      = "/dns4/example.com/tcp/1", "/ip6/fe80::1/tcp/1"
		relay           = "/ip4/8.8.4.4/tcp/1/p2p/12D3KooWGzBm2Rk4JtC3TrZ7bUoMRE6yNfkWmBxNqbuBZ5gQm9ma/p2p-circuit"
	)
	named := []ma.Multiaddr{}
	for _, a := range []string{relay, loop, lan2, lan, public2, public, name, link, "/ip4/0.0.0.0/tcp/1", "/ip4/8.8.8.8/tcp/1/ws"} {
		named = append(named, ma.StringCast(a))
	}
	for from, want := range map[string][]string{
		"/ip4/127.0.0.1/tcp/5":   {loop, lan2, lan, public2, public, name, relay},
		"/ip4/192.168.1.2/tcp/5": {lan, lan2, public2, public, name, relay},
		"/ip4/8.8.8.8/tcp/5":     {public, public2, name, relay},
	} {
		if got := plausible(named, seenFrom{addr: ma.StringCast(from)}); !slices.Equal(got, want) {
			t.Errorf("from %s: %v, want %v", from, got, want)
		}
	}
}

// TestForget: a peer that is forgotten is not dialled any more, nor after a
// restart.
func TestForget(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A"})
	dir := t.TempDir()
	b := open(t, Config{Label: "B", DataDir: dir})
	if _, _, err := b.Connect(deadline(t), hostPort(t, a)); err != nil {
		t.Fatal(err)
	}
	connected(t, a, b)
	if _, err := b.Forget(deadline(t), numbered(t, 1).String()); err == nil {
		t.Error("a peer that nobody knows is forgotten")
	}
	if id, err := b.Forget(deadline(t), "A"); err != nil || id != a.ID() {
		t.Fatalf("forget: %s, %v", id, err)
	}
	if got := peerState(t, b, a.ID()); got.PeerID != "" || b.Counters().PeersTotal != 0 {
		t.Errorf("B still lists A as %+v", got)
	}
	if n := targetCount(b); n != 0 {
		t.Errorf("%d addresses are dialled", n)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, Config{Label: "B", DataDir: dir})
	if list := b.addresses.list(); len(list) != 0 || targetCount(b) != 0 {
		t.Errorf("after a restart B remembers %+v", list)
	}
	off := open(t, Config{Label: "C", Offline: true})
	off.addresses.meet(a.id, "A", "h:1", nil, time.Now())
	if id, err := off.Forget(deadline(t), "A"); err != nil || id != a.ID() || len(testBook(t, off.DataDir()).list()) != 0 {
		t.Errorf("forget offline: %s, %v", id, err)
	}
}

func targetCount(n *Node) int {
	n.dialer.mu.Lock()
	defer n.dialer.mu.Unlock()
	return len(n.dialer.targets.all)
}

// TestStrangersDoNotFlushTheBook: whoever comes and goes under ever new identities
// takes no place from a peer that is connected, however long ago its session began,
// and that peer is among the newest when the session ends.
func TestStrangersDoNotFlushTheBook(t *testing.T) {
	b, now := testBook(t, t.TempDir()), time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	live := map[peer.ID]bool{"member": true}
	b.connected = func(id peer.ID) bool { return live[id] }
	b.meet("member", "M", "tcp://10.0.0.7:9001", nil, now)
	strangers := func(what string) {
		for i := range maxBookPeers + 1 {
			now = now.Add(time.Second)
			b.meet(peer.ID(fmt.Sprint(what, i)), "", fmt.Sprintf("tcp://10.0.0.66:%d", 1000+i), nil, now)
		}
	}
	strangers("first")
	if n := len(b.list()); n != maxBookPeers || b.addrs("member") == nil {
		t.Errorf("the book has %d peers; the connected one at %v", n, b.addrs("member"))
	}
	delete(live, "member")
	now = now.Add(time.Second)
	if !b.left("member", now) || b.list()[0].ID != "member" || !b.list()[0].Last.Equal(now) {
		t.Errorf("after its session the peer that was connected is not the newest: %+v", b.list()[0])
	}
	strangers("second")
	if b.addrs("member") != nil {
		t.Error("a peer that left long ago keeps its place for ever")
	}
	// Where all are connected a newcomer has to wait until it leaves.
	for _, e := range b.list() {
		live[e.ID] = true
	}
	b.meet("late", "L", "tcp://10.0.0.8:9001", nil, now)
	if n := len(b.list()); n != maxBookPeers || b.left("late", now) {
		t.Errorf("one of %d connected peers had to go for another", n)
	}
}

// TestWrittenAgainAtTheEnd: a peer that has no entry when its session ends gets one.
func TestWrittenAgainAtTheEnd(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A"})
	b := open(t, Config{Label: "B", Connect: []string{hostPort(t, a)}})
	connected(t, a, b)
	b.addresses.forget(a.id) // as if the book had been full
	if _, err := b.Disconnect(t.Context(), a.ID()); err != nil {
		t.Fatal(err)
	}
	if got := b.addresses.addrs(a.id); len(got) == 0 || got[0] != "tcp://"+hostPort(t, a) && got[0] != hostPort(t, a) {
		t.Errorf("B remembers A at %q", got)
	}
}
