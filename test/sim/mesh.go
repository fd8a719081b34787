package sim

import (
	"time"

	"vixp2p/replication"
)

// openMesh begins a node's mesh, which ends with its store.
func (n *node) openMesh() {
	n.mesh = replication.NewMesh(replication.MeshConfig{
		Degree: n.w.odds.degree, Few: n.w.odds.degree, ExchangeEvery: n.w.odds.exchange, Rand: n.w.rng.Int64N,
	})
	n.meshAt = time.Time{}
	for _, space := range n.w.spaces {
		if !n.w.isControl(space) {
			n.mesh.AddSpace(n.w.now, space)
		}
	}
}

// meshDo carries out what the mesh decided.
func (n *node) meshDo(actions []replication.MeshAction) {
	for _, a := range append([]replication.MeshAction(nil), actions...) { // what is posted may tell the mesh more
		ev := a.Event
		if g, ok := ev.(replication.MeshGraft); ok {
			info, _ := n.store.Log(g.Log)
			g.From = info.Tip
			ev = g
		}
		for _, p := range n.peers {
			if p.source == a.Session {
				n.ifAlive(0, func() { n.post(p, ev) })
				break
			}
		}
	}
	if at := n.mesh.Deadline(); !at.IsZero() && (n.meshAt.IsZero() || at.Before(n.meshAt)) {
		n.meshAt = at
		n.ifAlive(max(0, at.Sub(n.w.now)), func() {
			if n.meshAt.Equal(at) {
				n.meshAt = time.Time{}
				n.meshDo(n.mesh.Tick(n.w.now))
			}
		})
	}
}

// meshAdvanced hears of every growth of a log of data.
func (n *node) meshAdvanced(a replication.Advance) {
	switch {
	case n.w.isControl(a.Space):
	case a.Retreat:
		n.mesh.Forget(a.Log)
	default:
		n.meshDo(n.mesh.Advanced(n.w.now, a.Space, a.Log, a.Tip.Seq, a.Source))
	}
}

// meshAnswered hears what became of a run.
func (n *node) meshAnswered(p *peer, ev replication.CommitDone) {
	switch {
	case p.gone || n.store == nil || n.w.isControl(ev.Space):
	case ev.Result.Code == replication.Duplicate:
		n.meshDo(n.mesh.Duplicate(n.w.now, ev.Log, p.source))
	case ev.Result.Code == replication.Forked, ev.Result.Code == replication.Refused && ev.Code != replication.CodeNoSpace:
		n.meshDo(n.mesh.Refused(n.w.now, ev.Log, p.source))
	}
}

// meshAhead hears that a peer has more of a log.
func (n *node) meshAhead(p *peer, e replication.Ahead) {
	if !n.w.isControl(e.Space) {
		info, _ := n.store.Log(e.Log)
		n.meshDo(n.mesh.Ahead(n.w.now, e.Log, p.source, e.Seq, info.Tip.Seq))
	}
}
