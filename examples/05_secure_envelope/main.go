// Example 05: a message sealed to a member whose peer ID is all that is known, and
// signed by its sender: who may read it, and what becomes of one that was altered.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log"
	"time"

	"vixp2p/routing"
	"vixp2p/routing/seal"
)

func main() {
	alice, bob, mallory := identity(), identity(), identity()
	network := routing.Network{1} // of a real node: the id of its network
	text := []byte("the pump is at 40 degrees")

	h := routing.Header{
		Kind: routing.Text, From: public(alice), To: public(bob), TTL: routing.DefaultTTL,
		Created: uint64(time.Now().UnixMilli()), Lifetime: uint64(routing.DefaultLifetime / time.Millisecond),
	}
	if _, err := rand.Read(h.ID[:]); err != nil {
		log.Fatal(err)
	}
	m, err := routing.New(network, alice, h, func(header []byte) ([]byte, error) {
		return seal.Seal(network, h.To, header, text)
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes of text travel as %d: header %d, signature %d, sealed body %d\n", len(text), len(m.Raw), len(m.HeaderRaw), len(m.Sig), len(m.Body))
	fmt.Println("a hop finds the text in it:", bytes.Contains(m.Raw, text))

	// What arrives at bob is bytes.
	got, err := routing.Parse(m.Raw)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the signature is alice's:", got.Verify(network) == nil)
	opened, err := seal.Open(network, bob, got.HeaderRaw, got.Body)
	fmt.Printf("bob reads %q (%v)\n", opened, err)

	_, err = seal.Open(network, mallory, got.HeaderRaw, got.Body)
	fmt.Println("mallory reads it:", err)

	altered := bytes.Clone(m.Raw)
	altered[len(altered)-1] ^= 1
	if got, err = routing.Parse(altered); err == nil {
		err = got.Verify(network)
	}
	fmt.Println("one bit of the body is changed:", err)

	// Signed anew by mallory as its own, the body no longer opens: it was sealed
	// for a header with alice in it.
	h.From = public(mallory)
	stolen, err := routing.New(network, mallory, h, func([]byte) ([]byte, error) { return m.Body, nil })
	if err != nil {
		log.Fatal(err)
	}
	_, err = seal.Open(network, bob, stolen.HeaderRaw, stolen.Body)
	fmt.Println("mallory sends it as its own:", err)

	fmt.Println("it comes again in a week:", m.CheckTime(time.Now().Add(7*24*time.Hour)))
}

func identity() ed25519.PrivateKey {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	return priv
}

func public(k ed25519.PrivateKey) routing.PeerKey {
	return routing.PeerKey(k.Public().(ed25519.PublicKey))
}
