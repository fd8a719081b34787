// Example 08: two nodes, one listens, one dials by host and port.
//
//	go run ./examples/08_manual_connect server [port]
//	go run ./examples/08_manual_connect client host:port
//
// The server ends when the client's message has arrived.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"vixp2p/node"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "example-08-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	switch {
	case len(args) >= 1 && args[0] == "server":
		port := "9101"
		if len(args) > 1 {
			port = args[1]
		}
		return server(ctx, dir, port)
	case len(args) == 2 && args[0] == "client":
		return client(ctx, dir, args[1])
	}
	return fmt.Errorf("usage: 08_manual_connect server [port] | client host:port")
}

func server(ctx context.Context, dir, port string) error {
	n, err := node.Open(ctx, node.Config{DataDir: dir, Label: "server", Listen: []string{port}})
	if err != nil {
		return err
	}
	defer n.Close()
	fmt.Printf("server: listening on %v\n", n.Addrs())
	for ev, err := range n.Space("default").Watch(ctx, "greeting/", "") {
		if err != nil {
			return err
		}
		fmt.Printf("server: %s = %q arrived\n", ev.Key, ev.Value)
		return nil
	}
	return nil
}

func client(ctx context.Context, dir, addr string) error {
	n, err := node.Open(ctx, node.Config{DataDir: dir, Label: "client", Listen: []string{"0"}})
	if err != nil {
		return err
	}
	defer n.Close()
	w, err := n.Space("default").Put(ctx, "greeting/client", []byte("hello over the wire"))
	if err != nil {
		return err
	}
	fmt.Println("client: durable here, without any network")
	id, _, err := n.Connect(ctx, addr)
	if err != nil {
		return err
	}
	fmt.Printf("client: connected to %s; its peer ID was learned from the handshake\n", id)
	if err := w.WaitReplicated(ctx, 1); err != nil {
		return err
	}
	fmt.Println("client: durable at the server too")
	return nil
}
