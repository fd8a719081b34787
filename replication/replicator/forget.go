package replicator

import (
	"fmt"

	"vixp2p/replication"
)

// Forget takes a member without a session out of Status and Totals until its next
// session. What it stated keeps counting for WaitReplicated: it was said. known is
// false of one that stated nothing, or is forgotten already; and so of one with a
// session, which stays.
//
// The caller sees to it that no session of the member begins meanwhile.
func (r *Replicator) Forget(key replication.OriginKey) (known bool, err error) {
	if !r.receipts.forget(key) {
		return false, nil
	}
	return ForgetIn(r.store, key)
}

// ForgetIn is Forget of a store on which no replicator runs.
func ForgetIn(store replication.Store, key replication.OriginKey) (known bool, err error) {
	list, err := Known(store)
	if err != nil {
		return false, err
	}
	for _, c := range list {
		if c.Peer == key {
			store.SaveCursor(key, c.Instance, []replication.FrontierEntry{{Base: uint64(forgotten)}})
			return true, nil
		}
	}
	return false, nil
}

// Known are the members that stated something and are not forgotten, each with its
// newest instance, in the order of their last statements.
func Known(store replication.Store) ([]replication.CursorInfo, error) {
	all, err := store.ListCursors()
	if err != nil {
		return nil, fmt.Errorf("what members stated earlier cannot be read: %w", err)
	}
	newest := map[replication.OriginKey]replication.Instance{}
	for _, c := range all { // newest last
		newest[c.Peer] = c.Instance
	}
	var known []replication.CursorInfo
	for _, c := range all {
		if newest[c.Peer] != c.Instance {
			continue
		}
		// A cursor that cannot be read says nothing, and its member is known.
		if entries, err := store.LoadCursor(c.Peer, c.Instance); err != nil || !isForgotten(entries) {
			known = append(known, c)
		}
	}
	return known, nil
}

func isForgotten(entries []replication.FrontierEntry) bool {
	for _, e := range entries {
		if e.Log == (replication.LogID{}) {
			return Durability(e.Base) == forgotten
		}
	}
	return false
}

// forget notes that a member is forgotten; false: it has a session.
func (rc *receipts) forget(key replication.OriginKey) bool {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	m := rc.members[key]
	if m == nil {
		return true // the store may know it
	}
	if len(m.live) > 0 {
		return false
	}
	m.durability, m.forgotten = UnknownDurability, true
	m.version++
	if m.cursor != nil {
		m.cursor[replication.LogID{}] = replication.FrontierEntry{Base: uint64(forgotten)}
	}
	return true
}
