package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/prometheus/client_golang/prometheus"

	"vixp2p/replication/wal"
)

// RelayConfig says how to run a relay alone: no data, no sessions, nothing but
// the relay service. Zero values are good defaults.
type RelayConfig struct {
	// DataDir holds the relay's identity, so that its address stays.
	DataDir string
	// Listen is where to listen: a port (TCP and UDP, 0 = any free port), which
	// means every interface, host:port or a multiaddr. Default: any free port.
	Listen []string
	// Advertise is addresses at which others reach the relay, for forwarded ports.
	Advertise []string
	// NoTCP and NoQUIC switch a transport off. Default: both on.
	NoTCP, NoQUIC bool
	// Limits bound what it does for others.
	Limits RelayLimits
	// Version of the program, shown to peers. Default none.
	Version string
	// Logger receives what happens, one line an event. Default: nothing.
	Logger *slog.Logger
	// Registerer receives libp2p's metrics. Default: none.
	Registerer prometheus.Registerer
}

// config is the node that the relay is a part of. It needs no network: what it
// relays is encrypted between those who meet through it.
func (c *RelayConfig) config() (Config, error) {
	if _, network, err := readNetwork(c.DataDir); network && err == nil { // openRelayDir looks closer
		return Config{}, &RoleError{Dir: c.DataDir}
	}
	limits, err := c.Limits.withDefaults()
	if err != nil {
		return Config{}, err
	}
	return Config{
		DataDir: c.DataDir, Open: true, Listen: c.Listen, Advertise: c.Advertise, NoTCP: c.NoTCP, NoQUIC: c.NoQUIC,
		MaxPeers: limits.Reservations, Version: c.Version, Logger: c.Logger, Registerer: c.Registerer,
		RelayService: true, RelayLimits: limits, NoRelay: true, NoHolePunching: true,
	}.withDefaults()
}

// Check tells what is wrong with the configuration, as OpenRelay would.
func (c RelayConfig) Check() error {
	_, err := c.config()
	return err
}

// Relay is a running relay.
type Relay struct {
	host  host.Host
	reach *reach
	lock  io.Closer // of the data directory

	closeOnce sync.Once
	closeErr  error
}

// OpenRelay runs a relay until Close. ctx bounds the opening only.
//
// Errors: ErrLocked if a relay runs on the directory, *RoleError if it is a node's,
// *ListenError, and what is wrong with cfg. Nothing runs after an error.
func OpenRelay(ctx context.Context, rc RelayConfig) (*Relay, error) {
	cfg, err := rc.config()
	if err != nil {
		return nil, err
	}
	dir, err := openRelayDir(cfg.DataDir)
	if err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	r := &Relay{reach: newReach(&cfg)}
	if r.lock, err = wal.Hold(filepath.Join(cfg.DataDir, logDir)); err != nil {
		return nil, permissionProblem(cfg.DataDir, err)
	}
	if err := r.open(ctx, &cfg, dir); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// open starts the parts. What it started is there for Close if it fails.
func (r *Relay) open(ctx context.Context, cfg *Config, dir *dataDir) error {
	key, err := dir.loadIdentity()
	if err == nil {
		err = dir.settle()
	}
	if err != nil {
		return permissionProblem(dir.path, err)
	}
	r.reach.ads.look(ctx)
	if r.host, err = newHost(cfg, key, r.reach, nil); err != nil {
		return err
	}
	connections := &connector{host: r.host, resolve: resolveHost, timeout: cfg.HelloTimeout}
	if err := r.reach.attach(r.host, connections, nil); err != nil {
		return err
	}
	if err := openListeners(r.host, cfg); err != nil {
		return err
	}
	return r.reach.start()
}

// Close ends everything that the relay started. Circuits are cut. A second call
// returns the same as the first.
func (r *Relay) Close() error {
	r.closeOnce.Do(func() {
		var errs []error
		if r.host != nil {
			errs = append(errs, r.reach.close(), r.host.Close())
		}
		r.closeErr = errors.Join(append(errs, r.lock.Close())...)
	})
	return r.closeErr
}

// ID is the relay's peer ID.
func (r *Relay) ID() string { return r.host.ID().String() }

// Addrs are the multiaddrs at which the relay listens, and those that it
// advertises.
func (r *Relay) Addrs() []string { return addrsOf(r.host, true) }

// Status tells what it does for others.
func (r *Relay) Status() RelayServiceStatus { return *r.reach.service.status() }
