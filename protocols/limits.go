package protocols

import (
	"time"

	"vixp2p/replication"
	"vixp2p/routing"
)

// Every limit of the wire stands in this file; docs/wire.md repeats the table
// and a test compares the two.
const (
	// MaxEnvelope is the largest envelope of any message, in bytes.
	MaxEnvelope = 16 << 10
	// MaxHelloEnvelope is the largest envelope of a message before both sides
	// proved that they know the network: what a stranger can make us hold.
	MaxHelloEnvelope = 1 << 10
	// MaxFinishEnvelope is the largest envelope of HelloFinish and Welcome.
	MaxFinishEnvelope = 10 << 10
	// MaxJoinEnvelope is the largest envelope of JoinAccept.
	MaxJoinEnvelope = 5 << 10
	// maxAttachment is the largest attachment of any type.
	maxAttachment = replication.MaxRunBytes
	// maxFramePrefix bounds the two lengths before an envelope, in bytes.
	maxFramePrefix = 2 * 4

	// MaxFeatures and MaxFeatureBytes bound the features of a Hello.
	MaxFeatures     = 16
	MaxFeatureBytes = 32
	// MaxHelloSpaces bounds the spaces that a HelloFinish or Welcome lists; a
	// session names the others by FrontierDigest.
	MaxHelloSpaces = 32
	// MaxCertificate is the largest certificate, in bytes.
	MaxCertificate = replication.MaxGrant
	// MaxLabelBytes and MaxAgentBytes bound the texts of HelloFinish and Welcome.
	MaxLabelBytes = 64
	MaxAgentBytes = 64
	// MaxNetworkNameBytes bounds the network's name in JoinAccept.
	MaxNetworkNameBytes = 64
	// MaxDetailBytes bounds a text for people, in Bye and WalAck.
	MaxDetailBytes = 256
	// MaxEntries bounds the entries of one FrontierDiff, WalAck, Announce, Prune
	// or Receipt.
	MaxEntries = 256
	// EntriesPerDiff frontier entries fit one message whatever they hold: a
	// sender of FrontierDiff cuts its parts there.
	EntriesPerDiff = 120
	// MaxNodes bounds the nodes of one FrontierDiff.
	MaxNodes = replication.MaxDiffNodes
	// MaxOpenBuckets bounds the buckets of one FrontierOpen or FrontierDiff.
	MaxOpenBuckets = replication.MaxOpenBuckets
	// acksPerFrame ack entries fit one message whatever they hold.
	acksPerFrame = 32

	// DefaultHelloTimeout is for the whole handshake (design 7).
	DefaultHelloTimeout = 5 * time.Second
	// DefaultJoinWait is how long a joiner waits for the decision on its request,
	// which takes a write to the responder's disk.
	DefaultJoinWait = 30 * time.Second
	// FrameTimeout is for the rest of a frame once its first byte is there, and
	// for writing a frame; attachments add their bytes / MinBytesPerSecond.
	FrameTimeout = 30 * time.Second
	// MinBytesPerSecond is the slowest stream that may carry an attachment.
	MinBytesPerSecond = 16 << 10
	// ByeTimeout is for saying why a stream ends, and for reading why the other
	// side ended it.
	ByeTimeout = time.Second

	// readBuffer and writeBuffer are the buffers of one stream, in bytes. A
	// whole envelope fits readBuffer.
	readBuffer  = 32 << 10
	writeBuffer = 64 << 10
	// directWrite is the smallest attachment that is not copied to writeBuffer.
	directWrite = 8 << 10
)

// Limit bounds one message type.
type Limit struct {
	Type MessageType
	Name string
	// Hello is the largest envelope during the handshake, Session after it, in
	// bytes; 0: the type is not allowed there.
	Hello, Session int
	// Attachment is the largest attachment in bytes; 0: the type has none.
	Attachment int
}

// limits is the table of message types in the order of their numbers. It is
// never changed.
var limits = [...]Limit{
	{TypeHello, "Hello", MaxHelloEnvelope, 0, 0},
	{TypePing, "Ping", 0, 256, 0},
	{TypePong, "Pong", 0, 256, 0},
	{TypeHelloAck, "HelloAck", MaxHelloEnvelope, 0, 0},
	{TypeHelloFinish, "HelloFinish", MaxFinishEnvelope, 0, 0},
	{TypeWelcome, "Welcome", MaxFinishEnvelope, 0, 0},
	{TypeBye, "Bye", MaxHelloEnvelope, MaxHelloEnvelope, 0},
	{TypeWalPush, "WalPush", 0, 1 << 10, replication.MaxRunBytes},
	{TypeWalAck, "WalAck", 0, MaxEnvelope, 0},
	{TypeOutboxPull, "OutboxPull", 0, 256, 0},
	{TypeFrontierDigest, "FrontierDigest", 0, 1 << 10, 0},
	{TypeFrontierDiff, "FrontierDiff", 0, MaxEnvelope, 0},
	{TypeAnnounce, "Announce", 0, MaxEnvelope, 0},
	{TypePrune, "Prune", 0, MaxEnvelope, 0},
	{TypeGraft, "Graft", 0, 256, 0},
	{TypeReceipt, "Receipt", 0, MaxEnvelope, 0},
	{TypeForkProof, "ForkProof", 0, 1 << 10, replication.MaxForkProofBytes},
	{TypeControl, "Control", 0, 1 << 10, replication.MaxRunBytes},
	{TypeFrontierOpen, "FrontierOpen", 0, MaxEnvelope, 0},
	{TypeJoinBegin, "JoinBegin", 256, 0, 0},
	{TypeJoinChallenge, "JoinChallenge", 256, 0, 0},
	{TypeJoinRequest, "JoinRequest", MaxHelloEnvelope, 0, 0},
	{TypeJoinAccept, "JoinAccept", MaxJoinEnvelope, 0, 0},
	{TypeMsgPush, "MsgPush", 0, 256, routing.MaxMessage},
	{TypeMsgAnswer, "MsgAnswer", 0, 256, 0},
}

// Limits is the table of message types in the order of their numbers.
func Limits() []Limit { return append([]Limit(nil), limits[:]...) }

// limitOf finds a type's limits; false for a type that this version does not
// know.
func limitOf(t MessageType) (Limit, bool) {
	for i := range limits {
		if limits[i].Type == t {
			return limits[i], true
		}
	}
	return Limit{}, false
}

// frameTime is how long a frame with an attachment of n bytes may take.
func frameTime(n int) time.Duration {
	return FrameTimeout + time.Duration(n)*time.Second/MinBytesPerSecond
}
