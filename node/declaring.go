package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"vixp2p/replication"
	"vixp2p/trust"
)

// DeclaredSpace is a space of the network.
type DeclaredSpace struct {
	Name      string
	ID        string // hex
	Encrypted bool
	Carried   bool // this node replicates it
}

// CreateSpace declares a space: from then on members with a role in it may use it.
// It is for admins. A space that exists stays as it is.
func (n *Node) CreateSpace(ctx context.Context, name string, encrypted bool) (*DeclaredSpace, error) {
	m, err := n.needMembers()
	if err != nil {
		return nil, err
	}
	s := &trust.SpaceStatement{Name: name, Encrypted: encrypted}
	if err := checkSpaceName(name); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	if _, err := trust.Op(s); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	m.issuing.Lock()
	defer m.issuing.Unlock()
	if _, err := m.admin(); err != nil {
		return nil, err
	}
	id := replication.SpaceOf(m.network, name)
	if err := n.do(ctx, func(e *engine) error { return n.createSpace(ctx, e, id, s) }); err != nil {
		return nil, err
	}
	for _, d := range n.declaredSpaces() {
		if d.Name == name {
			return &d, nil
		}
	}
	return nil, fmt.Errorf("the space %q was declared and does not count: see whether this node is an admin still: %w", name, replication.ErrNotAllowed)
}

// createSpace declares a space and makes the first key of an encrypted one. issuing is
// held.
func (n *Node) createSpace(ctx context.Context, e *engine, id replication.SpaceID, s *trust.SpaceStatement) error {
	m := n.members
	if s.Encrypted && !m.isEncrypted(id) && (m.isDeclared(id) || len(e.store.Logs(id)) > 0) {
		return fmt.Errorf("the space %q exists and is not encrypted, and whether it is is fixed when it is created: use another name: %w", s.Name, ErrConflict)
	}
	if !m.isDeclared(id) {
		if err := n.state(ctx, e, []trust.Statement{s}); err != nil {
			return err
		}
	}
	if err := n.handOutKeys(ctx, e); err != nil { // of other members, maybe; it is tried again at the next change
		n.log.Warn("not all content keys of encrypted spaces could be handed out", "err", err)
	}
	return nil
}

// DeclaredSpaces are the spaces of the network, by name.
func (n *Node) DeclaredSpaces() ([]DeclaredSpace, error) {
	if _, err := n.needMembers(); err != nil {
		return nil, err
	}
	return n.declaredSpaces(), nil
}

func (n *Node) declaredSpaces() []DeclaredSpace {
	m := n.members
	encrypted := map[replication.SpaceID]bool{}
	for _, s := range m.state.Load().Spaces() {
		encrypted[s.ID] = s.Encrypted
	}
	var out []DeclaredSpace
	for _, s := range m.declared() {
		out = append(out, DeclaredSpace{Name: s.Name, ID: s.ID.String(), Encrypted: encrypted[s.ID], Carried: m.takesPart(s.ID)})
	}
	slices.SortFunc(out, func(a, b DeclaredSpace) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (m *membership) spaceName(id replication.SpaceID) string {
	for _, s := range m.declared() {
		if s.ID == id {
			return s.Name
		}
	}
	return ""
}
