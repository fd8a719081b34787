package protocols

import (
	"bufio"
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	p2pv1 "vixp2p/proto/vix/p2p/v1"
	"vixp2p/replication"
)

// A frame (design 7.1, v1):
//
//	+----------+----------------+------------------+------------------+
//	| uvarint  | uvarint        | Envelope         | attachment       |
//	| length   | envelope length| (protobuf)       | (raw bytes)      |
//	+----------+----------------+------------------+------------------+
//	           |<----------------- length bytes ------------------->|
//	                            |<envelope length>|<--- the rest -->|
//
// Both lengths are minimal varints. The attachment is what the envelope leaves
// of the frame; only WalPush, ForkProof, Control and MsgPush have one.

// Frame is one decoded frame.
type Frame struct {
	Major, Minor uint32
	Type         MessageType
	ID           uint64 // counts the sender's frames, from 1
	Flags        Flags
	Code         replication.Code // of a Bye
	Message      []byte           // the encoded message
	Attachment   []byte           // owned by whoever read the frame
	envelope     []byte           // as sent; kept for the transcript of a handshake only
}

// newer tells whether the sender's minor version is newer than ours, so that
// what is not known is skipped.
func (f *Frame) newer() bool { return f.Minor > VersionMinor }

// Budget bounds the bytes of attachments that all peers together hold in memory
// (design 4.4, G8). It is asked before an attachment is read.
type Budget interface {
	// Reserve takes n bytes, at most replication.MaxRunBytes. It waits until they are free,
	// or until cancel is closed and then fails with replication.ErrClosed.
	Reserve(n int, cancel <-chan struct{}) error
	// Release gives n bytes back that one Reserve took.
	Release(n int)
}

// Reader reads frames from one stream, for the stream's whole life: it may hold
// bytes of later frames. One goroutine at a time may read.
type Reader struct {
	br     *bufio.Reader
	budget Budget

	// expect is what may come while the handshake runs; nil afterwards.
	expect []MessageType
	// only is the one type that this stream carries this way; 0: any.
	only MessageType

	armed     bool                                          // the frame being read has a deadline
	deadlines interface{ SetReadDeadline(time.Time) error } // nil: the stream has none
	mu        sync.Mutex                                    // guards final and the order of deadlines
	final     time.Time                                     // set once: no deadline is later than this

	cancelOnce sync.Once
	cancelled  chan struct{} // ends a wait for the budget
}

// NewReader reads from r, which may have a SetReadDeadline, what is allowed
// after Hello. A nil budget is unlimited.
func NewReader(r io.Reader, budget Budget) *Reader {
	d, _ := r.(interface{ SetReadDeadline(time.Time) error })
	return &Reader{br: bufio.NewReaderSize(r, readBuffer), budget: budget, deadlines: d, cancelled: make(chan struct{})}
}

// Next reads one frame. Frames of unknown type from a newer minor version are
// skipped. io.EOF means that the stream ended between frames; any other error
// is a *ProtocolError, a *MajorError, replication.ErrClosed after cancel, or
// the stream's own, and the stream is of no further use.
//
// The attachment's bytes are reserved from the budget; whoever takes the frame
// gives them back (Frame.Attachment's length) when it no longer holds it.
func (r *Reader) Next() (*Frame, error) {
	for {
		if _, err := r.br.Peek(1); err != nil {
			return nil, err // io.EOF between frames
		}
		f, err := r.next()
		if f != nil || err != nil {
			return f, err
		}
	}
}

// next reads the frame whose first byte is there; nil if it was skipped.
func (r *Reader) next() (*Frame, error) {
	defer r.disarm()
	limits := r.phase()
	length, _, err := r.uvarint()
	if err != nil {
		return nil, err
	}
	if length > uint64(limits.frame) {
		return nil, faultf(ErrOversize, 0, "a frame of %d bytes, more than %d", length, limits.frame)
	}
	size, n, err := r.uvarint()
	if err != nil {
		return nil, err
	}
	rest := int(length) - n
	if size == 0 || rest < 0 || size > uint64(rest) {
		return nil, faultf(ErrEnvelope, 0, "an envelope of %d bytes in a frame of %d", size, length)
	}
	if size > uint64(limits.envelope) {
		return nil, faultf(ErrOversize, 0, "an envelope of %d bytes, more than %d", size, limits.envelope)
	}
	r.need(int(size))
	raw, err := r.br.Peek(int(size))
	if err != nil {
		return nil, truncated(err)
	}
	f, err := decodeEnvelope(raw)
	if err != nil {
		return nil, err
	}
	if r.expect != nil {
		f.envelope = append([]byte(nil), raw...)
	}
	if _, err := r.br.Discard(int(size)); err != nil {
		return nil, truncated(err)
	}
	rest -= int(size)

	skip, err := r.check(f, int(size), rest)
	if err != nil {
		return nil, err
	}
	if skip {
		r.arm(frameTime(rest))
		_, err := r.br.Discard(rest)
		return nil, truncated(err)
	}
	return f, r.attach(f, rest)
}

type phaseLimits struct{ frame, envelope int }

// phase gives what any frame may have now, before its type is known.
func (r *Reader) phase() phaseLimits {
	if r.expect == nil {
		attachment := maxAttachment
		if r.only != 0 {
			row, _ := limitOf(r.only)
			attachment = row.Attachment
		}
		return phaseLimits{frame: maxFramePrefix + MaxEnvelope + attachment, envelope: MaxEnvelope}
	}
	var l phaseLimits
	for _, t := range r.expect {
		row, _ := limitOf(t)
		l.envelope = max(l.envelope, row.Hello)
	}
	l.frame = maxFramePrefix + l.envelope
	return l
}

// check decides whether a frame with such sizes is allowed now, or skipped.
func (r *Reader) check(f *Frame, envelope, attachment int) (skip bool, err error) {
	row, known := limitOf(f.Type)
	limit := row.Session
	if r.expect != nil {
		limit = 0
		for _, t := range r.expect {
			if t == f.Type {
				limit = row.Hello
			}
		}
	}
	switch {
	case !known && f.newer() && r.expect == nil:
		return true, nil
	case !known:
		return false, faultf(ErrUnknownType, f.Type, "it is none of version %d.%d", VersionMajor, VersionMinor)
	case limit == 0, r.only != 0 && r.only != f.Type:
		return false, faultf(ErrUnexpected, f.Type, "it does not belong here")
	case envelope > limit:
		return false, faultf(ErrOversize, f.Type, "an envelope of %d bytes, more than %d", envelope, limit)
	case attachment > 0 && (row.Attachment == 0 || r.expect != nil):
		return false, faultf(ErrTrailing, f.Type, "%d bytes after the envelope", attachment)
	case attachment > row.Attachment:
		return false, faultf(ErrOversize, f.Type, "an attachment of %d bytes, more than %d", attachment, row.Attachment)
	}
	return false, nil
}

// attach reads the attachment into a buffer of its own, once its memory is
// reserved.
func (r *Reader) attach(f *Frame, n int) error {
	if n == 0 {
		return nil
	}
	if r.budget != nil {
		if err := r.budget.Reserve(n, r.cancelled); err != nil {
			return err
		}
	}
	r.arm(frameTime(n)) // only now: a wait for memory is not the peer's fault
	buf := make([]byte, n)
	if _, err := io.ReadFull(r.br, buf); err != nil {
		r.release(n)
		return truncated(err)
	}
	f.Attachment = buf
	return nil
}

func (r *Reader) release(n int) {
	if r.budget != nil && n > 0 {
		r.budget.Release(n)
	}
}

// uvarint reads a minimal varint and tells its length.
func (r *Reader) uvarint() (v uint64, n int, err error) {
	for shift := uint(0); ; shift += 7 {
		r.need(1)
		b, err := r.br.ReadByte()
		if err != nil {
			return 0, 0, truncated(err)
		}
		n++
		switch {
		case shift == 63 && b > 1:
			return 0, 0, faultf(ErrVarint, 0, "more than 64 bits")
		case b == 0 && n > 1:
			return 0, 0, faultf(ErrVarint, 0, "a zero at its end")
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, n, nil
		}
	}
}

// truncated turns the end of the stream inside a frame into a ProtocolError.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return faultf(ErrTruncated, 0, "the stream ended inside a frame")
	}
	return err
}

// need starts the frame's time if it has to wait for bytes. The handshake has
// its own time for all of its frames.
func (r *Reader) need(n int) {
	if r.expect == nil && !r.armed && r.br.Buffered() < n {
		r.arm(FrameTimeout)
	}
}

// arm gives the rest of the frame that much time.
func (r *Reader) arm(d time.Duration) {
	r.armed = true
	r.setDeadline(time.Now().Add(d))
}

func (r *Reader) disarm() {
	if r.armed {
		r.armed = false
		r.setDeadline(time.Time{})
	}
}

func (r *Reader) setDeadline(t time.Time) {
	if r.deadlines == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.final.IsZero() && (t.IsZero() || t.After(r.final)) {
		t = r.final
	}
	_ = r.deadlines.SetReadDeadline(t) // a stream that is gone says so in Read
}

// endBy makes every read end by t at the latest, one under way included, and
// ends a wait for the budget at once.
func (r *Reader) endBy(t time.Time) {
	r.cancelOnce.Do(func() { close(r.cancelled) })
	if r.deadlines == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.final.IsZero() || t.Before(r.final) {
		r.final = t
		_ = r.deadlines.SetReadDeadline(t)
	}
}

// decodeEnvelope reads an envelope; the frame owns its bytes.
func decodeEnvelope(raw []byte) (*Frame, error) {
	var e p2pv1.Envelope
	if err := proto.Unmarshal(raw, &e); err != nil {
		return nil, faultf(ErrEnvelope, 0, "it does not decode")
	}
	f := &Frame{
		Major: e.GetVersionMajor(), Minor: e.GetVersionMinor(),
		Type: MessageType(e.GetType()), ID: e.GetMessageId(),
		Flags: Flags(e.GetFlags()), Code: replication.Code(e.GetErrorCode()),
		Message: e.GetMessage(),
	}
	switch {
	case f.Major != VersionMajor:
		return nil, &MajorError{Got: f.Major}
	case e.GetType() < 1:
		return nil, faultf(ErrEnvelope, 0, "message type %d", e.GetType())
	case f.Flags&(FlagEncrypted|FlagCompressed) != 0:
		return nil, faultf(ErrEnvelope, f.Type, "flags %d ask for decryption or decompression that this version does not have", f.Flags)
	case e.GetErrorCode() < 0:
		return nil, faultf(ErrEnvelope, f.Type, "error code %d", e.GetErrorCode())
	case f.newer():
		return f, nil
	case f.Flags&^FlagAckReq != 0:
		return nil, faultf(ErrEnvelope, f.Type, "unknown flags %d", f.Flags)
	case f.Code != 0 && f.Type != TypeBye:
		return nil, faultf(ErrEnvelope, f.Type, "an error code outside a Bye")
	case len(e.ProtoReflect().GetUnknown()) > 0:
		return nil, faultf(ErrEnvelope, f.Type, "unknown fields")
	}
	return f, nil
}

// encodeEnvelope is the inverse; version and type are checked by the caller.
func encodeEnvelope(f *Frame) ([]byte, error) {
	if f.Type > math.MaxInt32 || f.Code > math.MaxInt32 {
		return nil, faultf(ErrEnvelope, f.Type, "a number beyond 31 bits")
	}
	return proto.Marshal(&p2pv1.Envelope{
		VersionMajor: f.Major, VersionMinor: f.Minor,
		Type: p2pv1.MessageType(f.Type), MessageId: f.ID, Flags: uint32(f.Flags),
		ErrorCode: p2pv1.ErrorCode(f.Code), Message: f.Message,
	})
}
