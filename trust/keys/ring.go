package keys

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/sealed"
	"vixp2p/trust"
)

// Ring is the content keys that a node has, by space. It is the node's
// replication.Sealer and replication.Opener, as the newest trust state says that was
// passed to Update. All methods are safe for concurrent use.
//
// Of a data space that is not declared it answers that it does not know it yet
// (replication.ErrNoKey): a node that has just joined must not write in the open where
// its network seals. The space default exists without a declaration, and is never
// encrypted.
type Ring struct {
	own  identity
	self replication.OriginKey

	mu  sync.Mutex // one Update at a time
	now atomic.Pointer[holdings]
}

var (
	_ replication.Sealer = (*Ring)(nil)
	_ replication.Opener = (*Ring)(nil)
)

// holdings are what a Ring answers from. They do not change.
type holdings struct {
	known  bool                         // the control logs tell of this node
	open   map[replication.SpaceID]bool // those that are not encrypted
	spaces map[replication.SpaceID]*spaceKeys
}

// spaceKeys are the keys of one encrypted space.
type spaceKeys struct {
	name   string
	reader bool
	// newest is what writers use; zero where there is no key.
	newest sealed.KeyID
	held   map[sealed.KeyID]*sealed.Key
}

// NewRing is the empty ring of the node with that key. It knows nothing before the
// first Update.
func NewRing(node ed25519.PrivateKey) (*Ring, error) {
	own, err := newIdentity(node)
	if err != nil {
		return nil, err
	}
	return &Ring{own: own, self: replication.OriginKey(node.Public().(ed25519.PublicKey))}, nil
}

// Update takes up a trust state: it unwraps the keys that are new for this node.
// changed tells that OpenFor answers otherwise than before for some space, so that
// views are to be told. Keys are kept for the life of the ring, also where the
// statements that handed them out do not count any more: blocks are sealed under them.
func (r *Ring) Update(state *trust.State, now time.Time) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	self, known := state.Member(r.self)
	before, next := r.now.Load(), &holdings{
		known: known,
		open: map[replication.SpaceID]bool{
			state.Control(): true, replication.SpaceOf(state.Network(), replication.DefaultSpace): true,
		},
		spaces: map[replication.SpaceID]*spaceKeys{},
	}
	for _, sp := range state.Spaces() {
		if !sp.Encrypted {
			next.open[sp.ID] = true
			continue
		}
		k := &spaceKeys{name: sp.Name, reader: known && mayRead(state, &self, sp.ID, now), held: map[sealed.KeyID]*sealed.Key{}}
		if before != nil && before.spaces[sp.ID] != nil {
			maps.Copy(k.held, before.spaces[sp.ID].held)
		}
		for _, key := range state.Keys(sp.ID) {
			k.newest = key.ID
			r.take(k, For{state.Network(), sp.ID, key.Generation}, &key)
		}
		next.spaces[sp.ID] = k
	}
	r.now.Store(next)
	return before == nil || !before.opens(next)
}

// take unwraps a key of a space unless it is there.
func (r *Ring) take(k *spaceKeys, f For, key *trust.ContentKey) {
	if k.held[key.ID] != nil {
		return
	}
	for _, w := range key.Wraps {
		if w.Recipient != r.own.public {
			continue
		}
		// One that does not open counts for nothing: another may.
		if got, err := r.own.unwrap(f, key.ID, w.Sealed); err == nil {
			k.held[key.ID] = got
			return
		}
	}
}

// opens tells whether OpenFor answers the same from both.
func (h *holdings) opens(next *holdings) bool {
	return h.known == next.known && maps.Equal(h.open, next.open) &&
		maps.EqualFunc(h.spaces, next.spaces, func(a, b *spaceKeys) bool {
			return a.reader == b.reader && len(a.held) == len(b.held) // keys are never taken away
		})
}

// SealFor implements replication.Sealer.
func (r *Ring) SealFor(space replication.SpaceID) (replication.Seal, error) {
	k, err := r.look(space)
	if k == nil || err != nil {
		return nil, err
	}
	key := k.held[k.newest]
	if key == nil {
		return nil, &replication.NoKeyError{Space: space, Name: k.name, KeyID: k.newest}
	}
	return key.Seal, nil
}

// OpenFor implements replication.Opener.
func (r *Ring) OpenFor(space replication.SpaceID) (replication.Open, error) {
	k, err := r.look(space)
	switch {
	case k == nil || err != nil:
		return nil, err
	case !k.reader && !r.now.Load().known:
		return nil, &UnknownError{Space: space}
	case !k.reader:
		return nil, &replication.NotReaderError{Space: space, Name: k.name}
	}
	return func(h *replication.Header, body []byte) ([]byte, error) {
		if key := k.held[sealed.KeyID(h.KeyID)]; key != nil {
			return key.Open(h, body)
		}
		return nil, &replication.NoKeyError{Space: space, Name: k.name, KeyID: [32]byte(h.KeyID), Log: h.Log, Seq: h.FirstSeq}
	}, nil
}

// look finds the keys of a space; nil where it is not encrypted.
func (r *Ring) look(space replication.SpaceID) (*spaceKeys, error) {
	h := r.now.Load()
	if h == nil {
		return nil, &UnknownError{Space: space}
	}
	if k := h.spaces[space]; k != nil {
		return k, nil
	}
	if !h.open[space] {
		return nil, &UnknownError{Space: space}
	}
	return nil, nil
}

// UnknownError: the control logs have not come yet as far as to tell whether a space
// is encrypted, or whether this node may read it. It is errors.Is(err,
// replication.ErrNoKey).
type UnknownError struct{ Space replication.SpaceID }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("this node has not heard yet of the space %s, or of its own role in it: see that an admin has created it, and connect to a member; it goes on by itself", e.Space)
}
func (e *UnknownError) Is(t error) bool { return t == replication.ErrNoKey }

// Status is where a ring stands with one encrypted space, for people.
type Status struct {
	Reader bool   // this node may read it
	Held   int    // keys that this node has
	Newest string // the key that writers use, in short hex; empty where there is none
	// Writes tells that this node has it.
	Writes bool
}

// Status tells about a space; false if it is not encrypted.
func (r *Ring) Status(space replication.SpaceID) (Status, bool) {
	h := r.now.Load()
	if h == nil || h.spaces[space] == nil {
		return Status{}, false
	}
	k := h.spaces[space]
	st := Status{Reader: k.reader, Held: len(k.held), Writes: k.held[k.newest] != nil}
	if k.newest != (sealed.KeyID{}) {
		st.Newest = hex.EncodeToString(k.newest[:4])
	}
	return st, true
}

// key is a key of a space if this node has it.
func (r *Ring) key(space replication.SpaceID, id sealed.KeyID) *sealed.Key {
	if h := r.now.Load(); h != nil && h.spaces[space] != nil {
		return h.spaces[space].held[id]
	}
	return nil
}

// mayRead tells whether a member may read a space, whatever the time is: it is not
// revoked, and has or had a certificate that says so.
func mayRead(state *trust.State, m *trust.Member, space replication.SpaceID, now time.Time) bool {
	return !m.Revoked && (slices.ContainsFunc(m.Grants, func(g trust.Grant) bool { return g.MayRead(space) }) ||
		state.MayRead(m.Key, space, now, nil))
}
