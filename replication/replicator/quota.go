package replicator

import (
	"context"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"vixp2p/replication"
)

// What one peer may have this node do. Work is counted in hundredths of a question:
// any message costs 1, whatever makes this node look or answer 100, and a run that is
// refused what its check took. A peer that is ahead of its share is read more slowly,
// which its own flow control tells it; it is not cut off. Only what an honest peer
// does not pass on from others is counted: it would pay for them.
const (
	questionCost = 100
	graftCost    = 10   // many come when another peer has gone; what is pushed then has its own bounds
	modeCost     = 1000 // of a wish about all logs, which goes over all that is pending
	refusedCost  = 100  // of a run that cannot be had: a gap, a fork, not allowed
	badRunCost   = 1000 // of one that does not verify: an honest peer sends none
	// A session may begin with a question about each of a thousand spaces, asked
	// twice; after that come 100 questions, or 10,000 other messages, a second.
	workBurst = 2048 * questionCost
	workRate  = 100 * questionCost
	// Runs that are refused are counted by themselves too: a session begins with
	// questions, and has no reason to begin with thousands of such runs.
	refusedBurst = 256 * refusedCost
	// entriesPerCost entries of a frontier take as long as any message, some 10 us: as
	// many as may be held of all peers (see frontiers.go) are within the burst.
	entriesPerCost = 4
	// What is looked at in a space to answer, and what is shown of it, is counted in
	// logs: 100,000 logs five times at once, and then every two seconds, which takes
	// about a tenth of a core.
	lookBurst = 500_000
	lookRate  = 50_000
	// longestPause is the longest wait before the next message is read: what ends a
	// session is still heard.
	longestPause = time.Second
	// It is logged that a peer is read slowly once it was waited for so long, and then
	// once in slowPause.
	slowNotice = time.Second
	slowPause  = time.Minute
)

// share is what a peer may have of this node's work, in all of its sessions: token
// buckets that may be overdrawn.
type share struct{ work, refused, looks *rate.Limiter }

func newShare() *share {
	return &share{
		work: rate.NewLimiter(workRate, workBurst), refused: rate.NewLimiter(workRate, refusedBurst),
		looks: rate.NewLimiter(lookRate, lookBurst),
	}
}

// untouched tells whether a new share would be the same.
func (s *share) untouched(now time.Time) bool {
	for _, l := range []*rate.Limiter{s.work, s.refused, s.looks} {
		if l.TokensAt(now) < float64(l.Burst()) {
			return false
		}
	}
	return true
}

// maxShares bounds the peers of which it is remembered what they took; whoever takes
// the work of so many within a minute has other means.
const maxShares = 4096

// shareLocked is the share of a peer, which a new session does not renew.
func (r *Replicator) shareLocked(id string, now time.Time) *share {
	if s := r.shares[id]; s != nil {
		return s
	}
	maps.DeleteFunc(r.shares, func(_ string, s *share) bool { return s.untouched(now) })
	s := newShare()
	if len(r.shares) < maxShares {
		r.shares[id] = s
	}
	return s
}

// quota is how one session uses its peer's share.
type quota struct {
	*share

	// The rest is the reader's.
	paused time.Duration // since it was last logged
	told   time.Time     // when that was
}

// costOf is what a message costs by itself.
func costOf(m replication.Message) int {
	switch m := m.(type) {
	case *replication.FrontierDigest:
		if !m.Reply {
			return questionCost
		}
	case *replication.Announce:
		return 1 + len(m.Entries)
	case *replication.Prune:
		if slices.Contains(m.Logs, replication.LogID{}) {
			return modeCost
		}
		return 1 + len(m.Logs)
	case *replication.Graft:
		if m.Log == (replication.LogID{}) {
			return modeCost
		}
		return graftCost
	case *replication.FrontierOpen, *replication.OutboxPull, *replication.Ping, *replication.Receipt, *replication.ForkProofMsg:
		return questionCost
	case *replication.FrontierDiff:
		return 1 + len(m.Entries)/entriesPerCost
	}
	return 1
}

// refusalCost is what a refused run costs beside its message; a run that this node
// has no room for costs nothing.
func refusalCost(code replication.Code) int {
	switch code {
	case replication.CodeOK, replication.CodeNoSpace:
		return 0
	case replication.CodeBadRun:
		return badRunCost
	}
	return refusedCost
}

// overdraw takes n from a bucket and tells after how long that is made up for.
func overdraw(l *rate.Limiter, now time.Time, n int) (wait time.Duration) {
	for ; n > 0; n -= l.Burst() { // no more can be reserved at once
		wait = l.ReserveN(now, min(n, l.Burst())).DelayFrom(now)
	}
	return wait
}

// charge counts what a run that was refused has cost.
func (q *quota) charge(n int) {
	now := time.Now()
	overdraw(q.work, now, n)
	overdraw(q.refused, now, n)
}

// pace counts the cost of a message and waits if the peer is ahead of its share. It
// tells whether that should be logged. The reader alone calls it.
func (q *quota) pace(ctx context.Context, cost int) (notice bool) {
	now := time.Now()
	owed := q.refused.ReserveN(now, 0).DelayFrom(now)
	wait := min(max(overdraw(q.work, now, cost), owed), longestPause)
	sleep(ctx, wait)
	q.paused += wait
	if q.paused < slowNotice || now.Sub(q.told) < slowPause {
		return false
	}
	q.paused, q.told = 0, now
	return true
}

// mayLook waits until the peer's earlier looks are made up for.
func (q *quota) mayLook(ctx context.Context) { sleep(ctx, overdraw(q.looks, time.Now(), 1)) }

// looked counts a look at so many logs; it may be called from any goroutine.
func (q *quota) looked(logs int) { overdraw(q.looks, time.Now(), logs) }

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
