// Example 07: a write goes from one durable log to another, each step by hand:
// append, read a run, verify it, store it, acknowledge. A real node lets
// replication.Session decide these steps and replicator carry them out.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"vixp2p/replication"
	"vixp2p/replication/wal"
)

func main() {
	dir, err := os.MkdirTemp("", "example-07-")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := run(dir); err != nil {
		_ = os.RemoveAll(dir)
		log.Fatal(err)
	}
}

func run(dir string) error {
	network := replication.OpenNetwork("dev")
	space := replication.SpaceOf(network, replication.DefaultSpace)
	alice, err := open(filepath.Join(dir, "alice"), network)
	if err != nil {
		return err
	}
	defer alice.Close()
	bob, err := open(filepath.Join(dir, "bob"), network)
	if err != nil {
		return err
	}
	defer bob.Close()

	at, err := alice.Append(context.Background(), replication.Batch{
		Space: space,
		Ops: []replication.Op{
			{Kind: replication.KindApp, Name: "greeting", Payload: []byte("hello")},
			{Kind: replication.KindApp, Name: "greeting", Payload: []byte("and again")},
		},
	})
	if err != nil {
		return err
	}
	fmt.Printf("alice: 2 operations are durable in log %s, seq %d to %d\n", at.First.Log.Short(), at.First.Seq, at.Pos.Seq)

	// What bob lacks follows from what he holds: nothing yet.
	var bobHolds replication.Position
	read, err := alice.ReadRun(at.First.Log, bobHolds, replication.MaxRunBytes)
	if err != nil {
		return err
	}
	push := &replication.WalPush{
		Space: space, Log: at.First.Log, From: read.From, End: read.End, Total: uint64(len(read.Data)), Data: read.Data,
	}
	fmt.Printf("alice: WalPush of seq %d to %d, %d bytes as they are stored\n", push.From.Seq+1, push.End.Seq, push.Total)

	// Nothing is stored that its origin did not sign.
	source := replication.RunSource{Network: network, Space: space, Log: push.Log, From: push.From}
	forged := append([]byte(nil), push.Data...)
	forged[len(forged)-1] ^= 1
	if _, err := replication.VerifyRun(source, forged); err != nil {
		fmt.Printf("bob:   one flipped bit would be refused: %v\n", err)
	}
	verified, err := replication.VerifyRun(source, push.Data)
	if err != nil {
		return err
	}
	fmt.Printf("bob:   chain, hashes and signature hold; origin %s...\n", verified.Origin.String()[:16])

	done := make(chan replication.IngestResult, 1)
	bob.Ingest(1, verified, func(r replication.IngestResult) { done <- r })
	res := <-done
	if res.Err != nil {
		return res.Err
	}
	ack := &replication.WalAck{Entries: []replication.AckEntry{{Space: space, Log: push.Log, Pos: res.Tip}}}
	fmt.Printf("bob:   %s, fsynced; WalAck up to seq %d\n", res.Code, ack.Entries[0].Pos.Seq)

	// Pushing the same again changes nothing: (log, seq) is an identity.
	bob.Ingest(1, verified, func(r replication.IngestResult) { done <- r })
	fmt.Printf("bob:   the same run again: %s\n", (<-done).Code)

	rest, err := alice.ReadRun(at.First.Log, ack.Entries[0].Pos, replication.MaxRunBytes)
	if err != nil {
		return err
	}
	fmt.Printf("alice: %d bytes are left to push\n", len(rest.Data))
	return nil
}

func open(dir string, network replication.NetworkID) (*wal.Store, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return wal.Open(wal.Options{Dir: dir, Network: network, Key: key})
}
