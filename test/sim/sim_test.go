package sim

import (
	"flag"
	"os"
	"testing"
)

var (
	seed  = flag.Uint64("seed", 0, "simulate this seed alone, with a trace")
	seeds = flag.Uint64("seeds", 600, "how many seeds to simulate; with -short a tenth")
)

// TestSim simulates many seeds. To see one again:
//
//	go test ./test/sim -run Sim -seed N
func TestSim(t *testing.T) {
	if *seed > 0 {
		res, err := Run(Config{Seed: *seed, Trace: os.Stdout})
		t.Logf("%+v", res)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	n := *seeds
	if testing.Short() {
		n /= 10
	}
	var sum Result
	for s := uint64(1); s <= n; s++ {
		res, err := Run(Config{Seed: s})
		if err != nil {
			t.Errorf("%v\nto see it: go test ./test/sim -run Sim -seed %d", err, s)
			if t.Failed() && s > 50 {
				t.FailNow()
			}
		}
		sum.Nodes += res.Nodes
		sum.Steps += res.Steps
		sum.Writes += res.Writes
		sum.Crashes += res.Crashes
		sum.Breaks += res.Breaks
		sum.Messages += res.Messages
		sum.Lost += res.Lost
		sum.Healed = max(sum.Healed, res.Healed)
	}
	t.Logf("%d seeds: %+v", n, sum)
}
