package node

import (
	"context"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/trust"
)

// carried are the spaces that this node replicates.
func (n *Node) carried() []replication.SpaceInfo {
	if n.members == nil {
		return n.names.list()
	}
	return n.members.spaces()
}

// controlSpace is the control space; zero in an open network.
func (n *Node) controlSpace() replication.SpaceID {
	if n.members == nil {
		return replication.SpaceID{}
	}
	return n.members.control
}

// learnDeclared takes the names of the data spaces that this node carries by what its
// control logs say, and returns them, but for those that are too many.
func (n *Node) learnDeclared() (taken []replication.SpaceInfo) {
	for _, s := range n.members.spaces() {
		if s.ID != n.members.control && n.names.learn(s) {
			taken = append(taken, s)
		}
	}
	n.names.signal()
	return taken
}

// trustChanged takes up a new trust state: spaces that this node carries now, and
// sessions whose peers have other rights than before. It is called while the
// state is being changed, and must not wait.
func (n *Node) trustChanged(before *trust.State) {
	for _, s := range n.learnDeclared() {
		if e := n.engines.get(); e != nil && e.replicator != nil {
			e.replicator.AddSpace(s)
		}
	}
	for _, x := range n.members.state.Load().Members() { // who was refused may be let in by now
		if id, err := peerIDOf(x.Key); err == nil && x.Status(n.members.now()) == trust.StatusStanding {
			n.mesh.gate.welcome(id)
		}
	}
	if st := n.members.state.Load(); st.Revoked(n.members.self) && !before.Revoked(n.members.self) {
		n.log.Warn("this node was revoked: no member connects to it any more, and what it writes from now on counts nowhere else; an admin can admit it again with a new invite")
	}
	n.mesh.reviewTrust(before)
	n.dialer.kick()
}

// reviewTrust ends the sessions with peers that are not let in any more, and begins
// those anew whose rights, or this node's, differ from before; nil: only the time has
// passed.
func (m *mesh) reviewTrust(before *trust.State) {
	own := before != nil && m.members.rightsDiffer(before)
	for _, s := range m.book.sessions() {
		_, err := m.members.check(s.info)
		switch {
		case err != nil:
			code := protocols.CodeOf(err)
			if m.refusals.fresh("no member "+s.id.String(), m.now()) {
				m.log.Warn("session ended: this peer is no member any more", "peer", s.id.String(), "label", s.info.Label, "err", err)
			}
			s.driver.Close(code, "")
		case s.rights.differ(m.members, s.info.Key, s.shown) || own:
			s.driver.Close(replication.CodeTrustChanged, "")
		}
	}
}

// awaitTrust returns when the answers of the membership include all that is durable
// here at the moment of the call.
func (n *Node) awaitTrust(ctx context.Context, e *engine) error { return n.members.update(ctx, e) }
