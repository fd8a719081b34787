package trust

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
	"vixp2p/replication/canonical"
)

const (
	// MaxLabel is the longest label in bytes.
	MaxLabel = 64
	// MaxCertificate is the longest encoded certificate in bytes, so that two of
	// them fit a chain.
	MaxCertificate = 2032
)

// Serial is 16 random bytes that tell two certificates apart.
type Serial [16]byte

// Certificate says what a peer may do (design 9.2). Its body is signed apart from
// where it stands, so that it can be shown alone: in Hello, in a genesis block,
// in a file.
//
// A certificate comes from Sign or DecodeCertificate, so that its signature is
// its issuer's; changing a field of it afterwards changes nothing that is encoded.
type Certificate struct {
	Network    replication.NetworkID
	Subject    replication.OriginKey // the peer's Ed25519 key
	Generation uint64                // 1 or more; a higher one is a re-admission
	Label      string                // for people; at most MaxLabel bytes
	Grants     []Grant               // 1 to MaxGrants, ascending by space and role
	// X25519 is the key to which secrets for the peer are sealed; zero: the one
	// derived from Subject.
	X25519 [32]byte
	// NotBefore and NotAfter bound its validity, in Unix seconds; 0: no bound. It
	// is valid from NotBefore until before NotAfter, and this matters to sessions
	// alone (design 9.3).
	NotBefore, NotAfter int64
	// Issuer is the root or an admin; IssuerGeneration the admin's generation, 0
	// of the root.
	Issuer           replication.OriginKey
	IssuerGeneration uint64
	Serial           Serial
	// Invite is the public key of the invite that it redeems, or zero.
	Invite replication.OriginKey

	body []byte // as signed
	sig  []byte
	id   replication.Hash // SHA-256 of body
}

// Field numbers of a certificate (v1): 1 body, 2 signature; and of the body.
const (
	cBody      protowire.Number = 1
	cSignature protowire.Number = 2

	cVersion    protowire.Number = 1
	cNetwork    protowire.Number = 2
	cSubject    protowire.Number = 3
	cGeneration protowire.Number = 4
	cLabel      protowire.Number = 5
	cGrant      protowire.Number = 6
	cX25519     protowire.Number = 7
	cNotBefore  protowire.Number = 8
	cNotAfter   protowire.Number = 9
	cIssuer     protowire.Number = 10
	cIssuerGen  protowire.Number = 11
	cSerial     protowire.Number = 12
	cInvite     protowire.Number = 13

	certificateVersion = 1
	certSignDomain     = "vix/cert/1\x00"
)

// Sign makes the certificate that these fields describe: it puts the grants in
// order, sets the issuer to the key's and signs. IssuerGeneration must be set: 0
// for the root key, else the admin's.
func (c Certificate) Sign(issuer ed25519.PrivateKey) (*Certificate, error) {
	c.Issuer = replication.OriginKey(issuer.Public().(ed25519.PublicKey))
	c.Grants = normalGrants(c.Grants)
	if err := c.check(); err != nil {
		return nil, err
	}
	c.body = c.appendBody(nil)
	c.id = sha256.Sum256(c.body)
	c.sig = ed25519.Sign(issuer, certSigned(c.id))
	return &c, nil
}

// certSigned is what the signature of a certificate covers.
func certSigned(id replication.Hash) []byte { return append([]byte(certSignDomain), id[:]...) }

func (c *Certificate) appendBody(b []byte) []byte {
	b = canonical.AppendVarint(b, cVersion, certificateVersion)
	b = appendID(b, cNetwork, c.Network[:])
	b = appendID(b, cSubject, c.Subject[:])
	b = canonical.AppendVarint(b, cGeneration, c.Generation)
	b = canonical.AppendBytes(b, cLabel, []byte(c.Label))
	b = appendGrants(b, cGrant, c.Grants)
	b = appendID(b, cX25519, c.X25519[:])
	b = canonical.AppendVarint(b, cNotBefore, uint64(c.NotBefore))
	b = canonical.AppendVarint(b, cNotAfter, uint64(c.NotAfter))
	b = appendID(b, cIssuer, c.Issuer[:])
	b = canonical.AppendVarint(b, cIssuerGen, c.IssuerGeneration)
	b = appendID(b, cSerial, c.Serial[:])
	return appendID(b, cInvite, c.Invite[:])
}

// Encode is the signed certificate as bytes; nil of one that is not signed.
func (c *Certificate) Encode() []byte {
	if c.sig == nil {
		return nil
	}
	b := canonical.AppendBytes(nil, cBody, c.body)
	return canonical.AppendBytes(b, cSignature, c.sig)
}

// ID is the hash of what was signed: two certificates with one ID say the same.
func (c *Certificate) ID() replication.Hash { return c.id }

// DecodeCertificate reads a certificate and verifies its issuer's signature. It
// does not tell whether the issuer may issue: see Chain.Verify and State.
func DecodeCertificate(b []byte) (*Certificate, error) {
	if len(b) > MaxCertificate {
		return nil, canonical.Invalidf("a certificate has %d bytes, more than %d", len(b), MaxCertificate)
	}
	var body, sig []byte
	err := decodeFields("certificate", b, 0, canonical.SetOf(cBody, cSignature), func(f canonical.Field) (err error) {
		switch f.Num {
		case cBody:
			body, err = f.Bytes(MaxCertificate)
		case cSignature:
			sig = make([]byte, ed25519.SignatureSize)
			err = f.Fixed(sig)
		default:
			err = errUnknownField
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	c, err := decodeCertBody(bytes.Clone(body))
	if err != nil {
		return nil, err
	}
	c.sig = sig
	return c, c.Verify()
}

// Verify checks the signature; a certificate that Sign or DecodeCertificate made
// has a right one.
func (c *Certificate) Verify() error {
	if len(c.sig) != ed25519.SignatureSize || !ed25519.Verify(c.Issuer[:], certSigned(c.id), c.sig) {
		return refuse(replication.ErrSignature, "the signature of the certificate for %s is not that of its issuer %s: ask for a new one", c.Subject, c.Issuer)
	}
	return nil
}

var mustCertFields = canonical.SetOf(cVersion, cNetwork, cSubject, cGeneration, cGrant, cIssuer, cSerial)

func decodeCertBody(body []byte) (*Certificate, error) {
	c := &Certificate{body: body, id: sha256.Sum256(body)}
	err := decodeFields("certificate", body, canonical.SetOf(cGrant), mustCertFields, c.decodeField)
	if err != nil {
		return nil, err
	}
	return c, c.check()
}

func (c *Certificate) decodeField(f canonical.Field) (err error) {
	switch f.Num {
	case cVersion:
		var v uint64
		if v, err = f.Varint(); err == nil && v != certificateVersion {
			err = &replication.VersionError{What: "certificate", Got: v, Want: certificateVersion}
		}
	case cNetwork:
		err = fixedID(f, c.Network[:])
	case cSubject:
		err = fixedID(f, c.Subject[:])
	case cGeneration:
		c.Generation, err = f.Varint()
	case cLabel:
		c.Label, err = text(f, MaxLabel)
	case cGrant:
		c.Grants, err = decodeGrant(c.Grants, f)
	case cX25519:
		err = fixedID(f, c.X25519[:])
	case cNotBefore:
		c.NotBefore, err = seconds(f)
	case cNotAfter:
		c.NotAfter, err = seconds(f)
	case cIssuer:
		err = fixedID(f, c.Issuer[:])
	case cIssuerGen:
		c.IssuerGeneration, err = f.Varint()
	case cSerial:
		err = fixedID(f, c.Serial[:])
	case cInvite:
		err = fixedID(f, c.Invite[:])
	default:
		err = errUnknownField
	}
	return err
}

// check holds the rules that concern more than one field, and for Sign those
// that the encoding cannot break.
func (c *Certificate) check() error {
	if isZero(c.Network[:]) || isZero(c.Subject[:]) || isZero(c.Serial[:]) || c.Generation == 0 {
		return canonical.Invalidf("a certificate needs a network, a subject, a generation and a serial")
	}
	if c.Subject == c.Issuer && c.IssuerGeneration == 0 {
		return canonical.Invalidf("the root key certifies itself: it is no member, give the node a key of its own")
	}
	if err := checkText("label", c.Label, MaxLabel); err != nil {
		return err
	}
	if err := checkGrants(c.Grants); err != nil {
		return err
	}
	if c.IsAdmin() && c.IssuerGeneration != 0 {
		return canonical.Invalidf("an admin makes another an admin: only the root key can")
	}
	if err := cmp.Or(checkSeconds("begin of validity", c.NotBefore), checkSeconds("end of validity", c.NotAfter)); err != nil {
		return err
	}
	if c.NotAfter != 0 && c.NotAfter <= c.NotBefore {
		return canonical.Invalidf("the certificate's validity ends before it begins")
	}
	return nil
}

// IsAdmin tells whether it makes its subject an admin.
func (c *Certificate) IsAdmin() bool { return slices.ContainsFunc(c.Grants, isAdminGrant) }

// ValidAt tells whether it can be shown at a time; ErrExpired else.
func (c *Certificate) ValidAt(now time.Time) error {
	switch at := now.Unix(); {
	case at < c.NotBefore:
		return refuse(ErrExpired, "the certificate of %s is valid from %s only: check the clocks", c.Subject, showTime(c.NotBefore))
	case c.NotAfter != 0 && at >= c.NotAfter:
		return refuse(ErrExpired, "the certificate of %s was valid until %s: ask an admin to renew it", c.Subject, showTime(c.NotAfter))
	}
	return nil
}

func showTime(sec int64) string { return time.Unix(sec, 0).UTC().Format(time.RFC3339) }

// peer is whom it certifies.
func (c *Certificate) peer() peerGen { return peerGen{c.Subject, c.Generation} }

// issuer is who signed it.
func (c *Certificate) issuer() peerGen { return peerGen{c.Issuer, c.IssuerGeneration} }

// compareShown orders certificates of one peer by which is to be shown rather:
// the higher generation, the later end of validity, the higher serial.
func compareShown(a, b *Certificate) int {
	return cmp.Or(
		cmp.Compare(a.Generation, b.Generation),
		cmp.Compare(uint64(a.NotAfter)-1, uint64(b.NotAfter)-1), // 0 is no end at all
		bytes.Compare(a.Serial[:], b.Serial[:]),
		bytes.Compare(a.id[:], b.id[:]),
	)
}
