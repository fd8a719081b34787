package mdns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	domain = ".local."
	// recordTTL is what announcements say about how long they hold. Zero in a
	// record is a goodbye (RFC 6762 10.1).
	recordTTL = 2 * time.Minute
	// unique marks records that only one host has (RFC 6762 10.2); in a question
	// the same bit asks for an answer by unicast (RFC 6762 5.4), which it gets by
	// multicast, as the RFC allows.
	unique = dnsmessage.Class(1 << 15)

	// maxPacket is the longest message that is read (RFC 6762 17).
	maxPacket = 9000
	// maxSent is the longest that is sent: it fits an Ethernet frame with any
	// header, so that nothing is fragmented.
	maxSent = 1400
	// maxRecords bounds the records of one message that are looked at, and
	// maxKnown the answers that a question lists as known.
	maxRecords = 128
	maxKnown   = 24
	// maxHeard bounds the announcements that are taken from one message.
	maxHeard = 8
)

// message is what a packet says about one service.
type message struct {
	asked bool     // it asks for the service
	known []string // instances whose answer it does not need
	heard []Announcement
}

// Announcement is what an instance of the service says about itself.
type Announcement struct {
	Instance string
	Text     []string
	// Gone: it says goodbye; Text may be empty.
	Gone bool
	// Link is where it was heard and From who sent it.
	Link Link
	From netip.Addr
}

// names are the names of a service and of its instance here.
type names struct {
	service  dnsmessage.Name
	instance dnsmessage.Name
	host     dnsmessage.Name
}

func newNames(service, instance string) (n names, err error) {
	if n.service, err = dnsmessage.NewName(service + domain); err != nil {
		return n, fmt.Errorf("service name %q: %w", service, err)
	}
	if n.instance, err = dnsmessage.NewName(instance + "." + service + domain); err != nil {
		return n, fmt.Errorf("instance name %q: %w", instance, err)
	}
	n.host, err = dnsmessage.NewName(instance + domain)
	return n, err
}

// instanceOf is the instance that a name of this service names; empty: none.
func (n *names) instanceOf(name dnsmessage.Name) string {
	s, suffix := name.String(), "."+n.service.String()
	if len(s) <= len(suffix) || !strings.EqualFold(s[len(s)-len(suffix):], suffix) {
		return ""
	}
	return strings.ToLower(s[:len(s)-len(suffix)])
}

func (n *names) isService(name dnsmessage.Name) bool {
	return strings.EqualFold(name.String(), n.service.String())
}

// question asks for the service.
func (n *names) question(known []string) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{})
	b.EnableCompression()
	err := errors.Join(b.StartQuestions(),
		b.Question(dnsmessage.Question{Name: n.service, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}),
		b.StartAnswers())
	for _, instance := range known[:min(len(known), maxKnown)] {
		name, nameErr := dnsmessage.NewName(instance + "." + n.service.String())
		if nameErr != nil {
			continue // nobody can be called that
		}
		err = errors.Join(err, b.PTRResource(n.header(n.service, dnsmessage.ClassINET, recordTTL), dnsmessage.PTRResource{PTR: name}))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot build a question: %w", err)
	}
	return b.Finish()
}

// answer announces this instance, or with no ttl takes it back. Text that does not
// fit the packet is left out, the last first.
func (n *names) answer(port uint16, text []string, addrs []netip.Addr, ttl time.Duration) ([]byte, error) {
	for {
		packet, err := n.answerWith(port, text, addrs, ttl)
		if err != nil || len(packet) <= maxSent || len(text) == 0 {
			return packet, err
		}
		text = text[:len(text)-1]
	}
}

func (n *names) answerWith(port uint16, text []string, addrs []netip.Addr, ttl time.Duration) ([]byte, error) {
	const own = dnsmessage.ClassINET | unique
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true, Authoritative: true})
	b.EnableCompression()
	err := errors.Join(b.StartAnswers(),
		b.PTRResource(n.header(n.service, dnsmessage.ClassINET, ttl), dnsmessage.PTRResource{PTR: n.instance}),
		b.StartAdditionals(),
		b.SRVResource(n.header(n.instance, own, ttl), dnsmessage.SRVResource{Port: port, Target: n.host}),
		b.TXTResource(n.header(n.instance, own, ttl), dnsmessage.TXTResource{TXT: text}))
	for _, ip := range addrs {
		if ip.Is4() {
			err = errors.Join(err, b.AResource(n.header(n.host, own, ttl), dnsmessage.AResource{A: ip.As4()}))
		} else {
			err = errors.Join(err, b.AAAAResource(n.header(n.host, own, ttl), dnsmessage.AAAAResource{AAAA: ip.As16()}))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot build an announcement: %w", err)
	}
	return b.Finish()
}

func (n *names) header(name dnsmessage.Name, class dnsmessage.Class, ttl time.Duration) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: name, Class: class, TTL: uint32(ttl / time.Second)}
}

// read reads a packet that anyone may have sent. What is not about this service is
// skipped; an error tells that it is no DNS message.
func (n *names) read(packet []byte) (m message, err error) {
	if len(packet) > maxPacket {
		return m, fmt.Errorf("a packet of %d bytes is longer than %d", len(packet), maxPacket)
	}
	var p dnsmessage.Parser
	head, err := p.Start(packet)
	if err != nil {
		return m, err
	}
	for i := 0; ; i++ {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil || i >= maxRecords {
			return m, fmt.Errorf("question %d: %w", i, err)
		}
		if !head.Response && n.isService(q.Name) && (q.Type == dnsmessage.TypePTR || q.Type == dnsmessage.TypeALL) {
			m.asked = true
		}
	}
	left := maxRecords
	if err := n.records(&m, head.Response, &left, p.AnswerHeader, &p, p.SkipAnswer); err != nil {
		return m, err
	}
	if !head.Response {
		return m, nil
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return m, err
	}
	return m, n.records(&m, true, &left, p.AdditionalHeader, &p, p.SkipAdditional)
}

// records reads one section. Of a question the answers are those that are known.
func (n *names) records(m *message, response bool, left *int, next func() (dnsmessage.ResourceHeader, error), p *dnsmessage.Parser, skip func() error) error {
	for {
		h, err := next()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		if *left--; *left < 0 {
			return fmt.Errorf("more than %d records", maxRecords)
		}
		instance := n.instanceOf(h.Name)
		switch {
		case response && h.Type == dnsmessage.TypeTXT && instance != "" && len(m.heard) < maxHeard:
			txt, err := p.TXTResource()
			if err != nil {
				return err
			}
			m.heard = append(m.heard, Announcement{Instance: instance, Text: txt.TXT, Gone: h.TTL == 0})
		case !response && h.Type == dnsmessage.TypePTR && n.isService(h.Name) && h.TTL >= uint32(recordTTL/time.Second/2):
			ptr, err := p.PTRResource()
			if err != nil {
				return err
			}
			m.known = append(m.known, n.instanceOf(ptr.PTR))
		default:
			if err := skip(); err != nil {
				return err
			}
		}
	}
}
