package protocols

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/replication"
)

// Redeeming an invite (design 9.5, v1); docs/wire.md has it in full:
//
//	joiner                                     responder: who made the invite
//	  JoinBegin                            ->
//	                                       <-  JoinChallenge (nonce)
//	  JoinRequest (network, invite, ...,   ->         checks the network; Decide
//	    signature by the invite's key)
//	                                       <-  JoinAccept (chain, root, ...)
//
// Either side may say Bye with a code instead. The channel under the stream
// proves both peer IDs. The signature covers both and the nonce, so that an
// answer that somebody saw or was lured into is of no use elsewhere.

// JoinConfig is what a joiner asks with. Zero values of the optional fields give
// the defaults in parentheses.
type JoinConfig struct {
	Peer peer.ID // the other end of the channel under the stream
	// Of the ticket. Peer must be Issuer: nothing of the ticket is shown to
	// anybody else.
	Issuer  replication.OriginKey
	Network replication.NetworkID
	Invite  [32]byte // the public key of the ticket's seed

	Label  string   // cut to MaxLabelBytes
	X25519 [32]byte // zero: the key that follows from the joiner's identity
	// Sign makes the signature by the invite's key, once the responder's nonce is
	// known.
	Sign func(nonce [32]byte) (signature []byte)

	Timeout time.Duration // until the request is sent (DefaultHelloTimeout)
	Wait    time.Duration // for the decision on it (DefaultJoinWait)
}

// JoinResult is what a joiner has gained. That the root key gives the network is
// checked; the chain is as the responder sent it, 1 byte to MaxCertificate.
type JoinResult struct {
	Chain       []byte // the joiner's certificate with its issuer's
	Root        [32]byte
	NetworkName string // for people; may be empty
}

// JoinDemand is what a responder decides on. Nothing in it is checked but the
// joiner's peer ID and key, which the channel proves, and the network.
type JoinDemand struct {
	Peer    peer.ID
	Key     replication.OriginKey // the public key of Peer
	Network replication.NetworkID
	Invite  [32]byte
	Label   string   // its user's choice: no identity
	X25519  [32]byte // zero: the key that follows from Key
	// Signature should be by the invite's key over network, invite, joiner,
	// responder and Nonce.
	Signature []byte
	Nonce     [32]byte // ours
}

// JoinGrant admits a joiner.
type JoinGrant struct {
	Chain       []byte // its certificate with its issuer's: 1 byte to MaxCertificate
	Root        [32]byte
	NetworkName string // cut to MaxNetworkNameBytes
}

// AnswerConfig is what a responder answers joiners with. Zero values of the
// optional fields give the defaults in parentheses.
type AnswerConfig struct {
	Peer    peer.ID // the joiner: the other end of the channel under the stream
	Network replication.NetworkID

	// Decide is asked once, about a request for Network. It checks the signature
	// before all else, and answers a wrong one as an invite that it does not know,
	// so that only who holds a ticket learns what became of it. What it grants, it
	// has made durable before it returns: the joiner may come again until it has
	// heard. It may take as long as that needs; the joiner waits for
	// DefaultJoinWait.
	//
	// An error refuses the joiner. The joiner, who is no member, hears the code and
	// the detail of a *CodeError (see Refuse), or the code and the text of an error
	// with RefusalCode() replication.Code; of other errors, and with
	// CodeInviteUnknown, the code alone. Codes from 32 on concern a log: it hears
	// CodeInternal instead.
	Decide func(JoinDemand) (JoinGrant, error)

	Timeout time.Duration // for all that the joiner says, and again for hearing the answer (DefaultHelloTimeout)
	Rand    io.Reader     // of the nonce (crypto/rand)
}

// RequestJoin redeems an invite as the side that opened the stream, which is
// closed or reset when it returns. Errors are as of Initiate. Where no answer came
// to the request, the invite may have been redeemed; the same identity may redeem
// it again, and the error says so.
func RequestJoin(s Stream, cfg JoinConfig) (*JoinResult, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultHelloTimeout
	}
	if cfg.Wait <= 0 {
		cfg.Wait = DefaultJoinWait
	}
	t := newTalk(s, nil)
	res, err := requestJoin(&t, &cfg)
	if err != nil {
		t.end(err)
		return nil, err
	}
	_ = s.Close() // all is said
	return res, nil
}

func requestJoin(t *talk, cfg *JoinConfig) (*JoinResult, error) {
	if key, err := OriginOf(cfg.Peer); err != nil || key != cfg.Issuer {
		return nil, fmt.Errorf("peer %s is not the node that made the invite: nothing was shown to it", cfg.Peer)
	}
	if err := t.stream.SetDeadline(time.Now().Add(cfg.Timeout)); err != nil {
		return nil, err
	}
	if err := t.send(&JoinBegin{}); err != nil {
		return nil, timedOut(err, cfg.Timeout)
	}
	c, err := receive[*JoinChallenge](t, TypeJoinChallenge)
	if err != nil {
		return nil, timedOut(err, cfg.Timeout)
	}
	signature := cfg.Sign(c.Nonce)
	if len(signature) != ed25519.SignatureSize {
		return nil, fmt.Errorf("the invite's key gave a signature of %d bytes, not %d", len(signature), ed25519.SignatureSize)
	}
	request := &JoinRequest{
		Network: cfg.Network, Invite: cfg.Invite, Label: cutText(cfg.Label, MaxLabelBytes), X25519: cfg.X25519,
		Signature: signature,
	}
	if err := t.send(request); err != nil {
		return nil, timedOut(err, cfg.Timeout)
	}
	if err := t.stream.SetDeadline(time.Now().Add(cfg.Wait)); err != nil {
		return nil, err
	}
	a, err := receive[*JoinAccept](t, TypeJoinAccept)
	var ce *CodeError
	switch {
	case errors.As(err, &ce):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("the answer to the join did not arrive; join again with the same ticket: %w", timedOut(err, cfg.Wait))
	}
	if replication.NetworkOfRoot(a.Root[:]) != cfg.Network {
		return nil, faultf(ErrMessage, TypeJoinAccept, "the root key is not that of the network which the ticket names")
	}
	return &JoinResult{Chain: a.Chain, Root: a.Root, NetworkName: a.NetworkName}, nil
}

// AnswerJoin answers a joiner as the side that accepted the stream, which is
// closed or reset when it returns. Errors are as of Respond; those of Decide are
// returned as they are.
func AnswerJoin(s Stream, cfg AnswerConfig) error {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultHelloTimeout
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	t := newTalk(s, nil)
	if err := answerJoin(&t, &cfg); err != nil {
		t.end(err)
		return err
	}
	return s.Close() // flushes JoinAccept
}

func answerJoin(t *talk, cfg *AnswerConfig) error {
	if err := t.stream.SetDeadline(time.Now().Add(cfg.Timeout)); err != nil {
		return err
	}
	key, err := OriginOf(cfg.Peer)
	if err != nil {
		return Refuse(replication.CodeProtocol, "only Ed25519 identities are accepted")
	}
	if _, err := receive[*JoinBegin](t, TypeJoinBegin); err != nil {
		return timedOut(err, cfg.Timeout)
	}
	nonce, err := newNonce(cfg.Rand)
	if err != nil {
		return err
	}
	if err := t.send(&JoinChallenge{Nonce: nonce}); err != nil {
		return timedOut(err, cfg.Timeout)
	}
	q, err := receive[*JoinRequest](t, TypeJoinRequest)
	if err != nil {
		return timedOut(err, cfg.Timeout)
	}
	if subtle.ConstantTimeCompare(q.Network[:], cfg.Network[:]) != 1 {
		return Refuse(replication.CodeOtherNetwork, "")
	}
	grant, err := cfg.Decide(JoinDemand{
		Peer: cfg.Peer, Key: key, Network: q.Network, Invite: q.Invite, Label: q.Label, X25519: q.X25519,
		Signature: q.Signature, Nonce: nonce,
	})
	if err == nil {
		err = grant.check(cfg.Network)
	}
	if err != nil {
		t.bye(told(err))
		return err
	}
	if err := t.stream.SetDeadline(time.Now().Add(cfg.Timeout)); err != nil {
		return err
	}
	accept := &JoinAccept{Chain: grant.Chain, Root: grant.Root, NetworkName: cutText(grant.NetworkName, MaxNetworkNameBytes)}
	return timedOut(t.send(accept), cfg.Timeout)
}

// check finds what the joiner would refuse.
func (g *JoinGrant) check(network replication.NetworkID) error {
	if n := len(g.Chain); n == 0 || n > MaxCertificate {
		return fmt.Errorf("the joiner's certificate with its issuer's has %d bytes, not 1 to %d", n, MaxCertificate)
	}
	if replication.NetworkOfRoot(g.Root[:]) != network {
		return errors.New("the root key granted to the joiner is not that of this node's network")
	}
	return nil
}

// told is what a joiner hears of an error of Decide. The text of one that has no
// code of its own may name what is on this machine, and stays here.
func told(err error) (code replication.Code, detail string) {
	var ce *CodeError
	var coded interface {
		error
		RefusalCode() replication.Code
	}
	switch {
	case errors.As(err, &ce):
		code, detail = ce.Code, ce.Detail
	case errors.As(err, &coded):
		code, detail = coded.RefusalCode(), coded.Error()
	default:
		code = CodeOf(err)
	}
	switch {
	case code == replication.CodeOK, code >= replication.CodeGap:
		return replication.CodeInternal, ""
	case code == replication.CodeInviteUnknown: // to a stranger; a text might tell in what he was wrong
		detail = ""
	}
	return code, detail
}

// timedOut tells a passed deadline from other errors.
func timedOut(err error, limit time.Duration) error {
	if err == nil || !isTimeout(err) {
		return err
	}
	return fmt.Errorf("the other side did not answer within %v: %w", limit, ErrHelloTimeout)
}
