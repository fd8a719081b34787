// Example 03: the announcement that a node makes of itself, as JSON.
package main

import (
	"crypto/ed25519"
	"fmt"
	"log"
	"strings"
	"time"

	"vixp2p/node/registry"
	"vixp2p/replication"
)

func main() {
	// The original's form: a name, a port, and what the node can do.
	plain := registry.Announcement{
		NodeID: "A", TCPPort: 9001,
		TimeMS: uint64(time.Now().UnixMilli()), Nonce: registry.NewNonce(),
		Cap: map[string]string{"proto": "1.0", "transport": "tcp"},
	}
	show("as the original writes it", encode(&plain))

	// With a peer ID it is signed, and may name addresses and the network's tag.
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	full := plain
	full.NodeID = "" // then the peer ID is the name: a label is not for strangers
	full.Addrs = []string{"/ip4/192.0.2.7/tcp/9001", "/ip4/192.0.2.7/udp/9001/quic-v1"}
	full.Network = registry.NetworkTag(replication.OpenNetwork("dev"))
	if err := full.Sign(key); err != nil {
		log.Fatal(err)
	}
	text := encode(&full)
	show("signed", text)

	for _, c := range []struct{ what, text string }{
		{"the plain one", encode(&plain)},
		{"the signed one", text},
		{"another port", strings.Replace(text, "9001", "6666", 1)},
		{"no signature", text[:strings.Index(text, `,"sig"`)] + "}"},
		{"a peer ID as a mere name", `{"node_id":"` + full.PeerID + `","tcp_port":9001}`},
		{"a port that is none", `{"node_id":"A","tcp_port":70000}`},
		{"a member twice", `{"node_id":"A","node_id":"B","tcp_port":9001}`},
		{"too long", `{"node_id":"A","tcp_port":9001,"cap":{"x":"` + strings.Repeat("x", registry.MaxAnnouncement) + `"}}`},
	} {
		a, err := registry.Decode([]byte(c.text))
		if err == nil {
			err = a.Verify()
		}
		if err != nil {
			fmt.Printf("%s: refused: %v\n", c.what, err)
			continue
		}
		fmt.Printf("%s: taken: port %d, signed %t\n", c.what, a.TCPPort, a.PeerID != "")
	}
}

func encode(a *registry.Announcement) string {
	data, err := a.Encode()
	if err != nil {
		log.Fatal(err)
	}
	return string(data)
}

func show(what, text string) {
	fmt.Printf("%s, %d bytes of %d:\n  %s\n", what, len(text), registry.MaxAnnouncement, text)
}
