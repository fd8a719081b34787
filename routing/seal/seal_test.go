package seal_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"vixp2p/routing"
	"vixp2p/routing/seal"
)

var network = routing.Network{7}

func identity(t testing.TB) (ed25519.PrivateKey, routing.PeerKey) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return priv, routing.PeerKey(pub)
}

// The two halves of the map fit together: whoever has the Ed25519 key has the key
// that others compute from the public one.
func TestKeysBelongTogether(t *testing.T) {
	for range 50 {
		priv, pub := identity(t)
		x, err := seal.PublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		k, err := seal.PrivateKey(priv)
		if err != nil || !k.PublicKey().Equal(x) {
			t.Fatalf("the private key's public key is %x, not %x (%v)", k.PublicKey().Bytes(), x.Bytes(), err)
		}
	}
}

// The base point of Ed25519 is that of X25519 under the map (RFC 7748, 4.1): u = 9.
func TestBasePoint(t *testing.T) {
	base, err := hex.DecodeString("5866666666666666666666666666666666666666666666666666666666666666")
	if err != nil {
		t.Fatal(err)
	}
	nine := make([]byte, 32)
	nine[0] = 9
	if x, err := seal.PublicKey(routing.PeerKey(base)); err != nil || !bytes.Equal(x.Bytes(), nine) {
		t.Errorf("u = %x, %v", x.Bytes(), err)
	}
}

func TestSealAndOpen(t *testing.T) {
	priv, pub := identity(t)
	header := []byte("header")
	for _, n := range []int{0, 1, seal.Block - 1, seal.Block, seal.Block + 1, routing.MaxText} {
		text := bytes.Repeat([]byte{0x80}, n)
		a, err := seal.Seal(network, pub, header, text)
		if err != nil {
			t.Fatal(err)
		}
		if len(a) > routing.MaxBody || (len(a)-48)%seal.Block != 0 || bytes.Contains(a, text) && n > 1 {
			t.Errorf("%d bytes are sealed as %d", n, len(a))
		}
		b, err := seal.Seal(network, pub, header, text)
		if err != nil || bytes.Equal(a[:32], b[:32]) {
			t.Errorf("two seals share their key (%v)", err)
		}
		if got, err := seal.Open(network, priv, header, a); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes open as %d, %v", n, len(got), err)
		}
	}
	if _, err := seal.Seal(network, pub, header, make([]byte, routing.MaxText+1)); !errors.Is(err, routing.ErrMalformed) {
		t.Errorf("a text that is too long: %v", err)
	}
}

// Texts of like length have bodies of one length.
func TestLengthTellsLittle(t *testing.T) {
	_, pub := identity(t)
	yes, err1 := seal.Seal(network, pub, nil, []byte("yes"))
	no, err2 := seal.Seal(network, pub, nil, []byte("no, never"))
	if err1 != nil || err2 != nil || len(yes) != len(no) {
		t.Errorf("%d and %d bytes (%v, %v)", len(yes), len(no), err1, err2)
	}
}

func TestNobodyElseOpens(t *testing.T) {
	priv, pub := identity(t)
	other, _ := identity(t)
	header, text := []byte("header"), []byte("text")
	body, err := seal.Seal(network, pub, header, text)
	if err != nil {
		t.Fatal(err)
	}
	fails := func(what string, network routing.Network, priv ed25519.PrivateKey, header, body []byte) {
		t.Helper()
		if got, err := seal.Open(network, priv, header, body); !errors.Is(err, seal.ErrOpen) || got != nil {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	fails("another identity", network, other, header, body)
	fails("another network", routing.Network{8}, priv, header, body)
	fails("another header", network, priv, []byte("headex"), body)
	fails("nothing", network, priv, header, nil)
	for i := range len(body) * 8 { // the top bit of the key, which X25519 ignores, too
		bad := bytes.Clone(body)
		bad[i/8] ^= 1 << (i % 8)
		fails("a flipped bit", network, priv, header, bad)
	}
	bad := bytes.Clone(body)
	clear(bad[:32])
	fails("a key of small order", network, priv, header, bad)
}

// Keys to which nothing can be sealed are refused, not sealed to in vain.
func TestBadKeys(t *testing.T) {
	for name, key := range map[string]routing.PeerKey{
		"no point":    {2},
		"the neutral": {1},
		"order two":   {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"order four":  {},
	} {
		if body, err := seal.Seal(network, key, nil, []byte("x")); err == nil {
			t.Errorf("%s: sealed as %x", name, body)
		}
	}
}

// FuzzOpen: nothing opens but what was sealed.
func FuzzOpen(f *testing.F) {
	file, err := os.ReadFile(filepath.Join("..", "testdata", "vectors", "text.json"))
	if err != nil {
		f.Fatal(err)
	}
	var v struct {
		Network, Header, Body string
		Seed                  string `json:"recipient_key_seed"`
	}
	if err := json.Unmarshal(file, &v); err != nil {
		f.Fatal(err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	network, priv := routing.Network(unhex(v.Network)), ed25519.NewKeyFromSeed(unhex(v.Seed))
	header, body := unhex(v.Header), unhex(v.Body)
	if _, err := seal.Open(network, priv, header, body); err != nil {
		f.Fatal(err)
	}
	f.Add(header, body)
	f.Add(header, body[:40])
	f.Fuzz(func(t *testing.T, h, b []byte) {
		_, err := seal.Open(network, priv, h, b)
		if err == nil && (!bytes.Equal(h, header) || !bytes.Equal(b, body)) {
			t.Fatalf("%x opened", b)
		}
		if err != nil && !errors.Is(err, seal.ErrOpen) {
			t.Fatal(err)
		}
	})
}
