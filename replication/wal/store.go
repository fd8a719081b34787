package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// Store is a directory of logs on Badger. It implements replication.Store.
type Store struct {
	opt  Options
	self r.OriginKey
	info r.StoreInfo
	db   *badger.DB
	// valueSync is Badger's switch of that name; nil if there is none. Only write
	// changes it.
	valueSync *bool
	dblog     *badgerLog
	lock      io.Closer
	witness   *witness

	queue     *queue
	committer *committer
	closing   chan struct{} // closed when Close begins
	stopped   chan struct{} // closed when the committer has ended

	failure atomic.Pointer[error] // set once, by write

	mu       sync.RWMutex // guards idx, newest, headHash, identity, limits; the committer alone writes
	idx      *index
	newest   newestBlocks
	headHash r.Hash
	identity identity
	limits   map[r.LogID]r.LogLimit // of logs that do not count entire

	retreating sync.RWMutex // held while a retreat is committed
	retreats   uint64       // guarded by retreating

	others map[string]digest // hashes of the records other than logs; the committer's
	freed  uint64            // arrival numbers that no block has because of cuts; the committer's

	subs    subscribers
	cursors cursorBuffer
	damage  damageReport
	losses  losses
	// callbacks are the calls of OnDamage under way; Close waits for them.
	callbacks sync.WaitGroup

	life      sync.RWMutex // held shared by every read of db, exclusively by Close
	closed    bool         // guarded by life
	closeOnce sync.Once
	closeErr  error
}

var _ r.Store = (*Store)(nil)

// Info tells what does not change while the store is open.
func (s *Store) Info() r.StoreInfo { return s.info }

func (s *Store) random(b []byte) error {
	_, err := io.ReadFull(s.opt.Rand, b)
	return err
}

// Log tells about one log.
func (s *Store) Log(id r.LogID) (r.LogInfo, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if l := s.idx.logs[id]; l != nil {
		if info, ok := s.infoOf(l); ok {
			return info, true
		}
	}
	return r.LogInfo{}, false
}

// Logs tells about all logs of a space of which something counts, ascending by id.
func (s *Store) Logs(space r.SpaceID) []r.LogInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sp := s.idx.spaces[space]
	if sp == nil {
		return nil
	}
	infos := make([]r.LogInfo, 0, len(sp.logs))
	for _, l := range sp.logs {
		if l.tip.Seq > 0 {
			info, _ := s.infoOf(l)
			infos = append(infos, info)
		}
	}
	return infos
}

// Spaces are the spaces that have a log, ascending.
func (s *Store) Spaces() []r.SpaceID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []r.SpaceID
	for id, sp := range s.idx.spaces {
		if slices.ContainsFunc(sp.logs, func(l *logState) bool { return l.tip.Seq > 0 }) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b r.SpaceID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// Head is the arrival number of the newest block of any space.
func (s *Store) Head() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.idx.head.arrivals
}

// state returns a copy of the state of a log of which something counts.
func (s *Store) state(id r.LogID) (logState, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.idx.logs[id]
	if l == nil || l.tip.Seq == 0 { // empty: damage took its first block, or a cut all
		return logState{}, false
	}
	return *l, true
}

// control runs a write in the committer and waits for it to be durable.
func (s *Store) control(ctx context.Context, stage func(*tx) error) error {
	req := &controlReq{stage: stage, done: make(chan error, 1)}
	if err := s.queue.pushControl(req); err != nil {
		return err
	}
	select {
	case err := <-req.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxMeta is the largest value of SetMeta, in bytes; maxMetaName its name's.
const (
	maxMeta     = 64 << 10
	maxMetaName = 256
)

// SetMeta keeps a small value durably; an empty one removes it.
func (s *Store) SetMeta(ctx context.Context, name string, value []byte) error {
	if len(value) > maxMeta {
		return &r.TooLargeError{What: "value of " + name, Size: len(value), Max: maxMeta}
	}
	if len(name) == 0 || len(name) > maxMetaName {
		return fmt.Errorf("%w: the name of a stored value has 1 to %d bytes, not %d", r.ErrInvalid, maxMetaName, len(name))
	}
	value = slices.Clone(value)
	return s.control(ctx, func(t *tx) error {
		if len(value) == 0 {
			t.delOther(metaKey(name))
		} else {
			t.setOther(metaKey(name), value)
		}
		return nil
	})
}

// Meta returns a value that SetMeta kept; nil if there is none.
func (s *Store) Meta(name string) (value []byte, err error) {
	err = s.view(func(txn *badger.Txn) error {
		value, err = get(txn, metaKey(name))
		return err
	})
	return value, s.damaged(r.LogID{}, 0, err)
}

// Close waits for what is queued, makes cursors durable and releases the
// directory. Nothing runs afterwards.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.queue.close()
		<-s.stopped
		s.cursors.stop()
		s.life.Lock()
		s.closed = true
		s.life.Unlock()
		s.callbacks.Wait()
		s.mergeAtClose()
		err := guard(s.db.Close)
		if err != nil {
			err = fmt.Errorf("closing the database in %s: %w", s.opt.Dir, err)
		}
		err = errors.Join(err, s.witness.sync(), s.witness.close())
		if err == nil && s.failure.Load() == nil {
			err = os.WriteFile(filepath.Join(s.opt.Dir, cleanName), nil, 0o600)
		}
		s.closeErr = errors.Join(err, s.lock.Close())
	})
	return s.closeErr
}

// subscribers are called by the committer after each commit.
type subscribers struct {
	mu   sync.Mutex // held during calls, so that cancel waits for them
	next int
	fns  []subscription // in the order in which they came
}

type subscription struct {
	id int
	fn func(r.Advance)
}

// Subscribe calls fn for every advance of a log, from the committer, before
// Append or Ingest answers. cancel must not be called from within fn.
func (s *Store) Subscribe(fn func(r.Advance)) (cancel func()) {
	s.subs.mu.Lock()
	defer s.subs.mu.Unlock()
	id := s.subs.next
	s.subs.next++
	s.subs.fns = append(s.subs.fns, subscription{id, fn})
	return func() {
		s.subs.mu.Lock()
		defer s.subs.mu.Unlock()
		s.subs.fns = slices.DeleteFunc(s.subs.fns, func(x subscription) bool { return x.id == id })
	}
}

func (u *subscribers) publish(advances []r.Advance) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, a := range advances {
		for _, x := range u.fns {
			x.fn(a)
		}
	}
}
