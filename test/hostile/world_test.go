//go:build linux

package hostile

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/node"
	"vixp2p/replication"
	"vixp2p/test/internal/proc"
)

// world is a network with a node that is attacked.
type world struct {
	victim  *proc.Node
	network replication.NetworkID
	honest  []string   // directories of members that have not come yet
	bad     []identity // members that have not attacked yet
}

// badMembers is how many peers an attack is at the most.
const badMembers = 4

// openWorld is an open network, in which anybody is a peer.
func openWorld(t *testing.T) *world {
	return &world{victim: proc.New(t, "victim"), network: replication.OpenNetwork("dev")}
}

// membersWorld is a network of members, founded by the attacked node. The others have
// their certificates beforehand: an invite that is open would let strangers come nearer.
func membersWorld(t *testing.T) *world {
	t.Helper()
	w := &world{victim: proc.New(t, "victim")}
	w.victim.Host = "127.0.0.1"
	founded, err := node.Init(t.Context(), node.InitOptions{DataDir: w.victim.Dir, Label: "victim", Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hex.Decode(w.network[:], []byte(founded.Network)); err != nil {
		t.Fatal(err)
	}
	admin, err := node.Open(t.Context(), node.Config{DataDir: w.victim.Dir, Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	certified := func(id string) string {
		c, err := admin.Certify(t.Context(), node.CertifyOptions{Peer: id})
		if err != nil {
			t.Fatal(err)
		}
		return c.Text
	}
	for i := range len(attacks)*2 + 2 {
		dir := filepath.Join(t.TempDir(), fmt.Sprint("member", i))
		id, err := node.PrepareIdentity(dir, "")
		if err == nil {
			_, err = node.ImportCertificate(node.ImportOptions{Text: certified(id), DataDir: dir})
		}
		if err != nil {
			t.Fatal(err)
		}
		w.honest = append(w.honest, dir)
	}
	for range len(attacks) * badMembers {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPublicKey(publicKey(key))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(certified(id.String())))
		w.bad = append(w.bad, identity{key, block.Bytes})
	}
	if err := admin.Close(); err != nil {
		t.Fatal(err)
	}
	return w
}

// directory is where a further honest node lives.
func (w *world) directory(t *testing.T) string {
	if w.bad == nil {
		return t.TempDir()
	}
	dir := w.honest[0]
	w.honest = w.honest[1:]
	return dir
}

// orders are what an attacker of the world is told.
func (w *world) orders(a attack, as where) orders {
	o := orders{
		Attack: a.name, As: as, Network: w.network,
		Target: fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", w.victim.Port, w.victim.PeerID),
	}
	if as == member {
		o.Members, w.bad = w.bad[:badMembers], w.bad[badMembers:]
	}
	return o
}
