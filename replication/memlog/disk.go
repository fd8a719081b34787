package memlog

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"vixp2p/replication"
)

// Disk is what survives a crash: the directory of a Store. The zero value is an
// empty one. Its methods are safe for concurrent use; those that change what is
// stored need that no Store is open on it.
type Disk struct {
	mu    sync.Mutex // guards all fields, and those of the Store that is open on the disk
	store *Store     // the open store, or nil

	// suspect says why the next Open must not believe that this directory is the
	// one that wrote last (design 4.7); empty if it may.
	suspect string
	// rebooted tells that the machine was started again: nothing is suspect, but
	// nothing proves either that no other incarnation wrote meanwhile.
	rebooted bool
	full     bool

	created  bool
	network  replication.NetworkID
	self     replication.OriginKey
	instance replication.Instance
	logs     map[replication.LogID]*logState
	arrivals map[replication.SpaceID][]place // ascending by number
	head     uint64                          // the last arrival number given
	// current is the log that the next append of a space continues. invariant:
	// every block of it was written here.
	current map[replication.SpaceID]replication.LogID
	forks   map[replication.LogID]replication.ForkProof
	cursors map[cursorKey]*cursor
	meta    map[string][]byte
	commits []undo
}

// place is where a block with an arrival number is.
type place struct {
	number uint64
	log    replication.LogID
	index  int // in logState.blocks
}

// logState is one log as stored.
type logState struct {
	info replication.LogInfo
	// blocks have bodies. invariant: they are a chain from the genesis block, and
	// a reader finds a run from each of their boundaries but the last.
	blocks []stored
	// tail holds headers beyond the last body up to a signature (design 4.4);
	// empty where the last block is signed.
	tail []stored
	// aside holds blocks beyond a cut, ascending, and then the headers that were
	// the tail when the first of them was set aside.
	aside   []stored
	genesis *replication.Genesis
}

// stored is one block as stored. Its bytes are never changed in place.
type stored struct {
	header, sig, body []byte // body is empty in a tail
	first, last       uint64
	hash, prev        replication.Hash
	lastHLC           replication.HLC
	arrival           uint64    // 0 in a tail
	cut               time.Time // when it was set aside
}

func (b *stored) end() replication.Position {
	return replication.Position{Seq: b.last, Hash: b.hash}
}

// size is the length of the block's bytes as they are sent.
func (b *stored) size() int {
	return (&replication.Block{HeaderRaw: b.header, Sig: b.sig, Body: b.body}).EncodedLen()
}

// check compares the stored bytes with their hashes.
func (b *stored) check() error {
	_, err := b.parse()
	return err
}

// parse returns a block of its own, checked against its hashes.
func (b *stored) parse() (*replication.Block, error) {
	blk, _, err := replication.ParseBlock(replication.AppendBlock(nil, b.header, b.sig, b.body))
	if err == nil && blk.Hash != b.hash {
		err = errors.New("the header does not match the block's hash")
	}
	return blk, err
}

type cursorKey struct {
	peer     replication.OriginKey
	instance replication.Instance
}

type cursor struct {
	entries map[replication.LogID]replication.FrontierEntry
	updated time.Time
}

// undo is what one transaction replaced.
type undo struct {
	head     uint64
	logs     []undoLog
	current  map[replication.SpaceID]replication.LogID
	arrivals map[replication.SpaceID][]place
}

type undoLog struct {
	log                 replication.LogID
	blocks, tail, aside []stored
}

func (d *Disk) initLocked() {
	if d.logs == nil {
		d.logs = map[replication.LogID]*logState{}
		d.arrivals = map[replication.SpaceID][]place{}
		d.current = map[replication.SpaceID]replication.LogID{}
		d.forks = map[replication.LogID]replication.ForkProof{}
		d.cursors = map[cursorKey]*cursor{}
		d.meta = map[string][]byte{}
	}
}

// Clone is a copy of the directory, as cp -a or a snapshot makes it: the copy
// gets a new instance and new epochs, the original goes on as before.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &Disk{
		suspect:  "this data directory is a copy of another one",
		rebooted: d.rebooted,
		full:     d.full,
		created:  d.created,
		network:  d.network,
		self:     d.self,
		instance: d.instance,
		head:     d.head,
		logs:     map[replication.LogID]*logState{},
		arrivals: map[replication.SpaceID][]place{},
		current:  maps.Clone(d.current),
		forks:    maps.Clone(d.forks),
		cursors:  map[cursorKey]*cursor{},
		meta:     maps.Clone(d.meta),
		commits:  slices.Clone(d.commits),
	}
	for id, l := range d.logs {
		c.logs[id] = &logState{
			info: l.info, blocks: slices.Clone(l.blocks), tail: slices.Clone(l.tail),
			aside: slices.Clone(l.aside), genesis: l.genesis,
		}
	}
	for id, a := range d.arrivals {
		c.arrivals[id] = slices.Clone(a)
	}
	for k, cur := range d.cursors {
		c.cursors[k] = &cursor{entries: maps.Clone(cur.entries), updated: cur.updated}
	}
	if c.current == nil {
		c.initLocked()
	}
	return c
}

// Rollback undoes the last n transactions, as a damaged store that silently lost
// acknowledged blocks: the next Open sees it by the witness. Forks, cursors and
// small values stay.
func (d *Disk) Rollback(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mustBeClosedLocked("Rollback")
	n = min(n, len(d.commits))
	if n == 0 {
		return
	}
	for i := 0; i < n; i++ {
		u := d.commits[len(d.commits)-1]
		d.commits = d.commits[:len(d.commits)-1]
		for _, ul := range u.logs {
			l := d.logs[ul.log]
			l.blocks, l.tail, l.aside = ul.blocks, ul.tail, ul.aside
			l.refresh()
			if len(l.blocks) == 0 && len(l.aside) == 0 {
				delete(d.logs, ul.log)
			}
		}
		d.head, d.current, d.arrivals = u.head, maps.Clone(u.current), maps.Clone(u.arrivals)
		for space, a := range d.arrivals {
			d.arrivals[space] = slices.Clip(a)
		}
	}
	d.suspect = "blocks that this store acknowledged are missing from it"
}

// Wipe empties the directory: the next Open starts a new history.
func (d *Disk) Wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mustBeClosedLocked("Wipe")
	d.suspect, d.rebooted, d.created, d.head = "", false, false, 0
	d.logs, d.arrivals, d.current, d.forks, d.cursors, d.meta, d.commits = nil, nil, nil, nil, nil, nil, nil
	d.instance = replication.Instance{}
	d.initLocked()
}

// Reboot starts the machine again: the directory is the same, but its epochs end
// (design 4.7).
func (d *Disk) Reboot() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mustBeClosedLocked("Reboot")
	d.rebooted = true
}

// SetFull makes every write fail with ErrNoSpace, or lets writes succeed again.
func (d *Disk) SetFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// Damage flips one bit in the stored body of the block that covers seq. It says
// whether there is one.
func (d *Disk) Damage(log replication.LogID, seq uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.logs[log]
	if l == nil {
		return false
	}
	i, ok := l.covering(seq)
	if !ok {
		return false
	}
	body := bytes.Clone(l.blocks[i].body)
	body[len(body)/2] ^= 1
	l.blocks[i].body = body
	return true
}

func (d *Disk) mustBeClosedLocked(what string) {
	if d.store != nil {
		panic("memlog: " + what + " of a disk with an open store")
	}
}

// enterLocked checks and updates the directory's identity at an Open and says what was
// found wrong.
func (d *Disk) enterLocked(o *Options) (recovered string, err error) {
	d.initLocked()
	self := replication.OriginKey(o.Key.Public().(ed25519.PublicKey))
	switch {
	case d.store != nil:
		return "", fmt.Errorf("this disk has an open store: close it first: %w", replication.ErrLocked)
	case d.created && d.network != o.Network:
		return "", fmt.Errorf("this disk belongs to network %s, not %s: use another one", d.network, o.Network)
	case d.created && d.self != self:
		return "", fmt.Errorf("this disk belongs to node %s, not %s: use another one", d.self, self)
	}
	if !d.created || d.suspect != "" {
		if err := readRand(o.Rand, d.instance[:]); err != nil {
			return "", err
		}
	}
	if d.suspect != "" || d.rebooted {
		clear(d.current)
	}
	recovered = d.suspect
	d.suspect, d.rebooted = "", false
	d.created, d.network, d.self = true, o.Network, self
	return recovered, nil
}

// at is the i-th block of the log with its tail.
func (l *logState) at(i int) *stored {
	if i < len(l.blocks) {
		return &l.blocks[i]
	}
	return &l.tail[i-len(l.blocks)]
}

// covering finds the block that holds seq.
func (l *logState) covering(seq uint64) (int, bool) {
	i := sort.Search(len(l.blocks), func(i int) bool { return l.blocks[i].last >= seq })
	return i, i < len(l.blocks) && seq >= l.blocks[i].first
}

// boundary finds the block that follows pos; false if pos is not on this branch.
func (l *logState) boundary(pos replication.Position) (int, bool) {
	if pos == (replication.Position{}) {
		return 0, true
	}
	i, ok := l.covering(pos.Seq)
	if !ok || l.blocks[i].end() != pos {
		return 0, false
	}
	return i + 1, true
}

// refresh recomputes what info tells about the blocks.
func (l *logState) refresh() {
	l.info.Tip, l.info.LastHLC, l.info.Bytes = replication.Position{}, 0, 0
	l.info.Blocks = uint64(len(l.blocks))
	for i := range l.blocks {
		l.info.Bytes += uint64(l.blocks[i].size())
	}
	if n := len(l.blocks); n > 0 {
		l.info.Tip, l.info.LastHLC = l.blocks[n-1].end(), l.blocks[n-1].lastHLC
	}
}

// signedEnd is the count of blocks up to the last signed one.
func (l *logState) signedEnd() int {
	n := len(l.blocks)
	for n > 0 && len(l.blocks[n-1].sig) == 0 {
		n--
	}
	return n
}
