package protocols

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"vixp2p/replication"
)

// joinSides are the two roles.
func joinSides(t *testing.T) map[string]func(Stream) error {
	joiner, responder := joinPair(t)
	return map[string]func(Stream) error{
		"joiner":    func(s Stream) error { _, err := RequestJoin(s, joiner); return err },
		"responder": func(s Stream) error { return AnswerJoin(s, responder) },
	}
}

// Garbage, another protocol, other messages and other versions end a join with
// one clear error on either side, and the peer hears a Bye.
func TestJoinHostileBytes(t *testing.T) {
	raw := func(f Frame) []byte { return wire(t, f) }
	begin, challenge := frameOf(t, &JoinBegin{}), frameOf(t, &JoinChallenge{})
	request := frameOf(t, &JoinRequest{Signature: make([]byte, 64)})
	accept := frameOf(t, &JoinAccept{Chain: []byte{1}})
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name string
		side string // the side that it is said to; "": both
		in   []byte
		want error
		code replication.Code // of the Bye that is heard
	}{
		{"http", "", []byte("GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: a-browser-with-a-long-name/1.0\r\n\r\n"), ErrEnvelope, replication.CodeProtocol},
		{"announces 4 GiB", "", []byte{0x80, 0x80, 0x80, 0x80, 0x10, 0x0a}, ErrOversize, replication.CodeProtocol},
		{"announces 2^64-1", "", append(bytes.Repeat([]byte{0xff}, 9), 1), ErrOversize, replication.CodeProtocol},
		{"other major", "", raw(Frame{Major: 2, Type: TypeJoinBegin}), ErrOtherMajor, replication.CodeOtherMajor},
		{"a hello", "", raw(Frame{Major: 1, Type: TypeHello}), ErrUnexpected, replication.CodeProtocol},
		{"a push", "", raw(Frame{Major: 1, Type: TypeWalPush, Attachment: []byte("x")}), ErrUnexpected, replication.CodeProtocol},
		{"an unknown type of a newer version", "", raw(Frame{Major: 1, Minor: 7, Type: 36}), ErrUnknownType, replication.CodeProtocol},

		{"a request first", "responder", request, ErrUnexpected, replication.CodeProtocol},
		{"its own challenge", "responder", challenge, ErrUnexpected, replication.CodeProtocol},
		{"an acceptance", "responder", accept, ErrUnexpected, replication.CodeProtocol},
		{"a begin with content", "responder", raw(Frame{Major: 1, Type: TypeJoinBegin, Message: []byte{8, 1}}), ErrMessage, replication.CodeProtocol},
		{"a begin with an attachment", "responder", raw(Frame{Major: 1, Type: TypeJoinBegin, Attachment: []byte("x")}), ErrTrailing, replication.CodeProtocol},
		{"a large begin", "responder", raw(Frame{Major: 1, Minor: 1, Type: TypeJoinBegin, Message: make([]byte, 256)}), ErrOversize, replication.CodeProtocol},
		{"begun twice", "responder", join(begin, begin), ErrUnexpected, replication.CodeProtocol},
		{"a request without content", "responder", join(begin, raw(Frame{Major: 1, Type: TypeJoinRequest})), ErrMessage, replication.CodeProtocol},
		{"a large request", "responder", join(begin, raw(Frame{Major: 1, Minor: 1, Type: TypeJoinRequest, Message: make([]byte, 1100)})), ErrOversize, replication.CodeProtocol},
		{"an acceptance in place of a request", "responder", join(begin, accept), ErrUnexpected, replication.CodeProtocol},

		{"its own begin", "joiner", begin, ErrUnexpected, replication.CodeProtocol},
		{"accepted without a challenge", "joiner", accept, ErrUnexpected, replication.CodeProtocol},
		{"a short nonce", "joiner", raw(Frame{Major: 1, Type: TypeJoinChallenge, Message: []byte{10, 1, 7}}), ErrMessage, replication.CodeProtocol},
		{"a large challenge", "joiner", raw(Frame{Major: 1, Minor: 1, Type: TypeJoinChallenge, Message: make([]byte, 256)}), ErrOversize, replication.CodeProtocol},
		{"challenged twice", "joiner", join(challenge, challenge), ErrUnexpected, replication.CodeProtocol},
		{"its own request", "joiner", join(challenge, request), ErrUnexpected, replication.CodeProtocol},
		{"accepted without content", "joiner", join(challenge, raw(Frame{Major: 1, Type: TypeJoinAccept})), ErrMessage, replication.CodeProtocol},
		{"a large acceptance", "joiner", join(challenge, raw(Frame{Major: 1, Minor: 1, Type: TypeJoinAccept, Message: make([]byte, MaxJoinEnvelope)})), ErrOversize, replication.CodeProtocol},
		{"accepted under no root of the network", "joiner", join(challenge, frameOf(t, &JoinAccept{Chain: []byte{1}})), ErrMessage, replication.CodeProtocol},
	} {
		for side, run := range joinSides(t) {
			if c.side != "" && c.side != side {
				continue
			}
			t.Run(c.name+" to the "+side, func(t *testing.T) {
				ours, theirs := net.Pipe()
				result := make(chan error, 1)
				go func() { result <- run(ours) }()
				go feed(theirs, c.in) // it may not take all of it
				if code := lastBye(t, theirs); code != c.code {
					t.Errorf("heard a Bye with %v, want %v", code, c.code)
				}
				if err := <-result; !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			})
		}
	}
}

// lastBye reads what one side of a join says until it says Bye.
func lastBye(t *testing.T, c net.Conn) replication.Code {
	t.Helper()
	r := NewReader(c, nil)
	r.expect = []MessageType{TypeJoinBegin, TypeJoinChallenge, TypeJoinRequest, TypeBye}
	for {
		f, err := r.Next()
		if err != nil {
			t.Fatalf("no Bye: %v", err)
		}
		m, err := Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		if bye, ok := m.(*replication.Bye); ok {
			return bye.Code
		}
	}
}

// A stream that ends early is an error on the other side, which says whether the
// invite may have been redeemed.
func TestJoinStreamEnds(t *testing.T) {
	begin, challenge := frameOf(t, &JoinBegin{}), frameOf(t, &JoinChallenge{})
	for _, c := range []struct {
		side string
		in   []byte
		want string
	}{
		{"responder", nil, "the stream ended before JoinBegin"},
		{"responder", begin, "the stream ended before JoinRequest"},
		{"joiner", nil, "the stream ended before JoinChallenge"},
		{"joiner", challenge, "the answer to the join did not arrive; join again with the same ticket"},
		{"joiner", append(challenge[:len(challenge):len(challenge)], 99), "the answer to the join did not arrive; join again with the same ticket"},
	} {
		err := joinSides(t)[c.side](&script{Reader: bytes.NewReader(c.in)})
		if !errors.Is(err, ErrTruncated) || !bytes.Contains([]byte(err.Error()), []byte(c.want)) {
			t.Errorf("%s after %x: got %v, want %q", c.side, c.in, err, c.want)
		}
	}
}

// script is a stream of which what comes is fixed and what is said goes nowhere.
type script struct {
	io.Reader
	Stream
}

func (s *script) Read(b []byte) (int, error)  { return s.Reader.Read(b) }
func (s *script) Write(b []byte) (int, error) { return len(b), nil }
func (s *script) Close() error                { return nil }
func (s *script) SetDeadline(time.Time) error { return nil }

// A peer that stalls, at any point, costs a bounded time.
func TestJoinTimesOut(t *testing.T) {
	begin, challenge := frameOf(t, &JoinBegin{}), frameOf(t, &JoinChallenge{})
	drip := func(c net.Conn, in []byte) { // one byte a second, in virtual time
		for _, b := range in {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}
	slow := frameOf(t, &JoinRequest{Signature: make([]byte, 64)})
	accept := frameOf(t, &JoinAccept{Chain: bytes.Repeat([]byte{1}, 99)})
	for _, c := range []struct {
		name, side string
		peer       func(net.Conn)
		limit      time.Duration
	}{
		{"says nothing", "responder", func(c net.Conn) { drain(c) }, DefaultHelloTimeout},
		{"reads nothing", "responder", func(c net.Conn) { feed(c, begin) }, DefaultHelloTimeout},
		{"begins slowly", "responder", func(c net.Conn) { go drain(c); drip(c, slow) }, DefaultHelloTimeout},
		{"begins and says no more", "responder", func(c net.Conn) { feed(c, begin); drain(c) }, DefaultHelloTimeout},
		{"asks slowly", "responder", func(c net.Conn) { feed(c, begin); go drain(c); drip(c, slow) }, DefaultHelloTimeout},
		{"reads nothing", "joiner", func(net.Conn) {}, DefaultHelloTimeout},
		{"says nothing", "joiner", func(c net.Conn) { drain(c) }, DefaultHelloTimeout},
		{"challenges and reads nothing", "joiner", func(c net.Conn) { feed(c, challenge) }, DefaultHelloTimeout},
		{"does not decide", "joiner", func(c net.Conn) { go drain(c); feed(c, challenge) }, DefaultJoinWait},
		{"accepts slowly", "joiner", func(c net.Conn) { go drain(c); feed(c, challenge); drip(c, accept) }, DefaultJoinWait},
	} {
		t.Run(c.side+" whose peer "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				ended := make(chan struct{})
				go func() { defer close(ended); c.peer(theirs) }()
				began := time.Now()
				err := joinSides(t)[c.side](ours)
				if !errors.Is(err, ErrHelloTimeout) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took < c.limit || took > c.limit+ByeTimeout {
					t.Errorf("took %v, not %v", took, c.limit)
				}
				ours.Close()
				theirs.Close()
				<-ended
			})
		})
	}
}

// A peer that stalls hears why the stream ends.
func TestJoinSaysThatItTimedOut(t *testing.T) {
	for side, in := range map[string]any{"responder": &JoinBegin{}, "joiner": &JoinChallenge{}} {
		t.Run(side, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				go feed(theirs, frameOf(t, in))
				go func() { _ = joinSides(t)[side](ours) }() // TestJoinTimesOut looks at its error
				if code := lastBye(t, theirs); code != replication.CodeHelloTimeout {
					t.Errorf("heard %v", code)
				}
				theirs.Close()
			})
		})
	}
}

// A decision has its own time: the responder's disk may be slow, and its peer
// need not have begun at once.
func TestJoinWaitsForTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		joiner, responder := joinPair(t)
		decide := responder.Decide
		responder.Decide = func(d JoinDemand) (JoinGrant, error) {
			time.Sleep(DefaultJoinWait - time.Second) // virtual
			return decide(d)
		}
		a, b := net.Pipe()
		res, asked, answered := joinOver(late{a}, b, joiner, responder)
		if asked != nil || answered != nil || res == nil {
			t.Errorf("joiner %v, responder %v", asked, answered)
		}
	})
}

// A joiner that does not take its certificate holds the responder no longer than
// one that says nothing.
func TestJoinAcceptTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		joiner, responder := joinPair(t)
		a, b := net.Pipe()
		var decided time.Time
		decide := responder.Decide
		responder.Decide = func(d JoinDemand) (JoinGrant, error) {
			time.Sleep(DefaultHelloTimeout + time.Second) // virtual
			decided = time.Now()
			return decide(d)
		}
		go func() { // a joiner that stops reading once it has asked
			r := NewReader(a, nil)
			feed(a, frameOf(t, &JoinBegin{}))
			r.expect = []MessageType{TypeJoinChallenge}
			f, err := r.Next()
			if err != nil {
				return
			}
			m, _ := Decode(f)
			feed(a, frameOf(t, &JoinRequest{
				Network: joiner.Network, Invite: joiner.Invite, Signature: joiner.Sign(m.(*JoinChallenge).Nonce),
			}))
		}()
		err := AnswerJoin(b, responder)
		if !errors.Is(err, ErrHelloTimeout) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(decided); took < DefaultHelloTimeout || took > DefaultHelloTimeout+ByeTimeout {
			t.Errorf("took %v", took)
		}
		a.Close()
	})
}
