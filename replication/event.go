package replication

import "time"

// The session is Step(now, event) -> effects (design 6.1). Its driver turns what
// happens into events and carries out effects in order. The driver may delay an
// effect's answer for as long as it likes; the session goes on meanwhile.

// Event is what happens to a session.
type Event interface{ event() }

// Started is the first event: Hello is done.
type Started struct {
	Spaces []SpaceInfo // spaces known here that the peer may have too
}

// SpaceInfo names a space; Name is empty where only the id is known.
type SpaceInfo struct {
	ID   SpaceID
	Name string
}

// SpaceAdded tells of a space that this node learned of after Started.
type SpaceAdded struct{ Space SpaceInfo }

// SpaceRefused answers AddSpace: this node does not take part in the space. The
// peer is told.
type SpaceRefused struct{ Space SpaceID }

// LocalFrontier answers LoadFrontier: everything held durably of a space, and, if
// that was asked for, the StoredDifference of what the store remembers that this
// peer instance once stated.
type LocalFrontier struct {
	Space    SpaceID
	Frontier *Frontier
	Stored   []FrontierEntry
}

// Advanced tells that a log grew durably; FromPeer if this session brought it.
// Several of one log may be told as one, from the first Prev to the last Tip, and
// FromPeer if all were. An Advanced must be told before what depends on it: a
// RunRead of what it added, and a question to Acked.
type Advanced struct {
	Advance
	FromPeer bool
}

// Received is a message from the peer. Of a WalPush, Held is how far its log is
// held durably here, so that a run that was pushed before does not count as
// missing; 0: not at all. Of an Announce, Tips is what is durable here of its
// entries' logs, in their order.
type Received struct {
	Msg  Message
	Held uint64
	Tips []Position
}

// RunRead answers ReadRun. Err may be ErrForked, ErrDamaged, ErrUnknownLog.
type RunRead struct {
	Space SpaceID
	Log   LogID
	Run   RunBytes
	Err   error
}

// CommitDone answers CommitRun, per log in the order of the CommitRuns. The ack of the
// run follows from it alone: Result.Tip is durable (G2).
type CommitDone struct {
	Space  SpaceID
	Log    LogID
	Result IngestResult
	Code   Code // why, where Result is Forked or Refused
}

// Pull asks the peer for about MaxOps operations or MaxBytes bytes of what it has
// for us (design 6.5); 0 means no limit of that kind, a zero Space all shared
// spaces. A Pulled effect tells when the answer is complete. For a node that told
// its peers to push only when asked.
type Pull struct {
	Space    SpaceID
	MaxOps   uint64
	MaxBytes uint64
}

// Probe asks the peer for a sign of life now, before the next ping is due.
type Probe struct{}

// Tick says that Session.Deadline has passed.
type Tick struct{}

// TrustApplied answers ControlInStep.
type TrustApplied struct{}

// ForkKnown tells of a proof of a fork that was not known here, so that the peer
// may have it too.
type ForkKnown struct {
	Space SpaceID
	Proof ForkProof
}

// MeshPrune, MeshGraft and MeshDefault carry out what Mesh decided: they ask the peer
// to announce a log, to push it from what is durable here (From), or to announce or
// push all logs that are not named.
type MeshPrune struct{ Log LogID }

// MeshGraft: see MeshPrune.
type MeshGraft struct {
	Log  LogID
	From Position
}

// MeshDefault: see MeshPrune.
type MeshDefault struct{ Lazy bool }

// MeshHold asks to push what is written here, although the peer asked for announcements
// in general, because too few others want to be pushed.
type MeshHold struct{ Hold bool }

// MeshExchange asks to compare the frontiers again.
type MeshExchange struct{}

// Stop asks the session to end: it says Bye and closes.
type Stop struct {
	Code   Code
	Detail string
}

func (Started) event()       {}
func (SpaceAdded) event()    {}
func (SpaceRefused) event()  {}
func (LocalFrontier) event() {}
func (Advanced) event()      {}
func (Received) event()      {}
func (RunRead) event()       {}
func (CommitDone) event()    {}
func (Pull) event()          {}
func (Probe) event()         {}
func (TrustApplied) event()  {}
func (ForkKnown) event()     {}
func (Tick) event()          {}
func (MeshPrune) event()     {}
func (MeshGraft) event()     {}
func (MeshDefault) event()   {}
func (MeshHold) event()      {}
func (MeshExchange) event()  {}
func (Stop) event()          {}

// Effect is what the driver must do, in the order given.
type Effect interface{ effect() }

// Send puts a message on the stream. What it states as held is durable: an event told
// so before.
type Send struct{ Msg Message }

// LoadFrontier asks for a LocalFrontier event, if Stored with what the store
// remembers of the peer.
type LoadFrontier struct {
	Space  SpaceID
	Stored bool
}

// ReadRun asks for a RunRead event. Covering asks for the run that covers
// After.Seq instead (Store.RunCovering).
type ReadRun struct {
	Space    SpaceID
	Log      LogID
	After    Position
	MaxBytes int
	Covering bool
}

// CommitRun asks to verify and commit a complete run and for a CommitDone event
// after its fsync.
type CommitRun struct {
	Space SpaceID
	Log   LogID
	From  Position
	Data  []byte
}

// SaveCursor records what the peer stated that it holds (a hint).
type SaveCursor struct {
	Space   SpaceID
	Entries []FrontierEntry
}

// AddSpace tells that the peer has a space that is not known here. The driver
// answers with SpaceAdded if the node takes it, else with SpaceRefused.
type AddSpace struct{ Space SpaceInfo }

// StateChanged tells Connected <-> Stale.
type StateChanged struct{ Stale bool }

// Settled tells that the frontier exchange of a space is complete: from now on
// Progress is exact for it.
type Settled struct{ Space SpaceID }

// ControlInStep tells that everything that the peer stated of the control space is
// here, or refused for good. The driver answers with TrustApplied when the store has
// the limits that follow from it: then the data spaces begin, and what either side
// has cut is not taken for a loss.
type ControlInStep struct{}

// ControlLate tells that the data spaces begin though the control space is not in
// step with the peer: SessionConfig.ControlWait is over. Missing is what the peer
// stated of it and is not here.
type ControlLate struct {
	Settled bool
	Missing uint64
}

// RTT is a new round trip time.
type RTT struct{ Value time.Duration }

// DataLoss reports that this peer instance states less than it once did
// (design 6.6): what it acked beyond Now no longer counts.
type DataLoss struct {
	Space    SpaceID
	Log      LogID
	Was, Now Position
}

// LogPaused reports a refusal that concerns one log (design 6.7); Local tells
// that it was this side that refused.
type LogPaused struct {
	Space  SpaceID
	Log    LogID
	Code   Code
	Detail string
	Local  bool
}

// ForkSeen hands over a proof from the peer; the driver verifies and records it.
type ForkSeen struct {
	Space SpaceID
	Proof ForkProof
}

// SendForkProof asks the driver to answer with a ForkProofMsg if it has a proof.
type SendForkProof struct {
	Space SpaceID
	Log   LogID
}

// Pulled tells that the peer has sent its last push in answer to the oldest
// unanswered Pull; its runs may still be committing.
type Pulled struct{}

// Ahead tells the mesh that the peer holds a log beyond what is held here and does not
// push it unasked.
type Ahead struct {
	Space SpaceID
	Log   LogID
	Seq   uint64
}

// Owes tells the mesh what a peer that pushes is to bring of a space: the ends of the
// logs that it states beyond what is held here, and whether there are more than these.
type Owes struct {
	Space SpaceID
	Logs  []Dot
	More  bool
}

// PeerLazy tells that the peer asked for announcements of logs in general, or for
// pushes again.
type PeerLazy struct{ Lazy bool }

// CaughtUp tells that everything that the peer stated is here: once after the start,
// and after each MeshDefault that asks for pushes.
type CaughtUp struct{}

// CloseSession ends the session after what was sent before it; no effect
// follows. Received tells that the peer said so.
type CloseSession struct {
	Code     Code
	Detail   string
	FromPeer bool
}

func (Send) effect()          {}
func (LoadFrontier) effect()  {}
func (ReadRun) effect()       {}
func (CommitRun) effect()     {}
func (SaveCursor) effect()    {}
func (AddSpace) effect()      {}
func (StateChanged) effect()  {}
func (Settled) effect()       {}
func (ControlInStep) effect() {}
func (ControlLate) effect()   {}
func (RTT) effect()           {}
func (DataLoss) effect()      {}
func (LogPaused) effect()     {}
func (ForkSeen) effect()      {}
func (SendForkProof) effect() {}
func (Pulled) effect()        {}
func (Ahead) effect()         {}
func (Owes) effect()          {}
func (PeerLazy) effect()      {}
func (CaughtUp) effect()      {}
func (CloseSession) effect()  {}

// SessionConfig holds what a session is told at its start. Zero values give the
// defaults in parentheses.
type SessionConfig struct {
	Instance     Instance      // of the peer
	PeerPullOnly bool          // the peer asked for pushes only in answer to OutboxPull
	PeerLevels   bool          // the peer goes down the levels of the trie (design 6.3)
	PeerShares   bool          // and takes for its own way down where ours ended
	WholeEntries int           // a frontier, or a node of its trie, of at most so many entries is answered with these (32)
	WindowBytes  int           // bytes in flight towards the peer (8 MiB, at least one whole run)
	ReadBytes    int           // bytes of one push (MaxRunBytes)
	PieceBytes   int           // runs are sent in ranges of at most this (0: whole)
	AckDelay     time.Duration // acks are gathered for at most this (0: at once, per batch of events)
	RetryAfter   time.Duration // first repeat of what was not answered (5 s), doubling to RetryMax (60 s)
	RetryMax     time.Duration
	PingEvery    time.Duration // (5 s)
	StaleAfter   time.Duration // (15 s)
	CloseAfter   time.Duration // silence after which the session ends (45 s)
	Resume       *Partial      // what an earlier session of this peer instance left
	// Control is the space of the control logs, which goes before all others (zero:
	// none, all spaces are equal). The others begin when it is settled, nothing that
	// the peer stated of it is missing here and the limits that follow are applied, or
	// after ControlWait (30 s).
	Control     SpaceID
	ControlWait time.Duration
	// Carries tells whether the peer may have a space; it does not change while the
	// session lives (nil: every space). The control space every peer may have.
	Carries func(SpaceID) bool
	// Mesh: the driver has a Mesh, and wants to hear CaughtUp. StartLazy: the peer is
	// asked at once to announce, not push (Mesh.Attach).
	Mesh      bool
	StartLazy bool
	// Rand gives jitter in [0, n); nil: no jitter.
	Rand func(n int64) int64
}

// Partial is a run of which only the first bytes arrived before the session
// ended (design 4.4). One is kept per peer instance.
type Partial struct {
	Space     SpaceID
	Log       LogID
	From, End Position
	Total     uint64
	Data      []byte
}

// Progress is where replication with a peer stands in a space.
type Progress struct {
	Space       SpaceID
	Settled     bool          // frontiers have been compared since the session started
	PendingLogs []LogProgress // what we have and the peer has not acked
	MissingOps  uint64        // what the peer states and we do not hold
	Paused      []LogPaused
}

// LogProgress is one log that the peer has not acked up to our tip.
type LogProgress struct {
	Log        LogID
	Acked, Tip Position
}
