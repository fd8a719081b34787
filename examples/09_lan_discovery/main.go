// Example 09: two nodes on one LAN find each other by themselves.
//
//	go run ./examples/09_lan_discovery alice
//	go run ./examples/09_lan_discovery bob      (in another terminal, or on another machine)
//
// Nobody is told an address. Each ends when it has the other's greeting and the
// other has its own. The nodes belong to an open network of their own name, which
// anybody on the LAN could join: they are for trying out.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
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
	if len(args) != 1 {
		return fmt.Errorf("usage: 09_lan_discovery NAME")
	}
	name := args[0]
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "example-09-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	// Open lets it listen beyond loopback; only then it has something to say on a
	// LAN. Discovery is on by default.
	n, err := node.Open(ctx, node.Config{DataDir: dir, Label: name, NetworkName: "example-09", Open: true})
	if err != nil {
		return err
	}
	defer n.Close()
	start := time.Now()
	space := n.Space("default")
	w, err := space.Put(ctx, "greeting/"+name, []byte("hello from "+name))
	if err != nil {
		return err
	}
	fmt.Printf("%s: asking the LAN who is there\n", name)
	if err := n.Wait(ctx, node.WaitOptions{Peers: 1}); err != nil {
		return fmt.Errorf("nobody was found: %w%s", err, why(n))
	}
	for _, p := range connected(ctx, n) {
		fmt.Printf("%s: found %s (%s) at %s after %.1f s\n", name, p.Label, p.PeerID, p.Addr, time.Since(start).Seconds())
	}
	for ev, err := range space.Watch(ctx, "greeting/", "") {
		if err != nil {
			return err
		}
		if !strings.HasSuffix(ev.Key, "/"+name) {
			fmt.Printf("%s: %s = %q arrived\n", name, ev.Key, ev.Value)
			break
		}
	}
	if err := w.WaitReplicated(ctx, 1); err != nil {
		return err
	}
	fmt.Printf("%s: the greeting is durable at the other one too\n", name)
	return nil
}

// why tells what discovery says if it could not do its work.
func why(n *node.Node) string {
	if lan := n.Discovery().LAN; lan.Why != "" {
		return " (" + lan.Why + ")"
	}
	return ""
}

func connected(ctx context.Context, n *node.Node) (list []node.PeerStatus) {
	peers, err := n.Peers(ctx)
	if err != nil {
		return nil
	}
	for _, p := range peers {
		if p.State == node.Connected {
			list = append(list, p)
		}
	}
	return list
}
