// Package seal makes the body of a routed message readable by its recipient
// alone, whose peer ID is all that the sender needs: no key exchange, no earlier
// meeting, no answer.
//
//	peer ID -> Ed25519 public key -> X25519 public key -> HPKE -> body
//
// # Construction
//
// HPKE (RFC 9180) in base mode, single shot: DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256, ChaCha20-Poly1305. info is "vix/msg/seal/1", a zero byte and the
// network's id; the associated data is the message's encoded header, so that a
// body can be opened only with the header (sender, recipient, id, times) for which
// it was sealed. Body = encapsulated key (32 bytes) || ciphertext || tag (16).
//
// Each body has an ephemeral key of its own and is the only thing ever encrypted
// under what follows from it: a nonce cannot repeat, there is no counter to keep
// across a crash, and two seals of one text have nothing in common.
//
// The text is padded (ISO/IEC 7816-4: a byte 0x80, then zeros) to a multiple of
// [Block] bytes, so that its length tells little.
//
// # One key for signing and for opening
//
// The X25519 key is the identity's Ed25519 key under the birational map of RFC
// 7748, 4.1: u = (1+y)/(1-y); the private key is the clamped first half of
// SHA-512(seed), which is the Ed25519 scalar (RFC 8032, 5.1.5). Use of one key
// pair for both is sound for this pair of schemes: E. Thormarker, "On using the
// same key pair for Ed25519 and an X25519 based KEM" (IACR ePrint 2021/509) proves
// joint security for exactly Ed25519 and DHKEM(X25519), in the line of
// Degabriele, Lehmann, Paterson, Smart and Strefler, "On the joint security of
// encryption and signature in EMV" (CT-RSA 2012). The hashes are separated: the
// signature hashes with SHA-512 over its own domain, the KEM with HKDF-SHA256
// labelled by RFC 9180.
//
// # What it does not give
//
// No forward secrecy towards the recipient: who obtains its identity key can open
// the bodies that it recorded. Base mode authenticates no sender: the signature
// over header and body does (package routing), and since the header with the
// sender's key is associated data, a hop cannot sign a foreign body as its own.
package seal

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha512"
	"errors"
	"fmt"

	"filippo.io/edwards25519"

	"vixp2p/routing"
)

const (
	// Block is the multiple, in bytes, to which texts are padded.
	Block = 128

	encBytes = 32
	tagBytes = 16
	infoText = "vix/msg/seal/1\x00"
)

// ErrOpen: a body was not sealed to this recipient, or not with this header, or was
// altered.
var ErrOpen = errors.New("the body does not open: it was not sealed for this recipient with this header")

// Seal makes the body of a text to the recipient. header is the message's encoded
// header. It fails with routing.ErrMalformed if the text is longer than
// routing.MaxText, and if to is no key that anything can be sealed to.
func Seal(network routing.Network, to routing.PeerKey, header, text []byte) ([]byte, error) {
	if len(text) > routing.MaxText {
		return nil, &routing.MessageError{Kind: routing.ErrMalformed, Reason: fmt.Sprintf("a text of %d bytes, more than %d", len(text), routing.MaxText)}
	}
	pub, err := publicKey(to)
	if err != nil {
		return nil, err
	}
	enc, sender, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info(network))
	if err != nil {
		return nil, badKey(to, err)
	}
	ciphertext, err := sender.Seal(header, pad(text))
	if err != nil {
		return nil, fmt.Errorf("cannot seal a message: %w", err)
	}
	return append(enc, ciphertext...), nil
}

// Open gives the text of a body that was sealed to the identity: ErrOpen if it was
// not.
func Open(network routing.Network, identity ed25519.PrivateKey, header, body []byte) ([]byte, error) {
	if len(body) < encBytes+tagBytes {
		return nil, ErrOpen
	}
	key, err := privateKey(identity)
	if err != nil {
		return nil, err
	}
	recipient, err := hpke.NewRecipient(body[:encBytes], key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info(network))
	if err != nil {
		return nil, ErrOpen
	}
	padded, err := recipient.Open(header, body[encBytes:])
	if err != nil {
		return nil, ErrOpen
	}
	return unpad(padded)
}

func info(network routing.Network) []byte { return append([]byte(infoText), network[:]...) }

// PublicKey is the X25519 key of a member (RFC 7748, 4.1).
func PublicKey(of routing.PeerKey) (*ecdh.PublicKey, error) {
	point, err := new(edwards25519.Point).SetBytes(of[:])
	if err != nil {
		return nil, badKey(of, err)
	}
	return ecdh.X25519().NewPublicKey(point.BytesMontgomery())
}

// PrivateKey is the X25519 key of an identity; X25519 clamps it.
func PrivateKey(identity ed25519.PrivateKey) (*ecdh.PrivateKey, error) {
	half := sha512.Sum512(identity.Seed())
	return ecdh.X25519().NewPrivateKey(half[:32])
}

func publicKey(of routing.PeerKey) (hpke.PublicKey, error) {
	pub, err := PublicKey(of)
	if err != nil {
		return nil, err
	}
	return hpke.NewDHKEMPublicKey(pub)
}

func privateKey(identity ed25519.PrivateKey) (hpke.PrivateKey, error) {
	key, err := PrivateKey(identity)
	if err != nil {
		return nil, err
	}
	return hpke.NewDHKEMPrivateKey(key)
}

func badKey(of routing.PeerKey, cause error) error {
	return fmt.Errorf("nothing can be sealed to the key %s (%w): use the peer ID of a node", of, cause)
}

func pad(text []byte) []byte {
	n := (len(text)/Block + 1) * Block
	out := make([]byte, n)
	out[copy(out, text)] = 0x80
	return out
}

func unpad(b []byte) ([]byte, error) {
	for i := len(b) - 1; i >= 0; i-- {
		switch b[i] {
		case 0:
		case 0x80:
			return b[:i], nil
		default:
			return nil, ErrOpen
		}
	}
	return nil, ErrOpen
}
