package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vixp2p/replication"
	"vixp2p/trust"
)

// RevokeOptions say how to put a member out.
type RevokeOptions struct {
	// Gather is how long to wait for what connected members hold and this node has
	// not yet. Default 10 s.
	Gather time.Duration
}

const defaultGather = 10 * time.Second

// Revoked is what a revocation has done.
type Revoked struct {
	PeerID string // of a peer
	Invite string // or an invite, hex
	// Cuts are the last writes of the peer that count, in the spaces in which it
	// has written; what it has written after them, or in other logs, does not.
	Cuts []Cut
	// Behind tells why connected members may hold more of it, which is cut too;
	// Unreached are the members without a session with this node, who may as well.
	Behind    string
	Unreached []string
}

// Cut is the last write of a log that counts.
type Cut struct {
	Space, Log string
	Seq        uint64
}

// Revoke puts out a member, named by its peer ID, the end of one, or a label that only
// it has, or takes an invite back, named by its public key in hex. What the member
// wrote and connected members hold stays; what it writes from now on counts nowhere.
// It is durable here when it returns, and goes on to the others like data.
//
// Admins revoke members; an admin is revoked with the root key: ErrNoRootKey,
// ErrNotAdmin, *UnknownPeerError.
func (n *Node) Revoke(ctx context.Context, name string, o RevokeOptions) (*Revoked, error) {
	m, err := n.needMembers()
	if err != nil {
		return nil, err
	}
	if in, ok := m.findInvite(name); ok {
		return n.revokeInvite(ctx, in)
	}
	subject, err := n.parseMember(name)
	switch {
	case err != nil:
		return nil, err
	case subject == m.self:
		return nil, fmt.Errorf("this is the node itself: have another admin revoke it: %w", replication.ErrNotAllowed)
	}
	out := &Revoked{PeerID: originName(subject)}
	out.Behind = n.gather(ctx, o.Gather)
	m.issuing.Lock()
	defer m.issuing.Unlock()
	err = n.do(ctx, func(e *engine) error { return n.revoke(ctx, e, subject, out) })
	if err != nil {
		return nil, err
	}
	// The revocation stands whatever comes of the keys, which other admins make too.
	if err := n.do(ctx, func(e *engine) error { return n.handOutKeys(ctx, e) }); err != nil {
		n.log.Warn("the content keys of encrypted spaces are not replaced yet: it is tried again", "err", err)
	}
	out.Unreached = n.unreached(subject)
	n.log.Info("member revoked", "peer", out.PeerID, "cuts", len(out.Cuts))
	return out, nil
}

// gather waits until this node holds what connected members hold, and says why that
// did not come about.
func (n *Node) gather(ctx context.Context, limit time.Duration) string {
	if n.mesh == nil {
		return ""
	}
	if limit <= 0 {
		limit = defaultGather
	}
	soon, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		behind, err := n.behind(soon)
		switch {
		case behind == "" && err == nil:
			return ""
		case soon.Err() != nil && behind == "":
			return "the time was up before they had said what they hold"
		}
		select {
		case <-soon.Done():
			return behind
		case <-time.After(gatherEvery):
		}
	}
}

// gatherEvery is how often it is looked whether all is here.
const gatherEvery = 20 * time.Millisecond

// behind tells what connected members hold and this node does not.
func (n *Node) behind(ctx context.Context) (string, error) {
	list, err := n.Peers(ctx)
	if err != nil {
		return "", err
	}
	for i := range list {
		p := &list[i]
		switch {
		case p.State == Stale:
			return fmt.Sprintf("%s does not answer", p.PeerID), nil
		case p.State == Connected && !p.compared():
			return fmt.Sprintf("%s has not said yet what it holds", p.PeerID), nil
		case p.State == Connected && p.MissingOps > 0:
			return fmt.Sprintf("%d operations of %s had not arrived", p.MissingOps, p.PeerID), nil
		}
	}
	return "", nil
}

// revoke states the revocation of every generation in which the subject stands.
func (n *Node) revoke(ctx context.Context, e *engine, subject replication.OriginKey, out *Revoked) error {
	m, st := n.members, n.members.state.Load()
	member, known := st.Member(subject)
	if !known {
		return fmt.Errorf("peer %s was never a member of this network: %w", originName(subject), ErrNotFound)
	}
	gens := st.Generations(subject)
	if len(gens) == 0 {
		return fmt.Errorf("peer %s is revoked already: %w", m.peerTitle(subject), ErrConflict)
	}
	spaces := []replication.SpaceID{m.control}
	for _, s := range m.declared() {
		spaces = append(spaces, s.ID)
	}
	for _, id := range e.store.Spaces() {
		if !slices.Contains(spaces, id) {
			spaces = append(spaces, id)
		}
	}
	var held []trust.Held
	for _, id := range spaces {
		for _, l := range e.store.Logs(id) {
			if l.Origin == subject {
				held = append(held, trust.Held{Space: id, Log: l.Log, Pos: l.Tip})
			}
		}
	}
	var statements []trust.Statement
	out.Cuts = nil
	for _, gen := range gens {
		r, dropped := trust.Revoke(subject, gen, st.NextVersion(subject, gen), spaces, held)
		if len(dropped) > 0 {
			n.log.Warn("a revocation cannot list every log of the peer: the shortest are cut entire", "peer", originName(subject), "logs", len(dropped))
		}
		statements = append(statements, r)
		if gen != gens[len(gens)-1] {
			continue
		}
		for _, c := range r.Cuts {
			for _, l := range c.Logs {
				out.Cuts = append(out.Cuts, Cut{Space: m.spaceTitle(c.Space), Log: l.Log.String(), Seq: l.Pos.Seq})
			}
		}
	}
	if !member.IsAdmin() {
		if _, err := m.admin(); err != nil {
			return err
		}
		return n.state(ctx, e, statements)
	}
	root, err := m.rootKey()
	if errors.Is(err, ErrNoRootKey) {
		if _, notAdmin := m.admin(); notAdmin != nil {
			return notAdmin
		}
	}
	if err != nil {
		return err
	}
	return n.stateAsRoot(ctx, e, root, statements)
}

// spaceTitle is a space's name, or its id in hex.
func (m *membership) spaceTitle(id replication.SpaceID) string {
	switch name := m.spaceName(id); {
	case name != "":
		return name
	case id == m.control:
		return trust.ControlSpaceName
	}
	return id.String()
}

// unreached are the standing members without a session.
func (n *Node) unreached(subject replication.OriginKey) []string {
	connected := map[replication.OriginKey]bool{n.members.self: true, subject: true}
	if n.mesh != nil {
		for _, s := range n.mesh.book.sessions() {
			connected[s.info.Key] = true
		}
	}
	var out []string
	for _, x := range n.members.state.Load().Members() {
		if !connected[x.Key] && x.Status(n.members.now()) != trust.StatusRevoked {
			out = append(out, originName(x.Key))
		}
	}
	return out
}

// findInvite finds an invite by its public key in hex.
func (m *membership) findInvite(name string) (trust.InviteState, bool) {
	for _, in := range m.state.Load().Invites() {
		if in.Public.String() == name {
			return in, true
		}
	}
	return trust.InviteState{}, false
}

func (n *Node) revokeInvite(ctx context.Context, in trust.InviteState) (*Revoked, error) {
	m := n.members
	if len(in.UsedBy) > 0 {
		return nil, fmt.Errorf("the invite was used by %s: revoke that member: %w", originName(in.UsedBy[0]), ErrConflict)
	}
	if in.Revoked {
		return nil, fmt.Errorf("the invite is taken back already: %w", ErrConflict)
	}
	m.issuing.Lock()
	defer m.issuing.Unlock()
	if _, err := m.admin(); err != nil {
		return nil, err
	}
	r := &trust.Revocation{Subject: in.Public, Version: m.state.Load().NextVersion(in.Public, 0)}
	err := n.do(ctx, func(e *engine) error { return n.state(ctx, e, []trust.Statement{r}) })
	return &Revoked{Invite: in.Public.String()}, err
}
