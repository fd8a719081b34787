package registry

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"vixp2p/replication"
)

var update = flag.Bool("update", false, "write the golden vector again")

// key is a fixed identity.
func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

// sample is an announcement with every member.
func sample() *Announcement {
	return &Announcement{
		TCPPort: 9001, TimeMS: 1_790_000_000_123, Nonce: 42,
		Cap:     map[string]string{"transport": "tcp,quic", "proto": "1.0"},
		Addrs:   []string{"/ip4/192.0.2.7/tcp/9001", "/ip6/2001:db8::7/udp/9001/quic-v1"},
		Network: NetworkTag(replication.OpenNetwork("dev")),
	}
}

func signed(t *testing.T, n byte, change func(*Announcement)) *Announcement {
	t.Helper()
	a := sample()
	if change != nil {
		change(a)
	}
	if err := a.Sign(key(n)); err != nil {
		t.Fatal(err)
	}
	return a
}

func encoded(t *testing.T, a *Announcement) []byte {
	t.Helper()
	data, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// vector is the golden one, described in docs/wire.md, 13.
type vector struct {
	Seed         string `json:"seed"`    // of the Ed25519 key, hex
	Network      string `json:"network"` // the network's id, hex
	Announcement string `json:"announcement"`
	Signed       string `json:"signed"` // the signed bytes, hex
}

// The form and the signature are what other implementations rely on: they do not
// change.
func TestVector(t *testing.T) {
	const file = "testdata/vectors/announcement.json"
	network := replication.OpenNetwork("dev")
	a := signed(t, 7, nil)
	got := vector{
		Seed: hex.EncodeToString(key(7).Seed()), Network: network.String(),
		Announcement: string(encoded(t, a)), Signed: hex.EncodeToString(a.SignedBytes()),
	}
	if *update {
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetIndent("", "  ")
		if err := enc.Encode(got); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want vector
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	back, err := Decode([]byte(want.Announcement))
	if err != nil || back.Verify() != nil || !reflect.DeepEqual(back, a) {
		t.Errorf("%+v, %v, %v", back, err, back.Verify())
	}
}

// The original's form, which knows nothing of peers, is read and written.
func TestOriginalForm(t *testing.T) {
	for _, text := range []string{
		`{"node_id":"A","tcp_port":9001,"ts_ms":1790000000123,"nonce":18446744073709551615,"cap":{"proto":"1.0"}}`,
		`{"node_id":"A","tcp_port":9001,"cap":{"proto":"1.0","transport":"tcp"}}`,
		`{"node_id":"A","tcp_port":9001}`,
		` {"later":[{"x":null}], "tcp_port": 9001, "node_id":"\u0041" } `,
	} {
		a, err := Decode([]byte(text))
		if err != nil || a.NodeID != "A" || a.TCPPort != 9001 || a.Verify() != nil {
			t.Errorf("%s: %+v, %v", text, a, err)
		}
	}
	a := Announcement{NodeID: "A", TCPPort: 9001, TimeMS: 5, Nonce: 6}
	if got, want := string(encoded(t, &a)), `{"node_id":"A","tcp_port":9001,"ts_ms":5,"nonce":6,"cap":{}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	id := signed(t, 1, nil).PeerID
	other := signed(t, 2, nil).PeerID
	for text, says := range map[string]string{
		"":                                "not one JSON object",
		"null":                            "not one JSON object",
		"[]":                              "not one JSON object",
		`"text"`:                          "not one JSON object",
		`{"node_id":"A","tcp_port":1`:     "not one JSON object",
		`{"node_id":"A","tcp_port":1} {}`: "something follows",
		`{"node_id":"A","tcp_port":1}x`:   "something follows",
		`{"node_id":"A","node_id":"A","tcp_port":1}`:           `"node_id" is there twice`,
		`{"node_id":"A","tcp_port":1,"cap":{"a":"b","a":"c"}}`: `"a" is there twice`,
		`{"tcp_port":1}`:                                                                          "no node_id",
		`{"node_id":"A"}`:                                                                         "no tcp_port",
		`{"Node_ID":"A","tcp_port":1}`:                                                            "no node_id",
		`{"node_id":7,"tcp_port":1}`:                                                              "node_id: it must be text",
		`{"node_id":null,"tcp_port":1}`:                                                           "node_id: it must be text",
		`{"node_id":"","tcp_port":1}`:                                                             "1 to 64",
		`{"node_id":"a\u001b[31m","tcp_port":1}`:                                                  "cannot be shown",
		`{"node_id":"` + strings.Repeat("x", 65) + `","tcp_port":1}`:                              "1 to 64",
		`{"node_id":"A","tcp_port":0}`:                                                            "1 to 65535",
		`{"node_id":"A","tcp_port":65536}`:                                                        "0 to 65535",
		`{"node_id":"A","tcp_port":-1}`:                                                           "whole number",
		`{"node_id":"A","tcp_port":1.5}`:                                                          "whole number",
		`{"node_id":"A","tcp_port":1e3}`:                                                          "whole number",
		`{"node_id":"A","tcp_port":"1"}`:                                                          "whole number",
		`{"node_id":"A","tcp_port":1,"ts_ms":9007199254740992}`:                                   "ts_ms",
		`{"node_id":"A","tcp_port":1,"nonce":18446744073709551616}`:                               "nonce",
		`{"node_id":"A","tcp_port":1,"cap":[]}`:                                                   "cap",
		`{"node_id":"A","tcp_port":1,"cap":{"proto":1}}`:                                          "cap",
		`{"node_id":"A","tcp_port":1,"cap":{"":"x"}}`:                                             "cap",
		`{"node_id":"A","tcp_port":1,"cap":{"x":"` + strings.Repeat("x", 65) + `"}}`:              "cap",
		`{"node_id":"A","tcp_port":1,"addrs":["/ip4/192.0.2.1/tcp/1"]}`:                           "need a peer_id",
		`{"node_id":"A","tcp_port":1,"sig":"AAAA"}`:                                               "no peer_id",
		`{"node_id":"A","tcp_port":1,"network":"dev"}`:                                            "network",
		`{"node_id":"` + id + `","tcp_port":1}`:                                                   "must prove it",
		`{"node_id":"A","tcp_port":1,"peer_id":"A"}`:                                              "peer_id",
		`{"node_id":"A","tcp_port":1,"peer_id":"` + id + `"}`:                                     "needs its time",
		`{"node_id":"` + other + `","tcp_port":1,"ts_ms":1,"peer_id":"` + id + `"}`:               "another node",
		`{"node_id":"A","tcp_port":1,"ts_ms":1,"peer_id":"` + id + `","addrs":["x"]}`:             "multiaddr",
		`{"node_id":"A","tcp_port":1,"ts_ms":1,"peer_id":"` + id + `","addrs":"x"}`:               "list",
		`{"node_id":"A","tcp_port":1,"ts_ms":1,"peer_id":"` + id + `","addrs":null}`:              "list",
		`{"node_id":"A","tcp_port":1,"ts_ms":1,"peer_id":"` + id + `","sig":"A"}`:                 "sig",
		"{\"node_id\":\"\xff\",\"tcp_port\":1}":                                                   "UTF-8",
		`{"node_id":"A","tcp_port":1,"later":` + strings.Repeat("[", 500) + `}`:                   "not one JSON object",
		`{"node_id":"A","tcp_port":1,"peer_id":"QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"}`: "peer_id",
	} {
		a, err := Decode([]byte(text))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), says) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: %+v, %v; want %q", text, a, err, says)
		}
	}
	if _, err := Decode(bytes.Repeat([]byte(" "), MaxAnnouncement+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	many := Announcement{NodeID: "A", TCPPort: 1, Cap: map[string]string{}}
	for i := range maxCaps + 1 {
		many.Cap[fmt.Sprint(i)] = ""
	}
	if _, err := many.Encode(); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	// A node may be called what looks a little like a peer ID.
	for _, name := range []string{"1", "11", "Qm", "12D3KooW", "1A", "alice"} {
		a := Announcement{NodeID: name, TCPPort: 1}
		if err := a.Check(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Nothing of a signed announcement can be changed.
func TestVerify(t *testing.T) {
	if err := signed(t, 1, nil).Verify(); err != nil {
		t.Fatal(err)
	}
	other := signed(t, 2, nil)
	for name, change := range map[string]func(*Announcement){
		"node_id":    func(a *Announcement) { a.NodeID = "x" },
		"tcp_port":   func(a *Announcement) { a.TCPPort++ },
		"ts_ms":      func(a *Announcement) { a.TimeMS++ },
		"nonce":      func(a *Announcement) { a.Nonce++ },
		"cap":        func(a *Announcement) { a.Cap["proto"] = "2.0" },
		"cap gone":   func(a *Announcement) { a.Cap = nil },
		"peer_id":    func(a *Announcement) { a.PeerID = other.PeerID },
		"addrs":      func(a *Announcement) { a.Addrs = a.Addrs[:1] },
		"addr order": func(a *Announcement) { slices.Reverse(a.Addrs) },
		"network":    func(a *Announcement) { a.Network = "" },
		"sig":        func(a *Announcement) { a.Sig[0] ^= 1 },
		"short sig":  func(a *Announcement) { a.Sig = a.Sig[:63] },
	} {
		a := signed(t, 1, nil)
		a.Cap, a.Addrs = maps.Clone(a.Cap), slices.Clone(a.Addrs)
		change(a)
		if err := a.Verify(); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s changed: %v", name, err)
		}
	}
	a := signed(t, 1, nil)
	a.Sig = nil
	if err := a.Verify(); !errors.Is(err, ErrUnsigned) {
		t.Error(err)
	}
}

func TestFit(t *testing.T) {
	a := sample()
	for i := range 30 {
		a.Addrs = append(a.Addrs, fmt.Sprintf("/ip6/2001:db8:aaaa:bbbb:cccc:dddd:eeee:%x/udp/65535/quic-v1", i))
	}
	a.NodeID = signed(t, 1, nil).PeerID
	a.PeerID = a.NodeID
	if a.Fit() == 0 || len(a.Addrs) < 6 {
		t.Errorf("%d addresses", len(a.Addrs))
	}
	if err := a.Sign(key(1)); err != nil {
		t.Fatal(err)
	}
	if data := encoded(t, a); len(data) < MaxAnnouncement-100 {
		t.Errorf("%d bytes leave room for one more", len(data))
	}
	if small := sample(); small.Fit() != 0 || len(small.Addrs) != 2 {
		t.Errorf("%+v", small)
	}
}

// Whatever is read can be written, and reads back as the same.
func FuzzDecode(f *testing.F) {
	a := sample()
	if err := a.Sign(key(1)); err != nil {
		f.Fatal(err)
	}
	data, err := a.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"node_id":"A","tcp_port":9001,"ts_ms":1,"nonce":2,"cap":{"proto":"1.0"}}`))
	f.Add([]byte(`{"node_id":"\ud800","tcp_port":1,"x":{"y":[1,2,{}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) || strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Fatalf("%q", err)
			}
			return
		}
		_ = a.Verify()
		again, err := a.Encode()
		if errors.Is(err, ErrTooLarge) {
			return // it was written more tightly than we write
		}
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(again)
		if err != nil || !reflect.DeepEqual(a, back) {
			t.Fatalf("%s reads as %+v, %v", again, back, err)
		}
	})
}
