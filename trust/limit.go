package trust

import (
	"slices"
	"sync"

	"vixp2p/replication"
)

// LogLimit tells how far a log counts, by what its genesis block says. It depends
// on the control logs and the genesis block alone, never on the time.
func (s *State) LogLimit(g *replication.Genesis) replication.LogLimit {
	r, err := s.writer(g.Origin, g.Space, g.Grant)
	if err == nil && g.Network != s.network {
		err = refuse(ErrOtherNetwork, "log %s belongs to network %s, not to this one", g.LogID().Short(), short(g.Network))
	}
	if err != nil {
		return replication.LogLimit{Err: err}
	}
	if r != nil {
		if cut, listed := r.cut(g.Space, g.LogID()); listed || g.Space == s.control {
			return replication.LogLimit{Allowed: true, Cut: &cut, Err: revokedError(r)}
		}
	}
	return replication.LogLimit{Allowed: true}
}

// MayWrite tells whether an origin may begin to write, or write on, in a space: it
// has the role, and was not revoked. grant is an encoded chain, that of its logs'
// genesis blocks.
func (s *State) MayWrite(origin replication.OriginKey, space replication.SpaceID, grant []byte) error {
	r, err := s.writer(origin, space, grant)
	if err == nil && r != nil {
		err = revokedError(r)
	}
	return err
}

func revokedError(r *Revocation) error {
	return refuse(ErrRevoked, "peer %s was revoked: what it wrote since does not count; only an admin can admit it again", r.peer())
}

// writer tells whether a peer has, or had, the role to write in a space, and the
// revocation that is in force for it, if any.
func (s *State) writer(origin replication.OriginKey, space replication.SpaceID, grant []byte) (*Revocation, error) {
	if origin == s.root {
		if space != s.control {
			return nil, refuse(replication.ErrNotAllowed, "the root key writes in the control space alone")
		}
		return nil, nil
	}
	gen, ok := GrantGeneration(grant)
	if !ok {
		return nil, refuse(replication.ErrNotAllowed, "a log of %s names no certificate under which it is written", origin)
	}
	peer := peerGen{origin, gen}
	writes := func(c *Certificate) bool {
		if space == s.control {
			return c.IsAdmin()
		}
		return slices.ContainsFunc(c.Grants, func(g Grant) bool { return g.MayWrite(space) })
	}
	allowed := slices.ContainsFunc(s.certs[peer], writes)
	var shown *Certificate
	// Reading the grant costs two signatures: only where the control logs do not
	// say it all.
	if !allowed || s.byAnyone[peer] != nil && !s.isAdmin(peer) {
		if c := s.read(grant); c != nil && c.peer() == peer {
			shown = c
		}
		allowed = allowed || shown != nil && writes(shown)
	}
	if !allowed {
		role := RoleWriter
		if space == s.control {
			role = RoleAdmin
		}
		return nil, refuse(replication.ErrNotAllowed, "peer %s is no %s of space %s: no certificate that counts says so", peer, role, s.spaceName(space))
	}
	return s.revocation(peer, shown), nil
}

// maxRead bounds the grants whose reading a state remembers.
const maxRead = 4096

// readGrants remembers what grants amount to: an origin has one for all of its logs,
// and reading it costs two signatures.
type readGrants struct {
	mu  sync.Mutex // guards the map
	all map[string]*Certificate
}

// read is the certificate that a grant delivers, if it counts; nil if it does not.
func (s *State) read(grant []byte) *Certificate {
	s.grants.mu.Lock()
	c, known := s.grants.all[string(grant)]
	s.grants.mu.Unlock()
	if known {
		return c
	}
	if chain, err := DecodeChain(grant); err == nil {
		c = s.counts(chain)
	}
	s.grants.mu.Lock()
	defer s.grants.mu.Unlock()
	if s.grants.all == nil {
		s.grants.all = map[string]*Certificate{}
	}
	if len(s.grants.all) < maxRead {
		s.grants.all[string(grant)] = c
	}
	return c
}

// spaceName names a space in an error.
func (s *State) spaceName(id replication.SpaceID) string {
	switch sp, ok := s.spaces[id]; {
	case ok:
		return sp.Name
	case id == s.control:
		return ControlSpaceName
	case id == replication.SpaceOf(s.network, replication.DefaultSpace):
		return replication.DefaultSpace
	}
	return short(id)
}
