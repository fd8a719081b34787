package replication_test

import (
	"crypto/sha256"
	"strconv"
	"strings"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/compress"
	"vixp2p/replication/logtest"
)

// benchLog is a run of n blocks of 1,000 puts of 256 bytes each, unsigned but for
// the last, as a fast writer makes them.
func benchLog(n, ops int) *logtest.Writer {
	w := writer(1)
	value := strings.Repeat("v", 256)
	for i := range n {
		batch := make([]replication.Op, ops)
		for k := range batch {
			batch[k] = logtest.Put("key/"+strconv.Itoa(k), value)
		}
		w.AddSpec(logtest.Spec{Ops: batch, Unsigned: i != n-1})
	}
	return w
}

func BenchmarkParseBlockHeader(b *testing.B) {
	w := benchLog(2, 1)
	raw := w.Raw(1, 2)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := replication.ParseBlockHeader(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseBlock(b *testing.B) {
	raw := benchLog(1, 1000).Raw(0, 1)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := replication.ParseBlock(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMakeBlock hashes, signs and puts together blocks of one operation and of
// 1,000, whose bodies are encoded already.
func BenchmarkMakeBlock(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run("ops="+strconv.Itoa(n), func(b *testing.B) {
			blk, key := benchLog(1, n).Block(0), logtest.Key(1)
			h := *blk.Header
			b.SetBytes(int64(len(blk.Body)))
			b.ReportAllocs()
			for b.Loop() {
				body := h.SetBody(blk.Body, nil)
				raw := replication.AppendHeader(nil, &h)
				sig := replication.SignBlock(key, sha256.Sum256(raw))
				buf := make([]byte, 0, len(raw)+len(sig)+len(body)+16)
				replication.AppendBlock(buf, raw, sig, body)
			}
		})
	}
}

func BenchmarkVerifyRun(b *testing.B) {
	w := benchLog(4, 1000)
	raw := w.Raw(0, 4)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := replication.VerifyRun(w.Source(0), raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyRunOfSmallBlocks(b *testing.B) {
	w := benchLog(replication.MaxRunBlocks, 1)
	raw := w.Raw(0, w.Len())
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := replication.VerifyRun(w.Source(0), raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeBody(b *testing.B) {
	blk := benchLog(1, 1000).Block(0)
	b.SetBytes(int64(len(blk.Body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := replication.DecodeBody(blk.Header, blk.Body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeBody(b *testing.B) {
	blk := benchLog(1, 1000).Block(0)
	ops, err := compress.Ops(blk)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(blk.Body)))
	b.ReportAllocs()
	for b.Loop() {
		replication.EncodeBody(blk.Header.Log, ops)
	}
}

func BenchmarkFrontierRoot(b *testing.B) {
	for _, n := range []int{1, 100, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			entries := make([]replication.FrontierEntry, n)
			for i := range entries {
				h := replication.HashParts("bench", []byte(strconv.Itoa(i)))
				entries[i] = replication.FrontierEntry{Log: replication.LogID(h), Pos: replication.Position{Seq: 1, Hash: h}}
			}
			b.ReportAllocs()
			for b.Loop() {
				replication.FrontierRoot(entries)
			}
		})
	}
}
