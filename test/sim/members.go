package sim

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"vixp2p/replication"
	"vixp2p/trust"
)

// members is what a network of members has besides its nodes (design 9): a root key
// on a stick, two admins, and the truth of who was ever granted what. It is nil in an
// open network.
type members struct {
	root    ed25519.PrivateKey
	control replication.SpaceID
	said    [][]byte // what the root stated, a run each: it is given to a node again and again
	epochs  uint64
	// granted is what a key was ever given, in any generation.
	granted map[replication.OriginKey][]trust.Grant
	revoked map[replication.OriginKey]bool // by whomever, whether it still stands or not
	origins map[replication.LogID]replication.OriginKey
	blocks  map[ending]trust.ControlBlock // read once
	applies time.Duration                 // at most, from a new statement to the limits that follow
	final   *trust.State                  // of all who remain, from the heal on
	digest  replication.Hash              // of final
}

// member is what a node has as one.
type member struct {
	chain   *trust.Chain // in its file: what it shows, and what delivers its logs
	admin   bool
	rogue   bool // its store does not ask whether it may write
	curious bool // it asks about spaces that it may not have
	removed bool // it does not remain after the heal

	state     *trust.State
	digest    replication.Hash // of state
	dirty     bool             // the control logs may say more than state
	retreated bool             // in the Restrict that is under way
	waiting   []*peer
}

func (m *members) isControl(space replication.SpaceID) bool { return m != nil && space == m.control }

// allSpaces are those of data and the control space.
func (w *world) allSpaces() []replication.SpaceID {
	if w.members == nil {
		return w.spaces
	}
	return append([]replication.SpaceID{w.control}, w.spaces...)
}

// foundMembers makes a network of members: two admins, a relay, a reader and
// writers, of whom some have only one of two spaces.
func (w *world) foundMembers() {
	root := w.newKey(255)
	network := replication.NetworkOfRoot(root.Public().(ed25519.PublicKey))
	w.members = &members{
		root: root, control: trust.ControlSpace(network),
		granted: map[replication.OriginKey][]trust.Grant{}, revoked: map[replication.OriginKey]bool{},
		origins: map[replication.LogID]replication.OriginKey{}, blocks: map[ending]trust.ControlBlock{},
	}
	if w.applies = 20 * time.Millisecond; w.chance(0.3) {
		w.applies = time.Second
	}
	for i := range 2 {
		w.spaces = append(w.spaces, replication.SpaceOf(network, fmt.Sprint("space", i)))
	}
	one := trust.Grant{Space: w.spaces[0], Role: trust.RoleWriter}
	all := trust.Grant{Role: trust.RoleWriter}
	grants := [][]trust.Grant{
		{{Role: trust.RoleAdmin}, all}, {{Role: trust.RoleAdmin}}, {all}, {{Role: trust.RoleRelay}}, {{Role: trust.RoleReader}}, {one},
	}
	if w.chance(0.5) {
		grants[1] = append(grants[1], all)
	}
	for range w.rng.IntN(3) {
		grants = append(grants, [][]trust.Grant{{one}, {all}, {{Space: w.spaces[0], Role: trust.RoleReader}}}[w.rng.IntN(3)])
	}
	var full []*node // who has all spaces: the others are leaves of the tree
	for i, g := range grants {
		n := newNode(w, i, network, w.newKey(byte(i)))
		w.nodes = append(w.nodes, n)
		n.admin = g[0].Role == trust.RoleAdmin
		n.rogue = i == 4 && w.chance(0.5)
		n.curious = i >= 5 && w.chance(0.5)
		if i > 0 {
			w.link(full[w.rng.IntN(len(full))], n)
		}
		if i != 1 && i < 5 || len(g) == 2 {
			full = append(full, n)
		}
	}
	for range w.rng.IntN(len(w.nodes)) {
		if a, b := w.rng.IntN(len(w.nodes)), w.rng.IntN(len(w.nodes)); a != b && !w.cfg.Peace {
			w.link(w.nodes[a], w.nodes[b])
		}
	}
	w.certifyAll(grants)
}

// certifyAll gives everybody a certificate, admins by the root and others by an
// admin, and lets the issuers state them.
func (w *world) certifyAll(grants [][]trust.Grant) {
	var rootSays []trust.Statement
	issued := map[*node][]trust.Statement{}
	for i, n := range w.nodes {
		if n.admin {
			c := w.certify(nil, n, 1, grants[i])
			rootSays = append(rootSays, c.Leaf)
			n.chain = c
			continue
		}
		issuer := w.nodes[w.rng.IntN(2)]
		n.chain = w.certify(issuer, n, 1, grants[i])
		issued[issuer] = append(issued[issuer], n.chain.Leaf)
	}
	w.rootSays(rootSays...)
	for _, a := range w.nodes[:2] {
		w.after(w.some(time.Second), func() { w.say(a, issued[a]...) })
	}
}

// certify signs a certificate; a nil issuer is the root.
func (w *world) certify(issuer, subject *node, generation uint64, grants []trust.Grant) *trust.Chain {
	c := trust.Certificate{
		Network: subject.net, Subject: subject.origin(), Generation: generation, Label: subject.String(), Grants: grants,
	}
	binary.BigEndian.PutUint64(c.Serial[:], w.rng.Uint64())
	key, chain := w.root, &trust.Chain{}
	if issuer != nil {
		key, chain.Issuer, c.IssuerGeneration = issuer.key, issuer.chain.Leaf, issuer.chain.Leaf.Generation
	}
	var err error
	if chain.Leaf, err = c.Sign(key); err != nil {
		w.fail("certificate of %s: %v", subject, err)
	}
	w.granted[subject.origin()] = append(w.granted[subject.origin()], grants...)
	return chain
}

// rootSays makes a statement of the root, and gives it to a node now and then.
func (w *world) rootSays(s ...trust.Statement) {
	var epoch replication.Epoch
	w.epochs++
	binary.BigEndian.PutUint64(epoch[:], w.epochs)
	raw, log, err := trust.RootBlock(w.root, s, replication.HLCAt(w.now), epoch)
	if err != nil {
		w.fail("root statement: %v", err)
		return
	}
	run := w.rootRun(raw)
	w.truth.blocks[ending{log, run.End()}] = true
	w.origins[log] = run.Origin
	w.said = append(w.said, raw)
	w.stickLater(len(w.said) - 1)
}

func (w *world) rootRun(raw []byte) *replication.VerifiedRun {
	b, _, err := replication.ParseBlock(raw)
	if err != nil {
		panic(err)
	}
	run, err := replication.VerifyRun(replication.RunSource{
		Network: b.Header.Genesis.Network, Log: b.Header.Log, Space: b.Header.Genesis.Space,
	}, raw)
	if err != nil {
		panic(err)
	}
	return run
}

// stickLater lets a node read a statement of the root from its stick, again and again.
func (w *world) stickLater(i int) {
	w.after(w.some(time.Second), func() {
		if w.calm {
			return
		}
		w.stick(w.nodes[w.rng.IntN(len(w.nodes))], i)
		if !w.cfg.Peace {
			w.after(w.some(6*time.Second), func() { w.stickLater(i) })
		}
	})
}

func (w *world) stick(n *node, i int) {
	if n.store != nil {
		n.store.Ingest(0, w.rootRun(w.said[i]), func(replication.IngestResult) {})
		n.flushLater()
	}
}

// say lets an admin state something.
func (w *world) say(a *node, statements ...trust.Statement) {
	if a.store == nil || len(statements) == 0 {
		return
	}
	b := replication.Batch{Space: w.control}
	for _, s := range statements {
		op, err := trust.Op(s)
		if err != nil {
			w.fail("%s: statement %T: %v", a, s, err)
			return
		}
		b.Ops = append(b.Ops, op)
	}
	a.store.AppendAsync(b, func(at replication.Appended, err error) {
		w.trace("%s states %T: %v", a, statements[0], err)
		if err == nil {
			a.mirror.acked[at.First.Log] = at.Pos
		}
	})
	a.ifAlive(0, a.flushLater)
}

// grant delivers the certificate in the genesis block of a log.
func (n *node) grant() func(replication.SpaceID) ([]byte, error) {
	if n.w.members == nil {
		return nil
	}
	return func(replication.SpaceID) ([]byte, error) { return n.chain.Encode(), nil }
}

// opened evaluates what the disk has.
func (n *node) opened() {
	if n.w.members != nil {
		n.state, n.dirty, n.waiting = nil, false, nil
		n.evaluate()
	}
}

// trustAdvanced takes what an advance means for trust; true: it was a retreat, after
// which all sessions begin anew.
func (n *node) trustAdvanced(a replication.Advance) bool {
	switch {
	case a.Retreat:
		n.w.trace("%s: %s goes back from %d to %d", n, a.Log.Short(), a.Prev.Seq, a.Tip.Seq)
		n.retreated = true
		n.mirror.retreat(a)
	case n.w.isControl(a.Space) && !n.dirty:
		n.dirty = true
		n.ifAlive(n.w.some(n.w.applies), n.evaluate)
	}
	return a.Retreat
}

// retreat rebuilds the mirror from what counts. What was cut is no longer promised.
func (m *mirror) retreat(a replication.Advance) {
	acked := m.acked
	m.init(m.n)
	m.acked = acked
	if acked[a.Log].Seq > a.Tip.Seq {
		acked[a.Log] = a.Tip
	}
	m.catchUp()
}

// controlLogs reads what counts of the control space.
func (n *node) controlLogs() (logs []trust.ControlLog) {
	w, at := n.w, map[replication.LogID]int{}
	list, err := n.store.ReadArrivals(w.control, 0, 1<<30)
	if err != nil {
		w.fail("%s: control space: %v", n, err)
	}
	for _, a := range list {
		h := a.Block.Header
		if h.Genesis != nil {
			at[h.Log] = len(logs)
			logs = append(logs, trust.ControlLog{Log: h.Log, Origin: a.Origin, Grant: h.Genesis.Grant})
		}
		e := ending{h.Log, a.Block.End()}
		b, ok := w.blocks[e]
		if !ok {
			ops, err := replication.DecodeBody(h, a.Block.Body)
			if err != nil {
				w.fail("%s: %v", n, err)
			}
			b = trust.BlockOf(h.LastSeq(), ops)
			w.blocks[e] = b
		}
		l := &logs[at[h.Log]]
		l.Blocks = append(l.Blocks, b)
	}
	return logs
}

// evaluate applies what the control logs say to the store and to the sessions.
func (n *node) evaluate() {
	w := n.w
	n.dirty = false
	old := n.state
	state := trust.Evaluate(w.root.Public().(ed25519.PublicKey), n.controlLogs())
	if old == nil || n.digest != state.Digest() {
		n.retreated = false
		err := n.store.Restrict(context.Background(), func(g *replication.Genesis) replication.LogLimit {
			limit := state.LogLimit(g)
			if n.rogue && g.Origin == n.origin() || w.cfg.Fault == ForgetCuts && n.index > 1 && limit.Cut != nil {
				return replication.Unlimited
			}
			return limit
		})
		switch {
		case errors.Is(err, replication.ErrNoSpace):
			n.dirty = true
			n.ifAlive(500*time.Millisecond, n.evaluate)
			return
		case err != nil:
			w.fail("%s: restrict: %v", n, err)
			return
		}
		n.state, n.digest = state, state.Digest()
		w.trace("%s: trust state %.8s", n, n.digest)
		if again := trust.Evaluate(w.root.Public().(ed25519.PublicKey), n.controlLogs()); !n.dirty && again.Digest() != n.digest {
			w.fail("%s: the trust state depends on what its own cuts void", n)
		}
		n.endOldSessions(old)
	}
	for _, p := range n.waiting {
		n.post(p, replication.TrustApplied{})
	}
	n.waiting = nil
}

// endOldSessions ends sessions that know what was cut, or whose rights changed.
func (n *node) endOldSessions(old *trust.State) {
	own := old != nil && !n.sameSpaces(old)
	for _, p := range append([]*peer(nil), n.peers...) {
		if p.gone {
			continue
		}
		changed := !n.admits(p.other())
		for s, may := range n.carriedBy(p.other()) {
			changed = changed || may != p.carries[s]
		}
		if changed || own || n.retreated {
			p.l.cut("trust changed")
		}
	}
}

func (n *node) sameSpaces(old *trust.State) bool {
	for _, s := range n.w.spaces {
		if old.MayCarry(n.origin(), s, n.w.now, n.chain) != n.state.MayCarry(n.origin(), s, n.w.now, n.chain) {
			return false
		}
	}
	return true
}

// applyTrust answers a session that has the control space of its peer.
func (n *node) applyTrust(p *peer) {
	if n.dirty {
		n.waiting = append(n.waiting, p)
		return
	}
	n.post(p, replication.TrustApplied{})
}

// admits tells whether a node takes a session with another, as in Hello.
func (n *node) admits(o *node) bool {
	if n.w.members == nil {
		return true
	}
	_, err := n.state.CheckPeer(o.chain.Encode(), o.origin(), n.w.now)
	return err == nil
}

// carriedBy is which data spaces another node may have, as far as this one knows.
func (n *node) carriedBy(o *node) map[replication.SpaceID]bool {
	may := map[replication.SpaceID]bool{}
	for _, s := range n.w.spaces {
		may[s] = n.state.MayCarry(o.origin(), s, n.w.now, o.chain)
	}
	return may
}

func (w *world) limitSession(p *peer, cfg *replication.SessionConfig) {
	if w.members == nil {
		return
	}
	p.carries = p.n.carriedBy(p.other())
	cfg.Control = w.control
	if w.cfg.Fault != CarryAll {
		cfg.Carries = func(s replication.SpaceID) bool { return p.carries[s] }
	}
}

// memberSpaces are the spaces in which a node takes part: those that it may have.
func (n *node) memberSpaces() []replication.SpaceInfo {
	list := []replication.SpaceInfo{{ID: n.w.control, Name: trust.ControlSpaceName}}
	for i, id := range n.w.spaces {
		if n.curious || !n.mayNot(id) {
			list = append(list, replication.SpaceInfo{ID: id, Name: fmt.Sprint("space", i)})
		}
	}
	return list
}

// dataSpaces are those in which a node writes.
func (n *node) dataSpaces() (list []replication.SpaceInfo) {
	for _, s := range n.spaces() {
		if !n.w.isControl(s.ID) && !n.mayNot(s.ID) {
			list = append(list, s)
		}
	}
	return list
}

// mayNot tells whether a node may not have a space, as far as it knows.
func (n *node) mayNot(space replication.SpaceID) bool {
	return n.w.members != nil && space != n.w.control && !n.state.MayCarry(n.origin(), space, n.w.now, n.chain)
}

// cutShort is the answer to a run of which only the part before a cut was taken.
func (n *node) cutShort(e replication.CommitRun, res replication.IngestResult) replication.IngestResult {
	if n.w.members == nil || res.Code != replication.Committed {
		return res
	}
	end := e.From.Seq
	for data := e.Data; len(data) > 0; {
		b, rest, err := replication.ParseBlock(data)
		if err != nil {
			return res
		}
		data, end = rest, max(end, b.End().Seq)
		if !b.HasBody() {
			end = b.Header.FirstSeq - 1
			break
		}
	}
	if info, _ := n.store.Log(e.Log); res.Tip.Seq < end && info.Limit != nil {
		res.Code, res.Err = replication.Refused, info.Limit
	}
	return res
}
