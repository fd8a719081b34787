package node

import (
	"encoding/base32"
	"errors"
	"strings"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p-kad-dht/records"
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
