package protocols

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	cryptopb "github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/replication"
)

// The handshake (design 7.2, v1); docs/wire.md has it in full:
//
//	dialer                                   responder
//	  Hello (nonce, net_tag, instance ...)  ->         checks net_tag
//	        checks net_tag                  <-  HelloAck (nonce, net_tag, ...)
//	  HelloFinish (certificate, label ...)  ->         Verdict
//	        Verdict                         <-  Welcome (certificate, label ...)
//
// Either side may say Bye with a code instead. The channel under the stream
// already proves both peer IDs, so that the handshake proves membership only.
const (
	domainNetTag  = "vix/hello/1"
	domainSession = "vix/session/1"
	roleDialer    = "dialer"
	roleResponder = "responder"
)

// HelloConfig is what this side is and shows. Zero values of the optional
// fields give the defaults in parentheses.
type HelloConfig struct {
	Network    replication.NetworkID
	Self, Peer peer.ID // both ends of the channel under the stream

	Instance replication.Instance
	Boot     BootNonce
	// Attempt counts the handshakes that this process began, from 1; used by the
	// dialer.
	Attempt  uint64
	Features []string // optional, at most MaxFeatures

	Certificate []byte // empty in an open network
	Label       string // at most MaxLabelBytes
	// Spaces that this node carries; the first MaxHelloSpaces are listed.
	Spaces []replication.SpaceInfo
	Agent  string // program and version, at most MaxAgentBytes

	// Admit is asked when the peer has shown that it knows the network, before
	// anything is shown to it: for a peer of whom nothing need be heard. The dialer
	// asks before it says anything. (Nobody is refused.)
	Admit func(replication.OriginKey) error
	// Verdict is asked once, when everything that the peer shows is known: by
	// the responder before it says Welcome, by the dialer after it heard it. An
	// error (see Refuse) refuses the peer, with its code.
	Verdict func(PeerHello) error

	Budget  Budget           // memory for attachments after Hello (unlimited)
	Timeout time.Duration    // for the whole handshake (DefaultHelloTimeout)
	Now     func() time.Time // measures clock skew only (time.Now)
	Rand    io.Reader        // of nonces (crypto/rand)
}

// PeerInfo is what the handshake told of the peer.
type PeerInfo struct {
	ID       peer.ID
	Key      replication.OriginKey // the public key of ID
	Instance replication.Instance
	Boot     BootNonce
	Label    string // its user's choice: no identity
	Agent    string
	Spaces   []replication.SpaceInfo
	Features []string
	// Major, Minor and BlockFormat are the versions that it speaks and reads.
	Major, Minor uint32
	BlockFormat  uint32
	Certificate  []byte
	// Skew is by how much its clock is ahead of ours, to within half of RTT.
	Skew time.Duration
	RTT  time.Duration
}

// Has tells whether the peer named a feature.
func (p *PeerInfo) Has(feature string) bool {
	for _, f := range p.Features {
		if f == feature {
			return true
		}
	}
	return false
}

// PeerHello is what a Verdict decides on. Meta.Order is not set.
type PeerHello struct {
	PeerInfo
	Meta SessionMeta
}

// Session is a completed handshake: what Conn goes on with.
type Session struct {
	ID      replication.Hash // hash of the transcript: the same on both sides
	Network replication.NetworkID
	Peer    PeerInfo
	Meta    SessionMeta // Order is for the owner to set

	stream Stream
	r      *Reader
	w      *Writer
}

// Close ends a session that is not used further: what a probe does after its
// verdict.
func (s *Session) Close() error { return s.stream.Close() }

// OriginOf is the Ed25519 public key of a peer ID. Other keys are no members'
// (design 4.1).
func OriginOf(id peer.ID) (replication.OriginKey, error) {
	var key replication.OriginKey
	pub, err := id.ExtractPublicKey()
	if err != nil {
		return key, fmt.Errorf("peer %s has no Ed25519 identity; a member needs one: %w", id, replication.ErrNotAllowed)
	}
	raw, err := pub.Raw()
	if err != nil || len(raw) != ed25519.PublicKeySize || pub.Type() != cryptopb.KeyType_Ed25519 {
		return key, fmt.Errorf("peer %s has no Ed25519 identity; a member needs one: %w", id, replication.ErrNotAllowed)
	}
	copy(key[:], raw)
	return key, nil
}

// Initiate runs the handshake as the side that opened the stream. On an error
// the stream is closed or reset: a refusal, by either side, is a *CodeError; other
// errors are those of Reader.Next, and ErrHelloTimeout.
func Initiate(s Stream, cfg HelloConfig) (*Session, error) {
	h := newHandshake(s, cfg, true)
	return h.finish(h.initiate())
}

// Respond runs the handshake as the side that accepted the stream. Errors are
// as of Initiate.
func Respond(s Stream, cfg HelloConfig) (*Session, error) {
	h := newHandshake(s, cfg, false)
	return h.finish(h.respond())
}

type handshake struct {
	talk
	cfg       HelloConfig
	initiator bool
	peer      PeerInfo
	meta      SessionMeta
}

func newHandshake(s Stream, cfg HelloConfig, initiator bool) *handshake {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultHelloTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	h := &handshake{
		talk: newTalk(s, cfg.Budget), cfg: cfg, initiator: initiator,
		peer: PeerInfo{ID: cfg.Peer, Major: VersionMajor},
		meta: SessionMeta{Initiator: cfg.Self, Responder: cfg.Peer, InitiatorBoot: cfg.Boot, Attempt: cfg.Attempt},
	}
	if !initiator {
		h.meta = SessionMeta{Initiator: cfg.Peer, Responder: cfg.Self, ResponderBoot: cfg.Boot}
	}
	return h
}

func (h *handshake) initiate() error {
	if err := h.begin(); err != nil {
		return err
	}
	c := &h.cfg
	if err := h.admit(); err != nil {
		return err
	}
	nonce, err := newNonce(c.Rand)
	if err != nil {
		return err
	}
	hello := &Hello{
		Nonce: nonce, NetTag: h.netTag(roleDialer, nonce[:]), Instance: c.Instance, Boot: c.Boot,
		Attempt: c.Attempt, BlockFormat: replication.FormatVersion, Features: c.Features, SentMS: h.nowMS(),
	}
	sent := c.Now()
	if err := h.send(hello); err != nil {
		return err
	}
	ack, err := receive[*HelloAck](&h.talk, TypeHelloAck)
	if err != nil {
		return err
	}
	h.measure(sent, ack.SentMS)
	if want := h.netTag(roleResponder, nonce[:], ack.Nonce[:]); !hmac.Equal(want[:], ack.NetTag[:]) {
		return Refuse(replication.CodeOtherNetwork, "")
	}
	h.peer.Instance, h.peer.Boot, h.meta.ResponderBoot = ack.Instance, ack.Boot, ack.Boot
	h.peer.BlockFormat, h.peer.Features = ack.BlockFormat, ack.Features

	finish := &HelloFinish{
		Certificate: c.Certificate, Label: cutText(c.Label, MaxLabelBytes), Spaces: h.listed(),
		Agent: cutText(c.Agent, MaxAgentBytes), SentMS: h.nowMS(),
	}
	if err := h.send(finish); err != nil {
		return err
	}
	w, err := receive[*Welcome](&h.talk, TypeWelcome)
	if err != nil {
		return err
	}
	h.peer.Certificate, h.peer.Label, h.peer.Spaces, h.peer.Agent = w.Certificate, w.Label, w.Spaces, w.Agent
	return h.verdict()
}

func (h *handshake) respond() error {
	if err := h.begin(); err != nil {
		return err
	}
	c := &h.cfg
	hello, err := receive[*Hello](&h.talk, TypeHello)
	if err != nil {
		return err
	}
	if want := h.netTag(roleDialer, hello.Nonce[:]); !hmac.Equal(want[:], hello.NetTag[:]) {
		return Refuse(replication.CodeOtherNetwork, "")
	}
	if err := h.admit(); err != nil {
		return err
	}
	h.peer.Instance, h.peer.Boot, h.meta.InitiatorBoot = hello.Instance, hello.Boot, hello.Boot
	h.peer.BlockFormat, h.peer.Features, h.meta.Attempt = hello.BlockFormat, hello.Features, hello.Attempt

	nonce, err := newNonce(c.Rand)
	if err != nil {
		return err
	}
	ack := &HelloAck{
		Nonce: nonce, NetTag: h.netTag(roleResponder, hello.Nonce[:], nonce[:]), Instance: c.Instance, Boot: c.Boot,
		BlockFormat: replication.FormatVersion, Features: c.Features, SentMS: h.nowMS(),
	}
	sent := c.Now()
	if err := h.send(ack); err != nil {
		return err
	}
	f, err := receive[*HelloFinish](&h.talk, TypeHelloFinish)
	if err != nil {
		return err
	}
	h.measure(sent, f.SentMS)
	h.peer.Certificate, h.peer.Label, h.peer.Spaces, h.peer.Agent = f.Certificate, f.Label, f.Spaces, f.Agent
	if err := h.verdict(); err != nil {
		return err
	}
	return h.send(&Welcome{
		Certificate: c.Certificate, Label: cutText(c.Label, MaxLabelBytes), Spaces: h.listed(),
		Agent: cutText(c.Agent, MaxAgentBytes),
	})
}

// begin starts the handshake's time and checks who the peer is.
func (h *handshake) begin() error {
	if err := h.stream.SetDeadline(time.Now().Add(h.cfg.Timeout)); err != nil {
		return err
	}
	if h.cfg.Peer == h.cfg.Self {
		return Refuse(replication.CodeProtocol, "this is the node itself")
	}
	key, err := OriginOf(h.cfg.Peer)
	if err != nil {
		return Refuse(replication.CodeProtocol, "only Ed25519 identities are accepted")
	}
	h.peer.Key = key
	return nil
}

// finish makes the session, or ends the stream: after a Bye if there is
// something to say.
func (h *handshake) finish(err error) (*Session, error) {
	if err == nil {
		err = h.stream.SetDeadline(time.Time{})
	}
	if err == nil {
		h.r.expect = nil
		return &Session{
			ID:      sessionID(h.meta.Initiator, h.meta.Responder, h.transcript),
			Network: h.cfg.Network, Peer: h.peer, Meta: h.meta,
			stream: h.stream, r: h.r, w: h.w,
		}, nil
	}
	if isTimeout(err) {
		err = &CodeError{Code: replication.CodeHelloTimeout, Detail: fmt.Sprintf("no answer within %v", h.cfg.Timeout)}
	}
	h.end(err)
	return nil, err
}

// admit refuses a peer of which nothing need be heard.
func (h *handshake) admit() error {
	if h.cfg.Admit == nil {
		return nil
	}
	return h.cfg.Admit(h.peer.Key)
}

// verdict decides on all that the peer showed.
func (h *handshake) verdict() error {
	h.peer.Major, h.peer.Minor = h.major, h.minor
	for _, s := range h.peer.Spaces {
		if s.Name != "" && replication.SpaceOf(h.cfg.Network, s.Name) != s.ID {
			return faultf(ErrMessage, 0, "space %s does not follow from its name", s.ID)
		}
	}
	if h.cfg.Verdict == nil {
		return nil
	}
	err := h.cfg.Verdict(PeerHello{PeerInfo: h.peer, Meta: h.meta})
	var ce *CodeError
	if err == nil || errors.As(err, &ce) {
		return err
	}
	return &CodeError{Code: CodeOf(err), Detail: err.Error()}
}

func (h *handshake) nowMS() uint64 { return uint64(max(0, h.cfg.Now().UnixMilli())) }

func (h *handshake) listed() []replication.SpaceInfo {
	return h.cfg.Spaces[:min(len(h.cfg.Spaces), MaxHelloSpaces)]
}

// measure computes round trip and skew from when we sent, what the peer's clock
// said when it answered, and now.
func (h *handshake) measure(sent time.Time, peerMS uint64) {
	h.peer.RTT = h.cfg.Now().Sub(sent)
	at := time.UnixMilli(int64(min(peerMS, math.MaxInt64/1_000_000))) // year 292000 at most
	h.peer.Skew = at.Sub(sent.Add(h.peer.RTT / 2)).Round(time.Millisecond)
}

func (h *handshake) netTag(role string, nonces ...[]byte) [32]byte {
	return NetTag(h.cfg.Network, role == roleDialer, h.meta.Initiator, h.meta.Responder, nonces...)
}

// NetTag is HMAC-SHA-256, keyed by the network id, over the domain
// "vix/hello/1", the role, both peer IDs in their binary form and the nonces so
// far (the dialer's; then the responder's too), each preceded by its length as
// an unsigned varint.
func NetTag(network replication.NetworkID, dialer bool, initiator, responder peer.ID, nonces ...[]byte) (tag [32]byte) {
	role := roleResponder
	if dialer {
		role = roleDialer
	}
	mac := hmac.New(sha256.New, network[:])
	write := func(p []byte) {
		mac.Write(binary.AppendUvarint(nil, uint64(len(p))))
		mac.Write(p)
	}
	write([]byte(domainNetTag))
	write([]byte(role))
	write([]byte(initiator))
	write([]byte(responder))
	for _, n := range nonces {
		write(n)
	}
	mac.Sum(tag[:0])
	return tag
}

// sessionID hashes both peer IDs and the four envelopes as sent.
func sessionID(initiator, responder peer.ID, transcript [][]byte) replication.Hash {
	parts := append([][]byte{[]byte(initiator), []byte(responder)}, transcript...)
	return replication.HashParts(domainSession, parts...)
}
