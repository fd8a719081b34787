//go:build linux

package hostile

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"testing"

	"vixp2p/node"
	"vixp2p/replication"
	"vixp2p/test/internal/proc"
	"vixp2p/trust"
)

// world is a network with a node that is attacked.
type world struct {
	victim  *proc.Node
	network replication.NetworkID
	honest  []string           // directories of members that have not come yet
	root    ed25519.PrivateKey // of the network; nil in an open one
}

// badMembers is how many peers an attack is at the most.
const badMembers = 4

// openWorld is an open network, in which anybody is a peer.
func openWorld(t *testing.T) *world {
	return &world{victim: proc.New(t, "victim"), network: replication.OpenNetwork("dev")}
}

// membersWorld is a network of members, founded by the attacked node. The others have
// their certificates beforehand: an invite that is open would let strangers come nearer.
// It is for n attacks.
func membersWorld(t *testing.T, n int) *world {
	t.Helper()
	w := &world{victim: proc.New(t, "victim")}
	w.victim.Host = "127.0.0.1"
	founded, err := node.Init(t.Context(), node.InitOptions{DataDir: w.victim.Dir, Label: "victim", Name: "shop"})
	if err == nil {
		_, err = hex.Decode(w.network[:], []byte(founded.Network))
	}
	if err != nil {
		t.Fatal(err)
	}
	admin, err := node.Open(t.Context(), node.Config{DataDir: w.victim.Dir, Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n + 2 { // a newcomer after each attack, and the pair
		dir := filepath.Join(t.TempDir(), fmt.Sprint("member", i))
		id, err := node.PrepareIdentity(dir, "")
		var c *node.Certified
		if err == nil {
			c, err = admin.Certify(t.Context(), node.CertifyOptions{Peer: id})
		}
		if err == nil {
			_, err = node.ImportCertificate(node.ImportOptions{Text: c.Text, DataDir: dir})
		}
		if err != nil {
			t.Fatal(err)
		}
		w.honest = append(w.honest, dir)
	}
	if err := admin.Close(); err != nil {
		t.Fatal(err)
	}
	if w.root, err = rootKey(w.victim.Dir); err != nil {
		t.Fatal(err)
	}
	return w
}

// rootKey reads the key with which the network was founded.
func rootKey(dir string) (ed25519.PrivateKey, error) {
	text, err := node.RootKey(dir)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return key.(ed25519.PrivateKey), nil
}

// turncoat is a writer that turns bad.
func (w *world) turncoat(t *testing.T) identity {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := trust.Certificate{
		Network: w.network, Subject: replication.OriginKey(public), Generation: 1,
		Grants: []trust.Grant{{Role: trust.RoleWriter}},
	}
	random(c.Serial[:])
	leaf, err := c.Sign(w.root)
	if err != nil {
		t.Fatal(err)
	}
	return identity{key, (&trust.Chain{Leaf: leaf}).Encode()}
}

// directory is where a further honest node lives.
func (w *world) directory(t *testing.T) string {
	if w.root == nil {
		return t.TempDir()
	}
	dir := w.honest[0]
	w.honest = w.honest[1:]
	return dir
}

// orders are what an attacker of the world is told.
func (w *world) orders(t *testing.T, a attack, as where) orders {
	o := orders{
		Attack: a.name, As: as, Network: w.network,
		Target: fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", w.victim.Port, w.victim.PeerID),
	}
	for as == member && len(o.Members) < badMembers {
		o.Members = append(o.Members, w.turncoat(t))
	}
	return o
}
