// Example 06: messages go to handlers by their type.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"

	"vixp2p/protocols"
	"vixp2p/replication"
)

func main() {
	d := protocols.NewDispatcher()
	protocols.On(d, func(m *replication.Ping) error {
		fmt.Printf("ping %d: a node would answer with pong %d\n", m.Nonce, m.Nonce)
		return nil
	})
	protocols.On(d, func(m *replication.WalAck) error {
		for _, e := range m.Entries {
			fmt.Printf("ack: log %s is durable at the peer up to seq %d\n", e.Log.Short(), e.Pos.Seq)
		}
		return nil
	})
	d.Unknown = func(t protocols.MessageType) error {
		fmt.Printf("%s: no handler, skipped\n", t)
		return nil
	}

	var wire bytes.Buffer
	w := protocols.NewWriter(&wire)
	network := replication.OpenNetwork("dev")
	space := replication.SpaceOf(network, replication.DefaultSpace)
	logID := replication.LogOf(network, space, replication.OriginKey{1}, replication.Epoch{2})
	for _, m := range []any{
		&replication.Ping{Nonce: 7},
		&replication.WalAck{Entries: []replication.AckEntry{{
			Space: space, Log: logID, Pos: replication.Position{Seq: 12, Hash: replication.Hash{3}},
		}}},
		&replication.Pong{Nonce: 7},
	} {
		f, err := protocols.Encode(m)
		if err != nil {
			log.Fatal(err)
		}
		if err := w.WriteFrame(f); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		log.Fatal(err)
	}

	r := protocols.NewReader(&wire, nil)
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		if err := d.Dispatch(f); err != nil {
			log.Fatal(err)
		}
	}
}
