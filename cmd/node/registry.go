package main

import (
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vixp2p/node"
	"vixp2p/node/localapi"
	"vixp2p/node/registry"
)

// registryFlags are the flags of run for a registry.
type registryFlags struct {
	bootstrap, announce onOff
	url                 string
	interval            span
}

func newRegistryFlags() registryFlags {
	return registryFlags{announce: true, interval: span{
		unit: time.Second, value: node.DefaultRegistryInterval, min: node.MinRegistryInterval, max: node.MaxRegistryInterval,
		noZero: "use --bootstrap off to ask no registry",
	}}
}

func (f *registryFlags) add(fs *pflag.FlagSet) {
	fs.Var(&f.bootstrap, "bootstrap", "find peers at the registry; on where --registry is given")
	fs.StringVar(&f.url, "registry", "", "base `URL` of the registry, such as http://192.0.2.1:8080/p2p/v1")
	fs.Var(&f.interval, "boot-interval", "interval of asking the registry")
	fs.Var(&f.announce, "announce", "tell the registry about this node; off: only ask it")
}

// config puts what the flags say into cfg. Who names a registry means to use it,
// unless --bootstrap off says otherwise.
func (f *registryFlags) config(fs *pflag.FlagSet, cfg *node.Config) error {
	if f.url != "" {
		if _, err := registry.ParseURL(f.url); err != nil {
			return &usageError{err}
		}
		if !fs.Changed("bootstrap") {
			f.bootstrap = true
		}
	}
	switch {
	case !bool(f.bootstrap):
		return nil
	case f.url == "":
		return usagef("--bootstrap on needs the registry to ask: add --registry URL, for example --registry http://127.0.0.1:8080/p2p/v1")
	}
	cfg.Registry, cfg.RegistryInterval, cfg.NoAnnounce = f.url, f.interval.value, !bool(f.announce)
	return nil
}

// registryRow is the line of status about the registry.
func registryRow(r *localapi.Registry, now time.Time, row func(name, format string, args ...any)) {
	if r == nil {
		return
	}
	told := "announced"
	switch {
	case r.Why != "":
		told = "not announced: " + shown(r.Why, 0)
	case !r.Announced:
		told = "not announced"
	}
	switch {
	case r.LastError != "":
		again := "now"
		if r.Next != nil && r.Next.After(now) {
			again = "in " + brief(r.Next.Sub(now))
		}
		row("registry", "%s; last success: %s; asked again %s", shown(r.LastError, 0), ago(r.LastSuccess, now), again)
	case r.LastSuccess == nil:
		row("registry", "%s: not asked yet", shown(r.URL, 0))
	case r.Peers == 1:
		row("registry", "%s: 1 other node, %s; %s", shown(r.URL, 0), ago(r.LastSuccess, now), told)
	default:
		row("registry", "%s: %d other nodes, %s; %s", shown(r.URL, 0), r.Peers, ago(r.LastSuccess, now), told)
	}
}

func (p *program) registryCommand() *cobra.Command {
	listen := ":8080"
	cfg := registry.ServerConfig{}
	ttl := span{unit: time.Second, value: registry.DefaultTTL, min: time.Second, noZero: "entries that go at once are of no use"}
	perAddress := count{value: registry.DefaultPerAddress, min: 1, max: registry.DefaultMaxEntries}
	level := logLevel{"info", logLevels["info"]}
	format := choice{"text", []string{"text", "json"}}
	cmd := &cobra.Command{
		Use:   "registry",
		Short: "Run a registry at which nodes find each other",
		Long: `Run a registry until Ctrl-C: a small web server that nodes tell where they are
and ask who else is there. It holds addresses and nothing else, of any number of
networks; it needs no identity and no data directory, and is trusted with nothing.
It prints "ready listen=..." when it serves, and its log on the standard error
output.

Nodes use it with --registry http://THIS-HOST:8080/p2p/v1. An entry that is not
announced again goes after --ttl. With --file the entries survive a restart.`,
		Example: `  vix-node registry --listen :8080
  vix-node registry --listen 127.0.0.1:8080 --file registry.json
  vix-node run --id A --listen 9001 --registry http://127.0.0.1:8080/p2p/v1`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Addr, cfg.TTL, cfg.PerAddress = listenAddr(listen), ttl.value, perAddress.value
			cfg.Logger = newLogger(p.stderr, level.level, format.value)
			return p.registry(cmd, cfg)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVar(&listen, "listen", listen, "host:port to listen on, or a `port`; no host is every interface")
	fs.StringVar(&cfg.File, "file", "", "`file` that keeps the entries over a restart")
	fs.Var(&ttl, "ttl", "how long an entry is listed after its last announcement")
	fs.Var(&perAddress, "per-address", "most entries of one IPv4 address or IPv6 /56")
	fs.BoolVar(&cfg.TrustProxy, "trust-proxy", false, "take a node's address from X-Forwarded-For: only where nobody but a reverse proxy reaches this server")
	fs.Var(&level, "log-level", "trace, debug, info, warn, error, critical or off")
	fs.Var(&format, "log-format", "format of the log")
	return cmd
}

// listenAddr lets --listen be a port alone.
func listenAddr(s string) string {
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		return ":" + s
	}
	return s
}

// registry serves until a signal.
func (p *program) registry(cmd *cobra.Command, cfg registry.ServerConfig) (err error) {
	if err := registry.CheckConfig(cfg); err != nil {
		return &usageError{err}
	}
	s, err := registry.Start(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := p.ready("listen=%s", s.Addr()); err != nil {
		return err
	}
	<-cmd.Context().Done()
	return nil
}
