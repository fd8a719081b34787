package node

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/connmgr"
	libdiscovery "github.com/libp2p/go-libp2p/core/discovery"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/discovery/routing"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/replication"
)

const (
	// maxProviders bounds the members that this node remembers for others, and
	// providersShown how many of them one answer names: chance decides which, so
	// that in a large network not all dial the same.
	maxProviders   = 512
	providersShown = 64
	// leastBucket and mostBucket bound the size of a bucket of the table (k of the
	// paper, where it is 20): half of Config.MaxPeers, because whoever may have few
	// connections should not dial twenty peers for each lookup. It must not be below
	// 11: a table of 10 peers or fewer counts as too small, and with full buckets it
	// would replace peers for ever.
	leastBucket, mostBucket = 12, 20
	// kadValue is what the connection to a peer of the table's widest buckets is worth
	// to the connection manager; the table gives the others 5.
	kadValue = 10
	// idleConnection is after how long a connection that nobody needs is closed.
	idleConnection = time.Minute
)

// kadPrefix is the prefix of the protocols of a network's distributed hash table:
// a hash, so that nobody learns the network's ID from it, and nodes of other
// networks do not speak it.
func kadPrefix(network replication.NetworkID) protocol.ID {
	h := replication.HashParts("vix/dht/1", network[:])
	return protocol.ID("/vix/" + hex.EncodeToString(h[:16]))
}

// rendezvous is the key at which the members of a network announce themselves.
func rendezvous(network replication.NetworkID) string {
	h := replication.HashParts("vix/rendezvous/1", network[:])
	return "/vix/rendezvous/" + hex.EncodeToString(h[:])
}

// kadTable is a Kademlia table (Maymounkov and Mazieres, 2002) of libp2p.
type kadTable struct {
	dht    *kad.IpfsDHT
	host   host.Host
	lookup *routing.RoutingDiscovery
	key    string
	needed func(peer.ID) bool // it has a session, or a handshake is under way
	own    bool               // the host is the node's own, so that tidy may close connections
	idle   time.Duration      // see idleConnection
}

func openKad(h host.Host, network replication.NetworkID, mode DHTMode, maxPeers int, filter func(ma.Multiaddr) bool) (*kadTable, error) {
	key := rendezvous(network)
	modes := map[DHTMode]kad.ModeOpt{DHTClient: kad.ModeClient, DHTServer: kad.ModeServer, DHTAuto: kad.ModeAutoServer}
	d, err := kad.New(kadHost{h},
		kad.ProtocolPrefix(kadPrefix(network)),
		kad.Mode(modes[mode]),
		kad.BucketSize(min(max(leastBucket, maxPeers/2), mostBucket)),
		kad.DisableValues(),
		kad.ProviderDatastore(newProviderShelf(key)),
		kad.ProviderManagerOpts(records.Cache(noCache{}), records.ProvideValidity(dhtValid),
			records.ProviderAddrTTL(dhtValid), records.CleanupInterval(dhtAnnounce)),
		kad.AddressFilter(func(addrs []ma.Multiaddr) (out []ma.Multiaddr) {
			for _, a := range addrs {
				if len(out) < 2*dhtAddrs && filter(a) {
					out = append(out, a)
				}
			}
			return out
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("cannot start the distributed hash table: %w", err)
	}
	return &kadTable{dht: d, host: h, lookup: routing.NewRoutingDiscovery(d), key: key, idle: idleConnection}, nil
}

// kadHost is a host of which the table keeps connections as long as there is room:
// sessions come first. The table would protect some from being closed at all.
type kadHost struct{ host.Host }

func (h kadHost) ConnManager() connmgr.ConnManager { return kadManager{h.Host.ConnManager()} }

type kadManager struct{ connmgr.ConnManager }

func (m kadManager) Protect(id peer.ID, tag string) { m.TagPeer(id, tag, kadValue) }
func (m kadManager) Unprotect(id peer.ID, tag string) bool {
	m.UntagPeer(id, tag)
	return false
}

func (k *kadTable) peers() []peer.AddrInfo {
	var list []peer.AddrInfo
	for _, id := range k.dht.RoutingTable().ListPeers() {
		list = append(list, k.host.Peerstore().PeerInfo(id))
	}
	return list
}

func (k *kadTable) announce(ctx context.Context) error {
	_, err := k.lookup.Advertise(ctx, k.key)
	return err
}

func (k *kadTable) members(ctx context.Context) (list []peer.AddrInfo, err error) {
	found, err := k.lookup.FindPeers(ctx, k.key, libdiscovery.Limit(dhtMost))
	if err != nil {
		return nil, fmt.Errorf("the lookup failed: %w", err)
	}
	for p := range found {
		list = append(list, p)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("the lookup was not complete after %s", dhtTimeout)
	}
	return list, err
}

// tidy closes the connections that lookups have left behind. What has a session,
// what any part of the node tagged or protected (the routing table does with its
// own, the relay with those that it serves), what is young, and what carries
// anything else stays.
func (k *kadTable) tidy() {
	if !k.own {
		return
	}
	for _, c := range k.host.Network().Conns() {
		id := c.RemotePeer()
		if time.Since(c.Stat().Opened) < k.idle || k.needed(id) || k.host.ConnManager().IsProtected(id, "") || !k.onlyLookups(c) {
			continue
		}
		if tag := k.host.ConnManager().GetTagInfo(id); tag == nil || tag.Value == 0 {
			_ = c.Close() // nobody waits for it
		}
	}
}

// onlyLookups tells whether a connection carries nothing but the table's streams.
func (k *kadTable) onlyLookups(c network.Conn) bool {
	for _, s := range c.GetStreams() {
		if p := s.Protocol(); p != "" && !strings.HasSuffix(string(p), "/kad/1.0.0") {
			return false
		}
	}
	return true
}

func (k *kadTable) close() error { return k.dht.Close() }

// providerShelf is where the table keeps who announced itself. Anyone who speaks
// the protocol may announce anything; only members at the network's own key are
// kept, at most maxProviders. Beyond that chance decides who goes: each is told
// again every dhtAnnounce.
type providerShelf struct {
	prefix string // of the only keys that are kept

	mu    sync.Mutex // guards below
	shelf map[string][]byte
}

var _ ds.Batching = (*providerShelf)(nil)

var errOtherKey = errors.New("this table is for the members of one network: nothing else can be announced here")

func newProviderShelf(key string) *providerShelf {
	// As routing discovery and the provider manager build it: the SHA-256 multihash
	// of the key, in base 32.
	sum := sha256.Sum256([]byte(key))
	hash := append([]byte{0x12, sha256.Size}, sum[:]...)
	return &providerShelf{
		prefix: records.ProvidersKeyPrefix + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(hash) + "/",
		shelf:  map[string][]byte{},
	}
}

func (s *providerShelf) Put(_ context.Context, key ds.Key, value []byte) error {
	if !strings.HasPrefix(key.String(), s.prefix) {
		return errOtherKey
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.shelf[key.String()]; !ok && len(s.shelf) >= maxProviders {
		for k := range s.shelf { // any
			delete(s.shelf, k)
			break
		}
	}
	s.shelf[key.String()] = value
	return nil
}

// Query returns all records for a sweep, and a part of them, by chance, for the
// network's key.
func (s *providerShelf) Query(_ context.Context, q query.Query) (query.Results, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var entries []query.Entry
	most := maxProviders
	if q.Prefix+"/" == s.prefix {
		most = providersShown
	}
	for k, v := range s.shelf { // in any order
		if strings.HasPrefix(k, strings.TrimSuffix(q.Prefix, "/")+"/") && len(entries) < most {
			entries = append(entries, query.Entry{Key: k, Value: v, Size: len(v)})
		}
	}
	return query.ResultsWithEntries(q, entries), nil
}

func (s *providerShelf) Delete(_ context.Context, key ds.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shelf, key.String())
	return nil
}

func (s *providerShelf) Get(_ context.Context, key ds.Key) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.shelf[key.String()]; ok {
		return v, nil
	}
	return nil, ds.ErrNotFound
}

func (s *providerShelf) Has(ctx context.Context, key ds.Key) (bool, error) {
	_, err := s.Get(ctx, key)
	return err == nil, nil
}

func (s *providerShelf) GetSize(ctx context.Context, key ds.Key) (int, error) {
	v, err := s.Get(ctx, key)
	return len(v), err
}

func (s *providerShelf) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(s), nil }
func (s *providerShelf) Sync(context.Context, ds.Key) error      { return nil }
func (s *providerShelf) Close() error                            { return nil }

// noCache keeps the provider manager from keeping a second list, which would have
// no bound.
type noCache struct{}

func (noCache) Add(_, _ any) bool              { return false }
func (noCache) Get(any) (any, bool)            { return nil, false }
func (noCache) Contains(any) bool              { return false }
func (noCache) Peek(any) (any, bool)           { return nil, false }
func (noCache) Remove(any) bool                { return false }
func (noCache) RemoveOldest() (any, any, bool) { return nil, nil, false }
func (noCache) GetOldest() (any, any, bool)    { return nil, nil, false }
func (noCache) Keys() []any                    { return nil }
func (noCache) Len() int                       { return 0 }
func (noCache) Purge()                         {}
func (noCache) Resize(int) int                 { return 0 }
