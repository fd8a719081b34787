// Package keys hands out the content keys of encrypted spaces, and holds those that
// were handed out to this node (design 9.6).
//
//	                    control logs (trust.KeysStatement)
//	admin: Ring.Due ------------------> trust.State.Keys ------> Ring.Update: every node
//	       wraps for all that may read                           unwraps what is its own
//	                                                                   |
//	                              replication.Sealer, replication.Opener
//
// It is pure as package trust is: it reads a trust.State, and what it makes is
// appended by others. Only the randomness of HPKE and of nonces is the system's.
//
// # Wraps
//
// A content key is wrapped for one recipient with HPKE (RFC 9180) in base mode,
// single shot: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. info is
// "vix/key/wrap/1", a zero byte, the network's id and the space's; the associated
// data is the key id and the generation. So a wrap opens only for the key and the
// space for which it was made, and whoever unwraps a key compares it with the id,
// which commits to it: nobody can hand out two keys under one id. Base mode
// authenticates no sender: the signed control log in which the wrap stands does.
//
// The recipient's X25519 key is that of its certificate, or the one that follows
// from its Ed25519 key. Why one key may serve both, and what follows from the lack
// of forward secrecy, is in package routing/seal.
//
// # Who gets keys
//
// All keys of a space, old ones too: who may read it, and the admins. An admin that
// has no role in the space would otherwise be unable to pass keys on; it gains
// nothing that it could not have, since it certifies readers. Relays get none. Who
// is out of the validity of its certificate gets no new wraps until it is renewed,
// and nothing is taken from it.
//
// # New keys
//
// A space gets its first key from the first admin that sees it declared. The newest
// key of a space is replaced once it is known to somebody who may no longer read:
// when a wrap of it is for a key that no member has who may read or is an admin. That
// is a function of the trust state, so that whichever admin is there does it, and the
// rest find it done. Two that do it at one time make two keys, and all use the higher
// one. A new key protects what is written under it: what a former reader could read
// before, it can read for ever, if it gets the blocks.
package keys

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"

	"vixp2p/replication"
	"vixp2p/replication/sealed"
	"vixp2p/routing"
	"vixp2p/routing/seal"
	"vixp2p/trust"
)

const (
	encBytes = 32
	// WrapBytes is the length of a wrapped key: the encapsulated key, the content key
	// and the tag.
	WrapBytes = encBytes + sealed.SecretBytes + 16

	infoText = "vix/key/wrap/1\x00"
)

// Recipient is the X25519 public key for which content keys are wrapped.
type Recipient [32]byte

// ErrUnwrap: a wrap was not made for this node, or not of this key in this space and
// generation, or was altered.
var ErrUnwrap = errors.New("the wrapped content key does not open, or is another one than it says")

// For names what a wrap is made for.
type For struct {
	Network    replication.NetworkID
	Space      replication.SpaceID
	Generation uint64
}

func (f For) info() []byte {
	return append(append([]byte(infoText), f.Network[:]...), f.Space[:]...)
}

func (f For) associated(id sealed.KeyID) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(nil), id[:]...), f.Generation)
}

// Wrap seals a content key for a recipient. It fails if to is no key that anything
// can be sealed to.
func Wrap(key *sealed.Key, f For, to Recipient) ([]byte, error) {
	return wrapAs(key, f, to, key.ID())
}

func wrapAs(key *sealed.Key, f For, to Recipient, id sealed.KeyID) ([]byte, error) {
	x, err := ecdh.X25519().NewPublicKey(to[:])
	if err != nil {
		return nil, badRecipient(to, err)
	}
	public, err := hpke.NewDHKEMPublicKey(x)
	if err != nil {
		return nil, badRecipient(to, err)
	}
	enc, sender, err := hpke.NewSender(public, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), f.info())
	if err != nil {
		return nil, badRecipient(to, err)
	}
	wrapped, err := sender.Seal(f.associated(id), key.Secret())
	if err != nil {
		return nil, fmt.Errorf("wrap a content key: %w", err)
	}
	return append(enc, wrapped...), nil
}

// Usable tells whether a content key can be wrapped for an X25519 key; the zero key
// stands for the one that follows from an identity, which can.
func Usable(to Recipient) bool {
	if to == (Recipient{}) {
		return true
	}
	x, err := ecdh.X25519().NewPublicKey(to[:])
	if err != nil {
		return false
	}
	probe, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{1}, len(to))) // any will do
	if err == nil {
		_, err = probe.ECDH(x) // fails for a point of low order
	}
	return err == nil
}

func badRecipient(to Recipient, cause error) error {
	return fmt.Errorf("no content key can be wrapped for the X25519 key %x: %w", to[:], cause)
}

// identity is a node's key pair as a recipient.
type identity struct {
	public  Recipient
	private hpke.PrivateKey
}

func newIdentity(key ed25519.PrivateKey) (identity, error) {
	x, err := seal.PrivateKey(key)
	if err != nil {
		return identity{}, fmt.Errorf("derive the X25519 key of this node: %w", err)
	}
	private, err := hpke.NewDHKEMPrivateKey(x)
	return identity{Recipient(x.PublicKey().Bytes()), private}, err
}

// Unwrap opens a wrap that was made for the node of a key: ErrUnwrap if it does not
// open, or gives a key with another id.
func Unwrap(node ed25519.PrivateKey, f For, id sealed.KeyID, wrapped []byte) (*sealed.Key, error) {
	own, err := newIdentity(node)
	if err != nil {
		return nil, err
	}
	return own.unwrap(f, id, wrapped)
}

func (own *identity) unwrap(f For, id sealed.KeyID, wrapped []byte) (*sealed.Key, error) {
	if len(wrapped) != WrapBytes {
		return nil, ErrUnwrap
	}
	r, err := hpke.NewRecipient(wrapped[:encBytes], own.private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), f.info())
	if err != nil {
		return nil, ErrUnwrap
	}
	secret, err := r.Open(f.associated(id), wrapped[encBytes:])
	if err != nil {
		return nil, ErrUnwrap
	}
	key, err := sealed.FromSecret(secret)
	if err != nil || key.ID() != id {
		return nil, ErrUnwrap
	}
	return key, nil
}

// RecipientOf is the key for which content keys are wrapped for the subject of a
// certificate. It fails if the certificate names none and the subject's key gives none.
func RecipientOf(c *trust.Certificate) (Recipient, error) {
	if c.X25519 != ([32]byte{}) {
		return c.X25519, nil
	}
	x, err := seal.PublicKey(routing.PeerKey(c.Subject))
	if err != nil {
		return Recipient{}, &SubjectError{Subject: c.Subject, Cause: err}
	}
	return Recipient(x.Bytes()), nil
}

// SubjectError: for the subject of a certificate no content key can be wrapped, because
// its key is no valid Ed25519 key. No node has such an identity.
type SubjectError struct {
	Subject replication.OriginKey
	Cause   error
}

func (e *SubjectError) Error() string {
	return fmt.Sprintf("no content key can be wrapped for the member %x: %v", e.Subject[:4], e.Cause)
}
func (e *SubjectError) Unwrap() error { return e.Cause }
