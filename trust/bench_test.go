package trust

import (
	"crypto/ed25519"
	"encoding/binary"
	"testing"

	"vixp2p/replication"
)

// BenchmarkEvaluate: 10,000 members that one admin certified, statements decoded.
func BenchmarkEvaluate(b *testing.B) {
	const members = 10_000
	admin := adminCertificate(b)
	logs := []ControlLog{
		{Origin: keyOf(rootKey), Blocks: []ControlBlock{{End: 1, Statements: []Statement{admin}}}},
		{Origin: keyOf(adminKey), Grant: (&Chain{Leaf: admin}).Encode()},
	}
	for i := range members {
		c := Certificate{Network: testNetwork, Generation: 1, IssuerGeneration: 1, Grants: []Grant{{Role: RoleWriter}}, Serial: Serial{1}}
		binary.BigEndian.PutUint64(c.Subject[:], uint64(i)+1)
		logs[1].Blocks = append(logs[1].Blocks, ControlBlock{End: uint64(i) + 1, Statements: []Statement{sign(b, c, adminKey)}})
	}
	root := rootKey.Public().(ed25519.PublicKey)
	b.ReportAllocs()
	for b.Loop() {
		if s := Evaluate(root, logs); len(s.generations) != members+1 {
			b.Fatal("members are missing")
		}
	}
}

// BenchmarkLogLimit: of a member that the control logs name, and of one that only
// its grant does, which costs two signatures.
func BenchmarkLogLimit(b *testing.B) {
	admin := adminCertificate(b)
	leaf := sign(b, fullCertificate(), adminKey)
	g := &replication.Genesis{Network: testNetwork, Space: testSpace, Origin: keyOf(peerKey), Grant: (&Chain{Leaf: leaf, Issuer: admin}).Encode()}
	root := rootKey.Public().(ed25519.PublicKey)
	for name, said := range map[string][]Statement{"known": {leaf}, "by its grant": nil} {
		s := Evaluate(root, []ControlLog{
			{Origin: keyOf(rootKey), Blocks: []ControlBlock{{End: 1, Statements: []Statement{admin}}}},
			{Origin: keyOf(adminKey), Grant: (&Chain{Leaf: admin}).Encode(), Blocks: []ControlBlock{{End: 1, Statements: said}}},
		})
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !s.LogLimit(g).Allowed {
					b.Fatal("not allowed")
				}
			}
		})
	}
}
