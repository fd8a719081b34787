package sim

import (
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

var (
	seed  = flag.Uint64("seed", 0, "simulate this seed alone, with a trace")
	seeds = flag.Uint64("seeds", 200, "how many seeds to simulate; with -short a tenth")
	from  = flag.Uint64("from", 1, "the first of them; 0 draws it")
)

// TestSim simulates many seeds in random order. To see one again:
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
	first := *from
	if first == 0 {
		first = 1 + rand.Uint64N(1<<40)
	}
	failed := 0
	for _, i := range rand.Perm(int(n)) {
		s := first + uint64(i)
		res, err := Run(Config{Seed: s})
		if err != nil {
			t.Errorf("%v\nto see it: go test ./test/sim -run Sim -seed %d", err, s)
			if failed++; failed == 3 {
				t.FailNow()
			}
		}
		sum.Nodes += res.Nodes
		sum.Steps += res.Steps
		sum.Writes += res.Writes
		sum.Crashes += res.Crashes
		sum.Breaks += res.Breaks
		sum.Forks += res.Forks
		sum.Declined += res.Declined
		sum.Revoked += res.Revoked
		sum.Readmitted += res.Readmitted
		sum.SetAside += res.SetAside
		sum.Refused += res.Refused
		sum.Messages += res.Messages
		sum.Lost += res.Lost
		sum.Opened += res.Opened
		sum.Shared += res.Shared
		sum.Duplicates += res.Duplicates
		sum.Announced += res.Announced
		sum.Pruned += res.Pruned
		sum.Grafted += res.Grafted
		sum.Healed = max(sum.Healed, res.Healed)
	}
	t.Logf("%d seeds from %d: %+v", n, first, sum)
	if n >= 20 && (sum.Declined == 0 || sum.Revoked == 0 || sum.Readmitted == 0 || sum.SetAside == 0 || sum.Refused == 0 ||
		sum.Announced == 0 || sum.Pruned == 0 || sum.Grafted == 0 || sum.Opened == 0 || sum.Shared == 0) {
		t.Error("something never happened: the simulation proves nothing about it")
	}
}

// TestFindsFaults makes the drivers err on purpose: what does not find these
// proves nothing when it finds nothing.
func TestFindsFaults(t *testing.T) {
	tests := []struct {
		name  string
		cfg   Config
		seeds uint64 // at most so many until it is found
		want  string // in the error
	}{
		{"an ack before the commit", Config{Fault: AckTooEarly}, 5, "G2"},
		// Only what the other side concludes from it is looked at, after a crash
		// or in time.
		{"an ack before the commit, seen by its receiver", Config{Fault: AckTooEarly, Quiet: true}, 20, "G2"},
		{"nothing is sent again", Config{Fault: NoResend}, 20, "G6"},
		{"an advance is forgotten", Config{Fault: ForgetAdvances}, 20, "G"},
		{"a write is acknowledged before it is durable", Config{Fault: AppendTooEarly}, 20, "G1"},
		{"a space is given to who may not have it", Config{Fault: CarryAll}, 20, "G7"},
		{"a node does not cut", Config{Fault: ForgetCuts}, 40, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for s := uint64(1); s <= tt.seeds; s++ {
				tt.cfg.Seed = s
				if _, err := Run(tt.cfg); err != nil {
					if !strings.Contains(err.Error(), tt.want) {
						t.Fatalf("found, but not by %s: %v", tt.want, err)
					}
					t.Logf("found: %.200s", err)
					return
				}
			}
			t.Fatalf("%d seeds did not find it", tt.seeds)
		})
	}
}

// TestSendsNothingTwice: without faults and circles every run crosses every link
// once.
func TestSendsNothingTwice(t *testing.T) {
	for s := uint64(1); s <= 30; s++ {
		res, err := Run(Config{Seed: s, Peace: true})
		if err != nil {
			t.Fatal(err)
		}
		if res.Duplicates > 0 || res.Writes == 0 {
			t.Errorf("seed %d: %d runs were sent though they were there: %+v", s, res.Duplicates, res)
		}
	}
}

// TestReplays: the same seed does the same.
func TestReplays(t *testing.T) {
	for s := uint64(1); s <= 10; s++ {
		var traces [2]strings.Builder
		for i := range traces {
			if _, err := Run(Config{Seed: s, Trace: &traces[i]}); err != nil {
				t.Fatal(err)
			}
		}
		if traces[0].String() != traces[1].String() {
			t.Fatalf("seed %d does not replay", s)
		}
	}
}
