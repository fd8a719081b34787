package protocols

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/replication"
)

// testPeer is an identity made of a seed.
func testPeer(t testing.TB, seed byte) peer.ID {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	pub, err := crypto.UnmarshalEd25519PublicKey(key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

var testNetwork = replication.OpenNetwork("test")

// helloPair is the configurations of two nodes that accept each other.
func helloPair(t testing.TB) (dialer, responder HelloConfig) {
	a, b := testPeer(t, 1), testPeer(t, 2)
	spaces := func() []replication.SpaceInfo {
		return []replication.SpaceInfo{{ID: replication.SpaceOf(testNetwork, "default"), Name: "default"}}
	}
	dialer = HelloConfig{
		Network: testNetwork, Self: a, Peer: b, Instance: replication.Instance{1}, Boot: BootNonce{2}, Attempt: 3,
		Label: "A", Spaces: spaces(), Agent: "vix-node/a", Features: []string{FeaturePullOnly},
		Certificate: []byte("certificate of A"),
	}
	responder = HelloConfig{
		Network: testNetwork, Self: b, Peer: a, Instance: replication.Instance{4}, Boot: BootNonce{5}, Attempt: 9,
		Label: "B", Spaces: spaces(), Agent: "vix-node/b",
		Certificate: []byte("certificate of B"),
	}
	return dialer, responder
}

type helloResult struct {
	sess *Session
	err  error
}

// shake runs a handshake over a pipe.
func shake(dialer, responder HelloConfig) (d, r helloResult) {
	a, b := net.Pipe()
	done := make(chan helloResult, 1)
	go func() {
		sess, err := Respond(b, responder)
		done <- helloResult{sess, err}
	}()
	d.sess, d.err = Initiate(a, dialer)
	return d, <-done
}

func TestHelloTellsBothSidesTheSame(t *testing.T) {
	dialer, responder := helloPair(t)
	var seen []PeerHello
	responder.Verdict = func(p PeerHello) error { seen = append(seen, p); return nil }
	d, r := shake(dialer, responder)
	if d.err != nil || r.err != nil {
		t.Fatalf("dialer %v, responder %v", d.err, r.err)
	}
	if d.sess.ID != r.sess.ID || d.sess.ID.IsZero() {
		t.Errorf("session ids %s and %s", d.sess.ID, r.sess.ID)
	}
	if d.sess.Meta != r.sess.Meta {
		t.Errorf("the dialer knows %+v, the responder %+v", d.sess.Meta, r.sess.Meta)
	}
	want := SessionMeta{Initiator: dialer.Self, Responder: responder.Self, InitiatorBoot: dialer.Boot, ResponderBoot: responder.Boot, Attempt: 3}
	if d.sess.Meta != want {
		t.Errorf("meta %+v, want %+v", d.sess.Meta, want)
	}
	for _, c := range []struct {
		got  PeerInfo
		want HelloConfig
	}{{d.sess.Peer, responder}, {r.sess.Peer, dialer}} {
		p, w := c.got, c.want
		key, err := OriginOf(w.Self)
		if err != nil {
			t.Fatal(err)
		}
		if p.ID != w.Self || p.Key != key || p.Instance != w.Instance || p.Boot != w.Boot || p.Label != w.Label ||
			p.Agent != w.Agent || !bytes.Equal(p.Certificate, w.Certificate) || p.Major != VersionMajor ||
			p.Minor != VersionMinor || p.BlockFormat != replication.FormatVersion ||
			len(p.Spaces) != 1 || p.Spaces[0] != w.Spaces[0] || len(p.Features) != len(w.Features) {
			t.Errorf("got %+v of %+v", p, w)
		}
	}
	if !r.sess.Peer.Has(FeaturePullOnly) || d.sess.Peer.Has(FeaturePullOnly) {
		t.Error("the dialer's feature did not arrive, or the responder got it too")
	}
	if len(seen) != 1 || seen[0].Label != "A" || seen[0].Meta != want {
		t.Errorf("the responder's verdict saw %+v", seen)
	}
}

// A second handshake of the same two nodes is another session.
func TestHelloSessionIDIsFresh(t *testing.T) {
	dialer, responder := helloPair(t)
	one, _ := shake(dialer, responder)
	two, _ := shake(dialer, responder)
	if one.err != nil || two.err != nil || one.sess.ID == two.sess.ID {
		t.Errorf("%v, %v, or the same session id twice", one.err, two.err)
	}
}

func TestHelloRefusals(t *testing.T) {
	refuse := func(code replication.Code) func(PeerHello) error {
		return func(PeerHello) error { return Refuse(code, "because") }
	}
	for _, c := range []struct {
		name   string
		change func(dialer, responder *HelloConfig)
		want   error
		byDial bool // it is the dialer that refuses
	}{
		{"other network", func(d, _ *HelloConfig) { d.Network = replication.OpenNetwork("else") }, ErrOtherNetwork, false},
		{"no certificate", func(_, r *HelloConfig) { r.Verdict = refuse(replication.CodeNoCertificate) }, ErrNoCertificate, false},
		{"expired", func(_, r *HelloConfig) { r.Verdict = refuse(replication.CodeCertExpired) }, ErrCertExpired, false},
		{"revoked", func(d, _ *HelloConfig) { d.Verdict = refuse(replication.CodeCertRevoked) }, ErrCertRevoked, true},
		{"duplicate", func(_, r *HelloConfig) { r.Verdict = refuse(replication.CodeDuplicate) }, ErrDuplicate, false},
		{"busy", func(_, r *HelloConfig) { r.Verdict = refuse(replication.CodeBusy) }, ErrBusy, false},
		{"another error", func(_, r *HelloConfig) {
			r.Verdict = func(PeerHello) error { return errors.New("a bug") }
		}, ErrInternal, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dialer, responder := helloPair(t)
			c.change(&dialer, &responder)
			if c.byDial {
				refusedBySecond(t, responder, dialer, c.want)
				return
			}
			d, r := shake(dialer, responder)
			checkRefused(t, r.err, d.err, c.want)
		})
	}
}

// refusedBySecond: the dialer refuses after Welcome, so that the responder
// hears it as the first message of its session.
func refusedBySecond(t *testing.T, responder, dialer HelloConfig, want error) {
	a, b := net.Pipe()
	heard := make(chan error, 1)
	go func() {
		sess, err := Respond(b, responder)
		if err != nil {
			heard <- err
			return
		}
		m, release, err := NewConn(sess).Read()
		release()
		if bye, ok := m.(*replication.Bye); ok {
			err = ErrorOf(bye.Code, bye.Detail)
		}
		heard <- err
	}()
	_, err := Initiate(a, dialer)
	checkRefused(t, err, <-heard, want)
}

// checkRefused: both sides know why, and who said so.
func checkRefused(t *testing.T, refuser, refused, want error) {
	t.Helper()
	var own, told *CodeError
	if !errors.As(refuser, &own) || own.FromPeer || !errors.Is(refuser, want) {
		t.Errorf("the side that refuses got %v, want %v", refuser, want)
	}
	if !errors.As(refused, &told) || !told.FromPeer || !errors.Is(refused, want) {
		t.Errorf("the side that is refused got %v, want %v", refused, want)
	}
}

// A space whose id does not follow from its name would make two nodes mean
// different spaces by one name.
func TestHelloRefusesAForgedSpace(t *testing.T) {
	dialer, responder := helloPair(t)
	dialer.Spaces[0].ID[0]++
	d, r := shake(dialer, responder)
	if !errors.Is(r.err, ErrMessage) || !errors.Is(d.err, ErrProtocol) {
		t.Errorf("responder %v, dialer %v", r.err, d.err)
	}
}

// Design 7.2 and G7: before both tags matched nothing that members know is said.
func TestHelloShowsNothingToStrangers(t *testing.T) {
	dialer, responder := helloPair(t)
	responder.Network = replication.OpenNetwork("else")
	a, b := net.Pipe()
	said := &tap{Conn: a}
	done := make(chan error, 1)
	go func() { _, err := Respond(b, responder); done <- err }()
	_, err := Initiate(said, dialer)
	if !errors.Is(err, ErrOtherNetwork) || !errors.Is(<-done, ErrOtherNetwork) {
		t.Fatalf("not refused: %v", err)
	}
	all := append(said.in, said.out...)
	for _, secret := range [][]byte{
		dialer.Certificate, []byte(dialer.Agent), dialer.Network[:], dialer.Spaces[0].ID[:], []byte("default"),
		responder.Certificate, []byte(responder.Agent), responder.Network[:],
	} {
		if bytes.Contains(all, secret) {
			t.Errorf("%q was sent to a stranger", secret)
		}
	}
}

// tap keeps what goes over a connection.
type tap struct {
	net.Conn
	in, out []byte
}

func (c *tap) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.in = append(c.in, b[:n]...)
	return n, err
}

func (c *tap) Write(b []byte) (int, error) {
	c.out = append(c.out, b...)
	return c.Conn.Write(b)
}

// The tag is bound to the peer IDs that the channel proved: what a man in the
// middle forwards does not verify, although all three know the network.
func TestHelloTagIsBoundToTheChannel(t *testing.T) {
	dialer, responder := helloPair(t)
	responder.Peer = testPeer(t, 3) // the channel at the responder ends at somebody else
	d, r := shake(dialer, responder)
	checkRefused(t, r.err, d.err, ErrOtherNetwork)
}

// A responder that sends the dialer's own tag back proves nothing.
func TestHelloRefusesAReflectedTag(t *testing.T) {
	dialer, _ := helloPair(t)
	a, b := net.Pipe()
	go func() {
		r, w := NewReader(b, nil), NewWriter(b)
		r.expect = []MessageType{TypeHello}
		f, err := r.Next()
		if err != nil {
			return
		}
		m, _ := Decode(f)
		hello := m.(*Hello)
		ack, _ := Encode(&HelloAck{Nonce: hello.Nonce, NetTag: hello.NetTag, BlockFormat: 1})
		_ = w.WriteFrame(ack)
		_ = w.Flush()
		drain(b) // the Bye
	}()
	if _, err := Initiate(a, dialer); !errors.Is(err, ErrOtherNetwork) {
		t.Errorf("got %v", err)
	}
}

func TestHelloRefusesItselfAndOtherKeys(t *testing.T) {
	dialer, _ := helloPair(t)
	dialer.Peer = dialer.Self
	other, _ := helloPair(t)
	other.Peer = peer.ID("no key in it")
	for _, cfg := range []HelloConfig{dialer, other} {
		a, b := net.Pipe()
		go drain(b)
		if _, err := Initiate(a, cfg); !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v", err)
		}
	}
}

// Skew is measured against the middle of a round trip, so that a slow path of
// equal delay both ways does not show in it.
func TestHelloMeasuresSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialer, responder := helloPair(t)
		responder.Now = func() time.Time { return time.Now().Add(90 * time.Second) }
		a, b := net.Pipe()
		done := make(chan helloResult, 1)
		go func() {
			sess, err := Respond(late{b}, responder)
			done <- helloResult{sess, err}
		}()
		d, err := Initiate(late{a}, dialer)
		r := <-done
		if err != nil || r.err != nil {
			t.Fatal(err, r.err)
		}
		if d.Peer.Skew != 90*time.Second || r.sess.Peer.Skew != -90*time.Second {
			t.Errorf("skew %v and %v", d.Peer.Skew, r.sess.Peer.Skew)
		}
		if d.Peer.RTT != 2*oneWay || r.sess.Peer.RTT != 2*oneWay {
			t.Errorf("round trip %v and %v", d.Peer.RTT, r.sess.Peer.RTT)
		}
	})
}

const oneWay = 200 * time.Millisecond

// late delivers each write after a while, in virtual time.
type late struct{ net.Conn }

func (c late) Write(b []byte) (int, error) {
	time.Sleep(oneWay)
	return c.Conn.Write(b)
}

// A clock of any value is never a reason to refuse (design 7.2).
func TestHelloBearsAnyClock(t *testing.T) {
	dialer, responder := helloPair(t)
	dialer.Now = func() time.Time { return time.UnixMilli(1 << 62) }
	responder.Now = func() time.Time { return time.Unix(-1<<40, 0) }
	if d, r := shake(dialer, responder); d.err != nil || r.err != nil {
		t.Error(d.err, r.err)
	}
}

func TestHelloTimesOut(t *testing.T) {
	stall := map[string]func(net.Conn){
		"silence": func(c net.Conn) {},
		"one byte a second": func(c net.Conn) {
			for _, b := range []byte{200, 1, 190, 1, 8, 1, 24, 1, 32, 1} {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second) // virtual
			}
		},
	}
	for name, peer := range stall {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, responder := helloPair(t)
				a, b := net.Pipe()
				go peer(a)
				began := time.Now()
				_, err := Respond(b, responder)
				if !errors.Is(err, ErrHelloTimeout) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took < DefaultHelloTimeout || took > DefaultHelloTimeout+ByeTimeout {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// Garbage, another protocol and another major version end the handshake with
// one clear error, and the other side hears why where it can.
func TestHelloHostileBytes(t *testing.T) {
	frame := func(f Frame) []byte {
		env, err := encodeEnvelope(&f)
		if err != nil {
			t.Fatal(err)
		}
		return append(appendFrameHead(nil, env, len(f.Attachment)), f.Attachment...)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want error
		code replication.Code // of the Bye that is heard
	}{
		{"http", []byte("GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: a-browser-with-a-long-name/1.0\r\n\r\n"), ErrEnvelope, replication.CodeProtocol},
		{"announces 4 GiB", []byte{0x80, 0x80, 0x80, 0x80, 0x10, 0x0a}, ErrOversize, replication.CodeProtocol},
		{"announces 2^64-1", append(bytes.Repeat([]byte{0xff}, 9), 1), ErrOversize, replication.CodeProtocol},
		{"other major", frame(Frame{Major: 2, Type: TypeHello}), ErrOtherMajor, replication.CodeOtherMajor},
		{"a push first", frame(Frame{Major: 1, Type: TypeWalPush}), ErrUnexpected, replication.CodeProtocol},
		{"an unknown type of a newer version", frame(Frame{Major: 1, Minor: 7, Type: 99}), ErrUnknownType, replication.CodeProtocol},
		{"an attachment", frame(Frame{Major: 1, Type: TypeHello, Attachment: []byte("x")}), ErrTrailing, replication.CodeProtocol},
		{"an empty hello", frame(Frame{Major: 1, Type: TypeHello}), ErrMessage, replication.CodeProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, responder := helloPair(t)
			a, b := net.Pipe()
			result := make(chan error, 1)
			go func() { _, err := Respond(b, responder); result <- err }()
			go feed(a, c.in) // it may not take all of it
			r := NewReader(a, nil)
			f, err := r.Next()
			if err != nil {
				t.Fatalf("no Bye: %v", err)
			}
			if m, err := Decode(f); err != nil || m.(*replication.Bye).Code != c.code {
				t.Errorf("heard %v, %v", m, err)
			}
			if err := <-result; !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
