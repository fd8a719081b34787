package node_test

import (
	"context"
	"fmt"
	"time"

	"vixp2p/node"
)

// A message goes from A to C, which are not connected, through B.
func ExampleNode_Send() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, closeA := openNode(node.Config{Label: "A"})
	defer closeA()
	b, closeB := openNode(node.Config{Label: "B", Connect: a.Addrs()[:1]})
	defer closeB()
	c, closeC := openNode(node.Config{Label: "C", Connect: b.Addrs()[:1]})
	defer closeC()
	if err := b.Wait(ctx, node.WaitOptions{Peers: 2}); err != nil {
		fmt.Println(err)
		return
	}

	sent, err := a.Send(ctx, c.ID(), []byte("the pump was checked"), node.SendOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	// It is durable at A and goes on being tried, whatever happens to this wait.
	if err := sent.Wait(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for m, err := range c.Messages(ctx, node.Start, false) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s (from A: %t)\n", m.Body, m.From == a.ID())
	}
	// Output: the pump was checked (from A: true)
}
