package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"vixp2p/node"
	"vixp2p/node/localapi"
)

// discoveryFlags are the flags of run for finding peers by itself.
type discoveryFlags struct {
	lan          onOff
	interval     span
	dht          choice
	dhtBootstrap addresses
}

func newDiscoveryFlags() discoveryFlags {
	return discoveryFlags{
		lan: true, interval: span{unit: time.Millisecond, value: node.DefaultDiscoveryInterval, min: node.MinDiscoveryInterval, noZero: "use --discovery off to ask nobody"},
		dht: choice{"", []string{"off", "client", "server", "auto"}},
	}
}

// Flags of the original that multicast DNS has no use for.
var idleFlags = []string{"disc-port", "disc-mode"}

func (f *discoveryFlags) add(fs *pflag.FlagSet) {
	const none = " (no effect: multicast DNS has its own)"
	fs.Var(&f.lan, "discovery", "find members on the LAN by multicast DNS; a node that listens on loopback only sends none")
	fs.Var(&f.interval, "disc-interval", "interval of asking the LAN who is there")
	fs.Var(&count{value: 37020, max: math.MaxUint16}, "disc-port", "port of LAN discovery"+none)
	fs.Var(&choice{"broadcast", []string{"broadcast", "multicast"}}, "disc-mode", "kind of LAN discovery"+none)
	fs.Var(&f.dht, "dht", "part in the network's distributed hash table; by default auto where others can reach this node or --dht-bootstrap is given, else off")
	fs.Var(&f.dhtBootstrap, "dht-bootstrap", "member through which to enter the distributed hash table, in the forms of --connect; repeatable")
}

// config puts what the flags say into cfg.
func (f *discoveryFlags) config(cfg *node.Config) {
	cfg.NoDiscovery, cfg.DiscoveryInterval = !bool(f.lan), f.interval.value
	cfg.DHT, cfg.DHTBootstrap = node.DHTMode(f.dht.value), f.dhtBootstrap
}

// idleNote is one sentence if the command line has flags without an effect; they
// are taken so that the original's command lines work.
func idleNote(fs *pflag.FlagSet) string {
	var used []string
	for _, name := range idleFlags {
		if fs.Lookup(name).Changed {
			used = append(used, "--"+name)
		}
	}
	if len(used) == 0 {
		return ""
	}
	return strings.Join(used, " and ") + map[int]string{1: " has", 2: " have"}[len(used)] +
		" no effect: LAN discovery is multicast DNS, which has a port and groups of its own"
}

// discoveryRows are the lines of status about discovery.
func discoveryRows(d *localapi.Discovery, now time.Time, row func(name, format string, args ...any)) {
	if d == nil {
		return
	}
	lan := &d.LAN
	switch {
	case !lan.On:
		row("LAN", "off: %s", shown(lan.Why, 0))
	case lan.Why != "":
		row("LAN", "on, but %s", shown(lan.Why, 0))
	default:
		row("LAN", "asking on %s; %s", strings.Join(lan.Links, ", "), heardText(lan, now))
	}
	row("DHT", "%s", dhtText(&d.DHT, now))
	registryRow(d.Registry, now, row)
}

func heardText(lan *localapi.LAN, now time.Time) string {
	if lan.LastHeard == nil {
		return "nobody heard yet"
	}
	return fmt.Sprintf("%d heard, the last one %s", lan.Peers, ago(lan.LastHeard, now))
}

func dhtText(d *localapi.DHT, now time.Time) string {
	switch {
	case d.Why != "":
		return fmt.Sprintf("%s: %s", d.Mode, shown(d.Why, 0))
	case d.LastError != "":
		return fmt.Sprintf("%s: %d in the table; %s", d.Mode, d.Table, shown(d.LastError, 0))
	case d.LastLookup == nil:
		return d.Mode
	}
	return fmt.Sprintf("%s: %d in the table; %d found %s", d.Mode, d.Table, d.Found, ago(d.LastLookup, now))
}
