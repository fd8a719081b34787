package trust_test

import (
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/trust"
)

// TestAdminRevokedWithWhatItIssued: what Ada's control log had said before the cut
// goes on to count, what came later is void, whoever shows it.
func TestAdminRevokedWithWhatItIssued(t *testing.T) {
	s := newStory(t)
	before, after := newActor("before"), newActor("after")
	kept := s.certUntil(now.Unix()+10, s.ada, 1, before, 1, writer())
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
	_, err := st.CheckPeer(s.byAda(kept).Encode(), before.id, now.Add(time.Minute))
	wantKind(t, err, trust.ErrExpired)
	wantKind(t, st.MayWrite(after.id, s.notes, s.byAda(lost).Encode()), replication.ErrNotAllowed)
	_, err = st.CheckPeer(s.byAda(lost).Encode(), after.id, now)
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

// TestNumbersUsedUp: an admin that spends the highest version does not turn the
// next one into 0, and is undone with what it said.
func TestNumbersUsedUp(t *testing.T) {
	s := newStory(t)
	s.say(s.adaLog, s.cert(s.ada, 1, s.carl, 1<<64-1, writer()), &trust.Revocation{Subject: s.carl.id, Generation: 1<<64 - 1, Version: 1<<64 - 1})
	st := s.state()
	if g, v := st.NextGeneration(s.carl.id), st.NextVersion(s.carl.id, 1<<64-1); g != 1<<64-1 || v != 1<<64-1 {
		t.Errorf("generation %d, version %d", g, v)
	}
	s.say(s.rootLog, &trust.Revocation{Subject: s.ada.id, Generation: 1, Version: 1})
	if g := s.state().NextGeneration(s.carl.id); g != 1 {
		t.Errorf("after Ada is gone: generation %d", g)
	}
}
