package node

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/prometheus/client_golang/prometheus"

	"vixp2p/node/registry"
)

// Durability says when a write counts as done.
type Durability int

const (
	// Strict: a write returns after its block was fsynced (G1).
	Strict Durability = iota
	// Relaxed: a write returns once the system has it; a crash of the machine
	// (not of the process) may lose the newest writes. Shown in Status.
	Relaxed
)

func (d Durability) String() string {
	if d == Relaxed {
		return "relaxed"
	}
	return "strict"
}

// ParseDurability reads "strict" or "relaxed".
func ParseDurability(s string) (Durability, error) {
	switch s {
	case "strict":
		return Strict, nil
	case "relaxed":
		return Relaxed, nil
	}
	return Strict, fmt.Errorf("durability %q is not known: use strict or relaxed", s)
}

// Defaults of Config.
const (
	DefaultNetworkName  = "dev"
	DefaultMaxPeers     = 64
	DefaultPingEvery    = 5 * time.Second
	DefaultStaleAfter   = 15 * time.Second
	DefaultHelloTimeout = 5 * time.Second
	DefaultBudgetBytes  = 32 << 20
	DefaultReserveBytes = 64 << 20

	// MinMaxRate is the lowest Config.MaxRate.
	MinMaxRate = 32 << 10

	DefaultDiscoveryInterval = 2 * time.Second
	DefaultRegistryInterval  = 15 * time.Second
)

// maxNameBytes bounds a label and the name of an open network.
const maxNameBytes = 64

// Config says how to run a node. Zero values are good defaults; Open does not
// change the caller's copy.
type Config struct {
	// DataDir holds the node's identity, logs and views. Default: the place that
	// DefaultDataDir names for Label.
	DataDir string
	// Label is a name for people, never an identity: at most 64 bytes of
	// printable text. The data directory remembers it. Default: the one that it
	// remembers, else the last 8 characters of the peer ID.
	Label string

	// NetworkName tells open networks apart; nodes of different names refuse
	// each other. A data directory keeps its network for life; that of a network of
	// members (Init, Join) takes no name here. Default "dev".
	NetworkName string
	// Open allows an open network to listen beyond loopback, where anyone who
	// reaches it can read and write. Default off.
	Open bool

	// Listen is where to listen: a port (TCP and UDP, 0 = any free port),
	// host:port or a multiaddr. Default: any free port.
	Listen []string
	// Advertise is addresses (host:port or multiaddr) at which other machines
	// reach this node, beside those it listens on; for forwarded ports. A host's name
	// is looked up again every minute.
	Advertise []string
	// Connect is peers to keep a session with, retried for life: host:port,
	// tcp://host:port, quic://host:port or a multiaddr.
	Connect []string
	// ConnectDelay is how long after the start the first of them is dialled.
	// Default 0.
	ConnectDelay time.Duration
	// NoConnect dials nothing by itself, nobody who is remembered either;
	// Node.Connect still works, and peers may dial this node.
	NoConnect bool
	// NoDiscovery switches off LAN discovery: no multicast at all. It is on by
	// default; a node that listens on loopback only has nothing to offer and sends
	// none either. DiscoveryInterval is how often it asks who is there. Default 2 s.
	NoDiscovery       bool
	DiscoveryInterval time.Duration
	// Registry is the base URL of an HTTP registry to find peers at, such as
	// http://192.0.2.1:8080/p2p/v1; the node tells it where it is reached, unless
	// NoAnnounce. RegistryInterval is how often. Default: no registry; 15 s.
	Registry         string
	RegistryInterval time.Duration
	NoAnnounce       bool
	// DHT is the part that the node takes in the distributed hash table of its
	// network. Default: DHTDefault. DHTBootstrap is members through which it enters,
	// in the forms of Connect; they are dialled while nobody else is known.
	DHT          DHTMode
	DHTBootstrap []string
	// Offline uses no network at all: reading and writing work.
	Offline bool
	// NoTCP and NoQUIC switch a transport off. Default: both on.
	NoTCP, NoQUIC bool

	// Relays are relays that keep a place at which peers reach this node, for as
	// long as it is not known to be reachable otherwise: in every form that Connect
	// takes. Connected members that run the relay service are asked for one too, if
	// the node listens beyond loopback. At most 8; default none.
	Relays []string
	// NoRelay uses no relay: neither to be reached nor to dial.
	NoRelay bool
	// RelayService lets peers that cannot reach each other meet through this node,
	// within RelayLimits. Default off.
	RelayService bool
	RelayLimits  RelayLimits
	// NoAutoNAT and NoHolePunching switch off what a node that listens beyond
	// loopback does else: ask peers whether its addresses work, and answer them;
	// make relayed connections direct.
	NoAutoNAT, NoHolePunching bool
	// PortMapping asks the router, by UPnP and NAT-PMP, to forward the listening
	// ports to this node. Default off: it would open an open network to the whole
	// internet.
	PortMapping bool

	// NoMessages takes no part in routed messages: none is sent, received or carried
	// for others. Default: it does.
	NoMessages bool

	// Durability says when a write counts as done. Default Strict.
	Durability Durability
	// MaxPeers bounds sessions; a peer beyond it is told that this node is busy.
	// By itself the node dials peers that it was not told to until it has half as
	// many, so that newcomers find room. Default 64.
	MaxPeers int
	// BudgetBytes bounds the memory in which runs from all peers together wait
	// to be verified and committed. Default 32 MiB.
	BudgetBytes int64
	// MaxRate bounds the data and messages that are sent to all peers together, and
	// likewise what is received, in bytes per second: at least 32 KiB. Acks,
	// questions and what the transports add come on top. Default 0: no limit.
	MaxRate int64
	// ReserveBytes of the disk are left free: below that, writes are refused
	// with ErrNoSpace until there is room again. Default 64 MiB; negative: none.
	ReserveBytes int64

	// PingEvery is the interval of pings; StaleAfter the silence after which a
	// peer counts as Stale; HelloTimeout what a handshake may take. Defaults 5 s,
	// 15 s, 5 s.
	PingEvery, StaleAfter, HelloTimeout time.Duration

	// Host brings your own libp2p host. The node sets its stream handlers on it
	// and removes them at Close; it does not close it, and listens on nothing
	// itself. Its key becomes the identity and must be Ed25519. Default: a host
	// of the node's own.
	Host host.Host
	// Logger receives what happens, one line an event. Default: nothing.
	Logger *slog.Logger
	// Registerer receives metrics. Default: none.
	Registerer prometheus.Registerer
	// Now is the calendar clock, which may be wrong and may jump: of writes, messages
	// and all dates that are kept or shown. What waits in memory goes by the machine's
	// monotonic clock. Default time.Now.
	Now func() time.Time

	// API is the loopback host:port of the local API through which commands
	// reach a running node, port 0 = any free one. Default "": off.
	API string
	// Version of the program, shown to peers and by the local API. Default none.
	Version string

	// members is the network of members to which DataDir belongs; nil: none.
	members *dirNetwork

	// For tests: replaces the system's answer; replaces defaultRepairPause; is
	// called before each repair, which waits for it (nil: not).
	freeBytes    func(path string) (uint64, error)
	repairPause  time.Duration
	beforeRepair func()
}

// withDefaults checks c and returns a copy with every default filled in.
func (c Config) withDefaults() (Config, error) {
	c, err := c.withDirectory()
	if err != nil {
		return c, err
	}
	if err := c.findNetwork(); err != nil {
		return c, err
	}
	if len(c.Listen) == 0 {
		c.Listen = []string{"0"}
	}
	if c.MaxPeers == 0 {
		c.MaxPeers = DefaultMaxPeers
	}
	if c.BudgetBytes == 0 {
		c.BudgetBytes = DefaultBudgetBytes
	}
	if c.ReserveBytes == 0 {
		c.ReserveBytes = DefaultReserveBytes
	}
	for _, d := range []struct {
		v    *time.Duration
		def  time.Duration
		name string
	}{
		{&c.PingEvery, DefaultPingEvery, "ping interval"},
		{&c.StaleAfter, DefaultStaleAfter, "time after which a peer is stale"},
		{&c.HelloTimeout, DefaultHelloTimeout, "hello timeout"},
		{&c.ConnectDelay, 0, "connect delay"},
		{&c.DiscoveryInterval, DefaultDiscoveryInterval, "interval of LAN discovery"},
		{&c.RegistryInterval, DefaultRegistryInterval, "interval of asking the registry"},
	} {
		if *d.v < 0 {
			return c, fmt.Errorf("the %s is %s: it cannot be negative", d.name, *d.v)
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.repairPause == 0 {
		c.repairPause = defaultRepairPause
	}
	return c, c.check()
}

// withDirectory fills in the directory, and the log and clock that whatever works on
// one needs.
func (c Config) withDirectory() (Config, error) {
	if err := checkLabel(c.Label); err != nil {
		return c, err
	}
	if c.DataDir == "" {
		dir, err := DefaultDataDir(c.Label)
		if err != nil {
			return c, err
		}
		c.DataDir = dir
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// findNetwork fills in the network: that of the directory if it is one of members.
func (c *Config) findNetwork() error {
	have, found, err := readNetwork(c.DataDir)
	if err == nil && found && !have.Open {
		switch {
		case c.NetworkName != "":
			return &OtherNetworkError{Dir: c.DataDir, Have: have.describe(), Want: openNetwork(c.NetworkName).describe()}
		case c.Open:
			return errorString{fmt.Sprintf("the data directory %s belongs to %s, to which only members connect: leave --open out", c.DataDir, have.describe()), ErrConflict}
		}
		c.members = &have
		return nil
	}
	if c.NetworkName == "" {
		c.NetworkName = DefaultNetworkName
	}
	return checkName("network name", c.NetworkName) // an unreadable file is for openDataDir to tell
}

func (c *Config) check() error {
	switch {
	case c.MaxPeers < 1:
		return fmt.Errorf("the maximum of %d peers leaves room for none: use 1 or more", c.MaxPeers)
	case c.StaleAfter <= c.PingEvery:
		return fmt.Errorf("peers would be stale after %s, before a ping every %s can be answered: make the first longer", c.StaleAfter, c.PingEvery)
	case c.BudgetBytes < minBudgetBytes:
		return fmt.Errorf("a budget of %d bytes does not hold the runs of even one peer: use at least %d", c.BudgetBytes, minBudgetBytes)
	case c.MaxRate != 0 && c.MaxRate < MinMaxRate:
		return fmt.Errorf("a rate of %d bytes per second is too slow for peers to stay in touch: use at least %d, or 0 for no limit", c.MaxRate, MinMaxRate)
	case c.Durability != Strict && c.Durability != Relaxed:
		return fmt.Errorf("durability %d is not known: use Strict or Relaxed", c.Durability)
	case c.DiscoveryInterval < MinDiscoveryInterval:
		return fmt.Errorf("the interval of LAN discovery is %s: asking more often than every %s would burden the network", c.DiscoveryInterval, MinDiscoveryInterval)
	case c.RegistryInterval < MinRegistryInterval:
		return fmt.Errorf("the interval of asking the registry is %s: asking more often than every %s would burden it", c.RegistryInterval, MinRegistryInterval)
	case c.RegistryInterval > MaxRegistryInterval:
		return fmt.Errorf("the interval of asking the registry is %s: use at most %s, for no registry lists a node for so long", c.RegistryInterval, MaxRegistryInterval)
	case c.NoTCP && c.NoQUIC && c.Host == nil && !c.Offline:
		return fmt.Errorf("both transports are switched off: leave one on")
	}
	if c.Host == nil && !c.Offline {
		if _, err := c.listenSpecs(); err != nil {
			return err
		}
	}
	if c.Registry != "" {
		if _, err := registry.ParseURL(c.Registry); err != nil {
			return err
		}
	}
	if err := c.checkReach(); err != nil {
		return err
	}
	for _, s := range c.Connect {
		t, err := parseTarget(s)
		if err == nil {
			err = t.check("")
		}
		if err != nil {
			return err
		}
	}
	if err := c.checkDHT(); err != nil {
		return err
	}
	for _, s := range c.Advertise {
		if _, err := parseTarget(s); err != nil {
			return fmt.Errorf("cannot advertise: %w", err)
		}
	}
	return nil
}

func (c *Config) checkDHT() error {
	for _, s := range c.DHTBootstrap {
		if _, err := parseTarget(s); err != nil {
			return err
		}
	}
	switch on := c.DHT != DHTDefault && c.DHT != DHTOff; {
	case on && c.DHT != DHTClient && c.DHT != DHTServer && c.DHT != DHTAuto:
		return fmt.Errorf("DHT mode %q is not known: use off, client, server or auto", c.DHT)
	case c.DHT == DHTOff && len(c.DHTBootstrap) > 0:
		return fmt.Errorf("the DHT is off, so that the member %s cannot be used to enter it: switch it on, or leave --dht-bootstrap out", c.DHTBootstrap[0])
	case c.NoConnect && (on || len(c.DHTBootstrap) > 0):
		return fmt.Errorf("a node that connects to nobody cannot use the DHT: leave out --no-connect, or --dht and --dht-bootstrap")
	}
	return nil
}

// network is the network that the directory is to belong to.
func (c *Config) network() dirNetwork {
	if c.members != nil {
		return *c.members
	}
	return openNetwork(c.NetworkName)
}

// agent is what this program calls itself in Hello and to libp2p.
func (c *Config) agent() string {
	if c.Version == "" {
		return "vix-node"
	}
	return "vix-node/" + c.Version
}

// MinDiscoveryInterval bounds what the questions of LAN discovery cost everybody
// on it.
const MinDiscoveryInterval = 100 * time.Millisecond

// minBudgetBytes is room for two whole runs: one that arrives while another is
// committed.
const minBudgetBytes = 4 << 20

func (c *Config) listenSpecs() ([]listenSpec, error) {
	var specs []listenSpec
	for _, s := range c.Listen {
		spec, err := parseListen(s, c.Open || c.members != nil)
		if err != nil {
			return nil, err
		}
		for _, other := range specs {
			if port := spec.clash(&other); port != 0 {
				return nil, fmt.Errorf("port %d is given twice to listen on, by %s and %s: leave one out", port, other.text, spec.text)
			}
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

// checkLabel accepts what is fit to be shown: it may come from a peer.
func checkLabel(label string) error {
	if label == "" {
		return nil
	}
	return checkName("label", label)
}

func checkName(what, s string) error { return checkText(what, s, maxNameBytes) }

func checkText(what, s string, maxBytes int) error {
	switch {
	case s == "" || len(s) > maxBytes:
		return fmt.Errorf("the %s has %d bytes: it must have 1 to %d", what, len(s), maxBytes)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("the %s %q contains characters that cannot be shown: use printable text", what, s)
	case strings.TrimSpace(s) != s:
		return fmt.Errorf("the %s %q starts or ends with a space: remove it", what, s)
	}
	return nil
}
