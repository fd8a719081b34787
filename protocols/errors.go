package protocols

import (
	"errors"
	"fmt"
	"strings"

	"vixp2p/replication"
)

// Why a handshake was refused or a session ended. Match with errors.Is; the
// table below maps each to its code and back.
var (
	ErrOtherNetwork  = errors.New("other network")
	ErrOtherMajor    = errors.New("other major version")
	ErrNoCertificate = errors.New("no certificate")
	ErrCertExpired   = errors.New("certificate expired")
	ErrCertRevoked   = errors.New("certificate revoked")
	ErrDuplicate     = errors.New("duplicate session")
	ErrBusy          = errors.New("busy")
	ErrHelloTimeout  = errors.New("hello timeout")
	ErrProtocol      = errors.New("protocol error")
	ErrShutdown      = errors.New("shutting down")
	ErrSlowReader    = errors.New("slow reader")
	ErrStale         = errors.New("stale")
	ErrInternal      = errors.New("internal error")
	ErrDisconnect    = errors.New("disconnected by its user")
	// Why a join was refused.
	ErrInviteUnknown = errors.New("invite unknown")
	ErrInviteUsed    = errors.New("invite used")
	ErrInviteExpired = errors.New("invite expired")
	ErrInviteRevoked = errors.New("invite revoked")
	// ErrTrustChanged: what the peer may have, or how far a log counts, has changed,
	// so that the session begins anew.
	ErrTrustChanged = errors.New("trust changed")
)

// The ways in which bytes break the protocol. Each comes as a *ProtocolError,
// which is errors.Is(err, ErrProtocol) too.
var (
	ErrTruncated   = errors.New("truncated frame")
	ErrOversize    = errors.New("oversize frame")
	ErrTrailing    = errors.New("trailing bytes")
	ErrVarint      = errors.New("length that is not a minimal varint")
	ErrEnvelope    = errors.New("bad envelope")
	ErrMessage     = errors.New("bad message")
	ErrUnknownType = errors.New("unknown message type")
	ErrUnexpected  = errors.New("unexpected message")
	// ErrUnasked: an answer to a push that was not made, or was answered before.
	ErrUnasked = errors.New("answer to nothing")
)

// ProtocolError tells how bytes break the protocol.
type ProtocolError struct {
	Fault  error       // one of the sentinels above
	Type   MessageType // 0 where it is not known yet
	Reason string
}

func (e *ProtocolError) Error() string {
	of := ""
	if e.Type != 0 {
		of = " in " + e.Type.String()
	}
	return fmt.Sprintf("%v%s: %s; the other side does not follow this protocol (docs/wire.md)", e.Fault, of, e.Reason)
}

// Is matches the fault and ErrProtocol.
func (e *ProtocolError) Is(t error) bool { return t == e.Fault || t == ErrProtocol }

func faultf(fault error, t MessageType, format string, args ...any) error {
	return &ProtocolError{Fault: fault, Type: t, Reason: fmt.Sprintf(format, args...)}
}

// MajorError: a frame of another major version.
type MajorError struct{ Got uint32 }

func (e *MajorError) Error() string {
	return fmt.Sprintf("the other side speaks major version %d of the protocol and this program %d: upgrade the older one", e.Got, VersionMajor)
}

// Is matches ErrOtherMajor.
func (e *MajorError) Is(t error) bool { return t == ErrOtherMajor }

// CodeError is a reason with its code: what this side says in a Bye, or what
// the peer said.
type CodeError struct {
	Code     replication.Code
	Detail   string // for people, at most MaxDetailBytes on the wire
	FromPeer bool
}

func (e *CodeError) Error() string {
	var b strings.Builder
	if e.FromPeer {
		b.WriteString("the peer says: ")
	}
	b.WriteString(e.Code.String())
	if e.Detail != "" {
		b.WriteString(" (" + e.Detail + ")")
	}
	if r, ok := reasonOf(e.Code); ok && r.todo != "" {
		b.WriteString(": " + r.todo)
	}
	return b.String()
}

// Is matches the sentinel of the code.
func (e *CodeError) Is(t error) bool {
	r, ok := reasonOf(e.Code)
	return ok && r.err == t
}

// Refuse makes the error that a Verdict returns.
func Refuse(code replication.Code, detail string) error {
	return &CodeError{Code: code, Detail: detail}
}

// reason is one row of the table between errors and codes.
type reason struct {
	code replication.Code
	err  error
	todo string // what the people on either side can do
}

// reasons is searched from the top by CodeOf, so that an error that matches
// several sentinels gets the code of the most telling one. It is never changed.
var reasons = [...]reason{
	{replication.CodeOtherNetwork, ErrOtherNetwork, "the two nodes are not in the same network; join the same one, or use the same network name"},
	{replication.CodeOtherMajor, ErrOtherMajor, "upgrade the older program"},
	{replication.CodeNoCertificate, ErrNoCertificate, "join the network with an invite"},
	{replication.CodeCertExpired, ErrCertExpired, "ask an admin of the network for a new one"},
	{replication.CodeCertRevoked, ErrCertRevoked, "ask an admin of the network to admit the node again"},
	{replication.CodeDuplicate, ErrDuplicate, "the other session of this pair goes on"},
	{replication.CodeBusy, ErrBusy, "it is tried again later"},
	{replication.CodeHelloTimeout, ErrHelloTimeout, "it is tried again later"},
	{replication.CodeProtocol, ErrProtocol, ""},
	{replication.CodeShutdown, ErrShutdown, ""},
	{replication.CodeSlowReader, ErrSlowReader, "it is tried again later"},
	{replication.CodeStale, ErrStale, "it is tried again later"},
	{replication.CodeDisconnect, ErrDisconnect, ""},
	{replication.CodeTrustChanged, ErrTrustChanged, ""},
	{replication.CodeInviteUnknown, ErrInviteUnknown, "the node that was asked knows no such invite; ask an admin of the network for a new ticket"},
	{replication.CodeInviteUsed, ErrInviteUsed, "a ticket admits one node, and another one has joined with this; ask an admin of the network for a new ticket"},
	{replication.CodeInviteExpired, ErrInviteExpired, "ask an admin of the network for a new ticket"},
	{replication.CodeInviteRevoked, ErrInviteRevoked, "an admin has withdrawn it; ask an admin of the network for a new ticket"},
	{replication.CodeForked, replication.ErrForked, ""},
	{replication.CodeGap, replication.ErrGap, ""},
	{replication.CodeRevoked, replication.ErrRevoked, ""},
	{replication.CodeNotAllowed, replication.ErrNotAllowed, ""},
	{replication.CodeTooNew, replication.ErrTooNew, "upgrade the node that refuses"},
	{replication.CodeNoSpace, replication.ErrNoSpace, "make room on the disk of the node that refuses"},
	{replication.CodeUnknownLog, replication.ErrUnknownLog, ""},
	{replication.CodeDamaged, replication.ErrDamaged, ""},
	{replication.CodeBadRun, replication.ErrSignature, ""},
	{replication.CodeBadRun, replication.ErrInvalid, ""},
	{replication.CodeShutdown, replication.ErrClosed, ""},
	{replication.CodeInternal, ErrInternal, "see the log of the node that says so"},
}

func reasonOf(code replication.Code) (reason, bool) {
	for i := range reasons {
		if reasons[i].code == code {
			return reasons[i], true
		}
	}
	return reason{}, false
}

// CodeOf is the code to send for an error: CodeOK for nil, CodeInternal for one
// that the table does not know.
func CodeOf(err error) replication.Code {
	if err == nil {
		return replication.CodeOK
	}
	var ce *CodeError
	if errors.As(err, &ce) {
		return ce.Code
	}
	for i := range reasons {
		if errors.Is(err, reasons[i].err) {
			return reasons[i].code
		}
	}
	return replication.CodeInternal
}

// ErrorOf is the error for a code that the peer sent; nil for CodeOK. It matches
// the code's sentinel with errors.Is; a code that this version does not know
// matches none.
func ErrorOf(code replication.Code, detail string) error {
	if code == replication.CodeOK {
		return nil
	}
	return &CodeError{Code: code, Detail: detail, FromPeer: true}
}
