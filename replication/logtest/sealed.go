package logtest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"

	"vixp2p/replication"
	"vixp2p/replication/sealed"
)

var sealedTests = []test{
	{"BodiesAreSealed", testBodiesAreSealed},
	{"WithoutKeyNoWrite", testWithoutKeyNoWrite},
	{"LargestSealedBatch", testLargestSealedBatch},
}

// Keys is a Sealer and an Opener of the spaces that are in it; others are not
// encrypted. It is safe for concurrent use.
type Keys struct {
	mu     sync.Mutex                            // guards below
	spaces map[replication.SpaceID][]*sealed.Key // a space without keys waits for them
}

// Encrypt makes a space an encrypted one, and the last of the keys what writers use.
func (k *Keys) Encrypt(space replication.SpaceID, keys ...*sealed.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spaces == nil {
		k.spaces = map[replication.SpaceID][]*sealed.Key{}
	}
	k.spaces[space] = keys
}

func (k *Keys) of(space replication.SpaceID) ([]*sealed.Key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys, ok := k.spaces[space]
	return keys, ok
}

func (k *Keys) SealFor(space replication.SpaceID) (replication.Seal, error) {
	keys, ok := k.of(space)
	switch {
	case !ok:
		return nil, nil
	case len(keys) == 0:
		return nil, &replication.NoKeyError{Space: space}
	}
	return keys[len(keys)-1].Seal, nil
}

func (k *Keys) OpenFor(space replication.SpaceID) (replication.Open, error) {
	keys, ok := k.of(space)
	if !ok {
		return nil, nil
	}
	return func(h *replication.Header, body []byte) ([]byte, error) {
		for _, key := range keys {
			if id := key.ID(); bytes.Equal(id[:], h.KeyID) {
				return key.Open(h, body)
			}
		}
		return nil, &replication.NoKeyError{Space: space, KeyID: [32]byte(h.KeyID), Log: h.Log, Seq: h.FirstSeq}
	}, nil
}

// ContentKey is the same key for the same number.
func ContentKey(n byte) *sealed.Key {
	k, err := sealed.FromSecret(bytes.Repeat([]byte{n}, sealed.SecretBytes))
	if err != nil {
		panic(err) // it has the right length
	}
	return k
}

// withKeys opens the store again with a Sealer.
func (e *env) withKeys() *Keys {
	k := &Keys{}
	e.opts.Sealer = k
	e.reopen()
	return k
}

func testBodiesAreSealed(e *env) {
	keys := e.withKeys()
	secret, open := e.spaceNamed("secret"), e.spaceNamed("open")
	first, second := ContentKey(1), ContentKey(2)
	keys.Encrypt(secret, first)
	var dots []replication.Dot
	write := func(value string) {
		dots = append(dots, e.appendTo(secret, Put("key of the secret", value), Put("other", value)).First)
	}
	write("the plain text 1")
	write("the plain text 2")
	keys.Encrypt(secret, first, second) // a new key, between two blocks of a log
	write("the plain text 3")
	e.reopen()
	write("the plain text 4")
	if at := e.appendTo(open, Put("k", "v")).First; e.blockAt(open, at).Header.KeyID != nil {
		e.Error("a body is sealed in a space that is not encrypted")
	}
	openFn, err := keys.OpenFor(secret)
	if err != nil {
		e.Fatal(err)
	}
	for i, d := range dots {
		want := first.ID()
		if i >= 2 {
			want = second.ID()
		}
		b := e.blockAt(secret, d)
		if d.Log != dots[0].Log || !bytes.Equal(b.Header.KeyID, want[:]) {
			e.Errorf("write %d is in log %s under the key %x", i, d.Log.Short(), b.Header.KeyID)
		}
		if bytes.Contains(b.Body, []byte("plain text")) || bytes.Contains(b.Body, []byte("secret")) {
			e.Errorf("write %d can be read in the stored body", i)
		}
		ops, err := sealed.Ops(b, openFn)
		if err != nil || len(ops) != 2 || !strings.HasSuffix(string(ops[0].Payload), string(rune('1'+i))) {
			e.Errorf("write %d opens as %v, %v", i, ops, err)
		}
	}
	for f := range findings(e) {
		e.Errorf("verify found %s", f)
	}
}

// findings is what Verify tells.
func findings(e *env) map[string]struct{} {
	out := map[string]struct{}{}
	if err := e.store.Verify(context.Background(), func(f replication.Finding) { out[f.Problem] = struct{}{} }); err != nil {
		e.Fatal(err)
	}
	return out
}

// A write to an encrypted space whose key is not here is refused as such, and nothing
// else is; it goes through once the key is there.
func testWithoutKeyNoWrite(e *env) {
	keys := e.withKeys()
	secret := e.spaceNamed("secret")
	keys.Encrypt(secret)
	_, err := e.store.Append(context.Background(), replication.Batch{Space: secret, Ops: []replication.Op{Put("k", "v")}})
	var missing *replication.NoKeyError
	if !errors.Is(err, replication.ErrNoKey) || !errors.As(err, &missing) || missing.Space != secret || !strings.Contains(err.Error(), "admin") {
		e.Errorf("a write without a key: %v", err)
	}
	if logs := e.store.Logs(secret); len(logs) != 0 {
		e.Errorf("the refused write left %d logs", len(logs))
	}
	e.append(Put("k", "v"))
	keys.Encrypt(secret, ContentKey(1))
	if at := e.appendTo(secret, Put("k", "v")); at.First.Seq != 1 {
		e.Errorf("the first write is at %d", at.First.Seq)
	}
}

// The largest batch fits a sealed body, and the block travels as a run.
func testLargestSealedBatch(e *env) {
	keys := e.withKeys()
	keys.Encrypt(e.space, ContentKey(1))
	value := strings.Repeat("v", replication.MaxRawBody-200)
	at := e.append(Put("k", value))
	_, run := e.readRun(at.First.Log, replication.Position{}, 0)
	openFn, _ := keys.OpenFor(e.space)
	ops, err := sealed.Ops(run.Blocks[0], openFn)
	if err != nil || len(ops) != 1 || string(ops[0].Payload) != value {
		e.Errorf("%d operations, %v", len(ops), err)
	}
}
