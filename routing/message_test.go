package routing_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/routing"
	"vixp2p/routing/seal"
)

var update = flag.Bool("update", false, "write the golden vectors anew")

var (
	network = routing.Network{1, 2, 3}
	alice   = identity(1)
	bob     = identity(2)
	carol   = identity(3)
	started = time.UnixMilli(1764000000123)
)

func identity(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))
}

func keyOf(k ed25519.PrivateKey) routing.PeerKey {
	return routing.PeerKey(k.Public().(ed25519.PublicKey))
}

func header(kind routing.Kind) routing.Header {
	h := routing.Header{
		Kind: kind, ID: routing.ID{0xa1, 15: 0xaf}, From: keyOf(alice), To: keyOf(bob),
		Created: uint64(started.UnixMilli()), Lifetime: uint64(routing.DefaultLifetime / time.Millisecond), TTL: routing.DefaultTTL,
	}
	if kind != routing.Text {
		h.Ref = routing.ID{0xb1, 15: 0xbf}
	}
	if kind == routing.Notice {
		h.Reason = routing.ReasonTTL
	}
	return h
}

func sealed(text string) func([]byte) ([]byte, error) {
	return func(h []byte) ([]byte, error) { return seal.Seal(network, keyOf(bob), h, []byte(text)) }
}

func message(t testing.TB, kind routing.Kind, text string) *routing.Message {
	t.Helper()
	body := sealed(text)
	if kind != routing.Text {
		body = nil
	}
	m, err := routing.New(network, alice, header(kind), body)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// vector pins one message; the body of a text is random, so that -update changes it.
type vector struct {
	Network       string `json:"network"`
	SenderSeed    string `json:"sender_key_seed"`
	RecipientSeed string `json:"recipient_key_seed"`
	RecipientX    string `json:"recipient_x25519_public_key"`
	Kind          uint8  `json:"kind"`
	ID            string `json:"id"`
	From          string `json:"from"`
	To            string `json:"to"`
	CreatedMS     uint64 `json:"created_ms"`
	LifetimeMS    uint64 `json:"lifetime_ms"`
	TTL           uint8  `json:"ttl"`
	Ref           string `json:"ref,omitempty"`
	Reason        uint8  `json:"reason,omitempty"`
	Header        string `json:"header"`
	Text          string `json:"text,omitempty"`
	Body          string `json:"body,omitempty"`
	Signature     string `json:"signature"`
	Message       string `json:"message"`
}

func vectorOf(t *testing.T, m *routing.Message, text string) vector {
	x, err := seal.PublicKey(m.To)
	if err != nil {
		t.Fatal(err)
	}
	v := vector{
		Network: hex.EncodeToString(network[:]), SenderSeed: hex.EncodeToString(alice.Seed()), RecipientSeed: hex.EncodeToString(bob.Seed()),
		RecipientX: hex.EncodeToString(x.Bytes()), Kind: uint8(m.Kind), ID: m.ID.String(), From: m.From.String(), To: m.To.String(),
		CreatedMS: m.Created, LifetimeMS: m.Lifetime, TTL: m.TTL, Reason: uint8(m.Reason),
		Header: hex.EncodeToString(m.HeaderRaw), Text: text, Body: hex.EncodeToString(m.Body),
		Signature: hex.EncodeToString(m.Sig), Message: hex.EncodeToString(m.Raw),
	}
	if m.Kind != routing.Text {
		v.Ref = m.Ref.String()
	}
	return v
}

func vectorPath(name string) string { return filepath.Join("testdata", "vectors", name+".json") }

func readVector(t testing.TB, name string) (v vector, raw []byte) {
	t.Helper()
	b, err := os.ReadFile(vectorPath(name))
	if err != nil {
		t.Fatalf("%v: write it with -update", err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	raw, err = hex.DecodeString(v.Message)
	if err != nil {
		t.Fatal(err)
	}
	return v, raw
}

func TestVectors(t *testing.T) {
	for name, s := range map[string]struct {
		kind routing.Kind
		text string
	}{"text": {routing.Text, "hello, routed world"}, "ack": {routing.Ack, ""}, "notice": {routing.Notice, ""}} {
		t.Run(name, func(t *testing.T) {
			if *update {
				b, err := json.MarshalIndent(vectorOf(t, message(t, s.kind, s.text), s.text), "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(vectorPath(name), append(b, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, raw := readVector(t, name)
			m, err := routing.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if got := vectorOf(t, m, s.text); got != want {
				t.Errorf("the vector reads as\n%+v\nwant\n%+v", got, want)
			}
			if h := header(s.kind); m.Header != h || !bytes.Equal(m.HeaderRaw, routing.AppendHeader(nil, &h)) {
				t.Errorf("the header is %+v", m.Header)
			}
			if err := m.Verify(network); err != nil {
				t.Error(err)
			}
			if s.kind != routing.Text {
				// Without randomness the whole message is reproducible.
				if again := message(t, s.kind, ""); !bytes.Equal(again.Raw, raw) {
					t.Errorf("made again it is %x", again.Raw)
				}
				return
			}
			if text, err := seal.Open(network, bob, m.HeaderRaw, m.Body); err != nil || string(text) != s.text {
				t.Errorf("opens as %q, %v", text, err)
			}
		})
	}
}

// Whatever bit is flipped: the bytes are malformed, forged, or of a later version;
// nothing that was altered counts.
func TestNoBitCanBeChanged(t *testing.T) {
	for _, kind := range []routing.Kind{routing.Text, routing.Ack, routing.Notice} {
		good := message(t, kind, "x").Raw
		for i := range len(good) * 8 {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			m, err := routing.Parse(bad)
			if err == nil {
				err = m.Verify(network)
			}
			if !errors.Is(err, routing.ErrMalformed) && !errors.Is(err, routing.ErrForged) && !errors.Is(err, routing.ErrTooNew) {
				t.Fatalf("%s, bit %d: %v", kind, i, err)
			}
		}
	}
}

func TestSignatureIsOfOneNetworkAndSender(t *testing.T) {
	m := message(t, routing.Text, "x")
	if err := m.Verify(routing.Network{9}); !errors.Is(err, routing.ErrForged) {
		t.Errorf("in another network: %v", err)
	}
	h := header(routing.Text)
	forged, err := routing.New(network, carol, h, sealed("x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := forged.Verify(network); !errors.Is(err, routing.ErrForged) {
		t.Errorf("signed by carol as alice: %v", err)
	}
}

func TestHeaderRules(t *testing.T) {
	for name, change := range map[string]func(*routing.Header){
		"no id":              func(h *routing.Header) { h.ID = routing.ID{} },
		"no sender":          func(h *routing.Header) { h.From = routing.PeerKey{} },
		"no recipient":       func(h *routing.Header) { h.To = routing.PeerKey{} },
		"to itself":          func(h *routing.Header) { h.To = h.From },
		"no time":            func(h *routing.Header) { h.Created = 0 },
		"year 20000":         func(h *routing.Header) { h.Created *= 1000 },
		"no lifetime":        func(h *routing.Header) { h.Lifetime = 0 },
		"eight days":         func(h *routing.Header) { h.Lifetime = 8 * 24 * 3600 * 1000 },
		"no TTL":             func(h *routing.Header) { h.TTL = 0 },
		"TTL 33":             func(h *routing.Header) { h.TTL = routing.MaxTTL + 1 },
		"kind 4":             func(h *routing.Header) { h.Kind = 4 },
		"no kind":            func(h *routing.Header) { h.Kind = 0 },
		"a text about":       func(h *routing.Header) { h.Ref = routing.ID{1} },
		"a text with reason": func(h *routing.Header) { h.Reason = 1 },
		"an ack of nothing":  func(h *routing.Header) { h.Kind = routing.Ack },
		"an ack with reason": func(h *routing.Header) { h.Kind, h.Ref, h.Reason = routing.Ack, routing.ID{1}, 1 },
		"a notice without":   func(h *routing.Header) { h.Kind, h.Ref = routing.Notice, routing.ID{1} },
	} {
		h := header(routing.Text)
		change(&h)
		if _, err := routing.DecodeHeader(routing.AppendHeader(nil, &h)); !errors.Is(err, routing.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := routing.New(network, alice, h, sealed("x")); !errors.Is(err, routing.ErrMalformed) {
			t.Errorf("%s can be made: %v", name, err)
		}
	}
}

func TestHeaderIsCanonical(t *testing.T) {
	h := header(routing.Text)
	good := routing.AppendHeader(nil, &h)
	for name, bad := range map[string][]byte{
		"empty":              {},
		"twice":              append(bytes.Clone(good), good...),
		"unknown below 64":   protowire.AppendVarint(protowire.AppendTag(bytes.Clone(good), 11, protowire.VarintType), 1),
		"default":            append([]byte{0x08, 0x01, 0x10, 0x00}, good[4:]...),
		"long varint":        append([]byte{0x08, 0x81, 0x00}, good[2:]...),
		"fixed32":            append(bytes.Clone(good), 0x5d, 1, 2, 3, 4),
		"cut":                good[:len(good)-1],
		"out of order":       append(bytes.Clone(good[2:4]), append(bytes.Clone(good[:2]), good[4:]...)...),
		"too long":           protowire.AppendBytes(protowire.AppendTag(bytes.Clone(good), 64, protowire.BytesType), make([]byte, routing.MaxHeader)),
		"bytes for a number": append([]byte{0x0a, 0x01, 0x01}, good[2:]...),
	} {
		if _, err := routing.DecodeHeader(bad); !errors.Is(err, routing.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	later := protowire.AppendBytes(protowire.AppendTag(bytes.Clone(good), 64, protowire.BytesType), []byte("later"))
	if got, err := routing.DecodeHeader(later); err != nil || *got != h {
		t.Errorf("a field of a later version: %+v, %v", got, err)
	}
	later = append([]byte{0x08, 0x02}, good[2:]...)
	if _, err := routing.DecodeHeader(later); !errors.Is(err, routing.ErrTooNew) {
		t.Errorf("a later format: %v", err)
	}
}

func TestParseBounds(t *testing.T) {
	long, err := routing.New(network, alice, header(routing.Text), sealed(string(make([]byte, routing.MaxText))))
	if err != nil || len(long.Raw) > routing.MaxMessage {
		t.Fatalf("the longest text: %d bytes, %v", len(long.Raw), err)
	}
	for name, raw := range map[string][]byte{
		"nothing":           nil,
		"header length":     {0xff, 0x01},
		"long length":       {0x81, 0x00, 0x08},
		"no signature":      message(t, routing.Ack, "").Raw[:80],
		"an ack and a byte": append(bytes.Clone(message(t, routing.Ack, "").Raw), 0),
		"no body":           message(t, routing.Text, "").Raw[:len(message(t, routing.Text, "").HeaderRaw)+1+64],
		"too long":          append(bytes.Clone(long.Raw), make([]byte, 1024)...),
	} {
		if _, err := routing.Parse(raw); !errors.Is(err, routing.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTimes(t *testing.T) {
	m := message(t, routing.Text, "x")
	for _, c := range []struct {
		at   time.Time
		want error
	}{
		{started, nil},
		{m.Expires().Add(-time.Millisecond), nil},
		{m.Expires(), routing.ErrExpired},
		{started.Add(-time.Hour), nil}, // the sender's clock is ahead: shown, not refused
		{m.Expires().Add(-routing.MaxLifetime - routing.ClockMargin), nil},
		{m.Expires().Add(-routing.MaxLifetime - routing.ClockMargin - 1), routing.ErrExpired},
	} {
		if err := m.CheckTime(c.at); !errors.Is(err, c.want) {
			t.Errorf("at %v: %v, want %v", c.at, err, c.want)
		}
	}
}

// FuzzParse: what parses has one encoding, keeps every rule, and is not signed by
// anybody who did not sign exactly that.
func FuzzParse(f *testing.F) {
	made := map[string]bool{}
	for _, name := range []string{"text", "ack", "notice"} {
		_, raw := readVector(f, name)
		made[string(raw)] = true
		f.Add(raw)
		f.Add(raw[:len(raw)-1])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := routing.Parse(raw)
		if err != nil {
			if !errors.Is(err, routing.ErrMalformed) && !errors.Is(err, routing.ErrTooNew) {
				t.Fatalf("an error of no known kind: %v", err)
			}
			return
		}
		if err := m.Check(); err != nil {
			t.Fatal(err)
		}
		if known := routing.AppendHeader(nil, &m.Header); !bytes.HasPrefix(m.HeaderRaw, known) {
			t.Fatalf("%x is encoded as %x", m.HeaderRaw, known)
		}
		if (m.From == keyOf(alice) || m.From == keyOf(bob)) && !made[string(raw)] && m.Verify(network) == nil {
			t.Fatalf("a message that nobody signed: %x", raw)
		}
	})
}
