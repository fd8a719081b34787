package replicator

import (
	"context"
	"maps"

	"vixp2p/replication"
)

// Totals are the sums of Status, cheap enough to be asked every second: what a
// session does not know of itself is remembered until the member states something.
type Totals struct {
	PendingOps uint64
	// MissingOps of each space: what the peer states that has the most.
	MissingOps map[replication.SpaceID]uint64
	// Settled: the frontiers of all spaces were compared with every peer that has a
	// session.
	Settled bool
}

// awayPending is what is pending towards a member by its cursor.
type awayPending struct {
	known    bool
	version  uint64 // of the member, that it follows from
	ops      uint64
	grown    map[replication.SpaceID]uint64 // Replicator.grown at that time, of the spaces that count
	retreats uint64                         // Replicator.retreats at that time
}

// memberNow is a member and its newest session.
type memberNow struct {
	key     replication.OriginKey
	session *Peer // nil: none
	// What follows is by its cursor.
	instance replication.Instance
	version  uint64
	away     awayPending
}

// Totals sums up where replication stands.
func (r *Replicator) Totals(ctx context.Context) (Totals, error) {
	t := Totals{MissingOps: map[replication.SpaceID]uint64{}, Settled: true}
	for _, m := range r.receipts.now(r.self.Self) {
		if m.session != nil {
			settled, pending := true, uint64(0)
			there := m.session.ask(ctx, func() {
				m.session.session.EachSpace(func(space replication.SpaceID, ok bool, p, missing uint64) {
					settled = settled && ok
					pending += p
					t.MissingOps[space] = max(t.MissingOps[space], missing)
				})
			})
			switch {
			case ctx.Err() != nil:
				return t, ctx.Err()
			case there && settled:
				t.PendingOps += pending
				continue
			case there:
				t.Settled = false
			}
		}
		t.PendingOps += r.pendingAway(m)
	}
	return t, nil
}

// pendingAway is what is pending towards a member of whom only the cursor tells:
// what it was when it was looked up, and whatever became durable since.
func (r *Replicator) pendingAway(m memberNow) uint64 {
	grown, retreats := r.grownFor(m)
	if a := m.away; a.known && a.version == m.version && a.retreats == retreats && sameSpaces(a.grown, grown) {
		return a.ops + sum(grown) - sum(a.grown)
	}
	stated := r.storedCursor(m.key, m.instance)
	if Durability(stated[replication.LogID{}].Base) == forgotten { // before the start
		r.receipts.setForgotten(m.key, m.version)
		return 0
	}
	ops := uint64(0)
	for space := range grown {
		for _, l := range r.store.Logs(space) {
			if at := stated[l.Log].Pos.Seq; at < l.Tip.Seq && !l.Forked {
				ops += l.Tip.Seq - at
			}
		}
	}
	if now, n := r.grownFor(m); n == retreats && maps.Equal(now, grown) { // else some of it may be counted already
		r.receipts.setAway(m.key, awayPending{known: true, version: m.version, ops: ops, grown: grown, retreats: retreats})
	}
	return ops
}

// grownFor is how much the spaces that a member may have have grown, and how often
// something was taken back.
func (r *Replicator) grownFor(m memberNow) (grown map[replication.SpaceID]uint64, retreats uint64) {
	r.mu.Lock()
	grown = make(map[replication.SpaceID]uint64, len(r.spaces))
	for space := range r.spaces {
		grown[space] = r.grown[space]
	}
	retreats = r.retreats
	r.mu.Unlock()
	for space := range grown {
		if !r.memberCarries(m.key, m.session, space) {
			delete(grown, space)
		}
	}
	return grown, retreats
}

func sameSpaces(a, b map[replication.SpaceID]uint64) bool {
	return maps.EqualFunc(a, b, func(uint64, uint64) bool { return true })
}

func sum(of map[replication.SpaceID]uint64) (n uint64) {
	for _, v := range of {
		n += v
	}
	return n
}

// now is every member but this one.
func (rc *receipts) now(self replication.OriginKey) []memberNow {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	all := make([]memberNow, 0, len(rc.members))
	for key, m := range rc.members {
		if key == self || m.forgotten {
			continue
		}
		one := memberNow{key: key, instance: m.instance, version: m.version, away: m.away}
		if l := m.newestLocked(); l != nil {
			one.session = l.p
		}
		all = append(all, one)
	}
	return all
}

func (rc *receipts) setForgotten(key replication.OriginKey, version uint64) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if m := rc.members[key]; m != nil && m.version == version {
		m.forgotten = true
	}
}

func (rc *receipts) setAway(key replication.OriginKey, a awayPending) {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if m := rc.members[key]; m != nil && m.version == a.version {
		m.away = a
	}
}
