package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"vixp2p/node/localapi"
)

func (p *program) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the running node, its peers and its spaces",
		Long: `Show the running node: who it is, which peers it has, what is durable here and
not yet at them (pending), what they have and this node has not yet (missing),
and why a peer is not connected. Equal view digests of two nodes mean that both
show the same keys and values.`,
		Example: "  vix-node status --id A\n  vix-node status --id A --json",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.with(cmd, needNode, p.timeLimit(0), func(ctx context.Context, b localapi.Backend) error {
				st, err := b.Status(ctx)
				if err != nil {
					return err
				}
				if p.flags.json {
					return p.print(st)
				}
				return printStatus(p.stdout, &st, time.Now())
			})
		},
	}
}

func (p *program) peersCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "peers",
		Short:   "List the peers of the running node",
		Example: "  vix-node peers --id A --json",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.with(cmd, needNode, p.timeLimit(0), func(ctx context.Context, b localapi.Backend) error {
				st, err := b.Status(ctx)
				if err != nil {
					return err
				}
				if !p.flags.json {
					return printPeers(p.stdout, &st, time.Now())
				}
				for _, peer := range st.Peers {
					if err := p.print(peer); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

// table aligns columns.
func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

func printStatus(w io.Writer, st *localapi.Status, now time.Time) error {
	t := table(w)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("node", "%s  %s", shown(st.Label, 0), st.PeerID)
	network := st.Network
	if st.NetworkName != "" {
		network = fmt.Sprintf("%s (%s)", st.Network, shown(st.NetworkName, 0))
	}
	row("network", "%s", network)
	row("directory", "%s", shown(st.DataDir, 0))
	row("instance", "%s", st.Instance)
	if st.Started != nil {
		row("since", "%s (%s)", st.Started.UTC().Format("2006-01-02 15:04:05 UTC"), ago(st.Started, now))
	}
	row("durability", "%s", durability(st.Durability))
	for i, a := range st.Listen {
		row(map[bool]string{true: "listen"}[i == 0], "%s", a)
	}
	discoveryRows(st.Discovery, now, row)
	reachRows(st.Reach, row)
	membershipRows(st.Membership, row)
	messageRows(st.Messages, st.Routes, row)
	if st.MaxRate > 0 {
		row("rate limit", "%s per second in each direction", size(uint64(st.MaxRate)))
	}
	if st.Copies {
		row("COPIES", "another node runs from a copy of this data directory and takes over its sessions: stop one of them, or give one a new directory")
	}
	if st.Recovered != "" {
		row("RECOVERED", "%s", st.Recovered)
	}
	if st.Lost != "" {
		row("LOST", "%s", st.Lost)
	}
	for _, d := range st.Damage {
		row("DAMAGED", "%s", d)
	}
	if st.Sync != nil {
		row("catching up", "%s", syncText(st.Sync))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	printSpaces(w, st)
	fmt.Fprintln(w)
	return printPeers(w, st, now)
}

// durability says loudly when writes are not fsynced (G1).
func durability(d string) string {
	if d == "relaxed" {
		return "RELAXED: writes are not fsynced; if this machine crashes, the newest may be lost"
	}
	return d + ": a write returns when it is fsynced"
}

func printSpaces(w io.Writer, st *localapi.Status) {
	t, notes := table(w), []string{}
	fmt.Fprintln(t, "SPACE\tOPS\tBYTES\tKEYS\tCONFLICTS\tLOGS\tVIEW\tFRONTIER")
	for _, name := range slices.Sorted(maps.Keys(st.Spaces)) {
		s := st.Spaces[name]
		logs := grouped(uint64(s.Logs))
		if s.ForkedLogs > 0 {
			logs += fmt.Sprintf(" (%d FORKED)", s.ForkedLogs)
		}
		view := short(s.ViewDigest)
		switch {
		case s.Sealed: // as it should be for a relay
			view = "sealed"
			notes = append(notes, "space "+shown(name, 40)+" is encrypted: this node stores and forwards it, and has no role to read it")
		case s.ViewError != "":
			view = map[bool]string{true: "UNREADABLE", false: "WAITING"}[s.ViewDigest == ""]
			notes = append(notes, "the keys of space "+shown(name, 40)+": "+shown(s.ViewError, 0))
		}
		if s.SetAside > 0 {
			notes = append(notes, fmt.Sprintf("%s in space %s are out of view, because they do not count any more: `members` says whose", many(s.SetAside, "operation", "operations"), shown(name, 40)))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", shown(name, 40), grouped(s.Ops), size(s.Bytes),
			grouped(s.Keys), grouped(s.Conflicts), logs, view, short(s.FrontierDigest))
	}
	_ = t.Flush()
	if len(notes) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(notes, "\n"))
	}
}

func printPeers(w io.Writer, st *localapi.Status, now time.Time) error {
	if len(st.Peers) == 0 && len(st.Endpoints) == 0 {
		if m := st.Membership; m != nil && m.Members <= 1 {
			fmt.Fprintln(w, "no peers yet: `vix-node invite` makes a ticket with which another node joins")
			return nil
		}
		fmt.Fprintln(w, "no peers yet: `vix-node connect HOST:PORT` or `vix-node run --connect HOST:PORT` finds one")
		return nil
	}
	t := table(w)
	if len(st.Peers) > 0 {
		fmt.Fprintln(t, "PEER\tLABEL\tSTATE\tADDRESS\tRTT\tPENDING\tMISSING\tLAST ACK")
	}
	failed, notes := failures(st), []string{}
	for _, p := range st.Peers {
		rtt := "-"
		if p.RTTMillis > 0 {
			rtt = fmt.Sprintf("%.1f ms", p.RTTMillis)
		}
		state := p.State
		if p.Direction != "" {
			state += " (" + p.Direction + ")"
		}
		if p.Relayed {
			state += " relayed"
		}
		if p.Durability == "relaxed" {
			state += " RELAXED"
		}
		pending := fmt.Sprintf("%s (%s)", grouped(p.PendingOps), size(p.PendingBytes))
		if p.PendingOps == 0 {
			pending = "0"
		}
		missing := grouped(p.MissingOps)
		if !p.Settled {
			missing = "?" // nothing was compared
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", short(p.PeerID), shown(p.Label, 20), state, p.Addr, rtt,
			pending, missing, lastAck(&p, now))
		notes = append(notes, peerNotes(&p, failed[p.PeerID])...)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, e := range failed[""] {
		text := e.LastError
		if !strings.Contains(text, e.Endpoint) {
			text = e.Endpoint + ": " + text
		}
		notes = append(notes, text+" ("+many(uint64(e.Failures), "failed attempt", "failed attempts")+")")
	}
	if len(notes) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(notes, "\n"))
	}
	return nil
}

// lastAck is when the peer last acknowledged something that this node sent.
func lastAck(p *localapi.Peer, now time.Time) string {
	if p.LastAck == nil && p.PendingOps == 0 {
		return "-" // nothing was sent
	}
	return ago(p.LastAck, now)
}

// failures are the endpoints at which attempts failed, by the listed peer that is
// expected there; "": by none.
func failures(st *localapi.Status) map[string][]localapi.Endpoint {
	of := map[string][]localapi.Endpoint{}
	for _, e := range st.Endpoints {
		if e.Failures == 0 {
			continue
		}
		id := e.PeerID
		if !slices.ContainsFunc(st.Peers, func(p localapi.Peer) bool { return p.PeerID == id }) {
			id = ""
		}
		of[id] = append(of[id], e)
	}
	return of
}

// whyAway is one reason why a peer is not connected, however many addresses of it were
// dialled in vain; --json has all.
func whyAway(p *localapi.Peer, failed []localapi.Endpoint) string {
	text := p.LastError
	if p.State == "Connected" || p.State == "Stale" || text == "" && len(failed) == 0 {
		return text
	}
	attempts := 0
	for _, e := range failed {
		attempts += e.Failures
		if text == "" {
			text = e.LastError
		}
	}
	switch n := many(uint64(attempts), "failed attempt", "failed attempts"); len(failed) {
	case 0:
		return text
	case 1:
		return text + " (" + n + ")"
	default:
		return fmt.Sprintf("%s (%s at %d addresses)", text, n, len(failed))
	}
}

// peerNotes say what a row of the table has no room for: why not connected, and
// what does not flow.
func peerNotes(p *localapi.Peer, failed []localapi.Endpoint) (notes []string) {
	name := short(p.PeerID)
	if p.Label != "" {
		name = shown(p.Label, 20) + " (" + name + ")"
	}
	if text := whyAway(p, failed); text != "" {
		notes = append(notes, name+": "+text)
	}
	if p.Durability == "relaxed" {
		notes = append(notes, name+": it runs with relaxed durability: what it holds counts for no --replicas")
	}
	for _, l := range p.Paused {
		notes = append(notes, fmt.Sprintf("%s: log %s of space %s is paused: %s", name, short(l.Log), shown(l.Space, 40), l.Why))
	}
	for _, s := range p.Spaces {
		if s.Why != "" {
			notes = append(notes, fmt.Sprintf("%s: space %s is not exchanged: %s", name, shown(s.Space, 40), s.Why))
		}
	}
	if p.Copies {
		notes = append(notes, fmt.Sprintf("%s: several copies of one data directory use this identity: give each its own, or run only one", name))
	}
	if skew := time.Duration(p.SkewMillis) * time.Millisecond; skew.Abs() > time.Minute {
		notes = append(notes, fmt.Sprintf("%s: its clock differs by %s", name, skew.Round(time.Second)))
	}
	return notes
}

// syncText is how far the node is with what its peers have.
func syncText(s *localapi.Sync) string {
	text := fmt.Sprintf("%.0f %%, %s of %s operations", s.Percent, grouped(s.Done), grouped(s.Total))
	if s.RemainingS >= 0 {
		text += ", " + brief(time.Duration(s.RemainingS*float64(time.Second))) + " left"
	}
	return text
}
