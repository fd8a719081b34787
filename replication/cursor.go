package replication

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Cursor is a place in the order in which blocks became durable at one node
// (design 4.6): resume after it and nothing is missed, over any count of logs.
// It is meaningful only within one instance and view generation.
type Cursor struct {
	Instance   Instance
	Generation uint64 // of the view; 0 for a tail of the logs themselves
	Arrival    uint64 // arrival number of a block; 0 is before the first
	Op         uint64 // operations of that block already seen
}

// String is the form that commands print and take: instance.generation.arrival.op.
func (c Cursor) String() string {
	return fmt.Sprintf("%s.%d.%d.%d", c.Instance, c.Generation, c.Arrival, c.Op)
}

// ParseCursor reads what String wrote.
func ParseCursor(s string) (Cursor, error) {
	var c Cursor
	parts := strings.Split(s, ".")
	bad := func() (Cursor, error) {
		return Cursor{}, fmt.Errorf("cursor %q is not of the form that tail and watch print: %w", s, ErrInvalid)
	}
	if len(parts) != 4 {
		return bad()
	}
	id, err := hex.DecodeString(parts[0])
	if err != nil || len(id) != len(c.Instance) {
		return bad()
	}
	copy(c.Instance[:], id)
	for i, dst := range []*uint64{&c.Generation, &c.Arrival, &c.Op} {
		if *dst, err = strconv.ParseUint(parts[i+1], 10, 64); err != nil {
			return bad()
		}
	}
	return c, nil
}
