package keys

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

	"vixp2p/replication"
	"vixp2p/replication/logtest"
	"vixp2p/replication/sealed"
	"vixp2p/routing"
	"vixp2p/routing/seal"
	"vixp2p/trust"
)

var update = flag.Bool("update", false, "make new golden vectors in testdata")

func TestWrap(t *testing.T) {
	node, other := newPerson(t, "node"), newPerson(t, "other")
	key := logtest.ContentKey(3)
	f := For{replication.NetworkID{1}, replication.SpaceID{2}, 3}
	wrapped, err := Wrap(key, f, node.ring.own.public)
	if err != nil || len(wrapped) != WrapBytes || len(wrapped) > trust.MaxSealed || bytes.Contains(wrapped, key.Secret()) {
		t.Fatalf("%x, %v", wrapped, err)
	}
	if got, err := Unwrap(node.key, f, key.ID(), wrapped); err != nil || !bytes.Equal(got.Secret(), key.Secret()) {
		t.Fatalf("unwrap: %v", err)
	}
	for name, open := range map[string]func() (*sealed.Key, error){
		"another node": func() (*sealed.Key, error) { return Unwrap(other.key, f, key.ID(), wrapped) },
		"another network": func() (*sealed.Key, error) {
			return Unwrap(node.key, For{replication.NetworkID{9}, f.Space, 3}, key.ID(), wrapped)
		},
		"another space": func() (*sealed.Key, error) {
			return Unwrap(node.key, For{f.Network, replication.SpaceID{9}, 3}, key.ID(), wrapped)
		},
		"another generation": func() (*sealed.Key, error) { return Unwrap(node.key, For{f.Network, f.Space, 4}, key.ID(), wrapped) },
		"another id":         func() (*sealed.Key, error) { return Unwrap(node.key, f, logtest.ContentKey(4).ID(), wrapped) },
		"cut short":          func() (*sealed.Key, error) { return Unwrap(node.key, f, key.ID(), wrapped[:WrapBytes-1]) },
		"nothing":            func() (*sealed.Key, error) { return Unwrap(node.key, f, key.ID(), nil) },
	} {
		if _, err := open(); !errors.Is(err, ErrUnwrap) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range wrapped {
		bent := bytes.Clone(wrapped)
		bent[i] ^= 1
		if _, err := Unwrap(node.key, f, key.ID(), bent); !errors.Is(err, ErrUnwrap) {
			t.Fatalf("with byte %d changed: %v", i, err)
		}
	}
	if _, err := Wrap(key, f, Recipient{}); err == nil {
		t.Error("a wrap for a point of small order")
	}
}

// Who wraps cannot hand out two keys under one id: a wrap that holds another key than
// its id says is none.
func TestWrapCommits(t *testing.T) {
	node := newPerson(t, "node")
	f := For{Generation: 1}
	liar := logtest.ContentKey(1)
	wrapped, err := wrapAs(liar, f, node.ring.own.public, logtest.ContentKey(2).ID())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Unwrap(node.key, f, logtest.ContentKey(2).ID(), wrapped); !errors.Is(err, ErrUnwrap) {
		t.Errorf("another key under an id: %v", err)
	}
}

func TestRecipientOf(t *testing.T) {
	w := newWorld(t)
	p := newPerson(t, "node")
	got, err := RecipientOf(w.cert(p, 1, nil, trust.RoleReader))
	x, _ := seal.PublicKey(routing.PeerKey(p.id))
	if err != nil || !bytes.Equal(got[:], x.Bytes()) || got != p.ring.own.public {
		t.Errorf("%x, %v", got, err)
	}
	named := w.cert(p, 1, func(c *trust.Certificate) { c.X25519 = [32]byte{5} }, trust.RoleReader)
	if got, err := RecipientOf(named); err != nil || got != (Recipient{5}) {
		t.Errorf("%x, %v", got, err)
	}
	bad := w.cert(p, 1, func(c *trust.Certificate) { c.Subject = replication.OriginKey{2} }, trust.RoleReader)
	if _, err := RecipientOf(bad); err == nil {
		t.Error("a subject that is no point")
	}
}

// wrapVector pins wraps (docs/wire.md, 15.8). HPKE is randomized, so that a vector is
// of the way in which a wrap opens.
type wrapVector struct {
	About      string `json:"about"`
	NodeSeed   string `json:"node_seed"` // of the recipient's Ed25519 key
	Recipient  string `json:"recipient"`
	Network    string `json:"network"`
	Space      string `json:"space"`
	Generation uint64 `json:"generation,string"`
	ContentKey string `json:"content_key"`
	KeyID      string `json:"key_id"`
	Info       string `json:"info"`
	Associated string `json:"associated_data"`
	Wrapped    string `json:"wrapped"`
}

func TestWrapVector(t *testing.T) {
	path := filepath.Join("testdata", "vectors", "wrap.json")
	if *update {
		node, key := newPerson(t, "node"), logtest.ContentKey(3)
		f := For{replication.NetworkOfRoot(node.id[:]), replication.SpaceOf(replication.NetworkOfRoot(node.id[:]), "secret"), 258}
		wrapped, err := Wrap(key, f, node.ring.own.public)
		if err != nil {
			t.Fatal(err)
		}
		hexOf := hex.EncodeToString
		b, err := json.MarshalIndent(wrapVector{
			About: "a content key wrapped for the node of a seed", NodeSeed: hexOf(node.key.Seed()), Recipient: hexOf(node.ring.own.public[:]),
			Network: f.Network.String(), Space: hexOf(f.Space[:]), Generation: f.Generation,
			ContentKey: hexOf(key.Secret()), KeyID: key.ID().String(),
			Info: hexOf(f.info()), Associated: hexOf(f.associated(key.ID())), Wrapped: hexOf(wrapped),
		}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v wrapVector
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	bin := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	node := ed25519.NewKeyFromSeed(bin(v.NodeSeed))
	f := For{replication.NetworkID(bin(v.Network)), replication.SpaceID(bin(v.Space)), v.Generation}
	id := sealed.KeyID(bin(v.KeyID))
	if !bytes.Equal(f.info(), bin(v.Info)) || !bytes.Equal(f.associated(id), bin(v.Associated)) {
		t.Errorf("info %x, associated data %x", f.info(), f.associated(id))
	}
	key, err := Unwrap(node, f, id, bin(v.Wrapped))
	if err != nil || !bytes.Equal(key.Secret(), bin(v.ContentKey)) || key.ID() != id {
		t.Errorf("the vector opens as %v, %v", key, err)
	}
	own, err := newIdentity(node)
	if err != nil || !bytes.Equal(own.public[:], bin(v.Recipient)) {
		t.Errorf("the recipient is %x, %v", own.public, err)
	}
}
