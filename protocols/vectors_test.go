package protocols

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	p2pv1 "vixp2p/proto/vix/p2p/v1"
	"vixp2p/replication"
)

// The golden vectors pin every byte on the wire: testdata/vectors/NAME.json. To
// write them anew after a change that is meant to change the wire:
//
//	go test ./protocols -run Vectors -update
var update = flag.Bool("update", false, "write the golden vectors anew")

// vector is one message in one frame. Binary is lower-case hex; 64-bit numbers
// are strings; fields with their default value are left out.
type vector struct {
	Type       string         `json:"type"`
	Number     uint32         `json:"type_number"`
	Fields     map[string]any `json:"fields"`
	Message    string         `json:"message"`
	Envelope   map[string]any `json:"envelope"`
	Attachment string         `json:"attachment,omitempty"`
	Frame      string         `json:"frame"`
}

func vectorOf(t *testing.T, m any) vector {
	t.Helper()
	f, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	var frame bytes.Buffer
	w := NewWriter(&frame)
	w.id = 41 // the frame is the 42nd
	if err := w.WriteFrame(f); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	var e p2pv1.Envelope
	if err := proto.Unmarshal(f.envelope, &e); err != nil {
		t.Fatal(err)
	}
	envelope := fieldsOf(e.ProtoReflect())
	delete(envelope, "message") // it is in the vector already
	return vector{
		Type: f.Type.String(), Number: uint32(f.Type),
		Fields: fieldsOf(toWire(&Frame{}, m).ProtoReflect()), Message: hex.EncodeToString(f.Message),
		Envelope: envelope, Attachment: hex.EncodeToString(f.Attachment),
		Frame: hex.EncodeToString(frame.Bytes()),
	}
}

// fieldsOf is a wire message as plain JSON values.
func fieldsOf(m protoreflect.Message) map[string]any {
	out := map[string]any{}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.IsList() {
			var list []any
			for i := range v.List().Len() {
				list = append(list, fieldValue(fd, v.List().Get(i)))
			}
			out[string(fd.Name())] = list
			return true
		}
		out[string(fd.Name())] = fieldValue(fd, v)
		return true
	})
	return out
}

func fieldValue(fd protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return fieldsOf(v.Message())
	case protoreflect.BytesKind:
		return hex.EncodeToString(v.Bytes())
	case protoreflect.Uint64Kind:
		return strconv.FormatUint(v.Uint(), 10)
	case protoreflect.EnumKind:
		return float64(v.Enum())
	case protoreflect.Uint32Kind:
		return float64(v.Uint())
	}
	return v.Interface()
}

// golden compares v with testdata/vectors/name.json, or writes it.
func golden[V any](t *testing.T, name string, v V) {
	t.Helper()
	path := filepath.Join("testdata", "vectors", name+".json")
	if *update {
		raw, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(raw, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: write it with -update", err)
	}
	var want V
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if !reflect.DeepEqual(v, want) {
		t.Errorf("%s differs from what the code makes: the bytes on the wire have changed\ngot  %+v\nwant %+v", path, v, want)
	}
}

func TestVectorsOfMessages(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			v := vectorOf(t, s.msg)
			golden(t, s.name, v)
			checkVector(t, v, s.msg)
		})
	}
}

// checkVector: the frame alone gives the message back.
func checkVector(t *testing.T, v vector, want any) {
	t.Helper()
	raw, err := hex.DecodeString(v.Frame)
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(bytes.NewReader(raw), nil)
	if l, _ := limitOf(MessageType(v.Number)); l.Session == 0 {
		r.expect = []MessageType{l.Type}
	}
	f, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(f)
	if err != nil || !reflect.DeepEqual(got, want) || f.ID != 42 {
		t.Errorf("the vector reads as %+v, %v", got, err)
	}
}

// handshakeVector is one whole handshake.
type handshakeVector struct {
	NetworkName     string `json:"network_name"`
	NetworkID       string `json:"network_id"`
	DialerPeerID    string `json:"dialer_peer_id"`
	DialerPeerIDHex string `json:"dialer_peer_id_hex"`
	DialerSeed      string `json:"dialer_key_seed"`
	ResponderPeerID string `json:"responder_peer_id"`
	ResponderIDHex  string `json:"responder_peer_id_hex"`
	ResponderSeed   string `json:"responder_key_seed"`
	DialerNonce     string `json:"dialer_nonce"`
	DialerNetTag    string `json:"dialer_net_tag"`
	ResponderNonce  string `json:"responder_nonce"`
	ResponderNetTag string `json:"responder_net_tag"`
	FromDialer      string `json:"from_dialer"`    // the frames Hello and HelloFinish
	FromResponder   string `json:"from_responder"` // the frames HelloAck and Welcome
	SessionID       string `json:"session_id"`
}

func TestVectorsOfHandshake(t *testing.T) {
	dialer, responder := helloPair(t)
	at := func(ms int64) func() time.Time { return func() time.Time { return time.UnixMilli(ms) } }
	dialer.Now, responder.Now = at(1764000000123), at(1764000000999)
	dialer.Rand, responder.Rand = &counter{next: 0x10}, &counter{next: 0x80}
	a, b := net.Pipe()
	seen := &tap{Conn: a}
	done := make(chan helloResult, 1)
	go func() {
		sess, err := Respond(b, responder)
		done <- helloResult{sess, err}
	}()
	sess, err := Initiate(seen, dialer)
	other := <-done
	if err != nil || other.err != nil {
		t.Fatal(err, other.err)
	}
	hello := decodeFirst(t, seen.out, TypeHello, TypeHelloFinish).(*Hello)
	ack := decodeFirst(t, seen.in, TypeHelloAck, TypeWelcome).(*HelloAck)
	golden(t, "handshake", handshakeVector{
		NetworkName: "test", NetworkID: testNetwork.String(),
		DialerPeerID: dialer.Self.String(), DialerPeerIDHex: hex.EncodeToString([]byte(dialer.Self)),
		DialerSeed:      hex.EncodeToString(bytes.Repeat([]byte{1}, 32)),
		ResponderPeerID: responder.Self.String(), ResponderIDHex: hex.EncodeToString([]byte(responder.Self)),
		ResponderSeed: hex.EncodeToString(bytes.Repeat([]byte{2}, 32)),
		DialerNonce:   hex.EncodeToString(hello.Nonce[:]), DialerNetTag: hex.EncodeToString(hello.NetTag[:]),
		ResponderNonce: hex.EncodeToString(ack.Nonce[:]), ResponderNetTag: hex.EncodeToString(ack.NetTag[:]),
		FromDialer: hex.EncodeToString(seen.out), FromResponder: hex.EncodeToString(seen.in),
		SessionID: sess.ID.String(),
	})
	if got := transcriptID(t, dialer, responder, seen); got != sess.ID {
		t.Errorf("the frames give session id %s, the handshake %s", got, sess.ID)
	}
}

// joinVector is one whole join.
type joinVector struct {
	RootSeed        string `json:"root_key_seed"`
	NetworkID       string `json:"network_id"`
	InviteSeed      string `json:"invite_key_seed"`
	InviteKey       string `json:"invite_public_key"`
	JoinerPeerID    string `json:"joiner_peer_id"`
	JoinerSeed      string `json:"joiner_key_seed"`
	JoinerKey       string `json:"joiner_public_key"`
	ResponderPeerID string `json:"responder_peer_id"`
	ResponderSeed   string `json:"responder_key_seed"`
	ResponderKey    string `json:"responder_public_key"`
	Nonce           string `json:"nonce"`
	Signed          string `json:"signed"` // what the signature covers
	Signature       string `json:"signature"`
	FromJoiner      string `json:"from_joiner"`    // the frames JoinBegin and JoinRequest
	FromResponder   string `json:"from_responder"` // the frames JoinChallenge and JoinAccept
}

func TestVectorsOfJoin(t *testing.T) {
	joiner, responder := joinPair(t)
	responder.Rand = &counter{next: 0x80}
	var demand JoinDemand
	decide := responder.Decide
	responder.Decide = func(d JoinDemand) (JoinGrant, error) {
		demand = d
		return decide(d)
	}
	a, b := net.Pipe()
	seen := &tap{Conn: a}
	if _, asked, answered := joinOver(seen, b, joiner, responder); asked != nil || answered != nil {
		t.Fatal(asked, answered)
	}
	golden(t, "join", joinVector{
		RootSeed: hex.EncodeToString(testRoot.Seed()), NetworkID: testClosed.String(),
		InviteSeed: hex.EncodeToString(testInvite.Seed()), InviteKey: hex.EncodeToString(demand.Invite[:]),
		JoinerPeerID: responder.Peer.String(), JoinerSeed: hex.EncodeToString(bytes.Repeat([]byte{1}, 32)),
		JoinerKey:       hex.EncodeToString(demand.Key[:]),
		ResponderPeerID: joiner.Peer.String(), ResponderSeed: hex.EncodeToString(bytes.Repeat([]byte{2}, 32)),
		ResponderKey: hex.EncodeToString(joiner.Issuer[:]),
		Nonce:        hex.EncodeToString(demand.Nonce[:]),
		Signed:       hex.EncodeToString(joinProof(demand.Key, joiner.Issuer, demand.Nonce)),
		Signature:    hex.EncodeToString(demand.Signature),
		FromJoiner:   hex.EncodeToString(seen.out), FromResponder: hex.EncodeToString(seen.in),
	})
}

func decodeFirst(t *testing.T, raw []byte, expect ...MessageType) any {
	t.Helper()
	r := NewReader(bytes.NewReader(raw), nil)
	r.expect = expect
	f, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	m, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// transcriptID computes the session id as docs/wire.md says, from the frames.
func transcriptID(t *testing.T, dialer, responder HelloConfig, seen *tap) replication.Hash {
	t.Helper()
	envelopes := func(raw []byte) (out [][]byte) {
		r := NewReader(bytes.NewReader(raw), nil)
		r.expect = []MessageType{TypeHello, TypeHelloAck, TypeHelloFinish, TypeWelcome}
		for {
			f, err := r.Next()
			if errors.Is(err, io.EOF) {
				return out
			}
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, f.envelope)
		}
	}
	d, r := envelopes(seen.out), envelopes(seen.in)
	return replication.HashParts("vix/session/1", []byte(dialer.Self), []byte(responder.Self), d[0], r[0], d[1], r[1])
}

// counter gives the bytes that follow one another.
type counter struct{ next byte }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.next
		c.next++
	}
	return len(p), nil
}

// Every type of the enum has its limits, its sample and so its vector, and no
// file is left over.
func TestVectorsAreComplete(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "vectors", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{"handshake": true, "join": true}
	types := map[MessageType]bool{}
	for _, s := range samples() {
		made[s.name] = true
		types[TypeOf(s.msg)] = true
	}
	for _, f := range files {
		name := filepath.Base(f)
		if !made[name[:len(name)-len(".json")]] {
			t.Errorf("no test makes %s", f)
		}
	}
	if len(files) != len(made) {
		t.Errorf("%d files for %d vectors", len(files), len(made))
	}
	for number, name := range p2pv1.MessageType_name {
		if number == 0 {
			continue
		}
		if !types[MessageType(number)] {
			t.Errorf("%s has no vector", name)
		}
		if _, ok := limitOf(MessageType(number)); !ok {
			t.Errorf("%s has no limits", name)
		}
	}
	if len(Limits()) != len(p2pv1.MessageType_name)-1 {
		t.Errorf("%d limits for %d types", len(Limits()), len(p2pv1.MessageType_name)-1)
	}
}
