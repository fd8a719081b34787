package sealed

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"vixp2p/replication"
	"vixp2p/replication/compress"
)

var update = flag.Bool("update", false, "rewrite the golden vectors of testdata")

// The files of testdata/vectors pin sealed bodies (docs/wire.md, 6.5): another
// implementation opens the same bodies if it agrees with them. Bytes are hex, 64-bit
// numbers are decimal strings.
type vector struct {
	About      string `json:"about"`
	ContentKey string `json:"content_key"`
	KeyID      string `json:"key_id"`
	Log        string `json:"log"`
	FirstSeq   uint64 `json:"first_seq,string"`
	Count      uint64 `json:"count,string"`
	Prev       string `json:"prev"`
	RawLen     uint64 `json:"raw_length,string"`
	Associated string `json:"associated_data"`
	Nonce      string `json:"nonce"`
	Raw        string `json:"raw,omitempty"` // none in one that is void
	Body       string `json:"body"`
	Void       bool   `json:"void,omitempty"`
}

func toVector(k *Key, about string, h *replication.Header, raw, body []byte) vector {
	return vector{
		About: about, ContentKey: hex.EncodeToString(k.secret[:]), KeyID: k.id.String(),
		Log: h.Log.String(), FirstSeq: h.FirstSeq, Count: h.Count, Prev: h.Prev.String(), RawLen: h.RawLen,
		Associated: hex.EncodeToString(associated(h)), Nonce: hex.EncodeToString(body[:24]),
		Raw: hex.EncodeToString(raw), Body: hex.EncodeToString(body), Void: raw == nil,
	}
}

func TestVectors(t *testing.T) {
	k, err := FromSecret([]byte{0: 1, 31: 32})
	if err != nil {
		t.Fatal(err)
	}
	nonce := [24]byte{0: 0xaa, 23: 0xbb}
	raw := rawBody()
	want := map[string]vector{}

	h := header(raw)
	want["plain"] = toVector(k, "a body sealed as it is", h, raw, k.seal(nonce, h, replication.CodecNone, raw))

	h = header(raw)
	h.FirstSeq, h.Prev = 1, replication.Hash{}
	want["genesis"] = toVector(k, "in a genesis block: the previous block's hash is 32 zero bytes", h, raw, k.seal(nonce, h, replication.CodecNone, raw))

	long := replication.EncodeBody(testLog, []replication.Op{testOps[0], {
		Kind: replication.KindPut, Key: []byte("text"), Payload: bytes.Repeat([]byte("one two three "), 40), HLC: testOps[1].HLC, Order: uint64(testOps[1].HLC),
	}})
	packed, codec := compress.Encode(long)
	h = header(long)
	want["packed"] = toVector(k, "codec zstd inside; other packers give other bytes", h, long, k.seal(nonce, h, codec, packed))

	h = header(raw)
	body := k.seal(nonce, h, replication.CodecNone, raw)
	body[len(body)-1] ^= 1
	want["void"] = toVector(k, "a tag that is wrong", h, nil, body)

	for name, v := range want {
		path := filepath.Join("testdata", "vectors", name+".json")
		if *update {
			b, err := json.MarshalIndent(v, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var got vector
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, v) {
			t.Errorf("%s: the vector has\n%+v\nnot\n%+v", name, got, v)
		}
		opens(t, name, got)
	}
}

// opens reads a vector as another implementation would.
func opens(t *testing.T, name string, v vector) {
	t.Helper()
	bin := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	k, err := FromSecret(bin(v.ContentKey))
	if err != nil {
		t.Fatal(err)
	}
	h := &replication.Header{
		Log: replication.LogID(bin(v.Log)), FirstSeq: v.FirstSeq, Count: v.Count, Prev: replication.Hash(bin(v.Prev)),
		RawLen: v.RawLen, KeyID: bin(v.KeyID),
	}
	raw, err := k.Open(h, bin(v.Body))
	if (err != nil) != v.Void || !bytes.Equal(raw, bin(v.Raw)) {
		t.Errorf("%s opens as %x, %v", name, raw, err)
	}
}
