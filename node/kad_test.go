package node

import (
	"encoding/base32"
	"errors"
	"slices"
	"strings"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/replication"
)

// TestNetworkNames: what others can see of a network is a hash of its own for each
// purpose.
func TestNetworkNames(t *testing.T) {
	dev, other := replication.OpenNetwork("dev"), replication.OpenNetwork("other")
	if kadPrefix(dev) == kadPrefix(other) || rendezvous(dev) == rendezvous(other) {
		t.Error("two networks share a table or a key")
	}
	// They stand on the network: another version must find this one.
	if got := kadPrefix(dev); got != "/vix/4883b3cab5910d360e6e1d1094f140ad" {
		t.Errorf("the prefix of the network dev has changed to %s", got)
	}
	if got := rendezvous(dev); got != "/vix/rendezvous/acf6207474982c280c1a40b71f86ba4dff90c78ca34ab33dc606c048f1abc8b8" {
		t.Errorf("the key of the network dev has changed to %s", got)
	}
}

// TestProviderShelf: whatever is announced, a bounded number of members of this
// network is kept, and an answer names some of them by chance.
func TestProviderShelf(t *testing.T) {
	s := newProviderShelf(rendezvous(replication.OpenNetwork("dev")))
	h, err := libp2p.New(libp2p.NoListenAddrs)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	pm, err := records.NewProviderManager(h.ID(), h.Peerstore(), s, records.Cache(noCache{}))
	if err != nil {
		t.Fatal(err)
	}
	defer pm.Close()
	hash, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.TrimSuffix(strings.TrimPrefix(s.prefix, records.ProvidersKeyPrefix), "/"))
	if err != nil {
		t.Fatal(err)
	}
	addr := []ma.Multiaddr{ma.StringCast("/ip4/10.0.0.1/tcp/1")}
	for range 2 * maxProviders {
		if err := pm.AddProvider(t.Context(), hash, peer.AddrInfo{ID: somePeer(t), Addrs: addr}); err != nil {
			t.Fatal(err)
		}
	}
	if err := pm.AddProvider(t.Context(), []byte("another key"), peer.AddrInfo{ID: somePeer(t), Addrs: addr}); err == nil {
		t.Error("a record for another key is taken")
	}
	if len(s.shelf) != maxProviders {
		t.Errorf("%d are kept", len(s.shelf))
	}
	seen := map[peer.ID]bool{}
	for range 50 {
		list, err := pm.GetProviders(t.Context(), hash)
		if err != nil || len(list) != providersShown {
			t.Fatalf("an answer names %d, %v", len(list), err)
		}
		for _, p := range list {
			seen[p.ID] = true
		}
	}
	if len(seen) < maxProviders/2 {
		t.Errorf("fifty answers name %d of %d", len(seen), maxProviders)
	}
	all, err := s.Query(t.Context(), query.Query{Prefix: records.ProvidersKeyPrefix})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := all.Rest(); err != nil || len(list) != maxProviders {
		t.Errorf("a sweep sees %d, %v", len(list), err)
	}
}

// TestShelfIsADatastore: the rest of what a datastore does.
func TestShelfIsADatastore(t *testing.T) {
	s := newProviderShelf("k")
	key := ds.RawKey(s.prefix + "A")
	if _, err := s.Get(t.Context(), key); !errors.Is(err, ds.ErrNotFound) {
		t.Errorf("get of nothing: %v", err)
	}
	if err := s.Put(t.Context(), key, []byte("v")); err != nil {
		t.Fatal(err)
	}
	has, _ := s.Has(t.Context(), key)
	size, _ := s.GetSize(t.Context(), key)
	v, err := s.Get(t.Context(), key)
	if err != nil || !has || size != 1 || string(v) != "v" {
		t.Errorf("%q, %t, %d, %v", v, has, size, err)
	}
	if err := s.Delete(t.Context(), key); err != nil || len(s.shelf) != 0 {
		t.Errorf("%v, %d left", err, len(s.shelf))
	}
}

// TestTidy: connections that lookups left behind are closed; those of sessions, of
// the table, and what another part of the node wants stay.
func TestTidy(t *testing.T) {
	t.Parallel()
	dev := replication.OpenNetwork("dev")
	newHost := func() host.Host {
		h, err := libp2p.New(libp2p.ListenAddrStrings(tcp4 + "0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	own, stranger, session, relay, member := newHost(), newHost(), newHost(), newHost(), newHost()
	open := func(h host.Host) *kadTable {
		k, err := openKad(h, dev, DHTServer, DefaultMaxPeers, func(ma.Multiaddr) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := k.close(); err != nil {
				t.Error(err)
			}
		})
		return k
	}
	k := open(own)
	open(member)
	k.needed = func(id peer.ID) bool { return id == session.ID() }
	own.ConnManager().TagPeer(relay.ID(), "relay", 1)
	for _, h := range []host.Host{stranger, session, relay, member} {
		if err := own.Connect(deadline(t), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the member is in the table", func() bool { return len(k.peers()) == 1 })
	until(t, "identify has ended", func() bool {
		return !slices.ContainsFunc(own.Network().Conns(), func(c network.Conn) bool { return !k.onlyLookups(c) })
	})
	open4 := func() (n int) {
		for _, h := range []host.Host{stranger, session, relay, member} {
			n += len(own.Network().ConnsToPeer(h.ID()))
		}
		return n
	}
	if k.tidy(); open4() != 4 {
		t.Error("a host that belongs to somebody else loses connections")
	}
	k.own = true
	if k.tidy(); open4() != 4 {
		t.Error("young connections are closed")
	}
	k.idle = 0
	k.tidy()
	if len(own.Network().ConnsToPeer(stranger.ID())) != 0 || open4() != 3 {
		t.Errorf("%d connections are left, %d to the stranger", open4(), len(own.Network().ConnsToPeer(stranger.ID())))
	}
}
