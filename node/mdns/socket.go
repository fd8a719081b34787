package mdns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// port is that of multicast DNS, and the groups are its own (RFC 6762 3).
const port = 5353

var (
	group4 = netip.AddrFrom4([4]byte{224, 0, 0, 251})
	group6 = netip.MustParseAddr("ff02::fb")
)

// packet is a datagram that was received.
type packet struct {
	data []byte
	link int        // index of the interface; 0 where the system does not tell
	to   netip.Addr // where it was sent; not valid where the system does not tell
	from netip.Addr
}

// socket sends and receives the datagrams of one IP version.
type socket interface {
	// send multicasts on one link; one goroutine does.
	send(link int, data []byte) error
	// receive waits for a datagram; its data holds until the next call. After
	// close it returns net.ErrClosed.
	receive() (packet, error)
	close() error
}

// listen opens the sockets of both IP versions for the links: one that the machine
// does not have is left out. An error tells that there is none.
func listen(links []Link) ([]socket, error) {
	var sockets []socket
	var errs []error
	for _, open := range []func([]Link) (socket, error){listen4, listen6} {
		s, err := open(links)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		sockets = append(sockets, s)
	}
	if len(sockets) == 0 {
		return nil, fmt.Errorf("multicast is not possible here: %w", errors.Join(errs...))
	}
	return sockets, nil
}

// bind opens UDP port 5353. That the address is a group makes the net package
// share the port with other programs that speak multicast DNS.
func bind(network string, group netip.Addr) (*net.UDPConn, error) {
	return net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(group, port)))
}

// joinAll joins the group on every link; an error tells that none allows it.
func joinAll(links []Link, group netip.Addr, join func(*net.Interface, net.Addr) error) error {
	joined, last := 0, errors.New("there is no link")
	for _, l := range links {
		if err := join(&net.Interface{Index: l.Index, Name: l.Name}, &net.UDPAddr{IP: group.AsSlice()}); err != nil {
			last = fmt.Errorf("interface %s: %w", l.Name, err)
			continue
		}
		joined++
	}
	if joined == 0 {
		return fmt.Errorf("cannot join the group %s: %w", group, last)
	}
	return nil
}

type socket4 struct {
	conn *ipv4.PacketConn
	buf  []byte
}

func listen4(links []Link) (socket, error) {
	udp, err := bind("udp4", group4)
	if err != nil {
		return nil, err
	}
	conn := ipv4.NewPacketConn(udp)
	if err := joinAll(links, group4, conn.JoinGroup); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	// Nodes of this machine hear each other; the hop limit shows that nothing was
	// forwarded (RFC 6762 11). Where the system does not tell how a packet came,
	// its source says it. None of these is needed to work.
	_ = conn.SetMulticastLoopback(true)
	_ = conn.SetMulticastTTL(255)
	_ = conn.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true)
	return &socket4{conn: conn, buf: make([]byte, maxPacket+1)}, nil
}

func (s *socket4) send(link int, data []byte) error {
	if err := s.conn.SetMulticastInterface(&net.Interface{Index: link}); err != nil {
		return err
	}
	_, err := s.conn.WriteTo(data, nil, &net.UDPAddr{IP: group4.AsSlice(), Port: port})
	return err
}

func (s *socket4) receive() (packet, error) {
	n, cm, from, err := s.conn.ReadFrom(s.buf)
	if err != nil {
		return packet{}, err
	}
	p := packet{data: s.buf[:n], from: addrOf(from)}
	if cm != nil {
		p.link = cm.IfIndex
		p.to, _ = netip.AddrFromSlice(cm.Dst.To4())
	}
	return p, nil
}

func (s *socket4) close() error { return s.conn.Close() }

type socket6 struct {
	conn *ipv6.PacketConn
	buf  []byte
}

func listen6(links []Link) (socket, error) {
	udp, err := bind("udp6", group6)
	if err != nil {
		return nil, err
	}
	conn := ipv6.NewPacketConn(udp)
	if err := joinAll(links, group6, conn.JoinGroup); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = conn.SetMulticastLoopback(true) // as in listen4
	_ = conn.SetMulticastHopLimit(255)
	_ = conn.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true)
	return &socket6{conn: conn, buf: make([]byte, maxPacket+1)}, nil
}

func (s *socket6) send(link int, data []byte) error {
	if err := s.conn.SetMulticastInterface(&net.Interface{Index: link}); err != nil {
		return err
	}
	_, err := s.conn.WriteTo(data, nil, &net.UDPAddr{IP: group6.AsSlice(), Port: port})
	return err
}

func (s *socket6) receive() (packet, error) {
	n, cm, from, err := s.conn.ReadFrom(s.buf)
	if err != nil {
		return packet{}, err
	}
	p := packet{data: s.buf[:n], from: addrOf(from)}
	if cm != nil {
		p.link = cm.IfIndex
		p.to, _ = netip.AddrFromSlice(cm.Dst)
	}
	return p, nil
}

func (s *socket6) close() error { return s.conn.Close() }

func addrOf(a net.Addr) netip.Addr {
	if u, ok := a.(*net.UDPAddr); ok {
		return u.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
