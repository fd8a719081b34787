package trust

import (
	"crypto/ed25519"

	"vixp2p/replication"
)

const joinDomain = "vix/join/1"

// JoinBytes is what a joiner signs with the key of its invite: it proves the
// ticket to this responder alone, in this exchange alone, for this joiner alone
// (design 9.5). The nonce is the responder's; joiner and responder are what the
// channel proved.
func JoinBytes(network replication.NetworkID, invite, joiner, responder replication.OriginKey, nonce [32]byte) []byte {
	h := replication.HashParts(joinDomain, network[:], invite[:], joiner[:], responder[:], nonce[:])
	return h[:]
}

// SignJoin is the joiner's proof that it has the ticket.
func SignJoin(t *Ticket, joiner replication.OriginKey, nonce [32]byte) []byte {
	return ed25519.Sign(t.Key(), JoinBytes(t.Network, t.Public(), joiner, t.Issuer, nonce))
}

// VerifyJoin checks a joiner's proof at the responder, by the rule of Go's
// crypto/ed25519 as replication.VerifyBlockSig.
func VerifyJoin(network replication.NetworkID, invite, joiner, responder replication.OriginKey, nonce [32]byte, sig []byte) error {
	if len(sig) != ed25519.SignatureSize || !ed25519.Verify(invite[:], JoinBytes(network, invite, joiner, responder, nonce), sig) {
		return refuse(replication.ErrSignature, "peer %s does not have the key of the ticket that it names", joiner)
	}
	return nil
}
