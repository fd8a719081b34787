package memlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"vixp2p/replication"
)

// maxMeta is the largest value of SetMeta in bytes.
const maxMeta = 64 << 10

// Options say how to open a store. All but Manual are required.
type Options struct {
	Network replication.NetworkID
	Key     ed25519.PrivateKey
	Now     func() time.Time
	Rand    io.Reader // of instances and epochs
	// Grant is asked, when a log of this node begins, for the certificate that its
	// genesis block delivers; an error refuses the append. (None: an open network.)
	Grant func(space replication.SpaceID) ([]byte, error)
	// Manual leaves requests in the queue until Flush or FlushOne.
	Manual bool
	Disk   *Disk
}

// Store is the log on a Disk. It implements replication.Store.
type Store struct {
	disk      *Disk
	key       ed25519.PrivateKey
	now       func() time.Time
	rand      io.Reader
	grant     func(replication.SpaceID) ([]byte, error)
	manual    bool
	recovered string

	// The fields below are guarded by disk.mu.
	closed bool
	// committing is true while one caller carries out transactions; disk.mu is
	// not held while it calls a Resolver, a subscriber or a done function.
	committing bool
	idle       *sync.Cond // signals that committing has become false
	clock      *replication.Clock
	appends    []*appendRequest
	ingests    ingestQueue
	subs       []*subscriber
	unsaved    map[cursorKey]*cursor // stated since the last commit
	crashed    chan struct{}         // closed by Crash
	limiter    replication.Limiter   // of the last Restrict
	// limits are those of the logs held that do not count entire.
	limits map[replication.LogID]replication.LogLimit
}

var _ replication.Store = (*Store)(nil)

// subscriber is one function that hears of advances.
type subscriber struct {
	mu   sync.Mutex // held during a call, so that cancel can wait for it
	fn   func(replication.Advance)
	gone bool // guarded by mu
}

// Open opens the store of a disk. An epoch goes on if this disk is the one that
// wrote last; see Disk.
func Open(o Options) (*Store, error) {
	d := o.Disk
	d.mu.Lock()
	defer d.mu.Unlock()
	recovered, err := d.enterLocked(&o)
	if err != nil {
		return nil, err
	}
	s := &Store{
		disk: d, key: o.Key, now: o.Now, rand: o.Rand, grant: o.Grant, manual: o.Manual, recovered: recovered,
		idle:    sync.NewCond(&d.mu),
		unsaved: map[cursorKey]*cursor{},
		limits:  map[replication.LogID]replication.LogLimit{},
		crashed: make(chan struct{}),
	}
	own := replication.HLC(0)
	for _, l := range d.logs {
		if l.info.Origin == d.self {
			own = max(own, l.info.LastHLC)
			for i := range l.aside { // a time is never given twice
				own = max(own, l.aside[i].lastHLC)
			}
		}
	}
	d.expireLocked(o.Now())
	s.clock = replication.NewClock(own)
	for _, l := range d.logs {
		s.clock.Observe(l.info.LastHLC, s.now())
	}
	d.store = s
	return s, nil
}

// Info tells what does not change while the store is open.
func (s *Store) Info() replication.StoreInfo {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return replication.StoreInfo{
		Network: s.disk.network, Self: s.disk.self, Instance: s.disk.instance, Recovered: s.recovered,
	}
}

// Append makes one batch durable. With Manual it waits until another goroutine
// flushes.
func (s *Store) Append(ctx context.Context, b replication.Batch) (replication.Appended, error) {
	if err := ctx.Err(); err != nil {
		return replication.Appended{}, err
	}
	type answer struct {
		at  replication.Appended
		err error
	}
	ch := make(chan answer, 1)
	s.AppendAsync(b, func(at replication.Appended, err error) { ch <- answer{at, err} })
	select {
	case a := <-ch:
		return a.at, a.err
	default:
	}
	select {
	case a := <-ch:
		return a.at, a.err
	case <-s.crashed:
		return replication.Appended{}, replication.ErrClosed
	case <-ctx.Done():
		return replication.Appended{}, ctx.Err()
	}
}

// AppendAsync queues one batch. done is called once, after the batch is durable
// or refused; never, if the store crashes first.
func (s *Store) AppendAsync(b replication.Batch, done func(replication.Appended, error)) {
	r := newAppendRequest(b, done)
	s.disk.mu.Lock()
	closed := s.closed
	if !closed {
		s.appends = append(s.appends, r)
	}
	s.disk.mu.Unlock()
	if closed {
		done(replication.Appended{}, replication.ErrClosed)
		return
	}
	s.commitUnlessManual()
}

// Ingest queues a run from a peer. If the store crashes first, done is never
// called.
func (s *Store) Ingest(source uint64, run *replication.VerifiedRun, done func(replication.IngestResult)) {
	s.disk.mu.Lock()
	closed := s.closed
	if !closed {
		s.ingests.push(&ingestRequest{source: source, run: run, done: done})
	}
	s.disk.mu.Unlock()
	if closed {
		done(replication.IngestResult{Code: replication.Refused, Err: replication.ErrClosed})
		return
	}
	s.commitUnlessManual()
}

func (s *Store) commitUnlessManual() {
	if !s.manual {
		s.Flush()
	}
}

// Queued is how many requests wait for a Flush.
func (s *Store) Queued() int {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return len(s.appends) + s.ingests.len()
}

// Flush commits everything that is queued and returns the number of
// transactions. While another goroutine is at it, it returns 0 at once.
func (s *Store) Flush() int { return s.commit(-1) }

// FlushOne commits one transaction: the local appends that are queued, or one
// run. It returns false if nothing is queued.
func (s *Store) FlushOne() bool { return s.commit(1) == 1 }

// commit carries out at most limit transactions, or all if limit is negative.
func (s *Store) commit(limit int) (n int) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.committing {
		return 0 // the caller that is at it takes what was queued meanwhile
	}
	s.committing = true
	for n != limit && s.transactionLocked(true) {
		n++
	}
	s.committing = false
	s.idle.Broadcast()
	return n
}

// transactionLocked carries out one transaction, local appends first. It returns
// false if nothing is queued. Without tell nobody hears of it.
func (s *Store) transactionLocked(tell bool) bool {
	if len(s.appends) > 0 {
		s.commitAppendsLocked(tell)
		return true
	}
	if r := s.ingests.pop(); r != nil {
		s.commitIngestLocked(r, tell)
		return true
	}
	return false
}

// tellLocked calls the subscribers and then the answers, without the lock. After
// a crash nobody is left to be told.
func (s *Store) tellLocked(advances []replication.Advance, answers []func()) {
	subs := slices.Clone(s.subs)
	s.callOutLocked(func() {
		for _, a := range advances {
			for _, sub := range subs {
				sub.call(a)
			}
		}
		for _, answer := range answers {
			answer()
		}
	})
}

// callOutLocked runs fn without the lock unless the store has crashed.
func (s *Store) callOutLocked(fn func()) {
	select {
	case <-s.crashed:
		return
	default:
	}
	s.disk.mu.Unlock()
	defer s.disk.mu.Lock()
	fn()
}

func (u *subscriber) call(a replication.Advance) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.gone {
		u.fn(a)
	}
}

// Subscribe calls fn for every advance. Neither fn nor what it calls may cancel.
func (s *Store) Subscribe(fn func(replication.Advance)) (cancel func()) {
	u := &subscriber{fn: fn}
	s.disk.mu.Lock()
	s.subs = append(s.subs, u)
	s.disk.mu.Unlock()
	return func() {
		s.disk.mu.Lock()
		s.subs = slices.DeleteFunc(s.subs, func(o *subscriber) bool { return o == u })
		s.disk.mu.Unlock()
		u.mu.Lock()
		defer u.mu.Unlock()
		u.gone = true
	}
}

// Close commits what is queued, with Manual too, and gives the disk back.
func (s *Store) Close() error {
	s.disk.mu.Lock()
	if s.closed {
		s.disk.mu.Unlock()
		return nil
	}
	s.closed = true
	s.disk.mu.Unlock()
	s.Flush()
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	for s.committing {
		s.idle.Wait()
	}
	if s.disk.store == s {
		s.saveCursorsLocked()
		s.disk.store = nil
	}
	return nil
}

// Crash ends the store as a killed process: what was not flushed is lost, its
// requests are never answered, and a waiting Append returns ErrClosed.
func (s *Store) Crash() {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.crashLocked()
}

// CrashInFlush carries out the next transaction and crashes before anybody hears
// of it: durable, never acknowledged. It returns false if nothing was queued.
func (s *Store) CrashInFlush() bool {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	for s.committing {
		s.idle.Wait()
	}
	s.committing = true
	did := s.transactionLocked(false)
	s.committing = false
	s.idle.Broadcast()
	s.crashLocked()
	return did
}

func (s *Store) crashLocked() {
	select {
	case <-s.crashed:
		return
	default:
	}
	s.closed = true
	s.appends, s.ingests, s.subs = nil, ingestQueue{}, nil
	close(s.crashed)
	if s.disk.store == s {
		s.disk.store = nil
	}
}

// goneLocked tells whether the disk is no longer this store's.
func (s *Store) goneLocked() bool { return s.disk.store != s }

func (s *Store) fullLocked() error {
	return fmt.Errorf("the write was refused to keep the disk consistent; free some space and retry: %w", replication.ErrNoSpace)
}

// LoadCursor returns what a peer instance once stated, ordered by log.
func (s *Store) LoadCursor(peer replication.OriginKey, instance replication.Instance) ([]replication.FrontierEntry, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.goneLocked() {
		return nil, replication.ErrClosed
	}
	k := cursorKey{peer, instance}
	all := map[replication.LogID]replication.FrontierEntry{}
	for _, c := range []*cursor{s.disk.cursors[k], s.unsaved[k]} {
		if c != nil {
			maps.Copy(all, c.entries)
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	return slices.SortedFunc(maps.Values(all), func(a, b replication.FrontierEntry) int { return a.Log.Compare(b.Log) }), nil
}

// SaveCursor merges entries into a peer instance's cursor. They are durable with
// the next commit or at Close.
func (s *Store) SaveCursor(peer replication.OriginKey, instance replication.Instance, entries []replication.FrontierEntry) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.goneLocked() {
		return
	}
	k := cursorKey{peer, instance}
	c := s.unsaved[k]
	if c == nil {
		c = &cursor{entries: map[replication.LogID]replication.FrontierEntry{}}
		s.unsaved[k] = c
	}
	c.updated = s.now()
	for _, e := range entries {
		c.entries[e.Log] = e
	}
}

func (s *Store) saveCursorsLocked() {
	for k, c := range s.unsaved {
		if old := s.disk.cursors[k]; old != nil {
			maps.Copy(old.entries, c.entries)
			old.updated = c.updated
		} else {
			s.disk.cursors[k] = c
		}
	}
	clear(s.unsaved)
}

// ListCursors returns the peer instances that have a cursor, newest last.
func (s *Store) ListCursors() ([]replication.CursorInfo, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.goneLocked() {
		return nil, replication.ErrClosed
	}
	updated := map[cursorKey]time.Time{}
	for _, m := range []map[cursorKey]*cursor{s.disk.cursors, s.unsaved} {
		for k, c := range m {
			updated[k] = c.updated
		}
	}
	list := make([]replication.CursorInfo, 0, len(updated))
	for k, t := range updated {
		list = append(list, replication.CursorInfo{Peer: k.peer, Instance: k.instance, Updated: t})
	}
	slices.SortFunc(list, func(a, b replication.CursorInfo) int {
		if c := a.Updated.Compare(b.Updated); c != 0 {
			return c
		}
		if c := bytes.Compare(a.Peer[:], b.Peer[:]); c != 0 {
			return c
		}
		return bytes.Compare(a.Instance[:], b.Instance[:])
	})
	return list, nil
}

// SetMeta keeps a small value; it is durable at once, with Manual too.
func (s *Store) SetMeta(ctx context.Context, name string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(value) > maxMeta {
		return &replication.TooLargeError{What: "value " + name, Size: len(value), Max: maxMeta}
	}
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.closed {
		return replication.ErrClosed
	}
	if s.disk.full {
		return s.fullLocked()
	}
	s.disk.meta[name] = bytes.Clone(value)
	return nil
}

// Meta returns the value of a name, nil if it was never set.
func (s *Store) Meta(name string) ([]byte, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.goneLocked() {
		return nil, replication.ErrClosed
	}
	return bytes.Clone(s.disk.meta[name]), nil
}

func readRand(r io.Reader, b []byte) error {
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("no random bytes for a new instance or epoch: %w", err)
	}
	return nil
}
