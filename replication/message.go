package replication

import "strconv"

// Message is what two sessions say to each other after Hello. Package protocols
// maps each to and from its wire type; the session never sees an encoding.
type Message interface{ message() }

// FrontierDigest asks, or answers, whether both sides hold the same of a space.
//
// A side asks when a session starts, when it learns of a space, and again until
// it is answered (design 6.2, 6.3). The answer (Reply, same Round) carries the
// answerer's digest; where that differs from the asked one, the answerer's
// FrontierDiff of the same Round follows.
type FrontierDigest struct {
	Space  SpaceID
	Name   string // the space's name where the sender knows it; checked against Space
	Round  uint64
	Reply  bool
	Digest Hash
	Logs   uint64 // count of entries
	// Levels, in a question: the asker goes down the levels of the trie.
	Levels bool
}

// FrontierDiff lists the sender's frontier of a space, or a part of it, in parts of
// at most 16 KiB numbered from 0; Last ends it.
type FrontierDiff struct {
	Space   SpaceID
	Round   uint64
	Part    uint64
	Last    bool
	Entries []FrontierEntry
	// Step is the FrontierOpen that this answers; 0: the question.
	Step uint64
	// Nodes are digests in place of entries: the root alone in the answer to a
	// question with Levels, inner nodes in the answer to a FrontierOpen.
	Nodes []FrontierNode
	// Whole and Buckets, in part 0 of the answer to a question with Levels, are as in
	// FrontierOpen: the entries are all that the sender holds there, and elsewhere it holds
	// what the question stated. Neither: the entries are all that it holds.
	Whole   ChildSet
	Buckets []uint16
}

// FrontierNode is one node of the trie of a frontier.
type FrontierNode struct {
	Node    uint16 // 0: the root; else 1 + the number of the inner node
	Present ChildSet
	Digests []ChildDigest // of the children that are present, ascending
}

// FrontierOpen asks for what is below nodes of the trie in which the sender differs.
type FrontierOpen struct {
	Space SpaceID
	Round uint64 // of the question
	Step  uint64 // numbers the FrontierOpens of the round, from 1
	// Nodes are inner nodes of which the leaf digests are wanted, or the entries if
	// these are few; Whole are those of which all entries are.
	Nodes, Whole ChildSet
	// Buckets are those of which the entries are wanted: by the first two bytes of
	// SHA-256(LogID), ascending; at most MaxOpenBuckets.
	Buckets []uint16
}

// WalPush carries one run of a log, or a byte range of it.
type WalPush struct {
	Space  SpaceID
	Log    LogID
	Branch Hash
	From   Position // the run follows it
	End    Position // and ends there
	// Total is the run's length in bytes, Offset where Data starts in it. A run
	// in one piece has Offset 0 and len(Data) = Total.
	Total  uint64
	Offset uint64
	// Pull is the OutboxPull that this answers, 0 for none; PullEnd marks the
	// answer's last push, which may carry no run (Total 0).
	Pull    uint64
	PullEnd bool
	Data    []byte // the attachment: the bytes that are stored
}

// WalAck states positions that the sender holds durably, one per log, or why it
// does not take a log further. It is cumulative. An entry of no log, with a code,
// says that its sender does not take part in the space.
type WalAck struct{ Entries []AckEntry }

// AckEntry is the answer for one log.
type AckEntry struct {
	Space  SpaceID
	Log    LogID // zero: of the whole space
	Branch Hash
	Pos    Position // durable at the sender of the ack
	Code   Code     // CodeOK, or why nothing beyond Pos is taken
	Detail string   // for people
	// PartialFrom and PartialBytes tell of a run of which the first bytes are
	// held in memory: PartialEnd is where it ends. Zero if none.
	PartialFrom, PartialEnd Position
	PartialBytes            uint64
}

// OutboxPull asks for about MaxOps operations or MaxBytes bytes of what the
// receiver has for the sender; 0 means no limit of that kind. The answer ends
// with the first run that reaches a limit (design 6.5).
type OutboxPull struct {
	ID       uint64
	Space    SpaceID // zero: all shared spaces
	MaxOps   uint64
	MaxBytes uint64
}

// Announce, Prune and Graft belong to the mesh (design 6.4). Announce states
// positions that became durable at the sender and that it does not push; it goes only
// to who has sent a Prune, and is answered with a WalAck of the same logs.
type Announce struct {
	Space   SpaceID
	Entries []FrontierEntry
}

// Prune asks the receiver to announce, not push, these logs; the zero log stands for
// all that were neither pruned nor grafted by their own name. It is a wish: pushing on
// does no harm.
type Prune struct{ Logs []LogID }

// Graft asks the receiver to push a log from From on, what the sender holds durably.
// The zero log takes back a Prune of the zero log.
type Graft struct {
	Log  LogID
	From Position
}

// Ping asks for a Pong with the same nonce.
type Ping struct{ Nonce uint64 }

// Pong answers a Ping.
type Pong struct{ Nonce uint64 }

// Control carries trust state (design 9.1): opaque here.
type Control struct{ Data []byte }

// Receipt is a signed statement "I hold these positions" (design 6.8) that can
// be passed on.
type Receipt struct {
	Network   NetworkID
	Space     SpaceID
	Holder    OriginKey
	Instance  Instance
	Counter   uint64
	Entries   []FrontierEntry
	Signature []byte
}

// ForkProofMsg passes on the proof that a log is forked.
type ForkProofMsg struct {
	Space SpaceID
	Proof ForkProof
}

// Bye ends a session in good order.
type Bye struct {
	Code   Code
	Detail string
}

func (*FrontierDigest) message() {}
func (*FrontierDiff) message()   {}
func (*FrontierOpen) message()   {}
func (*WalPush) message()        {}
func (*WalAck) message()         {}
func (*OutboxPull) message()     {}
func (*Announce) message()       {}
func (*Prune) message()          {}
func (*Graft) message()          {}
func (*Ping) message()           {}
func (*Pong) message()           {}
func (*Control) message()        {}
func (*Receipt) message()        {}
func (*ForkProofMsg) message()   {}
func (*Bye) message()            {}

// Code is a reason as sent on the wire; numbers are append-only (design 7.5).
type Code uint32

const (
	CodeOK Code = 0
	// Handshake refusals.
	CodeOtherNetwork  Code = 1
	CodeOtherMajor    Code = 2
	CodeNoCertificate Code = 3
	CodeCertExpired   Code = 4
	CodeCertRevoked   Code = 5
	CodeDuplicate     Code = 6 // another session of this pair stays
	CodeBusy          Code = 7
	CodeHelloTimeout  Code = 8
	CodeProtocol      Code = 9  // a message that breaks the protocol
	CodeShutdown      Code = 10 // the sender stops
	CodeSlowReader    Code = 11 // the receiver does not take what is sent to it
	CodeStale         Code = 12 // nothing heard for too long
	CodeInternal      Code = 13
	CodeDisconnect    Code = 14 // the sender's user asked for it
	CodeTrustChanged  Code = 15 // other rights or cuts: the session begins anew
	// Refusals of a join.
	CodeInviteUnknown Code = 16 // or its signature is not the invite's
	CodeInviteUsed    Code = 17 // by another node
	CodeInviteExpired Code = 18
	CodeInviteRevoked Code = 19
	// Refusals that concern one log, never the session (design 6.7).
	CodeGap        Code = 32
	CodeForked     Code = 33
	CodeRevoked    Code = 34
	CodeNotAllowed Code = 35
	CodeTooNew     Code = 36
	CodeBadRun     Code = 37 // hash, chain, signature or encoding
	CodeNoSpace    Code = 38 // the receiver's disk is full; retry later
	CodeUnknownLog Code = 39
	CodeDamaged    Code = 40 // the sender's own copy is damaged
)

var codeText = map[Code]string{
	CodeOK: "ok", CodeOtherNetwork: "other network", CodeOtherMajor: "other major version",
	CodeNoCertificate: "no certificate", CodeCertExpired: "certificate expired", CodeCertRevoked: "certificate revoked",
	CodeDuplicate: "duplicate session", CodeBusy: "busy", CodeHelloTimeout: "hello timeout",
	CodeProtocol: "protocol error", CodeShutdown: "shutting down", CodeSlowReader: "slow reader", CodeStale: "stale",
	CodeInternal: "internal error", CodeDisconnect: "disconnected by its user",
	CodeTrustChanged:  "trust changed",
	CodeInviteUnknown: "invite unknown", CodeInviteUsed: "invite used", CodeInviteExpired: "invite expired",
	CodeInviteRevoked: "invite revoked",
	CodeGap:           "gap", CodeForked: "forked", CodeRevoked: "revoked", CodeNotAllowed: "not allowed", CodeTooNew: "too new",
	CodeBadRun: "bad run", CodeNoSpace: "disk full", CodeUnknownLog: "unknown log", CodeDamaged: "damaged",
}

// concernsRun tells a refusal that is about what the peer sent. Its text may go
// to the peer; that of a fault on this side names local files and may not.
func (c Code) concernsRun() bool {
	switch c {
	case CodeGap, CodeForked, CodeRevoked, CodeNotAllowed, CodeTooNew, CodeBadRun, CodeUnknownLog:
		return true
	}
	return false
}

func (c Code) String() string {
	if s, ok := codeText[c]; ok {
		return s
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}
