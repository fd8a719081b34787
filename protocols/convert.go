package protocols

import (
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	p2pv1 "vixp2p/proto/vix/p2p/v1"
	"vixp2p/replication"
)

// Decode turns a frame into its message: one of replication's messages, or
// *Hello, *HelloAck, *HelloFinish, *Welcome, *JoinBegin, *JoinChallenge,
// *JoinRequest, *JoinAccept, *MsgPush or *MsgAnswer. It is pure and checks all
// that one message alone can break: lengths of ids, counts, ranges. Fields that
// it does not know are skipped if the sender's minor version is newer and
// refused otherwise. Byte slices of the result alias the frame's attachment. An
// error is a *ProtocolError.
func Decode(f *Frame) (any, error) {
	d := decoder{frame: f}
	m := d.decode()
	if d.err != nil {
		return nil, d.err
	}
	return m, nil
}

// Encode turns such a message into a frame; the attachment is the message's own
// bytes. Texts for people are cut to their limits. It fails with a
// *ProtocolError for a message that Decode would refuse.
func Encode(m any) (*Frame, error) {
	f := &Frame{Major: VersionMajor, Minor: VersionMinor}
	w := toWire(f, m)
	if w == nil {
		return nil, faultf(ErrUnknownType, 0, "%T is no message", m)
	}
	var err error
	if f.Message, err = proto.Marshal(w); err != nil {
		return nil, faultf(ErrMessage, f.Type, "it does not encode: %v", err)
	}
	if _, err := Decode(f); err != nil {
		return nil, err
	}
	return f, nil
}

// TypeOf is the type of a message in its domain form; 0 if it is none.
func TypeOf(m any) MessageType {
	switch m.(type) {
	case *Hello:
		return TypeHello
	case *HelloAck:
		return TypeHelloAck
	case *HelloFinish:
		return TypeHelloFinish
	case *Welcome:
		return TypeWelcome
	case *replication.Bye:
		return TypeBye
	case *replication.Ping:
		return TypePing
	case *replication.Pong:
		return TypePong
	case *replication.WalPush:
		return TypeWalPush
	case *replication.WalAck:
		return TypeWalAck
	case *replication.OutboxPull:
		return TypeOutboxPull
	case *replication.FrontierDigest:
		return TypeFrontierDigest
	case *replication.FrontierDiff:
		return TypeFrontierDiff
	case *replication.FrontierOpen:
		return TypeFrontierOpen
	case *replication.Announce:
		return TypeAnnounce
	case *replication.Prune:
		return TypePrune
	case *replication.Graft:
		return TypeGraft
	case *replication.Receipt:
		return TypeReceipt
	case *replication.ForkProofMsg:
		return TypeForkProof
	case *replication.Control:
		return TypeControl
	case *JoinBegin:
		return TypeJoinBegin
	case *JoinChallenge:
		return TypeJoinChallenge
	case *JoinRequest:
		return TypeJoinRequest
	case *JoinAccept:
		return TypeJoinAccept
	case *MsgPush:
		return TypeMsgPush
	case *MsgAnswer:
		return TypeMsgAnswer
	}
	return 0
}

// toWire fills the frame's type, flags, code and attachment and returns its
// message; nil for what is no message.
func toWire(f *Frame, m any) proto.Message {
	f.Type = TypeOf(m)
	switch m := m.(type) {
	case *Hello:
		return m.toWire()
	case *HelloAck:
		return m.toWire()
	case *HelloFinish:
		return m.toWire()
	case *Welcome:
		return m.toWire()
	case *replication.Bye:
		f.Code = m.Code
		return &p2pv1.Bye{Detail: cutText(m.Detail, MaxDetailBytes)}
	case *replication.Ping:
		f.Flags = FlagAckReq
		return &p2pv1.Ping{Nonce: m.Nonce}
	case *replication.Pong:
		return &p2pv1.Pong{Nonce: m.Nonce}
	case *replication.WalPush:
		f.Flags, f.Attachment = FlagAckReq, m.Data
		return walPushToWire(m)
	case *replication.WalAck:
		return walAckToWire(m)
	case *replication.OutboxPull:
		f.Flags = FlagAckReq
		return &p2pv1.OutboxPull{Id: m.ID, Space: optional(m.Space[:]), MaxOps: m.MaxOps, MaxBytes: m.MaxBytes}
	case *replication.FrontierDigest:
		if !m.Reply {
			f.Flags = FlagAckReq
		}
		return &p2pv1.FrontierDigest{
			Space: m.Space[:], Name: m.Name, Round: m.Round, Reply: m.Reply,
			Digest: optional(m.Digest[:]), Logs: m.Logs, Levels: m.Levels,
		}
	case *replication.FrontierDiff:
		return &p2pv1.FrontierDiff{
			Space: m.Space[:], Round: m.Round, Part: m.Part, Last: m.Last,
			Entries: entriesToWire(m.Entries), Step: m.Step, Nodes: nodesToWire(m.Nodes),
			Whole: optional(m.Whole[:]), Buckets: bucketsToWire(m.Buckets),
		}
	case *replication.FrontierOpen:
		f.Flags = FlagAckReq
		return &p2pv1.FrontierOpen{
			Space: m.Space[:], Round: m.Round, Step: m.Step,
			Nodes: optional(m.Nodes[:]), Whole: optional(m.Whole[:]), Buckets: bucketsToWire(m.Buckets),
		}
	case *replication.Announce:
		return &p2pv1.Announce{Space: m.Space[:], Entries: entriesToWire(m.Entries)}
	case *replication.Prune:
		return pruneToWire(m)
	case *replication.Graft:
		return &p2pv1.Graft{Log: m.Log[:], From: positionToWire(m.From)}
	case *replication.Receipt:
		return &p2pv1.Receipt{
			Network: m.Network[:], Space: m.Space[:], Holder: m.Holder[:], Instance: m.Instance[:],
			Counter: m.Counter, Entries: entriesToWire(m.Entries), Signature: m.Signature,
		}
	case *replication.ForkProofMsg:
		f.Attachment = append(append(make([]byte, 0, len(m.Proof.A)+len(m.Proof.B)), m.Proof.A...), m.Proof.B...)
		return &p2pv1.ForkProof{
			Space: m.Space[:], Log: m.Proof.Log[:], Origin: m.Proof.Origin[:], LengthA: uint64(len(m.Proof.A)),
		}
	case *replication.Control:
		f.Attachment = m.Data
		return &p2pv1.Control{}
	case *JoinBegin:
		return &p2pv1.JoinBegin{}
	case *JoinChallenge:
		return &p2pv1.JoinChallenge{Nonce: m.Nonce[:]}
	case *JoinRequest:
		return m.toWire()
	case *JoinAccept:
		return &p2pv1.JoinAccept{Chain: m.Chain, Root: m.Root[:], NetworkName: m.NetworkName}
	case *MsgPush:
		f.Flags, f.Attachment = FlagAckReq, m.Data
		return &p2pv1.MsgPush{Number: m.Number, Hops: uint32(m.Hops)}
	case *MsgAnswer:
		return m.toWire()
	}
	return nil
}

// decoder decodes one frame and keeps the first thing that is wrong.
type decoder struct {
	frame *Frame
	err   error
}

func (d *decoder) decode() any {
	f := d.frame
	if row, _ := limitOf(f.Type); len(f.Attachment) > row.Attachment {
		d.failf("an attachment of %d bytes", len(f.Attachment))
		return nil
	}
	switch f.Type {
	case TypeHello:
		return d.hello()
	case TypeHelloAck:
		return d.helloAck()
	case TypeHelloFinish:
		return d.helloFinish()
	case TypeWelcome:
		return d.welcome()
	case TypeBye:
		return d.bye()
	case TypePing:
		var w p2pv1.Ping
		d.unmarshal(&w)
		return &replication.Ping{Nonce: w.GetNonce()}
	case TypePong:
		var w p2pv1.Pong
		d.unmarshal(&w)
		return &replication.Pong{Nonce: w.GetNonce()}
	case TypeWalPush:
		return d.walPush()
	case TypeWalAck:
		return d.walAck()
	case TypeOutboxPull:
		return d.outboxPull()
	case TypeFrontierDigest:
		return d.frontierDigest()
	case TypeFrontierDiff:
		return d.frontierDiff()
	case TypeFrontierOpen:
		return d.frontierOpen()
	case TypeAnnounce:
		return d.announce()
	case TypePrune:
		return d.prune()
	case TypeGraft:
		return d.graft()
	case TypeReceipt:
		return d.receipt()
	case TypeForkProof:
		return d.forkProof()
	case TypeControl:
		return d.control()
	case TypeJoinBegin:
		d.unmarshal(&p2pv1.JoinBegin{})
		return &JoinBegin{}
	case TypeJoinChallenge:
		return d.joinChallenge()
	case TypeJoinRequest:
		return d.joinRequest()
	case TypeJoinAccept:
		return d.joinAccept()
	case TypeMsgPush:
		return d.msgPush()
	case TypeMsgAnswer:
		return d.msgAnswer()
	}
	d.err = faultf(ErrUnknownType, f.Type, "it is none of version %d.%d", VersionMajor, VersionMinor)
	return nil
}

func (d *decoder) failf(format string, args ...any) {
	if d.err == nil {
		d.err = faultf(ErrMessage, d.frame.Type, format, args...)
	}
}

func (d *decoder) unmarshal(m proto.Message) {
	if err := proto.Unmarshal(d.frame.Message, m); err != nil {
		d.failf("it does not decode")
		return
	}
	d.known(m)
}

// known refuses fields that only a newer minor version may add.
func (d *decoder) known(m proto.Message) {
	if !d.frame.newer() && len(m.ProtoReflect().GetUnknown()) > 0 {
		d.failf("unknown fields")
	}
}

// id copies an id of exactly len(dst) bytes.
func (d *decoder) id(what string, dst, src []byte) {
	if len(src) != len(dst) {
		d.failf("%s has %d bytes, not %d", what, len(src), len(dst))
		return
	}
	copy(dst, src)
}

// optionalID copies an id of exactly len(dst) bytes, or none. The zero id is
// sent as none.
func (d *decoder) optionalID(what string, dst, src []byte) {
	if len(src) == 0 {
		return
	}
	d.id(what, dst, src)
	if optional(src) == nil {
		d.failf("%s is zero", what)
	}
}

func (d *decoder) text(what, s string, maxBytes int) string {
	if len(s) > maxBytes {
		d.failf("%s has %d bytes, more than %d", what, len(s), maxBytes)
	}
	return s
}

func (d *decoder) count(what string, n, low, high int) {
	if n < low || n > high {
		d.failf("%d %s, not %d to %d", n, what, low, high)
	}
}

// optional is b, or nil where b is all zero.
func optional(b []byte) []byte {
	for _, c := range b {
		if c != 0 {
			return b
		}
	}
	return nil
}

// cutText makes s valid UTF-8 of at most maxBytes.
func cutText(s string, maxBytes int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxBytes {
		return s
	}
	for maxBytes > 0 && !utf8.RuneStart(s[maxBytes]) {
		maxBytes--
	}
	return s[:maxBytes]
}
