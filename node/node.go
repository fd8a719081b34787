package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/node/localapi"
	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/replication/replicator"
	"vixp2p/trust"
)

// Node is a running node. Its methods are safe for concurrent use.
type Node struct {
	cfg     Config // with its defaults
	log     *slog.Logger
	key     ed25519.PrivateKey
	id      peer.ID
	network replication.NetworkID
	members *membership // nil in an open network
	names   *spaceNames

	engines   engines
	health    health
	repairs   chan struct{} // capacity 1: a repair is due
	up, down  *replicator.Pace
	host      host.Host  // nil if offline
	mesh      *mesh      // nil if offline
	dialer    *dialer    // nil if offline
	discovery *discovery // nil if offline
	reach     *reach     // nil if offline
	guard     *guard
	addresses *addressBook
	messages  *messenger       // nil if offline, or with NoMessages
	metrics   *metrics         // nil without a Registerer
	api       *localapi.Server // nil without Config.API
	sync      syncMeter

	ctx    context.Context // ends when Close begins
	cancel context.CancelFunc
	wg     sync.WaitGroup // the node's own goroutines

	started time.Time // when Open had the directory

	closeOnce sync.Once
	closeErr  error
}

// Open opens or creates a data directory and runs a node on it until Close. ctx
// bounds the opening only.
//
// Errors: ErrLocked if another process has the directory, *RoleError if it is a
// relay's, *OtherNetworkError if it belongs to another network, replication.ErrTooNew if a later version wrote
// it, *LogsGoneError if its logs are gone, *ListenError, ErrNeedsOpen, ErrNoSpace, and what is wrong with cfg. Nothing
// runs after an error.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := openDataDir(cfg.DataDir, cfg.network())
	if err == nil {
		err = dir.checkLogs()
	}
	if err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	key, err := identityOf(&cfg, dir)
	if err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	id, err := peerIDOf(replication.OriginKey(key.Public().(ed25519.PublicKey)))
	if err != nil {
		return nil, err
	}
	given := cfg.Label
	cfg.Label = labelOf(dir.path, given, id, cfg.Logger)
	n := &Node{
		cfg: cfg, log: cfg.Logger, key: key, id: id, network: replication.OpenNetwork(cfg.NetworkName),
		repairs: make(chan struct{}, 1), guard: newGuard(randInt64),
	}
	if cfg.members != nil {
		n.members, err = openMembership(dir, key, cfg.Now, cfg.Logger)
		if err != nil {
			return nil, permissionProblem(cfg.DataDir, err)
		}
		n.network = n.members.network
		if c := n.members.shown.Load(); n.cfg.Label == shortID(id) && c != nil && c.Leaf.Label != "" {
			n.cfg.Label = c.Leaf.Label // it has none of its own
		}
	}
	n.names = newSpaceNames(n.network)
	if n.members != nil {
		n.names.learn(replication.SpaceInfo{ID: n.members.control, Name: trust.ControlSpaceName})
	}
	n.up, n.down = replicator.NewPace(cfg.MaxRate), replicator.NewPace(cfg.MaxRate)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	err = n.open(ctx, dir)
	if err == nil {
		err = permissionProblem(dir.path, saveLabel(dir.path, given, cfg.Offline))
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// open starts the parts. What it started is there for Close if it fails.
func (n *Node) open(ctx context.Context, dir *dataDir) error {
	if !n.cfg.Offline {
		if err := n.openHost(ctx); err != nil {
			return err
		}
	}
	e, err := n.openEngine(n.key)
	if err != nil {
		return dir.explain(err)
	}
	n.engines.start(e)
	n.started = time.Now()
	n.addresses = openAddressBook(n.cfg.DataDir, n.log) // the directory is ours from here on
	if err := dir.settle(); err != nil {
		return permissionProblem(dir.path, err)
	}
	n.wg.Go(n.repairLoop)
	n.wg.Go(n.nameLoop)
	if n.members != nil && n.mesh != nil {
		n.members.tell(n.trustChanged)
		n.wg.Go(func() { n.members.loop(n.ctx, n) })
	}
	n.wg.Go(func() { n.addresses.writeLoop(n.ctx) })
	if n.host != nil {
		if err := n.join(); err != nil {
			return err
		}
	}
	if n.cfg.Registerer != nil {
		if n.metrics, err = newMetrics(n); err != nil {
			return err
		}
	}
	if n.cfg.API != "" {
		n.api, err = ServeAPI(n, n.cfg.API, n.cfg.Version)
	}
	return err
}

// join serves peers, listens, and starts to dial.
func (n *Node) join() error {
	if n.cfg.Open {
		n.log.Warn("this node is open: anyone who reaches its address can read and write everything, because the open development network has no members", "network_name", n.cfg.NetworkName)
	}
	n.mesh.addresses, n.mesh.redial = n.addresses, !n.cfg.NoConnect
	n.addresses.connected = func(id peer.ID) bool { return n.mesh.book.live(id) != nil }
	n.mesh.recall()
	n.mesh.serve()
	if n.members != nil {
		n.mesh.answerJoins(n.decideJoin)
	}
	n.carryMessages()
	if err := n.mesh.rememberLoop(n.ctx); err != nil {
		return fmt.Errorf("cannot hear where peers listen: %w", err)
	}
	if err := n.listen(); err != nil {
		return err
	}
	if err := n.reach.start(); err != nil {
		return err
	}
	n.dialer.start(n.static(), n.remembered(), n.discovery)
	return nil
}

// openHost makes the host and what belongs to it; nothing is dialled or served
// yet.
func (n *Node) openHost(ctx context.Context) error {
	h := n.cfg.Host
	gate := newGate(time.Now)
	gate.streams = peerStreams(n.cfg.MaxPeers)
	gate.flooded = func(id peer.ID) { n.mesh.flooded(id) }
	if n.members != nil {
		gate.joiners = n.members.expectsJoiners
	}
	reach := newReach(&n.cfg)
	reach.ads.look(ctx)
	if h == nil {
		var err error
		if h, err = newHost(&n.cfg, n.key, reach, gate); err != nil {
			return err
		}
	}
	n.host = h
	n.mesh = &mesh{
		host: h, connector: connector{host: h, resolve: resolveHost, timeout: n.cfg.HelloTimeout},
		service: protocols.NewService(h, n.log), book: newPeerBook(), inbound: newPending(), dismissing: map[peer.ID]int{},
		engine: n.engines.get, network: n.network, names: n.names, members: n.members, label: n.cfg.Label, agent: n.cfg.agent(),
		gate: gate, serves: n.cfg.RelayService,
		maxPeers: n.cfg.MaxPeers, timeout: n.cfg.HelloTimeout, now: time.Now, clock: n.cfg.Now, log: n.log,
	}
	if _, err := rand.Read(n.mesh.boot[:]); err != nil {
		return fmt.Errorf("cannot draw a random number: %w", err)
	}
	n.dialer = newDialer(n.guard, n.mesh, time.Now, n.log)
	n.mesh.dialer = n.dialer
	n.discovery = newDiscovery(n)
	n.mesh.attend, n.mesh.met = reach.attend, reach.met
	n.mesh.moves = &network.NotifyBundle{ConnectedF: n.mesh.connected}
	n.reach = reach
	return reach.attach(h, &n.mesh.connector, n.mesh.direct)
}

func (n *Node) listen() error {
	if n.cfg.Host != nil {
		return nil // its owner decides where it listens
	}
	return openListeners(n.host, &n.cfg)
}

// static is the configured list of peers.
func (n *Node) static() source {
	s := staticSource{delay: n.cfg.ConnectDelay}
	if n.cfg.NoConnect {
		return s
	}
	for _, addr := range n.cfg.Connect {
		if t, err := parseTarget(addr); err == nil { // Config.check saw to that
			s.targets = append(s.targets, t)
		}
	}
	return s
}

// remembered is the peers of the address book.
func (n *Node) remembered() source {
	s := rememberedSource{book: n.addresses, delay: n.cfg.ConnectDelay}
	if n.cfg.NoConnect {
		s.book = nil
	}
	return s
}

// Close says goodbye to peers, ends everything that the node started, and
// releases the data directory. It closes the host unless it is the caller's own.
// Nothing runs afterwards. A second call waits for the first and returns the
// same.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		if n.api != nil {
			n.api.Close()
		}
		n.cancel()
		var errs []error
		if n.mesh != nil {
			n.mesh.closing()
			n.dialer.close()
			errs = append(errs, n.reach.close())
		}
		n.wg.Wait()
		if n.metrics != nil {
			n.metrics.close()
		}
		n.saveAddresses()
		n.saveLastNames()
		errs = append(errs, n.engines.close()) // says goodbye
		if n.mesh != nil {
			n.mesh.service.Close()
			n.mesh.wait()
			if n.cfg.Host == nil {
				errs = append(errs, n.host.Close())
			}
		}
		n.closeErr = errors.Join(errs...)
	})
	return n.closeErr
}

// saveAddresses writes who was met, while the directory is still this node's. What
// cannot be written is no loss that Close should fail for.
func (n *Node) saveAddresses() {
	if n.addresses == nil {
		return
	}
	if n.mesh != nil {
		for _, id := range n.mesh.book.connected() {
			n.addresses.left(id, n.cfg.Now())
		}
	}
	if err := n.addresses.save(); err != nil {
		n.log.Warn("peers are not remembered for the next start", "err", err)
	}
}

// saveLastNames makes durable what a peer called a space a moment before. Where that
// fails, as in a store that takes no write, it is told again in the next session.
func (n *Node) saveLastNames() {
	if len(n.names.unsaved()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), byeTime)
	defer cancel()
	if err := n.saveNames(ctx); err != nil {
		n.log.Debug("the names of spaces are not remembered", "err", err)
	}
}

func (n *Node) isClosed() bool { return n.ctx.Err() != nil }

// ID is the node's peer ID, proven by its key.
func (n *Node) ID() string { return n.id.String() }

// Label is the node's name for people.
func (n *Node) Label() string { return n.cfg.Label }

// DataDir is the node's data directory.
func (n *Node) DataDir() string { return n.cfg.DataDir }

// Addrs are the multiaddrs at which this node listens, and those that it
// advertises.
func (n *Node) Addrs() []string {
	if n.host == nil {
		return nil
	}
	return addrsOf(n.host, n.cfg.Host == nil)
}

// takeSpace decides on a space that a peer named: in an open network every one
// is taken, as long as there are not too many; in one of members those that an admin
// has declared and that this node carries.
func (n *Node) takeSpace(s replication.SpaceInfo) bool {
	if n.members != nil && (!n.members.isDeclared(s.ID) || !n.members.takesPart(s.ID)) {
		return s.ID == n.members.control
	}
	if !n.names.learn(s) {
		if n.mesh.refusals.fresh("space", time.Now()) { // a peer may name thousands
			n.log.Warn("a space that a peer named is not taken: it is one too many, or its name is not fit to be shown", "space", s.ID.String())
		}
		return false
	}
	n.names.signal()
	return true
}

// nameLoop makes the names of spaces that peers told durable.
func (n *Node) nameLoop() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.names.fresh:
		}
		if err := n.saveNames(n.ctx); err != nil && n.ctx.Err() == nil {
			n.log.Warn("the names of spaces are not remembered yet", "err", err)
		}
	}
}

func (n *Node) saveNames(ctx context.Context) error {
	return n.do(ctx, func(e *engine) error {
		for _, id := range n.names.unsaved() {
			if err := n.names.save(ctx, e.store, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// identityOf is the key of the data directory, or of the caller's own host.
func identityOf(cfg *Config, dir *dataDir) (ed25519.PrivateKey, error) {
	if cfg.Host == nil {
		return dir.loadIdentity()
	}
	priv := cfg.Host.Peerstore().PrivKey(cfg.Host.ID())
	if priv == nil || priv.Type() != crypto.Ed25519 {
		return nil, errors.New("the host's key is not an Ed25519 key: make the host with one")
	}
	raw, err := priv.Raw()
	if err != nil || len(raw) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("the host's key cannot be used: %w", err)
	}
	return ed25519.PrivateKey(raw), nil
}

// peerIDOf is the peer ID of an origin.
func peerIDOf(origin replication.OriginKey) (peer.ID, error) {
	pub, err := crypto.UnmarshalEd25519PublicKey(origin[:])
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(pub)
}

// originName is a peer ID for people, or the key in hex if it is no key.
func originName(origin replication.OriginKey) string {
	id, err := peerIDOf(origin)
	if err != nil {
		return origin.String()
	}
	return id.String()
}

// shortID is the end of a peer ID: the start is the same in all.
func shortID(id peer.ID) string {
	s := id.String()
	return s[max(0, len(s)-8):]
}

func randInt64(n int64) int64 {
	if n <= 0 {
		return 0
	}
	return mathrand.Int64N(n)
}
