package protocols

import (
	"crypto/ed25519"
	"encoding/binary"

	p2pv1 "vixp2p/proto/vix/p2p/v1"
	"vixp2p/replication"
)

func positionToWire(p replication.Position) *p2pv1.Position {
	if p == (replication.Position{}) {
		return nil
	}
	return &p2pv1.Position{Seq: p.Seq, Hash: p.Hash[:]}
}

// position reads one: seq and hash are both there or both not.
func (d *decoder) position(what string, w *p2pv1.Position) replication.Position {
	var p replication.Position
	if w == nil {
		return p
	}
	d.known(w)
	p.Seq = w.GetSeq()
	d.optionalID(what, p.Hash[:], w.GetHash())
	if (p.Seq == 0) != (len(w.GetHash()) == 0) {
		d.failf("%s has a seq without a hash or the reverse", what)
	}
	return p
}

func entriesToWire(entries []replication.FrontierEntry) []*p2pv1.FrontierEntry {
	out := make([]*p2pv1.FrontierEntry, len(entries))
	for i := range entries {
		e := &entries[i]
		out[i] = &p2pv1.FrontierEntry{
			Log: e.Log[:], Branch: optional(e.Branch[:]), Base: e.Base, Pos: positionToWire(e.Pos),
		}
	}
	return out
}

func (d *decoder) entries(w []*p2pv1.FrontierEntry, low int) []replication.FrontierEntry {
	d.count("entries", len(w), low, MaxEntries)
	if d.err != nil || len(w) == 0 {
		return nil
	}
	out := make([]replication.FrontierEntry, len(w))
	for i, e := range w {
		d.known(e)
		d.id("log", out[i].Log[:], e.GetLog())
		d.optionalID("branch", out[i].Branch[:], e.GetBranch())
		out[i].Base = e.GetBase()
		out[i].Pos = d.position("pos", e.GetPos())
		if d.err != nil {
			return nil
		}
	}
	return out
}

func (d *decoder) bye() any {
	var w p2pv1.Bye
	d.unmarshal(&w)
	return &replication.Bye{Code: d.frame.Code, Detail: d.text("detail", w.GetDetail(), MaxDetailBytes)}
}

func (d *decoder) frontierDigest() any {
	var w p2pv1.FrontierDigest
	d.unmarshal(&w)
	m := &replication.FrontierDigest{
		Name:  d.text("name", w.GetName(), replication.MaxSpaceNameBytes),
		Round: w.GetRound(), Reply: w.GetReply(), Logs: w.GetLogs(), Levels: w.GetLevels(),
	}
	d.id("space", m.Space[:], w.GetSpace())
	d.optionalID("digest", m.Digest[:], w.GetDigest())
	if m.Digest.IsZero() != (m.Logs == 0) {
		d.failf("a digest and a count of %d logs that contradict each other", m.Logs)
	}
	if m.Reply && m.Levels {
		d.failf("an answer that asks for levels")
	}
	return m
}

func (d *decoder) frontierDiff() any {
	if m, ok := quickDiff(d.frame.Message); ok {
		return m
	}
	return d.anyFrontierDiff()
}

// anyFrontierDiff reads what quickDiff does not.
func (d *decoder) anyFrontierDiff() any {
	var w p2pv1.FrontierDiff
	d.unmarshal(&w)
	m := &replication.FrontierDiff{Round: w.GetRound(), Part: w.GetPart(), Last: w.GetLast(), Step: w.GetStep()}
	d.id("space", m.Space[:], w.GetSpace())
	m.Entries = d.entries(w.GetEntries(), 0)
	m.Nodes = d.nodes(w.GetNodes())
	d.optionalID("whole", m.Whole[:], w.GetWhole())
	m.Buckets = d.buckets(w.GetBuckets())
	return m
}

func nodesToWire(nodes []replication.FrontierNode) []*p2pv1.FrontierNode {
	if len(nodes) == 0 {
		return nil
	}
	out := make([]*p2pv1.FrontierNode, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		digests := make([]byte, 0, len(n.Digests)*len(replication.ChildDigest{}))
		for k := range n.Digests {
			digests = append(digests, n.Digests[k][:]...)
		}
		out[i] = &p2pv1.FrontierNode{Node: uint32(n.Node), Present: optional(n.Present[:]), Digests: digests}
	}
	return out
}

func (d *decoder) nodes(w []*p2pv1.FrontierNode) []replication.FrontierNode {
	d.count("nodes", len(w), 0, MaxNodes)
	if d.err != nil || len(w) == 0 {
		return nil
	}
	out := make([]replication.FrontierNode, len(w))
	for i, n := range w {
		d.known(n)
		d.id("present", out[i].Present[:], n.GetPresent())
		if n.GetNode() > 256 {
			d.failf("a node %d of a trie that has 256 and a root", n.GetNode())
		}
		out[i].Node = uint16(n.GetNode())
		out[i].Digests = d.childDigests(n.GetDigests(), out[i].Present.Len())
		if d.err != nil {
			return nil
		}
	}
	return out
}

// childDigests reads n of them, at least one and none of them zero.
func (d *decoder) childDigests(b []byte, n int) []replication.ChildDigest {
	const size = len(replication.ChildDigest{})
	if n == 0 || len(b) != n*size {
		d.failf("%d bytes of digests for %d children", len(b), n)
		return nil
	}
	out := make([]replication.ChildDigest, n)
	for i := range out {
		out[i] = replication.ChildDigest(b[i*size:])
		if out[i] == (replication.ChildDigest{}) {
			d.failf("a child that is there and has no digest")
		}
	}
	return out
}

func bucketsToWire(buckets []uint16) []byte {
	var out []byte
	for _, b := range buckets {
		out = binary.BigEndian.AppendUint16(out, b)
	}
	return out
}

func (d *decoder) buckets(b []byte) (out []uint16) {
	if len(b)%2 > 0 || len(b) > 2*MaxOpenBuckets {
		d.failf("%d bytes of buckets, which have 2 each and are at most %d", len(b), MaxOpenBuckets)
		return nil
	}
	for i := 0; i < len(b); i += 2 {
		bucket := binary.BigEndian.Uint16(b[i:])
		if i > 0 && bucket <= out[len(out)-1] {
			d.failf("buckets that do not ascend")
			return nil
		}
		out = append(out, bucket)
	}
	return out
}

func (d *decoder) frontierOpen() any {
	var w p2pv1.FrontierOpen
	d.unmarshal(&w)
	m := &replication.FrontierOpen{Round: w.GetRound(), Step: w.GetStep()}
	d.id("space", m.Space[:], w.GetSpace())
	d.optionalID("nodes", m.Nodes[:], w.GetNodes())
	d.optionalID("whole", m.Whole[:], w.GetWhole())
	m.Buckets = d.buckets(w.GetBuckets())
	switch {
	case m.Step == 0:
		d.failf("a step without a number")
	case len(m.Buckets) == 0 && m.Nodes.Empty() && m.Whole.Empty():
		d.failf("it asks for nothing")
	}
	return m
}

func walPushToWire(m *replication.WalPush) *p2pv1.WalPush {
	return &p2pv1.WalPush{
		Space: optional(m.Space[:]), Log: optional(m.Log[:]), Branch: optional(m.Branch[:]),
		From: positionToWire(m.From), End: positionToWire(m.End),
		Total: m.Total, Offset: m.Offset, Pull: m.Pull, PullEnd: m.PullEnd,
	}
}

func (d *decoder) walPush() any {
	var w p2pv1.WalPush
	d.unmarshal(&w)
	m := &replication.WalPush{
		From: d.position("from", w.GetFrom()), End: d.position("end", w.GetEnd()),
		Total: w.GetTotal(), Offset: w.GetOffset(), Pull: w.GetPull(), PullEnd: w.GetPullEnd(),
		Data: d.frame.Attachment,
	}
	size := uint64(len(m.Data))
	d.optionalID("branch", m.Branch[:], w.GetBranch())
	if m.PullEnd && m.Pull == 0 {
		d.failf("the end of no pull")
	}
	if m.Total == 0 {
		d.optionalID("space", m.Space[:], w.GetSpace())
		d.optionalID("log", m.Log[:], w.GetLog())
		if !m.PullEnd || size > 0 || m.Offset > 0 {
			d.failf("no run, and not the empty end of a pull's answer")
		}
		return m
	}
	d.id("space", m.Space[:], w.GetSpace())
	d.id("log", m.Log[:], w.GetLog())
	switch {
	case m.Total > replication.MaxRunBytes:
		d.failf("a run of %d bytes, more than %d", m.Total, replication.MaxRunBytes)
	case size == 0:
		d.failf("a run without bytes")
	case m.Offset > m.Total || size > m.Total-m.Offset:
		d.failf("%d bytes at %d of a run of %d", size, m.Offset, m.Total)
	case m.End.Seq <= m.From.Seq:
		d.failf("a run from seq %d to %d", m.From.Seq, m.End.Seq)
	}
	return m
}

func walAckToWire(m *replication.WalAck) *p2pv1.WalAck {
	out := make([]*p2pv1.AckEntry, len(m.Entries))
	for i := range m.Entries {
		e := &m.Entries[i]
		out[i] = &p2pv1.AckEntry{
			Space: e.Space[:], Log: optional(e.Log[:]), Branch: optional(e.Branch[:]), Pos: positionToWire(e.Pos),
			Code: p2pv1.ErrorCode(e.Code), Detail: cutText(e.Detail, MaxDetailBytes),
			PartialFrom: positionToWire(e.PartialFrom), PartialEnd: positionToWire(e.PartialEnd),
			PartialBytes: e.PartialBytes,
		}
	}
	return &p2pv1.WalAck{Entries: out}
}

func (d *decoder) walAck() any {
	var w p2pv1.WalAck
	d.unmarshal(&w)
	d.count("entries", len(w.GetEntries()), 1, MaxEntries)
	if d.err != nil {
		return nil
	}
	m := &replication.WalAck{Entries: make([]replication.AckEntry, len(w.GetEntries()))}
	for i, e := range w.GetEntries() {
		d.ackEntry(&m.Entries[i], e)
		if d.err != nil {
			return nil
		}
	}
	return m
}

func (d *decoder) ackEntry(e *replication.AckEntry, w *p2pv1.AckEntry) {
	d.known(w)
	d.id("space", e.Space[:], w.GetSpace())
	d.optionalID("log", e.Log[:], w.GetLog())
	d.optionalID("branch", e.Branch[:], w.GetBranch())
	e.Pos = d.position("pos", w.GetPos())
	e.Code = replication.Code(w.GetCode())
	e.Detail = d.text("detail", w.GetDetail(), MaxDetailBytes)
	e.PartialFrom = d.position("partial_from", w.GetPartialFrom())
	e.PartialEnd = d.position("partial_end", w.GetPartialEnd())
	e.PartialBytes = w.GetPartialBytes()
	ofSpace := replication.AckEntry{Space: e.Space, Code: e.Code, Detail: e.Detail}
	switch {
	case w.GetCode() < 0:
		d.failf("error code %d", w.GetCode())
	case len(w.GetLog()) == 0 && (e.Code == replication.CodeOK || *e != ofSpace):
		d.failf("an entry without a log that is no refusal of a space")
	case e.PartialBytes > replication.MaxRunBytes:
		d.failf("%d bytes of a run, more than %d", e.PartialBytes, replication.MaxRunBytes)
	case e.PartialEnd.Seq == 0 && (e.PartialFrom.Seq > 0 || e.PartialBytes > 0):
		d.failf("a partial run without an end")
	case e.PartialEnd.Seq > 0 && e.PartialEnd.Seq <= e.PartialFrom.Seq:
		d.failf("a partial run from seq %d to %d", e.PartialFrom.Seq, e.PartialEnd.Seq)
	}
}

func (d *decoder) outboxPull() any {
	var w p2pv1.OutboxPull
	d.unmarshal(&w)
	m := &replication.OutboxPull{ID: w.GetId(), MaxOps: w.GetMaxOps(), MaxBytes: w.GetMaxBytes()}
	d.optionalID("space", m.Space[:], w.GetSpace())
	if m.ID == 0 {
		d.failf("a pull without a number")
	}
	return m
}

func (d *decoder) announce() any {
	var w p2pv1.Announce
	d.unmarshal(&w)
	m := &replication.Announce{Entries: d.entries(w.GetEntries(), 1)}
	d.id("space", m.Space[:], w.GetSpace())
	return m
}

func pruneToWire(m *replication.Prune) *p2pv1.Prune {
	out := make([][]byte, len(m.Logs))
	for i := range m.Logs {
		out[i] = m.Logs[i][:]
	}
	return &p2pv1.Prune{Logs: out}
}

func (d *decoder) prune() any {
	var w p2pv1.Prune
	d.unmarshal(&w)
	d.count("logs", len(w.GetLogs()), 1, MaxEntries)
	if d.err != nil {
		return nil
	}
	m := &replication.Prune{Logs: make([]replication.LogID, len(w.GetLogs()))}
	for i, l := range w.GetLogs() {
		d.id("log", m.Logs[i][:], l)
	}
	return m
}

func (d *decoder) graft() any {
	var w p2pv1.Graft
	d.unmarshal(&w)
	m := &replication.Graft{From: d.position("from", w.GetFrom())}
	d.id("log", m.Log[:], w.GetLog())
	return m
}

func (d *decoder) receipt() any {
	var w p2pv1.Receipt
	d.unmarshal(&w)
	m := &replication.Receipt{Counter: w.GetCounter(), Signature: w.GetSignature()}
	d.id("network", m.Network[:], w.GetNetwork())
	d.id("space", m.Space[:], w.GetSpace())
	d.id("holder", m.Holder[:], w.GetHolder())
	d.id("instance", m.Instance[:], w.GetInstance())
	m.Entries = d.entries(w.GetEntries(), 1)
	if len(m.Signature) != ed25519.SignatureSize {
		d.failf("a signature of %d bytes", len(m.Signature))
	}
	return m
}

func (d *decoder) forkProof() any {
	var w p2pv1.ForkProof
	d.unmarshal(&w)
	m := &replication.ForkProofMsg{}
	d.id("space", m.Space[:], w.GetSpace())
	d.id("log", m.Proof.Log[:], w.GetLog())
	d.id("origin", m.Proof.Origin[:], w.GetOrigin())
	both, n := d.frame.Attachment, w.GetLengthA()
	switch {
	case n == 0 || n >= uint64(len(both)):
		d.failf("two branches of %d bytes of which the first has %d", len(both), n)
	default:
		m.Proof.A, m.Proof.B = both[:n:n], both[n:]
	}
	return m
}

func (d *decoder) control() any {
	var w p2pv1.Control
	d.unmarshal(&w)
	return &replication.Control{Data: d.frame.Attachment}
}
