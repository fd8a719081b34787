package sim

import (
	"crypto/sha256"
	"errors"
	"time"

	"vixp2p/replication"
	"vixp2p/trust"
)

// troubleLater lets members be revoked, and be hostile, at random moments.
func (w *world) troubleLater() {
	if w.cfg.Peace {
		return
	}
	for range 1 + w.rng.IntN(3) {
		w.after(time.Second+w.some(turmoil-time.Second), w.revokeSomebody)
	}
	if w.chance(0.3) {
		w.after(time.Second+w.some(turmoil-time.Second), w.revokeAdmin)
	}
	w.hostileLater()
}

// revokeSomebody lets an admin revoke one that is none, sometimes both at once from
// what different nodes hold.
func (w *world) revokeSomebody() {
	if w.calm {
		return
	}
	subject := w.nodes[2+w.rng.IntN(len(w.nodes)-2)]
	admins := w.standingAdmins()
	if len(admins) == 2 && w.chance(0.6) {
		i := w.rng.IntN(2)
		admins = admins[i : i+1]
	}
	for _, a := range admins {
		w.revoke(a, subject)
	}
	if len(admins) == 0 {
		return
	}
	if w.chance(0.5) {
		w.meetSomebodyWhoHasNotHeard(subject)
	}
	if w.chance(0.5) {
		w.after(w.some(6*time.Second), func() { w.readmit(subject) })
	}
}

// standingAdmins are the admins that are up and believe to be one.
func (w *world) standingAdmins() (list []*node) {
	for _, n := range w.nodes[:2] {
		if n.store != nil && n.admits(n) {
			list = append(list, n)
		}
	}
	return list
}

// revoke cuts at what some node holds, in all data spaces or in one.
func (w *world) revoke(a, subject *node) {
	gens := a.state.Generations(subject.origin())
	if len(gens) == 0 {
		gens = []uint64{subject.chain.Leaf.Generation}
	}
	spaces := w.spaces
	if w.chance(0.2) {
		spaces = spaces[:1]
	}
	for _, gen := range gens {
		r, _ := trust.Revoke(subject.origin(), gen, a.state.NextVersion(subject.origin(), gen), spaces, w.heldBySomebody(subject, spaces))
		w.trace("%s revokes %s/%d", a, subject, gen)
		w.say(a, r)
	}
	w.revoked[subject.origin()] = true
	w.res.Revoked++
}

// heldBySomebody is what one node holds of another's logs.
func (w *world) heldBySomebody(subject *node, spaces []replication.SpaceID) (held []trust.Held) {
	holder := w.nodes[w.rng.IntN(len(w.nodes))]
	if holder.store == nil {
		return nil
	}
	for _, s := range spaces {
		for _, i := range holder.store.Logs(s) {
			if i.Origin == subject.origin() {
				held = append(held, trust.Held{Space: s, Log: i.Log, Pos: i.Tip})
			}
		}
	}
	return held
}

// revokeAdmin lets the root revoke an admin, and with it what it said since.
func (w *world) revokeAdmin() {
	if w.calm {
		return
	}
	subject := w.nodes[w.rng.IntN(2)]
	spaces := w.allSpaces()
	if w.chance(0.2) {
		spaces = w.spaces // its control logs count for nothing
	}
	gen := subject.chain.Leaf.Generation
	r, _ := trust.Revoke(subject.origin(), gen, 1, spaces, w.heldBySomebody(subject, spaces))
	w.trace("the root revokes %s/%d", subject, gen)
	w.rootSays(r)
	w.revoked[subject.origin()] = true
	w.res.Revoked++
}

// readmit certifies one that was revoked in its next generation.
func (w *world) readmit(subject *node) {
	admins := w.standingAdmins()
	if w.calm || len(admins) == 0 {
		return
	}
	a := admins[w.rng.IntN(len(admins))]
	gen := a.state.NextGeneration(subject.origin())
	w.trace("%s admits %s/%d", a, subject, gen)
	subject.chain = w.certify(a, subject, gen, subject.chain.Leaf.Grants)
	w.say(a, subject.chain.Leaf)
	w.res.Readmitted++
	for _, p := range append([]*peer(nil), subject.peers...) {
		p.l.cut("new certificate")
	}
}

// meetSomebodyWhoHasNotHeard takes two nodes away from all others, and leaves them
// each other for a while.
func (w *world) meetSomebodyWhoHasNotHeard(subject *node) {
	third := w.nodes[2+w.rng.IntN(len(w.nodes)-2)]
	if third == subject {
		return
	}
	var off []*link
	for _, l := range w.links {
		in := 0
		for _, n := range l.ends {
			if n == subject || n == third {
				in++
			}
		}
		if in > 0 && !l.down {
			l.down = true
			l.cut("taken away")
			off = append(off, l)
		}
	}
	between := w.linkBetween(subject, third)
	w.after(w.some(4*time.Second), func() {
		between.down = false
		between.connectLater()
	})
	w.after(4*time.Second+w.some(4*time.Second), func() {
		for _, l := range off {
			l.down = false
			l.connectLater()
		}
	})
}

// linkBetween finds or makes a link.
func (w *world) linkBetween(a, b *node) *link {
	for _, l := range w.links {
		if l.ends == [2]*node{a, b} || l.ends == [2]*node{b, a} {
			return l
		}
	}
	w.link(a, b)
	return w.links[len(w.links)-1]
}

// hostileLater lets members push what they may not write, past their own sessions.
func (w *world) hostileLater() {
	w.after(w.some(3*time.Second), func() {
		if w.calm {
			return
		}
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		space := w.spaces[w.rng.IntN(len(w.spaces))]
		if len(n.peers) > 0 && w.illegal(n.origin(), space) {
			p := n.peers[w.rng.IntN(len(n.peers))]
			p.l.carry(p.end, n.forbidden(space))
		}
		w.hostileLater()
	})
}

// forbidden is a well-formed push of a new log.
func (n *node) forbidden(space replication.SpaceID) *replication.WalPush {
	n.w.epochs++
	g := &replication.Genesis{Network: n.net, Space: space, Origin: n.origin(), Grant: n.chain.Encode()}
	copy(g.Epoch[:], uint64Bytes(n.w.epochs))
	log := g.LogID()
	n.w.origins[log] = n.origin()
	op := replication.Op{Kind: replication.KindPut, Key: []byte("forbidden"), HLC: replication.HLCAt(n.w.now)}
	op.Order = uint64(op.HLC)
	body := replication.EncodeBody(log, []replication.Op{op})
	header := replication.AppendHeader(nil, &replication.Header{
		Log: log, FirstSeq: 1, Count: 1, BodyHash: sha256.Sum256(body), BodyLen: uint64(len(body)), RawLen: uint64(len(body)),
		FirstHLC: op.HLC, LastHLC: op.HLC, Genesis: g,
	})
	hash := replication.Hash(sha256.Sum256(header))
	raw := replication.AppendBlock(nil, header, replication.SignBlock(n.key, hash), body)
	return &replication.WalPush{
		Space: space, Log: log, End: replication.Position{Seq: 1, Hash: hash}, Total: uint64(len(raw)), Data: raw,
	}
}

// illegal tells whether a key was never allowed to write in a data space.
func (w *world) illegal(key replication.OriginKey, space replication.SpaceID) bool {
	if w.members == nil || space == w.control {
		return false
	}
	for _, g := range w.granted[key] {
		if g.MayWrite(space) {
			return false
		}
	}
	return true
}

// everCarried tells whether a key was ever granted a space.
func (w *world) everCarried(key replication.OriginKey, space replication.SpaceID) bool {
	for _, g := range w.granted[key] {
		if g.MayCarry(space) {
			return true
		}
	}
	return space == w.control
}

// checkDelivery: who may not have a space hears nothing of it but refusals.
func (w *world) checkDelivery(to *node, m replication.Message) {
	if w.members == nil {
		return
	}
	var space replication.SpaceID
	switch m := m.(type) {
	case *replication.FrontierDigest:
		space = m.Space
	case *replication.FrontierDiff:
		space = m.Space
	case *replication.FrontierOpen:
		space = m.Space
	case *replication.Announce:
		space = m.Space
	case *replication.WalPush:
		if space = m.Space; m.Total == 0 {
			return
		}
		if w.illegal(w.origins[m.Log], m.Space) {
			return // a hostile one, also where the receiver may not have it
		}
	default:
		return
	}
	if !w.everCarried(to.origin(), space) {
		w.fail("G7: %s, which may not have the space, is sent %s", to, describe(m))
	}
}

// checkTaken: nobody takes a block of one who may not write, nor one of a space that
// it may not have itself.
func (w *world) checkTaken(n *node, space replication.SpaceID, a replication.Arrival) {
	if w.members == nil {
		return
	}
	w.origins[a.Block.Header.Log] = a.Origin
	switch {
	case n.rogue && a.Origin == n.origin():
	case w.illegal(a.Origin, space):
		w.fail("%s took a block of one that may not write", n)
	case !w.everCarried(n.origin(), space):
		w.fail("G7: %s has a block of a space that it may not have", n)
	}
}

// checkAppend: a write of one that may not is refused.
func (w *world) checkAppend(n *node, space replication.SpaceID, err error) {
	switch {
	case w.members == nil || n.rogue:
	case err == nil && w.illegal(n.origin(), space):
		w.fail("%s wrote where it may not", n)
	}
}

// mayPause tells whether a log may be paused by the trust state.
func (w *world) mayPause(e replication.LogPaused) bool {
	if w.members == nil || e.Code != replication.CodeRevoked && e.Code != replication.CodeNotAllowed {
		return false
	}
	w.res.Refused++
	return len(w.revoked) > 0 || w.illegal(w.origins[e.Log], e.Space)
}

// mayFail tells whether a run may not be there: it forked, or was just cut.
func (w *world) mayFail(e replication.ReadRun, err error) bool {
	if errors.Is(err, replication.ErrForked) && w.truth.forked[e.Log] {
		return true
	}
	return w.members != nil && len(w.revoked) > 0 && (errors.Is(err, replication.ErrForked) || errors.Is(err, replication.ErrUnknownLog))
}
