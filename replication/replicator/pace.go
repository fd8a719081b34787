package replicator

import (
	"context"
	"sync"
	"time"

	"vixp2p/replication"
)

// Pace bounds how many bytes of runs go over all sessions that share it. What is
// small, acks and questions, is not counted and waits for no turn. A nil Pace
// bounds nothing.
type Pace struct {
	rate float64 // bytes per second

	mu   sync.Mutex // guards below
	free time.Time  // when everything that was let through has passed at the rate
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
	return &Pace{rate: float64(bytesPerSecond)}
}

// take lets n bytes through and returns how long they have to wait for that.
func (p *Pace) take(now time.Time, n int) time.Duration {
	if p == nil || n == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if earliest := now.Add(-paceBurst); p.free.Before(earliest) {
		p.free = earliest
	}
	wait := p.free.Sub(now)
	p.free = p.free.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	return max(0, wait)
}

// wait waits until n bytes may pass, or ctx ends.
func (p *Pace) wait(ctx context.Context, n int) {
	d := p.take(time.Now(), n)
	if d == 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// bytesIn is about what passes in so much time; at least least, at most most.
func (p *Pace) bytesIn(d time.Duration, least, most int) int {
	if p == nil {
		return most
	}
	return max(least, int(min(p.rate*d.Seconds(), float64(most))))
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
