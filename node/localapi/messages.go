package localapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"vixp2p/routing"
)

// Text is what a message says: "text" or "text_base64".
type Text struct {
	Text   *string `json:"text,omitempty"`
	Base64 []byte  `json:"text_base64,omitempty"`
}

// TextOf gives bytes their JSON form.
func TextOf(b []byte) Text { t, raw := split(b); return Text{t, raw} }

// Bytes of the member that is there; nil if neither is.
func (t Text) Bytes() []byte { return join(t.Text, t.Base64) }

// String is for people: text as it is, other bytes in base64.
func (t Text) String() string { return display(t.Text, t.Base64) }

// Send is a message to a peer that need not be connected.
type Send struct {
	Peer string // ID, the end of one, or unique label
	Text []byte
	TTL  int // links that it may cross; 0: the route's, or 8
	// Lifetime is how long it goes on being tried; 0: 24 hours.
	Lifetime time.Duration
	// Timeout is how long to wait for the recipient's acknowledgement; 0: as long as
	// it may come.
	Timeout time.Duration
	// Stored, if not nil, is called when the message is durable here and the wait for
	// the acknowledgement begins.
	Stored func(Sent)
}

// Check says what is wrong with it before it goes anywhere.
func (s *Send) Check() error {
	switch {
	case s.Peer == "":
		return Errorf(CodeUsage, "there is no peer to send to: name one by its ID or label")
	case len(s.Text) > routing.MaxText:
		return Errorf(CodeTooLarge, "the message is %d bytes, more than the limit of %d: put it under a key and send the key, or split it", len(s.Text), routing.MaxText)
	case s.TTL < 0 || s.TTL > routing.MaxTTL:
		return Errorf(CodeUsage, "a TTL of %d is out of range: use 1 to %d", s.TTL, routing.MaxTTL)
	case s.Lifetime < 0 || s.Lifetime > routing.MaxLifetime:
		return Errorf(CodeUsage, "a lifetime of %s is out of range: use at most %s", s.Lifetime, routing.MaxLifetime)
	}
	return nil
}

// Sent is a message that is durable here.
type Sent struct {
	ID string `json:"id"`
	To string `json:"to"` // peer ID
	// Delivered: the recipient holds it durably.
	Delivered bool `json:"delivered"`
	// Expires is until when it goes on being tried.
	Expires Time `json:"expires"`
}

// Inbox asks for the messages to this node.
type Inbox struct {
	From   string // a cursor; "": from the first that is kept
	Follow bool
	Count  int // end after so many; 0: no limit
}

// Message is a message to this node.
type Message struct {
	ID   string `json:"id"`
	From string `json:"from"` // peer ID
	Text
	Time   Time   `json:"time"` // by the sender's clock
	Cursor string `json:"cursor"`
}

// Messages is what status tells about messages.
type Messages struct {
	Inbox        int    `json:"inbox"` // kept here
	Unread       int    `json:"unread"`
	Outbox       int    `json:"outbox"` // of this node, not acknowledged yet
	Transit      int    `json:"transit"`
	Replies      int    `json:"replies"` // of these, acknowledgements and notices
	TransitBytes int    `json:"transit_bytes"`
	Sent         uint64 `json:"sent"` // since the start, as the rest
	Delivered    uint64 `json:"delivered"`
	Received     uint64 `json:"received"`
	Forwarded    uint64 `json:"forwarded"`
	Expired      uint64 `json:"expired"`
	TTLUsedUp    uint64 `json:"ttl_used_up"`
	// Dropped counts what neighbours pushed and what did not count, and answers to
	// nothing that was pushed, by reason.
	Dropped map[string]uint64 `json:"dropped"`
	// Problem is why messages are not carried now; Recovered what was found damaged.
	Problem   string `json:"problem,omitempty"`
	Recovered string `json:"recovered,omitempty"`
}

// Route says through which neighbour a member is reached.
type Route struct {
	Target   string `json:"target"`
	NextHop  string `json:"next_hop"`
	ViaRelay bool   `json:"via_relay"`
	TTL      int    `json:"ttl"`
	Source   string `json:"source"` // session, hand or learned
	Hops     int    `json:"hops,omitempty"`
	Expires  *Time  `json:"expires,omitempty"`
}

// sendJSON is the body of the route send.
type sendJSON struct {
	Peer string `json:"peer"`
	Text
	TTL        int   `json:"ttl,omitempty"`
	LifetimeMS int64 `json:"lifetime_ms,omitempty"`
	TimeoutMS  int64 `json:"timeout_ms,omitempty"`
	Early      bool  `json:"early,omitempty"`
}

// maxSendBody bounds the body of the route send; a byte of text may need 6.
const maxSendBody = 8 * routing.MaxText

// maxMillis keeps a number of milliseconds within a time.Duration.
const maxMillis = int64(365 * 24 * time.Hour / time.Millisecond)

func (s *Server) send(w http.ResponseWriter, r *http.Request, q *query) error {
	if err := q.end(); err != nil {
		return err
	}
	var in sendJSON
	if err := decodeObject(http.MaxBytesReader(w, r.Body, maxSendBody), &in); err != nil {
		return err
	}
	if err := oneOf("text", in.Text.Text, in.Text.Base64); err != nil {
		return Errorf(CodeInvalidJSON, "%w", err)
	}
	if in.LifetimeMS < 0 || in.LifetimeMS > maxMillis || in.TimeoutMS < 0 || in.TimeoutMS > maxMillis {
		return Errorf(CodeUsage, "a time in milliseconds is negative or longer than a year")
	}
	m := Send{
		Peer: in.Peer, Text: in.Text.Bytes(), TTL: in.TTL,
		Lifetime: time.Duration(in.LifetimeMS) * time.Millisecond, Timeout: time.Duration(in.TimeoutMS) * time.Millisecond,
	}
	if err := m.Check(); err != nil {
		return err
	}
	return inStages(s, w, r, in.Early, func(stored func(Sent)) (Sent, error) {
		m.Stored = stored
		return s.cfg.Backend.Send(r.Context(), m)
	})
}

func (s *Server) messages(w http.ResponseWriter, r *http.Request, q *query) error {
	in := Inbox{From: q.text("from"), Follow: q.flag("follow"), Count: q.number("count")}
	if err := q.end(); err != nil {
		return err
	}
	return stream(s, w, r, func(emit func(Message) error) error {
		return s.cfg.Backend.Messages(r.Context(), in, emit)
	})
}

// Send sends a message and waits for the recipient's acknowledgement.
func (c *Client) Send(ctx context.Context, m Send) (out Sent, err error) {
	body := sendJSON{
		Peer: m.Peer, Text: TextOf(m.Text), TTL: m.TTL,
		LifetimeMS: m.Lifetime.Milliseconds(), TimeoutMS: m.Timeout.Milliseconds(), Early: m.Stored != nil,
	}
	return receiveStages(ctx, c, "send", nil, body, m.Stored)
}

// Messages emits the messages to this node.
func (c *Client) Messages(ctx context.Context, in Inbox, emit func(Message) error) error {
	q := url.Values{"from": {in.From}}
	setFlag(q, "follow", in.Follow)
	setNumber(q, "count", in.Count)
	return receive(ctx, c, http.MethodGet, "messages", q, nil, emit)
}
