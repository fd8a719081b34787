// Package mdns announces one service on the local links and hears who else offers
// it: the part of multicast DNS (RFC 6762) and of DNS-based service discovery
// (RFC 6763) that LAN discovery needs. It needs no server, no route and no
// internet.
//
//	question   PTR _vix-xxxx._udp.local?            every Config.Every, on each link
//	answer     PTR _vix-xxxx._udp.local -> instance
//	           SRV instance -> host, port           beside it, for other tools
//	           TXT instance: what Config.Text says  what this package reads
//	           A, AAAA host                         beside it, for other tools
//
// Two things keep a short interval cheap. A question lists the instances whose
// answer is not needed (Config.Known; known-answer suppression, RFC 6762 7.1), and
// nobody answers on a link more than once a second (RFC 6762 6). So members that
// are connected with each other ask and stay silent.
//
// What differs from the RFCs: questions do not come at growing intervals, so that
// a peer that is back is heard at once; instance names are not probed for, because
// they are random; there is no cache, because whoever listens keeps what it heard.
//
// Why not a library: libp2p's service, and zeroconf below it, ask at growing
// intervals, report an instance once in 53 minutes, answer every question of
// everybody, announce the addresses of all interfaces on each, take announcements
// from beyond the link, keep what strangers send without a bound, leave goroutines
// behind when closed, and write to the program's standard log.
//
// A Service stands for one set of links; when interfaces or addresses change it is
// closed and another one opened. Files: message.go is the format (pure),
// service.go who speaks when, socket.go and links.go the system.
package mdns
