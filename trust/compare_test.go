package trust_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/trust"
)

// kind is which sentinel an error is.
func kind(err error) error {
	for _, k := range []error{
		trust.ErrNoCertificate, trust.ErrOtherNetwork, trust.ErrNotThisPeer, trust.ErrExpired, trust.ErrRevoked,
		trust.ErrInviteUnknown, trust.ErrInviteUsed, replication.ErrNotAllowed,
	} {
		if errors.Is(err, k) {
			return k
		}
	}
	return err
}

// checkWorld compares all answers of a state with the oracle's.
func checkWorld(t *testing.T, w *world, s *trust.State) {
	t.Helper()
	o := newOracle(w)
	o.checkPeers(t, s)
	o.checkLimits(t, s)
	o.checkMembers(t, s)
	o.checkRevocations(t, s)
	o.checkInvites(t, s)
	o.checkSpaces(t, s)
}

func (o *oracle) checkPeers(t *testing.T, s *trust.State) {
	t.Helper()
	spaces := []replication.SpaceID{o.w.control, o.w.standard, o.w.notes}
	for _, at := range []time.Time{now, now.Add(80 * time.Second)} {
		for _, c := range o.w.shown {
			for _, key := range []replication.OriginKey{c.Leaf.Subject, o.w.people[0].id} {
				if at != now && key != c.Leaf.Subject {
					continue
				}
				_, err := s.CheckPeer(c.Encode(), key, at)
				if want := o.checkPeer(c, key, at); !errors.Is(kind(err), want) {
					t.Errorf("CheckPeer of %s generation %d: %v, want %v", o.name(key), c.Leaf.Generation, err, want)
				}
			}
		}
		for _, p := range o.w.people {
			for _, c := range append([]*trust.Chain{nil}, o.w.shown...) {
				if c != nil && c.Leaf.Subject != p.id && c != o.w.shown[0] {
					continue
				}
				for _, space := range spaces {
					if got, want := s.MayCarry(p.id, space, at, c), o.may(p.id, space, at, c, trust.RoleWriter, trust.RoleReader, trust.RoleRelay); got != want {
						t.Errorf("MayCarry of %s: %v, want %v", p.name, got, want)
					}
					if got, want := s.MayRead(p.id, space, at, c), o.may(p.id, space, at, c, trust.RoleWriter, trust.RoleReader); got != want {
						t.Errorf("MayRead of %s: %v, want %v", p.name, got, want)
					}
				}
			}
			gone := false
			for gen := uint64(1); gen < 5; gen++ {
				who := peer{p.id, gen}
				gone = gone || len(o.inForce(who, o.isAdmin(who))) > 0
			}
			if got, want := s.Revoked(p.id), gone && len(o.standing(p.id, nil)) == 0; got != want {
				t.Errorf("Revoked of %s: %v, want %v", p.name, got, want)
			}
		}
	}
}

func (o *oracle) name(key replication.OriginKey) string {
	for _, p := range append([]*actor{o.w.root}, o.w.people...) {
		if p.id == key {
			return p.name
		}
	}
	return key.String()
}

func (o *oracle) checkLimits(t *testing.T, s *trust.State) {
	t.Helper()
	check := func(what string, g *replication.Genesis) {
		got := s.LogLimit(g)
		allowed, cut := o.limit(g)
		if got.Allowed != allowed || !reflect.DeepEqual(got.Cut, cut) {
			t.Errorf("LogLimit of %s: %v %v (%v), want %v %v", what, got.Allowed, got.Cut, got.Err, allowed, cut)
		}
		want := error(nil)
		switch {
		case !allowed:
			want = replication.ErrNotAllowed
		case cut != nil:
			want = trust.ErrRevoked
		}
		if !errors.Is(kind(got.Err), want) {
			t.Errorf("LogLimit of %s says %v, want %v", what, got.Err, want)
		}
	}
	for _, l := range o.w.logs {
		g := &replication.Genesis{Network: o.w.network, Space: o.w.control, Origin: l.Origin, Grant: l.Grant}
		for n := range len(o.w.logs) + 1 { // find its epoch again
			g.Epoch = replication.Epoch{15: byte(n)}
			if g.LogID() == l.Log {
				break
			}
		}
		if g.LogID() != l.Log {
			t.Fatal("a log without its epoch")
		}
		check("a control log of "+o.name(l.Origin), g)
	}
	for _, p := range o.w.people {
		grants := [][]byte{nil, []byte("junk"), bareGrant(1), bareGrant(2), bareGrant(3)}
		for _, c := range o.w.shown {
			if c.Leaf.Subject == p.id || c == o.w.shown[0] {
				grants = append(grants, c.Encode())
			}
		}
		for _, grant := range grants {
			for _, space := range []replication.SpaceID{o.w.standard, o.w.notes} {
				for n := range byte(2) {
					g := &replication.Genesis{Network: o.w.network, Space: space, Origin: p.id, Epoch: replication.Epoch{n + 1}, Grant: grant}
					check(fmt.Sprintf("a data log of %s under %.8x", p.name, grant), g)
				}
			}
		}
	}
}

func (o *oracle) checkMembers(t *testing.T, s *trust.State) {
	t.Helper()
	members := s.Members()
	n := 0
	for _, p := range o.w.people {
		all := o.certs(p.id)
		m, ok := s.Member(p.id)
		if ok != (len(all) > 0) {
			t.Errorf("%s is a member: %v, want %v", p.name, ok, len(all) > 0)
		}
		if !ok {
			if s.CertificateFor(p.id, now) != nil {
				t.Errorf("%s has a certificate and is no member", p.name)
			}
			continue
		}
		n++
		standing := o.standing(p.id, nil)
		gen, revoked := uint64(0), len(standing) == 0
		from := standing
		if revoked {
			from = slices.Collect(maps.Values(all))
		}
		for _, c := range from {
			gen = max(gen, c.Generation)
		}
		inAll := map[uint64]bool{}
		for _, c := range standing {
			inAll[c.Generation] = true
		}
		if got := s.Generations(p.id); !slices.Equal(got, slices.Sorted(maps.Keys(inAll))) {
			t.Errorf("%s stands in %v, want %v", p.name, got, inAll)
		}
		if m.IsAdmin() != o.isAdmin(peer{p.id, gen}) {
			t.Errorf("%s is an admin: %v", p.name, m.IsAdmin())
		}
		var ids, want []string
		var grants []trust.Grant
		for _, c := range all {
			if c.Generation == gen {
				want = append(want, c.ID().String())
				grants = append(grants, c.Grants...)
			}
		}
		for _, c := range m.Certificates {
			ids = append(ids, c.ID().String())
		}
		slices.Sort(want)
		slices.Sort(ids)
		if m.Generation != gen || m.Revoked != revoked || !slices.Equal(ids, want) || !slices.Equal(m.Grants, o.w.normal(grants)) {
			t.Errorf("%s is %+v, want generation %d, revoked %v, certificates %v", p.name, m, gen, revoked, want)
		}
		status := trust.StatusRevoked
		if !revoked {
			status = trust.StatusExpired
			for _, c := range all {
				switch {
				case c.Generation != gen:
				case valid(c, now):
					status = trust.StatusStanding
				case now.Unix() < c.NotBefore && status == trust.StatusExpired:
					status = trust.StatusEarly
				}
			}
		}
		if got := m.Status(now); got != status {
			t.Errorf("%s is %q, want %q", p.name, got, status)
		}
		o.checkShown(t, s, p, standing)
		if next := s.NextGeneration(p.id); revoked && (all[replication.Hash{}] != nil || next <= gen) || !revoked && next != gen {
			t.Errorf("the next generation of %s is %d in generation %d", p.name, next, gen)
		}
	}
	if len(members) != n || !slices.IsSortedFunc(members, func(a, b trust.Member) int { return bytes.Compare(a.Key[:], b.Key[:]) }) {
		t.Errorf("%d members, want %d, by key", len(members), n)
	}
}

// checkShown: no certificate that stands is better than the one to show.
func (o *oracle) checkShown(t *testing.T, s *trust.State, p *actor, standing []*trust.Certificate) {
	t.Helper()
	got := s.CertificateFor(p.id, now)
	if (got == nil) != (len(standing) == 0) {
		t.Errorf("%s shows %v of %d certificates", p.name, got, len(standing))
	}
	if got == nil {
		return
	}
	rank := func(c *trust.Certificate) []byte {
		end := uint64(c.NotAfter)
		if end == 0 {
			end = 1 << 62
		}
		v := byte(0)
		if valid(c, now) {
			v = 1
		}
		return fmt.Appendf(nil, "%d %020d %020d %s", v, c.Generation, end, c.Serial)
	}
	for _, c := range standing {
		if bytes.Compare(rank(c), rank(got.Leaf)) > 0 {
			t.Errorf("%s shows %s, %s is better", p.name, rank(got.Leaf), rank(c))
		}
	}
	if !o.leads(got) || o.checkPeer(got, p.id, now) != nil && valid(got.Leaf, now) {
		t.Errorf("%s shows a chain that does not lead to the root", p.name)
	}
}

func (o *oracle) checkRevocations(t *testing.T, s *trust.State) {
	t.Helper()
	want := map[peer]bool{}
	for _, x := range o.all {
		if r, ok := x.st.(*trust.Revocation); ok {
			who := peer{r.Subject, r.Generation}
			if len(o.inForce(who, o.isAdmin(who))) > 0 {
				want[who] = true
			}
		}
	}
	got := s.Revocations()
	for _, r := range got {
		who := peer{r.Subject, r.Generation}
		revs := o.inForce(who, o.isAdmin(who))
		if !want[who] || r.Version != revs[0].Version {
			t.Errorf("revocation of %s: version %d, want %v", o.name(who.key), r.Version, revs)
			continue
		}
		if next := s.NextVersion(who.key, who.gen); next <= r.Version {
			t.Errorf("the next version is %d, after %d", next, r.Version)
		}
		for _, sc := range r.Cuts {
			for _, lc := range sc.Logs {
				if pos, _ := cutOf(revs, sc.Space, lc.Log); pos != lc.Pos {
					t.Errorf("a cut at %v, want %v", lc.Pos, pos)
				}
			}
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d revocations, want %d", len(got), len(want))
	}
}

func (o *oracle) checkInvites(t *testing.T, s *trust.State) {
	t.Helper()
	count := 0
	for _, issuer := range append([]*actor{o.w.root}, o.w.people...) {
		for _, inv := range o.w.invites {
			var best *trust.Invite
			gen := uint64(0)
			revoked := len(revocationsOf(o.all, peer{inv.id, 0})) > 0
			for _, x := range o.all {
				i, ok := x.st.(*trust.Invite)
				if !ok || i.Public != inv.id || x.by.key != issuer.id {
					continue
				}
				if best == nil || x.by.gen > gen || x.by.gen == gen && bytes.Compare(i.Encode(), best.Encode()) < 0 {
					best, gen = i, x.by.gen
				}
			}
			got, ok := s.Invite(issuer.id, inv.id)
			if ok != (best != nil) {
				t.Errorf("an invite of %s: %v, want %v", issuer.name, ok, best != nil)
			}
			if !ok {
				if err := s.CheckInvite(issuer.id, inv.id, o.w.people[0].id, now); !errors.Is(kind(err), trust.ErrInviteUnknown) {
					t.Errorf("an unknown invite: %v", err)
				}
				continue
			}
			count++
			revoked = revoked || issuer != o.w.root && len(revocationsOf(o.rootAll, peer{issuer.id, gen})) > 0
			used := map[replication.OriginKey]bool{}
			for _, p := range o.w.people {
				for _, c := range o.certs(p.id) {
					if c.Invite == inv.id && (c.Issuer == issuer.id || c.Issuer == o.root) {
						used[p.id] = true
					}
				}
			}
			if !bytes.Equal(got.Invite.Encode(), best.Encode()) || got.IssuerGeneration != gen || got.Revoked != revoked || len(got.UsedBy) != len(used) {
				t.Errorf("the invite is %+v, want %+v of generation %d, revoked %v, used by %d", got, best, gen, revoked, len(used))
			}
			for _, p := range o.w.people {
				var want error
				switch {
				case len(used) > 0 && !used[p.id]:
					want = trust.ErrInviteUsed
				case revoked, used[p.id] && !slices.ContainsFunc(o.standing(p.id, nil), func(c *trust.Certificate) bool {
					return c.Invite == inv.id && (c.Issuer == issuer.id || c.Issuer == o.root)
				}):
					want = trust.ErrRevoked
				case len(used) == 0 && best.Expires != 0 && now.Unix() >= best.Expires:
					want = trust.ErrExpired
				}
				if err := s.CheckInvite(issuer.id, inv.id, p.id, now); !errors.Is(kind(err), want) {
					t.Errorf("the invite for %s: %v, want %v", p.name, err, want)
				}
			}
		}
	}
	if all := s.Invites(); len(all) != count {
		t.Errorf("%d invites, want %d", len(all), count)
	}
}

func (o *oracle) checkSpaces(t *testing.T, s *trust.State) {
	t.Helper()
	encrypted := map[string]bool{}
	name, version := "", uint64(0)
	keys := map[string]map[string]bool{}
	for _, x := range o.all {
		switch st := x.st.(type) {
		case *trust.SpaceStatement:
			encrypted[st.Name] = encrypted[st.Name] || st.Encrypted
		case *trust.NetworkStatement:
			if x.by.key == o.root && (st.Version > version || st.Version == version && st.Name < name) {
				name, version = st.Name, st.Version
			}
		case *trust.KeysStatement:
			id := fmt.Sprintf("%020d %x", st.Generation, st.ID)
			if keys[id] == nil {
				keys[id] = map[string]bool{}
			}
			for _, wr := range st.Wraps {
				keys[id][fmt.Sprintf("%x %x", wr.Recipient, wr.Sealed)] = true
			}
		}
	}
	if s.NetworkName() != name {
		t.Errorf("the network is called %q, want %q", s.NetworkName(), name)
	}
	got := map[string]bool{}
	for _, sp := range s.Spaces() {
		got[sp.Name] = sp.Encrypted
		if sp.ID != replication.SpaceOf(o.w.network, sp.Name) {
			t.Errorf("space %q has another id", sp.Name)
		}
	}
	if !maps.Equal(got, encrypted) {
		t.Errorf("spaces %v, want %v", got, encrypted)
	}
	list := s.Keys(o.w.notes)
	ids := slices.Sorted(maps.Keys(keys))
	if len(list) != len(ids) {
		t.Fatalf("%d content keys, want %d", len(list), len(ids))
	}
	for i, k := range list {
		if id := fmt.Sprintf("%020d %x", k.Generation, k.ID); id != ids[i] || len(k.Wraps) != len(keys[id]) {
			t.Errorf("content key %d is %s with %d wraps, want %s with %d", i, id, len(k.Wraps), ids[i], len(keys[ids[i]]))
		}
	}
}
