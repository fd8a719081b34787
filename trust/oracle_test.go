package trust_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"vixp2p/replication"
	"vixp2p/trust"
)

// The oracle answers the questions of trust straight from the prose of design 9,
// each time from the beginning and by asking all that was ever said, with nothing
// kept and nothing of package trust's evaluation used. It is slow and obvious.

type peer struct {
	key replication.OriginKey
	gen uint64
}

// said is a statement in a place where its author may make such statements.
type said struct {
	by peer // generation 0: the root
	st trust.Statement
}

type oracle struct {
	w    *world
	root replication.OriginKey
	all  []said // what counts
	// rootAll is what the root says: all of it counts.
	rootAll []said
}

func newOracle(w *world) *oracle {
	o := &oracle{w: w, root: w.root.id}
	o.rootAll = o.sayings()
	rootSaid := o.rootAll
	o.all = rootSaid
	for i := range w.logs {
		l := &w.logs[i]
		gen, ok := readGeneration(l.Grant)
		who := peer{l.Origin, gen}
		if !ok || l.Origin == o.root || !o.adminOf(rootSaid, who) {
			continue
		}
		for _, b := range o.left(rootSaid, l, who) {
			for _, st := range b.Statements {
				o.all = append(o.all, said{who, st})
			}
		}
	}
	return o
}

// readGeneration reads field 1 of a grant: byte 8, then a number.
func readGeneration(grant []byte) (uint64, bool) {
	if len(grant) < 2 || grant[0] != 8 || grant[1] == 0 || grant[1] > 127 {
		return 0, false // the tests' generations are small
	}
	return uint64(grant[1]), true
}

func (o *oracle) sayings() (out []said) {
	for _, l := range o.w.logs {
		if l.Origin == o.root {
			for _, b := range l.Blocks {
				for _, st := range b.Statements {
					out = append(out, said{peer{o.root, 0}, st})
				}
			}
		}
	}
	return out
}

// left are the blocks of an admin's control log that the root's cuts leave.
func (o *oracle) left(rootSaid []said, l *trust.ControlLog, who peer) (out []trust.ControlBlock) {
	revs := revocationsOf(rootSaid, who)
	for _, b := range l.Blocks {
		if len(revs) == 0 {
			out = append(out, b)
			continue
		}
		if pos, listed := cutOf(revs, o.w.control, l.Log); listed && b.End <= pos.Seq {
			out = append(out, b)
		}
	}
	return out
}

// adminOf: the root said so, or if it did not, a control log of the peer of which
// something is left shows a certificate that says so.
func (o *oracle) adminOf(rootSaid []said, who peer) bool {
	for _, s := range rootSaid {
		if c, ok := s.st.(*trust.Certificate); ok && o.byRootFor(c, who) && hasRole(c, trust.RoleAdmin) {
			return true
		}
	}
	return len(o.adminGrants(rootSaid, who)) > 0
}

// adminGrants are the certificates in grants by which a peer is an admin that the
// root's logs do not say is one.
func (o *oracle) adminGrants(rootSaid []said, who peer) (out []*trust.Certificate) {
	for _, s := range rootSaid {
		if c, ok := s.st.(*trust.Certificate); ok && o.byRootFor(c, who) && hasRole(c, trust.RoleAdmin) {
			return nil
		}
	}
	for i := range o.w.logs {
		l := &o.w.logs[i]
		gen, _ := readGeneration(l.Grant)
		ch := o.w.chains[string(l.Grant)]
		if l.Origin == who.key && gen == who.gen && ch != nil && ch.Issuer == nil && o.byRootFor(ch.Leaf, who) &&
			hasRole(ch.Leaf, trust.RoleAdmin) && len(o.left(rootSaid, l, who)) > 0 {
			out = append(out, ch.Leaf)
		}
	}
	return out
}

func (o *oracle) byRootFor(c *trust.Certificate, who peer) bool {
	return c.Issuer == o.root && c.IssuerGeneration == 0 && c.Network == o.w.network &&
		c.Subject == who.key && c.Generation == who.gen && c.Subject != o.root
}

func hasRole(c *trust.Certificate, r trust.Role) bool {
	return slices.ContainsFunc(c.Grants, func(g trust.Grant) bool { return g.Role == r })
}

// certs are the certificates in control logs that count, of one key.
func (o *oracle) certs(key replication.OriginKey) map[replication.Hash]*trust.Certificate {
	out := map[replication.Hash]*trust.Certificate{}
	for _, s := range o.all {
		c, ok := s.st.(*trust.Certificate)
		if ok && c.Subject == key && key != o.root && c.Network == o.w.network && (peer{c.Issuer, c.IssuerGeneration}) == s.by {
			out[c.ID()] = c
		}
	}
	for gen := range uint64(5) {
		for _, c := range o.adminGrants(o.rootAll, peer{key, gen}) {
			out[c.ID()] = c
		}
	}
	return out
}

// revocationsOf are those about a peer in what was said.
func revocationsOf(all []said, who peer) (out []*trust.Revocation) {
	for _, s := range all {
		if r, ok := s.st.(*trust.Revocation); ok && r.Subject == who.key && r.Generation == who.gen {
			out = append(out, r)
		}
	}
	return out
}

// inForce are the revocations of a peer that are in force: of an admin those by
// the root; of these the ones with the highest version.
func (o *oracle) inForce(who peer, admin bool) []*trust.Revocation {
	if who.key == o.root {
		return nil
	}
	if admin {
		return newest(revocationsOf(o.rootAll, who))
	}
	return newest(revocationsOf(o.all, who))
}

func newest(revs []*trust.Revocation) (out []*trust.Revocation) {
	highest := uint64(0)
	for _, r := range revs {
		highest = max(highest, r.Version)
	}
	for _, r := range revs {
		if r.Version == highest {
			out = append(out, r)
		}
	}
	return out
}

// cutOf: of those that list the space, the lowest position; a log that one of
// them does not list counts for nothing.
func cutOf(revs []*trust.Revocation, space replication.SpaceID, log replication.LogID) (low replication.Position, listed bool) {
	for _, r := range newest(revs) {
		for _, sc := range r.Cuts {
			if sc.Space != space {
				continue
			}
			pos := replication.Position{}
			for _, lc := range sc.Logs {
				if lc.Log == log {
					pos = lc.Pos
				}
			}
			if !listed || pos.Seq < low.Seq || pos.Seq == low.Seq && bytes.Compare(pos.Hash[:], low.Hash[:]) < 0 {
				low = pos
			}
			listed = true
		}
	}
	return low, listed
}

func (o *oracle) isAdmin(who peer) bool { return o.adminOf(o.rootAll, who) }

// shownCounts: a chain leads to the root, and its issuer was not revoked, or had
// said the same in what is left of its control log.
func (o *oracle) shownCounts(c *trust.Chain) *trust.Certificate {
	if !o.leads(c) {
		return nil
	}
	if c.Issuer != nil && len(revocationsOf(o.rootAll, peer{c.Leaf.Issuer, c.Leaf.IssuerGeneration})) > 0 {
		if _, said := o.certs(c.Leaf.Subject)[c.Leaf.ID()]; !said {
			return nil
		}
	}
	return c.Leaf
}

func (o *oracle) leads(c *trust.Chain) bool {
	if c == nil || c.Leaf.Network != o.w.network || c.Leaf.Subject == o.root {
		return false
	}
	if c.Issuer == nil {
		return c.Leaf.Issuer == o.root && c.Leaf.IssuerGeneration == 0
	}
	return c.Leaf.IssuerGeneration != 0 && hasRole(c.Issuer, trust.RoleAdmin) && o.byRootFor(c.Issuer, peer{c.Leaf.Issuer, c.Leaf.IssuerGeneration})
}

// standing are the certificates of a key that let it have a session.
func (o *oracle) standing(key replication.OriginKey, shown *trust.Certificate) (out []*trust.Certificate) {
	all := o.certs(key)
	if shown != nil && shown.Subject == key {
		all[shown.ID()] = shown
	}
	for _, c := range all {
		who := peer{c.Subject, c.Generation}
		admin := o.isAdmin(who) || shown != nil && shown.Subject == key && shown.Generation == c.Generation && hasRole(shown, trust.RoleAdmin)
		if len(o.inForce(who, admin)) == 0 {
			out = append(out, c)
		}
	}
	return out
}

func valid(c *trust.Certificate, at time.Time) bool {
	return at.Unix() >= c.NotBefore && (c.NotAfter == 0 || at.Unix() < c.NotAfter)
}

// may tells whether a key has one of the roles in a space now.
func (o *oracle) may(key replication.OriginKey, space replication.SpaceID, at time.Time, shown *trust.Chain, roles ...trust.Role) bool {
	for _, c := range o.standing(key, o.shownCounts(shown)) {
		if !valid(c, at) {
			continue
		}
		if space == o.w.control {
			return true
		}
		for _, g := range c.Grants {
			if slices.Contains(roles, g.Role) && (g.Space == space || g.Space == replication.SpaceID{}) {
				return true
			}
		}
	}
	return false
}

// checkPeer is the kind of error with which a peer is refused, or nil.
func (o *oracle) checkPeer(c *trust.Chain, key replication.OriginKey, at time.Time) error {
	switch {
	case c.Leaf.Network != o.w.network:
		return trust.ErrOtherNetwork
	case !o.leads(c):
		return trust.ErrNoCertificate
	case c.Leaf.Subject != key:
		return trust.ErrNotThisPeer
	}
	shown := o.shownCounts(c)
	list := o.standing(key, shown)
	for _, s := range list {
		if valid(s, at) {
			return nil
		}
	}
	for _, s := range list {
		if s.ID() == c.Leaf.ID() {
			return trust.ErrExpired
		}
	}
	return trust.ErrRevoked
}

// limit: whether a log counts at all, and its cut.
func (o *oracle) limit(g *replication.Genesis) (allowed bool, cut *replication.Position) {
	if g.Origin == o.root {
		return g.Space == o.w.control, nil
	}
	gen, ok := readGeneration(g.Grant)
	if !ok {
		return false, nil
	}
	who := peer{g.Origin, gen}
	list := o.certs(g.Origin)
	shown := o.shownCounts(o.w.chains[string(g.Grant)])
	if shown != nil && shown.Subject == who.key {
		list[shown.ID()] = shown
	}
	admin := o.isAdmin(who)
	for _, c := range list {
		if c.Generation != gen {
			continue
		}
		for _, gr := range c.Grants {
			switch {
			case gr.Role == trust.RoleAdmin:
				admin = true
				allowed = allowed || g.Space == o.w.control
			case gr.Role == trust.RoleWriter && g.Space != o.w.control && (gr.Space == g.Space || gr.Space == replication.SpaceID{}):
				allowed = true
			}
		}
	}
	if !allowed {
		return false, nil
	}
	revs := o.inForce(who, admin)
	if len(revs) == 0 {
		return true, nil
	}
	pos, listed := cutOf(revs, g.Space, g.LogID())
	if !listed && g.Space != o.w.control {
		return true, nil
	}
	return true, &pos
}

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
				if want := o.checkPeer(c, key, at); kind(err) != want {
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
		if kind(got.Err) != want {
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
				if err := s.CheckInvite(issuer.id, inv.id, o.w.people[0].id, now); kind(err) != trust.ErrInviteUnknown {
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
				case revoked, used[p.id] && len(o.standing(p.id, nil)) == 0:
					want = trust.ErrRevoked
				case len(used) == 0 && best.Expires != 0 && now.Unix() >= best.Expires:
					want = trust.ErrExpired
				}
				if err := s.CheckInvite(issuer.id, inv.id, p.id, now); kind(err) != want {
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

// worldCount and worldSeed choose the random worlds: go test ./trust -worlds 20000,
// or -seed N -worlds 1 to see one again.
var (
	worldCount = flag.Uint64("worlds", 0, "random worlds per test; 0: some hundred")
	worldSeed  = flag.Uint64("seed", 0, "seed of the first random world")
)

// worlds runs fn over many random worlds, each of its own seed.
func worlds(t *testing.T, n uint64, fn func(t *testing.T, w *world)) {
	if testing.Short() {
		n = n/10 + 10
	}
	if *worldCount > 0 {
		n = *worldCount
	}
	for seed := *worldSeed; seed < *worldSeed+n; seed++ {
		fn(t, makeWorld(rand.New(rand.NewPCG(seed, 9))))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestEvaluateIsWhatTheDesignSays compares every answer with the oracle's.
func TestEvaluateIsWhatTheDesignSays(t *testing.T) {
	seen := map[string]int{}
	worlds(t, 800, func(t *testing.T, w *world) {
		s := trust.Evaluate(w.root.id[:], w.logs)
		checkWorld(t, w, s)
		w.tally(s, seen)
	})
	// What never happens is not tested.
	for _, what := range []string{
		"refused: no certificate", "refused: another network", "refused: out of its validity", "refused: revoked",
		"let in", "let in by another certificate than the shown one", "log: not allowed", "log: all", "log: cut", "log: cut to nothing",
		"control log: all", "control log: cut", "control log: not allowed",
		"member: standing", "member: revoked", "member: expired", "member: not yet valid", "member again",
		"invite: revoked", "invite: used", "admin by its grant alone", "admin revoked by an admin in vain",
	} {
		if seen[what] == 0 && *worldCount == 0 {
			t.Errorf("no world in which this happens: %s", what)
		}
	}
	t.Log(seen)
}

// tally counts what occurs in a world.
func (w *world) tally(s *trust.State, seen map[string]int) {
	for _, c := range w.shown {
		_, err := s.CheckPeer(c.Encode(), c.Leaf.Subject, now)
		switch {
		case err != nil:
			seen["refused: "+kind(err).Error()]++
		case c.Leaf.ValidAt(now) != nil:
			seen["let in by another certificate than the shown one"]++
		default:
			seen["let in"]++
		}
		for _, space := range []replication.SpaceID{w.notes, w.control} {
			what := "log: "
			if space == w.control {
				what = "control log: "
			}
			switch l := s.LogLimit(&replication.Genesis{Network: w.network, Space: space, Origin: c.Leaf.Subject, Epoch: replication.Epoch{1}, Grant: c.Encode()}); {
			case !l.Allowed:
				what += "not allowed"
			case l.Cut == nil:
				what += "all"
			case l.Cut.Seq == 0 && space != w.control:
				what += "cut to nothing"
			default:
				what += "cut"
			}
			seen[what]++
		}
	}
	for _, m := range s.Members() {
		seen["member: "+string(m.Status(now))]++
		for _, r := range s.Revocations() {
			if r.Subject == m.Key && r.Generation < m.Generation && !m.Revoked {
				seen["member again"]++
			}
		}
	}
	for _, i := range s.Invites() {
		if i.Revoked {
			seen["invite: revoked"]++
		}
		if len(i.UsedBy) > 0 {
			seen["invite: used"]++
		}
	}
	o := newOracle(w)
	for _, x := range o.all {
		if x.by.gen > 0 && len(o.adminGrants(o.rootAll, x.by)) > 0 {
			seen["admin by its grant alone"]++
		}
		if r, ok := x.st.(*trust.Revocation); ok && x.by.gen > 0 {
			if who := (peer{r.Subject, r.Generation}); o.isAdmin(who) && len(o.inForce(who, true)) == 0 {
				seen["admin revoked by an admin in vain"]++
			}
		}
	}
}
