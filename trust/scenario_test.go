package trust_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

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

func wantCut(t *testing.T, l trust.Limit, seq uint64) {
	t.Helper()
	if !l.Allowed || l.Cut == nil || l.Cut.Seq != seq || !errors.Is(l.Err, trust.ErrRevoked) {
		t.Fatalf("limit %+v, want a cut at %d", l, seq)
	}
}

func wantAll(t *testing.T, l trust.Limit) {
	t.Helper()
	if !l.Allowed || l.Cut != nil || l.Err != nil {
		t.Fatalf("limit %+v, want all", l)
	}
}

// TestCertificateBeforeItsLog: what Hello or a genesis block shows counts before
// the issuer's control log has arrived, and gives no more than it says.
func TestCertificateBeforeItsLog(t *testing.T) {
	s := newStory(t)
	chain := s.byAda(s.cert(s.ada, 1, s.carl, 1, trust.Grant{Space: s.notes, Role: trust.RoleWriter}))
	for _, logs := range [][]trust.ControlLog{nil, s.logs} { // not even the root's log
		st := s.evaluate(logs)
		shown, err := st.CheckPeer(chain.Encode(), s.carl.id, now)
		if err != nil {
			t.Fatal(err)
		}
		if !st.MayCarry(s.carl.id, s.notes, now, shown) || !st.MayRead(s.carl.id, s.control, now, shown) {
			t.Error("a member with a certificate may not read")
		}
		if st.MayCarry(s.carl.id, s.standard, now, shown) || st.MayCarry(s.carl.id, s.notes, now, nil) || st.MayCarry(s.bob.id, s.notes, now, shown) {
			t.Error("a certificate gives more than it says")
		}
		wantAll(t, st.LogLimit(s.genesis(s.carl, s.notes, chain.Encode())))
		wantKind(t, st.LogLimit(s.genesis(s.carl, s.standard, chain.Encode())).Err, replication.ErrNotAllowed, "no writer of space default")
		wantKind(t, st.LogLimit(s.genesis(s.bob, s.notes, chain.Encode())).Err, replication.ErrNotAllowed)
		if len(st.Members()) != 2*min(1, len(logs)) {
			t.Error("who only showed a certificate is listed")
		}
	}
}

// TestRoles: a writer writes and reads, a reader reads, a relay carries; an admin
// has none of it, and alone writes the control space.
func TestRoles(t *testing.T) {
	s := newStory(t)
	for _, tc := range []struct {
		role               trust.Role
		write, read, carry bool
	}{
		{trust.RoleWriter, true, true, true},
		{trust.RoleReader, false, true, true},
		{trust.RoleRelay, false, false, true},
		{trust.RoleAdmin, false, false, false},
		{99, false, false, false},
	} {
		c := s.cert(s.root, 0, s.carl, 1, trust.Grant{Role: tc.role})
		chain := &trust.Chain{Leaf: c}
		st := s.evaluate(append(slices.Clone(s.logs), trust.ControlLog{Origin: s.root.id, Blocks: []trust.ControlBlock{{End: 1, Statements: []trust.Statement{c}}}}))
		for _, space := range []replication.SpaceID{s.standard, s.notes} {
			if w := st.MayWrite(s.carl.id, space, chain.Encode()) == nil; w != tc.write {
				t.Errorf("%s writes: %v", tc.role, w)
			}
			if r := st.MayRead(s.carl.id, space, now, nil); r != tc.read {
				t.Errorf("%s reads: %v", tc.role, r)
			}
			if r := st.MayCarry(s.carl.id, space, now, nil); r != tc.carry {
				t.Errorf("%s carries: %v", tc.role, r)
			}
		}
		if w := st.MayWrite(s.carl.id, s.control, chain.Encode()) == nil; w != (tc.role == trust.RoleAdmin) {
			t.Errorf("%s writes the control space: %v", tc.role, w)
		}
		if !st.MayCarry(s.carl.id, s.control, now, nil) {
			t.Errorf("%s does not get the control space", tc.role)
		}
	}
}

// TestRootWritesControlAlone: the root key has no certificate and is no peer.
func TestRootWritesControlAlone(t *testing.T) {
	s := newStory(t)
	wantAll(t, s.state().LogLimit(s.genesis(s.root, s.control, nil)))
	wantKind(t, s.state().LogLimit(s.genesis(s.root, s.standard, nil)).Err, replication.ErrNotAllowed)
	g := s.genesis(s.root, s.control, nil)
	g.Network = replication.OpenNetwork("dev")
	wantKind(t, s.state().LogLimit(g).Err, trust.ErrOtherNetwork)
}

// TestAdminRevokedWithWhatItIssued: what Ada's control log had said before the cut
// goes on to count, what came later is void, whoever shows it.
func TestAdminRevokedWithWhatItIssued(t *testing.T) {
	s := newStory(t)
	before, after := newActor("before"), newActor("after")
	kept := s.cert(s.ada, 1, before, 1, writer())
	cut := s.say(s.adaLog, kept)
	lost := s.cert(s.ada, 1, after, 1, writer())
	s.say(s.adaLog, lost, &trust.Revocation{Subject: s.carl.id, Generation: 1, Version: 1}, &trust.SpaceStatement{Name: "evil"})
	carl := s.cert(s.bob, 1, s.carl, 1, writer())
	s.say(s.bobLog, carl)

	st := s.state()
	for _, c := range []*trust.Certificate{kept, lost} {
		if err := st.MayWrite(c.Subject, s.notes, s.byAda(c).Encode()); err != nil {
			t.Fatal(err)
		}
	}
	if !st.Revoked(s.carl.id) || len(st.Spaces()) != 1 {
		t.Fatal("Ada was not heard")
	}

	s.say(s.rootLog, s.revoke(s.ada, 1, 1, map[replication.SpaceID]uint64{s.control: cut}, map[replication.SpaceID]replication.LogID{s.control: s.logs[s.adaLog].Log}))
	st = s.state()
	wantCut(t, st.LogLimit(s.genesisOf(&s.logs[s.adaLog])), cut)
	if err := st.MayWrite(before.id, s.notes, s.byAda(kept).Encode()); err != nil {
		t.Errorf("what Ada had said before: %v", err)
	}
	if _, err := st.CheckPeer(s.byAda(kept).Encode(), before.id, now); err != nil {
		t.Errorf("what Ada had said before: %v", err)
	}
	wantKind(t, st.MayWrite(after.id, s.notes, s.byAda(lost).Encode()), replication.ErrNotAllowed)
	_, err := st.CheckPeer(s.byAda(lost).Encode(), after.id, now)
	wantKind(t, err, trust.ErrRevoked, "issued by", "ask an admin")
	_, err = st.CheckPeer((&trust.Chain{Leaf: s.adaIs}).Encode(), s.ada.id, now)
	wantKind(t, err, trust.ErrRevoked, "generation 1")
	if st.Revoked(s.carl.id) || len(st.Spaces()) != 0 || !st.Revoked(s.ada.id) {
		t.Error("what Ada said after the cut counts")
	}
	wantKind(t, st.MayWrite(s.ada.id, s.control, s.logs[s.adaLog].Grant), trust.ErrRevoked)

	// A later version may give back what the first one took.
	s.say(s.rootLog, s.revoke(s.ada, 1, 2, map[replication.SpaceID]uint64{s.control: cut + 3}, map[replication.SpaceID]replication.LogID{s.control: s.logs[s.adaLog].Log}))
	if err := s.state().MayWrite(after.id, s.notes, s.byAda(lost).Encode()); err != nil {
		t.Errorf("after the second cut: %v", err)
	}
}

// TestRevokedAdminWithoutControlCuts: a revocation that forgets the control space
// leaves an admin no word, or it could go on to certify through others.
func TestRevokedAdminWithoutControlCuts(t *testing.T) {
	s := newStory(t)
	carl := s.cert(s.ada, 1, s.carl, 1, writer())
	s.say(s.adaLog, carl)
	s.say(s.rootLog, &trust.Revocation{Subject: s.ada.id, Generation: 1, Version: 1})
	st := s.state()
	wantCut(t, st.LogLimit(s.genesisOf(&s.logs[s.adaLog])), 0)
	if _, ok := st.Member(s.carl.id); ok {
		t.Error("a revoked admin goes on to certify")
	}
}

// TestCutsInDataSpaces: of a revoked writer counts what the cuts name, and in a
// space that nobody cut everything.
func TestCutsInDataSpaces(t *testing.T) {
	s := newStory(t)
	carl := s.cert(s.ada, 1, s.carl, 1, writer())
	s.say(s.adaLog, carl)
	grant := s.byAda(carl).Encode()
	first := s.genesis(s.carl, s.notes, grant)
	second := s.genesis(s.carl, s.notes, grant)
	second.Epoch[0]++
	s.say(s.bobLog, s.revoke(s.carl, 1, 1, map[replication.SpaceID]uint64{s.notes: 7}, map[replication.SpaceID]replication.LogID{s.notes: first.LogID()}))
	st := s.state()
	wantCut(t, st.LogLimit(first), 7)
	wantCut(t, st.LogLimit(second), 0)
	wantAll(t, st.LogLimit(s.genesis(s.carl, s.standard, grant)))
	wantKind(t, st.MayWrite(s.carl.id, s.standard, grant), trust.ErrRevoked)
	if st.MayCarry(s.carl.id, s.standard, now, s.byAda(carl)) || !st.Revoked(s.carl.id) {
		t.Error("a revoked peer gets data")
	}
}

// TestConcurrentRevocations: two admins that revoke at once agree on the lower of
// their cuts.
func TestConcurrentRevocations(t *testing.T) {
	s := newStory(t)
	carl := s.cert(s.ada, 1, s.carl, 1, writer())
	s.say(s.adaLog, carl)
	grant := s.byAda(carl).Encode()
	log := s.genesis(s.carl, s.notes, grant)
	logs := map[replication.SpaceID]replication.LogID{s.notes: log.LogID(), s.standard: s.genesis(s.carl, s.standard, grant).LogID()}
	s.say(s.adaLog, s.revoke(s.carl, 1, 1, map[replication.SpaceID]uint64{s.notes: 7}, logs))
	s.say(s.bobLog, s.revoke(s.carl, 1, 1, map[replication.SpaceID]uint64{s.notes: 5, s.standard: 2}, logs))
	st := s.state()
	wantCut(t, st.LogLimit(log), 5)
	wantCut(t, st.LogLimit(s.genesis(s.carl, s.standard, grant)), 2)
	if v := st.NextVersion(s.carl.id, 1); v != 2 {
		t.Errorf("next version %d", v)
	}
	s.say(s.adaLog, s.revoke(s.carl, 1, 2, map[replication.SpaceID]uint64{s.notes: 9}, logs))
	st = s.state()
	wantCut(t, st.LogLimit(log), 9)
	wantAll(t, st.LogLimit(s.genesis(s.carl, s.standard, grant)))
}

// TestAdminsDoNotRevokeAdmins: nor the root; also not where the admin is known by
// what it shows alone.
func TestAdminsDoNotRevokeAdmins(t *testing.T) {
	s := newStory(t)
	s.say(s.bobLog,
		&trust.Revocation{Subject: s.ada.id, Generation: 1, Version: 9, Cuts: []trust.SpaceCut{{Space: s.control}}},
		&trust.Revocation{Subject: s.root.id, Generation: 1, Version: 9, Cuts: []trust.SpaceCut{{Space: s.control}}})
	st := s.state()
	wantAll(t, st.LogLimit(s.genesisOf(&s.logs[s.adaLog])))
	if st.Revoked(s.ada.id) || st.Revoked(s.root.id) || len(st.Revocations()) != 0 {
		t.Errorf("an admin revoked an admin: %+v", st.Revocations())
	}

	late := s.cert(s.root, 0, s.carl, 1, trust.Grant{Role: trust.RoleAdmin}) // not in the root's log yet
	s.say(s.bobLog, s.cert(s.bob, 1, s.carl, 1, writer()))
	s.say(s.bobLog, &trust.Revocation{Subject: s.carl.id, Generation: 1, Version: 1, Cuts: []trust.SpaceCut{{Space: s.notes}}})
	st = s.state()
	shown := &trust.Chain{Leaf: late}
	wantCut(t, st.LogLimit(s.genesis(s.carl, s.notes, bareGrant(1))), 0)
	wantAll(t, st.LogLimit(s.genesis(s.carl, s.notes, shown.Encode())))
	wantAll(t, st.LogLimit(s.genesis(s.carl, s.control, shown.Encode())))
	if _, err := st.CheckPeer(shown.Encode(), s.carl.id, now); err != nil {
		t.Error(err)
	}
	if !st.MayCarry(s.carl.id, s.notes, now, shown) || st.MayCarry(s.carl.id, s.notes, now, nil) {
		t.Error("the admin's other certificate")
	}
	carlLog := s.log(s.carl, shown.Encode())
	s.say(carlLog, &trust.SpaceStatement{Name: "by carl"})
	st = s.state()
	if len(st.Spaces()) != 1 || st.Revoked(s.carl.id) {
		t.Error("an admin that its log proves is not heard")
	}
}

// TestReadmission: a higher generation has its own logs and certificates; the old
// ones stay cut, and the peer gets in with the old certificate to fetch the new.
func TestReadmission(t *testing.T) {
	s := newStory(t)
	old := s.cert(s.ada, 1, s.carl, 1, writer())
	s.say(s.adaLog, old)
	s.say(s.bobLog, &trust.Revocation{Subject: s.carl.id, Generation: 1, Version: 1, Cuts: []trust.SpaceCut{{Space: s.notes}}})
	st := s.state()
	if n := st.NextGeneration(s.carl.id); n != 2 {
		t.Fatalf("next generation %d", n)
	}
	_, err := st.CheckPeer(s.byAda(old).Encode(), s.carl.id, now)
	wantKind(t, err, trust.ErrRevoked)

	again := s.cert(s.ada, 1, s.carl, 2, trust.Grant{Role: trust.RoleReader})
	s.say(s.adaLog, again)
	st = s.state()
	for _, c := range []*trust.Certificate{old, again} {
		shown, err := st.CheckPeer(s.byAda(c).Encode(), s.carl.id, now)
		if err != nil || !st.MayRead(s.carl.id, s.notes, now, shown) {
			t.Errorf("generation %d: %v", c.Generation, err)
		}
	}
	wantCut(t, st.LogLimit(s.genesis(s.carl, s.notes, s.byAda(old).Encode())), 0)
	wantKind(t, st.LogLimit(s.genesis(s.carl, s.notes, s.byAda(again).Encode())).Err, replication.ErrNotAllowed)
	m, _ := st.Member(s.carl.id)
	if m.Generation != 2 || m.Revoked || len(m.Grants) != 1 || m.Grants[0].Role != trust.RoleReader || st.NextGeneration(s.carl.id) != 2 {
		t.Errorf("%+v", m)
	}
	if c := st.CertificateFor(s.carl.id, now); c == nil || c.Leaf != again || c.Issuer != s.adaIs {
		t.Errorf("shows %+v", c)
	}
}

// TestExpiryConcernsSessionsAlone: an expired certificate opens no session, and
// what was written under it counts as before. A renewed one opens the door to who
// was away, with the old one in its hand.
func TestExpiryConcernsSessionsAlone(t *testing.T) {
	s := newStory(t)
	end := now.Unix()
	old := s.certUntil(end, s.ada, 1, s.carl, 1, writer())
	s.say(s.adaLog, old)
	st := s.state()
	chain := s.byAda(old).Encode()
	if _, err := st.CheckPeer(chain, s.carl.id, now.Add(-time.Second)); err != nil {
		t.Error(err)
	}
	_, err := st.CheckPeer(chain, s.carl.id, now)
	wantKind(t, err, trust.ErrExpired, "2027-01-15T08:00:00Z", "renew")
	if st.MayCarry(s.carl.id, s.notes, now, nil) {
		t.Error("an expired certificate gives data")
	}
	wantAll(t, st.LogLimit(s.genesis(s.carl, s.notes, chain)))
	m, _ := st.Member(s.carl.id)
	if m.Status(now) != trust.StatusExpired || m.Expires() != end {
		t.Errorf("%v %d", m.Status(now), m.Expires())
	}

	renewed := s.certUntil(end+100, s.ada, 1, s.carl, 1, writer())
	s.say(s.adaLog, renewed)
	st = s.state()
	if _, err := st.CheckPeer(chain, s.carl.id, now); err != nil {
		t.Errorf("renewed while away: %v", err)
	}
	if c := st.CertificateFor(s.carl.id, now); c.Leaf != renewed {
		t.Error("shows the old certificate")
	}
	early, err := trust.Certificate{Network: s.network, Subject: s.carl.id, Generation: 1, Grants: old.Grants, IssuerGeneration: 1, Serial: s.serial(), NotBefore: end + 50}.Sign(s.ada.key)
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, early.ValidAt(now), trust.ErrExpired, "valid from")
	s.say(s.adaLog, early)
	if c := s.state().CertificateFor(s.carl.id, now); c.Leaf != renewed {
		t.Error("shows a certificate that is not valid yet")
	}
	// An issuer's own expiry matters to nobody else.
	s2 := newStory(t)
	s2.adaIs = s2.certUntil(end-1, s2.root, 0, s2.ada, 1, trust.Grant{Role: trust.RoleAdmin})
	s2.logs[s2.rootLog].Blocks = nil
	s2.say(s2.rootLog, s2.adaIs)
	leaf := s2.cert(s2.ada, 1, s2.carl, 1, writer())
	if _, err := s2.state().CheckPeer(s2.byAda(leaf).Encode(), s2.carl.id, now); err != nil {
		t.Error(err)
	}
}

// TestStrangers: who shows nothing, or something that proves nothing here.
func TestStrangers(t *testing.T) {
	s := newStory(t)
	leaf := s.cert(s.ada, 1, s.carl, 1, writer())
	st := s.state()
	good := s.byAda(leaf).Encode()
	if _, err := st.CheckPeer(good, s.carl.id, now); err != nil {
		t.Fatal(err)
	}
	_, err := st.CheckPeer(nil, s.carl.id, now)
	wantKind(t, err, trust.ErrNoCertificate, "has not joined")
	_, err = st.CheckPeer([]byte("junk"), s.carl.id, now)
	wantKind(t, err, trust.ErrNoCertificate, "cannot be read")
	_, err = st.CheckPeer(good, s.bob.id, now)
	wantKind(t, err, trust.ErrNotThisPeer)
	broken := slices.Clone(good)
	broken[len(broken)-1] ^= 1
	_, err = st.CheckPeer(broken, s.carl.id, now)
	wantKind(t, err, trust.ErrNoCertificate, "signature")

	other := newStory(t)
	other.network = replication.NetworkOfRoot(s.mallory.id[:])
	foreign := other.cert(s.mallory, 0, s.carl, 1, writer())
	_, err = st.CheckPeer((&trust.Chain{Leaf: foreign}).Encode(), s.carl.id, now)
	wantKind(t, err, trust.ErrOtherNetwork)

	for name, c := range map[string]*trust.Chain{
		"a false root":                           {Leaf: s.cert(s.mallory, 0, s.carl, 1, writer())},
		"an issuer without its certificate":      {Leaf: leaf},
		"the certificate of another admin":       {Leaf: leaf, Issuer: s.bobIs},
		"the issuer in another generation":       {Leaf: s.cert(s.ada, 2, s.carl, 1, writer()), Issuer: s.adaIs},
		"an issuer that is no admin":             {Leaf: leaf, Issuer: s.cert(s.root, 0, s.ada, 1, writer())},
		"an issuer that a false root made admin": {Leaf: leaf, Issuer: s.cert(s.mallory, 0, s.ada, 1, trust.Grant{Role: trust.RoleAdmin})},
		"an issuer that an admin certified":      {Leaf: leaf, Issuer: s.cert(s.bob, 1, s.ada, 1, writer())},
		"an issuer of another network":           {Leaf: leaf, Issuer: other.cert(s.root, 0, s.ada, 1, trust.Grant{Role: trust.RoleAdmin})},
		"a superfluous second certificate":       {Leaf: s.cert(s.root, 0, s.carl, 1, writer()), Issuer: s.adaIs},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := st.CheckPeer(c.Encode(), c.Leaf.Subject, now)
			wantKind(t, err, trust.ErrNoCertificate)
			if st.MayCarry(c.Leaf.Subject, s.notes, now, c) || st.LogLimit(s.genesis(s.carl, s.notes, c.Encode())).Allowed {
				t.Error("it gives something all the same")
			}
		})
	}
	root := s.cert(s.ada, 1, s.root, 1, writer())
	_, err = st.CheckPeer(s.byAda(root).Encode(), s.root.id, now)
	wantKind(t, err, trust.ErrNoCertificate, "root key itself")
}

// TestInviteLife: an invite is used once, by one peer, and says what became of it.
func TestInviteLife(t *testing.T) {
	s := newStory(t)
	inv := &trust.Invite{Public: s.invites[0].id, Grants: []trust.Grant{writer()}, Expires: now.Unix() + 10}
	check := func(issuer, joiner *actor, at time.Time) error {
		return s.state().CheckInvite(issuer.id, inv.Public, joiner.id, at)
	}
	wantKind(t, check(s.ada, s.carl, now), trust.ErrInviteUnknown)
	s.say(s.adaLog, inv)
	wantKind(t, check(s.bob, s.carl, now), trust.ErrInviteUnknown) // it is Ada's
	if err := check(s.ada, s.carl, now); err != nil {
		t.Fatal(err)
	}
	wantKind(t, check(s.ada, s.carl, now.Add(10*time.Second)), trust.ErrExpired)

	redeem := func(by *actor, gen uint64, subject *actor) *trust.Certificate {
		c, err := trust.Certificate{Network: s.network, Subject: subject.id, Generation: 1, Grants: inv.Grants, IssuerGeneration: gen, Serial: s.serial(), Invite: inv.Public}.Sign(by.key)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	s.say(s.bobLog, redeem(s.bob, 1, newActor("a friend of bob"))) // Bob cannot use up what is Ada's
	if err := check(s.ada, s.carl, now); err != nil {
		t.Fatal(err)
	}
	s.say(s.adaLog, redeem(s.ada, 1, s.carl))
	wantKind(t, check(s.ada, newActor("another"), now), trust.ErrInviteUsed, "used by peer")
	if err := check(s.ada, s.carl, now.Add(time.Hour)); err != nil {
		t.Errorf("who used it may ask again: %v", err)
	}
	if i, _ := s.state().Invite(s.ada.id, inv.Public); len(i.UsedBy) != 1 || i.UsedBy[0] != s.carl.id || i.Revoked {
		t.Errorf("%+v", i)
	}

	// An invite that makes an admin is redeemed by a certificate of the root.
	admin := &trust.Invite{Public: s.invites[1].id, Grants: []trust.Grant{{Role: trust.RoleAdmin}}}
	s.say(s.adaLog, admin)
	inv = admin
	s.say(s.rootLog, redeem(s.root, 0, newActor("new admin")))
	wantKind(t, check(s.ada, s.carl, now), trust.ErrInviteUsed)

	// A lost ticket is revoked by its key, an admin with all its tickets.
	inv = &trust.Invite{Public: s.invites[2].id, Grants: []trust.Grant{writer()}}
	s.say(s.adaLog, inv)
	s.say(s.bobLog, &trust.Revocation{Subject: inv.Public, Version: 1})
	wantKind(t, check(s.ada, s.carl, now), trust.ErrRevoked)
	if s.state().Revoked(inv.Public) {
		t.Error("an invite is taken for a peer")
	}
	inv = &trust.Invite{Public: newActor("one more").id, Grants: []trust.Grant{writer()}}
	end := s.say(s.bobLog, inv)
	s.say(s.rootLog, s.revoke(s.bob, 1, 1, map[replication.SpaceID]uint64{s.control: end}, map[replication.SpaceID]replication.LogID{s.control: s.logs[s.bobLog].Log}))
	wantKind(t, check(s.bob, s.carl, now), trust.ErrRevoked, "issuer")
	if len(s.state().Invites()) != 4 {
		t.Errorf("%d invites", len(s.state().Invites()))
	}
}
