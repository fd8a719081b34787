package protocols

import (
	"bytes"
	"errors"
	"io"
	"net"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// FuzzFrame reads hostile bytes as a stream of frames: every end is a known
// error, what was reserved is given back, and a frame that was read is written
// again as one that reads the same.
func FuzzFrame(f *testing.F) {
	for _, s := range samples() {
		frame, err := Encode(s.msg)
		if err != nil {
			f.Fatal(err)
		}
		raw := wire(f, *frame)
		f.Add(raw)
		f.Add(raw[:len(raw)-1])
		f.Add(append(raw[:len(raw):len(raw)], raw...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		budget := newTestBudget(0)
		r := NewReader(bytes.NewReader(in), budget)
		for {
			got, err := r.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrOtherMajor) {
					t.Fatalf("an error of no known kind: %v", err)
				}
				break
			}
			if len(got.Attachment) > len(in) {
				t.Fatalf("an attachment of %d bytes from %d", len(got.Attachment), len(in))
			}
			rewrite(t, got)
			r.release(len(got.Attachment))
		}
		if budget.Used() != 0 {
			t.Fatalf("%d bytes still reserved", budget.Used())
		}
	})
}

// rewrite writes a frame that was read and reads it again.
func rewrite(t *testing.T, f *Frame) {
	var out bytes.Buffer
	w := NewWriter(&out)
	copied := *f
	if err := w.WriteFrame(&copied); err != nil {
		// Its envelope as we write it may be longer than the one that came.
		if !errors.Is(err, ErrOversize) {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		return
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	again, err := NewReader(&out, nil).Next()
	if err != nil && f.Minor <= VersionMinor {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	if err == nil && (again.Type != f.Type || !bytes.Equal(again.Message, f.Message) || !bytes.Equal(again.Attachment, f.Attachment)) {
		t.Fatalf("read %+v, wrote and read %+v", f, again)
	}
}

// FuzzEnvelope decodes hostile bytes as an envelope.
func FuzzEnvelope(f *testing.F) {
	for _, s := range samples() {
		frame, err := Encode(s.msg)
		if err != nil {
			f.Fatal(err)
		}
		env, err := encodeEnvelope(frame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(env)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		frame, err := decodeEnvelope(in)
		if err != nil {
			if !errors.Is(err, ErrEnvelope) && !errors.Is(err, ErrOtherMajor) {
				t.Fatalf("an error of no known kind: %v", err)
			}
			return
		}
		env, err := encodeEnvelope(frame)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeEnvelope(env)
		if err != nil || !reflect.DeepEqual(again, frame) {
			t.Fatalf("read %+v, wrote and read %+v, %v", frame, again, err)
		}
	})
}

// FuzzMessage decodes hostile bytes as each message: what is accepted can be
// sent, and arrives the same.
func FuzzMessage(f *testing.F) {
	for _, s := range samples() {
		frame, err := Encode(s.msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint32(frame.Type), false, frame.Message, frame.Attachment)
		f.Add(uint32(frame.Type), true, frame.Message, frame.Attachment)
	}
	f.Fuzz(func(t *testing.T, typ uint32, newer bool, message, attachment []byte) {
		frame := &Frame{Major: VersionMajor, Minor: VersionMinor, Type: MessageType(typ), Message: message, Attachment: attachment}
		if newer {
			frame.Minor++
		}
		if quick, ok := quickDiff(message); ok {
			d := decoder{frame: &Frame{Major: VersionMajor, Minor: VersionMinor, Type: TypeFrontierDiff, Message: message}}
			if m := d.anyFrontierDiff(); d.err != nil || !reflect.DeepEqual(m, any(quick)) {
				t.Fatalf("read quickly %+v, else %+v, %v", quick, m, d.err)
			}
		}
		m, err := Decode(frame)
		if err != nil {
			if !errors.Is(err, ErrMessage) && !errors.Is(err, ErrUnknownType) {
				t.Fatalf("an error of no known kind: %v", err)
			}
			return
		}
		sent, err := Encode(m)
		if err != nil {
			t.Fatalf("what was accepted cannot be sent: %v", err)
		}
		again, err := Decode(sent)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("accepted %+v, arrived as %+v, %v", m, again, err)
		}
	})
}

// FuzzHello lets a hostile peer say anything in a handshake, as either role: it
// never succeeds without the network id, ends in time, and leaves no goroutine.
func FuzzHello(f *testing.F) {
	dialer, responder := helloPair(f)
	for _, m := range []any{
		&Hello{Attempt: 1, BlockFormat: 1}, &HelloAck{BlockFormat: 1}, &HelloFinish{Label: "x"}, &Welcome{Label: "x"},
	} {
		frame, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		raw := wire(f, *frame)
		for _, initiator := range []bool{false, true} {
			f.Add(initiator, raw)
			f.Add(initiator, append(raw[:len(raw):len(raw)], raw...))
			f.Add(initiator, raw[:len(raw)/2])
		}
	}
	f.Fuzz(func(t *testing.T, initiator bool, in []byte) {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go drain(theirs)
			go feed(theirs, in)
			began := time.Now()
			var err error
			if initiator {
				_, err = Initiate(ours, dialer)
			} else {
				_, err = Respond(ours, responder)
			}
			if err == nil {
				t.Error("accepted without knowing the network")
			}
			if took := time.Since(began); took > DefaultHelloTimeout+ByeTimeout {
				t.Errorf("took %v", took)
			}
			ours.Close()
			theirs.Close()
		})
	})
}

// FuzzJoin lets a hostile peer say anything in a join, as either role: without the
// invite's key it is not admitted, it admits nobody to another network, and it
// holds nobody for longer than the time of a join.
func FuzzJoin(f *testing.F) {
	joiner, responder := joinPair(f)
	grant := testGrant()
	begin, challenge := frameOf(f, &JoinBegin{}), frameOf(f, &JoinChallenge{})
	for _, in := range [][]byte{
		append(begin[:len(begin):len(begin)], frameOf(f, &JoinRequest{
			Network: testClosed, Invite: joiner.Invite, Label: "x", X25519: [32]byte{1}, Signature: make([]byte, 64),
		})...),
		append(challenge[:len(challenge):len(challenge)], frameOf(f, &JoinAccept{
			Chain: grant.Chain, Root: grant.Root, NetworkName: "x",
		})...),
	} {
		for _, asks := range []bool{false, true} {
			f.Add(asks, in)
			f.Add(asks, append(in[:len(in):len(in)], in...))
			f.Add(asks, in[:len(in)/2])
		}
	}
	f.Fuzz(func(t *testing.T, asks bool, in []byte) {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go drain(theirs)
			go feed(theirs, in)
			began := time.Now()
			if asks {
				res, err := RequestJoin(ours, joiner)
				if err == nil && (res.Root != grant.Root || len(res.Chain) == 0 || len(res.Chain) > MaxCertificate) {
					t.Errorf("joined with %+v", res)
				}
			} else if err := AnswerJoin(ours, responder); err == nil {
				t.Error("admitted without the invite's key")
			}
			if took := time.Since(began); took > DefaultHelloTimeout+DefaultJoinWait+ByeTimeout {
				t.Errorf("took %v", took)
			}
			ours.Close()
			theirs.Close()
		})
	})
}
