package node

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/logtest"
)

// sealedPut is a log of one block with a put, sealed.
func sealedPut(t *testing.T, e *engine, space replication.SpaceID, epoch byte, seal replication.Seal, value string) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	g := &replication.Genesis{
		Network: e.store.Info().Network, Space: space, Origin: replication.OriginKey(key.Public().(ed25519.PublicKey)), Epoch: replication.Epoch{epoch},
	}
	h := &replication.Header{Log: g.LogID(), FirstSeq: 1, Count: 1, Genesis: g}
	op := logtest.Put("k", value)
	body := h.SetBody(replication.EncodeBody(h.Log, []replication.Op{op}), seal)
	header := replication.AppendHeader(nil, h)
	raw := replication.AppendBlock(nil, header, replication.SignBlock(key, sha256.Sum256(header)), body)
	run, err := replication.VerifyRun(replication.RunSource{Network: g.Network, Log: h.Log, Space: space}, raw)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan replication.IngestResult, 1)
	e.store.Ingest(1, run, func(r replication.IngestResult) { done <- r })
	if r := <-done; r.Err != nil {
		t.Fatal(r.Err)
	}
}

// A tail tells what is sealed as it tells anything, leaves out what is void, and stops
// before a block whose key is missing, to go on from its last cursor.
func TestTailSealed(t *testing.T) {
	n := offline(t)
	s, e, keys := n.Space(""), n.engines.get(), &logtest.Keys{}
	e.opener = keys
	first, second := logtest.ContentKey(1), logtest.ContentKey(2)
	keys.Encrypt(s.id, first)
	sealedPut(t, e, s.id, 1, first.Seal, "1")
	sealedPut(t, e, s.id, 2, nil, "void")
	sealedPut(t, e, s.id, 3, second.Seal, "2")
	sealedPut(t, e, s.id, 4, first.Seal, "3")
	var at Cursor
	tail := func() (got []string, err error) {
		for op, failed := range s.Tail(deadline(t), at, false) {
			if failed != nil {
				return got, failed
			}
			got, at = append(got, string(op.Payload)), op.Cursor
		}
		return got, nil
	}
	got, err := tail()
	if len(got) != 1 || got[0] != "1" || !errors.Is(err, ErrNoKey) {
		t.Errorf("before the key: %q, %v", got, err)
	}
	keys.Encrypt(s.id, first, second)
	if got, err = tail(); len(got) != 2 || got[0] != "2" || got[1] != "3" || err != nil {
		t.Errorf("after it: %q, %v", got, err)
	}
}
