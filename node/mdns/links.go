package mdns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// maxLinks bounds the links that are used: a host of containers may have hundreds.
const maxLinks = 32

// Link is a network interface that reaches neighbours, with its addresses.
type Link struct {
	Index    int
	Name     string
	Prefixes []netip.Prefix // each with the interface's own address
}

// Has tells whether an address is one of the neighbours on this link.
func (l *Link) Has(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// Addrs are the interface's own addresses that other programs can dial: those of
// IPv6 that hold on one link only need a zone and are left out.
func (l *Link) Addrs() []netip.Addr {
	var own []netip.Addr
	for _, p := range l.Prefixes {
		if ip := p.Addr(); ip.Is4() || !ip.IsLinkLocalUnicast() {
			own = append(own, ip)
		}
	}
	return own
}

// Links are the interfaces that are up, can multicast, lead to other machines, and
// have an address that can be announced.
func Links() ([]Link, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	const need = net.FlagUp | net.FlagMulticast
	var links []Link
	for _, i := range all {
		if i.Flags&need != need || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has gone since
		}
		l := Link{Index: i.Index, Name: i.Name}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() {
				l.Prefixes = append(l.Prefixes, p)
			}
		}
		if len(l.Addrs()) > 0 && len(links) < maxLinks {
			links = append(links, l)
		}
	}
	return links, nil
}
