package sim

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/memlog"
)

// node is a disk, the store that is open on it while the node is up, and a
// session per connected link: a driver without goroutines.
type node struct {
	w      *world
	index  int
	net    replication.NetworkID
	key    ed25519.PrivateKey
	rand   *rand.ChaCha8
	disk   *memlog.Disk
	store  *memlog.Store // nil: down
	life   int           // counts opens: what was scheduled in an earlier one is void
	peers  []*peer
	source uint64

	inbox    []inboxItem
	draining bool
	flushing bool
	partials map[partialKey]*replication.Partial
	mirror   mirror
	declined replication.SpaceID // in which the node takes no part; zero: none
	member                       // of a network of members
	mesh     *replication.Mesh
	meshAt   time.Time // when it is to be told of the time; zero: not
	received int       // bytes of runs
}

type partialKey struct {
	node     int
	instance replication.Instance
}

type inboxItem struct {
	p  *peer
	ev replication.Event
}

// peer is one session of a node.
type peer struct {
	n        *node
	l        *link
	end      int // of the link, where n is
	source   uint64
	instance replication.Instance // of the other node
	s        *replication.Session
	gone     bool
	tickAt   time.Time
	ahead    []replication.Advanced // told with the next event, if advances are lazy
	origins  map[replication.LogID]replication.OriginKey
	pushed   map[replication.Dot]bool     // for NoResend
	told     int                          // advances so far
	brought  map[replication.LogID]uint64 // committed from the peer, up to this seq
	pulling  time.Time                    // when the unanswered Pull was made
	started  map[replication.SpaceID]bool // the spaces that the session began with
	carries  map[replication.SpaceID]bool // the data spaces that the other node may have
}

func newNode(w *world, i int, net replication.NetworkID, key ed25519.PrivateKey) *node {
	n := &node{w: w, index: i, net: net, key: key, disk: &memlog.Disk{}, partials: map[partialKey]*replication.Partial{}}
	var seed [32]byte
	seed[0] = byte(i)
	for k := range 8 {
		seed[8+k] = byte(w.cfg.Seed >> (8 * k))
	}
	n.rand = rand.NewChaCha8(seed)
	n.mirror.init(n)
	return n
}

func (n *node) String() string { return fmt.Sprintf("n%d", n.index) }

func (p *peer) alive() bool { return p != nil && !p.gone }

func (p *peer) other() *node { return p.l.ends[1-p.end] }

// open starts the node if it is down.
func (n *node) open() {
	if n.store != nil || n.removed {
		return
	}
	store, err := memlog.Open(memlog.Options{
		Network: n.net, Key: n.key, Now: func() time.Time { return n.w.now }, Rand: n.rand, Manual: true, Disk: n.disk, Grant: n.grant(),
	})
	if err != nil {
		n.w.fail("%s does not open: %v", n, err)
		return
	}
	n.life++
	n.store = store
	info := store.Info()
	n.w.trace("%s opens, instance %x %s", n, info.Instance[:3], info.Recovered)
	n.mirror.reopened()
	n.openMesh()
	store.Subscribe(n.advanced)
	n.opened()
	for _, l := range n.w.links {
		if l.ends[0] == n || l.ends[1] == n {
			l.connectLater()
		}
	}
}

// crash ends the node between two steps. What was not durable is lost; sometimes
// a transaction gets through that nobody hears of; sometimes the disk is lost.
func (n *node) crash() {
	n.w.res.Crashes++
	n.w.trace("%s crashes with %d queued", n, n.store.Queued())
	if n.w.chance(0.3) {
		n.store.CrashInFlush()
	} else {
		n.store.Crash()
	}
	n.store = nil
	n.life++
	n.inbox, n.flushing = nil, false
	clear(n.partials)
	for _, l := range n.w.links {
		if l.ends[0] == n || l.ends[1] == n {
			l.cut("crash")
		}
	}
	switch {
	case n.w.chance(n.w.odds.wipe):
		n.w.trace("%s loses its directory", n)
		n.disk.Wipe()
		n.mirror.lost()
	case n.w.chance(n.w.odds.wipe):
		n.w.trace("%s loses its last transactions", n)
		n.disk.Rollback(1 + n.w.rng.IntN(5))
		n.mirror.lost()
	case n.w.chance(0.2):
		n.disk.Reboot()
	}
	n.w.after(n.w.some(3*time.Second), n.open)
}

func (n *node) fillDisk() {
	n.w.trace("%s has a full disk", n)
	n.disk.SetFull(true)
	n.w.after(n.w.some(3*time.Second), func() { n.disk.SetFull(false) })
}

// ifAlive runs fn later unless the node was restarted meanwhile.
func (n *node) ifAlive(d time.Duration, fn func()) {
	life := n.life
	n.w.after(d, func() {
		if n.life == life {
			fn()
		}
	})
}

func (n *node) attach(l *link, end int) *peer {
	other := l.ends[1-end]
	n.source++
	p := &peer{
		n: n, l: l, end: end, source: n.source, instance: other.store.Info().Instance,
		origins: map[replication.LogID]replication.OriginKey{}, pushed: map[replication.Dot]bool{}, brought: map[replication.LogID]uint64{},
		started: map[replication.SpaceID]bool{},
	}
	o := &n.w.odds
	cfg := replication.SessionConfig{
		Instance:     p.instance,
		PeerPullOnly: l.pullOnly[1-end],
		WindowBytes:  o.window,
		ReadBytes:    o.read,
		PieceBytes:   l.piece,
		AckDelay:     o.ackDelay,
		RetryAfter:   400 * time.Millisecond,
		RetryMax:     4 * time.Second,
		PingEvery:    500 * time.Millisecond,
		StaleAfter:   2 * time.Second,
		CloseAfter:   5 * time.Second,
		PeerLevels:   l.levels,
		PeerShares:   l.shares,
		WholeEntries: o.whole,
		Rand:         n.w.rng.Int64N,
	}
	n.w.limitSession(p, &cfg)
	var do []replication.MeshAction
	cfg.Mesh = true
	cfg.StartLazy, do = n.mesh.Attach(n.w.now, p.source, cfg.Carries)
	key := partialKey{other.index, p.instance}
	cfg.Resume = n.partials[key]
	delete(n.partials, key)
	p.s = replication.NewSession(cfg)
	n.peers = append(n.peers, p)
	n.meshDo(do)
	return p
}

func (n *node) startSession(p *peer) {
	ev := replication.Started{Spaces: n.spaces()}
	if extra := len(ev.Spaces) - 1; extra > 0 && n.w.chance(0.3) {
		late := ev.Spaces[extra]
		ev.Spaces = ev.Spaces[:extra]
		n.w.after(n.w.some(2*time.Second), func() { n.post(p, replication.SpaceAdded{Space: late}) })
	}
	for _, s := range ev.Spaces {
		p.started[s.ID] = true
	}
	n.post(p, ev)
	if p.l.pullOnly[p.end] {
		n.pullLater(p)
	}
}

// pullLater asks for more when the last answer is complete, or lost.
func (n *node) pullLater(p *peer) {
	n.w.after(50*time.Millisecond+n.w.some(500*time.Millisecond), func() {
		if p.gone {
			return
		}
		if p.pulling.IsZero() || n.w.now.Sub(p.pulling) > 3*time.Second {
			p.pulling = n.w.now
			pull := replication.Pull{MaxOps: uint64(n.w.rng.IntN(20)), MaxBytes: uint64(n.w.rng.IntN(4000))}
			if n.w.chance(0.3) {
				of := n.spaces()
				pull.Space = of[n.w.rng.IntN(len(of))].ID
			}
			n.post(p, pull)
		}
		n.pullLater(p)
	})
}

func (n *node) detach(p *peer) {
	if p == nil || p.gone {
		return
	}
	p.gone = true
	if pt := p.s.Partial(); pt != nil && n.store != nil {
		n.partials[partialKey{p.other().index, p.instance}] = pt
	}
	for i, q := range n.peers {
		if q == p {
			n.peers = append(n.peers[:i:i], n.peers[i+1:]...)
			break
		}
	}
	if n.store != nil {
		n.meshDo(n.mesh.Detach(n.w.now, p.source))
	}
}

// advanced hears of every growth of a log, from the store.
func (n *node) advanced(a replication.Advance) {
	n.meshAdvanced(a)
	if n.trustAdvanced(a) {
		return
	}
	n.mirror.catchUp()
	for _, p := range n.peers {
		p.told++
		if n.w.cfg.Fault == ForgetAdvances && p.told%10 == 0 {
			continue
		}
		p.ahead = mergeAdvance(p.ahead, replication.Advanced{Advance: a, FromPeer: a.Source == p.source})
		if n.w.odds.lazy {
			n.w.after(n.w.some(5*time.Millisecond), func() { n.post(p, nil) })
		} else {
			n.post(p, nil)
		}
	}
}

// mergeAdvance adds an advance to those not told yet, one per log.
func mergeAdvance(list []replication.Advanced, a replication.Advanced) []replication.Advanced {
	for i := range list {
		if h := &list[i]; h.Log == a.Log {
			a.Prev, a.Ops, a.Bytes = h.Prev, a.Ops+h.Ops, a.Bytes+h.Bytes
			a.FromPeer = a.FromPeer && h.FromPeer
			*h = a
			return list
		}
	}
	return append(list, a)
}

// post tells a session of an event, after the advances before it; nil: of these
// alone.
func (n *node) post(p *peer, ev replication.Event) {
	if p.gone {
		return
	}
	for _, a := range p.ahead {
		n.inbox = append(n.inbox, inboxItem{p, a})
	}
	p.ahead = nil
	if ev != nil {
		n.inbox = append(n.inbox, inboxItem{p, ev})
	}
	if n.draining {
		return
	}
	n.draining = true
	for len(n.inbox) > 0 && n.w.err == nil {
		it := n.inbox[0]
		n.inbox = n.inbox[1:]
		if !it.p.gone {
			n.step(it.p, it.ev)
		}
	}
	n.draining = false
}

// receive tells a session of a message from its peer.
func (n *node) receive(p *peer, m replication.Message) {
	ev := replication.Received{Msg: m}
	switch m := m.(type) {
	case *replication.WalPush:
		info, _ := n.store.Log(m.Log)
		ev.Held = info.Tip.Seq
		n.mesh.Arriving(n.w.now, p.source, m.Log)
		n.received += len(m.Data)
	case *replication.Announce:
		for _, e := range m.Entries {
			info, _ := n.store.Log(e.Log)
			ev.Tips = append(ev.Tips, info.Tip)
		}
	}
	n.post(p, ev)
}

func (n *node) step(p *peer, ev replication.Event) {
	for _, e := range p.s.Step(n.w.now, ev) {
		if p.gone {
			break
		}
		n.carryOut(p, e)
	}
	if p.gone || n.w.err != nil {
		return
	}
	n.checkClaims(p, ev)
	if at := p.s.Deadline(); !at.IsZero() && (p.tickAt.IsZero() || at.Before(p.tickAt)) {
		p.tickAt = at
		n.w.after(max(0, at.Sub(n.w.now)), func() { n.tick(p, at) })
	}
}

func (n *node) tick(p *peer, at time.Time) {
	if !p.gone && p.tickAt.Equal(at) {
		p.tickAt = time.Time{}
		n.post(p, replication.Tick{})
	}
}

func (n *node) carryOut(p *peer, e replication.Effect) {
	w := n.w
	switch e := e.(type) {
	case replication.Send:
		if !w.cfg.Quiet {
			n.checkStatement(e.Msg)
		}
		n.checkLevels(p, e.Msg)
		m, push := e.Msg.(*replication.WalPush)
		if push && !w.cfg.Quiet && m.Total > 0 && m.End.Seq <= p.brought[m.Log] {
			w.fail("6.2: %s pushes %s/%d back to %s, from which it came", n, m.Log.Short(), m.End.Seq, p.other())
		}
		if a, ok := e.Msg.(*replication.Announce); ok && p.other().declines(a.Space) {
			w.fail("G7: %s announces %s/%d to %s, which takes no part in its space", n, a.Entries[0].Log.Short(), a.Entries[0].Pos.Seq, p.other())
		}
		if push && p.other().declines(m.Space) {
			w.fail("G7: %s pushes %s/%d to %s, which takes no part in its space", n, m.Log.Short(), m.End.Seq, p.other())
		}
		if push && w.cfg.Fault == NoResend {
			d := replication.Dot{Log: m.Log, Seq: m.End.Seq<<32 | m.Offset}
			if p.pushed[d] {
				return
			}
			p.pushed[d] = true
		}
		p.l.carry(p.end, e.Msg)
	case replication.LoadFrontier:
		n.ifAlive(w.some(2*time.Millisecond), func() { n.loadFrontier(p, e) })
	case replication.ReadRun:
		n.ifAlive(w.some(2*time.Millisecond), func() { n.readRun(p, e) })
	case replication.CommitRun:
		n.commit(p, e)
	case replication.AddSpace:
		// A node that takes part in it, and has not said so, does so soon.
		if n.declines(e.Space.ID) || n.mayNot(e.Space.ID) {
			n.ifAlive(w.some(2*time.Millisecond), func() { n.refuse(p, e.Space.ID) })
		}
	case replication.Ahead:
		n.meshAhead(p, e)
	case replication.Owes:
		if !w.isControl(e.Space) {
			n.meshDo(n.mesh.Owes(w.now, p.source, e.Logs, e.More))
		}
	case replication.PeerLazy:
		n.meshDo(n.mesh.PeerLazy(w.now, p.source, e.Lazy))
	case replication.CaughtUp:
		n.meshDo(n.mesh.CaughtUp(w.now, p.source))
	case replication.ControlInStep:
		n.applyTrust(p)
	case replication.SaveCursor:
		n.store.SaveCursor(p.other().origin(), p.instance, e.Entries)
	case replication.DataLoss:
		w.trace("%s: %s lost %s, was %d now %d", n, p.other(), e.Log.Short(), e.Was.Seq, e.Now.Seq)
		if info, _ := n.store.Log(e.Log); info.Limit != nil {
			break
		}
		w.fail("DataLoss was reported of %s, which keeps its instance only if it keeps its data", p.other())
	case replication.LogPaused:
		w.trace("%s: log %s with %s paused: %s %s, here %v", n, e.Log.Short(), p.other(), e.Code, e.Detail, e.Local)
		if e.Code != replication.CodeNoSpace && !w.mayPause(e) && !(e.Code == replication.CodeForked && w.truth.forked[e.Log]) {
			w.fail("log %s paused between %s and %s: %s %s", e.Log.Short(), n, p.other(), e.Code, e.Detail)
		}
	case replication.ForkSeen:
		if info, ok := n.store.Log(e.Proof.Log); ok && info.Origin == e.Proof.Origin && e.Proof.Verify() == nil {
			if _, err := n.store.RecordFork(e.Proof); err != nil && !errors.Is(err, replication.ErrNoSpace) {
				w.fail("%s: a proof of %s cannot be recorded: %v", n, e.Proof.Log.Short(), err)
			}
		}
	case replication.SendForkProof:
		if proof, ok := n.store.ForkProofOf(e.Log); ok {
			p.l.carry(p.end, &replication.ForkProofMsg{Space: e.Space, Proof: proof})
		}
	case replication.Pulled:
		p.pulling = time.Time{}
	case replication.CloseSession:
		if e.Code != replication.CodeStale {
			w.fail("%s closed its session with %s: %s %s", n, p.other(), e.Code, e.Detail)
		}
		p.l.cut("session closed")
	}
}

func (n *node) origin() replication.OriginKey {
	return replication.OriginKey(n.key.Public().(ed25519.PublicKey))
}

// loadFrontier reads the store now and tells the session a little later.
func (n *node) loadFrontier(p *peer, e replication.LoadFrontier) {
	ev := replication.LocalFrontier{Space: e.Space}
	held := map[replication.LogID]replication.LogInfo{}
	var entries []replication.FrontierEntry
	for _, i := range n.store.Logs(e.Space) {
		entries = append(entries, i.Entry())
		held[i.Log] = i
	}
	ev.Frontier = replication.NewFrontier(entries)
	if e.Stored {
		ev.Stored = replication.StoredDifference(ev.Frontier, n.stored(p, held))
	}
	n.ifAlive(n.w.some(3*time.Millisecond), func() { n.post(p, ev) })
}

// stored is what the store remembers that the peer stated.
func (n *node) stored(p *peer, held map[replication.LogID]replication.LogInfo) (out []replication.FrontierEntry) {
	stored, err := n.store.LoadCursor(p.other().origin(), p.instance)
	if err != nil {
		n.w.fail("%s: cursor of %s: %v", n, p.other(), err)
	}
	for _, e := range stored {
		if i, ok := held[e.Log]; ok && (i.Limit == nil || e.Pos.Seq <= i.Tip.Seq) {
			out = append(out, e)
		}
	}
	return out
}

func (n *node) readRun(p *peer, e replication.ReadRun) {
	ev := replication.RunRead{Space: e.Space, Log: e.Log}
	if e.Covering {
		ev.Run, ev.Err = n.store.RunCovering(e.Log, e.After.Seq)
	} else {
		ev.Run, ev.Err = n.store.ReadRun(e.Log, e.After, e.MaxBytes)
	}
	if ev.Err != nil && !n.w.mayFail(e, ev.Err) {
		n.w.fail("%s: log %s after %d: %v", n, e.Log.Short(), e.After.Seq, ev.Err)
	}
	n.ifAlive(n.w.some(2*time.Millisecond), func() { n.post(p, ev) })
}

// commit verifies a run and queues it.
func (n *node) commit(p *peer, e replication.CommitRun) {
	done := func(res replication.IngestResult) {
		res = n.cutShort(e, res)
		ev := replication.CommitDone{Space: e.Space, Log: e.Log, Result: res, Code: codeOf(res)}
		n.w.trace("%s: %s from %s: %s, tip %d %v", n, e.Log.Short(), p.other(), res.Code, res.Tip.Seq, res.Err)
		if res.Code == replication.Duplicate {
			n.w.res.Duplicates++
		}
		if res.Code == replication.Committed {
			p.brought[e.Log] = max(p.brought[e.Log], res.Tip.Seq)
		}
		n.meshAnswered(p, ev)
		n.post(p, ev)
	}
	src := replication.RunSource{Network: n.net, Log: e.Log, Space: e.Space, From: e.From}
	info, known := n.store.Log(e.Log)
	if known {
		src.Origin = &info.Origin
	} else if o, ok := p.origins[e.Log]; ok {
		src.Origin = &o
	} else if e.From.Seq > 0 {
		n.ifAlive(0, func() { done(replication.IngestResult{Code: replication.Gap}) })
		return
	}
	run, err := replication.VerifyRun(src, e.Data)
	if err != nil {
		n.ifAlive(0, func() {
			done(replication.IngestResult{Code: replication.Refused, Tip: info.Tip, Err: err})
		})
		return
	}
	p.origins[e.Log] = run.Origin
	if n.w.cfg.Fault == AckTooEarly {
		n.ifAlive(0, func() { done(replication.IngestResult{Code: replication.Committed, Tip: run.End()}) })
		n.store.Ingest(p.source, run, func(replication.IngestResult) {})
	} else {
		n.store.Ingest(p.source, run, done)
	}
	n.flushLater()
}

func codeOf(res replication.IngestResult) replication.Code {
	switch {
	case errors.Is(res.Err, replication.ErrRevoked):
		return replication.CodeRevoked
	case errors.Is(res.Err, replication.ErrNotAllowed):
		return replication.CodeNotAllowed
	case errors.Is(res.Err, replication.ErrNoSpace):
		return replication.CodeNoSpace
	case res.Err != nil:
		return replication.CodeBadRun
	}
	return replication.CodeOK
}

// flushLater makes one queued transaction durable a little later.
func (n *node) flushLater() {
	if n.flushing {
		return
	}
	n.flushing = true
	d := n.w.odds.fsync
	if d == 0 {
		d = n.w.some(n.w.odds.flush)
	}
	n.ifAlive(d, func() {
		n.flushing = false
		n.store.FlushOne()
		if n.store != nil && n.store.Queued() > 0 {
			n.flushLater()
		}
	})
}
