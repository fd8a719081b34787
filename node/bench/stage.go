package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// payloadBytes is the payload of a small operation.
const payloadBytes = 256

// stage is what all measurements of one run share.
type stage struct {
	o    Options
	dir  string // of this run, removed at its end
	disk string // where that is, for people
	logs map[string]*prepared
	// latencies of the last measurement of live rows, for the plot
	latencies []time.Duration
}

// scene is what one measurement works with.
type scene struct {
	*stage
	dir   string // its own, removed when it is over
	count int
}

func openStage(o Options) (*stage, error) {
	dir, err := os.MkdirTemp(o.Dir, "vix-node-bench-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a directory to measure in: %w", err)
	}
	return &stage{o: o, dir: dir, disk: fmt.Sprintf("%s (%s)", filepath.Dir(dir), fileSystem(dir)), logs: map[string]*prepared{}}, nil
}

func (s *stage) close() error { return os.RemoveAll(s.dir) }

func (s *stage) progress(what string, done, of int) {
	if s.o.Progress != nil {
		s.o.Progress(what, done, of)
	}
}

// pick is full, or quick in a quick run.
func pick[T any](s *stage, full, quick T) T {
	if s.o.Quick {
		return quick
	}
	return full
}

// sub is a new empty directory of the measurement.
func (s *scene) sub() (string, error) {
	s.count++
	dir := filepath.Join(s.dir, fmt.Sprint(s.count))
	return dir, os.Mkdir(dir, 0o700)
}

// turn is one measurement of ours, and of the limit right before it; limit is 0
// where there is none.
type turn struct{ limit, ours float64 }

// measure is a figure of one turn.
type measure func(context.Context) (float64, error)

// byTurns measures limit and ours n times, one after the other. limit may be nil.
func byTurns(ctx context.Context, n int, limit, ours measure) ([]turn, error) {
	turns := make([]turn, n)
	for i := range turns {
		for _, m := range []struct {
			f  measure
			at *float64
		}{{limit, &turns[i].limit}, {ours, &turns[i].ours}} {
			if m.f == nil {
				continue
			}
			v, err := m.f(ctx)
			if err = errors.Join(err, context.Cause(ctx)); err != nil {
				return nil, err
			}
			*m.at = v
		}
	}
	return turns, nil
}

// one makes the turns of a measurement's only row.
func one(turns []turn, err error) ([][]turn, error) { return [][]turn{turns}, err }

// Summary is the median and the extremes of at least one figure.
func Summary(v []float64) (median, low, high float64) {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 1 {
		median = v[n/2]
	} else {
		median = (v[n/2-1] + v[n/2]) / 2
	}
	return median, v[0], v[len(v)-1]
}

// quantile is the p-th part of a list of times, which it sorts.
func quantile(list []time.Duration, p float64) time.Duration {
	slices.Sort(list)
	return list[min(int(p*float64(len(list))), len(list)-1)]
}

// perSecond is n things in the time since start.
func perSecond(n int, start time.Time) float64 { return float64(n) / time.Since(start).Seconds() }

// microseconds of a time.
func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// milliseconds of a time.
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
