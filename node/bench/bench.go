// Package bench measures this machine and the node on it in one run: what the
// disk, the processor and the transports can do at most, and what the node does,
// by turns, since the speed of a shared machine changes within seconds. Read the
// ratios, not the figures.
//
//	bench.go    Run, Result, Options
//	table.go    the rows, with their limits and targets
//	stage.go    what a measurement works with: a directory, turns, prepared logs
//	limits.go   file, Badger, streams, cryptography, and the bare pipe
//	member.go   a store and its replicator on a libp2p host, without a view
//	pair.go     two of them, for comparisons with other systems
//	append.go   catchup.go  live.go  view.go  digest.go  start.go  bytes.go: what is measured
//	compare.go  with rows of other runs
//	plots.go    the same over sizes, writers and peers, as SVG
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Options say what to measure. Zero values are good defaults.
type Options struct {
	// Dir is where a directory is made for everything that is written, and removed
	// at the end: about 2 GB (200 MB if Quick). Default: the system's temporary
	// folder. The disk that it is on is what is measured.
	Dir string
	// Only names the rows to measure, as Names lists them. Default: all.
	Only []string
	// Quick takes small sizes and few turns, for a first impression.
	Quick bool
	// Plots is a directory for SVG files, made if missing. Default: none are made.
	Plots string
	// StartNode runs a node on a directory in a process of its own, and ends it; it
	// returns when the node serves. Without it rows of an idle node are left out.
	StartNode func(ctx context.Context, dir string) (pid int, stop func() error, err error)
	// Progress hears what is measured next, and how much of it is done (nobody).
	Progress func(what string, done, of int)
}

// Result is one row as measured. Figures are medians of the turns; the ratio is
// the median of each turn's own.
type Result struct {
	Name string `json:"name"`
	What string `json:"what"`
	// Value is what was measured, in Unit; Low and High the worst turns.
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	Turns int     `json:"turns"`
	// Limit says what Value is compared with, LimitValue what that was in the same
	// turns, in Unit unless Limit says otherwise; empty in a row that is a limit itself.
	Limit      string  `json:"limit,omitempty"`
	LimitValue float64 `json:"limit_value,omitempty"`
	Ratio      float64 `json:"ratio,omitempty"`
	RatioLow   float64 `json:"ratio_low,omitempty"`
	RatioHigh  float64 `json:"ratio_high,omitempty"`
	// Target is what is to be reached, for people; Reached whether the median does.
	// Empty and null without one.
	Target  string `json:"target,omitempty"`
	Reached *bool  `json:"reached"`
	// Before is the ratio, or without a limit the value, of earlier runs that it was
	// compared with (Earlier.Compare), and Change how many times better it is now: less
	// than 1 is worse. 0 without such a run.
	Before float64 `json:"before,omitempty"`
	Change float64 `json:"change,omitempty"`
	// Note says why there is no figure; Value is then 0.
	Note  string `json:"note,omitempty"`
	Disk  string `json:"disk"`            // directory and file system
	Quick *bool  `json:"quick,omitempty"` // as of Options; earlier versions did not say it
}

// Names are the rows, in order.
func Names() (names []string) {
	for _, m := range table {
		for _, r := range m.rows {
			names = append(names, r.name)
		}
	}
	return names
}

// Check says what is wrong with options.
func Check(o Options) error {
	_, err := choose(o.Only)
	return err
}

// Run measures and calls report for each row as soon as it is there. What it
// wrote is removed when it returns, also when ctx ends.
func Run(ctx context.Context, o Options, report func(Result) error) (err error) {
	wanted, err := choose(o.Only)
	if err != nil {
		return err
	}
	if o.Plots != "" { // before minutes are spent on the rows
		if err := os.MkdirAll(o.Plots, 0o755); err != nil {
			return fmt.Errorf("cannot make the directory of the plots: %w", err)
		}
	}
	s, err := openStage(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	steps := len(wanted)
	if o.Plots != "" {
		steps++
	}
	for i, m := range wanted {
		s.progress(m.name, i, steps)
		if err := s.measure(ctx, m, report); err != nil {
			return err
		}
	}
	if o.Plots == "" {
		return nil
	}
	s.progress("plots", len(wanted), steps)
	return s.plots(ctx, o.Plots)
}

// choose returns the measurements that have one of the rows, with these rows alone.
func choose(only []string) ([]measurement, error) {
	known := Names()
	for _, name := range only {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no row %q to measure: they are %s", name, strings.Join(known, ", "))
		}
	}
	if len(only) == 0 {
		return table, nil
	}
	var wanted []measurement
	for _, m := range table {
		if slices.ContainsFunc(m.rows, func(r row) bool { return slices.Contains(only, r.name) }) {
			m.only = only
			wanted = append(wanted, m)
		}
	}
	return wanted, nil
}

// measure runs one measurement in a directory of its own and reports its rows.
func (s *stage) measure(ctx context.Context, m measurement, report func(Result) error) error {
	dir, err := os.MkdirTemp(s.dir, m.name+"-")
	if err != nil {
		return err
	}
	turns, err := m.run(ctx, &scene{stage: s, dir: dir})
	var missing *missingError
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil && !errors.As(err, &missing) {
		return stopped(ctx, m.name, err)
	}
	for i, r := range m.rows {
		if len(m.only) > 0 && !slices.Contains(m.only, r.name) {
			continue
		}
		res := Result{Name: r.name, What: r.what, Unit: r.unit, Disk: s.disk, Quick: &s.o.Quick}
		if missing != nil {
			res.Note = missing.why
		} else {
			res = r.result(turns[i], res)
		}
		if err := report(res); err != nil {
			return err
		}
	}
	return nil
}

// stopped is the error of a measurement: that of ctx if it ended it.
func stopped(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("cannot measure %s: %w", name, err)
}

// missingError: this machine cannot measure it.
type missingError struct{ why string }

func (e *missingError) Error() string { return e.why }
