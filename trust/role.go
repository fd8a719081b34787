package trust

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
	"vixp2p/replication/canonical"
)

// Role is what a member may do in a space.
type Role uint32

const (
	// RoleAdmin writes the control space: certifies, invites and revokes. It is
	// network-wide and comes from the root alone; it holds no data role.
	RoleAdmin Role = 1
	// RoleWriter writes and reads.
	RoleWriter Role = 2
	// RoleReader reads.
	RoleReader Role = 3
	// RoleRelay stores and forwards without being a reader.
	RoleRelay Role = 4
)

var roleNames = map[Role]string{RoleAdmin: "admin", RoleWriter: "writer", RoleReader: "reader", RoleRelay: "relay"}

func (r Role) String() string {
	if name, ok := roleNames[r]; ok {
		return name
	}
	return fmt.Sprintf("role %d", uint32(r))
}

// ParseRole reads the name of a role.
func ParseRole(name string) (Role, error) {
	for r, n := range roleNames {
		if n == name {
			return r, nil
		}
	}
	return 0, fmt.Errorf("%q is no role: it must be admin, writer, reader or relay", name)
}

// Grant is one role in one space.
type Grant struct {
	Space replication.SpaceID // zero: every data space
	Role  Role                // one that this version does not know grants nothing
}

// MaxGrants bounds the grants of a certificate or invite.
const MaxGrants = 64

// covers tells whether the grant is about a data space.
func (g Grant) covers(space replication.SpaceID) bool {
	return g.Space == replication.SpaceID{} || g.Space == space
}

// MayWrite, MayRead and MayCarry tell what a grant allows in a data space. A
// carrier gets and keeps blocks; a reader may understand them, and so gets the
// keys of an encrypted space.
func (g Grant) MayWrite(space replication.SpaceID) bool {
	return g.Role == RoleWriter && g.covers(space)
}

func (g Grant) MayRead(space replication.SpaceID) bool {
	return (g.Role == RoleWriter || g.Role == RoleReader) && g.covers(space)
}

func (g Grant) MayCarry(space replication.SpaceID) bool {
	return (g.Role == RoleWriter || g.Role == RoleReader || g.Role == RoleRelay) && g.covers(space)
}

func compareGrants(a, b Grant) int {
	return cmp.Or(bytes.Compare(a.Space[:], b.Space[:]), cmp.Compare(a.Role, b.Role))
}

// normalGrants is a copy in the order of the encoding, each once.
func normalGrants(grants []Grant) []Grant {
	out := slices.Clone(grants)
	slices.SortFunc(out, compareGrants)
	return slices.Compact(out)
}

func isAdminGrant(g Grant) bool { return g.Role == RoleAdmin }

// Field numbers of a grant (v1).
const (
	gSpace protowire.Number = 1 // absent: every data space
	gRole  protowire.Number = 2
)

func appendGrants(b []byte, num protowire.Number, grants []Grant) []byte {
	for _, g := range grants {
		var in []byte
		if g.Space != (replication.SpaceID{}) {
			in = canonical.AppendBytes(in, gSpace, g.Space[:])
		}
		in = canonical.AppendVarint(in, gRole, uint64(g.Role))
		b = canonical.AppendBytes(b, num, in)
	}
	return b
}

// decodeGrant appends the grant in a field; checkGrants sees to order and count.
func decodeGrant(grants []Grant, f canonical.Field) ([]Grant, error) {
	if len(grants) == MaxGrants {
		return nil, canonical.Invalidf("more than %d grants", MaxGrants)
	}
	var g Grant
	err := decodeInner("grant", f, 0, canonical.SetOf(gRole), func(f canonical.Field) (err error) {
		switch f.Num {
		case gSpace:
			err = fixedID(f, g.Space[:])
		case gRole:
			var v uint64
			v, err = numberUpTo(f, maxRole)
			g.Role = Role(v)
		default:
			err = errUnknownField
		}
		return err
	})
	return append(grants, g), err
}

const maxRole = 1<<32 - 1

// checkGrants holds the rules that concern all grants of one list.
func checkGrants(grants []Grant) error {
	if len(grants) == 0 || len(grants) > MaxGrants {
		return canonical.Invalidf("%d grants: there must be 1 to %d", len(grants), MaxGrants)
	}
	for i, g := range grants {
		if g.Role == 0 {
			return canonical.Invalidf("a grant without a role")
		}
		if i > 0 && compareGrants(grants[i-1], g) >= 0 {
			return canonical.Invalidf("grants are not strictly ascending by space and role")
		}
		if isAdminGrant(g) && g.Space != (replication.SpaceID{}) {
			return canonical.Invalidf("the role admin is for the whole network, not for one space")
		}
	}
	return nil
}
