package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"vixp2p/replication"
)

// declineSome lets a node take no part in one of two spaces until some time of the
// run, at the latest the heal. Who takes part does so for good. The odds are drawn
// apart from the others, so that seeds without it do not depend on it.
func (w *world) declineSome() {
	r := rand.New(rand.NewPCG(w.cfg.Seed, 0x6465636c))
	if len(w.spaces) < 2 || r.IntN(2) == 0 {
		return
	}
	n := w.nodes[r.IntN(len(w.nodes))]
	n.declined = w.spaces[r.IntN(len(w.spaces))]
	if at := time.Duration(r.Int64N(int64(turmoil * 3 / 2))); at < turmoil {
		w.after(at, n.takePart)
	}
}

// declines tells whether the node takes no part in a space.
func (n *node) declines(space replication.SpaceID) bool {
	return n.declined == space && space != (replication.SpaceID{})
}

// spaces are those in which the node takes part.
func (n *node) spaces() (list []replication.SpaceInfo) {
	if n.w.members != nil {
		return n.memberSpaces()
	}
	for i, id := range n.w.spaces {
		if !n.declines(id) {
			list = append(list, replication.SpaceInfo{ID: id, Name: fmt.Sprint("space", i)})
		}
	}
	return list
}

// refuse answers a peer's question about a space in which the node takes no part.
// Sometimes it does a moment later, when the answer is still on its way.
func (n *node) refuse(p *peer, space replication.SpaceID) {
	if !n.declines(space) && !n.mayNot(space) {
		return
	}
	n.post(p, replication.SpaceRefused{Space: space})
	if n.declines(space) && n.w.chance(0.1) {
		n.w.after(n.w.some(2*n.w.odds.delay), n.takePart)
	}
}

// takePart ends what declineSome began.
func (n *node) takePart() {
	space := n.declined
	if space == (replication.SpaceID{}) {
		return
	}
	n.w.trace("%s takes part in all spaces", n)
	n.declined = replication.SpaceID{}
	for _, p := range append([]*peer(nil), n.peers...) {
		if o := p.l.peers[1-p.end]; o.alive() && o.knowsDeclined(space) {
			n.w.res.Declined++
		}
		for _, info := range n.spaces() {
			if info.ID == space {
				n.post(p, replication.SpaceAdded{Space: info})
			}
		}
	}
}

// knowsDeclined tells whether the session was told that its peer takes no part in a
// space in which it does itself: Progress leaves that out.
func (p *peer) knowsDeclined(space replication.SpaceID) bool {
	for _, pr := range p.s.Progress() {
		if pr.Space == space {
			return false
		}
	}
	return p.started[space]
}
