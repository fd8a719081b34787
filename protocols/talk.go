package protocols

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"vixp2p/replication"
)

// Stream is what a conversation needs of a stream: a libp2p network.Stream and a
// net.Conn are one.
type Stream interface {
	io.ReadWriteCloser
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// talk is a conversation of fixed order: each side says what is due, or Bye
// instead. The handshake and a join are such. Deadlines are its owner's business.
type talk struct {
	stream Stream
	r      *Reader
	w      *Writer
	// transcript is the envelopes of all messages so far, in order.
	transcript   [][]byte
	major, minor uint32 // of the peer, once it said something
	over         bool   // a Bye was said: nothing else is
}

func newTalk(s Stream, budget Budget) talk {
	return talk{stream: s, r: NewReader(s, budget), w: NewWriter(s), major: VersionMajor}
}

func (t *talk) send(m any) error {
	f, err := Encode(m)
	if err != nil {
		return fmt.Errorf("this side's %s cannot be sent, shorten what it shows: %w", TypeOf(m), err)
	}
	if err := t.w.WriteFrame(f); err != nil {
		return err
	}
	t.transcript = append(t.transcript, f.envelope)
	return t.w.Flush()
}

// receive reads the message that must come now, or the peer's Bye.
func receive[M any](t *talk, due MessageType) (m M, err error) {
	t.r.expect = []MessageType{due, TypeBye}
	f, err := t.r.Next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = faultf(ErrTruncated, 0, "the stream ended before %s", due)
		}
		return m, err
	}
	v, err := Decode(f)
	if err != nil {
		return m, err
	}
	if bye, ok := v.(*replication.Bye); ok {
		return m, &CodeError{Code: bye.Code, Detail: bye.Detail, FromPeer: true}
	}
	t.transcript = append(t.transcript, f.envelope)
	t.major, t.minor = f.Major, f.Minor
	return v.(M), nil
}

// end ends the stream because of an error: after a Bye if there is something to
// say.
func (t *talk) end(err error) {
	if t.over || t.sayBye(err) {
		_ = t.stream.Close() // flushes; the error that counts is err
	} else {
		abort(t.stream)
	}
}

// sayBye tells the peer why, unless it was the peer that said so or the stream
// is gone.
func (t *talk) sayBye(err error) bool {
	var ce *CodeError
	switch {
	case errors.As(err, &ce) && ce.FromPeer:
		return true
	case ce != nil:
		return t.bye(ce.Code, ce.Detail)
	case errors.Is(err, ErrProtocol), errors.Is(err, ErrOtherMajor), errors.Is(err, ErrHelloTimeout):
		return t.bye(CodeOf(err), "")
	}
	return false
}

// bye says the last word, and tells whether that worked.
func (t *talk) bye(code replication.Code, detail string) bool {
	_ = t.stream.SetDeadline(time.Now().Add(ByeTimeout))
	f, err := Encode(&replication.Bye{Code: code, Detail: detail})
	if err != nil || t.w.WriteFrame(f) != nil || t.w.Flush() != nil {
		return false
	}
	t.over = true
	return true
}

func newNonce(random io.Reader) (n [32]byte, err error) {
	_, err = io.ReadFull(random, n[:])
	return n, err
}

// isTimeout tells a passed deadline: yamux's is not os.ErrDeadlineExceeded.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// abort gives a stream up without waiting.
func abort(s Stream) {
	if r, ok := s.(interface{ Reset() error }); ok {
		_ = r.Reset() // nothing that its failure would change
		return
	}
	_ = s.Close() // likewise
}
