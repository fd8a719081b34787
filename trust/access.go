package trust

import (
	"slices"
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
		return nil, refuse(ErrNoCertificate, "peer %s shows no certificate: it has not joined this network", peer)
	}
	c, err := DecodeChain(raw)
	if err != nil {
		return nil, refuse(ErrNoCertificate, "the certificate of peer %s cannot be read: %v", peer, err)
	}
	if err := c.Verify(s.root[:]); err != nil {
		return nil, err
	}
	if c.Leaf.Subject != peer {
		return nil, refuse(ErrNotThisPeer, "peer %s shows the certificate of %s", peer, c.Leaf.Subject)
	}
	shown := s.counts(c)
	for _, cert := range s.standing(peer, shown) {
		if cert.ValidAt(now) == nil {
			return c, nil
		}
	}
	switch {
	case shown == nil:
		return nil, refuse(ErrRevoked, "the certificate of peer %s was issued by %s, which was revoked and had not said so before: ask an admin for a new one", peer, c.Leaf.Issuer)
	case s.revocation(shown.peer(), shown) != nil:
		return nil, refuse(ErrRevoked, "peer %s was revoked in generation %d: only an admin can admit it again", peer, shown.Generation)
	}
	return nil, shown.ValidAt(now)
}

// Revoked tells that a key was revoked and that no certificate known here admits
// it again: such a peer is refused before anything is shown to it.
func (s *State) Revoked(key replication.OriginKey) bool {
	return len(s.standing(key, nil)) == 0 && slices.ContainsFunc(s.revoked[key], func(gen uint64) bool {
		return gen != 0 && s.revocation(peerGen{key, gen}, nil) != nil
	})
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

// CarryEnded tells when the last certificate ended by which a peer got the blocks of a
// space, in Unix seconds; false if it may have them now, or no certificate of it that
// was for the space has ended.
func (s *State) CarryEnded(key replication.OriginKey, space replication.SpaceID, now time.Time, shown *Chain) (at int64, ended bool) {
	for _, c := range s.standing(key, s.counts(shown)) {
		fits := slices.ContainsFunc(c.Grants, func(g Grant) bool { return space == s.control || g.MayCarry(space) })
		switch {
		case !fits:
		case c.ValidAt(now) == nil:
			return 0, false
		case c.NotAfter != 0 && now.Unix() >= c.NotAfter:
			at = max(at, c.NotAfter)
		}
	}
	return at, at != 0
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
