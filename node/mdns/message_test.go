package mdns

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	testService  = "_vix-abcdefgh234._udp"
	testInstance = "0123456789abcdef"
)

func testNames(t testing.TB, instance string) names {
	t.Helper()
	n, err := newNames(testService, instance)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestQuestion(t *testing.T) {
	a := testNames(t, testInstance)
	known := []string{"one", "two", testInstance}
	data, err := a.question(known)
	if err != nil {
		t.Fatal(err)
	}
	m, err := a.read(data)
	if err != nil || !m.asked || !slices.Equal(m.known, known) || len(m.heard) != 0 {
		t.Errorf("read %+v, %v", m, err)
	}
	if other, err := newNames("_vix-zzzzzzzzzzz._udp", "x"); err != nil {
		t.Fatal(err)
	} else if m, err := other.read(data); err != nil || m.asked || len(m.known) != 0 {
		t.Errorf("another service reads %+v, %v", m, err)
	}
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("%016x", i))
	}
	if data, err := a.question(many); err != nil || len(data) > maxSent {
		t.Errorf("a question with all that is known has %d bytes, %v", len(data), err)
	}
}

func TestAnswer(t *testing.T) {
	a := testNames(t, testInstance)
	text := []string{"dnsaddr=/ip4/10.1.2.3/tcp/9001", "dnsaddr=/ip6/fd00::1/tcp/9001"}
	addrs := []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::1")}
	data, err := a.answer(9001, text, addrs, recordTTL)
	if err != nil {
		t.Fatal(err)
	}
	b := testNames(t, "other")
	m, err := b.read(data)
	if err != nil || m.asked || len(m.heard) != 1 {
		t.Fatalf("read %+v, %v", m, err)
	}
	if h := m.heard[0]; h.Instance != testInstance || h.Gone || !slices.Equal(h.Text, text) {
		t.Errorf("heard %+v", h)
	}
	// Another implementation finds what DNS-SD asks for.
	var p dnsmessage.Message
	if err := p.Unpack(data); err != nil || !p.Authoritative || len(p.Answers) != 1 || len(p.Additionals) != 4 {
		t.Errorf("%s, %v", p.GoString(), err)
	}
	if data, err = a.answer(9001, text, addrs, 0); err != nil {
		t.Fatal(err)
	}
	if m, err := b.read(data); err != nil || len(m.heard) != 1 || !m.heard[0].Gone {
		t.Errorf("a goodbye reads as %+v, %v", m, err)
	}
	var long []string
	for range 20 {
		long = append(long, strings.Repeat("x", 255))
	}
	data, err = a.answer(9001, long, addrs, recordTTL)
	if err != nil || len(data) > maxSent {
		t.Errorf("too much text makes %d bytes, %v", len(data), err)
	}
	if m, err := b.read(data); err != nil || len(m.heard) != 1 || len(m.heard[0].Text) < 4 {
		t.Errorf("of too much text remains %+v, %v", m, err)
	}
}

// TestHostile: what anyone can send is refused or cut, never more than bounded.
func TestHostile(t *testing.T) {
	a := testNames(t, testInstance)
	build := func(fn func(b *dnsmessage.Builder)) []byte {
		b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true})
		b.EnableCompression()
		fn(&b)
		data, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	txt := func(b *dnsmessage.Builder, name string) {
		n := dnsmessage.MustNewName(name)
		if err := b.TXTResource(a.header(n, dnsmessage.ClassINET, recordTTL), dnsmessage.TXTResource{TXT: []string{"x"}}); err != nil {
			t.Fatal(err)
		}
	}
	crowd := build(func(b *dnsmessage.Builder) {
		_ = b.StartAnswers()
		for i := range 100 {
			txt(b, fmt.Sprintf("i%d.%s.local.", i, testService))
		}
	})
	if m, err := a.read(crowd); err != nil || len(m.heard) != maxHeard {
		t.Errorf("a hundred instances in one message: %d are taken, %v", len(m.heard), err)
	}
	flood := build(func(b *dnsmessage.Builder) {
		_ = b.StartAnswers()
		for range maxRecords + 1 {
			txt(b, "a.b.")
		}
	})
	if _, err := a.read(flood); err == nil {
		t.Error("a message with too many records is taken")
	}
	foreign := build(func(b *dnsmessage.Builder) {
		_ = b.StartAnswers()
		txt(b, "x._other._udp.local.")
		txt(b, testService+".local.")
	})
	if m, err := a.read(foreign); err != nil || len(m.heard) != 0 {
		t.Errorf("records of others are taken: %+v", m)
	}
	for name, data := range map[string][]byte{
		"empty":       {},
		"short":       {1, 2, 3},
		"too long":    make([]byte, maxPacket+1),
		"loop":        mustHex(t, "000084000000000100000000c00c000c0001000000780002c00c"),
		"cut":         crowd[:len(crowd)-3],
		"no question": mustHex(t, "0000000000ff000000000000"),
	} {
		if m, err := a.read(data); err == nil && (m.asked || len(m.heard) > 0) {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzRead(f *testing.F) {
	a := testNames(f, testInstance)
	q, err := a.question([]string{"one"})
	if err != nil {
		f.Fatal(err)
	}
	r, err := a.answer(1, []string{"dnsaddr=/ip4/10.0.0.1/tcp/1"}, []netip.Addr{netip.MustParseAddr("10.0.0.1")}, time.Minute)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(q)
	f.Add(r)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := a.read(data)
		if err != nil {
			return
		}
		if len(m.heard) > maxHeard || len(m.known) > maxRecords {
			t.Errorf("%d announcements, %d known", len(m.heard), len(m.known))
		}
		for _, h := range m.heard {
			if h.Instance == "" || len(h.Instance) > 255 {
				t.Errorf("instance %q", h.Instance)
			}
		}
	})
}
