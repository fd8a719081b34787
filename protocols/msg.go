package protocols

import (
	"fmt"
	"sync"
	"time"

	p2pv1 "vixp2p/proto/vix/p2p/v1"
	"vixp2p/routing"
)

// MsgPush hands a routed message over.
type MsgPush struct {
	Number uint64 // names the push in its answer; not 0
	Hops   uint8  // links crossed, this one included
	Data   []byte // the message as package routing encodes it
}

// MsgAnswer tells what became of a push.
type MsgAnswer struct {
	Number  uint64
	Verdict routing.Verdict
	Retry   time.Duration // of Busy and Full; 0: not told
}

// maxRetry is the longest pause that an answer may ask for.
const maxRetry = 24 * time.Hour

func (m *MsgAnswer) toWire() *p2pv1.MsgAnswer {
	retry := max(0, min(m.Retry, maxRetry))
	if retry > 0 {
		retry = max(retry, time.Millisecond)
	}
	return &p2pv1.MsgAnswer{Number: m.Number, Verdict: p2pv1.MsgVerdict(m.Verdict), RetryMs: uint32(retry / time.Millisecond)}
}

func (d *decoder) msgPush() *MsgPush {
	var w p2pv1.MsgPush
	d.unmarshal(&w)
	if w.GetNumber() == 0 {
		d.failf("a push without a number")
	}
	d.count("hops", int(min(w.GetHops(), 1<<20)), 1, routing.MaxTTL)
	if len(d.frame.Attachment) == 0 {
		d.failf("a push without a message")
	}
	return &MsgPush{Number: w.GetNumber(), Hops: uint8(w.GetHops()), Data: d.frame.Attachment}
}

func (d *decoder) msgAnswer() *MsgAnswer {
	var w p2pv1.MsgAnswer
	d.unmarshal(&w)
	if w.GetNumber() == 0 {
		d.failf("an answer without a number")
	}
	retry := time.Duration(w.GetRetryMs()) * time.Millisecond
	if retry > maxRetry {
		d.failf("a pause of %s, more than %s", retry, maxRetry)
	}
	v := w.GetVerdict()
	switch {
	case v >= 1 && v <= p2pv1.MsgVerdict(routing.Spent):
	case v > p2pv1.MsgVerdict(routing.Spent) && d.frame.newer():
		v = p2pv1.MsgVerdict(routing.Full) // of a later version
	default:
		d.failf("verdict %d", v)
	}
	return &MsgAnswer{Number: w.GetNumber(), Verdict: routing.Verdict(v), Retry: retry}
}

// MsgStream is a stream of /vix/msg/1: its opener pushes and the other side
// answers. One goroutine may read while others write. It starts no goroutine.
type MsgStream struct {
	s Stream
	r *Reader

	mu sync.Mutex // guards w and the write deadline; held while writing
	w  *Writer

	askedMu sync.Mutex          // guards asked
	asked   map[uint64]struct{} // pushes that were not answered; as many as the opener has under way
}

// PushStream is the opener's side of a stream, AnswerStream the other one. Each
// owns s.
func PushStream(s Stream) *MsgStream { return newMsgStream(s, TypeMsgAnswer) }

// AnswerStream is the side that takes messages.
func AnswerStream(s Stream) *MsgStream { return newMsgStream(s, TypeMsgPush) }

func newMsgStream(s Stream, reads MessageType) *MsgStream {
	r := NewReader(s, nil) // one message at a time
	r.only = reads
	return &MsgStream{s: s, r: r, w: NewWriter(s), asked: map[uint64]struct{}{}}
}

// Push writes a push.
func (m *MsgStream) Push(p *MsgPush) error {
	m.askedMu.Lock()
	m.asked[p.Number] = struct{}{} // before the answer can be there
	m.askedMu.Unlock()
	return m.write(p)
}

// Answer writes an answer.
func (m *MsgStream) Answer(a *MsgAnswer) error { return m.write(a) }

func (m *MsgStream) write(v any) error {
	f, err := Encode(v)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.s.SetWriteDeadline(time.Now().Add(frameTime(len(f.Attachment)))); err != nil {
		return err
	}
	if err := m.w.WriteFrame(f); err != nil {
		return err
	}
	if err := m.w.Flush(); err != nil {
		if isTimeout(err) {
			return fmt.Errorf("the peer did not take what was sent to it in time: %w", ErrSlowReader)
		}
		return err
	}
	return nil
}

// NextPush reads a push; io.EOF means that the peer ended the stream.
func (m *MsgStream) NextPush() (*MsgPush, error) { return nextOf[*MsgPush](m.r) }

// NextAnswer reads the answer to a push; io.EOF means that the peer ended the stream.
// After ErrUnasked, as after every other error, the stream is of no further use.
func (m *MsgStream) NextAnswer() (*MsgAnswer, error) {
	a, err := nextOf[*MsgAnswer](m.r)
	if err != nil {
		return nil, err
	}
	m.askedMu.Lock()
	defer m.askedMu.Unlock()
	if _, asked := m.asked[a.Number]; !asked {
		return nil, faultf(ErrUnasked, TypeMsgAnswer, "an answer to push %d, which waits for none", a.Number)
	}
	delete(m.asked, a.Number)
	return a, nil
}

func nextOf[M any](r *Reader) (m M, err error) {
	f, err := r.Next()
	if err != nil {
		if isTimeout(err) {
			err = fmt.Errorf("a frame of the peer did not end in its time: %w", ErrStale)
		}
		return m, err
	}
	v, err := Decode(f)
	if err != nil {
		return m, err
	}
	return v.(M), nil // the Reader lets no other type through
}

// Close ends the stream in both directions.
func (m *MsgStream) Close() { abort(m.s) }
