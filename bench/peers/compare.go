package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"vixp2p/node/bench"
)

// workload is one that all systems get.
type workload struct {
	name    string
	what    string
	batch   int
	catchUp bool
	targets map[string]float64 // of a system: how many times as fast ours is to be
}

// workloads are all of them.
var workloads = []workload{
	{name: liveSingle, batch: 1,
		what: "one writer, one operation after the other, each acknowledged before the next; until the peer holds all"},
	{name: liveBatched, batch: 1000,
		what: "one writer, batches of 1,000 (nats: 1,000 messages that wait for their PubAck at a time); until the peer holds all"},
	{name: catchUpBatched, batch: 1000, catchUp: true, targets: map[string]float64{"go-ds-crdt": 20, "nats": 3},
		what: "an empty peer gets operations that were written in batches of 1,000; until it holds all"},
	{name: catchUpSingle, batch: 1, catchUp: true, targets: map[string]float64{"go-ds-crdt": 500, "nats-fsync": 15},
		what: "an empty peer gets operations that were written one by one; until it holds all"},
}

// options say what to compare.
type options struct {
	dir    string   // where a directory is made for everything that is written
	only   []string // systems; none: all
	quick  bool
	most   int // operations of a load, for tests; 0: no limit
	turns  int
	limit  time.Duration // of one turn of one system
	status func(string)
}

// result is a row: a system under a workload. Figures are medians of the turns.
type result struct {
	Workload string   `json:"workload"`
	System   string   `json:"system"`
	Versions []string `json:"versions"`
	Acked    string   `json:"acknowledged"`
	Ops      int      `json:"operations"`
	Value    float64  `json:"value"` // in Unit; Low and High the worst and the best turn
	Unit     string   `json:"unit"`
	Low      float64  `json:"low"`
	High     float64  `json:"high"`
	Turns    int      `json:"turns"`
	// Ratio is how many times as fast ours was in the same turns; 0 where that was not
	// measured.
	Ratio     float64 `json:"ratio,omitempty"`
	RatioLow  float64 `json:"ratio_low,omitempty"`
	RatioHigh float64 `json:"ratio_high,omitempty"`
	Target    float64 `json:"target,omitempty"` // of Ratio
	Reached   *bool   `json:"reached"`          // null without a target
	Note      string  `json:"note,omitempty"`   // why there is no figure
}

// choose are the systems that are wanted.
func choose(only []string) ([]system, error) {
	var list []system
	for _, s := range systems {
		if len(only) == 0 || slices.Contains(only, s.name) {
			list = append(list, s)
		}
	}
	for _, name := range only {
		if !slices.ContainsFunc(systems, func(s system) bool { return s.name == name }) {
			return nil, fmt.Errorf("there is no system %q: they are %s", name, strings.Join(systemNames(), ", "))
		}
	}
	return list, nil
}

func systemNames() (names []string) {
	for _, s := range systems {
		names = append(names, s.name)
	}
	return names
}

// compare measures and calls report for each row. What it wrote is removed when it
// returns, also when ctx ends.
func compare(ctx context.Context, o options, report func(result) error) (err error) {
	list, err := choose(o.only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "vix-peers-")
	if err != nil {
		return fmt.Errorf("cannot make a directory to measure in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, w := range workloads {
		r := &run{options: o, workload: w, dir: dir}
		results, err := r.all(ctx, list)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		for _, res := range results {
			if err := report(res); err != nil {
				return err
			}
		}
	}
	return nil
}

// run is one workload under way.
type run struct {
	options
	workload
	dir   string
	count int
}

// all measures the systems by turns: the first of each, then the second of each.
func (r *run) all(ctx context.Context, list []system) ([]result, error) {
	rates := make([][]float64, len(list))
	notes := make([]string, len(list))
	for turn := range r.turns {
		for i, s := range list {
			if notes[i] != "" {
				continue
			}
			r.status(fmt.Sprintf("%s, turn %d of %d: %s", r.name, turn+1, r.turns, s.name))
			rate, err := r.turn(ctx, s)
			var slow *slowError
			switch {
			case errors.As(err, &slow):
				notes[i] = err.Error()
			case err != nil:
				return nil, fmt.Errorf("%s, %s: %w", r.name, s.name, err)
			}
			rates[i] = append(rates[i], rate)
		}
	}
	for _, s := range list {
		if err := os.RemoveAll(r.prepared(s)); err != nil {
			return nil, err
		}
	}
	at := slices.IndexFunc(list, func(s system) bool { return s.name == ours })
	results := make([]result, len(list))
	for i, s := range list {
		results[i] = result{Workload: r.name, System: s.name, Versions: versions(s.modules), Acked: s.acked, Ops: r.load(s).ops, Unit: "ops/s", Note: notes[i]}
		if notes[i] == "" {
			results[i].sum(rates[i])
			if at >= 0 && at != i && notes[at] == "" {
				results[i].compareWith(rates[at], rates[i], r.targets[s.name])
			}
		}
	}
	return results, nil
}

// slowError: a turn was given up.
type slowError struct{ after time.Duration }

func (e *slowError) Error() string { return fmt.Sprintf("given up after %v", e.after) }

func (r *run) load(s system) load {
	ops := s.sizes[r.name].full
	if r.quick {
		ops = s.sizes[r.name].quick
	}
	if r.most > 0 {
		ops = min(ops, r.most)
	}
	return load{ops, r.batch}
}

// prepared is the directory of a writer with the load that a peer catches up with.
func (r *run) prepared(s system) string { return filepath.Join(r.dir, r.name+"-"+s.name) }

// turn is the rate of one system in one turn.
func (r *run) turn(parent context.Context, s system) (rate float64, err error) {
	ctx, cancel := context.WithTimeoutCause(parent, r.limit, &slowError{r.limit})
	defer cancel()
	r.count++
	dir := filepath.Join(r.dir, fmt.Sprint(r.count))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(dir))
		// An end of the context has many faces.
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	l := r.load(s)
	took, err := r.once(ctx, s, l, dir)
	return float64(l.ops) / took.Seconds(), err
}

// once does the workload with a new peer and looks whether it holds all, byte for
// byte, when the clock has stopped.
func (r *run) once(ctx context.Context, s system, l load, dir string) (took time.Duration, err error) {
	writer, before := filepath.Join(dir, "writer"), 0
	if r.catchUp {
		writer = r.prepared(s)
		if err := prepareOnce(ctx, s, l, writer); err != nil {
			return 0, err
		}
	}
	debug.FreeOSMemory() // what the one before left is not this one's work
	p, err := s.open(ctx, writer, filepath.Join(dir, "peer"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	var start time.Time
	if r.catchUp {
		start = time.Now()
		if err := p.start(ctx); err != nil {
			return 0, err
		}
	} else {
		// One operation first: then the peer is there and in step.
		if err := warmUp(ctx, p); err != nil {
			return 0, err
		}
		before = 1
		batches := slices.Collect(l.batches(before))
		start = time.Now()
		for _, b := range batches {
			if err := p.write(ctx, b); err != nil {
				return 0, err
			}
		}
	}
	if err := p.await(ctx, before+l.ops); err != nil {
		return 0, err
	}
	took = time.Since(start)
	c := newCheck(before + l.ops)
	if err := p.read(ctx, c.add); err != nil {
		return 0, err
	}
	return took, c.done()
}

func warmUp(ctx context.Context, p pair) error {
	if err := p.start(ctx); err != nil {
		return err
	}
	for b := range (load{1, 1}).batches(0) {
		if err := p.write(ctx, b); err != nil {
			return err
		}
	}
	return p.await(ctx, 1)
}

// prepareOnce writes a load unless it is there, and waits until the disk has it:
// what one system leaves unwritten would slow the next.
func prepareOnce(ctx context.Context, s system, l load, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := s.prepare(ctx, dir, l); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

func (res *result) sum(rates []float64) {
	res.Turns = len(rates)
	res.Value, res.Low, res.High = bench.Summary(rates)
}

// compareWith is the ratio of each turn: the two of a turn ran beside each other.
func (res *result) compareWith(ours, theirs []float64, target float64) {
	ratios := make([]float64, len(theirs))
	for i := range theirs {
		ratios[i] = ours[i] / theirs[i]
	}
	res.Ratio, res.RatioLow, res.RatioHigh = bench.Summary(ratios)
	if target > 0 {
		reached := res.Ratio >= target
		res.Target, res.Reached = target, &reached
	}
}
