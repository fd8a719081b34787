package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// small is a comparison with few operations and one turn.
func small(t *testing.T) options {
	return options{dir: t.TempDir(), quick: true, most: 1500, turns: 1, limit: time.Minute, status: func(s string) { t.Log(s) }}
}

// Each system delivers each workload: when the clock has stopped the peer holds all
// operations, byte for byte (a turn fails otherwise), and there is a row.
func TestDelivers(t *testing.T) {
	for _, s := range systems {
		t.Run(s.name, func(t *testing.T) {
			o, rows := small(t), map[string]result{}
			o.only = []string{s.name}
			err := compare(t.Context(), o, func(r result) error {
				rows[r.Workload] = r
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range workloads {
				if r := rows[w.name]; r.System != s.name || r.Value <= 0 || r.Ops <= 0 || r.Note != "" || r.Ratio != 0 {
					t.Errorf("%s: %+v", w.name, r)
				}
			}
			if left, err := os.ReadDir(o.dir); err != nil || len(left) > 0 {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
}

// halfway is a pair whose peer is said to hold what it does not.
type halfway struct{ held []batch }

func (h *halfway) start(context.Context) error            { return nil }
func (h *halfway) write(_ context.Context, b batch) error { h.held = append(h.held, b); return nil }
func (h *halfway) await(context.Context, int) error       { return nil }
func (h *halfway) close() error                           { return nil }
func (h *halfway) read(_ context.Context, fn func(int, []byte) error) error {
	for _, b := range h.held[:len(h.held)-1] {
		for i, payload := range b.payloads {
			if err := fn(b.from+i, payload); err != nil {
				return err
			}
		}
	}
	return nil
}

// A system whose peer lacks something when the clock stops has no figure.
func TestChecksDelivery(t *testing.T) {
	s := system{name: "half", sizes: map[string]size{liveSingle: {10, 10}},
		open: func(context.Context, string, string) (pair, error) { return &halfway{}, nil }}
	r := &run{options: small(t), workload: workloads[0]}
	r.dir = t.TempDir()
	if _, err := r.all(t.Context(), []system{s}); err == nil || !strings.Contains(err.Error(), "holds 10 operations of 11") {
		t.Errorf("it says %v", err)
	}
	var c = newCheck(2)
	b := make([]byte, opBytes)
	fillPayload(b, 1)
	if err := c.add(1, b); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{"twice": c.add(1, b), "other bytes": c.add(0, b), "not written": c.add(2, b), "holds 1 operations of 2": c.done()} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A turn that takes too long is a note, and the others go on; an end of the whole is
// an error with its reason. Both leave nothing.
func TestBounded(t *testing.T) {
	stuck := system{name: "stuck", sizes: map[string]size{liveSingle: {1, 1}},
		open: func(ctx context.Context, _, _ string) (pair, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	r := &run{options: small(t), workload: workloads[0]}
	r.dir, r.limit = t.TempDir(), 10*time.Millisecond
	results, err := r.all(t.Context(), []system{stuck})
	if err != nil || len(results) != 1 || results[0].Note != "given up after 10ms" {
		t.Errorf("%+v, %v", results, err)
	}
	o, enough := small(t), errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	o.status = func(string) { cancel(enough) }
	if err := compare(ctx, o, nil); !errors.Is(err, enough) {
		t.Errorf("it says %v", err)
	}
	for _, dir := range []string{r.dir, o.dir} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("it left %v, %v", left, err)
		}
	}
}

// Ratios are of each turn, and there is one object a row, or a table.
func TestOutput(t *testing.T) {
	r := result{Workload: catchUpSingle, System: "nats-fsync", Ops: 5, Unit: "ops/s"}
	r.sum([]float64{10, 5, 100})
	r.compareWith([]float64{200, 75, 1000}, []float64{10, 5, 100}, 15)
	if r.Value != 10 || r.Low != 5 || r.High != 100 || r.Ratio != 15 || r.RatioLow != 10 || r.RatioHigh != 20 || !*r.Reached {
		t.Errorf("%+v", r)
	}
	var table bytes.Buffer
	if err := printTable(&table, []result{r, {Workload: catchUpSingle, System: "nats", Note: "given up"}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10 (5 to 100)", "15 (10 to 20)", "yes", "given up"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
	var out, progress bytes.Buffer
	if err := program(t.Context(), []string{"--quick", "--json", "--only", "bogus", "--dir", t.TempDir()}, &out, &progress); err == nil || !strings.Contains(err.Error(), `"bogus"`) {
		t.Errorf("a system that is not there: %v", err)
	}
	line, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(line), `"reached":true`) {
		t.Errorf("%s, %v", line, err)
	}
}
