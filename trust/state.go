package trust

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"vixp2p/replication"
)

// State answers who may do what. Evaluate makes it; it never changes, and may be
// asked from any goroutine. What it returns belongs to it and is not to be
// changed.
type State struct {
	root    replication.OriginKey
	network replication.NetworkID
	control replication.SpaceID

	// certs are those that count, by whom they certify, in the order of
	// compareShown; known are the same, by their id.
	certs map[peerGen][]*Certificate
	known map[replication.Hash]*Certificate
	// generations of each key in certs, ascending; revoked those in byAnyone.
	generations, revoked map[replication.OriginKey][]uint64
	// byRoot are the root's revocations, byAnyone these and the admins'. Admins
	// are subject to byRoot alone.
	byRoot, byAnyone map[peerGen]*Revocation

	invites     map[inviteKey]invited
	redeemed    map[inviteKey][]replication.OriginKey // who used an invite, ascending
	spaces      map[replication.SpaceID]Space         // declared
	keys        map[keyID]map[string]Wrap
	name        string
	nameVersion uint64

	grants readGrants // a memory of answers: it changes none
}

// inviteKey: an invite is its issuer's, so that no other admin can use it up or
// change it.
type inviteKey struct{ issuer, public replication.OriginKey }

type invited struct {
	invite     *Invite
	generation uint64 // of the issuer
}

type keyID struct {
	space      replication.SpaceID
	generation uint64
	id         [32]byte
}

// Network is the id of the network, Root its root key, Control its control space.
func (s *State) Network() replication.NetworkID { return s.network }
func (s *State) Root() replication.OriginKey    { return s.root }
func (s *State) Control() replication.SpaceID   { return s.control }

// NetworkName is what the root calls the network; it may be empty.
func (s *State) NetworkName() string { return s.name }

// Space is a declared space.
type Space struct {
	ID        replication.SpaceID
	Name      string
	Encrypted bool
}

// Spaces are the declared spaces, by name. The space `default` exists whether it
// is declared or not.
func (s *State) Spaces() []Space {
	return slices.SortedFunc(maps.Values(s.spaces), func(a, b Space) int { return cmp.Compare(a.Name, b.Name) })
}

// ContentKey is a content key of an encrypted space, as it was handed out.
type ContentKey struct {
	ID         [32]byte
	Generation uint64
	Wraps      []Wrap // of all statements of this key, by recipient
}

// Keys are the content keys of a space by (Generation, ID): the last one is what
// writers use.
func (s *State) Keys(space replication.SpaceID) (out []ContentKey) {
	for at, wraps := range s.keys {
		if at.space == space {
			out = append(out, ContentKey{ID: at.id, Generation: at.generation, Wraps: slices.SortedFunc(maps.Values(wraps), compareWraps)})
		}
	}
	slices.SortFunc(out, func(a, b ContentKey) int {
		return cmp.Or(cmp.Compare(a.Generation, b.Generation), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return out
}

// isAdmin tells whether a certificate that counts makes the peer an admin.
func (s *State) isAdmin(p peerGen) bool {
	return slices.ContainsFunc(s.certs[p], (*Certificate).IsAdmin)
}

// revocation is the one in force for a peer generation, or nil. shown is a
// certificate that counts although the control logs need not have it, or nil.
func (s *State) revocation(p peerGen, shown *Certificate) *Revocation {
	if s.isAdmin(p) || shown != nil && shown.peer() == p && shown.IsAdmin() {
		return s.byRoot[p]
	}
	return s.byAnyone[p]
}

// Revocations are those in force, merged, by subject and generation; those of
// generation 0 revoke invites.
func (s *State) Revocations() (out []*Revocation) {
	for p := range s.byAnyone {
		if r := s.revocation(p, nil); r != nil {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *Revocation) int { return comparePeers(a.peer(), b.peer()) })
	return out
}

func comparePeers(a, b peerGen) int {
	return cmp.Or(bytes.Compare(a.key[:], b.key[:]), cmp.Compare(a.gen, b.gen))
}

// counts tells whether what a chain certifies counts: it leads to the root, and
// its issuer stands, or was revoked after its control log said the same. The
// chain may be nil.
func (s *State) counts(c *Chain) *Certificate {
	if c == nil || c.Verify(s.root[:]) != nil {
		return nil
	}
	if c.Leaf.IssuerGeneration != 0 && s.byRoot[c.Leaf.issuer()] != nil && s.known[c.Leaf.id] == nil {
		return nil
	}
	return c.Leaf
}

// standing are the certificates of a key that count and are not revoked, the
// shown one among them, in the order of compareShown.
func (s *State) standing(key replication.OriginKey, shown *Certificate) (out []*Certificate) {
	for _, gen := range s.generations[key] {
		if s.revocation(peerGen{key, gen}, shown) == nil {
			out = append(out, s.certs[peerGen{key, gen}]...)
		}
	}
	if shown != nil && shown.Subject == key && s.known[shown.id] == nil && s.revocation(shown.peer(), shown) == nil {
		out = append(out, shown)
		slices.SortFunc(out, compareShown)
	}
	return out
}
