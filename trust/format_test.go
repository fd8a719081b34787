package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"reflect"
	"strings"
	"testing"

	"filippo.io/edwards25519"
	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
	"vixp2p/replication/canonical"
	"vixp2p/replication/canonical/canonicaltest"
)

// Short names of package canonicaltest.
var (
	vi, by      = canonicaltest.Varint, canonicaltest.Bytes
	join        = canonicaltest.Join
	wantInvalid = canonicaltest.WantInvalid
)

func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func keyOf(k ed25519.PrivateKey) replication.OriginKey {
	return replication.OriginKey(k.Public().(ed25519.PublicKey))
}

var (
	rootKey, adminKey, peerKey, inviteKeyPair = testKey(1), testKey(2), testKey(3), testKey(4)

	testNetwork = replication.NetworkOfRoot(rootKey.Public().(ed25519.PublicKey))
	testSpace   = replication.SpaceOf(testNetwork, "notes")
)

// fullCertificate has every field.
func fullCertificate() Certificate {
	return Certificate{
		Network: testNetwork, Subject: keyOf(peerKey), Generation: 2, Label: "Ada's laptop",
		Grants: []Grant{{Role: RoleReader}, {Space: testSpace, Role: RoleWriter}},
		X25519: [32]byte{9}, NotBefore: 1_700_000_000, NotAfter: 1_900_000_000, IssuerGeneration: 1,
		Serial: Serial{5}, Invite: keyOf(inviteKeyPair),
	}
}

func adminCertificate(t testing.TB) *Certificate {
	return sign(t, Certificate{Network: testNetwork, Subject: keyOf(adminKey), Generation: 1, Grants: []Grant{{Role: RoleAdmin}}, Serial: Serial{6}}, rootKey)
}

func sign(t testing.TB, c Certificate, key ed25519.PrivateKey) *Certificate {
	t.Helper()
	out, err := c.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCertificateRoundTrip(t *testing.T) {
	want := sign(t, fullCertificate(), adminKey)
	got, err := DecodeCertificate(want.Encode())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v (%v), want %+v", got, err, want)
	}
	if got.ID() != sha256.Sum256(want.body) || !bytes.Equal(got.Encode(), want.Encode()) {
		t.Error("another id or encoding")
	}
	// Signing puts grants in order, each once, and leaves the caller's alone.
	c := fullCertificate()
	c.Grants = []Grant{c.Grants[1], c.Grants[0], c.Grants[1]}
	if got := sign(t, c, adminKey); !reflect.DeepEqual(got.Grants, want.Grants) || got.ID() != want.ID() || c.Grants[0].Space != testSpace {
		t.Errorf("grants %v of %v", got.Grants, c.Grants)
	}
	if (&Certificate{}).Encode() != nil || (&Certificate{}).Verify() == nil {
		t.Error("a certificate that nobody signed")
	}
}

// signBody signs whatever body as a certificate.
func signBody(key ed25519.PrivateKey, body []byte) []byte {
	return join(by(cBody, string(body)), by(cSignature, string(ed25519.Sign(key, certSigned(sha256.Sum256(body))))))
}

// TestCertificateOfALaterVersion: fields from 64 on are signed, kept and skipped.
func TestCertificateOfALaterVersion(t *testing.T) {
	body := join(sign(t, fullCertificate(), adminKey).body, vi(64, 0), by(70, "later"))
	raw := signBody(adminKey, body)
	c, err := DecodeCertificate(raw)
	if err != nil || !bytes.Equal(c.Encode(), raw) || c.Label != "Ada's laptop" {
		t.Fatalf("%+v (%v)", c, err)
	}
	// Outside of the signed body they are dropped: nobody can make two out of one.
	c, err = DecodeCertificate(join(raw, vi(64, 1)))
	if err != nil || !bytes.Equal(c.Encode(), raw) {
		t.Fatalf("%v", err)
	}
}

// TestCertificateRules breaks each rule; all of it is signed all the same.
func TestCertificateRules(t *testing.T) {
	body := func(change func(*Certificate)) []byte {
		c := fullCertificate()
		c.Issuer = keyOf(adminKey)
		change(&c)
		return c.appendBody(nil)
	}
	grant := func(space string, role uint64) string {
		if space == "" {
			return string(vi(gRole, role))
		}
		return string(join(by(gSpace, space), vi(gRole, role)))
	}
	// fields is a whole body by hand, without the field left out.
	fields := func(version uint64, out protowire.Number, grants ...string) []byte {
		list := [][]byte{vi(1, version), by(2, string(testNetwork[:])), by(3, strings.Repeat("s", 32)), vi(4, 1)}
		for _, g := range grants {
			list = append(list, by(6, g))
		}
		issuer := keyOf(adminKey)
		list = append(list, by(10, string(issuer[:])), vi(11, 1), by(12, strings.Repeat("n", 16)))
		var b []byte
		for _, f := range list {
			if num, _, _ := protowire.ConsumeTag(f); num != out {
				b = append(b, f...)
			}
		}
		return b
	}
	writer, reader := grant("", 2), grant("", 3)
	if _, err := DecodeCertificate(signBody(adminKey, fields(1, 0, writer, reader))); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		body []byte
		want string
	}{
		{"no version", fields(1, 1, writer), "field 1 is missing"},
		{"no network", fields(1, 2, writer), "field 2 is missing"},
		{"no subject", fields(1, 3, writer), "field 3 is missing"},
		{"no generation", fields(1, 4, writer), "field 4 is missing"},
		{"no grant", fields(1, 0), "field 6 is missing"},
		{"no issuer", fields(1, 10, writer), "field 10 is missing"},
		{"no serial", fields(1, 12, writer), "field 12 is missing"},
		{"unknown field", join(fields(1, 0, writer), vi(14, 1)), "field 14 is not known"},
		{"empty grant", fields(1, 0, ""), "grant: field 2 is missing"},
		{"grant with a short space", fields(1, 0, grant("x", 2)), "not 16"},
		{"grant with a zero space", fields(1, 0, grant(strings.Repeat("\x00", 16), 2)), "all zero"},
		{"grants out of order", fields(1, 0, reader, writer), "ascending"},
		{"grant twice", fields(1, 0, writer, writer), "ascending"},
		{"role beyond 32 bits", fields(1, 0, grant("", 1<<32)), "more than"},
		{"grant with an unknown field", fields(1, 0, writer+string(vi(3, 1))), "field 3 is not known"},
		{"too many grants", body(func(c *Certificate) { c.Grants = manyGrants(MaxGrants + 1) }), "more than 64 grants"},
		{"admin of a space", body(func(c *Certificate) { c.Grants = []Grant{{Space: testSpace, Role: RoleAdmin}} }), "whole network"},
		{"admin by an admin", body(func(c *Certificate) { c.Grants = []Grant{{Role: RoleAdmin}} }), "only the root"},
		{"label too long", body(func(c *Certificate) { c.Label = strings.Repeat("x", MaxLabel+1) }), "more than 64"},
		{"label not UTF-8", body(func(c *Certificate) { c.Label = "\xff" }), "UTF-8"},
		{"label that moves the cursor", body(func(c *Certificate) { c.Label = "a\x1b[2J" }), "U+001B"},
		{"label that turns the text round", body(func(c *Certificate) { c.Label = "a\u202eb" }), "U+202E"},
		{"zero X25519 key", join(fields(1, 0, writer)[:0], badX25519(fields(1, 0, writer))), "all zero"},
		{"ends before it begins", body(func(c *Certificate) { c.NotAfter = c.NotBefore }), "ends before it begins"},
		{"beyond the year 9999", body(func(c *Certificate) { c.NotAfter = maxTime + 1 }), "more than"},
		{"the root certifies itself", body(func(c *Certificate) { c.Subject, c.IssuerGeneration = c.Issuer, 0 }), "certifies itself"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := DecodeCertificate(signBody(adminKey, tc.body))
			wantInvalid(t, err, tc.want)
		})
	}
	_, err := DecodeCertificate(signBody(adminKey, fields(2, 0, writer)))
	if !errors.Is(err, replication.ErrTooNew) {
		t.Errorf("version 2: %v", err)
	}

	// Sign refuses what nobody would read.
	for name, change := range map[string]func(*Certificate){
		"network":    func(c *Certificate) { c.Network = replication.NetworkID{} },
		"subject":    func(c *Certificate) { c.Subject = replication.OriginKey{} },
		"serial":     func(c *Certificate) { c.Serial = Serial{} },
		"generation": func(c *Certificate) { c.Generation = 0 },
		"grants":     func(c *Certificate) { c.Grants = nil },
		"label":      func(c *Certificate) { c.Label = "\n" },
		"time":       func(c *Certificate) { c.NotBefore = -1 },
		"role":       func(c *Certificate) { c.Grants[0].Role = 0 },
	} {
		c := fullCertificate()
		change(&c)
		if _, err := c.Sign(adminKey); !errors.Is(err, canonical.ErrInvalid) {
			t.Errorf("a certificate without a right %s is signed (%v)", name, err)
		}
	}
}

// badX25519 puts a zero key where field 7 stands: before the issuer.
func badX25519(body []byte) []byte {
	at := bytes.Index(body, canonicaltest.Tag(cIssuer, protowire.BytesType))
	return join(body[:at], by(cX25519, strings.Repeat("\x00", 32)), body[at:])
}

func manyGrants(n int) (out []Grant) {
	for i := range n {
		out = append(out, Grant{Space: replication.SpaceID{1, byte(i)}, Role: maxRole})
	}
	return out
}

func TestCertificateSignature(t *testing.T) {
	c := sign(t, fullCertificate(), adminKey)
	raw := c.Encode()
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if got, err := DecodeCertificate(bad); err == nil {
			t.Fatalf("byte %d changed and accepted: %+v", i, got)
		}
	}
	_, err := DecodeCertificate(signBody(peerKey, c.body))
	if !errors.Is(err, replication.ErrSignature) {
		t.Errorf("signed by another: %v", err)
	}
	short := join(by(cBody, string(c.body)), by(cSignature, "short"))
	_, err = DecodeCertificate(short)
	wantInvalid(t, err, "not 64")
	_, err = DecodeCertificate(join(by(cBody, string(c.body))))
	wantInvalid(t, err, "field 2 is missing")
	_, err = DecodeCertificate(make([]byte, MaxCertificate+1))
	wantInvalid(t, err, "more than 2032")
}

// resign makes another valid signature of the same bytes, as only the holder of
// the key can: with a nonce of its own choice (RFC 8032, 5.1.6).
func resign(t testing.TB, key ed25519.PrivateKey, message []byte) []byte {
	t.Helper()
	h := sha512.Sum512(key.Seed())
	a, err := edwards25519.NewScalar().SetBytesWithClamping(h[:32])
	if err != nil {
		t.Fatal(err)
	}
	nonce := sha512.Sum512(append([]byte("another nonce"), message...))
	r, err := edwards25519.NewScalar().SetUniformBytes(nonce[:])
	if err != nil {
		t.Fatal(err)
	}
	point := new(edwards25519.Point).ScalarBaseMult(r).Bytes()
	kh := sha512.Sum512(join(point, key.Public().(ed25519.PublicKey), message))
	k, err := edwards25519.NewScalar().SetUniformBytes(kh[:])
	if err != nil {
		t.Fatal(err)
	}
	return append(point, k.MultiplyAdd(k, a, r).Bytes()...)
}

// TestSignedTwice: an issuer that signs the same statement in two ways does not
// make two nodes differ.
func TestSignedTwice(t *testing.T) {
	one := sign(t, Certificate{Network: testNetwork, Subject: keyOf(peerKey), Generation: 1, Grants: []Grant{{Role: RoleWriter}}, Serial: Serial{1}}, rootKey)
	two, err := DecodeCertificate(join(by(cBody, string(one.body)), by(cSignature, string(resign(t, rootKey, certSigned(one.id))))))
	if err != nil || bytes.Equal(two.Encode(), one.Encode()) {
		t.Fatal("no second signature", err)
	}
	root := rootKey.Public().(ed25519.PublicKey)
	state := func(list ...Statement) *State {
		return Evaluate(root, []ControlLog{{Origin: keyOf(rootKey), Blocks: []ControlBlock{{End: 1, Statements: list}}}})
	}
	a, b := state(one, two), state(two, one)
	if a.Digest() != b.Digest() || len(a.known) != 1 {
		t.Error("the order of two signatures matters")
	}
}

func TestChainFormat(t *testing.T) {
	leaf, issuer := sign(t, fullCertificate(), adminKey), adminCertificate(t)
	for name, c := range map[string]*Chain{"admin": {Leaf: issuer}, "member": {Leaf: leaf, Issuer: issuer}} {
		raw := c.Encode()
		got, err := DecodeChain(raw)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("%s: %+v (%v)", name, got, err)
		}
		if gen, ok := GrantGeneration(raw); !ok || gen != c.Leaf.Generation {
			t.Errorf("%s: generation %d %v", name, gen, ok)
		}
		if err := got.Verify(rootKey.Public().(ed25519.PublicKey)); err != nil {
			t.Error(err)
		}
	}
	in := string(leaf.Encode())
	for name, tc := range map[string]struct {
		raw  []byte
		want string
	}{
		"another generation": {join(vi(1, 3), by(2, in)), "generation 3 where its certificate says 2"},
		"no generation":      {by(2, in), "field 1 is missing"},
		"no leaf":            {vi(1, 2), "field 2 is missing"},
		"unknown field":      {join(vi(1, 2), by(2, in), vi(4, 1)), "field 4 is not known"},
		"too long":           {join(vi(1, 2), by(2, in), by(64, strings.Repeat("x", MaxChain))), "more than 4096"},
		"no certificate":     {join(vi(1, 2), by(2, "x")), "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeChain(tc.raw)
			wantInvalid(t, err, tc.want)
		})
	}
	for name, raw := range map[string][]byte{"empty": nil, "zero": vi(1, 0), "bytes": by(1, "x"), "another field": vi(2, 1), "long": {8, 0x81, 0}, "cut": {8}} {
		if gen, ok := GrantGeneration(raw); ok {
			t.Errorf("%s: generation %d", name, gen)
		}
	}
}

// TestLargestChainFits: two certificates with everything in them fit a grant.
func TestLargestChainFits(t *testing.T) {
	big := func(c Certificate, key ed25519.PrivateKey) *Certificate {
		c.Grants, c.Label, c.Generation = append(c.Grants, manyGrants(MaxGrants-len(c.Grants))...), strings.Repeat("x", MaxLabel), 1<<64-1
		c.X25519, c.NotBefore, c.NotAfter, c.Invite = [32]byte{1}, maxTime-1, maxTime, replication.OriginKey{1}
		return sign(t, c, key)
	}
	admin := adminCertificate(t)
	issuer := big(*admin, rootKey)
	leaf := fullCertificate()
	leaf.Grants, leaf.IssuerGeneration = nil, issuer.Generation
	c := &Chain{Leaf: big(leaf, adminKey), Issuer: issuer}
	raw := c.Encode()
	if len(raw) > MaxChain || len(c.Leaf.Encode()) > MaxCertificate {
		t.Fatalf("a chain of %d bytes, a certificate of %d", len(raw), len(c.Leaf.Encode()))
	}
	if _, err := DecodeChain(raw); err != nil {
		t.Error(err)
	}
	t.Logf("the largest certificate has %d bytes", len(c.Leaf.Encode()))
}

// TestRolesHaveNames, both ways.
func TestRolesHaveNames(t *testing.T) {
	for _, r := range []Role{RoleAdmin, RoleWriter, RoleReader, RoleRelay} {
		if got, err := ParseRole(r.String()); err != nil || got != r {
			t.Errorf("%s: %v %v", r, got, err)
		}
	}
	if _, err := ParseRole("owner"); err == nil || Role(9).String() != "role 9" {
		t.Error("an unknown role")
	}
}
