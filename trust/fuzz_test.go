package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"reflect"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
)

// known cuts off the fields of later versions, which come last.
func known(t *testing.T, in []byte) []byte {
	t.Helper()
	for rest := in; len(rest) > 0; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			t.Fatalf("%x was accepted", in)
		}
		if num >= 64 {
			return in[:len(in)-len(rest)]
		}
		rest = rest[n+protowire.ConsumeFieldValue(num, typ, rest[n:]):]
	}
	return in
}

// FuzzCertificate: a body that is accepted when it is signed keeps the rules, and
// comes back as it was.
func FuzzCertificate(f *testing.F) {
	for _, raw := range vectorPayloads(f, nameCertificate) {
		c, err := DecodeCertificate(raw)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(c.body)
	}
	key := adminKey
	f.Fuzz(func(t *testing.T, in []byte) {
		if c, err := DecodeCertificate(in); err == nil && (c.Verify() != nil || !bytes.Equal(c.Encode(), known(t, in))) {
			t.Fatalf("%x is encoded as %x", in, c.Encode())
		}
		c, err := decodeCertBody(in)
		if err != nil {
			return
		}
		if err := c.check(); err != nil {
			t.Fatal(err)
		}
		if len(c.Grants) > MaxGrants || c.IsAdmin() && c.IssuerGeneration != 0 || c.id != sha256.Sum256(in) {
			t.Fatalf("a certificate that breaks the rules: %+v", c)
		}
		// Signed anew by a key of ours it is a certificate like any other.
		mine := *c
		mine.sig, mine.body = nil, nil
		if keyOf(key) == mine.Subject && mine.IssuerGeneration == 0 {
			return
		}
		signed, err := mine.Sign(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeCertificate(signed.Encode())
		if err != nil || !reflect.DeepEqual(again, signed) {
			t.Fatalf("%+v (%v), want %+v", again, err, signed)
		}
	})
}

// FuzzChain: what is a chain is encoded as what was read, and its generation is
// read alike with and without the rest.
func FuzzChain(f *testing.F) {
	for _, name := range []string{"chain_root", "chain_admin"} {
		f.Add(unhex(f, readVector(f, vectorFile(name)).Encoded))
	}
	root := rootKey.Public().(ed25519.PublicKey)
	f.Fuzz(func(t *testing.T, in []byte) {
		gen, ok := GrantGeneration(in)
		if ok && gen == 0 {
			t.Fatal("generation 0")
		}
		c, err := DecodeChain(in)
		if err != nil {
			return
		}
		if !ok || gen != c.Leaf.Generation {
			t.Fatalf("generation %d %v of %d", gen, ok, c.Leaf.Generation)
		}
		again, err := DecodeChain(c.Encode())
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%+v (%v), want %+v", again, err, c)
		}
		state := Evaluate(root, nil)
		if c.Verify(root) == nil && (state.counts(c) == nil || c.Leaf.Network != testNetwork) {
			t.Fatal("a chain that leads to the root does not count")
		}
	})
}

// fuzzStatement: a payload that is accepted keeps the rules, becomes the same
// operation, and is encoded as what was read, but for fields of later versions.
func fuzzStatement(f *testing.F, name string) {
	for _, raw := range vectorPayloads(f, name) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := Decode(&replication.Op{Kind: replication.KindApp, Name: name, Payload: in})
		if err != nil {
			if s != nil {
				t.Fatal("a statement and an error")
			}
			return
		}
		op, err := Op(s)
		if err != nil {
			t.Fatalf("%x is accepted and cannot be said: %v", in, err)
		}
		again, err := Decode(&op)
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%+v (%v), want %+v", again, err, s)
		}
		if len(op.Payload) > len(in) || !bytes.Equal(again.Encode(), op.Payload) {
			t.Fatalf("%x is encoded as %x", in, op.Payload)
		}
		// Whatever it says, the state takes it.
		Evaluate(rootKey.Public().(ed25519.PublicKey), []ControlLog{{Origin: keyOf(rootKey), Blocks: []ControlBlock{{End: 1, Statements: []Statement{s}}}}}).Digest()
	})
}

func FuzzInvite(f *testing.F)           { fuzzStatement(f, nameInvite) }
func FuzzRevocation(f *testing.F)       { fuzzStatement(f, nameRevocation) }
func FuzzSpaceStatement(f *testing.F)   { fuzzStatement(f, nameSpace) }
func FuzzNetworkStatement(f *testing.F) { fuzzStatement(f, nameNetwork) }
func FuzzKeysStatement(f *testing.F)    { fuzzStatement(f, nameKeys) }

// FuzzTicket: what is accepted is a whole ticket; also with a right sum over
// wrong bytes.
func FuzzTicket(f *testing.F) {
	text := readVector(f, vectorFile("ticket")).Text
	raw, err := ticketEncoding.DecodeString(string(bytes.ToUpper([]byte(text[len(ticketPrefix):]))))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, raw[:len(raw)-ticketSumBytes])
	f.Add("vix2-abc", []byte{})
	f.Fuzz(func(t *testing.T, s string, body []byte) {
		for _, s := range []string{s, ticketPrefix + ticketEncoding.EncodeToString(append(bytes.Clone(body), ticketSum(body)...))} {
			k, err := ParseTicket(s)
			if err != nil {
				continue
			}
			again, err := k.Text()
			if err != nil {
				t.Fatalf("%q is accepted and cannot be written: %v", s, err)
			}
			if back, err := ParseTicket(again); err != nil || !reflect.DeepEqual(back, k) {
				t.Fatalf("%v (%v), want %v", back, err, k)
			}
		}
	})
}
