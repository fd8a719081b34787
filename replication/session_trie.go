package replication

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
)

// Down the levels of the trie (design 6.3). A question with Levels that finds another
// digest is answered with those of the root's 256 children. The asker opens the
// children that differ, gets their leaf digests, or their entries if these are few,
// and opens the buckets that differ: FrontierOpen by FrontierOpen, one at a time.
//
// What the peer states in different steps may be of different times: each statement
// is true when it is made, and is compared with the frontier that the question
// stated. So the answerer keeps nothing between the steps, and the way down ends in
// any case: at the root once, at the inner nodes once, and at the buckets in at most
// 65,536 / MaxOpenBuckets steps.
//
// Both sides ask, and one way down can serve both. Whoever has gone down knows the
// peer's frontier by its root, and in which buckets its own is another. If that is the
// root that the peer's question states, the answer to it is that: these buckets and those
// that have changed here since, what is in them, and that elsewhere this side holds what
// the question states. For that nothing is taken from the order of messages or from time: each node that was looked at
// on the way down hashes to the digest in the node above, and the root to the digest of the
// question.

// diff is what the peer states while it arrives in steps and parts.
type diff struct {
	step uint64 // under way; 0: the answer to the question
	next uint64 // part
	// entries are in the parts that they came in, so that many are not copied again and
	// again.
	entries [][]FrontierEntry
	held    int    // entries
	differ  region // where the sides differ, as far as that is known
	root    FrontierNode
	digest  Hash // of root; zero: it has not come
	// alone: the end of this way down serves nobody else. It is long, or the peer's
	// frontier has changed since it gave its root.
	alone bool

	// Of the step under way.
	open   region   // where entries may be
	nodes  ChildSet // inner nodes of which digests, or all entries, are to come
	listed ChildSet // those of nodes of which entries came

	// To be asked in the next steps.
	openNodes, openWhole ChildSet
	openBuckets          []uint16
}

// found tells that a frontier of the peer's had all that own has, and nothing else, but
// for the buckets in differ.
type found struct {
	root   Hash // of the peer's frontier; zero: there is none
	own    *Frontier
	differ region
	moved  int // advances since: with too many it is dropped, so that own keeps little alive
}

// from is in which buckets the peer's frontier differs from ours now; false if that is too
// much to be told.
func (f *found) from(now *Frontier) (region, bool) {
	where := region{buckets: maps.Clone(f.differ.buckets)}
	n := where.addChanged(f.own, now)
	return where, n <= maxSharedBuckets
}

// maxSharedNodes and maxSharedBuckets bound a way down of which the peer waits for the end:
// with more to be opened it soon has more than the levels above in its own. So too many
// buckets that changed afterwards are not told beside where it ended.
const (
	maxSharedNodes   = 8
	maxSharedBuckets = 256
)

// putOff tells whether the answer to a question is to wait for the end of our own way
// down, and keeps the question for then.
func (s *Session) putOff(sp *spaceState, q *question, own *Frontier) bool {
	a, d := &sp.ask, &sp.diff
	switch {
	case !s.cfg.PeerShares || !q.levels || !a.levels || a.round == 0 || sp.found.root == q.digest:
		return false
	case q.digest.IsZero() || q.digest == own.Root() || own.Len() <= s.cfg.WholeEntries:
		return false // the answer is short
	case !d.digest.IsZero():
		if d.alone || d.digest != q.digest {
			return false
		}
	default:
		// Both may be waiting for the other's root: the one whose question has the
		// lower digest gets it.
		if stated := a.own.Root(); bytes.Compare(stated[:], q.digest[:]) >= 0 {
			return false
		}
	}
	if sp.held == nil || sp.held.round < q.round {
		sp.held = q
	}
	return true
}

// answerHeld answers the question of which the answer was put off.
func (s *Session) answerHeld(sp *spaceState) {
	q := sp.held
	if q == nil {
		return
	}
	sp.held = nil
	if sp.load.answer == nil || sp.load.answer.round < q.round {
		sp.load.answer = q
	}
	s.loadFrontier(sp)
}

// goAlone gives up that this way down serves the peer too.
func (s *Session) goAlone(sp *spaceState) {
	sp.diff.alone = true
	s.answerHeld(sp)
}

// region is a part of the trie.
type region struct {
	all     bool
	buckets map[byte]ChildSet // by the number of their inner node
}

func (r *region) has(bucket uint16) bool {
	if r.all {
		return true
	}
	set := r.buckets[byte(bucket>>8)]
	return set.Has(byte(bucket))
}

// add adds buckets of an inner node.
func (r *region) add(inner byte, set ChildSet) {
	if set.Empty() {
		return
	}
	if r.buckets == nil {
		r.buckets = map[byte]ChildSet{}
	}
	have := r.buckets[inner]
	for i := range have {
		have[i] |= set[i]
	}
	r.buckets[inner] = have
}

// sets is the region as a FrontierOpen or FrontierDiff says it.
func (r *region) sets() (whole ChildSet, buckets []uint16) {
	for c := range 256 {
		set := r.buckets[byte(c)]
		if set == allChildren {
			whole.Add(byte(c))
			continue
		}
		for i := range set.All() {
			buckets = append(buckets, uint16(c)<<8|uint16(i))
		}
	}
	return whole, buckets
}

// addSets adds what sets has.
func (r *region) addSets(whole *ChildSet, buckets []uint16) {
	for i := range whole.All() {
		r.add(i, allChildren)
	}
	for _, b := range buckets {
		var one ChildSet
		one.Add(byte(b))
		r.add(byte(b>>8), one)
	}
}

// addChanged adds the buckets in which two frontiers differ, and returns how many these are.
func (r *region) addChanged(f, g *Frontier) (n int) {
	for c := range 256 {
		i := byte(c)
		a, b := f.at(i), g.at(i)
		if a == b {
			continue
		}
		var set ChildSet
		for k := range 256 {
			if a.child(byte(k)) != b.child(byte(k)) {
				set.Add(byte(k))
			}
		}
		r.add(i, set)
		n += set.Len()
	}
	return n
}

// entriesIn is the entries of a region, bucket by bucket.
func (f *Frontier) entriesIn(where region) (out []FrontierEntry) {
	if f == nil {
		return nil
	}
	if where.all {
		out = make([]FrontierEntry, 0, f.count)
		for e := range f.All() {
			out = append(out, e)
		}
		return out
	}
	for inner := range where.buckets {
		set := where.buckets[inner]
		for i := range set.All() {
			out = append(out, f.at(inner).leaf(i)...)
		}
	}
	return out
}

// rootNode is the digests of the root's children.
func (f *Frontier) rootNode() FrontierNode {
	var n FrontierNode
	for i := range 256 {
		if c := f.at(byte(i)); c != nil {
			n.Present.Add(byte(i))
			n.Digests = append(n.Digests, c.digest)
		}
	}
	return n
}

// message is the digests of the leaves of inner node i.
func (n *innerNode) message(i byte) FrontierNode {
	m := FrontierNode{Node: 1 + uint16(i), Present: n.present, Digests: make([]ChildDigest, len(n.leaves))}
	for k := range n.leaves {
		m.Digests[k] = n.leaves[k].digest
	}
	return m
}

// DiffEntries is how many entries of the peer's frontiers are held because their
// exchange is under way, over all spaces: some 130 bytes each. Its driver bounds the
// sum over all sessions.
func (s *Session) DiffEntries() int { return s.diffEntries }

// dropDiff forgets what has arrived of the peer's frontier.
func (s *Session) dropDiff(sp *spaceState) {
	s.diffEntries -= sp.diff.held
	sp.diff = diff{}
}

func (s *Session) diffPart(m *FrontierDiff) {
	sp := s.spaces[m.Space]
	if sp == nil || sp.ask.round == 0 || sp.ask.round != m.Round {
		return
	}
	d := &sp.diff
	if m.Step != d.step || m.Part != d.next {
		return // a repeated part, or one is missing and we ask again
	}
	if len(m.Entries) > maxReceivedDiffEntries || d.held+len(m.Entries) > MaxFrontierEntries {
		s.violation(fmt.Sprintf("a frontier difference of more than %d entries, or more than %d in one part", MaxFrontierEntries, maxReceivedDiffEntries))
		return
	}
	if len(m.Entries)+len(m.Nodes) == 0 && !m.Last {
		s.violation("an empty part of a frontier difference that is not the last")
		return
	}
	switch within := !m.Whole.Empty() || len(m.Buckets) > 0; {
	case within && (!sp.ask.levels || d.step > 0 || m.Part > 0 || len(m.Nodes) > 0):
		s.violation("buckets of a frontier difference that is not the begin of an answer of entries")
		return
	case within:
		d.differ.addSets(&m.Whole, m.Buckets)
		d.open.addSets(&m.Whole, m.Buckets)
	case d.step == 0 && m.Part == 0 && len(m.Nodes) == 0:
		d.differ.all, d.open.all = true, true
	}
	for i := range m.Nodes {
		if !s.takeNode(sp, m, &m.Nodes[i]) {
			return
		}
	}
	if !s.takeEntries(sp, m.Entries) {
		return
	}
	d.next++
	s.after(&sp.ask.timer, sp.ask.delay)
	if m.Last {
		s.stepDone(sp)
	}
}

// takeEntries keeps the entries of a part, and no room for others: only what is kept is
// counted. False if the peer broke the protocol.
func (s *Session) takeEntries(sp *spaceState, entries []FrontierEntry) bool {
	n := 0
	for i := range entries {
		if entries[i].Branch.IsZero() { // other branches are for later versions (design 4.8)
			n++
		}
	}
	if n == 0 {
		return true
	}
	part := make([]FrontierEntry, 0, n)
	for i := range entries {
		e := &entries[i]
		if !e.Branch.IsZero() {
			continue
		}
		if !s.checkEntry(sp, e) {
			return false
		}
		part = append(part, *e)
	}
	d := &sp.diff
	d.entries = append(d.entries, part)
	d.held += n
	s.diffEntries += n
	return true
}

// checkEntry notes where an entry of the peer's is; false if it broke the protocol.
func (s *Session) checkEntry(sp *spaceState, e *FrontierEntry) bool {
	if !validPosition(e.Pos) || e.Pos.Seq == 0 {
		s.violation("a frontier entry without a position")
		return false
	}
	d := &sp.diff
	if !d.open.all {
		bucket := bucketOf(e.Log)
		if !d.open.has(bucket) {
			s.violation("a frontier entry of a bucket that was not asked for")
			return false
		}
		if inner := byte(bucket >> 8); d.nodes.Has(inner) {
			d.listed.Add(inner)
		}
	}
	return true
}

// takeNode compares a node of the peer's trie with ours and notes what is to be
// opened; false if the peer broke the protocol.
func (s *Session) takeNode(sp *spaceState, m *FrontierDiff, n *FrontierNode) bool {
	d, root := &sp.diff, n.Node == 0
	switch {
	case len(n.Digests) != n.Present.Len():
		s.violation("a frontier node with more or fewer digests than children")
		return false
	case root && (d.step > 0 || !sp.ask.levels || len(m.Nodes) > 1 || len(m.Entries) > 0 || m.Part > 0 || !m.Last):
		s.violation("a root of a frontier that was not asked for, or with something beside it")
		return false
	case !root && (n.Node > 256 || !d.nodes.Has(byte(n.Node-1)) || d.listed.Has(byte(n.Node-1))):
		s.violation("a frontier node that was not asked for, or that came before")
		return false
	case root:
		s.takeRoot(sp, n)
	default:
		s.takeInner(sp, byte(n.Node-1), n)
	}
	return true
}

func (s *Session) takeRoot(sp *spaceState, n *FrontierNode) {
	d, own := &sp.diff, sp.ask.own
	d.root, d.digest = *n, n.hash()
	if sp.held != nil && sp.held.digest != d.digest {
		s.goAlone(sp)
	}
	k := 0
	for c := range 256 {
		i := byte(c)
		var theirs, ours ChildDigest
		if n.Present.Has(i) {
			theirs = n.Digests[k]
			k++
		}
		if node := own.at(i); node != nil {
			ours = node.digest
		}
		switch {
		case ours == theirs:
		case theirs == ChildDigest{}:
			d.differ.add(i, allChildren) // the peer has nothing there
		case ours == ChildDigest{}:
			d.openWhole.Add(i)
		default:
			d.openNodes.Add(i)
		}
	}
}

func (s *Session) takeInner(sp *spaceState, inner byte, n *FrontierNode) {
	d, own := &sp.diff, sp.ask.own.at(inner)
	if h := n.hash(); ChildDigest(h[:]) != d.root.Digests[d.root.Present.rank(inner)] {
		s.goAlone(sp)
	}
	d.nodes.Remove(inner)
	delete(d.open.buckets, inner)
	var differ ChildSet
	var open []uint16
	k := 0
	for c := range 256 {
		i := byte(c)
		var theirs ChildDigest
		if n.Present.Has(i) {
			theirs = n.Digests[k]
			k++
		}
		if own.child(i) == theirs {
			continue
		}
		differ.Add(i)
		if theirs != (ChildDigest{}) {
			open = append(open, uint16(inner)<<8|uint16(c))
		}
	}
	if 2*len(open) > len(n.Digests) {
		d.openWhole.Add(inner) // shorter to ask for, and not much longer to answer
		return
	}
	d.differ.add(inner, differ)
	d.openBuckets = append(d.openBuckets, open...)
}

// stepDone asks the next step, or takes the complete answer.
func (s *Session) stepDone(sp *spaceState) {
	d := &sp.diff
	for i := range d.nodes.All() { // entries came in place of digests, or nothing is left
		d.differ.add(i, allChildren)
	}
	if d.openNodes.Empty() && d.openWhole.Empty() && len(d.openBuckets) == 0 {
		if whole, buckets := d.differ.sets(); !d.digest.IsZero() && !d.alone && len(buckets) <= maxSharedBuckets && !(whole.Empty() && len(buckets) == 0) {
			sp.found = found{root: d.digest, own: sp.ask.own, differ: d.differ}
		}
		s.compared(sp, sp.ask.own, d.differ, slices.Concat(d.entries...))
		return
	}
	if d.openNodes.Len()+d.openWhole.Len() > maxSharedNodes || len(d.openBuckets) > maxSharedBuckets {
		s.goAlone(sp)
	}
	slices.Sort(d.openBuckets)
	n := min(len(d.openBuckets), MaxOpenBuckets)
	m := &FrontierOpen{
		Space: sp.info.ID, Round: sp.ask.round, Step: d.step + 1,
		Nodes: d.openNodes, Whole: d.openWhole, Buckets: d.openBuckets[:n:n],
	}
	d.step, d.next = m.Step, 0
	d.nodes, d.listed, d.open = m.Nodes, ChildSet{}, region{}
	d.openNodes, d.openWhole, d.openBuckets = ChildSet{}, ChildSet{}, d.openBuckets[n:]
	for i := range m.Nodes.All() {
		d.open.add(i, allChildren)
	}
	d.open.addSets(&m.Whole, m.Buckets)
	d.differ.addSets(&m.Whole, nil)
	s.send(m)
	sp.ask.sends = s.sends
	s.after(&sp.ask.timer, s.jitter(sp.ask.delay))
}

// openAsked notes what the peer wants to see of our trie; the answer follows from our
// frontier.
func (s *Session) openAsked(m *FrontierOpen) {
	sp := s.spaces[m.Space]
	if sp == nil || sp.declined || !s.shares(m.Space) {
		return
	}
	if o := sp.load.open; o == nil || o.Round < m.Round || o.Round == m.Round && o.Step < m.Step {
		sp.load.open = m
	}
	s.loadFrontier(sp)
}

func (s *Session) answerOpen(sp *spaceState, m *FrontierOpen, own *Frontier) {
	parts := s.diffParts(sp, m.Round, m.Step)
	for i := range m.Nodes.All() {
		if n := own.at(i); n.len() > s.cfg.WholeEntries {
			parts.node(n.message(i))
		} else {
			parts.below(n)
		}
	}
	for i := range m.Whole.All() {
		parts.below(own.at(i))
	}
	for _, b := range m.Buckets {
		for _, e := range own.leaf(b) {
			parts.entry(e)
		}
	}
	parts.end()
}

// diffParts sends a FrontierDiff in parts.
type diffParts struct {
	s    *Session
	part *FrontierDiff
	room int // bytes
}

const (
	// partRoom is what entries and nodes may take of a message, partEntry what an
	// entry takes at most, so that MaxDiffEntries fit; partNode what a node takes
	// beside its digests.
	partRoom  = MaxDiffEntries * partEntry
	partEntry = 133
	partNode  = 48
)

func (s *Session) diffParts(sp *spaceState, round, step uint64) *diffParts {
	return &diffParts{s: s, part: &FrontierDiff{Space: sp.info.ID, Round: round, Step: step}, room: partRoom}
}

func (p *diffParts) entry(e FrontierEntry) {
	p.take(partEntry)
	p.part.Entries = append(p.part.Entries, e)
}

func (p *diffParts) node(n FrontierNode) {
	p.take(partNode + childDigestBytes*len(n.Digests))
	p.part.Nodes = append(p.part.Nodes, n)
}

// within adds a region and all entries in it.
func (p *diffParts) within(own *Frontier, where *region) {
	whole, buckets := where.sets()
	p.take(partNode + 2*len(buckets))
	p.part.Whole, p.part.Buckets = whole, buckets
	for i := range whole.All() {
		p.below(own.at(i))
	}
	for _, b := range buckets {
		for _, e := range own.leaf(b) {
			p.entry(e)
		}
	}
}

// below adds all entries below a node.
func (p *diffParts) below(n *innerNode) {
	if n == nil {
		return
	}
	for i := range n.leaves {
		for _, e := range n.leaves[i].entries {
			p.entry(e)
		}
	}
}

// take makes room for the next piece.
func (p *diffParts) take(bytes int) {
	if p.room < bytes || len(p.part.Nodes) == MaxDiffNodes {
		next := &FrontierDiff{Space: p.part.Space, Round: p.part.Round, Step: p.part.Step, Part: p.part.Part + 1}
		p.s.send(p.part)
		p.part, p.room = next, partRoom
	}
	p.room -= bytes
}

func (p *diffParts) end() {
	p.part.Last = true
	p.s.send(p.part)
}

// positionIn is a log's position in a sorted list; zero if it is not there.
func positionIn(entries []FrontierEntry, log LogID) Position {
	i, found := slices.BinarySearchFunc(entries, log, func(e FrontierEntry, log LogID) int { return e.Log.Compare(log) })
	if !found {
		return Position{}
	}
	return entries[i].Pos
}
