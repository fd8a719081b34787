package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/compress"
)

func testKey(t testing.TB, n byte) *Key {
	t.Helper()
	k, err := FromSecret(bytes.Repeat([]byte{n}, SecretBytes))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var (
	testLog = replication.LogID{1, 2, 3}
	testOps = []replication.Op{
		{Kind: replication.KindPut, Key: []byte("user/1"), Payload: []byte("Ada"), HLC: 1 << 20, Order: 1 << 20},
		{Kind: replication.KindPut, Key: []byte("user/2"), Payload: []byte("Grace"), HLC: 1<<20 + 1, Order: 1<<20 + 1},
	}
)

// header describes a block of testOps, without what concerns the stored body.
func header(raw []byte) *replication.Header {
	return &replication.Header{
		Log: testLog, FirstSeq: 7, Count: 2, Prev: replication.Hash{9}, RawLen: uint64(len(raw)),
		FirstHLC: testOps[0].HLC, LastHLC: testOps[1].HLC,
	}
}

func rawBody() []byte { return replication.EncodeBody(testLog, testOps) }

func isVoid(err error) bool {
	var v *replication.VoidError
	return errors.As(err, &v) && v.Log == testLog && v.FirstSeq == 7
}

func TestSealAndOpen(t *testing.T) {
	k, raw := testKey(t, 1), rawBody()
	h := header(raw)
	a := k.Seal(h, raw)
	if len(a) != len(raw)+Overhead || !bytes.Equal(h.KeyID, k.id[:]) || bytes.Contains(a, []byte("Ada")) {
		t.Fatalf("%d bytes are sealed as %d under %x", len(raw), len(a), h.KeyID)
	}
	if got, err := k.Open(h, a); err != nil || !bytes.Equal(got, raw) {
		t.Fatalf("open: %x, %v", got, err)
	}
	if b := k.Seal(h, raw); bytes.Equal(a[:24], b[:24]) {
		t.Error("two seals have one nonce")
	}
	big := make([]byte, replication.MaxRawBody)
	if n := len(k.Seal(header(big), big)); n > replication.MaxBody {
		t.Errorf("the largest body is sealed as %d bytes", n)
	}
}

// Every part of what a body is bound to is: a body that stands in another place, or
// under another claim, is void.
func TestBound(t *testing.T) {
	k, raw := testKey(t, 1), rawBody()
	h := header(raw)
	body := k.Seal(h, raw)
	for name, change := range map[string]func(h *replication.Header){
		"log":            func(h *replication.Header) { h.Log[31] ^= 1 },
		"first seq":      func(h *replication.Header) { h.FirstSeq++ },
		"count":          func(h *replication.Header) { h.Count-- },
		"previous block": func(h *replication.Header) { h.Prev[0] ^= 1 },
		"key id":         func(h *replication.Header) { h.KeyID = bytes.Clone(h.KeyID); h.KeyID[31] ^= 1 },
		"raw length":     func(h *replication.Header) { h.RawLen++ },
		"codec":          func(h *replication.Header) { h.Codec = replication.CodecZstd },
	} {
		other := *h
		change(&other)
		_, err := k.Open(&other, body)
		if v := (*replication.VoidError)(nil); !errors.As(err, &v) {
			t.Errorf("with another %s: %v", name, err)
		}
	}
	for i := range body {
		bent := bytes.Clone(body)
		bent[i] ^= 0x80
		if _, err := k.Open(h, bent); !isVoid(err) {
			t.Fatalf("with byte %d changed: %v", i, err)
		}
	}
	for n := range len(body) {
		if _, err := k.Open(h, body[:n]); !isVoid(err) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	// A block that names a key under which it was not sealed.
	other := testKey(t, 2)
	h.KeyID = other.id[:]
	if _, err := other.Open(h, body); !isVoid(err) {
		t.Errorf("under another key: %v", err)
	}
}

// The codec is inside: a packed body opens, one that breaks the codec's rules is void.
func TestCodecInside(t *testing.T) {
	k := testKey(t, 1)
	ops := []replication.Op{testOps[0], testOps[1]}
	ops[1].Payload = []byte(strings.Repeat("one two three ", 100))
	raw := replication.EncodeBody(testLog, ops)
	packed, codec := compress.Encode(raw)
	if codec != replication.CodecZstd {
		t.Fatal("the body does not pack")
	}
	h := header(raw)
	if got, err := k.Open(h, k.seal([24]byte{1}, h, codec, packed)); err == nil && !bytes.Equal(got, raw) || err != nil {
		t.Errorf("a packed body: %v", err)
	}
	for name, body := range map[string][]byte{
		"unknown codec":  k.seal([24]byte{1}, h, 2, packed),
		"no frame":       k.seal([24]byte{1}, h, replication.CodecZstd, raw),
		"another length": k.seal([24]byte{1}, h, replication.CodecNone, raw[1:]),
		"nothing inside": k.seal([24]byte{1}, h, replication.CodecNone, nil),
	} {
		if _, err := k.Open(h, body); !isVoid(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whether a block counts follows from it, from whether its space is encrypted, and
// from the key that it names.
func TestOps(t *testing.T) {
	k, raw := testKey(t, 1), rawBody()
	block := func(seal replication.Seal) *replication.Block {
		h := header(raw)
		body := h.SetBody(raw, seal)
		if h.BodyLen != uint64(len(body)) || h.BodyHash != sha256.Sum256(body) || h.RawLen != uint64(len(raw)) {
			t.Errorf("the header does not describe its body: %+v", h)
		}
		return &replication.Block{Header: h, Body: body}
	}
	plain, shut := block(nil), block(k.Seal)
	noKey := func(h *replication.Header, _ []byte) ([]byte, error) {
		return nil, &replication.NoKeyError{KeyID: [32]byte(h.KeyID), Log: h.Log, Seq: h.FirstSeq}
	}
	counts := func(b *replication.Block, open replication.Open) {
		t.Helper()
		if ops, err := Ops(b, open); err != nil || len(ops) != 2 || string(ops[0].Payload) != "Ada" {
			t.Errorf("%d operations, %v", len(ops), err)
		}
	}
	counts(plain, nil)
	counts(shut, k.Open)
	if _, err := Ops(plain, k.Open); !isVoid(err) {
		t.Errorf("not sealed in an encrypted space: %v", err)
	}
	if _, err := Ops(plain, noKey); !isVoid(err) {
		t.Errorf("not sealed in an encrypted space, without keys: %v", err)
	}
	if _, err := Ops(shut, nil); !isVoid(err) {
		t.Errorf("sealed in a space that is not encrypted: %v", err)
	}
	_, err := Ops(shut, noKey)
	var missing *replication.NoKeyError
	if !errors.Is(err, replication.ErrNoKey) || !errors.As(err, &missing) || missing.KeyID != k.ID() || isVoid(err) {
		t.Errorf("without the key: %v", err)
	}
	if _, err := Ops(&replication.Block{Header: shut.Header}, k.Open); !errors.Is(err, compress.ErrNoBody) {
		t.Errorf("a header alone: %v", err)
	}
	// Sealed as it should be, and no body inside: void like any other.
	bent := bytes.Clone(raw)
	bent[0] ^= 0xff
	h := header(bent)
	body := h.SetBody(bent, k.Seal)
	if _, err := Ops(&replication.Block{Header: h, Body: body}, k.Open); !isVoid(err) {
		t.Errorf("a bad body inside: %v", err)
	}
}

// A key shows itself nowhere.
func TestKeyIsNotPrinted(t *testing.T) {
	k, err := FromSecret([]byte("the secret is 32 bytes of text!!"))
	if err != nil {
		t.Fatal(err)
	}
	inside := struct{ Key *Key }{k}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "key", k, "value", *k)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", k, "inside", inside)
	texts := []string{log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U"} {
		texts = append(texts, fmt.Sprintf(verb, k), fmt.Sprintf(verb, *k), fmt.Sprintf(verb, inside), fmt.Sprintf(verb, &inside))
	}
	for _, v := range []any{k, *k, inside} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	for _, text := range texts {
		for _, form := range []string{"%s", "%x", "%X", "%d", "%v", "%o", "%q", "%b", "%U", "%c"} {
			if leak := strings.Trim(fmt.Sprintf(form, k.secret[:8]), "[]\""); strings.Contains(text, leak) {
				t.Errorf("the key is in %s", text)
			}
		}
	}
}

func TestFromSecret(t *testing.T) {
	if _, err := FromSecret(make([]byte, 31)); err == nil {
		t.Error("a key of 31 bytes")
	}
	k, err := NewKey(bytes.NewReader(bytes.Repeat([]byte{5}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	again, err := FromSecret(k.Secret())
	if err != nil || again.ID() != k.ID() || k.ID() != testKey(t, 5).ID() || k.ID() == testKey(t, 6).ID() {
		t.Errorf("the same secret has the id %s, then %s (%v)", k.ID(), again.ID(), err)
	}
	if _, err := NewKey(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a key of too little randomness")
	}
}

func FuzzOpen(f *testing.F) {
	k, raw := testKey(f, 1), rawBody()
	h := header(raw)
	f.Add(k.seal([24]byte{}, h, replication.CodecNone, raw), uint64(len(raw)))
	packed, codec := compress.Encode(bytes.Repeat(raw, 20))
	h.RawLen = uint64(20 * len(raw))
	f.Add(k.seal([24]byte{}, h, codec, packed), h.RawLen)
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, body []byte, rawLen uint64) {
		h := header(nil)
		h.RawLen, h.KeyID = rawLen%(replication.MaxRawBody+1), k.id[:]
		if got, err := k.Open(h, body); err == nil && uint64(len(got)) != h.RawLen || err != nil && !isVoid(err) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		// What is inside is a stranger's too where he has the key.
		if len(body) == 0 {
			return
		}
		inside := k.seal([24]byte{}, h, replication.Codec(body[0]), body[1:])
		if got, err := k.Open(h, inside); err == nil && uint64(len(got)) != h.RawLen || err != nil && !isVoid(err) {
			t.Errorf("sealed: %d bytes, %v", len(got), err)
		}
	})
}
