package replication

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files of testdata")

// TestSessionTranscripts replays testdata/session/*.txt: what happens to a
// session, and what it does about it. A line is
//
//	# a comment
//	config key=value...        before the first event
//	> [+duration] event        something happens, so much later than the last
//	  effect                   what the session does; written by -update
//	? question                 a query; its answer follows like an effect
//
// Spaces and logs are single words; A=5 means log A up to its seq 5, and A=5b the
// same on another branch b.
func TestSessionTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/session/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s differs; after checking, run the test with -update\n%s", file, firstDifference(got, string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			was := "(end)"
			if i < len(w) {
				was = w[i]
			}
			return fmt.Sprintf("line %d\n got: %s\nwant: %s", i+1, g[i], was)
		}
	}
	return fmt.Sprintf("line %d: the file goes on", len(g))
}

// replay runs a transcript and returns it with the effects as they are.
func replay(t *testing.T, text string) string {
	p := &transcript{t: t, now: time.Unix(0, 0).UTC(), names: newNames()}
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "  "):
			continue // an effect of the last run
		case strings.HasPrefix(line, "config "):
			p.config(strings.Fields(line)[1:])
		case strings.HasPrefix(line, "> "):
			out.WriteString(line + "\n")
			for _, e := range p.event(strings.Fields(line)[1:]) {
				out.WriteString("  " + p.names.effect(e) + "\n")
			}
			continue
		case strings.HasPrefix(line, "? "):
			out.WriteString(line + "\n  " + p.query(strings.Fields(line)[1:]) + "\n")
			continue
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}

type transcript struct {
	t     *testing.T
	now   time.Time
	cfg   SessionConfig
	s     *Session
	names *names
}

func (p *transcript) config(args []string) {
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "window":
			p.cfg.WindowBytes = p.number(v)
		case "read":
			p.cfg.ReadBytes = p.number(v)
		case "piece":
			p.cfg.PieceBytes = p.number(v)
		case "control":
			p.cfg.Control = p.names.space(v)
		case "carries": // s,t
			may := map[SpaceID]bool{}
			for _, w := range strings.Split(v, ",") {
				may[p.names.space(w)] = true
			}
			p.cfg.Carries = func(id SpaceID) bool { return may[id] }
		case "mesh":
			p.cfg.Mesh = true
		case "lazy":
			p.cfg.Mesh, p.cfg.StartLazy = true, true
		case "pullonly":
			p.cfg.PeerPullOnly = true
		case "levels": // with the entries up to which a node is answered whole
			p.cfg.PeerLevels, p.cfg.WholeEntries = true, p.number(v)
		case "shares":
			p.cfg.PeerShares = true
		case "ackdelay":
			p.cfg.AckDelay = p.duration(v)
		case "retry":
			p.cfg.RetryAfter = p.duration(v)
		case "ping":
			p.cfg.PingEvery = p.duration(v)
		case "resume": // space/log:from..end/have/total
			f := strings.Split(v, "/")
			log, from, end := p.run(f[1])
			p.cfg.Resume = &Partial{
				Space: p.names.space(f[0]), Log: log, From: from, End: end,
				Total: uint64(p.number(f[3])), Data: runData(p.number(f[3]))[:p.number(f[2])],
			}
		default:
			p.t.Fatalf("unknown config %q", a)
		}
	}
}

func (p *transcript) event(f []string) []Effect {
	if p.s == nil {
		p.s = NewSession(p.cfg)
	}
	if strings.HasPrefix(f[0], "+") {
		p.now = p.now.Add(p.duration(f[0][1:]))
		f = f[1:]
	}
	out := p.s.Step(p.now, p.parse(f[0], f[1:]))
	checkSession(p.t, p.s)
	return out
}

// args are the words of an event: bare ones in order, and key=value.
type args struct {
	p    *transcript
	bare []string
	kv   map[string]string
}

func (p *transcript) parse(name string, words []string) Event {
	a := args{p: p, kv: map[string]string{}}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, ":"); ok && k == strings.ToLower(k) && len(k) > 1 {
			a.kv[k] = v
		} else {
			a.bare = append(a.bare, w)
		}
	}
	if ev := a.local(name); ev != nil {
		return ev
	}
	m := a.message(name)
	if m == nil {
		p.t.Fatalf("unknown event %q", name)
	}
	ev := Received{Msg: m, Held: uint64(a.number("held", 0))}
	if tips := a.kv["tips"]; tips != "" {
		for _, e := range p.names.entries(strings.Split(tips, ",")) {
			ev.Tips = append(ev.Tips, e.Pos)
		}
	}
	return ev
}

func (a args) local(name string) Event {
	n := a.p.names
	switch name {
	case "start":
		var ev Started
		for _, w := range a.bare {
			ev.Spaces = append(ev.Spaces, SpaceInfo{ID: n.space(w), Name: w})
		}
		return ev
	case "space":
		return SpaceAdded{Space: SpaceInfo{ID: n.space(a.bare[0]), Name: a.bare[0]}}
	case "refuse":
		return SpaceRefused{Space: n.space(a.bare[0])}
	case "frontier": // space entries... stored:entry,entry
		ev := LocalFrontier{Space: n.space(a.bare[0]), Frontier: NewFrontier(n.entries(a.bare[1:]))}
		var stored []FrontierEntry
		if st := a.kv["stored"]; st != "" {
			stored = n.entries(strings.Split(st, ","))
		}
		ev.Stored = StoredDifference(ev.Frontier, stored)
		return ev
	case "advance", "advance-from-peer": // space A:4..5 [source:7]
		log, prev, tip := a.p.run(a.bare[1])
		return Advanced{
			Advance:  Advance{Space: n.space(a.bare[0]), Log: log, Prev: prev, Tip: tip, Ops: tip.Seq - prev.Seq, Source: uint64(a.number("source", 0))},
			FromPeer: name == "advance-from-peer",
		}
	case "read": // space A:4..5 size:10, or space A err:forked
		ev := RunRead{Space: n.space(a.bare[0])}
		if e := a.kv["err"]; e != "" {
			ev.Log = n.log(a.bare[1])
			ev.Err = map[string]error{"forked": ErrForked, "damaged": ErrDamaged}[e]
			return ev
		}
		ev.Log, ev.Run.From, ev.Run.End = a.p.run(a.bare[1])
		ev.Run.Ops = ev.Run.End.Seq - ev.Run.From.Seq
		ev.Run.Data = runData(a.number("size", 10))
		return ev
	case "committed", "duplicate", "gap", "forked", "refused": // space A=5 code:..
		log, tip := n.entry(a.bare[1])
		codes := map[string]IngestCode{"committed": Committed, "duplicate": Duplicate, "gap": Gap, "forked": Forked, "refused": Refused}
		ev := CommitDone{Space: n.space(a.bare[0]), Log: log, Code: a.code(), Result: IngestResult{Code: codes[name], Tip: tip}}
		if a.kv["proof"] != "" {
			ev.Result.Proof = &ForkProof{Log: log}
		}
		return ev
	case "pull":
		return Pull{MaxOps: uint64(a.number("ops", 0)), MaxBytes: uint64(a.number("bytes", 0))}
	case "fork": // space log
		return ForkKnown{Space: n.space(a.bare[0]), Proof: ForkProof{Log: n.log(a.bare[1])}}
	case "prune": // log
		return MeshPrune{Log: n.log(a.bare[0])}
	case "graft": // A=5
		log, from := n.entry(a.bare[0])
		return MeshGraft{Log: log, From: from}
	case "lazy":
		return MeshDefault{Lazy: true}
	case "eager":
		return MeshDefault{}
	case "hold":
		return MeshHold{Hold: true}
	case "exchange":
		return MeshExchange{}
	case "applied":
		return TrustApplied{}
	case "probe":
		return Probe{}
	case "tick":
		return Tick{}
	case "stop":
		return Stop{Code: a.code(), Detail: a.kv["detail"]}
	}
	return nil
}

func (a args) message(name string) Message {
	n := a.p.names
	switch name {
	case "peer:ask", "peer:reply": // space round:1 entries...
		e := n.entries(a.bare[1:])
		return &FrontierDigest{
			Space: n.space(a.bare[0]), Name: a.bare[0], Round: uint64(a.number("round", 1)),
			Reply: name == "peer:reply", Digest: FrontierRoot(e), Logs: uint64(len(e)), Levels: a.kv["levels"] != "",
		}
	case "peer:diff": // space round:1 step:0 part:0 [more:1] [buckets:A,B] entries...
		m := a.diff(n.entries(a.bare[1:]))
		for _, w := range a.list("buckets") {
			m.Buckets = append(m.Buckets, bucketOf(n.log(w)))
		}
		return m
	case "peer:root": // space round:1 entries...: the root over these
		return a.diff(nil, NewFrontier(n.entries(a.bare[1:])).rootNode())
	case "peer:node": // space round:1 step:1 entries...: the inner node of the first, over all these
		e := n.entries(a.bare[1:])
		inner := byte(bucketOf(e[0].Log) >> 8)
		return a.diff(nil, NewFrontier(e).at(inner).message(inner))
	case "peer:open": // space round:1 step:1 nodes:A,B whole:C buckets:D
		m := &FrontierOpen{Space: n.space(a.bare[0]), Round: uint64(a.number("round", 1)), Step: uint64(a.number("step", 1))}
		for _, w := range a.list("nodes") {
			m.Nodes.Add(byte(bucketOf(n.log(w)) >> 8))
		}
		for _, w := range a.list("whole") {
			m.Whole.Add(byte(bucketOf(n.log(w)) >> 8))
		}
		for _, w := range a.list("buckets") {
			m.Buckets = append(m.Buckets, bucketOf(n.log(w)))
		}
		return m
	case "peer:push": // space A:0..3 total:10 offset:0 size:10 held:0
		m := &WalPush{Space: n.space(a.bare[0]), PullEnd: a.kv["pullend"] != ""}
		if len(a.bare) > 1 {
			m.Log, m.From, m.End = a.p.run(a.bare[1])
			m.Total, m.Offset = uint64(a.number("total", 10)), uint64(a.number("offset", 0))
			size := a.number("size", int(m.Total-m.Offset))
			m.Data = runData(int(m.Total))[m.Offset : m.Offset+uint64(size)]
		}
		return m
	case "peer:ack": // space A=3 code:gap partial:0..3 have:4
		e := AckEntry{Space: n.space(a.bare[0]), Code: a.code(), PartialBytes: uint64(a.number("have", 0))}
		e.Log, e.Pos = n.entry(a.bare[1])
		if pt := a.kv["partial"]; pt != "" {
			_, e.PartialFrom, e.PartialEnd = a.p.run(n.logs[e.Log] + ":" + pt)
		}
		return &WalAck{Entries: []AckEntry{e}}
	case "peer:pull":
		return &OutboxPull{ID: uint64(a.number("id", 1)), MaxOps: uint64(a.number("ops", 0)), MaxBytes: uint64(a.number("bytes", 0))}
	case "peer:ping":
		return &Ping{Nonce: uint64(a.number("nonce", 1))}
	case "peer:announce": // space A=5 tips:A=4
		return &Announce{Space: n.space(a.bare[0]), Entries: n.entries(a.bare[1:])}
	case "peer:prune": // logs, - for all
		m := &Prune{}
		for _, w := range a.bare {
			m.Logs = append(m.Logs, n.log(w))
		}
		return m
	case "peer:graft": // A=5, -=0 for all
		m := &Graft{}
		m.Log, m.From = n.entry(a.bare[0])
		return m
	case "peer:pong":
		return &Pong{Nonce: uint64(a.number("nonce", 1))}
	case "peer:proof":
		return &ForkProofMsg{Space: n.space(a.bare[0]), Proof: ForkProof{Log: n.log(a.bare[1])}}
	case "peer:bye":
		return &Bye{Code: a.code(), Detail: a.kv["detail"]}
	}
	return nil
}

func (a args) diff(entries []FrontierEntry, nodes ...FrontierNode) *FrontierDiff {
	return &FrontierDiff{
		Space: a.p.names.space(a.bare[0]), Round: uint64(a.number("round", 1)), Part: uint64(a.number("part", 0)),
		Step: uint64(a.number("step", 0)), Last: a.kv["more"] == "", Entries: entries, Nodes: nodes,
	}
}

func (a args) list(key string) []string {
	if a.kv[key] == "" {
		return nil
	}
	return strings.Split(a.kv[key], ",")
}

func (a args) number(key string, def int) int {
	if v, ok := a.kv[key]; ok {
		return a.p.number(v)
	}
	return def
}

func (a args) code() Code {
	want := strings.ReplaceAll(a.kv["code"], "-", " ")
	for c, text := range codeText {
		if text == want {
			return c
		}
	}
	if want != "" {
		a.p.t.Fatalf("unknown code %q", want)
	}
	return CodeOK
}

func (p *transcript) number(v string) int {
	n, err := strconv.Atoi(v)
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

func (p *transcript) duration(v string) time.Duration {
	d, err := time.ParseDuration(v)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

// run reads A:4..5b.
func (p *transcript) run(w string) (log LogID, from, end Position) {
	name, r, ok1 := strings.Cut(w, ":")
	f, e, ok2 := strings.Cut(r, "..")
	if !ok1 || !ok2 {
		p.t.Fatalf("%q is not of the form A:4..5", w)
	}
	log = p.names.log(name)
	return log, p.names.pos(log, f), p.names.pos(log, e)
}

func (p *transcript) query(f []string) string {
	switch f[0] {
	case "acked": // space A=5
		log, pos := p.names.entry(f[2])
		return strconv.FormatBool(p.s.Acked(p.names.space(f[1]), log, pos.Seq))
	case "deadline":
		if p.s.Deadline().IsZero() {
			return "never"
		}
		return p.s.Deadline().Sub(p.now).String()
	case "progress":
		return p.names.progress(p.s.Progress())
	case "partial":
		if pt := p.s.Partial(); pt != nil {
			return fmt.Sprintf("%s %s..%s %d of %d", p.names.logs[pt.Log], p.names.at(pt.Log, pt.From), p.names.at(pt.Log, pt.End), len(pt.Data), pt.Total)
		}
		return "none"
	}
	p.t.Fatalf("unknown question %q", f[0])
	return ""
}

func runData(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	return b
}
