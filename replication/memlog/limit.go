package memlog

import (
	"context"

	r "vixp2p/replication"
)

func (s *Store) Restrict(ctx context.Context, fn r.Limiter) error { return nil }

func (s *Store) ReadSetAside(log r.LogID, fn func(*r.Block) error) error { return nil }
