package node_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"vixp2p/node"
)

// A network of members from its founding to the first value that crosses it. The two
// nodes would be two machines: what goes from one to the other by hand is the ticket
// alone.
func ExampleInit() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dirA, dirB := tempDir(), tempDir()
	defer os.RemoveAll(dirA)
	defer os.RemoveAll(dirB)

	// The founder's directory gets the root key too: see RootKey and RemoveRootKey.
	founded, err := node.Init(ctx, node.InitOptions{DataDir: dirA, Label: "A", Name: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("A:", founded.NetworkName, founded.Roles)
	a, err := node.Open(ctx, node.Config{DataDir: dirA, Label: "A", Listen: []string{"127.0.0.1:0"}, NoDiscovery: true})
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()

	// A ticket is a secret until it is used. The joiner asks A, which runs.
	invited, err := a.Invite(ctx, node.InviteOptions{Role: node.RoleWriter, Expires: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	joined, err := node.Join(ctx, node.JoinOptions{Ticket: invited.Ticket, DataDir: dirB, Label: "B"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("B:", joined.NetworkName, joined.Roles)

	// B remembers where A was reached: it needs no address.
	b, err := node.Open(ctx, node.Config{DataDir: dirB, Label: "B", Listen: []string{"127.0.0.1:0"}, NoDiscovery: true})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	w, err := b.Space("default").Put(ctx, "greeting", []byte("hello from B"))
	if err != nil {
		log.Fatal(err)
	}
	if err := w.WaitReplicated(ctx, 1); err != nil {
		log.Fatal(err)
	}
	if err := a.Wait(ctx, node.WaitOptions{Synced: true}); err != nil {
		log.Fatal(err)
	}
	e, err := a.Space("default").Get(ctx, "greeting")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("A reads: %s\n", e.Value)

	// What B has written so far stays; what it writes from now on counts nowhere.
	revoked, err := a.Revoke(ctx, "B", node.RevokeOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("kept of B:", revoked.Cuts[0].Space, revoked.Cuts[0].Seq)
	// Output:
	// A: shop [admin writer]
	// B: shop [writer]
	// A reads: hello from B
	// kept of B: default 1
}
