// Example 02: the handshake of two members, and of a member and a stranger.
package main

import (
	"crypto/rand"
	"fmt"
	"log"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/replication"
)

// side is what one node brings to the handshake.
type side struct {
	label   string
	network replication.NetworkID
	id      peer.ID
}

func newSide(label, network string) side {
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		log.Fatal(err)
	}
	return side{label: label, network: replication.OpenNetwork(network), id: id}
}

func (s side) config(other side) protocols.HelloConfig {
	space := replication.SpaceOf(s.network, replication.DefaultSpace)
	return protocols.HelloConfig{
		Network: s.network,
		Self:    s.id,
		Peer:    other.id, // proven by the secure channel under a real stream
		Attempt: 1,
		Label:   s.label,
		Spaces:  []replication.SpaceInfo{{ID: space, Name: replication.DefaultSpace}},
		Agent:   "example/02",
	}
}

func shake(dialer, responder side) {
	a, b := net.Pipe() // stands for a libp2p stream
	var wg sync.WaitGroup
	wg.Go(func() {
		sess, err := protocols.Respond(b, responder.config(dialer))
		report(responder, sess, err)
	})
	sess, err := protocols.Initiate(a, dialer.config(responder))
	wg.Wait()
	report(dialer, sess, err)
	_ = a.Close()
	_ = b.Close()
}

func report(s side, sess *protocols.Session, err error) {
	if err != nil {
		fmt.Printf("  %s: %v\n", s.label, err)
		return
	}
	fmt.Printf("  %s: session %s... with %q (%s), spaces %v, clock skew %v\n",
		s.label, sess.ID.String()[:16], sess.Peer.Label, sess.Peer.Agent, names(sess.Peer.Spaces), sess.Peer.Skew.Round(1e6))
}

func names(spaces []replication.SpaceInfo) (out []string) {
	for _, s := range spaces {
		out = append(out, s.Name)
	}
	return out
}

func main() {
	alice, bob := newSide("alice", "shop"), newSide("bob", "shop")
	fmt.Println("two members of the network \"shop\":")
	shake(alice, bob)

	mallory := newSide("mallory", "somewhere else")
	fmt.Println("a stranger dials bob; neither learns the other's network, label or spaces:")
	shake(mallory, bob)
}
