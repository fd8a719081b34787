package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vixp2p/node"
)

// reachFlags are the flags of run for being reached behind NATs.
type reachFlags struct {
	relays                             addresses
	relayClient, autoNAT, holePunching onOff
	portMapping                        onOff
	relayService                       bool
	limits                             relayLimitFlags
}

func newReachFlags() reachFlags {
	return reachFlags{relayClient: true, autoNAT: true, holePunching: true, limits: newRelayLimitFlags()}
}

func (f *reachFlags) add(fs *pflag.FlagSet) {
	fs.Var(&f.relays, "relay", "relay at which others reach this node, in the forms of --connect; repeatable")
	fs.Var(&f.relayClient, "relay-client", "use relays: those of --relay and connected members, and to dial")
	fs.Var(&f.autoNAT, "autonat", "ask peers whether they can reach this node, and answer them")
	fs.Var(&f.holePunching, "hole-punching", "make relayed connections direct ones")
	fs.Var(&f.portMapping, "port-mapping", "have the router forward the ports (UPnP, NAT-PMP): whoever reaches it reaches this node")
	fs.BoolVar(&f.relayService, "relay-service", false, "relay for others")
	f.limits.add(fs)
}

func (f *reachFlags) config(cfg *node.Config) {
	cfg.Relays, cfg.NoRelay = f.relays, !bool(f.relayClient)
	cfg.NoAutoNAT, cfg.NoHolePunching, cfg.PortMapping = !bool(f.autoNAT), !bool(f.holePunching), bool(f.portMapping)
	cfg.RelayService, cfg.RelayLimits = f.relayService, f.limits.limits()
}

// relayLimitFlags bound what a relay does for others.
type relayLimitFlags struct {
	reservations, circuits count
	data                   amount
	duration               span
}

func newRelayLimitFlags() relayLimitFlags {
	return relayLimitFlags{
		reservations: count{value: node.DefaultRelayReservations, min: 1, max: 100000},
		circuits:     count{value: node.DefaultRelayCircuits, min: 1, max: 10000},
		data:         amount{value: node.DefaultRelayData, min: node.MinRelayData},
		duration:     span{unit: time.Second, value: node.DefaultRelayDuration, min: node.MinRelayDuration, noZero: "a connection without a limit would not count as relayed"},
	}
}

// relayLimitNames are the flags of relayLimitFlags.
var relayLimitNames = []string{"relay-reservations", "relay-circuits", "relay-data", "relay-duration"}

func (f *relayLimitFlags) add(fs *pflag.FlagSet) {
	fs.Var(&f.reservations, "relay-reservations", "for how many peers the relay keeps a place")
	fs.Var(&f.circuits, "relay-circuits", "most relayed connections of one peer at one time")
	fs.Var(&f.data, "relay-data", "what a relayed connection carries in each direction before it is made anew")
	fs.Var(&f.duration, "relay-duration", "how long a relayed connection lasts before it is made anew")
}

func (f *relayLimitFlags) limits() node.RelayLimits {
	return node.RelayLimits{
		Reservations: f.reservations.value, Circuits: f.circuits.value,
		Data: f.data.value, Duration: f.duration.value,
	}
}

// relayFlags are the flags of relay.
type relayFlags struct {
	listen, advertise addresses
	tcp, quic         onOff
	limits            relayLimitFlags
	run, statsEvery   span
	logLevel          logLevel
	logFormat         choice
}

func (p *program) relayCommand() *cobra.Command {
	f := &relayFlags{
		tcp: true, quic: true, limits: newRelayLimitFlags(),
		run: span{unit: time.Second}, statsEvery: span{unit: time.Millisecond, min: leastStats},
		logLevel:  logLevel{"info", logLevels["info"]},
		logFormat: choice{"text", []string{"text", "json"}},
	}
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Run a relay through which nodes behind NATs meet",
		Long: `Run a relay until Ctrl-C: a machine that everybody reaches, for nodes that do
not reach each other. It holds no data, and cannot read what it passes on. It
prints "ready peer_id=... listen=..." when it serves; nodes use it with

  vix-node run --id A --open --listen 9001 --relay HOST:PORT

Its identity is in its data directory, vix-node/relay of your data folder if none
is named, so that its address stays. A port alone means every interface of this
machine. A relayed connection that reaches its limit is made anew, and goes on
where it was.`,
		Example: `  vix-node relay --listen 4001
  vix-node relay --listen 4001 --advertise relay.example.com:4001`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.relay(cmd.Context(), f) },
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Var(&f.listen, "listen", "port, host:port or multiaddr to listen on, 0 = any free port; repeatable")
	fs.Var(&f.advertise, "advertise", "address at which others reach this relay, for forwarded ports; repeatable")
	fs.Var(&f.tcp, "tcp", "use TCP")
	fs.Var(&f.quic, "quic", "use QUIC (UDP); hole punching needs it")
	f.limits.add(fs)
	fs.Var(&f.run, "run", "stop after so long, 0 = never")
	fs.Var(&f.statsEvery, "stats-every", "interval of the counters, 0 = at the end only")
	fs.Var(&f.logLevel, "log-level", "trace, debug, info, warn, error, critical or off")
	fs.Var(&f.logFormat, "log-format", "format of the log")
	return cmd
}

// relay runs a relay.
func (p *program) relay(ctx context.Context, f *relayFlags) (err error) {
	dir := p.flags.dataDir
	if dir == "" {
		label := p.flags.id
		if label == "" {
			label = "relay"
		}
		if dir, err = node.LabelDataDir(label); err != nil {
			return &usageError{err}
		}
	}
	cfg := node.RelayConfig{
		DataDir: dir, Listen: f.listen, Advertise: f.advertise, NoTCP: !bool(f.tcp), NoQUIC: !bool(f.quic),
		Limits: f.limits.limits(), Version: version, Logger: newLogger(p.stderr, f.logLevel.level, f.logFormat.value),
	}
	err = cfg.Check()
	if wrong, ok := errors.AsType[*node.RoleError](err); ok {
		return wrong
	}
	if err != nil {
		return &usageError{err}
	}
	r, err := node.OpenRelay(ctx, cfg)
	if err != nil {
		return p.explain(ctx, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := p.ready("peer_id=%s listen=%s", r.ID(), strings.Join(slices.Sorted(slices.Values(r.Addrs())), ",")); err != nil {
		return err
	}
	if f.run.value > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.run.value)
		defer cancel()
	}
	var tick <-chan time.Time
	if f.statsEvery.value > 0 {
		t := time.NewTicker(f.statsEvery.value)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-tick:
			p.printRelay(r)
		case <-ctx.Done():
			p.printRelay(r)
			return nil
		}
	}
}

// printRelay prints what a relay does for others.
func (p *program) printRelay(r *node.Relay) {
	st := r.Status()
	if p.flags.json {
		_ = p.print(struct { // that nobody reads it is no reason to stop
			Reservations  int64  `json:"reservations"`
			Circuits      int64  `json:"circuits"`
			CircuitsTotal uint64 `json:"circuits_total"`
			Bytes         uint64 `json:"bytes"`
			Refused       uint64 `json:"refused"`
		}{st.Reservations, st.Circuits, st.CircuitsTotal, st.Bytes, st.Refused})
		return
	}
	fmt.Fprintf(p.stdout, "[vix relay] reservations=%d circuits=%d circuits_total=%d bytes=%d refused=%d\n",
		st.Reservations, st.Circuits, st.CircuitsTotal, st.Bytes, st.Refused)
}
