package compress

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"vixp2p/replication"
)

// frame packs raw with other options than Encode's.
func frame(t testing.TB, raw []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderConcurrency(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(raw, nil)
}

// streamed is a frame whose content size was not known when it began.
func streamed(t testing.TB, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	e, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{raw[:len(raw)/2], raw[len(raw)/2:]} {
		if _, err := e.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := e.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func text(n int) []byte {
	return bytes.Repeat([]byte("package: vix\nversion: 1\n"), n/24+1)[:n]
}

func noise(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func header(raw, body []byte, codec replication.Codec) *replication.Header {
	return &replication.Header{
		FirstSeq: 1, Count: 1, BodyHash: sha256.Sum256(body), BodyLen: uint64(len(body)), RawLen: uint64(len(raw)), Codec: codec,
	}
}

func TestEncodeRoundTrip(t *testing.T) {
	for _, tc := range []struct {
		name  string
		raw   []byte
		codec replication.Codec
	}{
		{"one byte", []byte{7}, replication.CodecNone},
		{"short", text(60), replication.CodecNone},
		{"text", text(10_000), replication.CodecZstd},
		{"noise", noise(10_000), replication.CodecNone},
		{"largest", text(replication.MaxRawBody), replication.CodecZstd},
		{"largest noise", noise(replication.MaxRawBody), replication.CodecNone},
		{"zeros", make([]byte, replication.MaxRawBody), replication.CodecZstd},
	} {
		t.Run(tc.name, func(t *testing.T) {
			body, codec := Encode(tc.raw)
			if codec != tc.codec {
				t.Errorf("codec %d, want %d", codec, tc.codec)
			}
			if len(body) > len(tc.raw) {
				t.Errorf("%d bytes became %d", len(tc.raw), len(body))
			}
			got, err := RawBody(header(tc.raw, body, codec), body)
			if err != nil || !bytes.Equal(got, tc.raw) {
				t.Fatalf("got %d bytes, %v", len(got), err)
			}
		})
	}
}

// TestFrames is the table of frames that count and that are void.
func TestFrames(t *testing.T) {
	raw := text(300_000)
	good, _ := Encode(raw)
	skippable := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, 3)
	skippable = append(skippable, "abc"...)
	dict := append(bytes.Clone(good[:4]), append([]byte{good[4] | 1}, append([]byte{9}, good[5:]...)...)...)
	badSum := frame(t, raw, zstd.WithEncoderCRC(true))
	badSum[len(badSum)-1] ^= 1
	reserved := bytes.Clone(good)
	reserved[4] |= 1 << 3
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

	for _, tc := range []struct {
		name string
		body []byte
		raw  []byte
		ok   bool
	}{
		{"ours", good, raw, true},
		{"with a checksum", frame(t, raw, zstd.WithEncoderCRC(true)), raw, true},
		{"with a window", frame(t, raw, zstd.WithSingleSegment(false), zstd.WithWindowSize(128<<10)), raw, true},
		{"window of 1 MiB", frame(t, raw, zstd.WithSingleSegment(false), zstd.WithWindowSize(1<<20)), raw, true},
		{"best level", frame(t, raw, zstd.WithEncoderLevel(zstd.SpeedBestCompression)), raw, true},
		{"stored blocks", frame(t, noise(200_000)), noise(200_000), true},
		{"content size missing", streamed(t, raw), raw, false},
		{"content size is another", good, raw[1:], false},
		{"two frames", join(frame(t, raw[:100_000]), frame(t, raw[100_000:])), raw, false},
		{"a frame twice", join(good, good), raw, false},
		{"an empty frame behind", join(good, frame(t, nil, zstd.WithZeroFrames(true))), raw, false},
		{"a skippable frame behind", join(good, skippable), raw, false},
		{"a skippable frame before", join(skippable, good), raw, false},
		{"only a skippable frame", skippable, raw, false},
		{"a byte behind", join(good, []byte{0}), raw, false},
		{"cut short", good[:len(good)-1], raw, false},
		{"only a frame header", good[:9], raw, false},
		{"checksum wrong", badSum, raw, false},
		{"checksum missing", badSum[:len(badSum)-4], raw, false},
		{"dictionary", dict, raw, false},
		{"reserved bit", reserved, raw, false},
		{"not zstd", raw, raw, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := header(tc.raw, tc.body, replication.CodecZstd)
			got, err := RawBody(h, tc.body)
			if tc.ok {
				if err != nil || !bytes.Equal(got, tc.raw) {
					t.Fatalf("got %d bytes, %v", len(got), err)
				}
				return
			}
			wantVoid(t, err)
		})
	}
}

func TestWindowBeyondTheLimit(t *testing.T) {
	// 2 MiB of window for a small content: the descriptor alone makes it void.
	body := frame(t, text(5000), zstd.WithSingleSegment(false), zstd.WithWindowSize(1<<20))
	var h zstd.Header
	if err := h.Decode(body); err != nil || h.SingleSegment {
		t.Fatalf("the frame has no window descriptor: %+v %v", h, err)
	}
	body[5] = (21 - 10) << 3 // 2^21 bytes
	_, err := RawBody(header(text(5000), body, replication.CodecZstd), body)
	wantVoid(t, err)
}

func TestCodecNoneChecksItsLength(t *testing.T) {
	_, err := RawBody(header(text(10), text(9), replication.CodecNone), text(9))
	wantVoid(t, err)
}

func TestUnknownCodecIsVoid(t *testing.T) {
	_, err := RawBody(header(text(10), text(10), 2), text(10))
	wantVoid(t, err)
}

func TestWhatCannotBeReadHereIsNotVoid(t *testing.T) {
	h := header(text(10), text(10), replication.CodecNone)
	var void *replication.VoidError
	if _, err := Ops(&replication.Block{Header: h}); !errors.Is(err, ErrNoBody) || errors.As(err, &void) {
		t.Errorf("without a body: %v", err)
	}
	h.KeyID = make([]byte, 32)
	if _, err := Ops(&replication.Block{Header: h, Body: text(10)}); !errors.Is(err, ErrEncrypted) || errors.As(err, &void) {
		t.Errorf("encrypted: %v", err)
	}
}

func TestOps(t *testing.T) {
	var log replication.LogID
	in := []replication.Op{{Kind: replication.KindPut, Key: []byte("k"), Payload: text(5000), HLC: 7, Order: 7}}
	raw := replication.EncodeBody(log, in)
	body, codec := Encode(raw)
	h := header(raw, body, codec)
	h.FirstHLC, h.LastHLC = 7, 7
	ops, err := Ops(&replication.Block{Header: h, Body: body})
	if err != nil || len(ops) != 1 || !bytes.Equal(ops[0].Payload, in[0].Payload) {
		t.Fatalf("%v %v", ops, err)
	}
	h.Count = 2
	_, err = Ops(&replication.Block{Header: h, Body: body})
	wantVoid(t, err)
}

// FuzzRawBody: no input makes it panic or return another length than the header
// states.
func FuzzRawBody(f *testing.F) {
	good, _ := Encode(text(500))
	f.Add(good, uint64(500))
	f.Add(frame(f, text(5000), zstd.WithEncoderCRC(true)), uint64(5000))
	f.Add(frame(f, noise(100)), uint64(100))
	f.Fuzz(func(t *testing.T, body []byte, rawLen uint64) {
		rawLen %= replication.MaxRawBody + 1
		h := &replication.Header{Codec: replication.CodecZstd, RawLen: rawLen, BodyLen: uint64(len(body))}
		raw, err := RawBody(h, body)
		if err == nil && uint64(len(raw)) != rawLen {
			t.Fatalf("%d bytes where the header says %d", len(raw), rawLen)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	raw := text(256 << 10)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		Encode(raw)
	}
}

func BenchmarkRawBody(b *testing.B) {
	raw := text(256 << 10)
	body, codec := Encode(raw)
	h := header(raw, body, codec)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := RawBody(h, body); err != nil {
			b.Fatal(err)
		}
	}
}

func wantVoid(t testing.TB, err error) {
	t.Helper()
	var void *replication.VoidError
	if !errors.As(err, &void) || !errors.Is(err, replication.ErrInvalid) {
		t.Fatalf("got %v, want a void body", err)
	}
}
