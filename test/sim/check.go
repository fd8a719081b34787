package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"vixp2p/replication"
)

// truth is what the simulation knows of all nodes.
type truth struct {
	// blocks is every block that its origin signed, by where it ends: the only ones
	// that may ever be stored anywhere (G3).
	blocks map[ending]bool
	// forked is the logs of which two branches were signed (design 4.8). Of these
	// neither G4 to G6 is promised, but no claim about them may be false.
	forked map[replication.LogID]bool
	// views is the state that belongs to a frontier, whoever shows it (G5).
	views map[[32]byte][32]byte
}

// ending names a block by its log and end.
type ending struct {
	log replication.LogID
	pos replication.Position
}

func (t *truth) init() {
	t.blocks = map[ending]bool{}
	t.forked = map[replication.LogID]bool{}
	t.views = map[[32]byte][32]byte{}
}

// mirror follows what a node's store reports as durable. It must survive every
// crash of the node (G1).
type mirror struct {
	n        *node
	frontier map[replication.LogID]replication.Position
	arrival  map[replication.SpaceID]uint64
	view     view
	mark     [32]byte                         // of the frontier: the sum of the hashes of its entries
	marks    map[replication.SpaceID][32]byte // likewise of each space, without logs that nobody else takes
	genesis  map[replication.LogID]*replication.Genesis
	acked    map[replication.LogID]replication.Position   // appends that succeeded
	ends     map[replication.LogID][]replication.Position // of all blocks held
	has      map[ending]bool
}

func (m *mirror) init(n *node) {
	*m = mirror{
		n:        n,
		frontier: map[replication.LogID]replication.Position{},
		arrival:  map[replication.SpaceID]uint64{},
		view:     newView(),
		marks:    map[replication.SpaceID][32]byte{},
		genesis:  map[replication.LogID]*replication.Genesis{},
		acked:    map[replication.LogID]replication.Position{},
		ends:     map[replication.LogID][]replication.Position{},
		has:      map[ending]bool{},
	}
}

// lost: the disk lost data for good, and admits it by a new instance.
func (m *mirror) lost() { m.init(m.n) }

// reopened checks that the store still has what it had (G1).
func (m *mirror) reopened() {
	for _, l := range sortedLogs(m.frontier) {
		info, ok := m.n.store.Log(l)
		if !ok || info.Tip.Seq < m.frontier[l].Seq {
			m.n.w.fail("G1: %s had log %s up to %d and has it up to %d after a crash", m.n, l.Short(), m.frontier[l].Seq, info.Tip.Seq)
		}
	}
	m.catchUp()
	m.checkAcked()
}

func (m *mirror) checkAcked() {
	for _, l := range sortedLogs(m.acked) {
		if at := m.acked[l]; m.frontier[l].Seq < at.Seq {
			m.n.w.fail("G1: the acknowledged write %s/%d of %s is gone", l.Short(), at.Seq, m.n)
		}
	}
}

// catchUp reads what became durable and checks it.
func (m *mirror) catchUp() {
	w := m.n.w
	for _, space := range w.allSpaces() {
		for {
			list, err := m.n.store.ReadArrivals(space, m.arrival[space], 1<<20)
			if err != nil {
				w.fail("%s: reading arrivals: %v", m.n, err)
				return
			}
			if len(list) == 0 {
				break
			}
			for _, a := range list {
				m.arrival[space] = a.Number
				m.take(space, a)
			}
		}
	}
	if known, ok := w.truth.views[m.mark]; !ok {
		w.truth.views[m.mark] = m.view.digest
	} else if known != m.view.digest {
		w.fail("G5: %s shows another state than a node with the same frontier did", m.n)
	}
}

func (m *mirror) take(space replication.SpaceID, a replication.Arrival) {
	w, log, end := m.n.w, a.Block.Header.Log, a.Block.End()
	w.checkTaken(m.n, space, a)
	if m.n.declines(space) {
		w.fail("G7: %s has %s/%d of a space in which it takes no part", m.n, log.Short(), end.Seq)
		return
	}
	if at := m.frontier[log]; a.Block.PrevPosition() != at {
		w.fail("G4: %s has block %s/%d after %d", m.n, log.Short(), a.Block.Header.FirstSeq, at.Seq)
		return
	}
	e := ending{log, end}
	switch known := w.truth.blocks[e]; {
	case !known && a.Origin == m.n.origin():
		w.truth.blocks[e] = true
	case !known:
		w.fail("G3: %s has a block %s/%d that its origin never made durable", m.n, log.Short(), end.Seq)
		return
	}
	addHash(&m.mark, entryHash(log, m.frontier[log]))
	m.frontier[log] = end
	m.ends[log] = append(m.ends[log], end)
	m.has[e] = true
	addHash(&m.mark, entryHash(log, end))
	if g := a.Block.Header.Genesis; g != nil {
		m.genesis[log] = g
	}
	if !w.illegal(a.Origin, space) {
		mark := m.marks[space]
		addHash(&mark, entryHash(log, a.Block.PrevPosition()))
		addHash(&mark, entryHash(log, end))
		m.marks[space] = mark
	}
	if w.isControl(space) {
		return
	}
	ops, err := replication.DecodeBody(a.Block.Header, a.Block.Body)
	if err != nil {
		w.fail("%s: %v", m.n, err)
		return
	}
	for i := range ops {
		m.view.apply(replication.Dot{Log: log, Seq: a.Block.Header.FirstSeq + uint64(i)}, &ops[i])
	}
}

// entryHash is zero for the place before the first block.
func entryHash(log replication.LogID, p replication.Position) [32]byte {
	if p.Seq == 0 {
		return [32]byte{}
	}
	return sha256.Sum256(append(append(log[:], p.Hash[:]...), byte(p.Seq)))
}

// addHash adds modulo 2 bit by bit: adding twice takes away.
func addHash(sum *[32]byte, h [32]byte) {
	for i := range sum {
		sum[i] ^= h[i]
	}
}

// holds tells whether a node's disk has a position right now.
func (n *node) holds(log replication.LogID, p replication.Position) bool {
	return p.Seq == 0 || n.mirror.has[ending{log, p}]
}

// common is up to where two nodes hold the same of a log.
func (n *node) common(o *node, log replication.LogID) uint64 {
	ends := n.mirror.ends[log]
	for i := len(ends) - 1; i >= 0; i-- {
		if o.holds(log, ends[i]) {
			return ends[i].Seq
		}
	}
	return 0
}

// checkStatement: what a node says that it holds, it holds durably (G2).
func (n *node) checkStatement(m replication.Message) {
	claim := func(what string, log replication.LogID, p replication.Position) {
		if !n.holds(log, p) {
			n.w.fail("G2: %s %s %s/%d, and has it durably up to %d", n, what, log.Short(), p.Seq, n.mirror.frontier[log].Seq)
		}
	}
	switch m := m.(type) {
	case *replication.WalAck:
		for _, e := range m.Entries {
			claim("acks", e.Log, e.Pos)
		}
	case *replication.FrontierDiff:
		for _, e := range m.Entries {
			claim("states", e.Log, e.Pos)
		}
	case *replication.Announce:
		for _, e := range m.Entries {
			claim("announces", e.Log, e.Pos)
		}
	case *replication.Graft:
		claim("grafts after", m.Log, m.From)
	case *replication.WalPush:
		if m.Total > 0 {
			claim("pushes", m.Log, m.End)
		}
	}
}

// checkLevels: a node of a version that does not go down the levels of a frontier is
// sent nothing that it does not know.
func (n *node) checkLevels(p *peer, m replication.Message) {
	of, shared := false, false
	switch m := m.(type) {
	case *replication.FrontierDigest:
		of = m.Levels
	case *replication.FrontierDiff:
		shared = len(m.Buckets) > 0 || !m.Whole.Empty()
		of = m.Step > 0 || len(m.Nodes) > 0 || shared
	case *replication.FrontierOpen:
		of = true
		n.w.res.Opened++
	}
	if shared {
		n.w.res.Shared++
	}
	if of && !p.l.levels || shared && !p.l.shares {
		n.w.fail("7.5: %s sends %s to %s, which does not know that", n, describe(m), p.other())
	}
}

// checkClaims: what a session concludes that its peer holds, the peer holds
// durably (G2).
func (n *node) checkClaims(p *peer, ev replication.Event) {
	switch ev := ev.(type) {
	case replication.Advanced:
		n.checkClaim(p, ev.Space, ev.Log)
	case replication.RunRead:
		n.checkClaim(p, ev.Space, ev.Log)
	case replication.LocalFrontier:
		n.checkAllClaims(p)
	case replication.Received:
		switch m := ev.Msg.(type) {
		case *replication.WalAck:
			for _, e := range m.Entries {
				n.checkClaim(p, e.Space, e.Log)
			}
		case *replication.Announce:
			for _, e := range m.Entries {
				n.checkClaim(p, m.Space, e.Log)
			}
		case *replication.Graft:
			if info, ok := n.store.Log(m.Log); ok {
				n.checkClaim(p, info.Space, m.Log)
			}
		case *replication.WalPush:
			n.checkClaim(p, m.Space, m.Log)
		case *replication.FrontierDigest:
			n.checkAllClaims(p)
		}
	}
}

func (n *node) checkAllClaims(p *peer) {
	for _, space := range n.w.allSpaces() {
		for _, i := range n.store.Logs(space) {
			n.checkClaim(p, space, i.Log)
		}
	}
}

func (n *node) checkClaim(p *peer, space replication.SpaceID, log replication.LogID) {
	if len(p.ahead) > 0 {
		return // the session has not been told of everything yet
	}
	for _, it := range n.inbox {
		if _, ok := it.ev.(replication.Advanced); ok && it.p == p {
			return
		}
	}
	tip := n.mirror.frontier[log].Seq
	has := n.common(p.other(), log)
	if has < tip && p.s.Acked(space, log, has+1) {
		n.w.fail("G2: %s believes that %s holds %s/%d; it has it up to %d", n, p.other(), log.Short(), has+1, has)
	}
}

// equal tells whether all nodes hold the same.
func (w *world) equal() bool {
	if w.members != nil {
		return w.equalMembers()
	}
	for _, n := range w.nodes {
		if n.store == nil || n.store.Queued() > 0 || !w.same(&n.mirror, &w.nodes[0].mirror) {
			return false
		}
	}
	return true
}

// same compares what two nodes hold of logs that are not forked.
func (w *world) same(a, b *mirror) bool {
	if len(w.truth.forked) == 0 {
		return a.mark == b.mark
	}
	for _, m := range [2]*mirror{a, b} {
		for l := range m.frontier {
			if !w.truth.forked[l] && a.frontier[l] != b.frontier[l] {
				return false
			}
		}
	}
	return true
}

// settled tells whether all sessions have nothing left to do.
func (w *world) settled() bool {
	if w.members != nil {
		return w.equal() && w.settledMembers()
	}
	if !w.equal() || !w.forksFound() {
		return false
	}
	for _, l := range w.links {
		for _, p := range l.peers {
			if p == nil || len(p.ahead) > 0 {
				return false
			}
			progress := p.s.Progress()
			if len(progress) < len(w.spaces) {
				return false
			}
			for _, pr := range progress {
				if !pr.Settled || len(pr.PendingLogs) > 0 || pr.MissingOps > 0 {
					return false
				}
			}
		}
	}
	return true
}

// checkAll is what must be true when all is quiet.
func (w *world) checkAll() {
	if w.members != nil {
		w.checkMembers()
		return
	}
	for _, n := range w.nodes {
		n.mirror.checkAcked()
		for _, p := range n.peers {
			for log, at := range n.mirror.frontier {
				info, _ := n.store.Log(log)
				if !w.truth.forked[log] && !p.s.Acked(info.Space, log, at.Seq) {
					w.fail("%s does not know that %s holds %s/%d", n, p.other(), log.Short(), at.Seq)
				}
			}
		}
	}
}

// forksFound tells whether every fork that two neighbours can see is detected
// (design 4.8): they hold different branches, and one can prove it. The other has
// its proof too unless the link lost it: it is sent once per session.
func (w *world) forksFound() bool {
	w.res.Forks = 0
	for _, l := range w.links {
		a, b := l.ends[0], l.ends[1]
		for _, log := range sortedLogs(a.mirror.frontier) {
			common := a.common(b, log)
			if common == a.mirror.frontier[log].Seq || common == b.mirror.frontier[log].Seq {
				continue // equal, or one is behind on the same branch
			}
			w.res.Forks++
			if !a.proves(log) && !b.proves(log) {
				return false
			}
		}
	}
	return true
}

func (n *node) proves(log replication.LogID) bool {
	p, ok := n.store.ForkProofOf(log)
	return ok && p.Verify() == nil
}

// state describes the nodes, for a failure.
func (w *world) state() string {
	var b strings.Builder
	for _, n := range w.nodes {
		fmt.Fprintf(&b, "%s up %v:", n, n.store != nil)
		for _, l := range sortedLogs(n.mirror.frontier) {
			fmt.Fprintf(&b, " %s=%d", l.Short(), n.mirror.frontier[l].Seq)
		}
		b.WriteByte('\n')
		for _, p := range n.peers {
			fmt.Fprintf(&b, "  with %s, deadline in %s:", p.other(), p.s.Deadline().Sub(w.now).Round(time.Millisecond))
			for _, pr := range p.s.Progress() {
				fmt.Fprintf(&b, " settled %v missing %d paused %d pending", pr.Settled, pr.MissingOps, len(pr.Paused))
				for _, l := range pr.PendingLogs {
					fmt.Fprintf(&b, " %s %d..%d", l.Log.Short(), l.Acked.Seq, l.Tip.Seq)
				}
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func uint64Bytes(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
