package trust_test

import (
	"slices"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/trust"
)

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

// TestCarryEnded: a space ends with the last certificate that was for it, not while
// another is valid, nor where none was for it.
func TestCarryEnded(t *testing.T) {
	s := newStory(t)
	end := now.Unix()
	reader := func(space replication.SpaceID) trust.Grant { return trust.Grant{Space: space, Role: trust.RoleReader} }
	check := func(what string, space replication.SpaceID, at time.Time, shown *trust.Chain, want int64) {
		t.Helper()
		if got, ended := s.state().CarryEnded(s.carl.id, space, at, shown); got != want || ended != (want != 0) {
			t.Errorf("%s: %d, %v; want %d", what, got, ended, want)
		}
	}
	s.say(s.adaLog, s.certUntil(end-10, s.ada, 1, s.carl, 1, reader(s.notes)))
	s.say(s.adaLog, s.certUntil(end, s.ada, 1, s.carl, 1, reader(s.notes)))
	s.say(s.adaLog, s.cert(s.ada, 1, s.carl, 1, reader(s.standard)))
	check("while one is valid", s.notes, now.Add(-time.Second), nil, 0)
	check("when it ends", s.notes, now, nil, end)
	check("without an end", s.standard, now, nil, 0)
	check("never had", replication.SpaceID{9}, now, nil, 0)
	check("the control space", s.control, now, nil, 0)
	check("who shows more", s.notes, now, s.byAda(s.cert(s.ada, 1, s.carl, 1, reader(s.notes))), 0)
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
