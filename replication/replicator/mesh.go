package replicator

import (
	"sync"
	"time"

	"vixp2p/replication"
)

// mesh drives replication.Mesh: who pushes which log to this node (design 6.4). It is
// told by the sessions' actors and by the store's committer, and posts to the actors;
// nothing here waits for anything but its own lock, which is a leaf but for mailboxes'.
type mesh struct {
	store   replication.Store
	control replication.SpaceID

	mu     sync.Mutex // guards below
	m      *replication.Mesh
	peers  map[uint64]*Peer
	timer  *time.Timer
	armed  time.Time // when the timer fires; zero: not
	closed bool
}

func newMesh(o *Options) *mesh {
	m := &mesh{
		store: o.Store, control: o.Control,
		m:     replication.NewMesh(replication.MeshConfig{Degree: o.MeshDegree, Few: o.MeshFew, ExchangeEvery: o.ExchangeEvery, Rand: o.Rand}),
		peers: map[uint64]*Peer{},
	}
	m.timer = time.AfterFunc(time.Hour, m.tick)
	m.timer.Stop()
	return m
}

// do tells the mesh something and carries out what follows.
func (m *mesh) do(fn func(now time.Time, m *replication.Mesh) []replication.MeshAction) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doLocked(fn)
}

func (m *mesh) doLocked(fn func(now time.Time, m *replication.Mesh) []replication.MeshAction) {
	if m.closed {
		return
	}
	for _, a := range fn(time.Now(), m.m) {
		if p := m.peers[a.Session]; p != nil {
			m.tell(p, a.Event)
		}
	}
	at := m.m.Deadline()
	switch {
	case at.Equal(m.armed):
	case at.IsZero():
		m.timer.Stop()
	default:
		m.timer.Reset(max(0, time.Until(at)))
	}
	m.armed = at
}

// tell posts to a session. Of a log of a space that its peer may not have the peer hears
// nothing.
func (m *mesh) tell(p *Peer, ev replication.Event) {
	switch e := ev.(type) {
	case replication.MeshPrune:
		if info, ok := m.store.Log(e.Log); ok && !p.r.carries(&p.info, info.Space) {
			return
		}
	case replication.MeshGraft:
		info, ok := m.store.Log(e.Log)
		if ok && !p.r.carries(&p.info, info.Space) {
			return
		}
		e.From = info.Tip
		ev = e
	}
	p.post(item{event: ev})
}

func (m *mesh) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.armed = time.Time{}
	m.doLocked(func(now time.Time, m *replication.Mesh) []replication.MeshAction { return m.Tick(now) })
}

// attach adds a session that begins and tells whether its peer is to announce.
func (m *mesh) attach(p *Peer) (startLazy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peers[p.source] = p
	m.doLocked(func(now time.Time, m *replication.Mesh) (do []replication.MeshAction) {
		startLazy, do = m.Attach(now, p.source, p.info.Carries)
		return do
	})
	return startLazy
}

// addSpace hears of every space.
func (m *mesh) addSpace(space replication.SpaceID) {
	if space == m.control && m.control != (replication.SpaceID{}) {
		return
	}
	m.do(func(now time.Time, m *replication.Mesh) []replication.MeshAction { return m.AddSpace(now, space) })
}

func (m *mesh) detach(p *Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.peers, p.source)
	m.doLocked(func(now time.Time, m *replication.Mesh) []replication.MeshAction { return m.Detach(now, p.source) })
}

// advanced hears of every log that grew or was taken back. The control space is no
// matter of the mesh: it goes over every link.
func (m *mesh) advanced(a replication.Advance) {
	if a.Space == m.control && m.control != (replication.SpaceID{}) {
		return
	}
	m.do(func(now time.Time, m *replication.Mesh) []replication.MeshAction {
		if a.Retreat {
			m.Forget(a.Log)
			return nil
		}
		return m.Advanced(now, a.Space, a.Log, a.Tip.Seq, a.Source)
	})
}

// arriving hears of every run and piece that a session receives.
func (m *mesh) arriving(p *Peer, push *replication.WalPush) {
	m.do(func(now time.Time, m *replication.Mesh) []replication.MeshAction {
		m.Arriving(now, p.source, push.Log)
		return nil
	})
}

// answered hears what became of a run that a session brought.
func (m *mesh) answered(p *Peer, run *flyingRun, code replication.IngestCode, why replication.Code) {
	if run.Space == m.control && m.control != (replication.SpaceID{}) {
		return
	}
	m.do(func(now time.Time, m *replication.Mesh) []replication.MeshAction {
		switch {
		case code == replication.Duplicate:
			return m.Duplicate(now, run.Log, p.source)
		case code == replication.Forked, code == replication.Refused && why != replication.CodeNoSpace && why != replication.CodeInternal:
			return m.Refused(now, run.Log, p.source)
		}
		return nil
	})
}

// ahead hears that the peer holds more of a log than it will push unasked.
func (m *mesh) ahead(p *Peer, e replication.Ahead) {
	if e.Space == m.control && m.control != (replication.SpaceID{}) {
		return
	}
	info, ok := m.store.Log(e.Log)
	if ok && info.Space != e.Space {
		return // a log is in one space
	}
	m.do(func(now time.Time, m *replication.Mesh) []replication.MeshAction {
		return m.Ahead(now, e.Log, p.source, e.Seq, info.Tip.Seq)
	})
}

// owes hears what a peer that pushes is to bring.
func (m *mesh) owes(p *Peer, e replication.Owes) {
	if e.Space == m.control && m.control != (replication.SpaceID{}) {
		return
	}
	m.do(func(now time.Time, m *replication.Mesh) []replication.MeshAction {
		return m.Owes(now, p.source, e.Logs, e.More)
	})
}

func (m *mesh) caughtUp(p *Peer) {
	m.do(func(now time.Time, m *replication.Mesh) []replication.MeshAction { return m.CaughtUp(now, p.source) })
}

func (m *mesh) peerLazy(p *Peer, lazy bool) {
	m.do(func(now time.Time, m *replication.Mesh) []replication.MeshAction {
		return m.PeerLazy(now, p.source, lazy)
	})
}

func (m *mesh) rtt(p *Peer, rtt time.Duration) {
	m.do(func(_ time.Time, m *replication.Mesh) []replication.MeshAction {
		m.RTT(p.source, rtt)
		return nil
	})
}

// close ends the timer; what runs of it has ended when close returns.
func (m *mesh) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.timer.Stop()
}
