package node

import (
	"context"
	"slices"

	"vixp2p/node/localapi"
)

func (b backend) Members(ctx context.Context) (localapi.MemberList, error) {
	members, invites, err := b.n.Members(ctx)
	out := localapi.MemberList{Members: []localapi.Member{}, Invites: []localapi.OpenInvite{}}
	for _, m := range members {
		one := localapi.Member{
			PeerID: m.PeerID, Label: m.Label, Roles: m.Roles, State: m.State, Expires: apiTime(m.Expires), Generation: m.Generation, Self: m.Self,
			RoleEnds: map[string]localapi.Time{},
		}
		for role, at := range m.RoleEnds {
			one.RoleEnds[role] = localapi.Time{Time: at}
		}
		out.Members = append(out.Members, one)
	}
	for _, in := range invites {
		out.Invites = append(out.Invites, localapi.OpenInvite{
			Invite: in.Invite, Issuer: in.Issuer, Label: in.Label, Roles: in.Roles, State: in.State, Expires: apiTime(in.Expires),
		})
	}
	if err == nil {
		var untaken []UntakenWrites
		untaken, err = b.n.Untaken(ctx)
		out.Untaken = apiUntaken(untaken)
	}
	if err == nil {
		var aside []SetAsideWrites
		aside, err = b.n.SetAside(ctx)
		addSetAside(&out, aside)
	}
	return out, apiError(err)
}

// addSetAside tells of each peer what is set aside of it. One whose certificates count
// no more, because their issuer's do not, is listed for that alone.
func addSetAside(out *localapi.MemberList, list []SetAsideWrites) {
	for _, w := range list {
		i := slices.IndexFunc(out.Members, func(m localapi.Member) bool { return m.PeerID == w.Origin })
		if i < 0 {
			i = len(out.Members)
			out.Members = append(out.Members, localapi.Member{PeerID: w.Origin, Roles: []string{}, State: "no certificate"})
		}
		m := &out.Members[i]
		m.SetAside = append(m.SetAside, localapi.SetAside{
			Space: w.Space, Ops: w.Ops, Logs: w.Logs, Since: localapi.Time{Time: w.Since}, Until: localapi.Time{Time: w.Until},
		})
	}
}

func apiUntaken(list []UntakenWrites) (out []localapi.Untaken) {
	for _, u := range list {
		out = append(out, localapi.Untaken{Space: u.Space, Log: u.Log, From: u.From, Ops: u.Ops, Cut: u.Cut})
	}
	return out
}

func (b backend) Invite(ctx context.Context, in localapi.Invite) (localapi.Invited, error) {
	out, err := b.n.Invite(ctx, InviteOptions{Role: in.Role, Spaces: in.Spaces, Label: in.Label, Expires: in.Expires, Valid: in.Valid, Addrs: in.Addrs})
	if err != nil {
		return localapi.Invited{}, apiError(err)
	}
	res := localapi.Invited{Ticket: out.Ticket, Invite: out.Invite, Roles: out.Roles, Expires: apiTime(out.Expires)}
	if b.n.isRefused() {
		res.Note = "made here, but members refuse this node as revoked, and so whom it lets in: ask another admin"
	}
	return res, nil
}

// statedNote says that members do not take what this admin states; empty if they do, as
// far as this node knows.
func (b backend) statedNote() string {
	if b.n.isRefused() {
		return "stated here, but members refuse this node as revoked, and so what it states: ask another admin"
	}
	return ""
}

func (b backend) Revoke(ctx context.Context, in localapi.Revoke) (localapi.Revoked, error) {
	r, err := b.n.Revoke(ctx, in.Name, RevokeOptions{Gather: in.Gather})
	if err != nil {
		return localapi.Revoked{}, apiError(err)
	}
	out := localapi.Revoked{
		PeerID: r.PeerID, Invite: r.Invite, Cuts: []localapi.Cut{}, Behind: r.Behind, Unreached: append([]string{}, r.Unreached...),
		Note: b.statedNote(),
	}
	for _, c := range r.Cuts {
		out.Cuts = append(out.Cuts, localapi.Cut{Space: c.Space, Log: c.Log, Seq: c.Seq})
	}
	return out, nil
}

func (b backend) CreateSpace(ctx context.Context, in localapi.NewSpace) (localapi.DeclaredSpace, error) {
	s, err := b.n.CreateSpace(ctx, in.Name, in.Encrypted)
	if err != nil {
		return localapi.DeclaredSpace{}, apiError(err)
	}
	out := apiDeclared(*s)
	out.Note = b.statedNote()
	return out, nil
}

func apiDeclared(s DeclaredSpace) localapi.DeclaredSpace {
	return localapi.DeclaredSpace{Name: s.Name, ID: s.ID, Encrypted: s.Encrypted, Carried: s.Carried}
}

func (b backend) ListSpaces(context.Context) ([]localapi.DeclaredSpace, error) {
	list, err := b.n.DeclaredSpaces()
	out := []localapi.DeclaredSpace{}
	for _, s := range list {
		out = append(out, apiDeclared(s))
	}
	return out, apiError(err)
}

func (b backend) Certificate(ctx context.Context, name string) (localapi.Certificate, error) {
	return apiCertificate(b.n.Certificate(ctx, name))
}

func (b backend) Certify(ctx context.Context, in localapi.Certify) (localapi.Certificate, error) {
	out, err := apiCertificate(b.n.Certify(ctx, CertifyOptions{Peer: in.Peer, Role: in.Role, Spaces: in.Spaces, Label: in.Label, Valid: in.Valid}))
	if err == nil {
		out.Note = b.statedNote()
	}
	return out, err
}

func apiCertificate(c *Certified, err error) (localapi.Certificate, error) {
	if err != nil {
		return localapi.Certificate{}, apiError(err)
	}
	return localapi.Certificate{PeerID: c.PeerID, Text: c.Text, Roles: c.Roles, Expires: apiTime(c.Expires)}, nil
}

func apiMembership(m *MembershipStatus) *localapi.Membership {
	if m == nil {
		return nil
	}
	return &localapi.Membership{
		NetworkName: m.NetworkName, Roles: m.Roles, State: m.State, Generation: m.Generation, Expires: apiTime(m.Expires),
		RootKey: m.RootKey, Members: m.Members, TrustDigest: m.TrustDigest, Untaken: apiUntaken(m.Untaken),
	}
}

// APIError gives an error of this package the form of the local API, for programs
// that use both.
func APIError(err error) error { return apiError(err) }
