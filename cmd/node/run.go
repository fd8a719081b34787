package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vixp2p/node"
	"vixp2p/node/localapi"
)

// leastStats is how often counters may be printed.
const leastStats = 10 * time.Millisecond

// runFlags are the flags of run.
type runFlags struct {
	listen, connect, advertise addresses
	connectDelay               span
	noConnect, open            bool
	networkName, api           string
	maxPeers                   count
	durability                 choice
	messages                   onOff
	tcp, quic                  onOff
	discovery                  discoveryFlags
	registry                   registryFlags
	run, statsEvery            span
	tui                        onOff
	quiet                      bool
	reach                      reachFlags
	maxRate                    amount
	logLevel                   logLevel
	logFormat                  choice
}

func (p *program) runCommand() *cobra.Command {
	f := &runFlags{
		connectDelay: span{unit: time.Millisecond},
		maxPeers:     count{value: node.DefaultMaxPeers, min: 1, max: 10000},
		durability:   choice{"strict", []string{"strict", "relaxed"}},
		tcp:          true, quic: true, messages: true,
		discovery: newDiscoveryFlags(), registry: newRegistryFlags(),
		run: span{unit: time.Second}, statsEvery: span{unit: time.Millisecond, value: time.Second, min: leastStats},
		tui:       onOff(p.terminal(p.stdout)),
		reach:     newReachFlags(),
		logLevel:  logLevel{"info", logLevels["info"]},
		logFormat: choice{"text", []string{"text", "json"}},
	}
	cmd := &cobra.Command{
		Use:     "run",
		Aliases: []string{"p2p"},
		Short:   "Run a node",
		Long: `Run a node until Ctrl-C, or until its terminal is closed. It prints "ready peer_id=... listen=..." when it serves,
then its counters every second (one updating line on a terminal), and its log on
the standard error output. With --json the counters are JSON, and the ready line
stays as it is.

It needs a name, --id, or a directory, --data-dir. Without --listen it takes any
free port. A directory that init or join made belongs to a network of members: its
node listens on every interface, and only members get in. Any other belongs to the
open development network and listens on this machine only; --open lets others reach
it, and whoever reaches an open node can read and write.`,
		Example: `  vix-node run --id A --listen 9001
  vix-node run --id B --listen 9002 --connect 127.0.0.1:9001
  vix-node p2p --id C --listen 9003 --connect tcp://127.0.0.1:9001 --run 60 --quiet`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.run(cmd, f) },
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Var(&f.listen, "listen", "port, host:port or multiaddr to listen on, 0 = any free port; repeatable")
	fs.Var(&f.connect, "connect", "peer to connect to and stay connected with: host:port, tcp://host:port, quic://host:port or multiaddr; repeatable")
	fs.Var(&f.connectDelay, "connect-delay", "wait before the first connect")
	fs.BoolVar(&f.noConnect, "no-connect", false, "connect to nobody; others may connect to this node")
	fs.Var(&f.advertise, "advertise", "address at which others reach this node, for forwarded ports; repeatable")
	f.reach.add(fs)
	fs.BoolVar(&f.open, "open", false, "let the open development network listen beyond this machine")
	fs.StringVar(&f.networkName, "network-name", node.DefaultNetworkName, "the open network's `name`; nodes of other names are refused")
	fs.Var(&f.tcp, "tcp", "use TCP")
	fs.Var(&f.quic, "quic", "use QUIC (UDP)")
	fs.Var(&f.maxPeers, "max-peers", "most sessions at one time; a peer beyond them is told that this node is busy")
	fs.Var(&f.maxRate, "max-rate", "most bytes per second of data and messages, to all peers together and likewise from them, 0 = no limit")
	fs.Var(&f.durability, "durability", "strict: a write returns when it is fsynced; relaxed: before")
	fs.Var(&f.messages, "messages", "take part in routed messages: send, receive, and carry those of others")
	fs.Var(&f.run, "run", "stop after so long, 0 = never")
	fs.Var(&f.statsEvery, "stats-every", "interval of the counters, 0 = none")
	fs.Var(&f.tui, "tui", "one updating line instead of a line each time")
	fs.BoolVar(&f.quiet, "quiet", false, "print the counters once, at the end")
	fs.StringVar(&f.api, "api", "127.0.0.1:0", "loopback `addr` of the local API, or off")
	fs.Var(&f.logLevel, "log-level", "trace, debug, info, warn, error, critical or off")
	fs.Var(&f.logFormat, "log-format", "format of the log")
	f.discovery.add(fs)
	f.registry.add(fs)
	return cmd
}

// run opens the node, serves, and closes it.
func (p *program) run(cmd *cobra.Command, f *runFlags) (err error) {
	if p.flags.dataDir == "" && p.flags.id == "" {
		return usagef("which node? Name it with --id A (its data goes to vix-node/A in your data folder) or with --data-dir DIR; for example: vix-node run --id A --listen 9001")
	}
	dir, err := p.dir()
	if err != nil {
		return err
	}
	if err := f.check(cmd.Flags(), p.flags.json); err != nil {
		return err
	}
	live := &liveLine{out: p.stdout, width: p.width}
	cfg := p.config(dir, f, live)
	if err := f.registry.config(cmd.Flags(), &cfg); err != nil {
		return err
	}
	f.reach.config(&cfg)
	cfg.MaxRate = f.maxRate.value
	if network, exists, err := node.DataDirNetwork(dir); err != nil {
		return err
	} else if exists && !cmd.Flags().Changed("network-name") {
		cfg.NetworkName = network
	}
	if err := cfg.Check(); err != nil {
		if err := node.APIError(err); isAboutState(err) {
			return err
		}
		return &usageError{err}
	}
	p.note(idleNote(cmd.Flags()))
	if p.getenv("GOMEMLIMIT") == "" {
		defer limitMemory(memoryLimit, memoryRoom)()
	}
	n, err := p.openNode(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := p.ready("peer_id=%s listen=%s", n.ID(), strings.Join(slices.Sorted(slices.Values(n.Addrs())), ",")); err != nil {
		return err
	}
	return p.serve(cmd.Context(), n, f, live)
}

// check refuses flags that others leave without an effect.
func (f *runFlags) check(fs *pflag.FlagSet, json bool) error {
	if fs.Changed("tui") && bool(f.tui) && json {
		return usagef("--tui on and --json do not go together: leave one of them out")
	}
	switch {
	case fs.Changed("network-name") && f.networkName == "":
		return usagef("--network-name takes a name of 1 to 64 bytes, and got none: leave it out for the network of the directory, or %q", node.DefaultNetworkName)
	case fs.Changed("tui") && bool(f.tui) && f.quiet:
		return usagef("--tui on and --quiet do not go together: leave one of them out")
	case fs.Changed("connect-delay") && len(f.connect) == 0:
		return usagef("--connect-delay delays what --connect names: add that, or leave it out")
	}
	for _, flag := range []string{"announce", "boot-interval"} {
		if fs.Changed(flag) && f.registry.url == "" {
			return usagef("--%s is about the registry that --registry names: add that, or leave it out", flag)
		}
	}
	for _, limit := range relayLimitNames {
		if fs.Changed(limit) && !f.reach.relayService {
			return usagef("--%s limits what --relay-service does for others: add that, or leave it out", limit)
		}
	}
	return nil
}

// config is what the flags say. Log lines go around the live line where both are
// on a terminal.
func (p *program) config(dir string, f *runFlags, live *liveLine) node.Config {
	logs := p.stderr
	if bool(f.tui) && p.terminal(p.stderr) {
		live.logs, logs = p.stderr, live
	}
	durability := node.Strict
	if f.durability.value == "relaxed" {
		durability = node.Relaxed
	}
	cfg := node.Config{
		DataDir: dir, Label: p.flags.id, NetworkName: f.networkName, Open: f.open,
		Listen: f.listen, Advertise: f.advertise,
		Connect: f.connect, ConnectDelay: f.connectDelay.value, NoConnect: f.noConnect,
		NoTCP: !bool(f.tcp), NoQUIC: !bool(f.quic), NoMessages: !bool(f.messages),
		MaxPeers:   f.maxPeers.value,
		Durability: durability,
		Logger:     newLogger(logs, f.logLevel.level, f.logFormat.value),
		API:        apiAddr(f.api), Version: version,
	}
	f.discovery.config(&cfg)
	return cfg
}

// apiAddr lets --api be a port alone; "" is off.
func apiAddr(s string) string {
	if s == "off" {
		return ""
	}
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		return "127.0.0.1:" + s
	}
	return s
}

// openNode waits a moment for a command that has the directory open, but not for
// another node.
func (p *program) openNode(ctx context.Context, cfg node.Config) (*node.Node, error) {
	ctx, cancel := within(ctx, p.timeLimit(0))
	defer cancel()
	for start := time.Now(); ; {
		n, err := node.Open(ctx, cfg)
		if !errors.Is(err, node.ErrLocked) {
			return n, p.explain(ctx, err)
		}
		if c, dialErr := localapi.Dial(ctx, cfg.DataDir); dialErr == nil {
			defer c.Close()
			return nil, localapi.Errorf(localapi.CodeLocked, "a node is running on %s already (peer %s): use it, stop it, or name another directory", cfg.DataDir, c.PeerID())
		}
		if time.Since(start) > lockPatience {
			return nil, err
		}
		if sleep(ctx, pollEvery) != nil {
			return nil, err
		}
	}
}

// serve shows counters until a signal, or the end of --run.
func (p *program) serve(ctx context.Context, n *node.Node, f *runFlags, live *liveLine) error {
	if f.run.value > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.run.value)
		defer cancel()
	}
	var tick <-chan time.Time
	if f.statsEvery.value > 0 && !f.quiet {
		t := time.NewTicker(f.statsEvery.value)
		defer t.Stop()
		tick = t.C
	}
	out := newShower()
	for {
		select {
		case <-tick:
		case <-ctx.Done():
			return p.lastStats(context.WithoutCancel(ctx), n, live, out)
		}
		st, err := node.APITotals(ctx, n)
		switch {
		case err != nil: // a repair is under way, or the end: the next one tells
		case bool(f.tui) && !p.flags.json:
			out.show(func() { live.set(renderLive(&st, live.columns())) })
		default:
			out.show(func() { p.printStats(&st) })
		}
	}
}

// lastStats prints the counters as they are at the end.
func (p *program) lastStats(ctx context.Context, n *node.Node, live *liveLine, out *shower) error {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	st, err := node.APITotals(ctx, n)
	out.last(ctx, func() {
		live.clear()
		if err == nil {
			p.printStats(&st)
		}
	})
	return err
}

// endPatience is how long the end of run waits for a reader of its output.
const endPatience = 2 * time.Second

// printStats prints counters. That nobody reads them any more is no reason to
// stop a node.
func (p *program) printStats(t *localapi.Totals) {
	if p.flags.json {
		_ = p.print(t)
		return
	}
	fmt.Fprintln(p.stdout, statsLine(t))
}

// shower writes what run shows in a goroutine of its own, so that a reader that
// stands still (a full pipe, a terminal after Ctrl-S) does not hold up the node's
// end. While one thing waits, newer ones are left out.
type shower struct {
	todo chan func()
	done chan struct{} // closed when the goroutine has ended
}

func newShower() *shower {
	s := &shower{todo: make(chan func(), 1), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for fn := range s.todo {
			fn()
		}
	}()
	return s
}

func (s *shower) show(fn func()) {
	select {
	case s.todo <- fn:
	default:
	}
}

// last shows a last thing and ends the goroutine. When ctx ends first the
// goroutine stays behind, in its write, until the process ends.
func (s *shower) last(ctx context.Context, fn func()) {
	select {
	case s.todo <- fn:
	case <-ctx.Done():
	}
	close(s.todo)
	select {
	case <-s.done:
	case <-ctx.Done():
	}
}

// statsLine is the original's line, and two fields more.
func statsLine(t *localapi.Totals) string {
	return fmt.Sprintf("[vix p2p] peers_total=%d peers_connected=%d handshakes_started=%d handshakes_completed=%d"+
		" connect_attempts=%d connect_deduped=%d connect_failures=%d backoff_skips=%d tracked_endpoints=%d ops=%d pending=%d",
		t.PeersTotal, t.PeersConnected, t.HandshakesStarted, t.HandshakesCompleted,
		t.ConnectAttempts, t.ConnectDeduped, t.ConnectFailures, t.BackoffSkips, t.TrackedEndpoints, t.Ops, t.Pending)
}
