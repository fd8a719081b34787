package wal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"

	r "vixp2p/replication"
)

// Restrict says how far logs count and sets aside, or takes back, what that needs,
// some transactions one after another; appends and runs commit between them. The
// limits themselves are in force for both from the first one on. Of what waits aside
// because of damage it takes back what now follows a log's tip. An error tells that
// not all of it was done: what is left is done by the next call.
//
// The first call with a Limiter reads the first block of each log; what it needs of
// them stays in memory, some 250 bytes a log and each grant once, so that a call
// that changes nothing costs the calls of fn and no read.
func (s *Store) Restrict(ctx context.Context, fn r.Limiter) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.writable(); err != nil {
		return err
	}
	req := &restrictReq{fn: fn, done: make(chan error, 1)}
	if err := s.queue.pushRestrict(req); err != nil {
		return err
	}
	select {
	case err := <-req.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// limitOf is the limit of a log that is held. The caller holds Store.mu or is the
// committer.
func (s *Store) limitOf(id r.LogID) r.LogLimit {
	if limit, ok := s.limits[id]; ok {
		return limit
	}
	return r.Unlimited
}

// infoOf is what Log tells, and whether there is such a log: one of which nothing is
// left because damage took its first block is none. The caller holds Store.mu.
func (s *Store) infoOf(l *logState) (info r.LogInfo, ok bool) {
	info = l.info()
	limit, limited := s.limits[l.id]
	if limited {
		info.Limit, info.Cut = limit.Refusal(), limit.Place()
	}
	return info, limited || l.tip.Seq > 0 || l.cut != nil
}

// restriction is one Restrict under way: the logs that it has to change, each
// list in the order of their ids.
type restriction struct {
	req      *restrictReq
	retreats []r.LogID
	returns  []r.LogID
	expired  []r.LogID
	rejoin   []r.LogID // have blocks set aside because of damage, which the limits may have kept there
	err      error     // the first one of a log that could not be read
}

// restrict carries on with a Restrict, one transaction at a time.
func (c *committer) restrict() {
	if c.restricting == nil {
		req := c.s.queue.takeRestrict()
		if req == nil {
			return
		}
		c.beginRestrict(req)
	}
	x := c.restricting
	t, done := c.s.newTx(), false
	var err error
	switch {
	case len(x.retreats) > 0:
		x.retreats, err = c.stageEach(x, t, x.retreats, c.stageRetreat)
		if err == nil {
			err = c.s.damaged(r.LogID{}, 0, c.dropArrivals(t))
		}
	case len(x.expired) > 0:
		x.expired, err = c.stageEach(x, t, x.expired, c.stageExpired)
	case len(x.returns) > 0:
		x.returns, err = c.stageEach(x, t, x.returns, c.stageReturn)
	case len(x.rejoin) > 0: // after what returns, which they may follow
		x.fail(c.s.damaged(x.rejoin[0], 0, c.takeBack(x.rejoin[0])))
		x.rejoin = x.rejoin[1:]
	default:
		done, err = true, x.err
	}
	if err == nil && !done {
		err = c.commitCut(t)
	}
	if done || err != nil {
		c.restricting = nil
		x.req.done <- err
	}
}

// commitCut commits and tells of a transaction after which reads that began before
// must look again.
func (c *committer) commitCut(t *tx) error {
	if t.empty() {
		return nil
	}
	c.s.retreating.Lock()
	c.s.retreats++
	err := c.s.commit(t)
	c.s.retreating.Unlock()
	if err == nil {
		c.s.subs.publish(t.advances)
	}
	return err
}

func (x *restriction) fail(err error) { x.err = cmp.Or(x.err, err) }

// stageEach stages logs while there is room and returns those that are left. A log
// that cannot be read is left as it is: its damage is repaired at the next open.
// stage finds damage before it stages anything.
func (c *committer) stageEach(x *restriction, t *tx, ids []r.LogID, stage func(*tx, *logState) (more bool, err error)) (left []r.LogID, err error) {
	for len(ids) > 0 {
		l := t.log(ids[0])
		more, err := stage(t, l)
		switch {
		case errors.Is(err, r.ErrDamaged):
			x.fail(c.s.damaged(l.id, l.tip.Seq, err))
		case err != nil:
			return ids, err
		case more:
			return ids, nil
		}
		ids = ids[1:]
	}
	return nil, nil
}

// beginRestrict puts limits into force and lists what they change.
func (c *committer) beginRestrict(req *restrictReq) {
	x := &restriction{req: req}
	c.restricting, c.limiter = x, req.fn
	limits := map[r.LogID]r.LogLimit{}
	if req.fn != nil {
		x.fail(c.loadGenesis())
		for id, l := range c.s.idx.logs {
			if limit := c.judge(l); !limit.Entire() {
				limits[id] = limit
			}
		}
	}
	c.s.mu.Lock()
	c.s.limits = limits
	c.s.mu.Unlock()
	now := c.s.opt.Now()
	for id, l := range c.s.idx.logs {
		limit := c.s.limitOf(id)
		if l.tip.Seq > 0 && !limit.Counts(l.tip) {
			x.retreats = append(x.retreats, id)
		}
		if l.cut != nil && l.cut.expired(now) {
			x.expired = append(x.expired, id)
		}
		if l.cut != nil && limit.Allowed && (limit.Cut == nil || limit.Cut.Seq > l.tip.Seq) {
			x.returns = append(x.returns, id)
		}
		if l.flags&flagAside != 0 {
			x.rejoin = append(x.rejoin, id)
		}
	}
	for _, ids := range [][]r.LogID{x.retreats, x.returns, x.expired, x.rejoin} {
		slices.SortFunc(ids, r.LogID.Compare)
	}
}

// judge is the limit of a log that is held. Where its genesis block cannot be read
// the limit stays what it was.
func (c *committer) judge(l *logState) r.LogLimit {
	if g := c.genesis[l.id]; g != nil {
		return c.limiter(g)
	}
	return c.s.limitOf(l.id)
}

// limitOfRun is the limit of the log that a run is of, which may begin in the same
// transaction.
func (c *committer) limitOfRun(t *tx, run *r.VerifiedRun) r.LogLimit {
	if g := run.Genesis(); g != nil && c.limiter != nil {
		return c.limiter(g)
	}
	if b, ok := t.began[run.Log]; ok {
		return b.limit
	}
	if t.under != nil {
		if b, ok := t.under.began[run.Log]; ok {
			return b.limit
		}
	}
	return c.s.limitOf(run.Log)
}

// began is a log that begins, and its limit.
type began struct {
	gen   *r.Genesis
	limit r.LogLimit
}

// noteLogs remembers the logs that a transaction began, once it is durable.
func (c *committer) noteLogs(t *tx) {
	for id, b := range t.began {
		if c.genesis != nil {
			own := *b.gen
			own.Grant = c.intern(b.gen.Grant)
			c.genesis[id] = &own
		}
		if !b.limit.Entire() {
			c.s.mu.Lock()
			c.s.limits[id] = b.limit
			c.s.mu.Unlock()
		}
	}
}

// intern is a copy of a grant, the same one for all logs that have it.
func (c *committer) intern(grant []byte) []byte {
	if c.grants[string(grant)] == nil {
		c.grants[string(grant)] = bytes.Clone(grant)
	}
	return c.grants[string(grant)]
}

// loadGenesis reads the genesis blocks of all logs, once.
func (c *committer) loadGenesis() (err error) {
	if c.genesis == nil {
		c.genesis, c.grants = map[r.LogID]*r.Genesis{}, map[string][]byte{}
	}
	for id, l := range c.s.idx.logs {
		if c.genesis[id] != nil {
			continue
		}
		g, readErr := c.readGenesis(l)
		err = cmp.Or(err, c.s.damaged(id, 1, readErr))
		if g == nil {
			continue
		}
		g.Grant = c.intern(g.Grant)
		c.genesis[id] = g
	}
	return err
}

// readGenesis reads a log's first block, wherever it is; nil if nothing is held.
func (c *committer) readGenesis(l *logState) (g *r.Genesis, err error) {
	key := blockKey(l.num, 1)
	switch {
	case l.tip.Seq > 0:
	case l.cut != nil:
		key = cutKey(l.num, 1)
	default:
		return nil, nil
	}
	err = c.s.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return readProblem(err)
		}
		value, err := item.ValueCopy(nil)
		if err != nil {
			return readProblem(err)
		}
		b, _, err := parseStored(l, key, value)
		if err == nil {
			own := *b.Header.Genesis
			g = &own
		}
		return err
	})
	return g, err
}

// ownGenesis is the genesis block of a log of this node, refused where the log
// would not count.
func (c *committer) ownGenesis(t *tx, space r.SpaceID, epoch r.Epoch) (*r.Genesis, error) {
	s := c.s
	g := &r.Genesis{Network: s.opt.Network, Space: space, Origin: s.self, Epoch: epoch}
	if prev := t.newestOwn(space); prev != nil {
		g.PrevLog, g.PrevPos = prev.id, prev.tip
	}
	if s.opt.Grant != nil {
		grant, err := s.opt.Grant(space)
		if err != nil {
			return nil, err
		}
		if len(grant) > r.MaxGrant {
			return nil, fmt.Errorf("a new log cannot begin: %w", &r.TooLargeError{What: "grant", Size: len(grant), Max: r.MaxGrant})
		}
		g.Grant = bytes.Clone(grant)
	}
	if c.limiter != nil {
		if limit := c.limiter(g); !limit.Entire() {
			return nil, limit.Refusal()
		}
	}
	return g, nil
}

// steady runs a read that looks at a log's state and then into the database. A cut
// that falls between the two looks like damage: then it reads again.
func (s *Store) steady(read func() error) error {
	for {
		before := s.retreatsSoFar()
		err := read()
		if !errors.Is(err, r.ErrDamaged) || s.retreatsSoFar() == before {
			return err
		}
	}
}

// retreatsSoFar counts retreats; it waits for the one that is being committed.
func (s *Store) retreatsSoFar() uint64 {
	s.retreating.RLock()
	defer s.retreating.RUnlock()
	return s.retreats
}
