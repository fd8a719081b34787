package trust

import (
	"fmt"
	"strings"

	"vixp2p/replication"
	"vixp2p/replication/canonical"
)

// ControlSpaceName is the space of the control logs. Names that begin with
// ReservedPrefix, of spaces and of kinds of operations, belong to this program.
const (
	ControlSpaceName = "vix/control"
	ReservedPrefix   = "vix/"
)

// ControlSpace is the control space of a network.
func ControlSpace(network replication.NetworkID) replication.SpaceID {
	return replication.SpaceOf(network, ControlSpaceName)
}

// Names of the kinds of statements: operations of kind app (v1).
const (
	nameCertificate = "vix/cert"
	nameInvite      = "vix/invite"
	nameRevocation  = "vix/revoke"
	nameSpace       = "vix/space"
	nameNetwork     = "vix/network"
	nameKeys        = "vix/keys"
)

// Statement is what an operation in a control log says: a *Certificate, *Invite,
// *Revocation, *SpaceStatement, *NetworkStatement or *KeysStatement.
type Statement interface {
	opName() string
	check() error
	// Encode is the payload of the operation.
	Encode() []byte
}

func (*Certificate) opName() string      { return nameCertificate }
func (*Invite) opName() string           { return nameInvite }
func (*Revocation) opName() string       { return nameRevocation }
func (*SpaceStatement) opName() string   { return nameSpace }
func (*NetworkStatement) opName() string { return nameNetwork }
func (*KeysStatement) opName() string    { return nameKeys }

// Op is the operation that makes a statement when it is appended to a control
// log. A statement that breaks a rule is refused, so that none is written that
// others would void.
func Op(s Statement) (replication.Op, error) {
	if err := s.check(); err != nil {
		return replication.Op{}, err
	}
	if c, ok := s.(*Certificate); ok && c.sig == nil {
		return replication.Op{}, refuse(ErrNoCertificate, "the certificate for %s is not signed", c.Subject)
	}
	return replication.Op{Kind: replication.KindApp, Name: s.opName(), Payload: s.Encode()}, nil
}

// Decode reads the statement of an operation. ErrNotStatement: the operation says
// nothing about trust that this version knows. Other errors: it is void, alone.
func Decode(op *replication.Op) (Statement, error) {
	if op.Kind != replication.KindApp || len(op.Key) > 0 {
		return nil, ErrNotStatement
	}
	switch op.Name {
	case nameCertificate:
		return decoded(DecodeCertificate(op.Payload))
	case nameInvite:
		return decoded(decodeInvite(op.Payload))
	case nameRevocation:
		return decoded(decodeRevocation(op.Payload))
	case nameSpace:
		return decoded(decodeSpace(op.Payload))
	case nameNetwork:
		return decoded(decodeNetwork(op.Payload))
	case nameKeys:
		return decoded(decodeKeys(op.Payload))
	}
	return nil, ErrNotStatement
}

// decoded keeps a nil pointer from becoming a Statement that is not nil.
func decoded[S Statement](s S, err error) (Statement, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// checkSpaceName accepts the name of a data space.
func checkSpaceName(name string) error {
	switch {
	case name == "":
		return canonical.Invalidf("a space without a name")
	case strings.HasPrefix(name, ReservedPrefix):
		return canonical.Invalidf("the space name %q begins with %q, which is reserved: choose another", name, ReservedPrefix)
	}
	return checkText("space name", name, replication.MaxSpaceNameBytes)
}

// ControlLog is what a node holds of one log of the control space.
type ControlLog struct {
	Log    replication.LogID
	Origin replication.OriginKey
	// Grant is that of the log's genesis block: an encoded Chain. Logs of the
	// root have none.
	Grant []byte
	// Blocks are those that are held, in any order: a block that a cut set aside
	// may be among them or not.
	Blocks []ControlBlock
}

// ControlBlock is a block of a control log.
type ControlBlock struct {
	End        uint64 // seq of its last operation
	Statements []Statement
}

// BlockOf reads the statements of a block that ends at seq end; operations that
// are none, or void, are left out. A block whose body is void has no operations.
func BlockOf(end uint64, ops []replication.Op) ControlBlock {
	b := ControlBlock{End: end}
	for i := range ops {
		if s, err := Decode(&ops[i]); err == nil {
			b.Statements = append(b.Statements, s)
		}
	}
	return b
}

// peerGen is a peer in one of its generations: what a certificate certifies and a
// revocation revokes. Generation 0 of the root key is the root; generation 0 of
// any other key is an invite.
type peerGen struct {
	key replication.OriginKey
	gen uint64
}

func (p peerGen) String() string { return p.naming(short) }

func (p peerGen) naming(name func(replication.OriginKey) string) string {
	return fmt.Sprintf("%s in generation %d", name(p.key), p.gen)
}
