package replicator

import "vixp2p/replication"

// due is what the actor looks at before it rests: waits for what a step may have
// changed.
type due struct {
	all  bool
	logs []replication.LogID
}

// note remembers what an event may change in what the session says of waits.
func (p *Peer) note(ev replication.Event) {
	if p.r.receipts.waiting.Load() == 0 {
		return // a wait that begins now asks for itself
	}
	switch ev := ev.(type) {
	case replication.Received:
		switch m := ev.Msg.(type) {
		case *replication.WalAck:
			for _, e := range m.Entries {
				p.due.logs = append(p.due.logs, e.Log)
			}
		case *replication.WalPush:
			p.due.logs = append(p.due.logs, m.Log)
		case *replication.Announce:
			for _, e := range m.Entries {
				p.due.logs = append(p.due.logs, e.Log)
			}
		case *replication.Graft:
			p.due.logs = append(p.due.logs, m.Log)
		case *replication.FrontierDigest, *replication.FrontierDiff:
			p.due.all = true
		}
	case replication.Advanced:
		p.due.logs = append(p.due.logs, ev.Log)
	case replication.RunRead:
		p.due.logs = append(p.due.logs, ev.Log)
	case replication.CommitDone:
		p.due.logs = append(p.due.logs, ev.Log)
	case replication.LocalFrontier:
		p.due.all = true
	}
}

// reportDue answers the waits that the steps since the last call may concern.
func (p *Peer) reportDue() {
	for p.end == nil && (p.due.all || len(p.due.logs) > 0) {
		d := p.due
		p.due = due{}
		if d.all {
			d.logs = nil
		}
		p.report(p.r.receipts.waitsOn(d.logs))
	}
}

func (p *Peer) reportAll() { p.report(p.r.receipts.waitsOn(nil)) }

// report answers waits from the session.
//
// The session answers truly only for what it was told to be held here
// (Session.Acked), so it is first told of every advance so far: a wait's write
// is durable, and thus in the mailbox, before the wait exists.
func (p *Peer) report(waits []*wait) {
	if len(waits) == 0 {
		return
	}
	p.tellAdvances()
	for _, w := range waits {
		p.r.receipts.report(p, w, p.session.Acked(w.space, w.dot.Log, w.dot.Seq))
	}
}

// tellAdvances steps the session with every advance in the mailbox.
func (p *Peer) tellAdvances() {
	for _, a := range p.box.takeAdvances() {
		if p.end != nil {
			return
		}
		p.step(a)
	}
}
