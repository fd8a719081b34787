// Example 10: nodes that know nothing but a registry find each other.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"vixp2p/node"
	"vixp2p/node/registry"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "example-10-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	server, err := registry.Start(registry.ServerConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer server.Close()
	url := "http://" + server.Addr() + registry.Prefix
	fmt.Println("a registry serves; it knows nobody")

	var nodes []*node.Node
	for _, label := range []string{"A", "B", "C"} {
		n, err := node.Open(ctx, node.Config{
			DataDir: filepath.Join(dir, label), Label: label,
			Registry: url, RegistryInterval: time.Second,
		})
		if err != nil {
			return err
		}
		defer n.Close()
		nodes = append(nodes, n)
	}

	// Each has announced itself and asks for the others.
	w, err := nodes[0].Space("default").Put(ctx, "greeting", []byte("hello from A"))
	if err != nil {
		return err
	}
	if err := w.WaitReplicated(ctx, 2); err != nil {
		return err
	}
	fmt.Println("A's write is durable at B and C")
	fmt.Printf("the registry has %d entries; A sees %d other nodes there\n", server.Entries(), nodes[0].Discovery().Registry.Peers)

	// A client that knows node_id and tcp_port alone may announce itself too, and
	// anyone can read.
	if _, err := post(ctx, url+"/announce", `{"node_id":"old","tcp_port":9001}`); err != nil {
		return err
	}
	answer, err := post(ctx, url+"/announce", `{"node_id":"`+nodes[1].ID()+`","tcp_port":6666}`)
	if err != nil {
		return err
	}
	fmt.Print("somebody announces itself as B: ", answer)

	// What is connected needs no registry.
	if err := server.Close(); err != nil {
		return err
	}
	if w, err = nodes[2].Space("default").Put(ctx, "greeting", []byte("hello from C")); err != nil {
		return err
	}
	if err := w.WaitReplicated(ctx, 2); err != nil {
		return err
	}
	fmt.Println("the registry is gone; C's write is durable at A and B all the same")
	return nil
}

// post sends JSON and returns the answer.
func post(ctx context.Context, url, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return string(answer), err
}
