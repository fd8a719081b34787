package node_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"vixp2p/node"
)

// tempDir makes a data directory for an example; a program names one that stays.
func tempDir() string {
	dir, err := os.MkdirTemp("", "vix-node-example-")
	if err != nil {
		log.Fatal(err)
	}
	return dir
}

// openNode opens a node that is thrown away after the example.
func openNode(cfg node.Config) (n *node.Node, done func()) {
	cfg.DataDir = tempDir()
	n, err := node.Open(context.Background(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	return n, func() {
		if err := n.Close(); err != nil {
			log.Print(err)
		}
		if err := os.RemoveAll(cfg.DataDir); err != nil {
			log.Print(err)
		}
	}
}

// Open a node, write, and read. The write is on disk when Put returns; no network
// is needed for it.
func Example() {
	ctx := context.Background()
	dir := tempDir()
	defer os.RemoveAll(dir)

	n, err := node.Open(ctx, node.Config{DataDir: dir, Label: "A"})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	s := n.Space("default")
	if _, err := s.Put(ctx, "user/1", []byte("Ada")); err != nil {
		log.Fatal(err)
	}
	e, err := s.Get(ctx, "user/1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s = %s\n", e.Key, e.Value)
	_, err = s.Get(ctx, "user/2")
	fmt.Println("user/2:", errors.Is(err, node.ErrNotFound))
	// Output:
	// user/1 = Ada
	// user/2: true
}

// Two nodes meet and B holds what A wrote. WaitReplicated returns when B has
// stated that it has the write on disk.
func ExampleWrite_WaitReplicated() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	a, closeA := openNode(node.Config{Label: "A"})
	defer closeA()
	b, closeB := openNode(node.Config{Label: "B", Connect: a.Addrs()[:1]})
	defer closeB()

	w, err := a.Space("").Put(ctx, "greeting", []byte("hello from A"))
	if err != nil {
		log.Fatal(err)
	}
	if err := w.WaitReplicated(ctx, 1); err != nil {
		log.Fatal(err)
	}
	fmt.Println("other members that hold it:", w.Replicas())

	if err := b.Wait(ctx, node.WaitOptions{Synced: true}); err != nil {
		log.Fatal(err)
	}
	e, err := b.Space("").Get(ctx, "greeting")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("B reads: %s, written by A: %t\n", e.Value, e.Origin == a.ID())
	// Output:
	// other members that hold it: 1
	// B reads: hello from A, written by A: true
}

// Watch tells what happens to keys, from now on or from the cursor of an event
// that was seen before.
func ExampleSpace_Watch() {
	ctx := context.Background()
	n, done := openNode(node.Config{Offline: true})
	defer done()
	s := n.Space("default")

	events := s.Watch(ctx, "user/", node.Now)
	for _, key := range []string{"user/1", "other", "user/2"} {
		if _, err := s.Put(ctx, key, []byte("x")); err != nil {
			log.Fatal(err)
		}
	}
	var cursor node.Cursor
	for ev, err := range events {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ev.Kind, ev.Key)
		cursor = ev.Cursor
		break // a program goes on, and keeps the cursor for its next start
	}
	for ev, err := range s.Watch(ctx, "user/", cursor) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("then", ev.Kind, ev.Key)
		break
	}
	// Output:
	// put user/1
	// then put user/2
}

// A batch is a transaction: everybody sees all of it or nothing.
func ExampleSpace_Batch() {
	ctx := context.Background()
	n, done := openNode(node.Config{Offline: true})
	defer done()
	s := n.Space("accounts")

	_, err := s.Batch(ctx, func(b *node.Batch) error {
		b.Put("ada", []byte("90"))
		b.Put("bob", []byte("110"))
		b.Append("transfer", []byte("ada to bob: 10"))
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range s.List(ctx, "") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %s\n", e.Key, e.Value)
	}
	// Output:
	// ada 90
	// bob 110
}

// PutIf writes only if nobody has changed the key since it was read.
func ExampleSpace_PutIf() {
	ctx := context.Background()
	n, done := openNode(node.Config{Offline: true})
	defer done()
	s := n.Space("default")

	if _, err := s.PutIf(ctx, "counter", []byte("1"), node.Entry{}); err != nil { // absent
		log.Fatal(err)
	}
	seen, err := s.Get(ctx, "counter")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := s.Put(ctx, "counter", []byte("7")); err != nil { // somebody else
		log.Fatal(err)
	}
	_, err = s.PutIf(ctx, "counter", []byte("2"), seen)
	fmt.Println("changed meanwhile:", errors.Is(err, node.ErrConflict))
	// Output:
	// changed meanwhile: true
}

// Tail tells every operation of a space in the order in which it arrived here;
// applications append their own kinds.
func ExampleSpace_Tail() {
	ctx := context.Background()
	n, done := openNode(node.Config{Offline: true})
	defer done()
	s := n.Space("chat")

	for _, line := range []string{"hello", "bye"} {
		if _, err := s.Append(ctx, "line", []byte(line)); err != nil {
			log.Fatal(err)
		}
	}
	for op, err := range s.Tail(ctx, node.Start, false) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(op.Seq, op.Kind, string(op.Payload))
	}
	// Output:
	// 1 line hello
	// 2 line bye
}
