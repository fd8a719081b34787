package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/trust"
	"vixp2p/trust/keys"
)

// ErrNoMembers: the node belongs to an open network.
var ErrNoMembers = errors.New("this node belongs to an open network, which has no members: found one with init in a new data directory, or join one")

// ErrNotAdmin: what was asked for is for admins.
var ErrNotAdmin = errors.New("this node is no admin of its network: ask one")

// needMembers returns the membership of a node of a network of members.
func (n *Node) needMembers() (*membership, error) {
	if n.members == nil {
		return nil, ErrNoMembers
	}
	return n.members, nil
}

// admin is this node's certificate as an admin: ErrNotAdmin.
func (m *membership) admin() (*trust.Certificate, error) {
	member, ok := m.state.Load().Member(m.self)
	if ok && !member.Revoked {
		for _, c := range slices.Backward(member.Certificates) {
			if c.IsAdmin() && c.Issuer == m.root {
				return c, nil
			}
		}
	}
	// One that has just joined may not have heard of itself.
	if c := m.shown.Load(); !ok && c != nil && c.Leaf.IsAdmin() && c.Leaf.Issuer == m.root {
		return c.Leaf, nil
	}
	return nil, ErrNotAdmin
}

// stateAsRoot states something with the root key: durable, and taken up, when it
// returns.
func (n *Node) stateAsRoot(ctx context.Context, e *engine, root ed25519.PrivateKey, statements []trust.Statement) error {
	var epoch replication.Epoch
	if _, err := rand.Read(epoch[:]); err != nil {
		return fmt.Errorf("cannot draw a random number: %w", err)
	}
	raw, log, err := trust.RootBlock(root, statements, replication.HLCAt(n.cfg.Now()), epoch)
	if err != nil {
		return err
	}
	run, err := replication.VerifyRun(replication.RunSource{Network: n.network, Log: log, Space: n.members.control}, raw)
	if err != nil {
		return err
	}
	done := make(chan replication.IngestResult, 1)
	e.store.Ingest(0, run, func(r replication.IngestResult) { done <- r })
	select {
	case r := <-done:
		if r.Code != replication.Committed {
			return fmt.Errorf("the statement of the root key was not stored (%v): %w", r.Code, r.Err)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return n.awaitTrust(ctx, e)
}

// state states something in this node's own control log, likewise.
func (n *Node) state(ctx context.Context, e *engine, statements []trust.Statement) error {
	batch := replication.Batch{Space: n.members.control}
	for _, s := range statements {
		op, err := trust.Op(s)
		if err != nil {
			return err
		}
		batch.Ops = append(batch.Ops, op)
	}
	if _, err := e.store.Append(ctx, batch); err != nil {
		return err
	}
	return n.awaitTrust(ctx, e)
}

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
	Label  string // a hint for the joiner's label
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
		id := replication.SpaceOf(m.network, name)
		if checkSpaceName(name) != nil || !m.isDeclared(id) {
			return nil, fmt.Errorf("there is no space %q in this network: create it with space create, or see space list: %w", name, ErrInvalid)
		}
		out = append(out, trust.Grant{Space: id, Role: r})
	}
	return out, nil
}

func isAdminRole(grants []trust.Grant) bool {
	return slices.ContainsFunc(grants, func(g trust.Grant) bool { return g.Role == trust.RoleAdmin })
}

func (m *membership) spaceName(id replication.SpaceID) string {
	for _, s := range m.declared() {
		if s.ID == id {
			return s.Name
		}
	}
	return ""
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
		label := cleanText(d.Label, trust.MaxLabel)
		if label == "" {
			label = invite.Label
		}
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
		n.log.Info("a node has joined the network", "peer", originName(d.Key), "label", label, "roles", rolesText(leaf.Grants))
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

// certify signs and states a certificate: by the root key where it makes an admin,
// else as this admin. issuing is held.
func (n *Node) certify(ctx context.Context, c trust.Certificate) (*trust.Certificate, error) {
	m := n.members
	c.Serial = newSerial()
	if isAdminRole(c.Grants) {
		root, err := m.rootKey()
		if err != nil {
			return nil, err
		}
		leaf, err := c.Sign(root)
		if err != nil {
			return nil, err
		}
		return leaf, n.do(ctx, func(e *engine) error { return n.stateAsRoot(ctx, e, root, []trust.Statement{leaf}) })
	}
	self, err := m.admin()
	if err != nil {
		return nil, err
	}
	c.IssuerGeneration = self.Generation
	leaf, err := c.Sign(n.key)
	if err != nil {
		return nil, err
	}
	return leaf, n.do(ctx, func(e *engine) error { return n.state(ctx, e, []trust.Statement{leaf}) })
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

// Member is a peer that some certificate certifies.
type Member struct {
	PeerID     string
	Label      string
	Generation uint64
	// Roles are "writer" for one of every space, "writer:SPACE" of one alone.
	Roles []string
	// State is "standing", "expired", "not yet valid" or "revoked".
	State   string
	Expires time.Time // zero: never
	Self    bool
}

// OpenInvite is an invite that was not used.
type OpenInvite struct {
	Invite  string // its public key, hex
	Issuer  string // peer ID
	Label   string
	Roles   []string
	Expires time.Time
	State   string // "open", "expired" or "revoked"
}

// Members are those of the network, as far as this node has heard, and Invites those
// that nobody has used.
func (n *Node) Members(context.Context) ([]Member, []OpenInvite, error) {
	m, err := n.needMembers()
	if err != nil {
		return nil, nil, err
	}
	st, now := m.state.Load(), m.now()
	var members []Member
	for _, x := range st.Members() {
		members = append(members, Member{
			PeerID: originName(x.Key), Label: x.Label, Generation: x.Generation, Roles: roleNames(x.Grants, m.spaceName),
			State: string(x.Status(now)), Expires: unixTime(x.Expires()), Self: x.Key == m.self,
		})
	}
	var invites []OpenInvite
	for _, in := range st.Invites() {
		if len(in.UsedBy) > 0 {
			continue
		}
		state := "open"
		switch {
		case in.Revoked:
			state = "revoked"
		case in.Expires != 0 && now.Unix() >= in.Expires:
			state = "expired"
		}
		invites = append(invites, OpenInvite{
			Invite: in.Public.String(), Issuer: originName(in.Issuer), Label: in.Label, Roles: roleNames(in.Grants, m.spaceName),
			Expires: unixTime(in.Expires), State: state,
		})
	}
	return members, invites, nil
}

// DeclaredSpace is a space of the network.
type DeclaredSpace struct {
	Name      string
	ID        string // hex
	Encrypted bool
	Carried   bool // this node replicates it
}

// CreateSpace declares a space: from then on members with a role in it may use it.
// It is for admins. A space that exists stays as it is.
func (n *Node) CreateSpace(ctx context.Context, name string, encrypted bool) (*DeclaredSpace, error) {
	m, err := n.needMembers()
	if err != nil {
		return nil, err
	}
	s := &trust.SpaceStatement{Name: name, Encrypted: encrypted}
	if err := checkSpaceName(name); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	if _, err := trust.Op(s); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	m.issuing.Lock()
	defer m.issuing.Unlock()
	if _, err := m.admin(); err != nil {
		return nil, err
	}
	id := replication.SpaceOf(m.network, name)
	if err := n.do(ctx, func(e *engine) error { return n.createSpace(ctx, e, id, s) }); err != nil {
		return nil, err
	}
	for _, d := range n.declaredSpaces() {
		if d.Name == name {
			return &d, nil
		}
	}
	return nil, fmt.Errorf("the space %q was declared and does not count: see whether this node is an admin still: %w", name, replication.ErrNotAllowed)
}

// createSpace declares a space and makes the first key of an encrypted one. issuing is
// held.
func (n *Node) createSpace(ctx context.Context, e *engine, id replication.SpaceID, s *trust.SpaceStatement) error {
	m := n.members
	if s.Encrypted && !m.isEncrypted(id) && (m.isDeclared(id) || len(e.store.Logs(id)) > 0) {
		return fmt.Errorf("the space %q exists and is not encrypted, and whether it is is fixed when it is created: use another name: %w", s.Name, ErrInvalid)
	}
	if !m.isDeclared(id) {
		if err := n.state(ctx, e, []trust.Statement{s}); err != nil {
			return err
		}
	}
	if err := n.handOutKeys(ctx, e); err != nil { // of other members, maybe; it is tried again at the next change
		n.log.Warn("not all content keys of encrypted spaces could be handed out", "err", err)
	}
	return nil
}

// DeclaredSpaces are the spaces of the network, by name.
func (n *Node) DeclaredSpaces() ([]DeclaredSpace, error) {
	if _, err := n.needMembers(); err != nil {
		return nil, err
	}
	return n.declaredSpaces(), nil
}

func (n *Node) declaredSpaces() []DeclaredSpace {
	m := n.members
	encrypted := map[replication.SpaceID]bool{}
	for _, s := range m.state.Load().Spaces() {
		encrypted[s.ID] = s.Encrypted
	}
	var out []DeclaredSpace
	for _, s := range m.declared() {
		out = append(out, DeclaredSpace{Name: s.Name, ID: s.ID.String(), Encrypted: encrypted[s.ID], Carried: m.takesPart(s.ID)})
	}
	slices.SortFunc(out, func(a, b DeclaredSpace) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// membershipNow is what this node is by what it knows.
func (n *Node) membershipNow() *Membership {
	m := n.members
	out := &Membership{Network: m.network.String(), NetworkName: m.state.Load().NetworkName(), PeerID: n.ID(), Roles: []string{}}
	if out.NetworkName == "" {
		out.NetworkName = n.cfg.members.Name
	}
	if c := m.shown.Load(); c != nil {
		out.Roles, out.Expires = roleNames(m.grantsOf(c), m.spaceName), unixTime(c.Leaf.NotAfter)
	}
	return out
}

// StateRefused is the state of a node that members refuse since it was revoked, before
// it has the revocation itself.
const StateRefused = "refused as revoked"

// MembershipStatus is what Status tells about a network of members.
type MembershipStatus struct {
	NetworkName string
	Roles       []string
	State       string // as Member.State; StateRefused; "no certificate" without one
	Generation  uint64
	Expires     time.Time // zero: never
	RootKey     bool      // the root key is in the data directory
	Members     int       // standing ones
	// TrustDigest stands for who may do what: equal at two nodes exactly if they
	// decide alike.
	TrustDigest string
}

func (n *Node) membershipStatus() *MembershipStatus {
	if n.members == nil {
		return nil
	}
	m, now := n.members, n.members.now()
	st, at := m.state.Load(), n.membershipNow()
	out := &MembershipStatus{
		NetworkName: at.NetworkName, Roles: at.Roles, Expires: at.Expires, State: "no certificate",
		TrustDigest: st.Digest().String(), RootKey: fileExists(m.rootKeyPath()),
	}
	if c := m.shown.Load(); c != nil {
		out.Generation = c.Leaf.Generation
		out.State = string(trust.StatusStanding)
		if member, ok := st.Member(m.self); ok {
			out.State = string(member.Status(now))
		} else if c.Leaf.ValidAt(now) != nil {
			out.State = string(trust.StatusExpired)
		}
		if out.State == string(trust.StatusStanding) && m.refused.Load() {
			out.State = StateRefused
		}
	}
	for _, x := range st.Members() {
		if x.Status(now) == trust.StatusStanding {
			out.Members++
		}
	}
	return out
}

// parseMember finds a peer by its ID, or among members by label or the end of an ID.
func (n *Node) parseMember(name string) (replication.OriginKey, error) {
	id, err := findPeer(name, func(yield func(peer.ID, string) bool) {
		for _, x := range n.members.state.Load().Members() {
			if id, err := peerIDOf(x.Key); err == nil && !yield(id, x.Label) {
				return
			}
		}
	})
	if unknown, ok := errors.AsType[*UnknownPeerError](err); ok {
		unknown.Members = true
	}
	if err != nil {
		return replication.OriginKey{}, err
	}
	return protocols.OriginOf(id)
}
