package replication

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestHLCParts(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 891_999_999, time.UTC)
	if got := HLCAt(at).Time(); !got.Equal(at.Truncate(time.Millisecond)) {
		t.Errorf("%v", got)
	}
	if HLCAt(time.Unix(-5, 0)) != 0 {
		t.Error("a time before 1970 is not 0")
	}
	if far := HLCAt(time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)); far.Time().Year() != 10889 {
		t.Errorf("a time beyond 48 bits wraps around to %v", far.Time())
	}
}

// TestClockAscends: whatever the wall clock and the peers do, every reading is
// greater than all before it, and not more than a counter ahead of the highest
// time seen.
func TestClockAscends(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	c := NewClock(0)
	now := time.UnixMilli(1_700_000_000_000)
	last, highest := HLC(0), HLC(0)
	for i := range 20_000 {
		now = now.Add(time.Duration(r.IntN(2001)-1000) * time.Millisecond)
		highest = max(highest, HLCAt(now))
		if r.IntN(3) == 0 {
			remote := HLCAt(now.Add(time.Duration(r.IntN(240)-120) * time.Second))
			ahead, adopted := c.Observe(remote, now)
			if want := remote.Time().Sub(now) <= MaxSkew; adopted != want || ahead != remote.Time().Sub(now) {
				t.Fatalf("%v ahead: adopted %v", ahead, adopted)
			}
			if adopted {
				highest = max(highest, remote)
				if c.Last() < remote {
					t.Fatal("adopted and forgotten")
				}
			}
		}
		got := c.Tick(now)
		if got <= last || got != c.Last() {
			t.Fatalf("reading %d after %d", got, last)
		}
		if got > highest+HLC(i)+1 {
			t.Fatalf("reading %v runs ahead of %v", got.Time(), highest.Time())
		}
		last = got
	}
}

func TestClockIsExactAtTheSkewLimit(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	c := NewClock(5)
	if _, ok := c.Observe(HLCAt(now.Add(MaxSkew)), now); !ok || c.Last() != HLCAt(now.Add(MaxSkew)) {
		t.Error("a minute ahead is not adopted")
	}
	c = NewClock(5)
	if ahead, ok := c.Observe(HLCAt(now.Add(MaxSkew+time.Millisecond)), now); ok || c.Last() != 5 || ahead != MaxSkew+time.Millisecond {
		t.Errorf("more than a minute ahead is adopted: %v", ahead)
	}
	if _, ok := c.Observe(3, now); !ok || c.Last() != 5 {
		t.Error("an older time moves the clock back")
	}
	if _, ok := c.Observe(^HLC(0), now); ok {
		t.Error("the largest time is adopted")
	}
}

func TestClockCounts(t *testing.T) {
	now := time.UnixMilli(1000)
	c := NewClock(HLCAt(now) + 1<<hlcCounterBits - 1) // the counter is full
	if got := c.Tick(now); got != HLCAt(now.Add(time.Millisecond)) {
		t.Errorf("%d: a full counter does not carry into the next millisecond", got)
	}
}
