package trust

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"vixp2p/replication"
)

// InviteState is an invite and what became of it.
type InviteState struct {
	Invite
	Issuer           replication.OriginKey
	IssuerGeneration uint64 // 0: the root
	// UsedBy are the peers that have a certificate for it, ascending: one, unless
	// its issuer broke the rules.
	UsedBy []replication.OriginKey
	// Revoked: it, or its issuer, was revoked.
	Revoked bool
}

// Invite finds an invite by its issuer and its public key. Where the issuer
// stated it in several ways, all nodes take the same one.
func (s *State) Invite(issuer, public replication.OriginKey) (InviteState, bool) {
	in, ok := s.invites[inviteKey{issuer, public}]
	if !ok {
		return InviteState{}, false
	}
	return s.inviteState(issuer, in), true
}

func (s *State) inviteState(issuer replication.OriginKey, in invited) InviteState {
	out := InviteState{Invite: *in.invite, Issuer: issuer, IssuerGeneration: in.generation}
	out.Revoked = s.byAnyone[peerGen{in.invite.Public, 0}] != nil || s.byRoot[peerGen{issuer, in.generation}] != nil
	out.UsedBy = s.redeemed[inviteKey{issuer, in.invite.Public}]
	return out
}

// Invites are all of them, by issuer and key.
func (s *State) Invites() []InviteState {
	out := make([]InviteState, 0, len(s.invites))
	for at, in := range s.invites {
		out = append(out, s.inviteState(at.issuer, in))
	}
	slices.SortFunc(out, func(a, b InviteState) int {
		return cmp.Or(bytes.Compare(a.Issuer[:], b.Issuer[:]), bytes.Compare(a.Public[:], b.Public[:]))
	})
	return out
}

// CheckInvite tells whether the issuer may give the joiner a certificate for an
// invite. Who used it may ask again, to get the same one. The error's kind is
// ErrInviteUnknown, ErrInviteUsed, ErrExpired or ErrRevoked.
func (s *State) CheckInvite(issuer, public, joiner replication.OriginKey, now time.Time) error {
	in, ok := s.Invite(issuer, public)
	switch {
	case !ok:
		return refuse(ErrInviteUnknown, "the issuer %s knows no such invite: ask for a new ticket", issuer)
	case len(in.UsedBy) > 0 && !slices.Contains(in.UsedBy, joiner):
		return refuse(ErrInviteUsed, "the ticket was used by peer %s: each is for one peer, ask for another", in.UsedBy[0])
	case in.Revoked:
		return refuse(ErrRevoked, "the ticket was revoked, or its issuer %s: ask an admin for another", issuer)
	case len(in.UsedBy) > 0:
		// What it gave must stand: a used ticket gives nothing back that a revocation
		// took.
		if !slices.ContainsFunc(s.standing(joiner, nil), func(c *Certificate) bool {
			return c.Invite == public && (c.Issuer == issuer || c.Issuer == s.root)
		}) {
			return refuse(ErrRevoked, "peer %s used the ticket and was revoked since: ask an admin for another", joiner)
		}
		return nil
	case in.Expires != 0 && now.Unix() >= in.Expires:
		return refuse(ErrExpired, "the ticket could be used until %s: ask for a new one", showTime(in.Expires))
	}
	return nil
}

// redeem notes which invites the certificates used up. A certificate uses up an
// invite of its own issuer; one that the root issued that of any admin, who then
// was the one to ask.
func (s *State) redeem() {
	s.redeemed = map[inviteKey][]replication.OriginKey{}
	users := map[replication.OriginKey][]*Certificate{}
	for _, c := range s.known {
		if c.Invite != (replication.OriginKey{}) {
			users[c.Invite] = append(users[c.Invite], c)
		}
	}
	for at := range s.invites {
		var by []replication.OriginKey
		for _, c := range users[at.public] {
			if c.Issuer == at.issuer || c.Issuer == s.root {
				by = append(by, c.Subject)
			}
		}
		slices.SortFunc(by, func(a, b replication.OriginKey) int { return bytes.Compare(a[:], b[:]) })
		s.redeemed[at] = slices.Compact(by)
	}
}
