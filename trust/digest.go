package trust

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"vixp2p/replication"
)

// Digest is a hash of everything that the state's answers depend on: two nodes
// with equal digests decide alike.
func (s *State) Digest() replication.Hash {
	var parts [][]byte
	add := func(kind string, p ...[]byte) { parts = append(append(parts, []byte(kind)), p...) }
	number := func(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

	add("network", s.root[:], []byte(s.name), number(s.nameVersion))
	for _, p := range slices.SortedFunc(maps.Keys(s.certs), comparePeers) {
		for _, c := range s.certs[p] {
			add("certificate", c.Encode())
		}
	}
	for _, revocations := range []map[peerGen]*Revocation{s.byRoot, s.byAnyone} {
		add("revocations")
		for _, p := range slices.SortedFunc(maps.Keys(revocations), comparePeers) {
			add("revocation", revocations[p].Encode())
		}
	}
	for _, in := range s.Invites() {
		add("invite", in.Issuer[:], number(in.IssuerGeneration), in.Invite.Encode())
	}
	for _, sp := range s.Spaces() {
		add("space", []byte(sp.Name), []byte{boolByte(sp.Encrypted)})
	}
	for _, at := range slices.SortedFunc(maps.Keys(s.keys), compareKeyIDs) {
		add("key", at.space[:], number(at.generation), at.id[:])
		for _, w := range slices.SortedFunc(maps.Values(s.keys[at]), compareWraps) {
			add("wrap", w.Recipient[:], w.Sealed)
		}
	}
	return replication.HashParts("vix/trust/1", parts...)
}

func compareKeyIDs(a, b keyID) int {
	return cmp.Or(bytes.Compare(a.space[:], b.space[:]), cmp.Compare(a.generation, b.generation), bytes.Compare(a.id[:], b.id[:]))
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
