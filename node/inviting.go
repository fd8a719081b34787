package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/trust"
	"vixp2p/trust/keys"
)

// Role names of options and results.
const (
	RoleAdmin  = "admin"
	RoleWriter = "writer"
	RoleReader = "reader"
	RoleRelay  = "relay"
)

// InviteOptions say whom an invite admits.
type InviteOptions struct {
	// Role is writer (the default), reader, relay or admin. An admin also writes in
	// every space, and only a node that holds the root key can invite one.
	Role string
	// Spaces are those in which it counts; none: every one. Not of an admin.
	Spaces []string
	Label  string // of a joiner that has none; default: what it was called, else the end of its peer ID
	// Expires is for how long the ticket can be used. Default 24 h, at most a year.
	Expires time.Duration
	// Valid is for how long the certificate is valid that it gives. Default: for ever.
	Valid time.Duration
	// Addrs are multiaddrs or host:port at which the joiner reaches this node. Default: where it
	// is reached as far as it knows.
	Addrs []string
}

// DefaultInviteExpiry is for how long a ticket can be used, MaxInviteExpiry at most.
const (
	DefaultInviteExpiry = 24 * time.Hour
	MaxInviteExpiry     = 365 * 24 * time.Hour
)

// Invited is an invite: Ticket is a secret until it is used.
type Invited struct {
	Ticket  string
	Invite  string // the invite's public key, hex; Revoke takes it
	Roles   []string
	Expires time.Time
}

// Invite makes a ticket that admits one node. The invite is durable when it returns.
// The joiner asks this node, which must run for that.
func (n *Node) Invite(ctx context.Context, o InviteOptions) (*Invited, error) {
	m, err := n.needMembers()
	if err != nil {
		return nil, err
	}
	grants, err := m.grants(o.Role, o.Spaces)
	if err != nil {
		return nil, err
	}
	if o.Expires == 0 {
		o.Expires = DefaultInviteExpiry
	}
	if o.Expires < time.Second || o.Expires > MaxInviteExpiry {
		return nil, fmt.Errorf("a ticket that can be used for %s: it must be 1 s to a year: %w", o.Expires, ErrInvalid)
	}
	if o.Valid < 0 || o.Valid > 0 && o.Valid < time.Second {
		return nil, fmt.Errorf("a certificate that is valid for %s: it must be 1 s or more, or 0 for ever: %w", o.Valid, ErrInvalid)
	}
	if err := checkLabel(o.Label); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	addrs, err := n.ticketAddrs(o.Addrs)
	if err != nil {
		return nil, err
	}
	m.issuing.Lock()
	defer m.issuing.Unlock()
	if _, err := m.admin(); err != nil {
		return nil, err
	}
	if isAdminRole(grants) {
		if _, err := m.rootKey(); err != nil {
			return nil, err
		}
	}
	t := trust.Ticket{Network: m.network, Issuer: m.self, Addrs: addrs, Expires: m.now().Add(o.Expires).Unix()}
	if _, err := rand.Read(t.Seed[:]); err != nil {
		return nil, fmt.Errorf("cannot draw a random number: %w", err)
	}
	text, err := t.Text()
	if err != nil {
		return nil, err
	}
	invite := &trust.Invite{Public: t.Public(), Grants: grants, Label: o.Label, Expires: t.Expires, Validity: int64(o.Valid / time.Second)}
	if err := n.do(ctx, func(e *engine) error { return n.state(ctx, e, []trust.Statement{invite}) }); err != nil {
		return nil, err
	}
	return &Invited{Ticket: text, Invite: t.Public().String(), Roles: roleNames(grants, m.spaceName), Expires: unixTime(t.Expires)}, nil
}

// grants are those of a role in some spaces.
func (m *membership) grants(role string, spaces []string) ([]trust.Grant, error) {
	if role == "" {
		role = RoleWriter
	}
	r, err := trust.ParseRole(role)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	if r == trust.RoleAdmin {
		if len(spaces) > 0 {
			return nil, fmt.Errorf("an admin is one of the whole network: leave the space out: %w", ErrInvalid)
		}
		return []trust.Grant{{Role: trust.RoleAdmin}, {Role: trust.RoleWriter}}, nil
	}
	if len(spaces) == 0 {
		return []trust.Grant{{Role: r}}, nil
	}
	var out []trust.Grant
	for _, name := range spaces {
		if err := checkSpaceName(name); err != nil {
			return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
		}
		id := replication.SpaceOf(m.network, name)
		if !m.isDeclared(id) {
			return nil, errorString{fmt.Sprintf("there is no space %q in this network: create it with space create, or see space list", name), ErrNotFound}
		}
		out = append(out, trust.Grant{Space: id, Role: r})
	}
	return out, nil
}

func isAdminRole(grants []trust.Grant) bool {
	return slices.ContainsFunc(grants, func(g trust.Grant) bool { return g.Role == trust.RoleAdmin })
}

// ticketAddrs are the addresses of a ticket, the most useful first.
func (n *Node) ticketAddrs(given []string) ([]string, error) {
	var out []string
	for _, s := range given {
		t, err := parseTarget(s)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
		}
		if t.Addr != nil {
			out = append(out, withoutPeer(t.Addr).String())
			continue
		}
		out = append(out, namedMultiaddrs(&t)...)
	}
	if len(out) == 0 && n.host != nil {
		for _, a := range n.whereabouts().addrs {
			if addr, err := ma.NewMultiaddr(a); err == nil {
				out = append(out, withoutPeer(addr).String())
			}
		}
	}
	if len(out) == 0 {
		return nil, errorString{"the ticket would not say where this node is reached: run the node, or name an address with --addr", ErrOffline}
	}
	return out[:min(len(out), trust.MaxTicketAddrs)], nil
}

// withoutPeer leaves out the peer ID at the end of an address.
func withoutPeer(a ma.Multiaddr) ma.Multiaddr {
	rest, last := ma.SplitLast(a)
	if last != nil && last.Protocol().Code == ma.P_P2P && rest != nil && len(rest) > 0 {
		return rest
	}
	return a
}

// namedMultiaddrs writes host:port as multiaddrs; a name stays one.
func namedMultiaddrs(t *target) (out []string) {
	kind := "dns"
	if ip, err := netip.ParseAddr(t.Host); err == nil {
		kind = map[bool]string{true: "ip4", false: "ip6"}[ip.Is4()]
	}
	for _, scheme := range t.Schemes {
		switch scheme {
		case schemeTCP:
			out = append(out, fmt.Sprintf("/%s/%s/tcp/%d", kind, t.Host, t.Port))
		case schemeQUIC:
			out = append(out, fmt.Sprintf("/%s/%s/udp/%d/quic-v1", kind, t.Host, t.Port))
		}
	}
	return out
}

// decideJoin decides on a node that redeems an invite of this one.
func (n *Node) decideJoin(ctx context.Context, d protocols.JoinDemand) (protocols.JoinGrant, error) {
	m := n.members
	var none protocols.JoinGrant
	public := replication.OriginKey(d.Invite)
	if err := trust.VerifyJoin(m.network, public, d.Key, m.self, d.Nonce, d.Signature); err != nil {
		return none, protocols.Refuse(replication.CodeInviteUnknown, "")
	}
	m.issuing.Lock()
	defer m.issuing.Unlock()
	st := m.state.Load()
	if err := st.CheckInvite(m.self, public, d.Key, m.now()); err != nil {
		return none, joinRefusal(err)
	}
	invite, _ := st.Invite(m.self, public)
	leaf := m.redeemed(d.Key, public)
	switch {
	case leaf == nil && len(invite.UsedBy) > 0:
		return none, protocols.Refuse(replication.CodeInviteUsed, "")
	case leaf == nil:
		if !keys.Usable(d.X25519) {
			return none, protocols.Refuse(replication.CodeProtocol, "its X25519 key is of no use")
		}
		earlier, _ := st.Member(d.Key)
		label := memberLabel(d.Key, cleanText(d.Label, trust.MaxLabel), invite.Label, earlier.Label)
		c := trust.Certificate{
			Network: m.network, Subject: d.Key, Generation: st.NextGeneration(d.Key), Label: label,
			Grants: slices.Clone(invite.Grants), X25519: d.X25519, Invite: public,
		}
		if invite.Validity != 0 {
			c.NotAfter = m.now().Unix() + invite.Validity
		}
		var err error
		if leaf, err = n.certify(ctx, c); err != nil {
			return none, err
		}
		n.log.Info("a node has joined the network", "peer", originName(d.Key), "label", label, "roles", m.rolesText(leaf.Grants))
	}
	chain := &trust.Chain{Leaf: leaf}
	if leaf.IssuerGeneration != 0 {
		issuer, err := m.admin()
		if err != nil {
			return none, protocols.Refuse(replication.CodeInternal, "")
		}
		chain.Issuer = issuer
	}
	return protocols.JoinGrant{Chain: chain.Encode(), Root: m.root, NetworkName: st.NetworkName()}, nil
}

// redeemed is the certificate that a joiner has got for an invite; nil: none.
func (m *membership) redeemed(joiner, invite replication.OriginKey) *trust.Certificate {
	member, ok := m.state.Load().Member(joiner)
	if !ok || member.Revoked {
		return nil
	}
	for _, c := range slices.Backward(member.Certificates) {
		if c.Invite == invite {
			return c
		}
	}
	return nil
}

// expectsJoiners tells whether an invite of this node can be redeemed now.
func (m *membership) expectsJoiners() bool {
	now := m.now().Unix()
	return slices.ContainsFunc(m.state.Load().Invites(), func(in trust.InviteState) bool {
		return in.Issuer == m.self && !in.Revoked && len(in.UsedBy) == 0 && (in.Expires == 0 || now < in.Expires)
	})
}

// joinRefusal gives an error of trust the code of a refused join.
func joinRefusal(err error) error {
	code := replication.CodeInviteUnknown
	switch {
	case errors.Is(err, trust.ErrInviteUsed):
		code = replication.CodeInviteUsed
	case errors.Is(err, trust.ErrExpired):
		code = replication.CodeInviteExpired
	case errors.Is(err, trust.ErrRevoked):
		code = replication.CodeInviteRevoked
	}
	return protocols.Refuse(code, "")
}
