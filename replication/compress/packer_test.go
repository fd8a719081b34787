package compress

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"vixp2p/replication"
)

// TestPackerPacksWhatPays: long text, and neither short text nor what is random.
func TestPackerPacksWhatPays(t *testing.T) {
	for name, c := range map[string]struct {
		raw  []byte
		want replication.Codec
	}{
		"long text":    {text(8 << 10), replication.CodecZstd},
		"short text":   {text(minBody - 1), replication.CodecNone},
		"noise":        {noise(8 << 10), replication.CodecNone},
		"hardly saves": {append(noise(8<<10), text(1<<10)...), replication.CodecNone},
	} {
		t.Run(name, func(t *testing.T) {
			var p Packer
			body, codec := p.Pack(c.raw)
			if codec != c.want {
				t.Fatalf("codec %d, %d bytes of %d", codec, len(body), len(c.raw))
			}
			h := replication.Header{RawLen: uint64(len(c.raw)), Codec: codec}
			raw, err := RawBody(&h, body)
			if err != nil || !bytes.Equal(raw, c.raw) {
				t.Errorf("unpacked %d bytes, %v", len(raw), err)
			}
			if codec == replication.CodecZstd && len(body) > len(c.raw)/leastPart*(leastPart-1) {
				t.Errorf("packed %d bytes are %d", len(c.raw), len(body))
			}
		})
	}
}

// TestPackerRests: what does not pack is tried more and more seldom, and what packs
// again is packed each time.
func TestPackerRests(t *testing.T) {
	var p Packer
	tries := 0
	for range 1000 {
		if p.rest == 0 {
			tries++
		}
		if _, codec := p.Pack(noise(2 << 10)); codec != replication.CodecNone {
			t.Fatal("noise is packed")
		}
	}
	if tries < 10 || tries > 30 {
		t.Errorf("%d of 1,000 bodies of noise were tried", tries)
	}
	packed := 0
	for range 200 {
		if _, codec := p.Pack(text(2 << 10)); codec == replication.CodecZstd {
			packed++
		}
	}
	if packed < 200-1<<maxMisses-1 {
		t.Errorf("%d of 200 bodies of text were packed after noise", packed)
	}
}

// BenchmarkPack is what packing takes, and with ratio what is left, of a block of so
// many bytes.
func BenchmarkPack(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 128 << 10} {
		for name, raw := range map[string][]byte{"json": records(size), "noise": noise(size)} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				left := 0
				for b.Loop() {
					body, _ := Encode(raw)
					left = len(body)
				}
				b.ReportMetric(float64(left)/float64(size), "left")
			})
		}
	}
}

// records are JSON records with different values.
func records(n int) (out []byte) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 0; len(out) < n; i++ {
		out = fmt.Appendf(out, `{"id":%d,"sensor":"s-%03d","celsius":%.2f,"humidity":%d,"at":"2026-11-29T%02d:%02d:%02dZ","ok":true}`,
			i, rng.IntN(200), 15+10*rng.Float64(), 30+rng.IntN(40), rng.IntN(24), rng.IntN(60), rng.IntN(60))
	}
	return out[:n]
}
