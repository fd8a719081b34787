package protocols

import (
	"strconv"

	"github.com/libp2p/go-libp2p/core/protocol"

	p2pv1 "vixp2p/proto/vix/p2p/v1"
)

// Stream protocols (design 7.2). The number is the major version.
const (
	// SyncProtocol opens with Hello and is then the session of a pair.
	SyncProtocol protocol.ID = "/vix/sync/1"
	// HelloProtocol is the handshake alone: a probe that ends after the verdict.
	HelloProtocol protocol.ID = "/vix/hello/1"
	// JoinProtocol redeems an invite: RequestJoin and AnswerJoin.
	JoinProtocol protocol.ID = "/vix/join/1"
	// MsgProtocol carries routed messages between peers that have a session.
	MsgProtocol protocol.ID = "/vix/msg/1"
)

// The protocol version that this package speaks. Another major is refused;
// what a newer minor adds is skipped (design 7.5).
const (
	VersionMajor = 1
	VersionMinor = 0
)

// FeaturePullOnly, among the features of a Hello, asks the other side to push
// only in answer to OutboxPull.
const FeaturePullOnly = "pull-only"

// FeatureRelaxed, among the features of a Hello, says that the sender does not fsync
// what it commits, so that its acks are no receipts (G2).
const FeatureRelaxed = "relaxed"

// FeatureAgain, among the features of a Hello, says that the receiver's user ended
// the last session and no user of the sender asked for this one: it is refused with
// DISCONNECT if that still stands.
const FeatureAgain = "again"

// FeatureMsg, among the features of a Hello, says that the sender takes routed
// messages on MsgProtocol.
const FeatureMsg = "msg"

// FeatureTrie, among the features of a Hello, says that the sender goes down the
// levels of the trie of a frontier: it may be sent FrontierOpen, and a FrontierDigest
// with levels.
const FeatureTrie = "trie"

// FeatureTrieShared, among the features of a Hello, says that the sender takes an answer
// to a question with levels that is a FrontierDiff with whole or buckets.
const FeatureTrieShared = "trie-shared"

// MessageType is the number of a message on the wire; append-only.
type MessageType uint32

const (
	TypeHello          = MessageType(p2pv1.MessageType_MESSAGE_TYPE_HELLO)
	TypePing           = MessageType(p2pv1.MessageType_MESSAGE_TYPE_PING)
	TypePong           = MessageType(p2pv1.MessageType_MESSAGE_TYPE_PONG)
	TypeHelloAck       = MessageType(p2pv1.MessageType_MESSAGE_TYPE_HELLO_ACK)
	TypeHelloFinish    = MessageType(p2pv1.MessageType_MESSAGE_TYPE_HELLO_FINISH)
	TypeWelcome        = MessageType(p2pv1.MessageType_MESSAGE_TYPE_WELCOME)
	TypeBye            = MessageType(p2pv1.MessageType_MESSAGE_TYPE_BYE)
	TypeWalPush        = MessageType(p2pv1.MessageType_MESSAGE_TYPE_WAL_PUSH)
	TypeWalAck         = MessageType(p2pv1.MessageType_MESSAGE_TYPE_WAL_ACK)
	TypeOutboxPull     = MessageType(p2pv1.MessageType_MESSAGE_TYPE_OUTBOX_PULL)
	TypeFrontierDigest = MessageType(p2pv1.MessageType_MESSAGE_TYPE_FRONTIER_DIGEST)
	TypeFrontierDiff   = MessageType(p2pv1.MessageType_MESSAGE_TYPE_FRONTIER_DIFF)
	TypeAnnounce       = MessageType(p2pv1.MessageType_MESSAGE_TYPE_ANNOUNCE)
	TypePrune          = MessageType(p2pv1.MessageType_MESSAGE_TYPE_PRUNE)
	TypeGraft          = MessageType(p2pv1.MessageType_MESSAGE_TYPE_GRAFT)
	TypeReceipt        = MessageType(p2pv1.MessageType_MESSAGE_TYPE_RECEIPT)
	TypeForkProof      = MessageType(p2pv1.MessageType_MESSAGE_TYPE_FORK_PROOF)
	TypeControl        = MessageType(p2pv1.MessageType_MESSAGE_TYPE_CONTROL)
	TypeFrontierOpen   = MessageType(p2pv1.MessageType_MESSAGE_TYPE_FRONTIER_OPEN)
	TypeJoinBegin      = MessageType(p2pv1.MessageType_MESSAGE_TYPE_JOIN_BEGIN)
	TypeJoinChallenge  = MessageType(p2pv1.MessageType_MESSAGE_TYPE_JOIN_CHALLENGE)
	TypeJoinRequest    = MessageType(p2pv1.MessageType_MESSAGE_TYPE_JOIN_REQUEST)
	TypeJoinAccept     = MessageType(p2pv1.MessageType_MESSAGE_TYPE_JOIN_ACCEPT)
	TypeMsgPush        = MessageType(p2pv1.MessageType_MESSAGE_TYPE_MSG_PUSH)
	TypeMsgAnswer      = MessageType(p2pv1.MessageType_MESSAGE_TYPE_MSG_ANSWER)
)

// String is the message's name, or its number where this version has none.
func (t MessageType) String() string {
	if l, ok := limitOf(t); ok {
		return l.Name
	}
	return "type " + strconv.FormatUint(uint64(t), 10)
}

// Flags of an envelope.
type Flags uint32

const (
	// FlagEncrypted and FlagCompressed are the original's; a frame that has one
	// is refused.
	FlagEncrypted  = Flags(p2pv1.Flag_FLAG_ENCRYPTED)
	FlagCompressed = Flags(p2pv1.Flag_FLAG_COMPRESSED)
	// FlagAckReq: the sender waits for the answer that the type defines.
	FlagAckReq = Flags(p2pv1.Flag_FLAG_ACK_REQ)
)
