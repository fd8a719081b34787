package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	crdt "github.com/ipfs/go-ds-crdt"
	"github.com/ipfs/go-ds-crdt/pb"
	pebbleds "github.com/ipfs/go-ds-pebble"
	ipld "github.com/ipfs/go-ipld-format"
	logging "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"google.golang.org/protobuf/proto"
)

// crdtTopic is where heads are told.
const crdtTopic = "bench"

// replica is one of go-ds-crdt, put together as its README says: Pebble below,
// gossip of libp2p's pubsub to tell heads, bitswap to fetch what they name.
type replica struct {
	host  host.Host // nil: alone
	store *pebbleds.Datastore
	data  *crdt.Datastore
	cast  *crdt.PubSubBroadcaster
	heard *pubsub.PubSub
	swap  exchange.Interface
	stop  func()

	mu   sync.Mutex
	puts int    // keys that got a value
	last ds.Key // of these
	more chan struct{}
}

// dagService fetches a branch in one session of bitswap.
type dagService struct{ ipld.DAGService }

func (d dagService) Session(ctx context.Context) ipld.NodeGetter {
	return merkledag.NewSession(ctx, d.DAGService)
}

func openReplica(dir string, alone bool) (r *replica, err error) {
	if err := logging.SetLogLevel("*", "fatal"); err != nil { // a replica that is closed complains
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r = &replica{stop: stop, more: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
			r = nil
		}
	}()
	if r.store, err = pebbleds.NewDatastore(dir); err != nil {
		return r, err
	}
	blocks, err := blockstore.CachedBlockstore(ctx, blockstore.NewBlockstore(r.store, blockstore.WriteThrough(true)), blockstore.DefaultCacheOpts())
	if err != nil {
		return r, err
	}
	var cast crdt.Broadcaster
	if alone {
		r.swap = offline.Exchange(blocks)
	} else {
		if err := r.join(ctx, blocks); err != nil {
			return r, err
		}
		cast = r.cast
	}
	o := crdt.DefaultOptions()
	o.PutHook = r.put
	o.RebroadcastInterval = time.Second // a head that gossip lost is told again soon, not after a minute
	r.data, err = crdt.New(r.store, ds.NewKey("crdt"), dagService{merkledag.NewDAGService(blockservice.New(blocks, r.swap))}, cast, o)
	return r, err
}

// join gives it a host, gossip and bitswap, over TCP as our own nodes.
func (r *replica) join(ctx context.Context, blocks blockstore.Blockstore) (err error) {
	r.host, err = libp2p.New(libp2p.Transport(tcp.NewTCPTransport), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		return err
	}
	// To every peer, not only to those of a mesh that takes a second to form.
	if r.heard, err = pubsub.NewGossipSub(ctx, r.host, pubsub.WithFloodPublish(true)); err != nil {
		return err
	}
	if r.cast, err = crdt.NewPubSubBroadcaster(ctx, r.heard, crdtTopic); err != nil {
		return err
	}
	r.swap = bitswap.New(ctx, bsnet.NewFromIpfsHost(r.host), nil, blocks)
	return nil
}

// put hears that a key got a value, which is about to be stored.
func (r *replica) put(key ds.Key, _ []byte) {
	r.mu.Lock()
	r.puts, r.last = r.puts+1, key
	r.mu.Unlock()
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *replica) heardOf() (puts int, last ds.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.puts, r.last
}

func (r *replica) close() error {
	r.stop()
	var err error
	if r.data != nil {
		err = r.data.Close()
	}
	if r.swap != nil {
		err = errors.Join(err, r.swap.Close())
	}
	if r.host != nil {
		err = errors.Join(err, r.host.Close())
	}
	if r.store != nil {
		err = errors.Join(err, r.store.Close())
	}
	return err
}

func (r *replica) write(ctx context.Context, b batch) error {
	if len(b.payloads) == 1 {
		return r.data.Put(ctx, ds.NewKey(keyOf(b.from)), b.payloads[0])
	}
	delta, err := r.data.Batch(ctx)
	if err != nil {
		return err
	}
	for i, payload := range b.payloads {
		if err := delta.Put(ctx, ds.NewKey(keyOf(b.from+i)), payload); err != nil {
			return err
		}
	}
	return delta.Commit(ctx)
}

// crdtPair is two replicas.
type crdtPair struct{ writer, peer *replica }

func prepareCRDT(ctx context.Context, dir string, l load) error {
	r, err := openReplica(dir, true)
	if err != nil {
		return err
	}
	for b := range l.batches(0) {
		if err = errors.Join(r.write(ctx, b), context.Cause(ctx)); err != nil {
			break
		}
	}
	return errors.Join(err, r.close())
}

func openCRDT(ctx context.Context, writer, peerDir string) (pair, error) {
	w, err := openReplica(writer, false)
	if err != nil {
		return nil, err
	}
	p, err := openReplica(peerDir, false)
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	both := &crdtPair{w, p}
	if err = p.host.Connect(ctx, peer.AddrInfo{ID: w.host.ID(), Addrs: w.host.Addrs()}); err == nil {
		// What is told before the other is known to listen is lost.
		err = poll(ctx, time.Millisecond, func() (bool, error) {
			return len(w.heard.ListPeers(crdtTopic)) > 0 && len(p.heard.ListPeers(crdtTopic)) > 0, nil
		})
	}
	if err != nil {
		return nil, errors.Join(err, both.close())
	}
	return both, nil
}

// start tells the writer's heads, as it would do itself within its interval.
func (p *crdtPair) start(ctx context.Context) error {
	var told pb.CRDTBroadcast
	for _, c := range p.writer.data.InternalStats(ctx).Heads {
		told.Heads = append(told.Heads, &pb.Head{Cid: c.Bytes()})
	}
	if len(told.Heads) == 0 {
		return nil
	}
	b, err := proto.Marshal(&told)
	if err != nil {
		return err
	}
	return p.writer.cast.Broadcast(ctx, b)
}

func (p *crdtPair) write(ctx context.Context, b batch) error { return p.writer.write(ctx, b) }

// await waits until so many keys have got values, and the last of them, which is
// stored together with its batch, can be read. Batches are merged one after the other.
func (p *crdtPair) await(ctx context.Context, ops int) error {
	puts, last := p.peer.heardOf()
	for ; puts < ops; puts, last = p.peer.heardOf() {
		select {
		case <-p.peer.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return poll(ctx, 200*time.Microsecond, func() (bool, error) { return p.peer.data.Has(ctx, last) })
}

func (p *crdtPair) read(ctx context.Context, fn func(int, []byte) error) error {
	found, err := p.peer.data.Query(ctx, query.Query{})
	if err != nil {
		return err
	}
	defer found.Close()
	for e := range found.Next() {
		if e.Error != nil {
			return e.Error
		}
		i, err := numberOf(strings.TrimPrefix(e.Key, "/"))
		if err == nil {
			err = fn(i, e.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *crdtPair) close() error { return errors.Join(p.peer.close(), p.writer.close()) }
