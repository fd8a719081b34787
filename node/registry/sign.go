package registry

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Sign fills in PeerID, and NodeID if it is empty, and signs the announcement.
// Errors: ErrInvalid.
func (a *Announcement) Sign(key ed25519.PrivateKey) error {
	id, err := idOf(key)
	if err != nil {
		return err
	}
	a.PeerID = id.String()
	if a.NodeID == "" {
		a.NodeID = a.PeerID
	}
	if err := a.Check(); err != nil {
		return err
	}
	a.Sig = ed25519.Sign(key, a.SignedBytes())
	return nil
}

// Verify checks the signature of an announcement that names a peer ID; one that
// names none proves nothing, and has nothing to verify. It does not look at the
// age. Errors: ErrUnsigned, ErrBadSignature, ErrInvalid.
func (a *Announcement) Verify() error {
	switch {
	case a.PeerID == "":
		return nil
	case len(a.Sig) == 0:
		return ErrUnsigned
	}
	id, err := peer.Decode(a.PeerID)
	if err != nil {
		return invalidf("peer_id: %v", err)
	}
	key, err := publicKey(id)
	if err != nil {
		return invalidf("peer_id: %v", err)
	}
	if !ed25519.Verify(key, a.SignedBytes(), a.Sig) {
		return ErrBadSignature
	}
	return nil
}

// Fit removes addresses from the end until the signed announcement has at most
// MaxAnnouncement bytes, and tells how many. Call it before Sign.
func (a *Announcement) Fit() (removed int) {
	probe := *a
	if len(probe.Sig) == 0 {
		probe.Sig = make([]byte, ed25519.SignatureSize)
	}
	for len(a.Addrs) > 0 {
		if _, err := probe.encode(); err == nil && len(a.Addrs) <= maxAddrs {
			break
		}
		a.Addrs = a.Addrs[:len(a.Addrs)-1]
		probe.Addrs = a.Addrs
		removed++
	}
	return removed
}

// idOf is the peer ID of a key.
func idOf(key ed25519.PrivateKey) (peer.ID, error) {
	if len(key) != ed25519.PrivateKeySize {
		return "", errors.New("the identity is not an Ed25519 key")
	}
	pub, err := crypto.UnmarshalEd25519PublicKey(key.Public().(ed25519.PublicKey))
	if err != nil {
		return "", fmt.Errorf("the identity cannot sign: %w", err)
	}
	return peer.IDFromPublicKey(pub)
}

// publicKey is the Ed25519 key that a peer ID holds: the only kind of identity
// there is (design 4.1).
func publicKey(id peer.ID) (ed25519.PublicKey, error) {
	key, err := id.ExtractPublicKey()
	if err != nil || key.Type() != crypto.Ed25519 {
		return nil, errors.New("it is not the ID of an Ed25519 key")
	}
	raw, err := key.Raw()
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, errors.New("it is not the ID of an Ed25519 key")
	}
	return raw, nil
}

// asPeer reads text as the ID of an Ed25519 key, if it is one.
func asPeer(s string) (peer.ID, bool) {
	id, err := peer.Decode(s)
	if err != nil {
		return "", false
	}
	_, err = publicKey(id)
	return id, err == nil
}
