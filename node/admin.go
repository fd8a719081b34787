package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/trust"
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
	if ok && member.Revoked {
		return nil, fmt.Errorf("this node was revoked: %w", ErrNotAdmin)
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

// Member is a peer that some certificate certifies.
type Member struct {
	PeerID     string
	Label      string
	Generation uint64
	// Roles are "writer" for one of every space, "writer:SPACE" of one alone.
	Roles []string
	// State is "standing", "expired", "not yet valid" or "revoked".
	State   string
	Expires time.Time // of the last certificate; zero: never
	// RoleEnds are the ends of the roles that end before that.
	RoleEnds map[string]time.Time
	Self     bool
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
			RoleEnds: roleEnds(&x, m.spaceName),
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
	// Untaken are writes of this node that members do not take, as of Untaken; Status
	// alone tells them.
	Untaken []UntakenWrites
}

func (n *Node) membershipStatus() *MembershipStatus {
	if n.members == nil {
		return nil
	}
	m, now := n.members, n.members.now()
	st, at := m.state.Load(), n.membershipNow()
	out := &MembershipStatus{
		NetworkName: at.NetworkName, Roles: at.Roles, Expires: at.Expires, State: m.ownState(), Generation: m.generation(),
		TrustDigest: st.Digest().String(), RootKey: fileExists(m.rootKeyPath()),
	}
	for _, x := range st.Members() {
		if x.Status(now) == trust.StatusStanding {
			out.Members++
		}
	}
	return out
}

// ownState is the state of this node, as MembershipStatus has it.
func (m *membership) ownState() string {
	c, now := m.shown.Load(), m.now()
	if c == nil {
		return "no certificate"
	}
	state := trust.StatusStanding
	if member, ok := m.state.Load().Member(m.self); ok {
		state = member.Status(now)
	} else if c.Leaf.ValidAt(now) != nil {
		state = trust.StatusExpired
	}
	if state == trust.StatusStanding && m.refused.is.Load() {
		return StateRefused
	}
	return string(state)
}

// isRefused tells that members refuse this node as revoked, and that it has not heard
// the revocation itself, so that it goes on to write.
func (n *Node) isRefused() bool {
	return n.members != nil && n.members.refused.is.Load() && n.members.ownState() == StateRefused
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
