package sim

import (
	"fmt"
	"time"

	"vixp2p/replication"
)

// link is a path between two nodes. A session over it lives until the link is
// cut; messages of an earlier one never reach a later one.
type link struct {
	w       *world
	ends    [2]*node
	epoch   int
	peers   [2]*peer     // the sessions while connected, at ends[0] and ends[1]
	pending bool         // a connection attempt is scheduled
	blocked [2]bool      // messages from that end are lost
	down    bool         // there is no path now
	last    [2]time.Time // when the last message from that end arrives
	// pullOnly: that end wants to be pushed to only when it asks.
	pullOnly [2]bool
	piece    int
	levels   bool          // else one end is of a version that does not go down the levels of a frontier
	shares   bool          // and both take where the other's way down ended
	latency  time.Duration // of each message; 0: by the odds
}

func (w *world) link(a, b *node) *link {
	l := &link{w: w, ends: [2]*node{a, b}, levels: w.chance(w.odds.levels)}
	l.shares = l.levels && w.rng.IntN(4) > 0
	if w.odds.pull {
		l.pullOnly = [2]bool{w.rng.IntN(2) == 0, w.rng.IntN(2) == 0}
	}
	if w.odds.piece {
		l.piece = 40 + w.rng.IntN(400)
	}
	w.links = append(w.links, l)
	return l
}

func (l *link) String() string { return fmt.Sprintf("%s-%s", l.ends[0], l.ends[1]) }

func (l *link) connectLater() {
	if l.pending || l.peers[0] != nil {
		return
	}
	l.pending = true
	l.w.after(5*time.Millisecond+l.w.some(300*time.Millisecond), func() {
		l.pending = false
		if l.peers[0] != nil || l.down || l.ends[0].store == nil || l.ends[1].store == nil {
			return
		}
		if !l.ends[0].admits(l.ends[1]) || !l.ends[1].admits(l.ends[0]) {
			l.w.after(time.Second, l.connectLater)
			return
		}
		l.connect()
	})
}

func (l *link) connect() {
	l.epoch++
	l.w.trace("%s connected", l)
	for i := range l.ends {
		l.peers[i] = l.ends[i].attach(l, i)
	}
	for i, p := range l.peers {
		if p.alive() {
			l.ends[i].startSession(p)
		}
	}
}

// cut ends the sessions at both ends.
func (l *link) cut(why string) {
	if l.peers[0] == nil {
		return
	}
	l.w.trace("%s ends: %s", l, why)
	l.w.res.Breaks++
	l.epoch++
	for i, p := range l.peers {
		l.ends[i].detach(p)
	}
	l.peers = [2]*peer{}
	l.connectLater()
}

// block loses everything from one end for a while.
func (l *link) block() {
	end := l.w.rng.IntN(2)
	l.blocked[end] = true
	l.w.trace("%s loses everything from %s", l, l.ends[end])
	l.w.after(l.w.some(4*time.Second), func() { l.blocked[end] = false })
}

// carry takes a message from one end.
func (l *link) carry(from int, m replication.Message) {
	w := l.w
	w.res.Messages++
	switch m.(type) {
	case *replication.Announce:
		w.res.Announced++
	case *replication.Prune:
		w.res.Pruned++
	case *replication.Graft:
		w.res.Grafted++
	}
	copies := 1
	if !w.calm {
		if l.blocked[from] || w.chance(w.odds.drop) {
			w.res.Lost++
			w.trace("%s lost from %s: %s", l, l.ends[from], describe(m))
			return
		}
		if w.chance(w.odds.repeat) {
			copies = 2
		}
	}
	epoch := l.epoch
	for range copies {
		w.after(l.delay(from), func() {
			to := l.peers[1-from]
			if l.epoch != epoch || to == nil {
				return
			}
			w.trace("%s to %s: %s", l, l.ends[1-from], describe(m))
			w.checkDelivery(l.ends[1-from], m)
			l.ends[1-from].receive(to, m)
		})
	}
}

// delay keeps the order of what one end sends, as a stream does, but for the
// messages that are to be reordered.
func (l *link) delay(from int) time.Duration {
	w := l.w
	d := l.latency
	if d == 0 {
		d = w.odds.delay + w.some(w.odds.jitter)
	}
	if !w.calm && w.chance(w.odds.reorder) {
		return d
	}
	at := w.now.Add(d)
	if at.Before(l.last[from]) {
		at = l.last[from]
	}
	l.last[from] = at
	return at.Sub(w.now)
}

func describe(m replication.Message) string {
	switch m := m.(type) {
	case *replication.WalPush:
		return fmt.Sprintf("push %s %d..%d, %d+%d of %d, pull %d %v", m.Log.Short(), m.From.Seq, m.End.Seq, m.Offset, len(m.Data), m.Total, m.Pull, m.PullEnd)
	case *replication.WalAck:
		s := "ack"
		for _, e := range m.Entries {
			s += fmt.Sprintf(" %s=%d", e.Log.Short(), e.Pos.Seq)
			if e.Code != replication.CodeOK {
				s += " (" + e.Code.String() + " " + e.Detail + ")"
			}
			if e.PartialEnd.Seq > 0 {
				s += fmt.Sprintf(" partial %d..%d has %d", e.PartialFrom.Seq, e.PartialEnd.Seq, e.PartialBytes)
			}
		}
		return s
	case *replication.FrontierDigest:
		return fmt.Sprintf("digest round %d reply %v %.8s of %d", m.Round, m.Reply, m.Digest, m.Logs)
	case *replication.FrontierDiff:
		s := fmt.Sprintf("diff round %d part %d last %v:", m.Round, m.Part, m.Last)
		for _, e := range m.Entries {
			s += fmt.Sprintf(" %s=%d", e.Log.Short(), e.Pos.Seq)
		}
		return s + fmt.Sprintf(" step %d, %d nodes", m.Step, len(m.Nodes))
	}
	return fmt.Sprintf("%T%+v", m, m)
}
