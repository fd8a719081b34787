package node

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// maxLinks bounds the links that are used: a host of containers may have hundreds.
const maxLinks = 32

// lanLink is a network interface that reaches neighbours, with its addresses.
type lanLink struct {
	net.Interface
	prefixes []netip.Prefix // each with the interface's own address
}

// has tells whether an address is one of the neighbours on this link.
func (l *lanLink) has(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(l.prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// addrs are the interface's own addresses that other programs can dial: those of
// IPv6 that hold on one link only need a zone and are left out.
func (l *lanLink) addrs() []netip.Addr {
	var own []netip.Addr
	for _, p := range l.prefixes {
		if ip := p.Addr(); ip.Is4() || !ip.IsLinkLocalUnicast() {
			own = append(own, ip)
		}
	}
	return own
}

// lanLinks are the interfaces that are up, can multicast, lead to other machines,
// and have an address that can be announced; first those that have a carrier.
func lanLinks() ([]lanLink, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	slices.SortStableFunc(all, func(a, b net.Interface) int {
		return b2i(b.Flags&net.FlagRunning != 0) - b2i(a.Flags&net.FlagRunning != 0)
	})
	const need = net.FlagUp | net.FlagMulticast
	var links []lanLink
	for _, i := range all {
		if i.Flags&need != need || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has gone since
		}
		l := lanLink{Interface: i}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() {
				l.prefixes = append(l.prefixes, p)
			}
		}
		if len(l.addrs()) > 0 && len(links) < maxLinks {
			links = append(links, l)
		}
	}
	return links, nil
}
