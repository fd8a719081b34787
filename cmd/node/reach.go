package main

import (
	"fmt"
	"strings"
	"time"

	"vixp2p/node/localapi"
)

// reachRows tell how others reach the node, as far as there is something to tell.
func reachRows(r *localapi.Reach, row func(name, format string, args ...any)) {
	if r == nil {
		return
	}
	if r.AutoNAT {
		row("reachable", "%s", map[string]string{
			"public":  "yes: others have reached " + strings.Join(r.Confirmed, ", "),
			"private": "not directly: others have tried in vain",
			"unknown": "not known: nobody has tried, or no public address is known",
		}[r.Reachability])
	}
	for _, a := range r.Advertised {
		row("advertised", "%s", shown(a, 0))
	}
	if r.PortMapping {
		switch {
		case len(r.Mapped) > 0:
			row("port mapping", "%s", strings.Join(r.Mapped, ", "))
		case r.Gateway:
			row("port mapping", "a router was found and maps nothing yet")
		default:
			row("port mapping", "no router that maps ports was found")
		}
	}
	for _, p := range r.Relays {
		if p.Error != "" {
			row("relay", "%s: NO PLACE: %s", shown(p.Relay, 0), p.Error)
		} else if len(p.Addrs) == 0 {
			row("relay", "%s: being asked", shown(p.Relay, 0))
		}
		for i, a := range p.Addrs {
			limits := ""
			if p.LimitBytes > 0 && i == 0 {
				limits = fmt.Sprintf(" (%s, %s a connection)", size(p.LimitBytes), brief(time.Duration(p.LimitS*float64(time.Second))))
			}
			row("relay", "%s%s", a, limits)
		}
	}
	if r.Punched+r.PunchFailed > 0 {
		row("hole punching", "%s relayed connections became direct, %s attempts failed", grouped(r.Punched), grouped(r.PunchFailed))
	}
	if s := r.Service; s != nil {
		row("relay service", "%d of %d places taken, %d circuits now, %s so far, %s, %s refused", s.Reservations, s.MaxReservations,
			s.Circuits, grouped(s.CircuitsTotal), size(s.Bytes), grouped(s.Refused))
	}
}
