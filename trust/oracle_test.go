package trust_test

import (
	"bytes"
	"slices"
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
