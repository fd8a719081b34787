package protocols

import (
	"crypto/ed25519"

	p2pv1 "vixp2p/proto/vix/p2p/v1"
	"vixp2p/replication"
)

// JoinBegin is the joiner's first message: it asks for a nonce.
type JoinBegin struct{}

// JoinChallenge is the responder's nonce.
type JoinChallenge struct {
	Nonce [32]byte
}

// JoinRequest redeems an invite.
type JoinRequest struct {
	Network   replication.NetworkID
	Invite    [32]byte // the invite's Ed25519 public key
	Label     string
	X25519    [32]byte // zero: the key that follows from the joiner's identity
	Signature []byte   // 64 bytes, by the invite's key
}

// JoinAccept is what a joiner has gained.
type JoinAccept struct {
	Chain       []byte   // its certificate with its issuer's
	Root        [32]byte // the Ed25519 public key that the network's id follows from
	NetworkName string
}

func (m *JoinRequest) toWire() *p2pv1.JoinRequest {
	return &p2pv1.JoinRequest{
		Network: m.Network[:], Invite: m.Invite[:], Label: m.Label, X25519: optional(m.X25519[:]), Signature: m.Signature,
	}
}

func (d *decoder) joinChallenge() *JoinChallenge {
	var w p2pv1.JoinChallenge
	d.unmarshal(&w)
	m := &JoinChallenge{}
	d.id("nonce", m.Nonce[:], w.GetNonce())
	return m
}

func (d *decoder) joinRequest() *JoinRequest {
	var w p2pv1.JoinRequest
	d.unmarshal(&w)
	m := &JoinRequest{
		Label:     d.text("label", w.GetLabel(), MaxLabelBytes),
		Signature: make([]byte, ed25519.SignatureSize),
	}
	d.id("network", m.Network[:], w.GetNetwork())
	d.id("invite", m.Invite[:], w.GetInvite())
	d.optionalID("x25519", m.X25519[:], w.GetX25519())
	d.id("signature", m.Signature, w.GetSignature())
	return m
}

func (d *decoder) joinAccept() *JoinAccept {
	var w p2pv1.JoinAccept
	d.unmarshal(&w)
	m := &JoinAccept{
		Chain:       d.certificate(w.GetChain()),
		NetworkName: d.text("network_name", w.GetNetworkName(), MaxNetworkNameBytes),
	}
	if len(m.Chain) == 0 {
		d.failf("no certificate")
	}
	d.id("root", m.Root[:], w.GetRoot())
	return m
}
