package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"

	"vixp2p/replication"
)

// A cut takes a log back. The view then works out anew what it holds of every
// key that a dropped operation wrote: from the retained blocks, in one pass over
// those of the space, by the rules of apply.go and with nothing assumed about the
// state that is there.
//
// It does so in as many transactions as that takes. Each makes some keys what
// they have to be, and the positions of the logs go back last; so a retreat that
// was interrupted begins again and finds less to do. Reads of the space wait
// until it is done.
//
// What is applied tells by itself that there is something to take back: it is
// beyond what the store holds. What the store tells (Advance.Retreat) is needed
// for the moment alone, and where a log was let count again before the view came
// to its retreat: its blocks have new arrival numbers then.

// maxRetreat bounds what a retreat holds in memory, in bytes. The view of a
// space where that does not do is rebuilt.
const maxRetreat = 32 << 20

// maxRounds is how often a retreat begins again because logs were taken back
// further meanwhile.
const maxRounds = 8

// rebuildError: a retreat cannot be taken up in place; a rebuild gives the same
// state.
type rebuildError struct{ why string }

func (e *rebuildError) Error() string { return e.why }

// backError: the store gives a block that does not follow what is applied of its
// log: the log was taken back and let count again, or it is damaged.
type backError struct {
	log   replication.LogID
	below uint64 // no more than this of what is applied counts, at most
	*replication.DamageError
}

func (e *backError) Unwrap() error { return e.DamageError }

// retreats is what a space is told about its logs that went back. View.mu guards
// it.
type retreats struct {
	// told is how many, taken how many of them are taken up. told may be read without
	// the lock.
	told  atomic.Uint64
	taken uint64
	// bounds: what was applied of a log when it went back counts up to this seq at
	// most.
	bounds map[replication.LogID]uint64
}

func (r *retreats) pending() bool { return r.told.Load() != r.taken }

// tell notes that a log went back to a seq.
func (r *retreats) tell(log replication.LogID, seq uint64) {
	r.told.Add(1)
	r.bound(log, seq)
}

func (r *retreats) bound(log replication.LogID, seq uint64) {
	if r.bounds == nil {
		r.bounds = map[replication.LogID]uint64{}
	}
	if at, ok := r.bounds[log]; !ok || seq < at {
		r.bounds[log] = seq
	}
}

// takeBack takes up what was told of retreats of a space.
func (v *View) takeBack(ctx context.Context, sp *spaceState) error {
	v.mu.Lock()
	told, bounds := sp.back.told.Load(), sp.back.bounds
	sp.back.bounds = nil
	v.mu.Unlock()
	if sp.ahead != nil { // read before
		<-sp.ahead
		sp.ahead = nil
	}
	changed, err := v.retreatOf(ctx, sp, bounds)
	if err == nil && changed {
		sp.a.d.show()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		for id, seq := range bounds { // they are needed again
			sp.back.bound(id, seq)
		}
		return err
	}
	sp.back.taken = told
	sp.sawLocked(&sp.a.saved)
	v.tellLocked()
	return nil
}

// retreatOf takes a space back and tells whether that changed anything.
func (v *View) retreatOf(ctx context.Context, sp *spaceState, bounds map[replication.LogID]uint64) (changed bool, err error) {
	open, err := openFor(v.opt.Opener, sp.id)
	switch {
	case err != nil:
		return false, err
	case sp.a.applied() && sp.a.rule != ruleOf(open):
		return false, errOtherRule
	}
	t := retreat{ctx: ctx, store: v.store, open: open, a: sp.a, bounds: map[replication.LogID]uint64{}}
	maps.Copy(t.bounds, bounds)
	return t.run()
}

// retreat is one space's way back.
type retreat struct {
	ctx   context.Context
	store replication.Store
	open  replication.Open // nil: the space is not encrypted
	a     *applier
	// bounds of logs, as in retreats; applied is all logs as they are applied.
	bounds  map[replication.LogID]uint64
	applied map[replication.LogID]logRecord

	// What follows is made anew in each round. back is the logs that go back, and
	// where to; keys what their dropped operations wrote.
	back map[replication.LogID]replication.Position
	keys map[string]*keyAnew
	// named is what the dropped operations named on their keys and is not applied.
	named map[naming]struct{}
	// seen is how far the pass over the retained blocks has come in each log, and
	// waiting what was named there and did not come: on keys, and of the logs in
	// back on any key.
	seen    map[replication.LogID]replication.Position
	waiting map[replication.LogID]map[uint64]map[replication.Hash]struct{}
	size    int // bytes in memory, about
}

// keyAnew is a key whose siblings are worked out anew.
type keyAnew struct {
	hash replication.Hash
	old  map[replication.Dot]struct{} // its siblings as saved
	live map[replication.Dot]*replication.Op
}

// naming is a dot that was named on a key.
type naming struct {
	dot replication.Dot
	key replication.Hash
}

const (
	keyCost    = 256 // bytes of memory, about, for a key beside its bytes
	dotCost    = 128 // for a dot
	appliedMem = 160 // for a log or a block
)

// run takes the space back and tells whether that changed anything. What is
// committed is shown by the caller.
func (t *retreat) run() (changed bool, err error) {
	if err := t.loadApplied(); err != nil {
		return false, err
	}
	for range maxRounds {
		again, err := t.workOut()
		switch {
		case err != nil:
			return false, err
		case again:
			continue
		case len(t.back) == 0:
			return false, nil
		}
		return true, t.write()
	}
	return false, &rebuildError{"logs were taken back and let count again too often meanwhile"}
}

func (t *retreat) loadApplied() error {
	t.applied = map[replication.LogID]logRecord{}
	prefix := spacePrefix(prefixApplied, t.a.space, 0)
	return scan(t.a.read(), prefix, nil, func(key, record []byte) error {
		l, err := decodeLogRecord(record)
		if err == nil && l.seq > 0 {
			t.applied[replication.LogID(key[len(prefix):])] = l
		}
		return err
	})
}

// workOut finds the new state of the keys concerned. again: a log turned out to
// be held less far than was known, so that more keys are concerned.
func (t *retreat) workOut() (again bool, err error) {
	t.back = map[replication.LogID]replication.Position{}
	t.keys, t.named = map[string]*keyAnew{}, map[naming]struct{}{}
	t.size = appliedMem * len(t.applied)
	for id, l := range t.applied {
		if err := t.dropped(id, l); err != nil {
			return false, err
		}
	}
	if len(t.back) == 0 {
		return false, nil
	}
	if t.a.saved.part > 0 {
		return false, &rebuildError{"a large block was applied in part"}
	}
	if err := t.pass(); err != nil {
		return false, err
	}
	for id, l := range t.applied {
		want := replication.Position{Seq: l.seq, Hash: l.hash}
		if pos, ok := t.back[id]; ok {
			want = pos
		}
		if got := t.seen[id]; got != want {
			t.bounds[id] = got.Seq
			if got.Seq == want.Seq && got.Seq > 0 { // of another branch
				t.bounds[id]--
			}
			again = true
		}
	}
	return again, nil
}

// dropped collects what the dropped operations of a log wrote, if it went back.
func (t *retreat) dropped(id replication.LogID, l logRecord) error {
	bound := l.seq
	if seq, ok := t.bounds[id]; ok {
		bound = min(bound, seq)
	}
	info, _ := t.store.Log(id)
	bound = min(bound, info.Tip.Seq)
	if info.Tip.Seq == l.seq && info.Tip.Hash != l.hash && t.a.saved.part == 0 {
		bound = min(bound, l.seq-1)
	}
	if bound == l.seq {
		return nil
	}
	c := chain{t: t, bound: bound, end: l.seq, links: map[replication.Hash]replication.Position{}}
	// Set aside they are, but what was let count again.
	err := t.store.ReadSetAside(id, 0, c.visit)
	at, whole := c.start(l.hash)
	if err == nil && !whole {
		err = c.visitHeld(id)
		at, whole = c.start(l.hash)
	}
	var tooMuch *rebuildError
	switch {
	case errors.As(err, &tooMuch), errors.Is(err, replication.ErrClosed), t.ctx.Err() != nil:
		return errors.Join(err, t.ctx.Err())
	case whole:
		t.back[id] = at
		return nil
	case info.Limit == nil && info.SetAside == 0 && info.Tip.Seq < l.seq:
		return &replication.DamageError{Log: id, Seq: l.seq, File: t.a.d.dir, Problem: fmt.Sprintf(
			"the view has applied the log up to %d and the store holds it up to %d", l.seq, info.Tip.Seq)}
	}
	return &rebuildError{fmt.Sprintf("what log %s dropped cannot be read (%v)", id.Short(), err)}
}

// chain is the applied blocks of a log beyond a bound.
type chain struct {
	t          *retreat
	bound, end uint64
	// links tells of each block where it begins: the position before it.
	links map[replication.Hash]replication.Position
}

// visit takes a block of the log, if it is one of those.
func (c *chain) visit(b *replication.Block) error {
	h := b.Header
	if _, known := c.links[b.Hash]; known || h.LastSeq() <= c.bound || h.FirstSeq > c.end {
		return nil
	}
	ops, err := blockOps(b, c.t.open)
	if err != nil {
		return err
	}
	c.links[b.Hash] = replication.Position{Seq: h.FirstSeq - 1, Hash: h.Prev}
	c.t.size += appliedMem
	for i := range ops {
		if err := c.t.drop(&ops[i]); err != nil {
			return err
		}
	}
	return c.t.fits()
}

// visitHeld takes the blocks that count again.
func (c *chain) visitHeld(id replication.LogID) error {
	for seq := c.bound + 1; seq <= c.end; {
		run, err := c.t.store.RunCovering(id, seq)
		if err != nil {
			return err
		}
		for rest := run.Data; len(rest) > 0; {
			var b *replication.Block
			if b, rest, err = replication.ParseBlock(rest); err != nil {
				return err
			}
			if b.HasBody() {
				err = c.visit(b)
			}
			if err != nil {
				return err
			}
		}
		if run.End.Seq < seq {
			return nil // no more
		}
		seq = run.End.Seq + 1
	}
	return nil
}

// start is the position before the first of the blocks that lead to the last
// one; false if some are missing.
func (c *chain) start(last replication.Hash) (replication.Position, bool) {
	at := replication.Position{Seq: c.end, Hash: last}
	for at.Seq > c.bound {
		before, ok := c.links[at.Hash]
		if !ok {
			return at, false
		}
		at = before
	}
	return at, true
}

// fits refuses a retreat that takes too much memory.
func (t *retreat) fits() error {
	if t.size > maxRetreat {
		return &rebuildError{"a cut concerns too much of the space to be worked out in place"}
	}
	return t.ctx.Err()
}

// drop notes the key of a dropped operation, and what it named there.
func (t *retreat) drop(o *replication.Op) error {
	if !counts(o) {
		return nil
	}
	k := t.keys[string(o.Key)]
	if k == nil {
		var err error
		if k, err = t.key(o.Key); err != nil {
			return err
		}
		t.keys[string(o.Key)] = k
		t.size += keyCost + len(o.Key)
	}
	for _, s := range o.Supersedes {
		if s.Seq > t.applied[s.Log].seq {
			t.named[naming{s, k.hash}] = struct{}{}
			t.size += dotCost
		}
	}
	return nil
}

// key reads which siblings a key has.
func (t *retreat) key(key []byte) (*keyAnew, error) {
	k := &keyAnew{hash: hashKey(key), old: map[replication.Dot]struct{}{}, live: map[replication.Dot]*replication.Op{}}
	note := func(s sibling) error {
		k.old[s.dot] = struct{}{}
		t.size += dotCost
		return t.fits()
	}
	rec, err := loadKey(t.a.read(), t.a.space, key)
	if err != nil {
		return nil, err
	}
	if rec.large {
		return k, scanSiblings(t.a.read(), t.a.space, k.hash, note)
	}
	for i := range rec.sibs {
		if err := note(rec.sibs[i]); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// pass goes over the retained blocks, up to what is applied.
func (t *retreat) pass() error {
	t.seen = map[replication.LogID]replication.Position{}
	t.waiting = map[replication.LogID]map[uint64]map[replication.Hash]struct{}{}
	for after, end := uint64(0), t.a.saved.arrival; after < end; {
		arrivals, err := t.store.ReadArrivals(t.a.space, after, readBytes)
		for i := range arrivals {
			if after = arrivals[i].Number; after > end {
				return nil
			}
			if err := t.block(arrivals[i].Block); err != nil {
				return err
			}
		}
		if err != nil || len(arrivals) == 0 {
			return err
		}
	}
	return nil
}

// block takes the operations of a retained block as applier.op does, on the keys
// concerned.
func (t *retreat) block(b *replication.Block) error {
	ops, err := blockOps(b, t.open)
	if err != nil {
		return err
	}
	h := b.Header
	for i := range ops {
		t.op(replication.Dot{Log: h.Log, Seq: h.FirstSeq + uint64(i)}, &ops[i])
	}
	if len(ops) == 0 && len(t.waiting[h.Log]) > 0 {
		for seq := h.FirstSeq; seq <= h.LastSeq(); seq++ {
			t.arrived(replication.Dot{Log: h.Log, Seq: seq})
		}
	}
	t.seen[h.Log] = replication.Position{Seq: h.LastSeq(), Hash: b.Hash}
	return t.fits()
}

func (t *retreat) op(d replication.Dot, o *replication.Op) {
	named := t.arrived(d)
	if !counts(o) {
		return
	}
	k := t.keys[string(o.Key)]
	for _, s := range o.Supersedes {
		if s == d {
			continue
		}
		at := t.seen[s.Log].Seq
		if s.Log == d.Log {
			at = d.Seq - 1
		}
		switch to, back := t.back[s.Log]; {
		case k != nil && s.Seq <= at:
			if gone := k.live[s]; gone != nil {
				delete(k.live, s)
				t.size -= dotCost + len(gone.Payload)
			}
		case k != nil:
			t.wait(s, k.hash)
		case back && s.Seq > to.Seq:
			t.wait(s, hashKey(o.Key))
		}
	}
	if k == nil || o.Kind != replication.KindPut {
		return
	}
	if _, dead := named[k.hash]; dead {
		return
	}
	live := &replication.Op{Order: o.Order, HLC: o.HLC}
	if _, saved := k.old[d]; !saved {
		live.Payload = bytes.Clone(o.Payload)
	}
	k.live[d] = live
	t.size += dotCost + len(live.Payload)
}

// wait notes that a dot was named on a key before it came.
func (t *retreat) wait(s replication.Dot, key replication.Hash) {
	dots := t.waiting[s.Log]
	if dots == nil {
		dots = map[uint64]map[replication.Hash]struct{}{}
		t.waiting[s.Log] = dots
	}
	if dots[s.Seq] == nil {
		dots[s.Seq] = map[replication.Hash]struct{}{}
	}
	dots[s.Seq][key] = struct{}{}
	t.size += dotCost
}

// arrived ends the waiting for a dot and returns the keys on which it was named.
func (t *retreat) arrived(d replication.Dot) map[replication.Hash]struct{} {
	dots := t.waiting[d.Log]
	keys := dots[d.Seq]
	if keys != nil {
		delete(dots, d.Seq)
		t.size -= dotCost * len(keys)
	}
	return keys
}

func (t *retreat) waits(d replication.Dot, key replication.Hash) bool {
	_, ok := t.waiting[d.Log][d.Seq][key]
	return ok
}

// write makes the database what was worked out.
func (t *retreat) write() error {
	for _, key := range slices.Sorted(maps.Keys(t.keys)) {
		if err := t.writeKey([]byte(key), t.keys[key]); err != nil {
			return err
		}
	}
	if err := t.writePending(); err != nil {
		return err
	}
	for id, pos := range t.back {
		if err := t.room(nil); err != nil {
			return err
		}
		l, err := t.a.log(id)
		if err != nil {
			return err
		}
		l.seq, l.hash, l.dirty = pos.Seq, pos.Hash, true
		t.a.cost(2 * appliedMem)
	}
	return t.a.commit()
}

// room commits what is staged if a change might not fit beside it: that of o, or
// the removal of a record.
func (t *retreat) room(o *replication.Op) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if o == nil {
		o = &replication.Op{}
	}
	if t.a.bytes == 0 || t.a.bytes < gather && t.a.fits(o) {
		return nil
	}
	return t.a.commit()
}

// writeKey makes a key's siblings those that live. It notes for watchers that the
// key changed, in the transaction with the first change.
func (t *retreat) writeKey(key []byte, k *keyAnew) error {
	noted := false
	change := func(o *replication.Op, fn func(*keyState) error) error {
		if err := t.room(o); err != nil {
			return err
		}
		if !noted {
			t.a.noteChange(key)
			noted = true
		}
		staged, err := t.a.key(key)
		if err != nil {
			return err
		}
		return fn(staged)
	}
	for d := range k.old {
		if k.live[d] != nil {
			continue
		}
		if err := change(&replication.Op{Key: key}, func(s *keyState) error { return t.a.remove(s, d) }); err != nil {
			return err
		}
	}
	for d, live := range k.live {
		if _, saved := k.old[d]; saved {
			continue
		}
		live.Key = key
		err := change(live, func(s *keyState) error {
			t.a.add(s, d, live, t.a.hash.hash(key, d, live.Order, live.Payload))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writePending makes the pending records those of what waits.
func (t *retreat) writePending() error {
	for id, to := range t.back {
		if err := t.dropPending(id, to.Seq); err != nil {
			return err
		}
	}
	for n := range t.named {
		if _, back := t.back[n.dot.Log]; back || t.waits(n.dot, n.key) {
			continue
		}
		if err := t.dropOne(n); err != nil {
			return err
		}
	}
	for id, dots := range t.waiting {
		for seq, keys := range dots {
			for h := range keys {
				if err := t.room(nil); err != nil {
					return err
				}
				l, err := t.a.log(id)
				if err != nil {
					return err
				}
				if err := t.a.addPending(replication.Dot{Log: id, Seq: seq}, l, h); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// dropPending drops the pending records of a log's dots beyond a seq for which
// nothing waits any more.
func (t *retreat) dropPending(id replication.LogID, beyond uint64) error {
	if beyond == math.MaxUint64 {
		return nil
	}
	const dotAt = 1 + spaceLen
	for from := pendingPrefix(t.a.space, replication.Dot{Log: id, Seq: beyond + 1}); ; {
		pass, _, err := t.a.pendingPass(id, from, math.MaxUint64, nil)
		if err != nil {
			return err
		}
		for _, dbKey := range pass {
			seq := binary.BigEndian.Uint64(dbKey[dotAt+logLen:])
			n := naming{replication.Dot{Log: id, Seq: seq}, replication.Hash(dbKey[dotAt+dotLen:])}
			if t.waits(n.dot, n.key) {
				continue
			}
			if err := t.dropOne(n); err != nil {
				return err
			}
		}
		if len(pass) < maxPass {
			return nil
		}
		from = append(bytes.Clone(pass[len(pass)-1]), 0)
	}
}

// dropOne drops a pending record if it is there.
func (t *retreat) dropOne(n naming) error {
	if err := t.room(nil); err != nil {
		return err
	}
	l, err := t.a.log(n.dot.Log)
	if err != nil {
		return err
	}
	dbKey := pendingKey(t.a.space, n.dot, n.key)
	b, err := get(t.a.read(), dbKey)
	if err != nil || b == nil {
		return err
	}
	t.a.stageDrop(l, dbKey)
	return nil
}
