package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"vixp2p/node/bench"
)

func (p *program) benchCommand() *cobra.Command {
	var o bench.Options
	var only texts
	var compare string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine, and the node on it",
		Long: `Measure what the disk, the processor and the transports of this machine can do at
most, and what the node does on it, by turns in one run, and print the ratios.
It takes some minutes, or half of one with --quick, and about 2 GB of disk, all of
which it gives back. Nothing else should run meanwhile.`,
		Example: "  vix-node bench\n  vix-node bench --quick --only append-1,live-p50 --json\n  vix-node bench --dir /srv --plots plots",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := within(cmd.Context(), p.timeLimit(0))
			defer cancel()
			o.Only = strings.FieldsFunc(only.String(), func(r rune) bool { return r == ',' || r == ' ' })
			if err := bench.Check(o); err != nil {
				return &usageError{err}
			}
			p.tidies.Store(true)
			earlier, err := readEarlier(compare, o.Quick)
			if err != nil {
				return err
			}
			return p.explain(ctx, p.bench(ctx, o, earlier))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.Quick, "quick", false, "small sizes: a first impression in half a minute")
	f.Var(&only, "only", "measure these `rows` only, by name")
	f.StringVar(&compare, "compare", "", "compare with rows that other runs printed with --json, in this `file`")
	f.StringVar(&o.Dir, "dir", "", "the `directory` to write in, whose disk is measured (default: the system's temporary folder)")
	f.StringVar(&o.Plots, "plots", "", "also measure over sizes, writers and peers, and draw it as SVG files in this `directory`")
	return cmd
}

// readEarlier reads the rows of other runs; none without a file.
func readEarlier(path string, quick bool) (bench.Earlier, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read what to compare with: %w", err)
	}
	defer f.Close()
	earlier, err := bench.ReadEarlier(f, quick)
	if err != nil {
		return nil, fmt.Errorf("cannot compare with %s: %w", path, err)
	}
	return earlier, nil
}

func (p *program) bench(ctx context.Context, o bench.Options, earlier bench.Earlier) error {
	o.StartNode = startIdle
	clear := func() {}
	if p.terminal(p.stderr) {
		line := &liveLine{out: p.stderr, width: p.width}
		o.Progress = func(what string, done, of int) {
			line.set(shown(fmt.Sprintf("[%d/%d] %s", done+1, of, what), max(line.columns()-1, 20)))
		}
		clear = line.clear
	}
	if p.flags.json {
		err := bench.Run(ctx, o, func(r bench.Result) error {
			clear()
			earlier.Compare(&r)
			return p.print(r)
		})
		clear()
		return err
	}
	var results []bench.Result
	err := bench.Run(ctx, o, func(r bench.Result) error {
		earlier.Compare(&r)
		results = append(results, r)
		return nil
	})
	clear()
	return errors.Join(printBench(p.stdout, results, earlier != nil), err)
}

// startIdle runs a node as a process of this program.
func startIdle(ctx context.Context, dir string) (pid int, stop func() error, err error) {
	c := newChild(dir, "idle")
	if err := c.start(ctx); err != nil {
		if c.running() {
			err = errors.Join(err, c.kill())
		}
		return 0, nil, err
	}
	return c.cmd.Process.Pid, c.stop, nil
}

// printBench prints a table for people, and below it what the limits are.
func printBench(w io.Writer, results []bench.Result, compared bool) error {
	if len(results) == 0 {
		return nil
	}
	fmt.Fprintf(w, "In %s, %d processors, %s. Medians of turns; low and high in parentheses.\n\n", results[0].Disk, runtime.GOMAXPROCS(0), runtime.Version())
	t := table(w)
	head := "ROW\tMEASURED\tLIMIT\tRATIO\tTARGET\tREACHED"
	if compared {
		head += "\tBEFORE\tTIMES BETTER"
	}
	fmt.Fprintln(t, head)
	for _, r := range results {
		if r.Note != "" {
			fmt.Fprintf(t, "%s\t%s\t\t\t\t\n", r.Name, r.Note)
			continue
		}
		limit, ratio, reached := "", "", ""
		if r.Limit != "" {
			limit = figure(r.LimitValue)
			ratio = fmt.Sprintf("%s (%s to %s)", figure(r.Ratio), figure(r.RatioLow), figure(r.RatioHigh))
		}
		if r.Reached != nil {
			reached = map[bool]string{true: "yes", false: "NO"}[*r.Reached]
		}
		fmt.Fprintf(t, "%s\t%s %s (%s to %s)\t%s\t%s\t%s\t%s", r.Name, figure(r.Value), r.Unit, figure(r.Low), figure(r.High), limit, ratio, r.Target, reached)
		if r.Change > 0 {
			fmt.Fprintf(t, "\t%s\t%s", figure(r.Before), figure(r.Change))
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, r := range results {
		text := r.What
		if r.Limit != "" {
			text += "; limit: " + r.Limit
		}
		fmt.Fprintf(t, "%s\t%s\n", r.Name, text)
	}
	return t.Flush()
}

// figure writes a number with three digits that count.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case math.Abs(v) >= 100:
		return grouped(uint64(math.Round(v)))
	}
	s := fmt.Sprintf("%.*f", 2-int(math.Floor(math.Log10(math.Abs(v)))), v)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
