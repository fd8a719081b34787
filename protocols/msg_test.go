package protocols

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	p2pv1 "vixp2p/proto/vix/p2p/v1"
	"vixp2p/replication"
	"vixp2p/routing"
)

func TestMsgStream(t *testing.T) {
	a, b := net.Pipe()
	push, answer := PushStream(a), AnswerStream(b)
	defer push.Close()
	defer answer.Close()
	sent := []*MsgPush{
		{Number: 1, Hops: 1, Data: []byte("x")},
		{Number: 2, Hops: routing.MaxTTL, Data: bytes.Repeat([]byte("y"), routing.MaxMessage)},
	}
	go func() {
		for _, p := range sent {
			if err := push.Push(p); err != nil {
				t.Error(err)
			}
		}
	}()
	for _, want := range sent {
		if got, err := answer.NextPush(); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	back := &MsgAnswer{Number: 2, Verdict: routing.Busy, Retry: time.Second}
	go func() {
		if err := answer.Answer(back); err != nil {
			t.Error(err)
		}
		answer.Close()
	}()
	if got, err := push.NextAnswer(); err != nil || !reflect.DeepEqual(got, back) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := push.NextAnswer(); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("after the end: %v", err)
	}
}

// A push has one answer: what answers nothing, or once more, ends the stream.
func TestMsgStreamUnasked(t *testing.T) {
	for name, numbers := range map[string][]uint64{"nothing was pushed": {7}, "answered twice": {1, 1}} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			push, answer := PushStream(a), AnswerStream(b)
			defer push.Close()
			defer answer.Close()
			go func() {
				if p, err := answer.NextPush(); err != nil {
					t.Errorf("%+v, %v", p, err)
				}
				for _, n := range numbers {
					if err := answer.Answer(&MsgAnswer{Number: n, Verdict: routing.Stored}); err != nil {
						t.Error(err)
					}
				}
			}()
			if err := push.Push(&MsgPush{Number: 1, Hops: 1, Data: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			for range len(numbers) - 1 {
				if _, err := push.NextAnswer(); err != nil {
					t.Fatal(err)
				}
			}
			if a, err := push.NextAnswer(); !errors.Is(err, ErrUnasked) || !errors.Is(err, ErrProtocol) {
				t.Errorf("got %+v, %v", a, err)
			}
		})
	}
}

// Each direction carries one type: nothing else is read, however valid it is.
func TestMsgStreamTakesNothingElse(t *testing.T) {
	for _, s := range samples() {
		f, err := Encode(s.msg)
		if err != nil {
			t.Fatal(err)
		}
		raw := wire(t, *f)
		for _, reads := range []MessageType{TypeMsgPush, TypeMsgAnswer} {
			r := NewReader(bytes.NewReader(raw), nil)
			r.only = reads
			_, err := r.Next()
			if f.Type == reads && err != nil {
				t.Errorf("%s: %v", f.Type, err)
			}
			if f.Type != reads && !errors.Is(err, ErrUnexpected) && !errors.Is(err, ErrOversize) {
				t.Errorf("%s is read as %s: %v", f.Type, reads, err)
			}
		}
	}
	// A length that no push has is refused before anything is read.
	r := NewReader(bytes.NewReader([]byte{0xff, 0xff, 0x7f}), nil)
	r.only = TypeMsgPush
	if _, err := r.Next(); !errors.Is(err, ErrOversize) {
		t.Errorf("2 MiB: %v", err)
	}
	// And a session does not take a push.
	c := &Conn{sess: &Session{}}
	if _, err := c.check(&MsgPush{Number: 1, Hops: 1, Data: []byte("x")}); !errors.Is(err, ErrUnexpected) {
		t.Errorf("in a session: %v", err)
	}
}

func TestMsgRules(t *testing.T) {
	wires := map[string]struct {
		t   MessageType
		w   proto.Message
		att []byte
	}{
		"no number":        {TypeMsgPush, &p2pv1.MsgPush{Hops: 1}, []byte("x")},
		"no hops":          {TypeMsgPush, &p2pv1.MsgPush{Number: 1}, []byte("x")},
		"33 hops":          {TypeMsgPush, &p2pv1.MsgPush{Number: 1, Hops: 33}, []byte("x")},
		"257 hops":         {TypeMsgPush, &p2pv1.MsgPush{Number: 1, Hops: 257}, []byte("x")},
		"2^32-1 hops":      {TypeMsgPush, &p2pv1.MsgPush{Number: 1, Hops: math.MaxUint32}, []byte("x")},
		"no message":       {TypeMsgPush, &p2pv1.MsgPush{Number: 1, Hops: 1}, nil},
		"too long":         {TypeMsgPush, &p2pv1.MsgPush{Number: 1, Hops: 1}, make([]byte, routing.MaxMessage+1)},
		"no push":          {TypeMsgAnswer, &p2pv1.MsgAnswer{Verdict: 1}, nil},
		"no verdict":       {TypeMsgAnswer, &p2pv1.MsgAnswer{Number: 1}, nil},
		"verdict 9":        {TypeMsgAnswer, &p2pv1.MsgAnswer{Number: 1, Verdict: 9}, nil},
		"negative verdict": {TypeMsgAnswer, &p2pv1.MsgAnswer{Number: 1, Verdict: -1}, nil},
		"a long pause":     {TypeMsgAnswer, &p2pv1.MsgAnswer{Number: 1, Verdict: 6, RetryMs: math.MaxUint32}, nil},
		"with attachment":  {TypeMsgAnswer, &p2pv1.MsgAnswer{Number: 1, Verdict: 6}, []byte("x")},
	}
	for name, c := range wires {
		raw, err := proto.Marshal(c.w)
		if err != nil {
			t.Fatal(err)
		}
		f := &Frame{Major: VersionMajor, Minor: VersionMinor, Type: c.t, Message: raw, Attachment: c.att}
		if m, err := Decode(f); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		if name == "verdict 9" {
			f.Minor++
			if m, err := Decode(f); err != nil || m.(*MsgAnswer).Verdict != routing.Full {
				t.Errorf("a verdict of a later version: %+v, %v", m, err)
			}
		}
	}
}

// A peer that reads nothing ends the stream, not this node's patience.
func TestMsgStreamSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		s := PushStream(a)
		defer s.Close()
		began := time.Now()
		err := s.Push(&MsgPush{Number: 1, Hops: 1, Data: []byte("x")})
		if !errors.Is(err, ErrSlowReader) || CodeOf(err) != replication.CodeSlowReader || time.Since(began) > FrameTimeout+time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}
