package replication_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
)

// vectorFiles are the golden blocks, which seed the fuzzing beside testdata/fuzz.
func vectorFiles(f *testing.F) (all []blockVector) {
	f.Helper()
	files, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if v := readVector[blockVector](f, file); v.Header != "" {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		f.Fatal("no vectors")
	}
	return all
}

// FuzzParseBlock: what parses is encoded as exactly the bytes that were read.
func FuzzParseBlock(f *testing.F) {
	for _, v := range vectorFiles(f) {
		f.Add(unhex(f, v.Block))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b, rest, err := replication.ParseBlock(in)
		if err != nil {
			return
		}
		used := in[:len(in)-len(rest)]
		if again := replication.AppendBlock(nil, b.HeaderRaw, b.Sig, b.Body); !bytes.Equal(again, used) || b.EncodedLen() != len(used) {
			t.Fatalf("%x is encoded as %x", used, again)
		}
		h := b.Header
		if h.Count == 0 || h.FirstSeq == 0 || h.LastSeq() < h.FirstSeq || h.LastHLC < h.FirstHLC || (h.FirstSeq == 1) != (h.Genesis != nil) ||
			h.Prev.IsZero() != (h.FirstSeq == 1) || len(b.Body) > replication.MaxBody {
			t.Fatalf("a header that breaks the rules: %+v", h)
		}
	})
}

// FuzzDecodeHeader: a header without fields of a later version has one encoding.
func FuzzDecodeHeader(f *testing.F) {
	for _, v := range vectorFiles(f) {
		f.Add(unhex(f, v.Header))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := replication.DecodeHeader(in)
		if err != nil {
			return
		}
		known := len(in)
		for rest := in; len(rest) > 0; {
			num, typ, n := protowire.ConsumeTag(rest)
			n += protowire.ConsumeFieldValue(num, typ, rest[n:])
			if num >= 64 {
				known = len(in) - len(rest)
				break
			}
			rest = rest[n:]
		}
		if again := replication.AppendHeader(nil, h); !bytes.Equal(again, in[:known]) {
			t.Fatalf("%x is encoded as %x", in[:known], again)
		}
	})
}

// FuzzDecodeBody: what decodes keeps the rules and comes back from its encoding.
func FuzzDecodeBody(f *testing.F) {
	for _, v := range vectorFiles(f) {
		body := unhex(f, v.Raw)
		if len(body) == 0 {
			body = unhex(f, v.Body)
		}
		if len(v.Ops) > 0 {
			f.Add(body, uint64(len(v.Ops)), v.Ops[0].HLC, v.Ops[len(v.Ops)-1].HLC)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, count, first, last uint64) {
		h := &replication.Header{
			Log: replication.LogID{5}, Count: count % (replication.MaxOpsPerBlock + 1), RawLen: uint64(len(raw)),
			FirstHLC: replication.HLC(first), LastHLC: replication.HLC(last),
		}
		ops, err := replication.DecodeBody(h, raw)
		if err != nil {
			return
		}
		for i := range ops {
			o := ops[i]
			if o.Order = 0; len(o.Key) > 0 {
				o.Order = ops[i].Order
			}
			if err := replication.CheckOp(&o); err != nil || o.Order != ops[i].Order || (i > 0 && o.HLC <= ops[i-1].HLC) {
				t.Fatalf("operation %d breaks the rules: %+v (%v)", i, ops[i], err)
			}
		}
		again := replication.EncodeBody(h.Log, ops)
		h.RawLen = uint64(len(again))
		back, err := replication.DecodeBody(h, again)
		if err != nil || len(back) != len(ops) {
			t.Fatalf("%x is encoded as %x: %v", raw, again, err)
		}
		for i := range ops {
			a, b := ops[i], back[i]
			if a.Kind != b.Kind || a.Critical != b.Critical || a.Name != b.Name || !bytes.Equal(a.Key, b.Key) || !bytes.Equal(a.Payload, b.Payload) ||
				a.HLC != b.HLC || a.Order != b.Order || !slices.Equal(a.Supersedes, b.Supersedes) || a.Flags != b.Flags ||
				a.Expiry != b.Expiry || !bytes.Equal(a.Content, b.Content) {
				t.Fatalf("%+v comes back as %+v", a, b)
			}
		}
	})
}

// FuzzVerifyRun: without the key, nothing but prefixes of what the origin signed
// verifies.
func FuzzVerifyRun(f *testing.F) {
	w := sample()
	f.Add(w.Raw(0, 6))
	f.Add(w.Raw(0, 1))
	f.Add(w.Raw(0, 4))
	f.Add(w.RawTail(0, 2, 4))
	f.Add(w.Raw(0, 3))
	src := w.Source(0)
	src.Origin = nil
	f.Fuzz(func(t *testing.T, raw []byte) {
		run, err := replication.VerifyRun(src, raw)
		if err != nil {
			return
		}
		for i, b := range append(slices.Clone(run.Blocks), run.Tail...) {
			if i >= w.Len() || b.Hash != w.Block(i).Hash || (b.HasBody() && !bytes.Equal(b.Body, w.Block(i).Body)) {
				t.Fatalf("block %d is not the origin's", i)
			}
		}
	})
}

// FuzzParseCursor: a cursor that parses says the same again.
func FuzzParseCursor(f *testing.F) {
	f.Add(replication.Cursor{}.String())
	f.Add(replication.Cursor{Instance: replication.Instance{1}, Generation: 2, Arrival: 3, Op: 4}.String())
	f.Fuzz(func(t *testing.T, s string) {
		c, err := replication.ParseCursor(s)
		if err != nil {
			return
		}
		if again, err := replication.ParseCursor(c.String()); err != nil || again != c {
			t.Fatalf("%q is %+v, its text is %+v (%v)", s, c, again, err)
		}
	})
}
