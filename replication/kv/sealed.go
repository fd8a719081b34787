package kv

import (
	"errors"

	badger "github.com/dgraph-io/badger/v4"

	"vixp2p/replication"
	"vixp2p/replication/sealed"
)

// Encrypted spaces (design 9.6). The view opens bodies with the content keys that
// its Opener has. A block whose key is missing stops the space, and KeysChanged lets
// it go on; a space that this node may not read is not built at all.
//
// Whether a space is encrypted decides which blocks are void, and the control logs
// that say so may arrive after blocks of the space. So the view notes under which
// rule it read a space, and is built anew if that is another one now.

// rule tells how blocks of a space are read: true if it is encrypted.
type rule bool

func ruleOf(open replication.Open) rule { return open != nil }

// errOtherRule: what is applied was read as if the space were encrypted, and it is
// not, or the other way round.
var errOtherRule = errors.New("the space was declared encrypted after blocks of it were read")

// openFor asks an opener, which may be nil.
func openFor(o replication.Opener, space replication.SpaceID) (replication.Open, error) {
	if o == nil {
		return nil, nil
	}
	return o.OpenFor(space)
}

// blockOps reads a block's operations; none of a block that no node counts.
func blockOps(b *replication.Block, open replication.Open) ([]replication.Op, error) {
	ops, err := sealed.Ops(b, open)
	if void := (*replication.VoidError)(nil); errors.As(err, &void) {
		return nil, nil
	}
	return ops, err
}

// waits tells errors of a space that goes on once keys or rights have changed.
func waits(err error) bool {
	return errors.Is(err, replication.ErrNoKey) || errors.Is(err, replication.ErrNotReader)
}

// unreadable tells that nothing of the space can be shown. A space that misses the
// key of a newer block shows what came before.
func (sp *spaceState) unreadable() bool {
	return errors.Is(sp.err, replication.ErrNotReader) || errors.Is(sp.err, replication.ErrNoKey) && sp.applied == 0
}

// hopes tells that the space waits and keys or logs have changed since: reads wait for what
// comes of it.
func (sp *spaceState) hopes() bool { return sp.asked && waits(sp.err) }

// KeysChanged makes the view ask its Opener again: call it when content keys have
// arrived, when this node may read more or less than before, and when a space was
// declared encrypted. It returns at once.
func (v *View) KeysChanged() {
	v.mu.Lock()
	for _, sp := range v.order {
		sp.dirty = true
		if waits(sp.err) {
			sp.retry, sp.asked = backoff{}, true
		}
	}
	v.mu.Unlock()
	v.poke()
}

// heldUpLocked deals with what is nobody's fault: false if that is not what stopped
// the space. Newer blocks make a space that waits try again too, because a cut may
// have taken away the one that it waits for; not all the time, since every try reads
// the store.
func (v *View) heldUpLocked(sp *spaceState, err error) bool {
	switch {
	case errors.Is(err, errOtherRule):
		v.log.Warn("the key-value view must read a space again", "space", sp.id, "reason", err)
		v.asked = &rebuild{generation: v.generation}
		sp.dirty = true
	case waits(err):
		if sp.err == nil || sp.err.Error() != err.Error() {
			v.log.Info("the key-value view of a space waits", "space", sp.id, "applied", sp.applied, "reason", err)
		}
		sp.err = err
		if !sp.dirty {
			sp.asked = false
			sp.retry.failed(v.opt.retryMin)
		}
	default:
		return false
	}
	if sp.a != nil {
		sp.a.discard()
	}
	v.tellLocked()
	return true
}

// follow takes over the rule under which a batch was read; errOtherRule if blocks
// were applied under another one.
func (a *applier) follow(b *batch) error {
	switch {
	case !b.ruled: // it has no blocks
	case !a.applied():
		a.rule = b.rule
	case a.rule != b.rule:
		return errOtherRule
	}
	return nil
}

// applied tells that some of the space is.
func (a *applier) applied() bool { return a.saved.arrival > 0 || a.saved.part > 0 }

func ruleKey(space replication.SpaceID) []byte { return spacePrefix(prefixRule, space, 0) }

func loadRule(txn *badger.Txn, space replication.SpaceID) (rule, error) {
	record, err := get(txn, ruleKey(space))
	return record != nil, err
}

// writeRule adds the rule to a commit if the database has another one.
func (a *applier) writeRule(w *batchOf) {
	switch {
	case a.rule == a.ruleSaved:
	case bool(a.rule):
		w.set(ruleKey(a.space), nil)
	default:
		w.delete(ruleKey(a.space))
	}
}

// ruleIsSame tells whether the space can be read now, under the rule under which the
// snapshot was made.
func (r *reader) ruleIsSame() (bool, error) {
	open, err := openFor(r.v.opt.Opener, r.space)
	if waits(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	was, err := loadRule(r.snap.Txn, r.space)
	return was == ruleOf(open), err
}
