package node

import (
	"context"
	"fmt"

	"vixp2p/replication"
)

// UntakenWrites are writes of this node, of one log, that members do not take because it
// was revoked.
type UntakenWrites struct {
	Space, Log string
	From       uint64 // seq of the first
	Ops        uint64
	// Cut: they lie beyond the cut of the revocation, as far as they are held still. Else
	// the revocation itself has not reached this node: no member has stated to it that it
	// holds them, and more may lie beyond the cut.
	Cut bool
}

// Untaken are the writes of this node that members do not take because it was revoked, as
// far as it knows; those of an earlier generation stay so when it was admitted again.
// ErrNoMembers.
func (n *Node) Untaken(ctx context.Context) (list []UntakenWrites, err error) {
	if n.members == nil {
		return nil, ErrNoMembers
	}
	err = n.do(ctx, func(e *engine) error {
		list, err = n.untaken(e)
		return err
	})
	return list, err
}

func (n *Node) untaken(e *engine) (list []UntakenWrites, err error) {
	add := func(l replication.LogInfo, from, ops uint64, cut bool) {
		list = append(list, UntakenWrites{
			Space: n.members.spaceTitle(l.Space), Log: l.Log.String(), From: from, Ops: ops, Cut: cut,
		})
	}
	for _, l := range e.store.SetAside() {
		if l.Origin == n.members.self {
			add(l, l.Tip.Seq+1, l.SetAside, true)
		}
	}
	refused := n.isRefused()
	var stated map[replication.LogID]uint64
	for _, space := range e.store.Spaces() {
		for _, l := range e.store.Logs(space) {
			if l.Origin != n.members.self || !refused && (l.Cut == nil || l.Cut.Seq != endedHere) {
				continue
			}
			if stated == nil {
				if stated, err = statedPositions(e.store); err != nil {
					return nil, err
				}
			}
			if at := stated[l.Log]; at < l.Tip.Seq {
				add(l, at+1, l.Tip.Seq-at, false)
			}
		}
	}
	return list, nil
}

// statedPositions is how far members have stated that they hold each log, also before
// they were restored from a copy, or are gone: what was stated may have gone on.
func statedPositions(store replication.Store) (map[replication.LogID]uint64, error) {
	known, err := store.ListCursors()
	if err != nil {
		return nil, fmt.Errorf("what members stated earlier cannot be read: %w", err)
	}
	stated := map[replication.LogID]uint64{}
	for _, c := range known {
		entries, err := store.LoadCursor(c.Peer, c.Instance)
		if err != nil {
			return nil, fmt.Errorf("what members stated earlier cannot be read: %w", err)
		}
		for _, e := range entries {
			stated[e.Log] = max(stated[e.Log], e.Pos.Seq)
		}
	}
	return stated, nil
}
