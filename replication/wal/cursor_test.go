package wal

import (
	"testing"
	"time"

	r "vixp2p/replication"
)

// TestClockSetBack: the instance of a peer that stated something last stays the
// newest of that peer, whatever our clock does, over restarts too.
func TestClockSetBack(t *testing.T) {
	dir := t.TempDir()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	now := start
	clock := func(o *Options) { o.Now = func() time.Time { return now } }
	s := openAt(t, dir, "a", clock)
	peer, other := r.OriginKey{1}, r.OriginKey{2}
	save := func(peer r.OriginKey, instance byte) {
		s.SaveCursor(peer, r.Instance{instance}, []r.FrontierEntry{{Log: r.LogID{instance}}})
	}
	newest := func(peer r.OriginKey) (found r.CursorInfo) {
		t.Helper()
		list, err := s.ListCursors()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if c.Peer == peer {
				found = c
			}
		}
		return found
	}
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openAt(t, dir, "a", clock)
	}
	want := func(instance byte) {
		t.Helper()
		if c := newest(peer); c.Instance != (r.Instance{instance}) {
			t.Errorf("the newest instance is %s, want %s", c.Instance, r.Instance{instance})
		}
	}

	save(peer, 9)
	now = start.Add(-time.Hour)
	save(peer, 5) // while the one before is not stored yet
	want(5)
	reopen()
	want(5)
	now = start.Add(-2 * time.Hour)
	save(peer, 3) // while it is
	want(3)
	save(peer, 3)
	reopen()
	want(3)
	save(other, 1)
	if c := newest(other); !c.Updated.Equal(now) {
		t.Errorf("a peer's clock mends another's: %s", c.Updated)
	}
	now = start.Add(time.Hour)
	save(peer, 3)
	if c := newest(peer); !c.Updated.Equal(now) {
		t.Errorf("updated at %s, want %s", c.Updated, now)
	}
	mustBeWhole(t, s)
}
