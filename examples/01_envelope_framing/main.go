// Example 01: a message in its Envelope in its frame.
package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"

	"vixp2p/protocols"
	"vixp2p/replication"
)

func main() {
	var wire bytes.Buffer
	w := protocols.NewWriter(&wire)
	for _, m := range []any{
		&replication.Ping{Nonce: 42},
		&replication.OutboxPull{ID: 1, MaxOps: 128},
	} {
		f, err := protocols.Encode(m)
		if err != nil {
			log.Fatal(err)
		}
		before := wire.Len()
		if err := w.WriteFrame(f); err != nil {
			log.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("sent %-10s as %2d bytes: %s\n", f.Type, wire.Len()-before, hex.EncodeToString(wire.Bytes()[before:]))
	}

	good := bytes.Clone(wire.Bytes())
	r := protocols.NewReader(bytes.NewReader(good), nil)
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		m, err := protocols.Decode(f)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("read %-10s version %d.%d, frame %d: %+v\n", f.Type, f.Major, f.Minor, f.ID, m)
	}

	// A reader refuses what it cannot trust before it allocates anything for it.
	for _, bad := range []struct {
		what  string
		bytes []byte
	}{
		{"a frame cut short", good[:len(good)-3]},
		{"a frame that announces 4 GiB", []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0x01}},
		{"bytes that are no frame", []byte("GET / HTTP/1.1\r\n\r\n")},
	} {
		r := protocols.NewReader(bytes.NewReader(bad.bytes), nil)
		var err error
		for err == nil {
			_, err = r.Next()
		}
		fmt.Printf("%s: %v\n", bad.what, err)
	}
}
