package wal

import "fmt"

// continuity is what the table in doc.go decides: whether this directory is the
// one that wrote last (design 4.7).
type continuity struct {
	keepEpoch    bool
	keepInstance bool
	// lost: commits that were acknowledged are not in the store.
	lost bool
	// unsynced: the machine stopped before what was acknowledged was synced.
	// Nothing tells how much of it is in the store, nor in which places.
	unsynced bool
	// why is what to tell when the instance is new.
	why string
}

// judge compares what the store recorded at its last open and commit with what
// lies in the directory now; clean tells that it was closed. It is a pure
// function.
func judge(id *identity, h *head, boot string, lease leaseFile, w testimony, clean bool) continuity {
	sameBoot := boot != "" && boot == id.boot
	hash := h.hash()
	c := continuity{keepInstance: true}
	fresh := func(format string, a ...any) {
		c.keepInstance = false
		if c.why == "" {
			c.why = fmt.Sprintf(format, a...)
		}
	}
	switch {
	case w.valid && w.commits > h.commits:
		c.lost = true
		fresh("%s missing from the store", many(w.commits-h.commits, "acknowledged commit is", "acknowledged commits are"))
	case w.valid && (w.commits == h.commits && w.head != hash || w.commits+1 == h.commits && w.head != h.prev):
		c.lost = true
		fresh("the store's last commit is not the one that was acknowledged")
	}
	switch {
	case !lease.present || lease.proof != id.lease || lease.nonce != id.nonce:
		fresh("the directory was copied or restored: its lease file is not the one that was written last")
	case !w.present || w.inode != id.witness:
		fresh("the directory was copied or restored: its witness file is not the one that was written last")
	}
	switch {
	case !sameBoot && id.relaxed && !clean:
		c.unsynced = true
		fresh("the machine stopped while durability was relaxed: the last acknowledged writes may be missing")
	case !sameBoot:
		// The witness may be older than the store: it is not synced.
	case !w.valid:
		fresh("the witness file is damaged")
	case w.commits+1 < h.commits:
		fresh("the witness file is older than the store: one of them was restored")
	}
	c.keepEpoch = c.keepInstance && sameBoot
	return c
}

// drawIdentity makes the identity of this open. Whatever is not kept is drawn.
func (s *Store) drawIdentity(old *identity, c continuity) (identity, error) {
	id := identity{network: s.opt.Network, self: s.self}
	if old != nil {
		id = *old
	}
	if old == nil || !c.keepInstance {
		if err := s.random(id.instance[:]); err != nil {
			return id, err
		}
	}
	if old == nil || !c.keepEpoch {
		if err := s.random(id.epoch[:]); err != nil {
			return id, err
		}
	}
	return id, nil
}
