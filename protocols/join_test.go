package protocols

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"vixp2p/replication"
)

// testRoot is the root key of testClosed, testInvite the key of a ticket.
var (
	testRoot   = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	testInvite = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	testClosed = replication.NetworkOfRoot(publicOf(testRoot))
)

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// joinProof is what the invite's key signs, as docs/wire.md says.
func joinProof(joiner, responder replication.OriginKey, nonce [32]byte) []byte {
	invite := publicOf(testInvite)
	h := replication.HashParts("vix/join/1", testClosed[:], invite, joiner[:], responder[:], nonce[:])
	return h[:]
}

// joinPair is a joiner with a ticket and a responder that knows its invite.
func joinPair(t testing.TB) (joiner JoinConfig, responder AnswerConfig) {
	t.Helper()
	a, b := testPeer(t, 1), testPeer(t, 2)
	aKey, errA := OriginOf(a)
	bKey, errB := OriginOf(b)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	joiner = JoinConfig{
		Peer: b, Issuer: bKey, Network: testClosed, Invite: [32]byte(publicOf(testInvite)), Label: "A",
		Sign: func(nonce [32]byte) []byte { return ed25519.Sign(testInvite, joinProof(aKey, bKey, nonce)) },
	}
	responder = AnswerConfig{
		Peer: a, Network: testClosed,
		Decide: func(d JoinDemand) (JoinGrant, error) {
			if !ed25519.Verify(d.Invite[:], joinProof(d.Key, bKey, d.Nonce), d.Signature) {
				return JoinGrant{}, Refuse(replication.CodeInviteUnknown, "")
			}
			return testGrant(), nil
		},
	}
	return joiner, responder
}

func testGrant() JoinGrant {
	return JoinGrant{Chain: []byte("chain of A"), Root: [32]byte(publicOf(testRoot)), NetworkName: "home"}
}

// join runs a join over a pipe, and returns once both sides have ended.
func join(joiner JoinConfig, responder AnswerConfig) (res *JoinResult, asked, answered error) {
	a, b := net.Pipe()
	return joinOver(a, b, joiner, responder)
}

func joinOver(a, b net.Conn, joiner JoinConfig, responder AnswerConfig) (res *JoinResult, asked, answered error) {
	done := make(chan error, 1)
	go func() { done <- AnswerJoin(b, responder) }()
	res, asked = RequestJoin(a, joiner)
	return res, asked, <-done
}

func TestJoinGivesWhatWasGranted(t *testing.T) {
	for name, x25519 := range map[string][32]byte{"own key": {}, "another key": {1, 2, 3}} {
		t.Run(name, func(t *testing.T) {
			joiner, responder := joinPair(t)
			joiner.X25519 = x25519
			nonce := [32]byte(bytes.Repeat([]byte{5}, 32))
			responder.Rand = bytes.NewReader(nonce[:])
			var seen []JoinDemand
			decide := responder.Decide
			responder.Decide = func(d JoinDemand) (JoinGrant, error) {
				seen = append(seen, d)
				return decide(d)
			}
			a, b := net.Pipe()
			res, asked, answered := joinOver(a, b, joiner, responder)
			if asked != nil || answered != nil {
				t.Fatalf("joiner %v, responder %v", asked, answered)
			}
			grant := testGrant()
			if want := (&JoinResult{Chain: grant.Chain, Root: grant.Root, NetworkName: "home"}); !reflect.DeepEqual(res, want) {
				t.Errorf("joined with %+v, want %+v", res, want)
			}
			key, _ := OriginOf(responder.Peer)
			want := JoinDemand{
				Peer: responder.Peer, Key: key, Network: testClosed, Invite: joiner.Invite, Label: "A", X25519: x25519,
				Signature: joiner.Sign(nonce), Nonce: nonce,
			}
			if len(seen) != 1 || !reflect.DeepEqual(seen[0], want) {
				t.Errorf("decided on %+v, want %+v", seen, want)
			}
			for side, c := range map[string]net.Conn{"joiner": a, "responder": b} {
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("the %s has not closed the stream: %v", side, err)
				}
			}
		})
	}
}

// Texts for people are cut, never a reason to fail once the invite is redeemed;
// the longest of everything gets through.
func TestJoinCarriesTheLongest(t *testing.T) {
	joiner, responder := joinPair(t)
	joiner.Label = strings.Repeat("l", MaxLabelBytes+1)
	decide := responder.Decide
	responder.Decide = func(d JoinDemand) (JoinGrant, error) {
		if d.Label != joiner.Label[:MaxLabelBytes] {
			t.Errorf("label %q", d.Label)
		}
		g, err := decide(d)
		g.Chain, g.NetworkName = bytes.Repeat([]byte{0xff}, MaxCertificate), "\xff"+strings.Repeat("n", MaxNetworkNameBytes)
		return g, err
	}
	res, asked, answered := join(joiner, responder)
	if asked != nil || answered != nil {
		t.Fatal(asked, answered)
	}
	if len(res.Chain) != MaxCertificate || res.NetworkName != "\uFFFD"+strings.Repeat("n", MaxNetworkNameBytes-3) {
		t.Errorf("a chain of %d bytes and the name %q", len(res.Chain), res.NetworkName)
	}
}

// codedError is an error of another package that knows its code.
type codedError struct{ code replication.Code }

func (e codedError) Error() string                 { return "used by somebody" }
func (e codedError) RefusalCode() replication.Code { return e.code }

func TestJoinRefusals(t *testing.T) {
	local := errors.New("open /secret/place: no such file")
	for _, c := range []struct {
		name   string
		err    error
		code   replication.Code // that the joiner hears
		detail string
	}{
		{"unknown", Refuse(replication.CodeInviteUnknown, "the key is right, the signature wrong"), replication.CodeInviteUnknown, ""},
		{"used", Refuse(replication.CodeInviteUsed, "by 12D3KooW..."), replication.CodeInviteUsed, "by 12D3KooW..."},
		{"expired", Refuse(replication.CodeInviteExpired, "yesterday"), replication.CodeInviteExpired, "yesterday"},
		{"revoked", Refuse(replication.CodeInviteRevoked, ""), replication.CodeInviteRevoked, ""},
		{"busy", Refuse(replication.CodeBusy, ""), replication.CodeBusy, ""},
		{"wrapped", fmt.Errorf("%w: %w", local, Refuse(replication.CodeInviteUsed, "by X")), replication.CodeInviteUsed, "by X"},
		{"of another package", codedError{replication.CodeInviteUsed}, replication.CodeInviteUsed, "used by somebody"},
		{"without a code", local, replication.CodeInternal, ""},
		{"with a code that says OK", Refuse(replication.CodeOK, "x"), replication.CodeInternal, ""},
		{"that concerns a log", Refuse(replication.CodeNoSpace, "/secret/place"), replication.CodeInternal, ""},
		{"stopping", fmt.Errorf("%w: %w", local, replication.ErrClosed), replication.CodeShutdown, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			joiner, responder := joinPair(t)
			responder.Decide = func(JoinDemand) (JoinGrant, error) { return testGrant(), c.err }
			res, asked, answered := join(joiner, responder)
			if res != nil || !errors.Is(answered, c.err) {
				t.Errorf("joined with %+v; the responder returned %v, not what was decided", res, answered)
			}
			want := &CodeError{Code: c.code, Detail: c.detail, FromPeer: true}
			var told *CodeError
			if !errors.As(asked, &told) || *told != *want {
				t.Errorf("the joiner heard %+v, want %+v", asked, want)
			}
		})
	}
}

// Whoever is refused reads what to do.
func TestJoinRefusalsReadAsSentences(t *testing.T) {
	for code, want := range map[replication.Code]string{
		replication.CodeInviteUnknown: "the peer says: invite unknown: the node that was asked knows no such invite; ask an admin of the network for a new ticket",
		replication.CodeInviteUsed:    "the peer says: invite used: a ticket admits one node, and another one has joined with this; ask an admin of the network for a new ticket",
		replication.CodeInviteExpired: "the peer says: invite expired: ask an admin of the network for a new ticket",
		replication.CodeInviteRevoked: "the peer says: invite revoked: an admin has withdrawn it; ask an admin of the network for a new ticket",
	} {
		if got := ErrorOf(code, "").Error(); got != want {
			t.Errorf("%d reads %q, want %q", code, got, want)
		}
	}
}

// A proof holds for the identities at the two ends of one channel, in one
// exchange: what somebody else presents is not by the invite's key for him.
func TestJoinProofIsBoundToTheChannel(t *testing.T) {
	joiner, responder := joinPair(t)
	responder.Peer = testPeer(t, 3) // the channel at the responder ends at somebody else
	_, asked, answered := join(joiner, responder)
	checkRefused(t, answered, asked, ErrInviteUnknown)

	joiner, responder = joinPair(t)
	replayed := joiner.Sign([32]byte{1})
	joiner.Sign = func([32]byte) []byte { return replayed }
	_, asked, answered = join(joiner, responder)
	checkRefused(t, answered, asked, ErrInviteUnknown)
}

func TestJoinOfAnotherNetwork(t *testing.T) {
	joiner, responder := joinPair(t)
	joiner.Network[0]++
	responder.Decide = func(JoinDemand) (JoinGrant, error) {
		t.Error("asked about another network")
		return testGrant(), nil
	}
	_, asked, answered := join(joiner, responder)
	checkRefused(t, answered, asked, ErrOtherNetwork)
}

// The ticket names who made the invite: nobody else sees a byte of it.
func TestJoinShowsNothingToAnotherNode(t *testing.T) {
	joiner, _ := joinPair(t)
	joiner.Peer = testPeer(t, 3)
	a, _ := net.Pipe() // where nobody reads
	said := &tap{Conn: a}
	if _, err := RequestJoin(said, joiner); err == nil || !strings.Contains(err.Error(), "is not the node that made the invite") {
		t.Errorf("got %v", err)
	}
	if len(said.out) != 0 {
		t.Errorf("said %x", said.out)
	}
}

// A grant that the joiner would refuse is the responder's fault, and both hear so.
func TestJoinRefusesABadGrant(t *testing.T) {
	for name, change := range map[string]func(*JoinGrant){
		"no chain":             func(g *JoinGrant) { g.Chain = nil },
		"a long chain":         func(g *JoinGrant) { g.Chain = make([]byte, MaxCertificate+1) },
		"the root of another":  func(g *JoinGrant) { g.Root[0]++ },
		"no root, but a chain": func(g *JoinGrant) { g.Root = [32]byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			joiner, responder := joinPair(t)
			responder.Decide = func(JoinDemand) (JoinGrant, error) {
				g := testGrant()
				change(&g)
				return g, nil
			}
			_, asked, answered := join(joiner, responder)
			if !errors.Is(asked, ErrInternal) || answered == nil || errors.Is(answered, ErrProtocol) {
				t.Errorf("the joiner heard %v, the responder says %v", asked, answered)
			}
		})
	}
}

// The network of a ticket is one root key's: a responder cannot put the joiner
// under another.
func TestJoinRefusesAnotherRoot(t *testing.T) {
	joiner, _ := joinPair(t)
	other := publicOf(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize)))
	a, b := net.Pipe()
	go feed(b, append(frameOf(t, &JoinChallenge{}), frameOf(t, &JoinAccept{Chain: []byte{1}, Root: [32]byte(other)})...))
	go drain(b)
	res, err := RequestJoin(a, joiner)
	if res != nil || !errors.Is(err, ErrMessage) || !strings.Contains(err.Error(), "root key") {
		t.Errorf("got %+v, %v", res, err)
	}
}

// frameOf is a message as one frame.
func frameOf(t testing.TB, m any) []byte {
	t.Helper()
	f, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return wire(t, *f)
}

// G7: what a responder says before it has decided, byte by byte.
func TestJoinShowsANonceOnly(t *testing.T) {
	nonce := bytes.Repeat([]byte{0xab}, 32)
	challenge := "2b" + "2a" + // lengths of the frame and of its envelope
		"0801" + "1821" + "2001" + // version major 1, type 33, message id 1
		"3a22" + "0a20" + hex.EncodeToString(nonce) // message: field 1, the nonce
	bye := func(code string) string { // the second frame, a Bye with that code and without a text
		return "09" + "08" + "0801" + "1807" + "2002" + "30" + code
	}
	for _, c := range []struct {
		name   string
		change func(*JoinConfig, *AnswerConfig)
		want   string
	}{
		{"until it decides", func(*JoinConfig, *AnswerConfig) {}, challenge},
		{"to a ticket of another network", func(j *JoinConfig, _ *AnswerConfig) { j.Network[0]++ }, challenge + bye("01")},
		{"to an unknown invite", func(j *JoinConfig, _ *AnswerConfig) { j.Invite[0]++ }, challenge + bye("10")},
		{"to a stranger who knows the invite's public key", func(j *JoinConfig, _ *AnswerConfig) {
			j.Sign = func([32]byte) []byte { return make([]byte, ed25519.SignatureSize) }
		}, challenge + bye("10")},
	} {
		t.Run(c.name, func(t *testing.T) {
			joiner, responder := joinPair(t)
			responder.Rand = bytes.NewReader(nonce)
			c.change(&joiner, &responder)
			a, b := net.Pipe()
			said := &tap{Conn: b}
			var before []byte
			decide := responder.Decide
			responder.Decide = func(d JoinDemand) (JoinGrant, error) {
				before = append([]byte(nil), said.out...)
				return decide(d)
			}
			_, asked, _ := joinOver(a, said, joiner, responder)
			got := said.out
			if asked == nil {
				got = before
			}
			if hex.EncodeToString(got) != c.want {
				t.Errorf("said %x, want %s", got, c.want)
			}
		})
	}
}

// Over real streams JoinAccept and a refusal arrive, although the responder
// closes the stream right after them.
func TestJoinOverLibp2p(t *testing.T) {
	overTransports(t, func(t *testing.T, a, b host.Host) {
		want := map[string]error{"A": nil, "late": ErrInviteExpired}
		server := NewService(b, discard())
		defer server.Close()
		server.Handle(JoinProtocol, func(st network.Stream) error {
			return AnswerJoin(st, AnswerConfig{
				Peer: st.Conn().RemotePeer(), Network: testClosed,
				Decide: func(d JoinDemand) (JoinGrant, error) { return testGrant(), want[d.Label] },
			})
		})
		client := NewService(a, discard())
		defer client.Close()
		for label, want := range want {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			st, release, err := client.Open(ctx, b.ID(), JoinProtocol)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			joiner, _ := joinPair(t)
			joiner.Peer, joiner.Label = b.ID(), label
			joiner.Issuer, _ = OriginOf(b.ID())
			res, err := RequestJoin(st, joiner)
			release()
			if !errors.Is(err, want) || (res == nil) != (want != nil) {
				t.Errorf("%s: got %+v, %v, want %v", label, res, err, want)
			}
		}
	})
}
