package sim

import (
	"crypto/ed25519"

	"vixp2p/replication"
	"vixp2p/trust"
)

// healMembers takes away who was revoked, and joins all others.
func (w *world) healMembers() {
	for _, n := range w.nodes {
		n.store.Flush()
		n.evaluate()
	}
	first := w.nodes[w.rng.IntN(len(w.nodes))]
	for i := range w.said {
		w.stick(first, i)
	}
	first.store.Flush()
	first.evaluate()

	left := w.nodes
	for {
		remain := w.remaining(left)
		if len(remain) == len(left) {
			break
		}
		left = remain
	}
	w.members.digest = w.final.Digest()
	keep := map[*node]bool{}
	for i, a := range left {
		keep[a] = true
		for _, b := range left[:i] {
			if !w.cfg.Peace {
				w.linkBetween(a, b)
			}
		}
	}
	for _, n := range w.nodes {
		if !keep[n] {
			w.trace("%s does not remain", n)
			n.remove()
		}
	}
}

// remove takes a node out for good.
func (n *node) remove() {
	n.removed = true
	n.store.Crash()
	n.store = nil
	n.life++
	n.inbox = nil
	for _, l := range n.w.links {
		if l.ends[0] == n || l.ends[1] == n {
			l.cut("removed")
		}
	}
}

// knowledge is what a node will know of the control space.
type knowledge struct {
	logs  map[replication.LogID]trust.ControlLog
	state *trust.State
}

// remaining is the largest part of the nodes that admit each other once they have
// told each other all that they know. One that was revoked is in none; and neither is
// one whose certificate stands only by what nobody but itself knows.
func (w *world) remaining(nodes []*node) (best []*node) {
	know := make([]*knowledge, len(nodes))
	for i, n := range nodes {
		know[i] = &knowledge{logs: map[replication.LogID]trust.ControlLog{}}
		for _, l := range n.controlLogs() {
			know[i].logs[l.Log] = l
		}
		know[i].learn(w, nil)
	}
	admits := func(i, j int) bool {
		_, err := know[i].state.CheckPeer(nodes[j].chain.Encode(), nodes[j].origin(), w.now)
		return err == nil
	}
	for again := true; again; {
		again = false
		for i := range nodes {
			for j := range i {
				if know[i].state.Digest() != know[j].state.Digest() && admits(i, j) && admits(j, i) {
					a, b := know[i].learn(w, know[j]), know[j].learn(w, know[i])
					again = again || a || b
				}
			}
		}
	}
	for i := range nodes {
		var group []*node
		for j := range nodes {
			if know[j].state.Digest() == know[i].state.Digest() && admits(i, j) {
				group = append(group, nodes[j])
			}
		}
		if len(group) > len(best) {
			best, w.final = group, know[i].state
		}
	}
	return best
}

// learn adds what another knows, and tells whether that was new.
func (k *knowledge) learn(w *world, o *knowledge) bool {
	news := false
	if o != nil {
		for id, l := range o.logs {
			if len(l.Blocks) > len(k.logs[id].Blocks) {
				k.logs[id] = l
				news = true
			}
		}
	}
	if news || k.state == nil {
		var logs []trust.ControlLog
		for _, l := range k.logs {
			logs = append(logs, l)
		}
		k.state = trust.Evaluate(w.root.Public().(ed25519.PublicKey), logs)
	}
	return news
}

// remain are the nodes that are not removed.
func (w *world) remain() (list []*node) {
	for _, n := range w.nodes {
		if !n.removed {
			list = append(list, n)
		}
	}
	return list
}

// finallyCarries tells whether a node that remains may have a space.
func (w *world) finallyCarries(n *node, space replication.SpaceID) bool {
	return space == w.control || w.final.MayCarry(n.origin(), space, w.now, n.chain)
}

// equalMembers tells whether all who remain decide alike, and hold the same of each
// space that they may have.
func (w *world) equalMembers() bool {
	marks := map[replication.SpaceID][32]byte{}
	for _, n := range w.nodes {
		if n.removed {
			continue
		}
		if n.store == nil || n.dirty || n.store.Queued() > 0 || n.digest != w.members.digest {
			return false
		}
		for _, s := range w.allSpaces() {
			if !w.finallyCarries(n, s) {
				continue
			}
			mark, ok := marks[s]
			if ok && mark != n.mirror.marks[s] {
				return false
			}
			marks[s] = n.mirror.marks[s]
		}
	}
	return true
}

// settledMembers tells whether all sessions of those who remain have nothing left to
// do.
func (w *world) settledMembers() bool {
	for _, l := range w.links {
		if l.ends[0].removed || l.ends[1].removed {
			continue
		}
		for i, p := range l.peers {
			if p == nil || len(p.ahead) > 0 {
				return false
			}
			settled := map[replication.SpaceID]bool{}
			for _, pr := range p.s.Progress() {
				if len(pr.PendingLogs) > 0 || pr.MissingOps > 0 {
					return false
				}
				settled[pr.Space] = pr.Settled
			}
			for _, s := range w.allSpaces() {
				if w.finallyCarries(l.ends[i], s) && w.finallyCarries(l.ends[1-i], s) && !settled[s] {
					return false
				}
			}
		}
	}
	return true
}

// checkMembers is what must be true of those who remain when all is quiet.
func (w *world) checkMembers() {
	for _, n := range w.remain() {
		n.mirror.checkAcked()
		for _, s := range w.allSpaces() {
			for _, i := range n.store.Logs(s) {
				w.checkLog(n, s, i)
			}
		}
		for log := range n.mirror.genesis {
			if info, _ := n.store.Log(log); info.SetAside > 0 {
				w.res.SetAside += int(info.SetAside)
			}
		}
	}
}

// checkLog: nothing beyond a cut counts, and all who may have the log are known to
// have it.
func (w *world) checkLog(n *node, space replication.SpaceID, i replication.LogInfo) {
	if n.rogue && i.Origin == n.origin() {
		return
	}
	limit := w.final.LogLimit(n.mirror.genesis[i.Log])
	if !limit.Counts(i.Tip) {
		w.fail("%s counts %s up to %d, beyond its cut", n, i.Log.Short(), i.Tip.Seq)
	}
	for _, p := range n.peers {
		if w.finallyCarries(n, space) && w.finallyCarries(p.other(), space) && !p.s.Acked(space, i.Log, i.Tip.Seq) {
			w.fail("%s does not know that %s holds %s/%d", n, p.other(), i.Log.Short(), i.Tip.Seq)
		}
	}
}
