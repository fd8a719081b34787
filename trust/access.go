package trust

import (
	"time"

	"vixp2p/replication"
)

// CheckPeer decides on a peer by the chain that it shows in Hello: whether it
// leads to the root of this network and is the peer's, and whether any certificate
// that counts for the peer, this or one in the control logs, stands and is valid
// now. So who was renewed or admitted again while it was away gets in with what it
// has. The error's kind is ErrNoCertificate, ErrOtherNetwork, ErrNotThisPeer,
// ErrExpired or ErrRevoked.
func (s *State) CheckPeer(raw []byte, peer replication.OriginKey, now time.Time) (*Chain, error) {
	if len(raw) == 0 {
		return nil, refuse(ErrNoCertificate, "peer %s shows no certificate: it has not joined this network", short(peer))
	}
	c, err := DecodeChain(raw)
	if err != nil {
		return nil, refuse(ErrNoCertificate, "the certificate of peer %s cannot be read: %v", short(peer), err)
	}
	if err := c.Verify(s.root[:]); err != nil {
		return nil, err
	}
	if c.Leaf.Subject != peer {
		return nil, refuse(ErrNotThisPeer, "peer %s shows the certificate of %s", short(peer), short(c.Leaf.Subject))
	}
	shown := s.counts(c)
	for _, cert := range s.standing(peer, shown) {
		if cert.ValidAt(now) == nil {
			return c, nil
		}
	}
	switch {
	case shown == nil:
		return nil, refuse(ErrRevoked, "the certificate of peer %s was issued by %s, which was revoked and had not said so before: ask an admin for a new one", short(peer), short(c.Leaf.Issuer))
	case s.revocation(shown.peer(), shown) != nil:
		return nil, refuse(ErrRevoked, "peer %s was revoked in generation %d: only an admin can admit it again", short(peer), shown.Generation)
	}
	return nil, shown.ValidAt(now)
}

// Revoked tells that a key was revoked and that no certificate known here admits
// it again: such a peer is refused before anything is shown to it.
func (s *State) Revoked(key replication.OriginKey) bool {
	if len(s.standing(key, nil)) > 0 {
		return false
	}
	for p := range s.byAnyone {
		if p.key == key && p.gen != 0 && s.revocation(p, nil) != nil {
			return true
		}
	}
	return false
}

// MayCarry tells whether a peer gets the blocks of a space: a writer, reader or
// relay of a data space, any member of the control space. shown is what CheckPeer
// returned for the peer's session, or nil: it lets a certificate count that the
// control logs have not brought yet.
func (s *State) MayCarry(key replication.OriginKey, space replication.SpaceID, now time.Time, shown *Chain) bool {
	return s.may(key, now, shown, func(g Grant) bool { return space == s.control || g.MayCarry(space) })
}

// MayRead tells whether a peer may understand what is in a space, and so gets the
// keys of an encrypted one: a writer or reader, any member of the control space.
func (s *State) MayRead(key replication.OriginKey, space replication.SpaceID, now time.Time, shown *Chain) bool {
	return s.may(key, now, shown, func(g Grant) bool { return space == s.control || g.MayRead(space) })
}

func (s *State) may(key replication.OriginKey, now time.Time, shown *Chain, fits func(Grant) bool) bool {
	for _, c := range s.standing(key, s.counts(shown)) {
		if c.ValidAt(now) != nil {
			continue
		}
		for _, g := range c.Grants {
			if fits(g) {
				return true
			}
		}
	}
	return false
}

// Limit is how far a log counts.
type Limit struct {
	// Allowed: some grant lets the origin write there. Else nothing of the log is
	// taken, and nothing of it counts.
	Allowed bool
	// Cut is the last position that counts of a log of a revoked peer, zero for
	// none; nil: all of it counts.
	Cut *replication.Position
	// Err says why something does not count: replication.ErrNotAllowed or
	// ErrRevoked; nil where all does.
	Err error
}

// LogLimit tells how far a log counts, by what its genesis block says. It depends
// on the control logs and the genesis block alone, never on the time.
func (s *State) LogLimit(g *replication.Genesis) Limit {
	return s.limit(g.Origin, g.Space, g.Grant, g.LogID)
}

// MayWrite tells whether an origin may write in a space, without regard to what
// it wrote before: a revoked one may not. grant is an encoded chain, that of a
// log's genesis block.
func (s *State) MayWrite(origin replication.OriginKey, space replication.SpaceID, grant []byte) error {
	return s.limit(origin, space, grant, func() (none replication.LogID) { return none }).Err
}

func (s *State) limit(origin replication.OriginKey, space replication.SpaceID, grant []byte, log func() replication.LogID) Limit {
	if origin == s.root {
		if space == s.control {
			return Limit{Allowed: true}
		}
		return Limit{Err: refuse(replication.ErrNotAllowed, "the root key writes in the control space alone")}
	}
	gen, ok := GrantGeneration(grant)
	if !ok {
		return Limit{Err: refuse(replication.ErrNotAllowed, "a log of %s names no certificate under which it was written", short(origin))}
	}
	peer := peerGen{origin, gen}
	// Reading the grant costs two signatures: only where the control logs do not
	// say it all.
	writes := func(c *Certificate) bool {
		if space == s.control {
			return c.IsAdmin()
		}
		for _, g := range c.Grants {
			if g.MayWrite(space) {
				return true
			}
		}
		return false
	}
	allowed := false
	for _, c := range s.certs[peer] {
		allowed = allowed || writes(c)
	}
	var shown *Certificate
	if !allowed || s.byAnyone[peer] != nil && !s.isAdmin(peer) {
		if c, err := DecodeChain(grant); err == nil && c.Leaf.peer() == peer {
			shown = s.counts(c)
		}
		allowed = allowed || shown != nil && writes(shown)
	}
	if !allowed {
		role := RoleWriter
		if space == s.control {
			role = RoleAdmin
		}
		return Limit{Err: refuse(replication.ErrNotAllowed, "peer %s is no %s of space %s: no certificate that counts says so", peer, role, s.spaceName(space))}
	}
	r := s.revocation(peer, shown)
	if r == nil {
		return Limit{Allowed: true}
	}
	limit := Limit{Allowed: true, Err: refuse(ErrRevoked, "peer %s was revoked: what it wrote later does not count", peer)}
	if cut, listed := r.cut(space, log()); listed || space == s.control {
		limit.Cut = &cut
	}
	return limit
}

// spaceName names a space in an error.
func (s *State) spaceName(id replication.SpaceID) string {
	if id == s.control {
		return ControlSpaceName
	}
	for name := range s.spaces {
		if replication.SpaceOf(s.network, name) == id {
			return name
		}
	}
	if id == replication.SpaceOf(s.network, replication.DefaultSpace) {
		return replication.DefaultSpace
	}
	return short(id)
}
