package replication

import (
	"fmt"
	"strconv"
	"strings"
)

// names turns the words of a transcript into ids and back.
type names struct {
	logs   map[LogID]string
	spaces map[SpaceID]string
	hashes map[Hash]string // the branch of a position
}

func newNames() *names {
	return &names{logs: map[LogID]string{{}: "-"}, spaces: map[SpaceID]string{{}: "-"}, hashes: map[Hash]string{}}
}

func (n *names) space(w string) SpaceID {
	var id SpaceID
	copy(id[:], w)
	n.spaces[id] = w
	return id
}

func (n *names) log(w string) LogID {
	var id LogID
	if w != "-" { // no log
		copy(id[:], w)
	}
	n.logs[id] = w
	return id
}

// pos reads 5 or 5b.
func (n *names) pos(log LogID, w string) Position {
	digits := strings.TrimRight(w, "abcdefgh")
	seq, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%q is not a position", w))
	}
	if seq == 0 {
		return Position{}
	}
	h := HashParts("test", log[:], []byte(w))
	n.hashes[h] = w[len(digits):]
	return Position{Seq: seq, Hash: h}
}

// entry reads A=5.
func (n *names) entry(w string) (LogID, Position) {
	name, at, _ := strings.Cut(w, "=")
	log := n.log(name)
	return log, n.pos(log, at)
}

func (n *names) entries(words []string) []FrontierEntry {
	var out []FrontierEntry
	for _, w := range words {
		log, pos := n.entry(w)
		out = append(out, FrontierEntry{Log: log, Base: 1, Pos: pos})
	}
	return out
}

func (n *names) at(_ LogID, p Position) string {
	return strconv.FormatUint(p.Seq, 10) + n.hashes[p.Hash]
}

func (n *names) list(entries []FrontierEntry) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(" " + n.logs[e.Log] + "=" + n.at(e.Log, e.Pos))
	}
	return b.String()
}

func (n *names) effect(e Effect) string {
	switch e := e.(type) {
	case Send:
		return "-> " + n.message(e.Msg)
	case ControlInStep:
		return "control in step"
	case ControlLate:
		return fmt.Sprintf("control late, settled %v missing %d", e.Settled, e.Missing)
	case LoadFrontier:
		if e.Stored {
			return "load " + n.spaces[e.Space] + " and stored"
		}
		return "load " + n.spaces[e.Space]
	case ReadRun:
		what := "read"
		if e.Covering {
			what = "read covering"
		}
		return fmt.Sprintf("%s %s %s after %s max %d", what, n.spaces[e.Space], n.logs[e.Log], n.at(e.Log, e.After), e.MaxBytes)
	case CommitRun:
		return fmt.Sprintf("commit %s %s after %s, %d bytes", n.spaces[e.Space], n.logs[e.Log], n.at(e.Log, e.From), len(e.Data))
	case SaveCursor:
		return fmt.Sprintf("save cursor %s%s", n.spaces[e.Space], n.list(e.Entries))
	case AddSpace:
		return "add space " + e.Space.Name
	case StateChanged:
		if e.Stale {
			return "stale"
		}
		return "not stale any more"
	case Settled:
		return "settled " + n.spaces[e.Space]
	case RTT:
		return "rtt " + e.Value.String()
	case DataLoss:
		return fmt.Sprintf("data loss %s %s was %s now %s", n.spaces[e.Space], n.logs[e.Log], n.at(e.Log, e.Was), n.at(e.Log, e.Now))
	case LogPaused:
		return "paused " + n.paused(e)
	case ForkSeen:
		return "fork seen " + n.logs[e.Proof.Log]
	case SendForkProof:
		return "send fork proof " + n.logs[e.Log]
	case CloseSession:
		by := "by us"
		if e.FromPeer {
			by = "by the peer"
		}
		return fmt.Sprintf("close %s (%s) %s", by, e.Code, e.Detail)
	case Pulled:
		return "pulled"
	case Ahead:
		return fmt.Sprintf("ahead %s %s to %d", n.spaces[e.Space], n.logs[e.Log], e.Seq)
	case Owes:
		return fmt.Sprintf("owes %s %d logs, more: %v", n.spaces[e.Space], len(e.Logs), e.More)
	case PeerLazy:
		return fmt.Sprintf("peer lazy %v", e.Lazy)
	case CaughtUp:
		return "caught up"
	}
	return fmt.Sprintf("%T", e)
}

func (n *names) paused(e LogPaused) string {
	by := "by the peer"
	if e.Local {
		by = "here"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s (%s) %s", n.spaces[e.Space], n.logs[e.Log], by, e.Code, e.Detail))
}

func (n *names) message(m Message) string {
	switch m := m.(type) {
	case *FrontierDigest:
		what := "ask"
		if m.Reply {
			what = "reply"
		}
		levels := ""
		if m.Levels {
			levels = " levels"
		}
		return fmt.Sprintf("%s %s round %d digest %.8s logs %d%s", what, m.Name, m.Round, m.Digest.String(), m.Logs, levels)
	case *FrontierDiff:
		last := ""
		if m.Last {
			last = " last"
		}
		step := ""
		if m.Step > 0 {
			step = fmt.Sprintf(" step %d", m.Step)
		}
		return fmt.Sprintf("diff %s round %d%s part %d%s:%s%s%s", n.spaces[m.Space], m.Round, step, m.Part, last, regionList(m.Whole, m.Buckets), n.list(m.Entries), nodeList(m.Nodes))
	case *FrontierOpen:
		s := fmt.Sprintf("open %s round %d step %d:", n.spaces[m.Space], m.Round, m.Step)
		for i := range m.Nodes.All() {
			s += fmt.Sprintf(" node %02x", i)
		}
		return s + regionList(m.Whole, m.Buckets)
	case *WalPush:
		s := "push"
		if m.Total > 0 {
			s += fmt.Sprintf(" %s %s %s..%s %d+%d of %d", n.spaces[m.Space], n.logs[m.Log], n.at(m.Log, m.From), n.at(m.Log, m.End), m.Offset, len(m.Data), m.Total)
		}
		if m.Pull > 0 {
			s += fmt.Sprintf(" pull %d", m.Pull)
		}
		if m.PullEnd {
			s += " end"
		}
		return s
	case *WalAck:
		var parts []string
		for _, e := range m.Entries {
			a := fmt.Sprintf("%s=%s", n.logs[e.Log], n.at(e.Log, e.Pos))
			if e.Code != CodeOK {
				a += " (" + e.Code.String() + ")"
			}
			if e.PartialEnd.Seq > 0 {
				a += fmt.Sprintf(" partial %s..%s has %d", n.at(e.Log, e.PartialFrom), n.at(e.Log, e.PartialEnd), e.PartialBytes)
			}
			parts = append(parts, a)
		}
		return "ack " + strings.Join(parts, ", ")
	case *OutboxPull:
		return fmt.Sprintf("pull %d ops %d bytes %d", m.ID, m.MaxOps, m.MaxBytes)
	case *Ping:
		return fmt.Sprintf("ping %d", m.Nonce)
	case *Pong:
		return fmt.Sprintf("pong %d", m.Nonce)
	case *Announce:
		return "announce " + n.spaces[m.Space] + n.list(m.Entries)
	case *Prune:
		var logs []string
		for _, l := range m.Logs {
			logs = append(logs, n.logs[l])
		}
		return "prune " + strings.Join(logs, " ")
	case *Graft:
		return fmt.Sprintf("graft %s after %s", n.logs[m.Log], n.at(m.Log, m.From))
	case *ForkProofMsg:
		return "fork proof " + n.logs[m.Proof.Log]
	case *Bye:
		return strings.TrimSpace(fmt.Sprintf("bye (%s) %s", m.Code, m.Detail))
	}
	return fmt.Sprintf("%T", m)
}

func regionList(whole ChildSet, buckets []uint16) (s string) {
	for i := range whole.All() {
		s += fmt.Sprintf(" whole %02x", i)
	}
	for _, b := range buckets {
		s += fmt.Sprintf(" bucket %04x", b)
	}
	return s
}

// nodeList tells each node with its children and the first byte of their digests.
func nodeList(nodes []FrontierNode) string {
	var b strings.Builder
	for _, m := range nodes {
		what := "root"
		if m.Node > 0 {
			what = fmt.Sprintf("node %02x", m.Node-1)
		}
		b.WriteString(" " + what)
		k := 0
		for i := range m.Present.All() {
			fmt.Fprintf(&b, " %02x=%02x", i, m.Digests[k][0])
			k++
		}
	}
	return b.String()
}

func (n *names) progress(all []Progress) string {
	var parts []string
	for _, p := range all {
		s := fmt.Sprintf("%s settled %v missing %d", n.spaces[p.Space], p.Settled, p.MissingOps)
		for _, l := range p.PendingLogs {
			s += fmt.Sprintf(" pending %s %s..%s", n.logs[l.Log], n.at(l.Log, l.Acked), n.at(l.Log, l.Tip))
		}
		for _, l := range p.Paused {
			s += " paused " + n.paused(l)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}
