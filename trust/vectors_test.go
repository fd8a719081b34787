package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vixp2p/replication"
)

var update = flag.Bool("update", false, "rewrite the golden vectors of testdata")

// The files of testdata/vectors pin the formats of docs/wire.md 15: another
// implementation reads the same if it agrees with them. Bytes are hex, numbers
// decimal strings, and fields with their default value are left out.
type vector struct {
	About string `json:"about"`
	// Op is the name of the operation whose payload this is; empty where the bytes
	// stand elsewhere.
	Op     string `json:"op,omitempty"`
	Fields any    `json:"fields"`
	// Of a certificate: what is signed, by which key.
	IssuerSeed string `json:"issuer_seed,omitempty"`
	Body       string `json:"body,omitempty"`
	ID         string `json:"id,omitempty"`
	Signed     string `json:"signed,omitempty"`
	Signature  string `json:"signature,omitempty"`

	Encoded string `json:"encoded,omitempty"` // bytes
	Text    string `json:"text,omitempty"`    // of a ticket
}

type object = map[string]any

// put adds what is not the default: a number, a text, bytes, true.
func put(o object, name string, v any) {
	switch v := v.(type) {
	case uint64:
		if v != 0 {
			o[name] = strconv.FormatUint(v, 10)
		}
	case string:
		if v != "" {
			o[name] = v
		}
	case bool:
		if v {
			o[name] = v
		}
	case []byte:
		if !isZero(v) {
			o[name] = hex.EncodeToString(v)
		}
	}
}

func grantFields(grants []Grant) (out []any) {
	for _, g := range grants {
		o := object{"role": strconv.Itoa(int(g.Role))}
		put(o, "space", g.Space[:])
		out = append(out, o)
	}
	return out
}

// fieldsOf is what a statement says, as a vector shows it.
func fieldsOf(s Statement) object {
	o := object{}
	switch s := s.(type) {
	case *Certificate:
		put(o, "network", s.Network[:])
		put(o, "subject", s.Subject[:])
		put(o, "generation", s.Generation)
		put(o, "label", s.Label)
		o["grants"] = grantFields(s.Grants)
		put(o, "x25519", s.X25519[:])
		put(o, "not_before", uint64(s.NotBefore))
		put(o, "not_after", uint64(s.NotAfter))
		put(o, "issuer", s.Issuer[:])
		put(o, "issuer_generation", s.IssuerGeneration)
		put(o, "serial", s.Serial[:])
		put(o, "invite", s.Invite[:])
	case *Invite:
		put(o, "public", s.Public[:])
		o["grants"] = grantFields(s.Grants)
		put(o, "label", s.Label)
		put(o, "expires", uint64(s.Expires))
		put(o, "validity", uint64(s.Validity))
	case *Revocation:
		put(o, "subject", s.Subject[:])
		put(o, "generation", s.Generation)
		put(o, "version", s.Version)
		var spaces []any
		for _, sc := range s.Cuts {
			var logs []any
			for _, l := range sc.Logs {
				in := object{}
				put(in, "log", l.Log[:])
				put(in, "seq", l.Pos.Seq)
				put(in, "hash", l.Pos.Hash[:])
				logs = append(logs, in)
			}
			in := object{"logs": logs}
			put(in, "space", sc.Space[:])
			spaces = append(spaces, in)
		}
		o["spaces"] = spaces
	case *SpaceStatement:
		put(o, "name", s.Name)
		put(o, "encrypted", s.Encrypted)
	case *NetworkStatement:
		put(o, "name", s.Name)
		put(o, "version", s.Version)
	case *KeysStatement:
		put(o, "space", s.Space[:])
		put(o, "id", s.ID[:])
		put(o, "generation", s.Generation)
		var wraps []any
		for _, w := range s.Wraps {
			in := object{}
			put(in, "recipient", w.Recipient[:])
			put(in, "sealed", w.Sealed)
			wraps = append(wraps, in)
		}
		o["wraps"] = wraps
	}
	return o
}

// vectorAbout says what each statement of fullStatements shows.
var vectorAbout = map[string]string{
	"cert_admin":      "the root makes an admin",
	"cert_member":     "an admin certifies a peer that redeems an invite; every field",
	"cert_small":      "the root certifies a relay of every data space; no optional field",
	"invite":          "every field",
	"invite_small":    "no optional field",
	"revoke":          "a peer in its second generation: two logs of one space end, in another space all end at 0",
	"revoke_invite":   "an invite, by its public key",
	"space":           "a space",
	"space_encrypted": "an encrypted space",
	"network":         "the network's name",
	"keys":            "a content key for two recipients (the sealed bytes are placeholders)",
}

func statementVector(t *testing.T, name string, s Statement) vector {
	op, err := Op(s)
	if err != nil {
		t.Fatal(err)
	}
	v := vector{About: vectorAbout[name], Op: op.Name, Fields: fieldsOf(s), Encoded: hex.EncodeToString(op.Payload)}
	if c, ok := s.(*Certificate); ok {
		for _, k := range []ed25519.PrivateKey{rootKey, adminKey} {
			if keyOf(k) == c.Issuer {
				v.IssuerSeed = hex.EncodeToString(k.Seed())
			}
		}
		v.Body, v.ID = hex.EncodeToString(c.body), c.id.String()
		v.Signed, v.Signature = hex.EncodeToString(certSigned(c.id)), hex.EncodeToString(c.sig)
	}
	return v
}

func vectorFile(name string) string { return filepath.Join("testdata", "vectors", name+".json") }

// golden compares v with its file, or writes it with -update.
func golden(t *testing.T, name string, v vector) {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.MkdirAll(filepath.Dir(vectorFile(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile(name), text, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(vectorFile(name))
	if err != nil {
		t.Fatalf("%v: write it with -update", err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("%s: the format has changed:\n%s", vectorFile(name), text)
	}
}

func readVector(t testing.TB, file string) (v vector) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVectors writes everything again and compares each byte.
func TestVectors(t *testing.T) {
	for name, s := range fullStatements(t) {
		golden(t, name, statementVector(t, name, s))
	}
	leaf, issuer := sign(t, fullCertificate(), adminKey), adminCertificate(t)
	for name, c := range map[string]*Chain{"chain_root": {Leaf: issuer}, "chain_admin": {Leaf: leaf, Issuer: issuer}} {
		f := object{"generation": strconv.FormatUint(c.Leaf.Generation, 10), "leaf": hex.EncodeToString(c.Leaf.Encode())}
		about := "a certificate that the root issued, as an admin shows it"
		if c.Issuer != nil {
			f["issuer"] = hex.EncodeToString(c.Issuer.Encode())
			about = "a certificate that an admin issued, with the admin's"
		}
		golden(t, name, vector{About: about, Fields: f, Encoded: hex.EncodeToString(c.Encode())})
	}

	ticket := fullTicket()
	f := object{"seed": hex.EncodeToString(ticket.Seed[:]), "addrs": ticket.Addrs, "expires": strconv.FormatInt(ticket.Expires, 10)}
	put(f, "network", ticket.Network[:])
	put(f, "issuer", ticket.Issuer[:])
	public := ticket.Public()
	put(f, "invite", public[:])
	golden(t, "ticket", vector{About: "a ticket with two addresses; invite is the public key of its seed", Fields: f, Text: ticketText(t, ticket)})

	joiner, nonce := keyOf(peerKey), [32]byte{1, 31: 2}
	f = object{"network": hex.EncodeToString(testNetwork[:]), "invite": hex.EncodeToString(public[:]), "joiner": hex.EncodeToString(joiner[:]), "nonce": hex.EncodeToString(nonce[:])}
	put(f, "responder", ticket.Issuer[:])
	golden(t, "join", vector{
		About: "the joiner's proof of the ticket", Fields: f,
		Signed:    hex.EncodeToString(JoinBytes(testNetwork, public, joiner, ticket.Issuer, nonce)),
		Signature: hex.EncodeToString(SignJoin(ticket, joiner, nonce)),
	})

	raw, log, err := RootBlock(rootKey, []Statement{issuer, &NetworkStatement{Name: "home", Version: 1}}, replication.HLC(1_700_000_000_000<<16), replication.Epoch{1})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "root_block", vector{
		About:   "the first block of a network: the root makes an admin and names the network",
		Fields:  object{"root_seed": hex.EncodeToString(rootKey.Seed()), "network": testNetwork.String(), "control_space": ControlSpace(testNetwork).String(), "log": log.String()},
		Encoded: hex.EncodeToString(raw),
	})
}

// TestVectorsRead reads the files as another implementation would.
func TestVectorsRead(t *testing.T) {
	files, err := filepath.Glob(vectorFile("*"))
	if err != nil || len(files) != len(vectorAbout)+5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			v := readVector(t, file)
			switch {
			case v.Op != "":
				s, err := Decode(&replication.Op{Kind: replication.KindApp, Name: v.Op, Payload: unhex(t, v.Encoded)})
				if err != nil {
					t.Fatal(err)
				}
				js, err := json.Marshal(statementVector(t, name, s))
				if err != nil {
					t.Fatal(err)
				}
				var got vector
				if err := json.Unmarshal(js, &got); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, v) {
					t.Errorf("got %+v, want %+v", got, v)
				}
			case strings.HasPrefix(name, "chain"):
				c, err := DecodeChain(unhex(t, v.Encoded))
				if err != nil || hex.EncodeToString(c.Leaf.Encode()) != v.Fields.(object)["leaf"] {
					t.Errorf("%+v %v", c, err)
				}
			case name == "ticket":
				k, err := ParseTicket(v.Text)
				if err != nil || hex.EncodeToString(k.Seed[:]) != v.Fields.(object)["seed"] || len(k.Addrs) != 2 {
					t.Errorf("%v %v", k, err)
				}
			case name == "join":
				if !ed25519.Verify(unhex(t, v.Fields.(object)["invite"].(string)), unhex(t, v.Signed), unhex(t, v.Signature)) {
					t.Error("the signature does not verify")
				}
			}
		})
	}
}

// vectorPayloads are the encodings of the vectors of one kind, to seed fuzzing.
func vectorPayloads(t testing.TB, op string) (out [][]byte) {
	files, err := filepath.Glob(vectorFile("*"))
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors", err)
	}
	slices.Sort(files)
	for _, file := range files {
		if v := readVector(t, file); v.Op == op && v.Encoded != "" {
			out = append(out, unhex(t, v.Encoded))
		}
	}
	if len(out) == 0 {
		t.Fatalf("no vectors of %q", op)
	}
	return out
}
