package replication

import "time"

// HLC is a hybrid logical clock reading: 48 bits of Unix milliseconds, then a
// 16-bit counter (Kulkarni et al., "Logical Physical Clocks", 2014).
type HLC uint64

const hlcCounterBits = 16

// MaxSkew is how far ahead of the own clock a remote reading may be and still
// be adopted (design 4.5). A remote time further ahead is stored and applied
// like any other; only the own clock does not follow it.
const MaxSkew = time.Minute

// HLCAt is the first reading of the millisecond t.
func HLCAt(t time.Time) HLC {
	const last = 1<<(64-hlcCounterBits) - 1 // in the year 10889
	return HLC(uint64(min(max(t.UnixMilli(), 0), last)) << hlcCounterBits)
}

// Time is the reading's physical part.
func (h HLC) Time() time.Time { return time.UnixMilli(int64(h >> hlcCounterBits)).UTC() }

// Clock gives an origin's readings, each greater than all before it. It is not
// safe for concurrent use: the committer owns it.
type Clock struct {
	last HLC // invariant: every reading given or adopted is <= last
}

// NewClock starts after a reading that was given out in an earlier life.
func NewClock(last HLC) *Clock { return &Clock{last: last} }

// Last is the highest reading given out or adopted.
func (c *Clock) Last() HLC { return c.last }

// Tick gives the next reading at the wall time now.
func (c *Clock) Tick(now time.Time) HLC {
	next := HLCAt(now)
	if next <= c.last {
		next = c.last + 1
	}
	c.last = next
	return next
}

// Observe adopts a remote reading unless it is more than MaxSkew ahead of now;
// then it returns how far ahead it is, for the report.
func (c *Clock) Observe(remote HLC, now time.Time) (ahead time.Duration, adopted bool) {
	ahead = remote.Time().Sub(now)
	if ahead > MaxSkew {
		return ahead, false
	}
	if remote > c.last {
		c.last = remote
	}
	return ahead, true
}
