package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/replication/replicator"
	"vixp2p/replication/wal"
)

// The network and the space of everything that is measured without a node.
var (
	benchNetwork = replication.OpenNetwork("bench")
	benchSpace   = replication.SpaceOf(benchNetwork, replication.DefaultSpace)
	benchSpaces  = []replication.SpaceInfo{{ID: benchSpace, Name: replication.DefaultSpace}}
)

// farKey is the identity of the far end of every link, and of who wrote a prepared
// log: a store is of one node for life.
var farKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// benchProtocol is the streams of this package.
const benchProtocol = "/vix/bench/1"

// link is two hosts, connected by one transport with the same layers as a node's.
type link struct {
	near, far host.Host
	keys      [2]ed25519.PrivateKey
	came      chan network.Stream // opened by near
}

func openLink(ctx context.Context, transport string) (*link, error) {
	_, near, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	l := &link{keys: [2]ed25519.PrivateKey{near, farKey}, came: make(chan network.Stream, 1)}
	for i, h := range []*host.Host{&l.near, &l.far} {
		if *h, err = openHost(l.keys[i], transport); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	l.far.SetStreamHandler(benchProtocol, func(st network.Stream) { l.came <- st })
	if err := l.near.Connect(ctx, peer.AddrInfo{ID: l.far.ID(), Addrs: l.far.Addrs()}); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func openHost(key ed25519.PrivateKey, transports ...string) (host.Host, error) {
	identity, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, err
	}
	opts := []libp2p.Option{
		libp2p.Identity(identity), libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.Ping(false),
	}
	for _, t := range transports {
		switch t {
		case "tcp":
			opts = append(opts, libp2p.Transport(tcp.NewTCPTransport), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
		case "quic":
			opts = append(opts, libp2p.Transport(libp2pquic.NewTransport), libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"))
		}
	}
	return libp2p.New(opts...)
}

// stream opens a stream and returns both ends.
func (l *link) stream(ctx context.Context) (near, far network.Stream, err error) {
	if near, err = l.near.NewStream(ctx, l.far.ID(), benchProtocol); err != nil {
		return nil, nil, err
	}
	// The far end hears of it with its first byte.
	if _, err := near.Write([]byte{0}); err != nil {
		near.Reset()
		return nil, nil, err
	}
	select {
	case far = <-l.came:
	case <-ctx.Done():
		near.Reset()
		return nil, nil, context.Cause(ctx)
	}
	_, err = io.ReadFull(far, make([]byte, 1))
	return near, far, err
}

func (l *link) close() (err error) {
	for _, h := range []host.Host{l.near, l.far} {
		if h != nil {
			err = errors.Join(err, h.Close())
		}
	}
	return err
}

// through makes near's connection to far go through a TCP proxy that counts.
func (l *link) through(ctx context.Context, p *proxy) error {
	if err := l.near.Network().ClosePeer(l.far.ID()); err != nil {
		return err
	}
	l.near.Peerstore().ClearAddrs(l.far.ID())
	addr, err := ma.NewMultiaddr(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", p.port()))
	if err != nil {
		return err
	}
	return l.near.Connect(ctx, peer.AddrInfo{ID: l.far.ID(), Addrs: []ma.Multiaddr{addr}})
}

// member is what replication needs of a node: a store and its replicator. It has
// no view.
type member struct {
	store   *wal.Store
	repl    *replicator.Replicator
	cancel  func()
	settled chan struct{} // holds one for each session that has compared the frontiers
	grown   atomic.Uint64 // operations that came from elsewhere, are durable, and were not awaited yet
	more    chan struct{} // holds one after grown has changed
}

// openMember opens a store and replicates it.
func openMember(dir string, key ed25519.PrivateKey, relaxed bool) (*member, error) {
	store, err := openStore(dir, key, relaxed)
	if err != nil {
		return nil, err
	}
	m := &member{store: store, settled: make(chan struct{}, 16), more: make(chan struct{}, 1)}
	m.repl, err = replicator.New(replicator.Options{
		Store: store, Spaces: benchSpaces,
		Observe: func(_ *replicator.Peer, e replication.Effect) {
			if _, ok := e.(replication.Settled); ok {
				ring(m.settled)
			}
		},
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	m.cancel = store.Subscribe(func(a replication.Advance) {
		if a.Source != 0 {
			m.grown.Add(a.Ops)
			ring(m.more)
		}
	})
	return m, nil
}

func openStore(dir string, key ed25519.PrivateKey, relaxed bool) (*wal.Store, error) {
	return wal.Open(wal.Options{Dir: dir, Network: benchNetwork, Key: key, Relaxed: relaxed, Compress: true})
}

func (m *member) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := m.repl.Close(ctx)
	m.cancel()
	return errors.Join(err, m.store.Close())
}

// ring puts one into a channel, unless it is full. Those who call it must not wait.
func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits until so many operations have come from elsewhere and are durable,
// beside those that were awaited before.
func (m *member) await(ctx context.Context, ops uint64) error {
	err := m.reach(ctx, ops)
	if err == nil {
		m.grown.Add(-ops)
	}
	return err
}

// reach is await, and the operations can be awaited again.
func (m *member) reach(ctx context.Context, ops uint64) error {
	for m.grown.Load() < ops {
		select {
		case <-m.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// awaitSettled waits until a session has compared the frontiers.
func (m *member) awaitSettled(ctx context.Context) error {
	select {
	case <-m.settled:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// session is one between two members over a stream of a link, after Hello.
type session struct {
	near, far *replicator.Peer
	bytes     atomic.Int64 // written to the stream since Hello, both ways
}

// countedStream counts what is written.
type countedStream struct {
	protocols.Stream
	n *atomic.Int64
}

func (c countedStream) Write(b []byte) (int, error) {
	n, err := c.Stream.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// shake does Hello over a new stream.
func (l *link) shake(ctx context.Context, near, far *member) (s *session, hellos [2]*protocols.Session, err error) {
	a, b, err := l.stream(ctx)
	if err != nil {
		return nil, hellos, err
	}
	s = &session{}
	hello := func(m *member, self, other host.Host) protocols.HelloConfig {
		return protocols.HelloConfig{Network: benchNetwork, Self: self.ID(), Peer: other.ID(), Instance: m.store.Info().Instance, Attempt: 1, Spaces: benchSpaces}
	}
	answered := make(chan error, 1)
	go func() {
		var err error
		hellos[1], err = protocols.Respond(countedStream{b, &s.bytes}, hello(far, l.far, l.near))
		answered <- err
	}()
	hellos[0], err = protocols.Initiate(countedStream{a, &s.bytes}, hello(near, l.near, l.far))
	if err = errors.Join(err, <-answered); err != nil {
		a.Reset()
		b.Reset()
	}
	return s, hellos, err
}

// attach starts replication over a completed Hello.
func (s *session) attach(near, far *member, hellos [2]*protocols.Session) (err error) {
	s.bytes.Store(0)
	at := func(m *member, hello *protocols.Session) (*replicator.Peer, error) {
		p := hello.Peer
		return m.repl.Attach(replicator.PeerInfo{ID: p.ID.String(), Key: p.Key, Instance: p.Instance, Spaces: p.Spaces, Levels: true, SharesLevels: true}, protocols.NewConn(hello))
	}
	if s.near, err = at(near, hellos[0]); err != nil {
		return err
	}
	s.far, err = at(far, hellos[1])
	return err
}

// start begins a session of two members.
func (l *link) start(ctx context.Context, near, far *member) (*session, error) {
	s, hellos, err := l.shake(ctx, near, far)
	if err != nil {
		return nil, err
	}
	return s, s.attach(near, far, hellos)
}

// end ends a session and waits for that.
func (s *session) end() {
	s.near.Close(replication.CodeShutdown, "")
	for _, p := range []*replicator.Peer{s.near, s.far} {
		if p != nil {
			<-p.Done()
		}
	}
}
