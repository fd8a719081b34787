// Command peers runs the same workloads on this node and on other systems, by turns
// in one process on one machine over loopback, and prints how many times as fast this
// one is. Read the ratios, not the figures. It is a module of its own, so that those
// systems stay out of the node's.
//
//	go run . [--quick] [--json] [--only vix,nats] [--dir DIRECTORY]
//
//	compare.go   the workloads, turns and results
//	systems.go   the systems, and what an acknowledgement means in each
//	vix.go  crdt.go  nats.go: how each writes, replicates and is read
//	load.go      the operations, and the check that a peer holds them
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

var errInterrupted = errors.New("interrupted")

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // a second one ends it at once
		cancel(errInterrupted)
	}()
	err := program(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errInterrupted):
		fmt.Fprintln(os.Stderr, "interrupted; the directories are removed")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// program is the command with its arguments.
func program(ctx context.Context, args []string, out, progress io.Writer) error {
	o := options{turns: 3, limit: time.Minute, status: func(s string) { fmt.Fprintln(progress, s) }}
	f := flag.NewFlagSet("peers", flag.ContinueOnError)
	f.SetOutput(progress)
	f.BoolVar(&o.quick, "quick", false, "small loads and one turn: a first impression in half a minute")
	asJSON := f.Bool("json", false, "print one JSON object a row")
	only := f.String("only", "", "compare these `systems` only, by name: "+strings.Join(systemNames(), ", "))
	f.StringVar(&o.dir, "dir", "", "the `directory` to write in, about 2 GB (default: the system's temporary folder)")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: it takes flags only", f.Arg(0))
	}
	o.only = strings.FieldsFunc(*only, func(r rune) bool { return r == ',' || r == ' ' })
	if o.quick {
		o.turns = 1
	}
	if *asJSON {
		lines := json.NewEncoder(out)
		return compare(ctx, o, func(r result) error { return lines.Encode(r) })
	}
	var results []result
	err := compare(ctx, o, func(r result) error {
		results = append(results, r)
		return nil
	})
	return errors.Join(printTable(out, results), err)
}

// printTable prints a table for people, and below it what the rows mean.
func printTable(w io.Writer, results []result) error {
	if len(results) == 0 {
		return nil
	}
	fmt.Fprintf(w, "Operations of %d bytes per second; %d processors, %s. Medians of turns; low and high in parentheses.\n\n", opBytes, runtime.GOMAXPROCS(0), runtime.Version())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "WORKLOAD\tSYSTEM\tOPERATIONS\tOPS/S\t%s / IT\tTARGET\tREACHED\n", strings.ToUpper(ours))
	for _, r := range results {
		if r.Note != "" {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t\t\t\n", r.Workload, r.System, r.Ops, r.Note)
			continue
		}
		ratio, target, reached := "", "", ""
		if r.Ratio > 0 {
			ratio = fmt.Sprintf("%.3g (%.3g to %.3g)", r.Ratio, r.RatioLow, r.RatioHigh)
		}
		if r.Reached != nil {
			target, reached = fmt.Sprintf("%g", r.Target), map[bool]string{true: "yes", false: "NO"}[*r.Reached]
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%.0f (%.0f to %.0f)\t%s\t%s\t%s\n", r.Workload, r.System, r.Ops, r.Value, r.Low, r.High, ratio, target, reached)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, wl := range workloads {
		fmt.Fprintf(t, "%s\t%s\n", wl.name, wl.what)
	}
	fmt.Fprintln(t, "\t")
	shown := map[string]bool{}
	for _, r := range results {
		if !shown[r.System] {
			shown[r.System] = true
			fmt.Fprintf(t, "%s\tacknowledged: %s\n", r.System, r.Acked)
			if len(r.Versions) > 0 {
				fmt.Fprintf(t, "\t%s\n", strings.Join(r.Versions, ", "))
			}
		}
	}
	return t.Flush()
}

// versions are modules with the versions that this program was built with.
func versions(modules []string) (list []string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, want := range modules {
		for _, m := range info.Deps {
			if m.Path == want {
				list = append(list, strings.TrimPrefix(m.Path, "github.com/")+" "+m.Version)
			}
		}
	}
	return list
}
