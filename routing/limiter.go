package routing

import (
	"math"
	"time"
)

// Limiter bounds, for each neighbour, how many messages are looked at: a bucket of
// tokens that fills steadily. It is asked before a signature is verified. It is not
// safe for concurrent use.
type Limiter struct {
	rate, burst float64
	buckets     map[PeerKey]bucket
}

// bucket is a number of tokens at a time.
type bucket struct {
	tokens float64
	at     time.Time
}

const (
	// MessagesPerSecond and MessageBurst are what a neighbour may push.
	MessagesPerSecond = 50
	MessageBurst      = 200
	// maxBuckets bounds the memory; beyond it those that are full again are
	// forgotten, which changes nothing, or else all.
	maxBuckets = 4096
)

// NewLimiter allows that many messages a second, and a burst at once.
func NewLimiter(rate, burst int) *Limiter {
	return &Limiter{rate: float64(rate), burst: float64(burst), buckets: map[PeerKey]bucket{}}
}

// Allow takes a token of the neighbour's, or says after which time there is one.
func (l *Limiter) Allow(peer PeerKey, now time.Time) (ok bool, retry time.Duration) {
	b, known := l.buckets[peer]
	if !known {
		if len(l.buckets) >= maxBuckets {
			l.sweep(now)
		}
		b = bucket{l.burst, now}
	}
	b = l.fill(b, now)
	if ok = b.tokens >= 1; ok {
		b.tokens--
	} else {
		retry = time.Duration(math.Ceil((1 - b.tokens) / l.rate * float64(time.Second)))
	}
	l.buckets[peer] = b
	return ok, retry
}

func (l *Limiter) fill(b bucket, now time.Time) bucket {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(l.burst, b.tokens+d.Seconds()*l.rate)
	}
	b.at = now
	return b
}

func (l *Limiter) sweep(now time.Time) {
	for peer, b := range l.buckets {
		if l.fill(b, now).tokens >= l.burst {
			delete(l.buckets, peer)
		}
	}
	if len(l.buckets) >= maxBuckets {
		clear(l.buckets)
	}
}
