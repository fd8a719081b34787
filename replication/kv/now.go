package kv

import (
	"context"

	"vixp2p/replication"
)

// Now is the cursor from which Watch tells what reads do not see yet.
func (v *View) Now(ctx context.Context, space replication.SpaceID) (replication.Cursor, error) {
	return v.now(ctx, space)
}
