package wal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

var errHeld = errors.New("held by another process")

// Open opens the store in a directory, made if it is missing.
//
// ErrLocked: another process uses it. ErrTooNew: a later version wrote it.
// ErrNoSpace: the disk is too full to open it. *AccessError: a permission is
// missing. Nothing was touched then. What
// was found wrong and repaired is in StoreInfo.Recovered.
func Open(o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	lock, err := Hold(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := checkAccess(o.Dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s, err := openLocked(o)
	if err != nil {
		err = accessProblem(o.Dir, err)
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	go s.committer.run()
	return s, nil
}

// openLocked opens a directory that this process has locked.
func openLocked(o Options) (*Store, error) {
	note, err := checkFormat(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := roomToOpen(&o); err != nil {
		return nil, err
	}
	s := &Store{
		opt: o, self: o.self(), queue: newQueue(), dblog: &badgerLog{l: o.Logger},
		limits:  map[r.LogID]r.LogLimit{},
		closing: make(chan struct{}), stopped: make(chan struct{}),
		info: r.StoreInfo{Network: o.Network, Self: o.self(), Relaxed: o.Relaxed},
	}
	s.cursors.s = s
	if err := s.openFiles(note); err != nil {
		if s.db != nil {
			err = errors.Join(err, guard(s.db.Close))
		}
		if s.witness != nil {
			err = errors.Join(err, s.witness.close())
		}
		return nil, err
	}
	s.startCommitter()
	s.committer.expire()
	return s, nil
}

// openFiles opens the database, repaired if that is needed, decides about
// instance and epoch, and records the new lease (design 4.7).
func (s *Store) openFiles(note string) error {
	dir := s.opt.Dir
	lease, err := readLease(&s.opt)
	if err != nil {
		return fmt.Errorf("cannot read the lease file: %w", err)
	}
	wit, err := readWitness(&s.opt)
	if err != nil {
		return fmt.Errorf("cannot read the witness file: %w", err)
	}
	if err := finishSwap(dir); err != nil {
		return err
	}
	id, c, err := s.openSound(lease, wit)
	if errors.Is(err, r.ErrDamaged) {
		id, c, err = s.openRepaired(err, wit)
	}
	if err != nil {
		return err
	}
	if s.identity, err = s.drawIdentity(id, c); err != nil {
		return err
	}
	for _, name := range []string{cleanName, repairName} {
		if err := removeFile(dir, name); err != nil {
			return fmt.Errorf("cannot mark the data directory as open: %w", err)
		}
	}
	s.info.Recovered = c.why
	if s.info.Recovered == "" {
		s.info.Recovered = note
	}
	if s.info.Recovered != "" {
		s.opt.Logger.Warn("the data directory is not as it was left", "dir", dir, "found", s.info.Recovered)
	}
	return s.renew(c.keepInstance)
}

// openSound opens a database that shows no damage; ErrDamaged tells that it must
// be repaired first.
func (s *Store) openSound(lease leaseFile, wit testimony) (*identity, continuity, error) {
	dir := s.opt.Dir
	if b, err := os.ReadFile(filepath.Join(dir, repairName)); err == nil {
		return nil, continuity{}, &r.DamageError{File: filepath.Join(dir, dbDir), Problem: "a read found damage: " + strings.TrimSpace(string(b))}
	}
	found, err := s.survey(wit)
	if err != nil {
		return nil, continuity{}, err
	}
	if len(found) > 0 {
		return nil, continuity{}, damageAt(found)
	}
	id, err := s.openDatabase()
	if err != nil {
		return nil, continuity{}, err
	}
	if id == nil {
		if wit.valid && wit.commits > 0 {
			gone := &r.DamageError{File: filepath.Join(dir, dbDir), Problem: "the database is gone, the files beside it are not"}
			return nil, continuity{}, errors.Join(gone, s.closeDatabase())
		}
		return nil, continuity{}, nil
	}
	c := judge(id, &s.idx.head, s.opt.bootID(), lease, wit, fileExists(dir, cleanName))
	err = nil
	switch {
	case c.lost:
		err = &r.DamageError{File: filepath.Join(dir, dbDir), Problem: c.why}
	case c.unsynced:
		err = s.holes(c.why)
	}
	if err != nil {
		return nil, c, errors.Join(err, s.closeDatabase())
	}
	return id, c, nil
}

// holes reads all that the store holds and returns the first thing that is
// missing or damaged as a DamageError that begins with why. What was not synced
// reaches the disk in any order, so that holes may lie before what is there.
func (s *Store) holes(why string) error {
	var first *r.DamageError
	v := &verifier{s: s, ctx: context.Background(), report: func(f r.Finding) {
		if first == nil {
			first = &r.DamageError{Log: f.Log, Seq: f.Seq, File: f.File, Problem: why + "; " + f.Problem}
		}
	}}
	err := s.view(func(txn *badger.Txn) error {
		v.txn = txn
		return v.snapshot(&s.idx.head)
	})
	if errors.Is(err, r.ErrDamaged) {
		v.found(nil, 0, err.Error())
		err = nil
	}
	if err == nil && first != nil {
		err = first
	}
	return err
}

// openRepaired rebuilds the database and opens it. The instance and the epoch
// are new then.
func (s *Store) openRepaired(damage error, wit testimony) (*identity, continuity, error) {
	s.opt.Logger.Error("the database is damaged and is rebuilt from what is whole", "dir", s.opt.Dir, "error", damage)
	done, err := rebuild(&s.opt, wit)
	if err != nil {
		return nil, continuity{}, fmt.Errorf("%w (%w)", err, damage)
	}
	id, err := s.openDatabase()
	if err != nil {
		return nil, continuity{}, err
	}
	var d *r.DamageError
	what := damage.Error()
	if errors.As(damage, &d) {
		what = d.File + ": " + d.Problem
	}
	return id, continuity{why: repairNote(what, done)}, nil
}

// openDatabase opens Badger and loads what is kept in memory. After an error the
// database is closed.
func (s *Store) openDatabase() (id *identity, err error) {
	// Statistics that only a garbage collection of values would need: damage to
	// them could only do harm.
	if err := removeFile(filepath.Join(s.opt.Dir, dbDir), discardName); err != nil {
		return nil, err
	}
	if s.db, err = openBadger(&s.opt, s.dblog); err != nil {
		return nil, err
	}
	s.valueSync = valueSync(s.db)
	out, err := s.load()
	if err == nil && out.identity != nil {
		err = s.checkOwner(out.identity)
	}
	if err != nil {
		return nil, errors.Join(err, s.closeDatabase())
	}
	return out.identity, nil
}

// OwnerError: the data in a directory is of another network, or was written with
// another node's key. It matches ErrInvalid.
type OwnerError struct {
	Dir          string
	OtherNetwork bool // else it is the key
}

func (e *OwnerError) Error() string {
	if e.OtherNetwork {
		return fmt.Sprintf("the data in %s belongs to another network: use another data directory", e.Dir)
	}
	return fmt.Sprintf("the data in %s was written with another node's key: bring that key back, or use another data directory", e.Dir)
}

// Is matches ErrInvalid.
func (e *OwnerError) Is(t error) bool { return t == r.ErrInvalid }

// checkOwner refuses a directory of another network or node.
func (s *Store) checkOwner(id *identity) error {
	if id.network != s.opt.Network || id.self != s.self {
		return &OwnerError{Dir: s.opt.Dir, OtherNetwork: id.network != s.opt.Network}
	}
	return nil
}

func (s *Store) closeDatabase() error {
	db := s.db
	s.db = nil
	return guard(db.Close)
}

// renew writes a new lease, opens the witness, a new one with a new instance,
// and records both.
func (s *Store) renew(keepInstance bool) error {
	if s.identity.relaxed && !s.opt.Relaxed {
		// From here on what is held counts as durable at other members too (G2):
		// also what a process that did not sync has left to the system.
		if err := s.opt.syncDatabase(filepath.Join(s.opt.Dir, dbDir)); err != nil {
			return fmt.Errorf("cannot make durable what was written with relaxed durability: %w", err)
		}
	}
	lease, err := renewLease(&s.opt)
	if err != nil {
		return fmt.Errorf("cannot write the lease file: %w", err)
	}
	id := s.identity
	id.boot, id.lease, id.nonce, id.relaxed = s.opt.bootID(), lease.proof, lease.nonce, s.opt.Relaxed
	if s.witness, id.witness, err = openWitness(&s.opt, !keepInstance); err != nil {
		return fmt.Errorf("cannot open the witness file: %w", err)
	}
	t := s.newTx()
	t.identity = &id
	t.setOther(keyIdentity, id.encode())
	s.dropLosses(t)
	t.opening = true
	if err := s.commit(t); err != nil {
		return err
	}
	// That commits are not synced from here on must itself be durable.
	if s.opt.Relaxed {
		if err := guard(s.db.Sync); err != nil {
			return fmt.Errorf("cannot make the data directory's record of this start durable: %w", err)
		}
	}
	s.info.Instance = id.instance
	return nil
}

func (s *Store) startCommitter() {
	s.committer = &committer{s: s, skewed: map[r.OriginKey]bool{}, clock: r.NewClock(0)}
	for _, l := range s.idx.logs {
		if l.origin == s.self {
			last := l.lastHLC
			if l.cut != nil {
				last = max(last, l.cut.hlc)
			}
			s.committer.clock = r.NewClock(max(s.committer.clock.Last(), last))
		}
	}
	now := s.opt.Now()
	for _, l := range s.idx.logs {
		s.committer.clock.Observe(l.lastHLC, now)
	}
}

// openBadger opens the database; what Badger cannot read is damage.
func openBadger(o *Options, l *badgerLog) (db *badger.DB, err error) {
	err = guard(func() error {
		db, err = badger.Open(badgerOptions(o, filepath.Join(o.Dir, dbDir), l))
		return err
	})
	if err != nil {
		return nil, &r.DamageError{File: filepath.Join(o.Dir, dbDir), Problem: err.Error()}
	}
	return db, nil
}

// loaded is what a store's small records say.
type loaded struct {
	identity *identity // nil in a new store
}

// load reads head, identity, all logs and the hashes of the other small records,
// and checks them against the head's digest.
func (s *Store) load() (loaded, error) {
	var out loaded
	s.idx, s.others = newIndex(), map[string]digest{}
	s.cursors.newest = map[r.OriginKey]newestCursor{}
	s.losses, s.freed = losses{}, 0
	err := guard(func() error {
		return s.db.View(func(txn *badger.Txn) error {
			raw, err := get(txn, keyHead)
			if err != nil {
				return err
			}
			if raw != nil {
				if s.idx.head, err = decodeHead(raw); err != nil {
					return err
				}
				s.headHash = s.idx.head.hash()
			}
			sum, err := s.loadRecords(txn, &out)
			if err == nil && sum != s.idx.head.digest {
				err = problem("small records are missing or old")
			}
			return err
		})
	})
	if err != nil {
		return out, s.openProblem(err)
	}
	return out, nil
}

func (s *Store) openProblem(err error) error {
	if errors.Is(err, r.ErrDamaged) {
		return &r.DamageError{File: filepath.Join(s.opt.Dir, dbDir), Problem: err.Error()}
	}
	return err
}

// loadRecords reads every record that the digest covers.
func (s *Store) loadRecords(txn *badger.Txn, out *loaded) (sum digest, err error) {
	var logs []*logState
	err = each(txn, []byte{kindLog}, nil, func(key, value []byte) (bool, error) {
		v, err := unseal(key, value)
		if err != nil {
			return false, err
		}
		sum.add(recordHash(key, v))
		l, space, err := decodeLog(r.LogID(key[1:]), v)
		if err != nil {
			return false, err
		}
		l.space = s.idx.space(space)
		logs = append(logs, l)
		return true, nil
	})
	if err != nil {
		return sum, err
	}
	s.idx.load(logs)
	for _, kind := range otherKinds {
		err = each(txn, []byte{kind}, nil, func(key, value []byte) (bool, error) {
			v, err := unseal(key, value)
			if err != nil {
				return false, err
			}
			switch kind {
			case kindIdentity:
				id, err := decodeIdentity(v)
				if err != nil {
					return false, err
				}
				out.identity = &id
			case kindCursors:
				h, err := decodeCursorHead(v)
				if err != nil {
					return false, err
				}
				s.cursors.loaded(key, &h)
			case kindLost:
				s.losses.loaded(key, v)
			case kindFreed:
				s.freed = decodeCount(v)
			}
			h := recordHash(key, v)
			sum.add(h)
			s.others[string(key)] = h
			return true, nil
		})
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// otherKinds are the records besides logs that the head's digest covers.
var otherKinds = []byte{kindIdentity, kindCursors, kindFork, kindLost, kindMeta, kindTail, kindFreed}
