package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"vixp2p/replication"
)

// MaxSpaces bounds the spaces of a node. In an open network a peer can name
// spaces at will, and this node replicates each (G8).
const MaxSpaces = 4096

// metaSpace precedes a space's id, in hex, in the store's small values; the value
// is its name. Names cannot be computed from ids, so they are remembered.
const metaSpace = "node/space/"

// spaceNames knows the spaces of this node and their names, as far as they are
// known: of a space that arrived by its id alone there is no name.
type spaceNames struct {
	network replication.NetworkID
	fresh   chan struct{} // capacity 1: a name is to be saved

	mu    sync.Mutex // guards below
	names map[replication.SpaceID]spaceName
}

type spaceName struct {
	name  string
	saved bool // in the store
}

func newSpaceNames(network replication.NetworkID) *spaceNames {
	s := &spaceNames{network: network, fresh: make(chan struct{}, 1), names: map[replication.SpaceID]spaceName{}}
	s.learn(replication.SpaceInfo{ID: replication.SpaceOf(network, replication.DefaultSpace), Name: replication.DefaultSpace})
	return s
}

// load adds the spaces that the store has, with the names that it remembers.
func (s *spaceNames) load(store replication.Store) error {
	for _, id := range store.Spaces() {
		name, err := store.Meta(metaSpace + id.String())
		if err != nil {
			return fmt.Errorf("cannot read the name of space %s: %w", id, err)
		}
		s.mu.Lock()
		switch {
		case len(name) > 0 && replication.SpaceOf(s.network, string(name)) == id:
			s.names[id] = spaceName{string(name), true}
		case s.names[id].name == "":
			s.names[id] = spaceName{}
		}
		s.mu.Unlock()
	}
	return nil
}

// learn takes a space that somebody named; false if it is not to be taken: its
// name is another space's or not fit to be shown, or there are too many.
func (s *spaceNames) learn(info replication.SpaceInfo) bool {
	if info.Name != "" && (checkSpaceName(info.Name) != nil || replication.SpaceOf(s.network, info.Name) != info.ID) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, known := s.names[info.ID]
	switch {
	case !known && len(s.names) >= MaxSpaces:
		return false
	case !known || have.name == "":
		s.names[info.ID] = spaceName{name: info.Name}
	}
	return true
}

// signal tells that a name is to be saved.
func (s *spaceNames) signal() {
	select {
	case s.fresh <- struct{}{}:
	default:
	}
}

// save makes the name of a space that has one durable.
func (s *spaceNames) save(ctx context.Context, store replication.Store, id replication.SpaceID) error {
	s.mu.Lock()
	have := s.names[id]
	s.mu.Unlock()
	if have.saved || have.name == "" {
		return nil
	}
	if err := store.SetMeta(ctx, metaSpace+id.String(), []byte(have.name)); err != nil {
		return fmt.Errorf("cannot remember the name of space %q: %w", have.name, err)
	}
	s.mu.Lock()
	s.names[id] = spaceName{have.name, true}
	s.mu.Unlock()
	return nil
}

// name is the name of a space, empty if it is not known.
func (s *spaceNames) name(id replication.SpaceID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[id].name
}

// unsaved lists the spaces of which the name is known and not yet durable.
func (s *spaceNames) unsaved() []replication.SpaceID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []replication.SpaceID
	for id, n := range s.names {
		if n.name != "" && !n.saved {
			ids = append(ids, id)
		}
	}
	return ids
}

// list is every space that is known, by name.
func (s *spaceNames) list() []replication.SpaceInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]replication.SpaceInfo, 0, len(s.names))
	for id, n := range s.names {
		out = append(out, replication.SpaceInfo{ID: id, Name: n.name})
	}
	slices.SortFunc(out, func(a, b replication.SpaceInfo) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.ID[:], b.ID[:]))
	})
	return out
}

// checkSpaceName accepts what a space may be called.
func checkSpaceName(name string) error {
	return checkText("space name", name, replication.MaxSpaceNameBytes)
}
