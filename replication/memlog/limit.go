package memlog

import (
	"context"

	r "vixp2p/replication"
)

func (s *Store) Restrict(ctx context.Context, fn r.Limiter) error { panic("restrict") }

func (s *Store) ReadSetAside(log r.LogID, fn func(*r.Block) error) error { panic("set aside") }
