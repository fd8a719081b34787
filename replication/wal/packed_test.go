package wal

import (
	"bytes"
	"fmt"
	"testing"

	r "vixp2p/replication"
	"vixp2p/replication/compress"
)

// opsOf reads all operations of a log.
func opsOf(t *testing.T, s *Store, log r.LogID) (ops []r.Op, packed int) {
	t.Helper()
	l, _ := s.Log(log)
	for after := uint64(0); ; {
		list, err := s.ReadArrivals(l.Space, after, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			return ops, packed
		}
		for _, a := range list {
			after = a.Number
			if a.Block.Header.Log != log {
				continue
			}
			if a.Block.Header.Codec == r.CodecZstd {
				packed++
			}
			more, err := compress.Ops(a.Block)
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, more...)
		}
	}
}

// TestBodiesArePackedWherePays: a store that packs keeps text in a fraction of its
// size, and what does not pack as it is; a member that does not pack has the same
// bytes and reads the same operations.
func TestBodiesArePackedWhereThatPays(t *testing.T) {
	dir := t.TempDir()
	pack := func(o *Options) { o.Compress = true }
	s, plain := openAt(t, dir, "a", pack), openAt(t, t.TempDir(), "b")
	var want []string
	write := func(payload func(i int) []byte) r.Appended {
		t.Helper()
		var ops []r.Op
		for i := range 200 {
			v := payload(i)
			ops = append(ops, r.Op{Kind: r.KindPut, Key: fmt.Append(nil, "key/", i), Payload: v})
			want = append(want, string(v))
		}
		return mustAppend(t, s, ops...)
	}
	log := write(func(i int) []byte {
		return fmt.Appendf(nil, `{"sensor":"s-%03d","celsius":21.%d,"ok":true}`, i%40, i%10)
	}).First.Log
	l, _ := s.Log(log)
	if raw := uint64(200 * 45); l.Bytes > raw/3 {
		t.Errorf("%d bytes of text are stored in %d", raw, l.Bytes)
	}
	text := l.Bytes
	noise := big(9, 1).Block(0).Body
	write(func(i int) []byte { return noise[i*1000 : i*1000+1000] })
	if l, _ = s.Log(log); l.Bytes-text < 200*1000 {
		t.Errorf("%d bytes of noise are stored in %d", 200*1000, l.Bytes-text)
	}
	mustAppend(t, s, put("k", "short"))
	want = append(want, "short")
	for _, res := range pull(t, s, plain, log, 0) {
		if res.Code != r.Committed {
			t.Fatalf("%+v", res)
		}
	}
	l, _ = s.Log(log)
	if there, _ := plain.Log(log); there.Bytes > l.Bytes || there.Tip != l.Tip {
		t.Errorf("%+v there, %+v here", there, l)
	}
	mustBeWhole(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, "a") // packs no more, and reads what is there
	for _, x := range []*Store{s, plain} {
		ops, packed := opsOf(t, x, log)
		if len(ops) != len(want) || packed != 1 {
			t.Fatalf("%d operations in blocks of which %d are packed", len(ops), packed)
		}
		for i := range ops {
			if string(ops[i].Payload) != want[i] {
				t.Fatalf("operation %d: %q", i, ops[i].Payload)
			}
		}
		mustBeWhole(t, x)
	}
}

// TestSealedBodiesAreNotPacked: how well text packs would tell of it.
func TestSealedBodiesAreNotPacked(t *testing.T) {
	var sealed [][]byte
	s := openAt(t, t.TempDir(), "a", func(o *Options) {
		o.Compress = true
		o.Sealer = sealer(func(h *r.Header, raw []byte) []byte {
			sealed = append(sealed, bytes.Clone(raw))
			h.KeyID = make([]byte, 16)
			return append(make([]byte, 41), raw...)
		})
	})
	a := mustAppend(t, s, put("k", string(bytes.Repeat([]byte("text "), 1000))))
	if l, _ := s.Log(a.First.Log); len(sealed) != 1 || len(sealed[0]) < 5000 || l.Bytes < 5000 {
		t.Errorf("sealed %d bodies; %d bytes are stored", len(sealed), l.Bytes)
	}
}

type sealer r.Seal

func (x sealer) SealFor(r.SpaceID) (r.Seal, error) { return r.Seal(x), nil }
