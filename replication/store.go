package replication

import (
	"context"
	"time"
)

// Store holds the logs of one data directory. Package wal keeps them in Badger,
// package memlog in memory; package logtest is the suite that both pass.
//
// One committer serialises all writes. Whatever a method reports as held is
// durable: nothing of an uncommitted transaction is ever visible (G1, G2).
// All methods are safe for concurrent use.
type Store interface {
	Info() StoreInfo

	// Append makes one batch durable and returns where it stands. The batch is
	// a transaction: it never spans blocks. It waits for room in the queue and
	// for the commit; a cancelled ctx gives up waiting, and then the write may
	// still happen. Append changes nothing in b; the caller does not either.
	Append(ctx context.Context, b Batch) (Appended, error)

	// Ingest queues a run from a peer; done is called once, from the committer
	// or another goroutine of the store, after the answer is durable. source
	// identifies the session for fair queuing and comes back in Advance. Done
	// must not block.
	Ingest(source uint64, run *VerifiedRun, done func(IngestResult))

	// Restrict says how far logs count, from now on (design 9.4), and applies it
	// before it returns, durably: what lies beyond a log's limit is set aside and
	// is in no answer of any other method until a later Restrict lets it count
	// again; it then has new arrival numbers. Ingest refuses what lies beyond with
	// the limit's Err, and takes the blocks of a run before the cut; Append begins a
	// new log where this node's own no longer counts entire, or answers Err. nil:
	// everything counts, as before the first Restrict. It is for this opening only:
	// what was set aside stays so until the next call. What waits aside for
	// longer than SetAsideFor is removed.
	Restrict(ctx context.Context, fn Limiter) error

	// SetAside tells about the logs of which a cut set operations aside, also those of
	// which nothing counts, ordered by id; ReadSetAside calls fn for each such block of
	// a log that begins after a seq, ascending: ErrUnknownLog. fn does not wait for
	// anybody, since the store is not closed meanwhile.
	SetAside() []LogInfo
	ReadSetAside(log LogID, after uint64, fn func(*Block) error) error

	// Log tells about one log, also one of which nothing counts; Logs about all of
	// a space of which something does, ordered by id; Spaces the spaces that have
	// a log.
	Log(id LogID) (LogInfo, bool)
	Logs(space SpaceID) []LogInfo
	Spaces() []SpaceID

	// ReadRun returns the bytes of one run that follows after: at most maxBytes
	// unless the first signature lies beyond. ErrForked (a *ForkedError) if
	// after is not on our branch; an empty Run if we hold nothing beyond it. What
	// it returns was checked against its hashes; *DamageError otherwise.
	ReadRun(log LogID, after Position, maxBytes int) (RunBytes, error)

	// LastRun is what ReadRun returns where that is the log's newest block alone, if it
	// is still in memory: it waits for no disk. Nobody changes its bytes.
	LastRun(log LogID, after Position) (run RunBytes, ok bool)

	// RunCovering returns the run that starts with the block that covers seq, for
	// a peer whose branch is another one.
	RunCovering(log LogID, seq uint64) (RunBytes, error)

	// BytesAfter is how many stored bytes of the log lie beyond seq.
	BytesAfter(log LogID, seq uint64) (uint64, error)

	// ReadArrivals returns blocks of a space in the order in which they became
	// durable here, after the arrival number after, at least one if there is
	// one, and about maxBytes. A block that cannot be read because it is damaged
	// ends the answer with *DamageError.
	ReadArrivals(space SpaceID, after uint64, maxBytes int) ([]Arrival, error)

	// Head is the arrival number of the newest block of any space.
	Head() uint64

	// Subscribe calls fn for every advance of a log, and for every retreat before a
	// cut, in commit order, from the
	// committer, before Append or Ingest answers: fn must be quick and must not
	// call the store's writing methods. cancel returns when no call is under way.
	Subscribe(fn func(Advance)) (cancel func())

	// Cursors are hints: what a peer instance said that it holds (design 6.6).
	// LoadCursor returns nil where nothing is known. SaveCursor merges entries
	// and becomes durable with a later commit, at the latest a second later or
	// at Close.
	LoadCursor(peer OriginKey, instance Instance) ([]FrontierEntry, error)
	SaveCursor(peer OriginKey, instance Instance, entries []FrontierEntry)
	// ListCursors returns the peer instances that have a cursor, newest last.
	ListCursors() ([]CursorInfo, error)

	// RecordFork keeps the first proof for a log and marks it forked; false if
	// there was one. ForkProofOf returns it.
	RecordFork(p ForkProof) (bool, error)
	ForkProofOf(log LogID) (ForkProof, bool)

	// SetMeta and Meta keep small durable values of other packages, by name: up
	// to 64 KiB each.
	SetMeta(ctx context.Context, name string, value []byte) error
	Meta(name string) ([]byte, error)

	// Verify checks every hash, signature and index and calls fn for each
	// finding. It reads a snapshot and may run beside writes.
	Verify(ctx context.Context, fn func(Finding)) error

	// Close waits for queued commits and releases the directory.
	Close() error
}

// StoreInfo is what does not change while a store is open.
type StoreInfo struct {
	Network  NetworkID
	Self     OriginKey
	Instance Instance
	// Recovered is not empty when opening found that this directory is not the
	// one that wrote last, or lost acknowledged blocks: what was wrong, for the
	// log and for status. The instance is then new.
	Recovered string
	// Relaxed tells that commits are not fsynced (G1).
	Relaxed bool
}

// Batch is operations to append as one transaction.
type Batch struct {
	Space SpaceID
	Ops   []Op // HLC, Order and Supersedes are filled in by the committer and the Resolver
	// If must hold at the commit; only a Resolver can check it.
	If []Condition
	// Resolver decides what keyed operations supersede; nil leaves Supersedes as
	// given and Order at the HLC or just above what the caller set.
	Resolver Resolver
}

// Condition: the key's live writes are exactly these dots (none: the key is
// absent) when the batch commits.
type Condition struct {
	Key  []byte
	Dots []Dot
}

// Appended is where a batch stands: operations First.Seq to First.Seq+n-1 of
// First.Log, in the block that ends at Pos.
type Appended struct {
	First   Dot
	Pos     Position
	Arrival uint64
	HLC     HLC // of the first operation
}

// Resolver is the committer's view of what a write supersedes (design 5.3); the
// key-value view implements it. The committer calls it from one goroutine.
type Resolver interface {
	// Resolve fills Supersedes and Order of the keyed operations of one batch,
	// in commit order, as they would be with everything resolved before already
	// committed. first is the first operation's dot; HLCs are set. The list of
	// operations is used again after the call: only what they point to may be kept. An error
	// refuses this batch alone (ErrConflict for a failed condition).
	Resolve(space SpaceID, first Dot, ops []Op, conds []Condition) error
	// Settle: the resolved operations of log up to seq through are durable.
	Settle(space SpaceID, log LogID, through uint64)
	// Discard: the resolved operations of log from seq from on never happened.
	Discard(space SpaceID, log LogID, from uint64)
}

// IngestCode is the committer's answer to a run.
type IngestCode int

const (
	// Committed: at least one block was new and is now durable.
	Committed IngestCode = iota
	// Duplicate: everything was there.
	Duplicate
	// Gap: the run does not follow what is held.
	Gap
	// Forked: the run contradicts what is held, or the log is known as forked
	// and the run is of another branch.
	Forked
	// Refused: not stored for another reason (Err).
	Refused
)

func (c IngestCode) String() string {
	return [...]string{"committed", "duplicate", "gap", "forked", "refused"}[c]
}

// IngestResult answers an Ingest. Tip is what is durable of the log, whatever
// the answer.
type IngestResult struct {
	Code IngestCode
	Tip  Position
	Err  error
	// Proof is set when this run showed a fork that was not known.
	Proof *ForkProof
}

// LogInfo tells about one log.
type LogInfo struct {
	Log     LogID
	Space   SpaceID
	Origin  OriginKey
	Epoch   Epoch
	Base    uint64 // first seq held; 1 unless pruned
	Tip     Position
	LastHLC HLC
	Blocks  uint64
	Bytes   uint64 // stored bytes of its blocks
	Forked  bool
	// Limit is why the log does not count entire: the Err of its limit; nil if it
	// does. Cut is where, as the revocation says it; nil where no cut is the
	// reason.
	Limit error
	Cut   *Position
	// SetAside is how many of its operations are held and do not count.
	SetAside uint64
	// SetAsideSince is when the first of these were set aside; they are kept for
	// SetAsideFor, and what a lower cut set aside later for longer. Zero without any.
	SetAsideSince time.Time
}

// Entry is the log's place in the frontier.
func (i LogInfo) Entry() FrontierEntry {
	return FrontierEntry{Log: i.Log, Base: i.Base, Pos: i.Tip}
}

// RunBytes is a run as stored, ready to send.
type RunBytes struct {
	From, End Position // End of the last block with a body
	Ops       uint64
	Data      []byte // nil if there is nothing beyond From
}

// Arrival is a block in arrival order.
type Arrival struct {
	Number uint64
	Block  *Block // owned by the caller
	Origin OriginKey
}

// SetAsideFor is for how long blocks beyond a cut are kept (design 9.4).
const SetAsideFor = 30 * 24 * time.Hour

// Advance tells that a log grew durably, or, if Retreat, that a cut took it back
// from Prev to Tip, which may be zero; then Ops and Bytes are what was taken, and
// Arrival is 0.
type Advance struct {
	Space   SpaceID
	Log     LogID
	Origin  OriginKey
	Prev    Position
	Tip     Position
	Arrival uint64 // of the newest block
	Ops     uint64
	Bytes   uint64
	Source  uint64 // the session that brought it; 0 for a local append
	Retreat bool
}

// CursorInfo names a peer instance that once stated what it holds.
type CursorInfo struct {
	Peer     OriginKey
	Instance Instance
	Updated  time.Time
}

// Finding is one thing that Verify found wrong.
type Finding struct {
	Log     LogID
	Seq     uint64
	File    string
	Problem string
}

// ForkedError: the position is not on the branch that is held.
type ForkedError struct {
	Log  LogID
	Seq  uint64
	Held Hash // our block that ends at Seq, zero if none ends there
}

func (e *ForkedError) Error() string {
	return "log " + e.Log.Short() + " has another branch at this position: its origin wrote twice (a copied machine?)"
}
func (e *ForkedError) Is(t error) bool { return t == ErrForked }
