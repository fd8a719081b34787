package replicator

import (
	"testing"

	"vixp2p/replication"
)

func TestPartialsAreBounded(t *testing.T) {
	var s partials
	const size = 1 << 20
	for i := range 100 {
		s.keep(replication.OriginKey{byte(i)}, replication.Instance{1}, &replication.Partial{Data: make([]byte, size, 2*size)})
	}
	s.keep(replication.OriginKey{99}, replication.Instance{1}, nil)
	s.keep(replication.OriginKey{99}, replication.Instance{2}, &replication.Partial{Data: make([]byte, 10)})
	if s.bytes > maxPartialBytes || len(s.kept) != maxPartialBytes/size {
		t.Errorf("%d partial runs of %d bytes are kept", len(s.kept), s.bytes)
	}
	if s.take(replication.OriginKey{90}, replication.Instance{1}) != nil {
		t.Error("an old one was kept in place of a newer one")
	}
	run := s.take(replication.OriginKey{99}, replication.Instance{1})
	if run == nil || len(run.Data) != size || cap(run.Data) >= 2*size {
		t.Error("the newest one is not there, or holds more memory than it counts for")
	}
	if s.take(replication.OriginKey{99}, replication.Instance{1}) != nil {
		t.Error("a partial run was given out twice")
	}
	for i := range 200 {
		s.keep(replication.OriginKey{byte(i)}, replication.Instance{3}, &replication.Partial{Data: make([]byte, 1)})
	}
	if len(s.kept) != maxPartials {
		t.Errorf("%d partial runs are kept, not %d", len(s.kept), maxPartials)
	}
}
