package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"vixp2p/routing"
	"vixp2p/routing/seal"
)

// Limits of routed messages.
const (
	// MaxMessageBytes is the longest text of a message.
	MaxMessageBytes = routing.MaxText
	// DefaultMessageTTL and MaxMessageTTL are numbers of links that it may cross.
	DefaultMessageTTL = routing.DefaultTTL
	MaxMessageTTL     = routing.MaxTTL
	// DefaultMessageLifetime and MaxMessageLifetime are how long it goes on being
	// tried.
	DefaultMessageLifetime = routing.DefaultLifetime
	MaxMessageLifetime     = routing.MaxLifetime
)

// SendOptions say how a message travels; the zero value is good.
type SendOptions struct {
	// TTL is how many links it may cross, 1 to 32. 0: that of the route, or 8.
	TTL int
	// Lifetime is how long it goes on being tried, at most 7 days. 0: 24 hours.
	Lifetime time.Duration
}

// Sent is a message of this node that is durable here and on its way.
type Sent struct {
	m       *messenger
	id      routing.ID
	to      routing.PeerKey
	expires time.Time

	stored chan error    // capacity 1: whether it is durable here
	done   chan struct{} // closed when its end is known
	once   sync.Once
	state  routing.Outcome // set before done is closed
}

// ID names the message: 32 hex digits.
func (s *Sent) ID() string { return s.id.String() }

// To is the recipient's peer ID.
func (s *Sent) To() string { return originName(replicationKey(s.to)) }

// Expires is until when it goes on being tried.
func (s *Sent) Expires() time.Time { return s.expires }

// Wait returns nil when the recipient's own acknowledgement is back: it holds the
// message durably. If ctx ends first, or the lifetime does, or what is stored of the
// message is lost, the error is an *UndeliveredError. It never waits for longer than
// the lifetime.
func (s *Sent) Wait(ctx context.Context) error {
	for s.end() == 0 {
		left := s.expires.Sub(s.m.now())
		if left <= 0 {
			break // messages may not be carried, so that nobody else tells
		}
		expired := time.NewTimer(left)
		select {
		case <-s.done:
		case <-expired.C: // unless the clock was set back
		case <-ctx.Done():
			expired.Stop()
			return s.undelivered(context.Cause(ctx))
		case <-s.m.ctx.Done():
			expired.Stop()
			return errNodeClosed
		}
		expired.Stop()
	}
	if s.end() == routing.OutcomeDelivered {
		return nil
	}
	return s.undelivered(nil)
}

// end is what became of the message at last; 0: that is not known yet.
func (s *Sent) end() routing.Outcome {
	select {
	case <-s.done:
		return s.state
	default:
		return 0
	}
}

// outcome takes a report of the Router.
func (s *Sent) outcome(r routing.Report) {
	switch r.State {
	case routing.OutcomeStored:
		s.stored <- nil
	case routing.OutcomeFailed:
		s.stored <- r.Err
	case routing.OutcomeDelivered, routing.OutcomeExpired, routing.OutcomeLost:
		s.once.Do(func() {
			s.state = r.State
			close(s.done)
		})
	}
}

// undelivered says how things stand.
func (s *Sent) undelivered(cause error) error {
	e := &UndeliveredError{ID: s.ID(), To: s.To(), Expires: s.expires, Cause: cause}
	name := s.m.name(s.to)
	s.m.mu.Lock()
	c, problem := s.m.courier, s.m.problem
	s.m.mu.Unlock()
	switch end := s.end(); {
	case end == routing.OutcomeLost:
		e.Lost = true
	case end == routing.OutcomeExpired || !s.m.now().Before(s.expires):
		e.Expired = true
	case c == nil || !c.call(func(c *courier) {
		if t, ok := c.router.Trace(s.id); ok {
			e.Why, e.Holders = s.m.explain(&t), s.m.ids(t.Holders)
		}
	}):
		e.Why = "messages are not carried at this moment: " + cmp.Or(problem, "the node is closing")
	}
	e.text = e.sentence(name)
	return e
}

func (m *messenger) ids(keys []routing.PeerKey) (out []string) {
	for _, k := range keys {
		out = append(out, originName(replicationKey(k)))
	}
	return out
}

func (m *messenger) names(keys []routing.PeerKey) string {
	var out []string
	for _, k := range keys {
		out = append(out, m.name(k))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// explain says why a message has not arrived.
func (m *messenger) explain(t *routing.Trace) string {
	var why []string
	add := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	if len(t.SpentAt) > 0 {
		add("its TTL of %d is used up at %s: send it with a larger one (--ttl)", t.TTL, m.names(t.SpentAt))
	} else if t.TTL == 1 {
		add("with a TTL of 1 it goes only to the recipient itself")
	}
	if len(t.Holders) > 0 {
		add("copies are at %s", m.names(t.Holders))
	}
	var refused []string
	for peer, v := range t.Refused {
		refused = append(refused, fmt.Sprintf("%s does not take it (%s)", m.name(peer), v))
	}
	slices.Sort(refused)
	why = append(why, refused...)
	switch {
	case t.Links == 0:
		add("no peer that takes messages is connected")
	case len(why) == 0 && t.NextHop != routing.PeerKey{}:
		add("it goes to %s next, which has not answered yet", m.name(t.NextHop))
	case len(why) == 0:
		add("no route is known, and no connected peer has taken it yet")
	case len(t.SpentAt) == 0 && t.NextHop == routing.PeerKey{} && t.TTL > 1:
		add("no route is known, so that every peer which connects gets a copy")
	}
	return strings.Join(why, "; ")
}

// UndeliveredError: a message was not acknowledged in the time that was given.
type UndeliveredError struct {
	ID, To string
	// Expires is until when it goes on being tried.
	Expires time.Time
	// Expired: that time has come, and it is not tried any more.
	Expired bool
	// Lost: what was stored of it here cannot be read, and it is not tried any more.
	// Copies that others hold may still arrive.
	Lost bool
	// Holders are connected peers that hold a copy.
	Holders []string
	// Why it has not arrived, as far as is known.
	Why   string
	Cause error
	text  string
}

func (e *UndeliveredError) Error() string { return e.text }
func (e *UndeliveredError) Unwrap() error { return e.Cause }

func (e *UndeliveredError) sentence(name string) string {
	until := e.Expires.UTC().Format(time.RFC3339)
	if e.Expired {
		return fmt.Sprintf("%s has not acknowledged the message, and its lifetime ended at %s: send it again, with a longer one", name, until)
	}
	if e.Lost {
		return fmt.Sprintf("%s has not acknowledged the message, and what was stored of it here is lost, so that it is not tried any more: check the disk, and send it again unless it turns out to have arrived", name)
	}
	if e.Why == "" {
		return fmt.Sprintf("%s has not acknowledged the message, and it is not on its way any more", name)
	}
	return fmt.Sprintf("%s has not acknowledged the message yet; it is stored here and goes on being tried until %s: %s", name, until, e.Why)
}

// Errors of messages.
var (
	// ErrNoMessages: the node was opened with NoMessages.
	ErrNoMessages = errors.New("this node takes no part in messages: start it with --messages on, which is the default")
	// ErrOutboxFull: too many messages of this node are on their way.
	ErrOutboxFull = routing.ErrOutboxFull

	errNotEd25519 = errors.New("this peer's key is not an Ed25519 key")
)

// MessagesOffError: messages are not carried at this moment. The node tries again
// by itself.
type MessagesOffError struct{ Why string }

func (e *MessagesOffError) Error() string {
	return "messages are not sent and received at this moment: " + e.Why
}

// Send makes a message to a peer durable here and sends it on its way, sealed so
// that only that peer can read it, directly or through other members. The peer is
// named by its ID, which need not ever have been met, by a label that only it has,
// or by the last 6 characters or more of the ID of a peer that is known. It returns when the message is durable; Sent.Wait waits for its arrival.
//
// Errors: ErrTooLarge, ErrInvalid, ErrSelf, *UnknownPeerError, ErrOutboxFull,
// ErrNoSpace, ErrOffline, ErrNoMessages, *MessagesOffError.
func (n *Node) Send(ctx context.Context, to string, body []byte, o SendOptions) (*Sent, error) {
	key, err := n.recipient(to)
	if err != nil {
		return nil, err
	}
	switch {
	case len(body) > MaxMessageBytes:
		return nil, fmt.Errorf("the message has %d bytes, more than the limit of %d: write it as a value and send its key, or split it: %w", len(body), MaxMessageBytes, ErrTooLarge)
	case o.TTL < 0 || o.TTL > MaxMessageTTL:
		return nil, fmt.Errorf("a TTL of %d is out of range: use 1 to %d, or 0 for that of the route: %w", o.TTL, MaxMessageTTL, ErrInvalid)
	case o.Lifetime < 0 || o.Lifetime > MaxMessageLifetime || o.Lifetime > 0 && o.Lifetime < time.Millisecond:
		return nil, fmt.Errorf("a lifetime of %s is out of range: use 1 ms to %s, or 0 for %s: %w", o.Lifetime, MaxMessageLifetime, DefaultMessageLifetime, ErrInvalid)
	}
	c, err := n.messages.use(ctx)
	if err != nil {
		return nil, err
	}
	s := &Sent{m: n.messages, to: key, stored: make(chan error, 1), done: make(chan struct{})}
	if !c.call(func(c *courier) { err = c.send(s, body, o) }) {
		return nil, &MessagesOffError{Why: "the node is closing, or repairs what it stores: try again"}
	}
	if err != nil {
		return nil, err
	}
	select {
	case err = <-s.stored:
	case <-c.done:
		err = &MessagesOffError{Why: "what is stored broke at this moment: see whether the message arrives before you send it again"}
	}
	return s, err
}

// recipient finds the key of a peer that is named by its ID or label.
func (n *Node) recipient(name string) (key routing.PeerKey, err error) {
	if n.mesh == nil {
		return key, ErrOffline
	}
	if n.messages == nil {
		return key, ErrNoMessages
	}
	id, err := findPeer(name, func(yield func(peer.ID, string) bool) {
		known := n.mesh.book.labels()
		for _, r := range n.Routes() { // to members that were never met
			if id, err := peer.Decode(r.Target); err == nil {
				known[id] = cmp.Or(known[id], "")
			}
		}
		maps.All(known)(yield)
	})
	if err != nil {
		return key, err
	}
	if id == n.id {
		return key, fmt.Errorf("a message to %s: %w", name, ErrSelf)
	}
	if key, err = routingKey(id); err != nil {
		return key, fmt.Errorf("no message can be sent to %s, because its ID does not contain an Ed25519 key: use the ID of a node: %w", name, ErrInvalid)
	}
	return key, nil
}

// send seals, signs and submits a message.
func (c *courier) send(s *Sent, body []byte, o SendOptions) error {
	m, now := c.m, c.m.now()
	h := routing.Header{
		Kind: routing.Text, From: m.self, To: s.to, Created: uint64(now.UnixMilli()),
		Lifetime: uint64(cmp.Or(o.Lifetime, DefaultMessageLifetime) / time.Millisecond),
		TTL:      cmp.Or(uint8(o.TTL), c.router.TTLTo(s.to, now)),
	}
	if _, err := rand.Read(h.ID[:]); err != nil {
		return fmt.Errorf("cannot draw a random number: %w", err)
	}
	msg, err := routing.New(m.network, m.key, h, func(header []byte) ([]byte, error) {
		return seal.Seal(m.network, s.to, header, body)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	s.id, s.expires = h.ID, h.Expires()
	m.mu.Lock()
	m.waiters[s.id] = s
	m.mu.Unlock()
	c.carryOut(c.router.Step(now, routing.Submit{Msg: msg}))
	return nil
}
