package replicator

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"vixp2p/replication"
)

// Pace bounds how many bytes of runs go over all sessions that share it, and of
// whatever else waits for its turn here: a token bucket (golang.org/x/time/rate)
// that a piece larger than it may overdraw. What is small, acks and questions, is
// not counted and waits for no turn. A nil Pace bounds nothing.
type Pace struct {
	bucket *rate.Limiter
}

// A run is sent in pieces that take about paceTurn, and at least minTurn bytes, so
// that sessions take turns and acks do not wait long. paceAhead is for how long
// pushes may wait in a queue, with the pings among them.
const (
	paceTurn  = 125 * time.Millisecond
	minTurn   = 4 << 10
	paceAhead = 2 * time.Second
)

// paceBurst is what may pass at once after a rest.
const paceBurst = 100 * time.Millisecond

// NewPace makes a Pace of so many bytes per second; nil for 0 or less.
func NewPace(bytesPerSecond int64) *Pace {
	if bytesPerSecond <= 0 {
		return nil
	}
	perSecond := rate.Limit(bytesPerSecond)
	return &Pace{bucket: rate.NewLimiter(perSecond, max(1, int(float64(perSecond)*paceBurst.Seconds())))}
}

// take lets n bytes through and returns how long they have to wait for what went
// before them.
func (p *Pace) take(now time.Time, n int) time.Duration {
	if p == nil || n == 0 {
		return 0
	}
	wait := p.bucket.ReserveN(now, 1).DelayFrom(now)
	for n--; n > 0; n -= p.bucket.Burst() { // no more can be reserved at once
		p.bucket.ReserveN(now, min(n, p.bucket.Burst()))
	}
	return wait
}

// Wait waits until n bytes may pass, or ctx ends.
func (p *Pace) Wait(ctx context.Context, n int) {
	sleep(ctx, p.take(time.Now(), n))
}

// bytesIn is about what passes in so much time; at least least, at most most.
func (p *Pace) bytesIn(d time.Duration, least, most int) int {
	if p == nil {
		return most
	}
	return max(least, int(min(float64(p.bucket.Limit())*d.Seconds(), float64(most))))
}

// bulk is how many bytes of a run a message carries.
func bulk(m replication.Message) int {
	if push, ok := m.(*replication.WalPush); ok {
		return len(push.Data)
	}
	return 0
}

// overtakes tells a message that may pass pushes that wait for their turn: it
// says what was received, whatever is being sent. A ping may not: its answer says
// that everything before it was read.
func overtakes(m replication.Message) bool {
	switch m.(type) {
	case *replication.WalAck, *replication.Pong:
		return true
	}
	return false
}
