package trust_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"vixp2p/replication"
	"vixp2p/trust"
)

// story is a small network that a test tells step by step: a root, the admins Ada
// and Bob, and others.
type story struct {
	*world
	t              *testing.T
	ada, bob, carl *actor
	adaIs, bobIs   *trust.Certificate
	// rootLog, adaLog and bobLog are indexes of logs.
	rootLog, adaLog, bobLog int
}

func newStory(t *testing.T) *story {
	s := &story{world: newWorld(rand.New(rand.NewPCG(1, 2)), 3), t: t}
	s.ada, s.bob, s.carl = s.people[0], s.people[1], s.people[2]
	s.rootLog = s.log(s.root, nil)
	s.adaIs = s.cert(s.root, 0, s.ada, 1, trust.Grant{Role: trust.RoleAdmin})
	s.bobIs = s.cert(s.root, 0, s.bob, 1, trust.Grant{Role: trust.RoleAdmin})
	s.adaLog = s.log(s.ada, (&trust.Chain{Leaf: s.adaIs}).Encode())
	s.bobLog = s.log(s.bob, (&trust.Chain{Leaf: s.bobIs}).Encode())
	s.say(s.rootLog, s.adaIs, s.bobIs)
	return s
}

func (s *story) log(who *actor, grant []byte) int {
	epoch := replication.Epoch{15: byte(len(s.logs))}
	s.logs = append(s.logs, trust.ControlLog{Log: replication.LogOf(s.network, s.control, who.id, epoch), Origin: who.id, Grant: grant})
	return len(s.logs) - 1
}

// say adds a block of one operation per statement and returns its end.
func (s *story) say(log int, statements ...trust.Statement) uint64 {
	l := &s.logs[log]
	end := uint64(len(statements))
	if n := len(l.Blocks); n > 0 {
		end += l.Blocks[n-1].End
	}
	l.Blocks = append(l.Blocks, trust.ControlBlock{End: end, Statements: statements})
	return end
}

func (s *story) cert(issuer *actor, issuerGen uint64, subject *actor, gen uint64, grants ...trust.Grant) *trust.Certificate {
	return s.certUntil(0, issuer, issuerGen, subject, gen, grants...)
}

func (s *story) certUntil(end int64, issuer *actor, issuerGen uint64, subject *actor, gen uint64, grants ...trust.Grant) *trust.Certificate {
	s.t.Helper()
	c, err := trust.Certificate{
		Network: s.network, Subject: subject.id, Generation: gen, Grants: grants, Label: subject.name,
		IssuerGeneration: issuerGen, NotAfter: end, Serial: s.serial(),
	}.Sign(issuer.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// byAda is the chain of a certificate that Ada issued.
func (s *story) byAda(c *trust.Certificate) *trust.Chain {
	return &trust.Chain{Leaf: c, Issuer: s.adaIs}
}

func (s *story) state() *trust.State { return s.evaluate(s.logs) }

func writer() trust.Grant { return trust.Grant{Role: trust.RoleWriter} }

// revoke is a revocation with one cut in each of some spaces; seq 0: the space is
// listed and no log.
func (s *story) revoke(who *actor, gen, version uint64, cuts map[replication.SpaceID]uint64, logs map[replication.SpaceID]replication.LogID) *trust.Revocation {
	var spaces []replication.SpaceID
	var held []trust.Held
	for space, seq := range cuts {
		spaces = append(spaces, space)
		held = append(held, trust.Held{Space: space, Log: logs[space], Pos: replication.Position{Seq: seq, Hash: replication.Hash{1}}})
	}
	r, _ := trust.Revoke(who.id, gen, version, spaces, held)
	return r
}

func (s *story) genesis(who *actor, space replication.SpaceID, grant []byte) *replication.Genesis {
	return &replication.Genesis{Network: s.network, Space: space, Origin: who.id, Epoch: replication.Epoch{1}, Grant: grant}
}

func wantKind(t *testing.T, err, want error, parts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q does not say %q", err, p)
		}
	}
}

func wantCut(t *testing.T, l replication.LogLimit, seq uint64) {
	t.Helper()
	if !l.Allowed || l.Cut == nil || l.Cut.Seq != seq || !errors.Is(l.Err, trust.ErrRevoked) {
		t.Fatalf("limit %+v, want a cut at %d", l, seq)
	}
}

func wantAll(t *testing.T, l replication.LogLimit) {
	t.Helper()
	if !l.Allowed || l.Cut != nil || l.Err != nil {
		t.Fatalf("limit %+v, want all", l)
	}
}
