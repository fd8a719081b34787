// Example 04: the table of routes, in memory: who is reached through which
// neighbour, and what happens when links and routes go.
package main

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"vixp2p/routing"
)

func main() {
	a, b, c, d := key('A'), key('B'), key('C'), key('D')
	names := map[routing.PeerKey]string{a: "A", b: "B", c: "C", d: "D"}
	now := time.Now()

	// A is linked with B. It hears of C through B, and somebody enters D by hand.
	t := routing.NewTable()
	t.LinkUp(b, false)
	t.Learn(c, b, 2, now)
	if err := t.Upsert(routing.Route{Target: d, NextHop: b, TTL: 4}); err != nil {
		fmt.Println(err)
		return
	}
	resolve := func(target routing.PeerKey) {
		if r, ok := t.Resolve(target, now); ok {
			fmt.Printf("%s: next hop %s, TTL %d, from %s\n", names[target], names[r.NextHop], r.TTL, r.Source)
			return
		}
		fmt.Printf("%s: no route now: a message would be kept, and copied to every neighbour\n", names[target])
	}
	for _, target := range []routing.PeerKey{b, c, d} {
		resolve(target)
	}

	fmt.Println("D is removed, and the link with B ends:")
	t.Remove(d)
	t.LinkDown(b)
	resolve(c)
	resolve(d)

	fmt.Println("a learned route ages, a neighbour does not:")
	t.LinkUp(b, false)
	now = now.Add(routing.RouteLifetime)
	resolve(b)
	resolve(c)
}

// key is a member's public key made from a letter, for the example.
func key(letter byte) routing.PeerKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = letter
	return routing.PeerKey(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
}
