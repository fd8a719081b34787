package wal

import (
	"errors"
	"path/filepath"
	"sync"

	r "vixp2p/replication"
)

// damageReport remembers which logs a read found damaged while the store is
// open.
type damageReport struct {
	mu   sync.Mutex
	seen map[r.LogID]*r.DamageError
}

// repairName is the file whose presence makes the next Open check and repair
// everything before it serves anything.
const repairName = "repair"

// damaged makes a DamageError of what a read found, at its place, and sees that
// it is told once and repaired at the next open. Other errors pass.
func (s *Store) damaged(log r.LogID, seq uint64, err error) error {
	if err == nil || !errors.Is(err, r.ErrDamaged) {
		return err
	}
	var d *r.DamageError
	if !errors.As(err, &d) {
		d = &r.DamageError{Log: log, Seq: seq, File: filepath.Join(s.opt.Dir, dbDir), Problem: err.Error()}
	}
	s.damage.mu.Lock()
	defer s.damage.mu.Unlock()
	if s.damage.seen[d.Log] != nil {
		return d
	}
	if s.damage.seen == nil {
		s.damage.seen = map[r.LogID]*r.DamageError{}
	}
	s.damage.seen[d.Log] = d
	s.opt.Logger.Error("damaged data: it is not served, and repaired when the store is opened next",
		"log", d.Log, "seq", d.Seq, "file", d.File, "problem", d.Problem)
	if err := writeDurably(filepath.Join(s.opt.Dir, repairName), []byte(d.Error()+"\n")); err != nil {
		s.opt.Logger.Error("the need for a repair was not noted", "error", err)
	}
	s.life.RLock()
	defer s.life.RUnlock()
	if s.opt.OnDamage != nil && !s.closed {
		s.callbacks.Go(func() { s.opt.OnDamage(d) })
	}
	return d
}

// Damaged lists what reads found damaged since the store was opened, at most one
// place per log. Close and open the store again to repair it.
func (s *Store) Damaged() []*r.DamageError {
	s.damage.mu.Lock()
	defer s.damage.mu.Unlock()
	var all []*r.DamageError
	for _, d := range s.damage.seen {
		all = append(all, d)
	}
	return all
}
