package trust

import (
	"crypto/ed25519"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
	"vixp2p/replication/canonical"
)

// MaxChain is the longest encoded chain in bytes.
const MaxChain = replication.MaxGrant

// Chain is a certificate with what proves its issuer: what Hello shows and what a
// genesis block holds as its grant.
type Chain struct {
	Leaf   *Certificate
	Issuer *Certificate // the admin's certificate, issued by the root; nil where the root issued Leaf
}

// Field numbers of a chain (v1). The generation comes first, so that it is known
// without reading on.
const (
	chGeneration protowire.Number = 1 // of the leaf
	chLeaf       protowire.Number = 2
	chIssuer     protowire.Number = 3
)

// Encode is the chain as bytes, at most MaxChain.
func (c *Chain) Encode() []byte {
	b := canonical.AppendVarint(nil, chGeneration, c.Leaf.Generation)
	b = canonical.AppendBytes(b, chLeaf, c.Leaf.Encode())
	if c.Issuer != nil {
		b = canonical.AppendBytes(b, chIssuer, c.Issuer.Encode())
	}
	return b
}

// DecodeChain reads a chain and verifies that each certificate is signed by whom
// it names as its issuer. Verify tells whether the chain leads to a root.
func DecodeChain(b []byte) (*Chain, error) {
	if len(b) > MaxChain {
		return nil, canonical.Invalidf("a certificate chain has %d bytes, more than %d", len(b), MaxChain)
	}
	c := &Chain{}
	var generation uint64
	err := decodeFields("certificate chain", b, 0, canonical.SetOf(chGeneration, chLeaf), func(f canonical.Field) (err error) {
		switch f.Num {
		case chGeneration:
			generation, err = f.Varint()
		case chLeaf:
			c.Leaf, err = certificateIn(f)
		case chIssuer:
			c.Issuer, err = certificateIn(f)
		default:
			err = errUnknownField
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if generation != c.Leaf.Generation {
		return nil, canonical.Invalidf("certificate chain: generation %d where its certificate says %d", generation, c.Leaf.Generation)
	}
	return c, nil
}

func certificateIn(f canonical.Field) (*Certificate, error) {
	b, err := f.Bytes(MaxCertificate)
	if err != nil {
		return nil, err
	}
	return DecodeCertificate(b)
}

// Verify tells whether the chain leads to the root key of a network: the leaf is
// issued by the root, or by an admin whose certificate the root issued. Whether
// somebody was revoked since, only a State can tell.
func (c *Chain) Verify(root ed25519.PublicKey) error {
	network, rootKey := replication.NetworkOfRoot(root), replication.OriginKey(root)
	if c.Leaf.Network != network {
		return refuse(ErrOtherNetwork, "the certificate of %s is for network %s, this one is %s", c.Leaf.Subject, short(c.Leaf.Network), short(network))
	}
	if c.Leaf.Subject == rootKey {
		return refuse(ErrNoCertificate, "the certificate is for the root key itself, which is no member")
	}
	if c.Leaf.IssuerGeneration == 0 {
		if c.Leaf.Issuer != rootKey || c.Issuer != nil {
			return refuse(ErrNoCertificate, "the certificate of %s is not issued by the root key of this network", c.Leaf.Subject)
		}
		return nil
	}
	a := c.Issuer
	switch {
	case a == nil:
		return refuse(ErrNoCertificate, "the certificate of %s comes without that of its issuer %s", c.Leaf.Subject, c.Leaf.Issuer)
	case a.Network != network || a.peer() != c.Leaf.issuer():
		return refuse(ErrNoCertificate, "the second certificate of the chain is not that of the issuer %s", c.Leaf.Issuer)
	case a.Issuer != rootKey || a.IssuerGeneration != 0 || !slices.ContainsFunc(a.Grants, isAdminGrant):
		return refuse(ErrNoCertificate, "the issuer %s of the certificate of %s is no admin of this network", c.Leaf.Issuer, c.Leaf.Subject)
	}
	return nil
}

// GrantGeneration reads the generation at the front of an encoded chain; false
// where there is none. It verifies nothing.
func GrantGeneration(raw []byte) (uint64, bool) {
	r := canonical.NewReader(raw, 0)
	f, ok, err := r.Next()
	if err != nil || !ok || f.Num != chGeneration {
		return 0, false
	}
	v, err := f.Varint()
	return v, err == nil
}
