package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"vixp2p/replication"
	"vixp2p/replication/kv"
	"vixp2p/replication/replicator"
)

// Space is a namespace of a node: the unit of replication. Two nodes of one
// network mean the same space by the same name. Its methods are safe for
// concurrent use.
type Space struct {
	n    *Node
	name string
	id   replication.SpaceID
	err  error // the name is not fit; every call returns it

	// announced is the engine that knows the space by its name already.
	announced atomic.Pointer[engine]
	// written is the log that was written last: every Write says its name.
	written atomic.Pointer[logText]
}

// logText is a log and its id as text.
type logText struct {
	id   replication.LogID
	text string
}

// textOf is a log's id as text, made once for the log that is being written.
func (s *Space) textOf(log replication.LogID) string {
	if t := s.written.Load(); t != nil && t.id == log {
		return t.text
	}
	t := &logText{log, log.String()}
	s.written.Store(t)
	return t.text
}

// Space returns the space of that name; "" means "default". A space exists from
// its first write on, here or at a peer.
func (n *Node) Space(name string) *Space {
	if name == "" {
		name = replication.DefaultSpace
	}
	s := &Space{n: n, name: name, id: replication.SpaceOf(n.network, name)}
	s.err = checkSpaceName(name)
	return s
}

// check says why the space cannot be read here.
func (s *Space) check() error {
	err := s.checkPart()
	if m := s.n.members; err == nil && m != nil && !m.mayRead(s.id) {
		return fmt.Errorf("this node is a relay in space %q, which passes on what it does not read: ask an admin for the role reader: %w", s.name, replication.ErrNotAllowed)
	}
	return err
}

// checkPart says why this node has no part in the space.
func (s *Space) checkPart() error {
	m := s.n.members
	switch {
	case s.err != nil || m == nil:
		return s.err
	case !m.isDeclared(s.id):
		return fmt.Errorf("there is no space %q in this network, as far as this node has heard: an admin creates it with space create: %w", s.name, replication.ErrNotAllowed)
	case !m.takesPart(s.id):
		return fmt.Errorf("this node has no role in space %q, so that it has nothing of it: ask an admin for one: %w", s.name, replication.ErrNotAllowed)
	}
	return nil
}

// Spaces are the names of the data spaces that this node knows, ascending. One that
// arrived without its name is named by its id in hex.
func (n *Node) Spaces() []string {
	var names []string
	for _, s := range n.names.list() {
		if s.ID != n.controlSpace() {
			names = append(names, spaceLabel(s))
		}
	}
	slices.Sort(names)
	return names
}

func spaceLabel(s replication.SpaceInfo) string {
	if s.Name == "" {
		return s.ID.String()
	}
	return s.Name
}

// Name is the space's name.
func (s *Space) Name() string { return s.name }

// Entry is a value of a key.
type Entry struct {
	Key    string
	Value  []byte
	Origin string // peer ID of the node that wrote it
	Log    string // hex; Log and Seq name the write
	Seq    uint64 // from 1
	Time   time.Time
	// Conflicts counts the other values that the key has: concurrent writes that
	// no later write has named yet.
	Conflicts int

	dots []replication.Dot // all live writes of the key when it was read
}

// Write is a write that is durable here.
type Write struct {
	Log string // hex
	Seq uint64 // of its last operation, from 1

	s        *Space
	dot      replication.Dot
	replicas atomic.Int64
}

// ReplicaError: fewer members than asked for have stated to this node, in the time
// given, that they hold a write durably. The write is durable here and goes on to the
// others when they can be reached. It matches ErrReplicas and the context's error.
type ReplicaError struct {
	Want  int
	Acked []string // peer IDs of the members that stated it
	// Connected is how many members have a session with this node, which is how they
	// state it.
	Connected int
	// Relaxed is how many connected members do not fsync, so that they count for
	// none.
	Relaxed int
	Cause   error // the context's
}

func (e *ReplicaError) Error() string {
	relaxed := ""
	if e.Relaxed > 0 {
		relaxed = fmt.Sprintf(", %d of them with relaxed durability, which does not count", e.Relaxed)
	}
	return fmt.Sprintf("the write is durable here, but %d of the %d other members asked for have stated to this node that they hold it durably (only members with a session here are counted: %d now%s): it goes on to the others when they can be reached", len(e.Acked), e.Want, e.Connected, relaxed)
}

// Is matches ErrReplicas.
func (e *ReplicaError) Is(t error) bool { return t == ErrReplicas }
func (e *ReplicaError) Unwrap() error   { return e.Cause }

// WaitReplicated returns when k other members have stated to this node that they
// hold the write durably (G2). Members that have a session with this node are counted,
// and those that stated it in an earlier one: what others hold, which got the write
// through these, is not known here, so that where fewer than k members ever meet this
// node it waits in vain. A *ReplicaError if ctx ends first, ErrOffline in a node without
// network.
func (w *Write) WaitReplicated(ctx context.Context, k int) error {
	if k <= 0 {
		return nil
	}
	err := w.s.n.do(ctx, func(e *engine) error {
		if e.replicator == nil {
			return ErrOffline
		}
		return e.replicator.WaitReplicated(ctx, w.s.id, w.dot, k)
	})
	var short *replicator.NotReplicatedError
	switch {
	case err == nil:
		w.replicas.Store(max(w.replicas.Load(), int64(k)))
	case errors.As(err, &short):
		e := &ReplicaError{Want: k, Connected: w.s.n.connected(), Relaxed: short.Relaxed, Cause: short.Cause}
		for _, key := range short.Acked {
			e.Acked = append(e.Acked, originName(key))
		}
		w.replicas.Store(int64(len(e.Acked)))
		return e
	case ctx.Err() != nil:
		return &ReplicaError{Want: k, Connected: w.s.n.connected(), Cause: context.Cause(ctx)}
	}
	return err
}

// connected is how many members have a session now.
func (n *Node) connected() int {
	if n.mesh == nil {
		return 0
	}
	_, connected := n.mesh.book.counts()
	return connected
}

// Replicas is how many other members had stated to this node that they hold the write
// durably, by the end of the last WaitReplicated; 0 before one.
func (w *Write) Replicas() int { return int(w.replicas.Load()) }

// Put sets a key's value and names every value of it that this node has seen, so
// that it replaces them. It returns once the write is durable here (G1).
//
// Keys have 1 to 4,096 bytes, a value at most about 1 MiB: ErrTooLarge.
// ErrNoSpace: the disk is full; nothing was written. If ctx ends while the
// write waits, it may still happen.
func (s *Space) Put(ctx context.Context, key string, value []byte) (*Write, error) {
	return s.Batch(ctx, func(b *Batch) error { b.Put(key, value); return nil })
}

// PutIf is Put on condition that the key is still as it was read: seen is what
// Get returned, or the zero Entry for a key that must be absent. ErrConflict if
// it has changed: read it again and decide anew.
func (s *Space) PutIf(ctx context.Context, key string, value []byte, seen Entry) (*Write, error) {
	return s.Batch(ctx, func(b *Batch) error { b.PutIf(key, value, seen); return nil })
}

// Delete removes a key: every value of it that this node has seen. Deleting an
// absent key is a write too.
func (s *Space) Delete(ctx context.Context, key string) (*Write, error) {
	return s.Batch(ctx, func(b *Batch) error { b.Delete(key); return nil })
}

// Append writes an operation of an application's own kind, a name of 1 to 64
// bytes of printable text other than "put" and "delete", with a payload of at most
// about 1 MiB. It shows in Tail and does not touch the keys.
func (s *Space) Append(ctx context.Context, kind string, payload []byte) (*Write, error) {
	return s.Batch(ctx, func(b *Batch) error { b.Append(kind, payload); return nil })
}

// Batch collects operations that become durable, and visible everywhere, as one
// transaction: at most 4,096 operations and about 1 MiB.
type Batch struct {
	ops   []replication.Op
	conds []replication.Condition
}

// Put is Space.Put in the batch.
func (b *Batch) Put(key string, value []byte) {
	b.ops = append(b.ops, replication.Op{Kind: replication.KindPut, Key: []byte(key), Payload: slices.Clone(value)})
}

// PutIf is Space.PutIf: if the condition does not hold, nothing of the batch
// happens.
func (b *Batch) PutIf(key string, value []byte, seen Entry) {
	b.conds = append(b.conds, replication.Condition{Key: []byte(key), Dots: slices.Clone(seen.dots)})
	b.Put(key, value)
}

// Delete is Space.Delete in the batch.
func (b *Batch) Delete(key string) {
	b.ops = append(b.ops, replication.Op{Kind: replication.KindDelete, Key: []byte(key)})
}

// Append is Space.Append in the batch.
func (b *Batch) Append(kind string, payload []byte) {
	b.ops = append(b.ops, replication.Op{Kind: replication.KindApp, Name: kind, Payload: slices.Clone(payload)})
}

// Len is the number of operations so far.
func (b *Batch) Len() int { return len(b.ops) }

// Batch runs fn and writes what it collected as one transaction; nothing if fn
// returns an error, which Batch returns. Errors are those of Put.
func (s *Space) Batch(ctx context.Context, fn func(b *Batch) error) (*Write, error) {
	if err := s.checkPart(); err != nil {
		return nil, err
	}
	if m := s.n.members; m != nil && m.isEncrypted(s.id) && !m.mayRead(s.id) {
		return nil, fmt.Errorf("this node is a relay in space %q, which passes on what it cannot read: ask an admin for the role writer: %w", s.name, replication.ErrNotAllowed)
	}
	var b Batch
	if err := fn(&b); err != nil {
		return nil, err
	}
	if len(b.ops) == 0 {
		return nil, fmt.Errorf("the batch is empty: put at least one operation into it: %w", ErrInvalid)
	}
	for i := range b.ops {
		if err := checkOp(&b.ops[i]); err != nil {
			return nil, err
		}
	}
	var done replication.Appended
	err := s.n.do(ctx, func(e *engine) (err error) {
		done, err = s.append(ctx, e, &b)
		return err
	})
	if err != nil {
		return nil, err
	}
	w := &Write{s: s, dot: replication.Dot{Log: done.First.Log, Seq: done.Pos.Seq}}
	// The block may hold other batches too: this one's last operation counts.
	w.dot.Seq = done.First.Seq + uint64(len(b.ops)) - 1
	w.Log, w.Seq = s.textOf(w.dot.Log), w.dot.Seq
	return w, nil
}

// checkOp accepts what a batch may hold. The format takes any bytes as the name of
// a kind; what this node writes must not pass for a put or delete in Tail, and
// must be fit to be shown.
func checkOp(op *replication.Op) error {
	if op.Kind == replication.KindApp {
		if op.Name == kindPut || op.Name == kindDelete {
			return fmt.Errorf("the kind %q is what Tail calls a write of a key: give the operation another: %w", op.Name, ErrInvalid)
		}
		if err := checkText("kind", op.Name, replication.MaxAppName); err != nil {
			return fmt.Errorf("%w: %w", err, ErrInvalid)
		}
	}
	return replication.CheckOp(op)
}

// append writes a batch on one engine. While the view catches up, or has too
// many of this node's own writes still to apply, it waits (design 5.3).
func (s *Space) append(ctx context.Context, e *engine, b *Batch) (replication.Appended, error) {
	if err := s.announce(ctx, e); err != nil {
		return replication.Appended{}, err
	}
	for {
		if err := e.view.Admit(ctx, s.id); err != nil {
			return replication.Appended{}, err
		}
		done, err := e.store.Append(ctx, replication.Batch{
			Space: s.id, Ops: b.ops, If: b.conds, Resolver: e.view,
		})
		switch {
		case errors.Is(err, kv.ErrNotReady):
		case errors.Is(err, replication.ErrRevoked):
			return done, errSelfRevoked
		default:
			return done, err
		}
	}
}

// errSelfRevoked: what this node writes would count nowhere.
var errSelfRevoked = errorString{"this node was revoked, so that nothing that it writes now would count anywhere: ask an admin to admit it again, and join with the new ticket", replication.ErrRevoked}

// announce makes the space known to this node and its peers, and its name
// durable, before its first operation.
func (s *Space) announce(ctx context.Context, e *engine) error {
	if s.announced.Load() == e {
		return nil
	}
	info := replication.SpaceInfo{ID: s.id, Name: s.name}
	if !s.n.names.learn(info) {
		return fmt.Errorf("space %q would be one more than the %d that a node takes: use one that exists", s.name, MaxSpaces)
	}
	if err := s.n.names.save(ctx, e.store, s.id); err != nil {
		return err
	}
	if e.replicator != nil {
		e.replicator.AddSpace(info)
	}
	s.announced.Store(e)
	return nil
}

// Get returns the winning value of a key, ErrNotFound if it has none. It sees
// every write of this node that has returned.
func (s *Space) Get(ctx context.Context, key string) (Entry, error) {
	list, err := s.Conflicts(ctx, key)
	if err != nil {
		return Entry{}, err
	}
	return list[0], nil
}

// maxSiblings bounds the values of one key that a read returns.
const maxSiblings = replication.MaxSupersedes

// Conflicts returns all values of a key, the winner first; ErrNotFound if it has
// none. More than one means concurrent writes that no later write has named.
func (s *Space) Conflicts(ctx context.Context, key string) ([]Entry, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	var out []Entry
	err := s.n.do(ctx, func(e *engine) error {
		list, err := e.view.Siblings(ctx, s.id, []byte(key), maxSiblings)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return fmt.Errorf("key %q: %w", key, ErrNotFound)
		}
		dots := make([]replication.Dot, len(list))
		for i := range list {
			dots[i] = list[i].Dot
		}
		out = make([]Entry, len(list))
		for i := range list {
			out[i] = entryOf(&list[i])
			out[i].dots = dots
		}
		return nil
	})
	return out, err
}

func entryOf(e *kv.Entry) Entry {
	return Entry{
		Key: string(e.Key), Value: e.Value, Origin: originName(e.Origin),
		Log: e.Dot.Log.String(), Seq: e.Dot.Seq, Time: e.HLC.Time(), Conflicts: int(e.Conflicts),
		dots: []replication.Dot{e.Dot},
	}
}

// Digest stands for everything that the key-value view of the space shows, once
// it has applied what is held now: equal digests of two nodes, equal state (design
// 5.4). keys is how many keys it has.
func (s *Space) Digest(ctx context.Context) (digest string, keys uint64, err error) {
	if err := s.check(); err != nil {
		return "", 0, err
	}
	err = s.n.do(ctx, func(e *engine) error {
		if err := e.caughtUp(ctx, s.id); err != nil {
			return err
		}
		sum, err := e.view.Summary(ctx, s.id)
		digest, keys = sum.Digest.String(), sum.Keys
		return err
	})
	return digest, keys, err
}
