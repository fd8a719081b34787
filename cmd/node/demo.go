package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"vixp2p/node/localapi"
)

// Sizes of the demo.
const (
	demoFirst   = 20_000 // keys written while only A runs
	demoSecond  = 20_000 // keys of the load in which A is killed
	demoKillAt  = 6_000  // acknowledged when that happens
	demoBatch   = 250
	demoEdits   = 100             // keys that A and C edit while apart
	demoTimeout = 2 * time.Minute // it takes some seconds
)

func (p *program) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show three nodes that lose power, meet and agree",
		Long: `Run three nodes as processes of their own on this machine, in a temporary
directory, and show what they promise: writes while the others are down, a chain
A - B - C in which A and C never meet, a kill -9 in the middle of a load, and the
same keys edited at two places at once. It exits 0 only if all of it held.`,
		Example: "  vix-node demo",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := within(cmd.Context(), p.timeLimit(demoTimeout))
			defer cancel()
			ctx, unread := context.WithCancelCause(ctx)
			defer unread(nil)
			p.tidies.Store(true)
			return p.explain(ctx, p.demo(ctx, func() { unread(errUnread) }))
		},
	}
}

// errUnread is the cause of a context that ended with the reader of the output.
var errUnread = errors.New("the demo was ended, because nobody reads its output any more")

// watchedWriter calls unread when a write fails.
type watchedWriter struct {
	io.Writer
	unread func()
}

func (w watchedWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil {
		w.unread()
	}
	return n, err
}

// givenUp is why a person, and not a step, ended the demo; nil if none did.
func givenUp(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errInterrupted) || errors.Is(cause, errUnread) {
		return cause
	}
	return nil
}

// demo is one run of the show.
type demo struct {
	out     io.Writer // what happens, for a person
	result  io.Writer // with --json the rows of the end, else out
	a, b, c *child
	nodes   []*child
	// caughtUp is how long each node took, from its start, to have what the
	// first load wrote; for A how long the load took.
	caughtUp map[*child]time.Duration
}

func (p *program) demo(ctx context.Context, unread func()) (err error) {
	base, err := os.MkdirTemp("", "vix-node-demo-")
	if err != nil {
		return fmt.Errorf("cannot make a temporary directory: %w", err)
	}
	d := &demo{result: watchedWriter{p.stdout, unread}, a: newChild(base, "A"), b: newChild(base, "B"), c: newChild(base, "C"), caughtUp: map[*child]time.Duration{}}
	d.out = d.result
	if p.flags.json {
		d.out = watchedWriter{p.stderr, unread}
	}
	d.nodes = []*child{d.a, d.b, d.c}
	defer func() {
		for _, n := range d.nodes {
			if n.running() {
				_ = n.kill()
			}
		}
		if err != nil && givenUp(ctx) == nil {
			fmt.Fprintf(d.out, "\nThe nodes' data and logs are kept in %s\n", base)
			return
		}
		err = errors.Join(err, os.RemoveAll(base))
	}()
	fmt.Fprintf(d.out, "Three nodes, A, B and C, each a process of its own, in %s\n\n", base)
	for i, s := range []struct {
		what string
		do   func(context.Context) (string, error)
	}{
		{"A runs alone and takes writes; B and C do not run", d.writeAlone},
		{"B and C start in a chain A - B - C and catch up", d.chain},
		{"A is killed (kill -9) in the middle of a load, and starts again", d.killed},
		{"B stops; A and C edit the same keys while they cannot reach each other", d.apart},
		{"B is back: all three agree, and list the same conflicts", d.together},
		{"A and C have never been connected to each other", d.neverMet},
	} {
		start := time.Now()
		fmt.Fprintf(d.out, "%d. %s\n", i+1, s.what)
		told, err := s.do(ctx)
		if gone := givenUp(ctx); gone != nil {
			return gone
		}
		if err != nil {
			return fmt.Errorf("step %d of the demo did not hold: %w", i+1, err)
		}
		fmt.Fprintf(d.out, "   ok, %s (%s)\n", told, brief(time.Since(start)))
	}
	if err := d.summary(ctx, p); err != nil {
		return cmp.Or(givenUp(ctx), err)
	}
	return nil
}

func demoKey(i int) string { return fmt.Sprintf("item/%06d", i) }

func demoValue(i int) []byte {
	return fmt.Appendf(nil, `{"item":%d,"name":"thing number %d","stock":%d}`, i, i, i*7%100)
}

// load writes keys from..to-1 in batches and returns up to where they are
// acknowledged. acked, if not nil, hears of each commit.
func (d *demo) load(ctx context.Context, n *child, from, to int, acked func(int)) (int, error) {
	for from < to {
		var ops []localapi.Op
		for i := from; i < min(from+demoBatch, to); i++ {
			ops = append(ops, localapi.Op{Op: localapi.OpPut, Key: []byte(demoKey(i)), Value: demoValue(i)})
		}
		if _, err := n.client.Write(ctx, localapi.DefaultSpace, localapi.Write{Ops: ops}); err != nil {
			return from, err
		}
		from += len(ops)
		if acked != nil {
			acked(from)
		}
	}
	return from, nil
}

func (d *demo) writeAlone(ctx context.Context) (string, error) {
	if err := d.a.start(ctx); err != nil {
		return "", err
	}
	start := time.Now()
	if _, err := d.load(ctx, d.a, 0, demoFirst, nil); err != nil {
		return "", err
	}
	d.caughtUp[d.a] = time.Since(start)
	rate := float64(demoFirst) / d.caughtUp[d.a].Seconds()
	return fmt.Sprintf("%s writes are durable on A, %s a second", grouped(demoFirst), grouped(uint64(rate))), nil
}

// chain starts B and C. B dials both, so that A and C learn of nobody but B.
func (d *demo) chain(ctx context.Context) (string, error) {
	start := time.Now()
	if err := d.c.start(ctx); err != nil {
		return "", err
	}
	d.b.connect = []string{d.a.addr(), d.c.addr()}
	if err := d.b.start(ctx); err != nil {
		return "", err
	}
	for _, n := range []*child{d.b, d.c} {
		if err := d.until(ctx, n, func(st *localapi.Status) bool { return st.Spaces[localapi.DefaultSpace].Keys == demoFirst }); err != nil {
			return "", fmt.Errorf("%s has not caught up: %w", n.label, err)
		}
		d.caughtUp[n] = time.Since(start)
	}
	if _, err := d.agree(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("C has all %s keys, though it knows B only", grouped(demoFirst)), nil
}

func (d *demo) killed(ctx context.Context) (string, error) {
	killErr := make(chan error, 1)
	acked, err := d.load(ctx, d.a, demoFirst, demoFirst+demoSecond, func(n int) {
		if n == demoFirst+demoKillAt {
			// While the next batches are on their way.
			go func() { killErr <- d.a.cmd.Process.Kill() }()
		}
	})
	if err == nil {
		return "", errors.New("the load ended although its node was killed")
	}
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	if err := <-killErr; err != nil {
		return "", err
	}
	d.a.gone()
	if err := d.a.start(ctx); err != nil {
		return "", err
	}
	if err := d.hasAll(ctx, d.a, acked); err != nil {
		return "", err
	}
	if _, err := d.load(ctx, d.a, acked, demoFirst+demoSecond, nil); err != nil {
		return "", err
	}
	if _, err := d.agree(ctx); err != nil {
		return "", err
	}
	for _, n := range d.nodes {
		if err := d.hasAll(ctx, n, demoFirst+demoSecond); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("all %s writes that were acknowledged before the kill are there", grouped(uint64(acked-demoFirst))), nil
}

// hasAll checks the keys 0..n-1 and their values.
func (d *demo) hasAll(ctx context.Context, c *child, n int) error {
	next := 0
	err := c.client.List(ctx, localapi.DefaultSpace, localapi.List{Prefix: []byte("item/")}, func(e localapi.Entry) error {
		if next < n && (e.Key.String() != demoKey(next) || e.Value.String() != string(demoValue(next))) {
			return fmt.Errorf("%s was acknowledged, and %s has %s instead", demoKey(next), c.label, e.Key)
		}
		next++
		return nil
	})
	if err == nil && next < n {
		err = fmt.Errorf("%d writes were acknowledged, and %s has %d", n, c.label, next)
	}
	return err
}

func (d *demo) apart(ctx context.Context) (string, error) {
	if err := d.b.stop(); err != nil {
		return "", err
	}
	for _, n := range []*child{d.a, d.c} {
		var ops []localapi.Op
		for i := range demoEdits {
			ops = append(ops, localapi.Op{Op: localapi.OpPut, Key: []byte(demoKey(i)), Value: fmt.Appendf(nil, "edited at %s", n.label)})
		}
		if _, err := n.client.Write(ctx, localapi.DefaultSpace, localapi.Write{Ops: ops}); err != nil {
			return "", err
		}
	}
	digests := map[string]bool{}
	for _, n := range []*child{d.a, d.c} {
		st, err := n.client.Status(ctx)
		if err != nil {
			return "", err
		}
		digests[st.Spaces[localapi.DefaultSpace].ViewDigest] = true
	}
	if len(digests) != 2 {
		return "", errors.New("nodes A and C show the same although they were edited differently")
	}
	return fmt.Sprintf("%d keys have one value at A and another at C", demoEdits), nil
}

func (d *demo) together(ctx context.Context) (string, error) {
	if err := d.b.start(ctx); err != nil {
		return "", err
	}
	if _, err := d.agree(ctx); err != nil {
		return "", err
	}
	var first []string
	for i, n := range d.nodes {
		var list []string
		err := n.client.List(ctx, localapi.DefaultSpace, localapi.List{Conflicts: true}, func(e localapi.Entry) error {
			line := e.Key.String()
			for _, s := range e.Siblings {
				line += fmt.Sprintf(" %s=%s/%d", s.Value, s.Log, s.Seq)
			}
			list = append(list, line)
			return nil
		})
		if err != nil {
			return "", err
		}
		if i == 0 {
			first = list
		}
		if fmt.Sprint(list) != fmt.Sprint(first) {
			return "", fmt.Errorf("%s lists other conflicts than A", n.label)
		}
	}
	if len(first) != demoEdits {
		return "", fmt.Errorf("%d conflicts are listed, and there must be %d", len(first), demoEdits)
	}
	return fmt.Sprintf("%d conflicts, both values kept, the same winner everywhere", len(first)), nil
}

func (d *demo) neverMet(ctx context.Context) (string, error) {
	for _, pair := range [][2]*child{{d.a, d.c}, {d.c, d.a}} {
		st, err := pair[0].client.Status(ctx)
		if err != nil {
			return "", err
		}
		for _, p := range st.Peers {
			if p.PeerID == pair[1].peerID {
				return "", fmt.Errorf("%s knows %s as a peer", pair[0].label, pair[1].label)
			}
		}
	}
	return "each of them knows B only", nil
}

// until asks a node until its status is as wanted.
func (d *demo) until(ctx context.Context, n *child, ok func(*localapi.Status) bool) error {
	for {
		st, err := n.client.Status(ctx)
		if err != nil {
			return err
		}
		if ok(&st) {
			return nil
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// agree waits until all three hold the same writes and show the same.
func (d *demo) agree(ctx context.Context) (sts []localapi.Status, err error) {
	for {
		// B is between the others: in step with both, it has and gave everything.
		if err := d.b.client.Wait(ctx, localapi.Wait{Peers: 2, Synced: true}); err != nil {
			return nil, fmt.Errorf("node B is not in step with A and C: %w", err)
		}
		sts = nil
		same := true
		for _, n := range d.nodes {
			st, err := n.client.Status(ctx)
			if err != nil {
				return nil, err
			}
			sts = append(sts, st)
			s, first := st.Spaces[localapi.DefaultSpace], sts[0].Spaces[localapi.DefaultSpace]
			same = same && s.ViewDigest == first.ViewDigest && s.FrontierDigest == first.FrontierDigest
		}
		if same {
			return sts, nil
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return nil, fmt.Errorf("the three do not show the same: %w", err)
		}
	}
}

// demoRow is one node of the result.
type demoRow struct {
	Node       string  `json:"node"`
	Ops        uint64  `json:"ops"`
	Bytes      uint64  `json:"bytes"`
	Keys       uint64  `json:"keys"`
	Conflicts  uint64  `json:"conflicts"`
	Seconds    float64 `json:"seconds"`
	ViewDigest string  `json:"view_digest"`
}

func (d *demo) summary(ctx context.Context, p *program) error {
	sts, err := d.agree(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(d.out)
	t := table(d.out)
	fmt.Fprintln(t, "NODE\tOPS\tBYTES\tKEYS\tCONFLICTS\tTIME\tVIEW DIGEST")
	for i, n := range d.nodes {
		s := sts[i].Spaces[localapi.DefaultSpace]
		row := demoRow{n.label, s.Ops, s.Bytes, s.Keys, s.Conflicts, d.caughtUp[n].Seconds(), s.ViewDigest}
		if p.flags.json {
			if err := localapi.WriteJSON(d.result, row); err != nil {
				return err
			}
			continue
		}
		what := "to catch up"
		if n == d.a {
			what = "to write"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s %s\t%s\n", row.Node, grouped(row.Ops), size(row.Bytes), grouped(row.Keys),
			grouped(row.Conflicts), brief(d.caughtUp[n]), what, row.ViewDigest[:16])
	}
	if !p.flags.json {
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, n := range d.nodes {
		if err := n.stop(); err != nil {
			return err
		}
	}
	fmt.Fprintln(d.out, "\nEverything held: the digests are equal, and nothing that was acknowledged is lost.")
	return nil
}
