package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vixp2p/node/mailbox"
	"vixp2p/routing"
)

// lone is a node that looks for nobody by itself.
func lone(t *testing.T, label string, change func(*Config)) *Node {
	t.Helper()
	cfg := Config{Label: label, NoDiscovery: true}
	if change != nil {
		change(&cfg)
	}
	return open(t, cfg)
}

func joined(t *testing.T, from, to *Node) {
	t.Helper()
	if _, _, err := from.Connect(deadline(t), addr(t, to, tcp4)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{from, to} {
		if err := n.Wait(deadline(t), WaitOptions{Peers: 1}); err != nil {
			t.Fatal(err)
		}
	}
}

func sendText(t *testing.T, from *Node, to, text string) *Sent {
	t.Helper()
	s, err := from.Send(deadline(t), to, []byte(text), SendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// messagesUntil waits until status says so.
func messagesUntil(t *testing.T, n *Node, what string, ok func(*MessageStatus) bool) {
	t.Helper()
	ctx := deadline(t)
	for !ok(n.messages.status()) {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %s: %+v", n.Label(), what, n.messages.status())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestMessagesFollow(t *testing.T) {
	a, b := lone(t, "A", nil), lone(t, "B", nil)
	joined(t, b, a)
	const count = 150 // more than a page
	got := make(chan error, 1)
	go func() {
		n := 0
		for m, err := range a.Messages(deadline(t), "", true) {
			if err != nil {
				got <- err
				return
			}
			if want := fmt.Sprintf("text %d", n); string(m.Body) != want || m.From != b.ID() {
				got <- fmt.Errorf("message %d is %q from %s", n, m.Body, m.From)
				return
			}
			if n++; n == count {
				got <- nil
				return
			}
		}
		got <- errors.New("it ended")
	}()
	var last *Sent
	for n := range count {
		last = sendText(t, b, "A", fmt.Sprintf("text %d", n))
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if err := last.Wait(deadline(t)); err != nil {
		t.Fatal(err)
	}
	messagesUntil(t, a, "they count as read", func(m *MessageStatus) bool { return m.Inbox == count && m.Unread == 0 })
	messagesUntil(t, b, "all are acknowledged", func(m *MessageStatus) bool { return m.Outbox == 0 && m.Counters.Delivered == count })

	// A cursor goes on after its message, Now after all; those of others are refused.
	var cursor Cursor
	n := 0
	for m, err := range a.Messages(deadline(t), Start, false) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 100 {
			cursor = m.Cursor
			break
		}
	}
	n = 0
	for _, err := range a.Messages(deadline(t), cursor, false) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != count-100 {
		t.Errorf("%d after the hundredth of %d", n, count)
	}
	for m, err := range a.Messages(deadline(t), Now, false) {
		t.Errorf("new: %+v, %v", m, err)
	}
	for _, err := range b.Messages(deadline(t), cursor, false) {
		if !errors.Is(err, ErrCursorReset) {
			t.Errorf("another node's cursor: %v", err)
		}
	}
	for _, err := range a.Messages(deadline(t), "x", false) {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("no cursor: %v", err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for m, err := range a.Messages(ended, Now, true) {
		t.Errorf("the end of a context is no error: %+v, %v", m, err)
	}
}

func TestSendRefuses(t *testing.T) {
	a := lone(t, "A", nil)
	ctx := deadline(t)
	for name, c := range map[string]struct {
		to   string
		body []byte
		o    SendOptions
		want error
	}{
		"to itself":  {a.ID(), nil, SendOptions{}, ErrSelf},
		"too long":   {peerName(t), make([]byte, MaxMessageBytes+1), SendOptions{}, ErrTooLarge},
		"a TTL":      {peerName(t), nil, SendOptions{TTL: MaxMessageTTL + 1}, ErrInvalid},
		"a lifetime": {peerName(t), nil, SendOptions{Lifetime: MaxMessageLifetime + 1}, ErrInvalid},
		"too short":  {peerName(t), nil, SendOptions{Lifetime: 1}, ErrInvalid},
		"an RSA key": {"QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", nil, SendOptions{}, ErrInvalid},
	} {
		if _, err := a.Send(ctx, c.to, c.body, c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.Send(ctx, "nobody", nil, SendOptions{}); !errors.As(err, new(*UnknownPeerError)) {
		t.Errorf("to nobody: %v", err)
	}
	off := lone(t, "off", func(c *Config) { c.NoMessages = true })
	if _, err := off.Send(ctx, a.ID(), nil, SendOptions{}); !errors.Is(err, ErrNoMessages) {
		t.Errorf("switched off: %v", err)
	}
	for _, err := range off.Messages(ctx, "", false) {
		if !errors.Is(err, ErrNoMessages) {
			t.Errorf("switched off: %v", err)
		}
	}
	offline := lone(t, "offline", func(c *Config) { c.Offline = true })
	if _, err := offline.Send(ctx, a.ID(), nil, SendOptions{}); !errors.Is(err, ErrOffline) {
		t.Errorf("offline: %v", err)
	}
	if st, err := off.Status(ctx); err != nil || st.Messages != nil || st.Routes != nil {
		t.Errorf("switched off: %+v, %v", st.Messages, err)
	}
}

// peerName is the ID of some peer that was never met.
func peerName(t *testing.T) string {
	return lone(t, "unmet", func(c *Config) { c.Offline = true }).ID()
}

// What is in no one's way: a peer that takes no messages is not bothered with them,
// and a message that expires says so.
func TestUndelivered(t *testing.T) {
	a := lone(t, "A", nil)
	b := lone(t, "B", func(c *Config) { c.NoMessages = true })
	joined(t, a, b)
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	var u *UndeliveredError
	if err := sendText(t, a, b.ID(), "of a day").Wait(short); !errors.As(err, &u) || u.Expired || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no peer that takes messages is connected") {
		t.Errorf("before it expires: %v", err)
	}
	s, err := a.Send(deadline(t), b.ID(), []byte("x"), SendOptions{Lifetime: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(deadline(t)); !errors.As(err, &u) || !u.Expired || !strings.Contains(err.Error(), "its lifetime ended") {
		t.Errorf("after it expired: %v", err)
	}
	if err := a.Wait(deadline(t), WaitOptions{Peers: 1}); err != nil {
		t.Errorf("the session suffers: %v", err)
	}
}

func TestRouteByHand(t *testing.T) {
	a, b, c := lone(t, "A", nil), lone(t, "B", nil), lone(t, "C", nil)
	joined(t, a, b)
	joined(t, c, b)
	ctx := deadline(t)
	if err := a.SetRoute(ctx, c.ID(), "B", 2); err != nil {
		t.Fatal(err)
	}
	if err := a.SetRoute(ctx, c.ID(), "B", 99); !errors.Is(err, ErrInvalid) {
		t.Errorf("a TTL of 99: %v", err)
	}
	if err := sendText(t, a, c.ID(), "by hand").Wait(ctx); err != nil {
		t.Fatal(err)
	}
	byHand := func() (found bool) {
		for _, r := range a.Routes() {
			if r.Target == c.ID() && r.Source == "hand" && r.NextHop == b.ID() && r.TTL == 2 {
				found = true
			}
		}
		return found
	}
	if !byHand() {
		t.Errorf("routes %+v", a.Routes())
	}
	if err := a.RemoveRoute(ctx, c.ID()); err != nil || byHand() {
		t.Errorf("after it was removed: %v, %+v", err, a.Routes())
	}
}

// A damaged mailbox is repaired at the start; what cannot be opened switches
// messages off, and nothing else.
func TestDamagedMailbox(t *testing.T) {
	cfg := Config{Label: "A", NoDiscovery: true, DataDir: t.TempDir()}
	a := open(t, cfg)
	for n := range 5 {
		sendText(t, a, peerName(t), fmt.Sprint(n))
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.DataDir, mailDir, mailbox.FileName)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const batches = 8192 // where they begin
	raw[(batches+len(raw))/2] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	a = open(t, cfg)
	messagesUntil(t, a, "not repaired", func(m *MessageStatus) bool { return m.Problem == "" && m.Outbox == 4 && m.Recovered != "" })
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	a = open(t, cfg)
	put(t, a, "k", "v")
	messagesUntil(t, a, "no problem is told", func(m *MessageStatus) bool { return m.Problem != "" })
	if _, err := a.Send(deadline(t), peerName(t), nil, SendOptions{}); !errors.As(err, new(*MessagesOffError)) {
		t.Errorf("Send: %v", err)
	}
}

// A text that is damaged on the disk while the node runs is not in the way of the
// others, and status tells of it.
func TestDamagedTextIsNotInTheWay(t *testing.T) {
	cfg := Config{Label: "A", NoDiscovery: true, DataDir: t.TempDir()}
	a, b := open(t, cfg), lone(t, "B", nil)
	joined(t, b, a)
	for n := range 3 {
		if err := sendText(t, b, "A", fmt.Sprintf("text %d", n)).Wait(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(cfg.DataDir, mailDir, mailbox.FileName)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("?"), int64(bytes.Index(raw, []byte("text 1")))); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for m, err := range a.Messages(deadline(t), "", false) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(m.Body))
	}
	if len(got) != 2 || got[0] != "text 0" || got[1] != "text 2" {
		t.Errorf("read %q", got)
	}
	messagesUntil(t, a, "it is not told", func(m *MessageStatus) bool {
		return m.Inbox == 2 && strings.Contains(m.Recovered, "must be sent again")
	})
}

// A mailbox that breaks is noticed by who reads it too, not by the next message alone.
func TestReadersNoticeABrokenMailbox(t *testing.T) {
	a := lone(t, "A", nil)
	c, err := a.messages.use(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.box.Apply([]routing.StoreOp{routing.PutInbox{Msg: &routing.Message{}, Text: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	if err := c.box.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range a.Messages(deadline(t), Start, true) {
		if !errors.As(err, new(*MessagesOffError)) {
			t.Errorf("read from a broken mailbox: %v", err)
		}
	}
	if st := a.messages.status(); st.Problem == "" {
		t.Errorf("status does not tell: %+v", st)
	}
}

// On a full disk nothing is sent, and what comes waits where it is.
func TestMessagesOnAFullDisk(t *testing.T) {
	var full atomic.Bool
	free := func(string) (uint64, error) {
		if full.Load() {
			return 0, nil
		}
		return 1 << 40, nil
	}
	a, b := lone(t, "A", func(c *Config) { c.freeBytes = free }), lone(t, "B", nil)
	joined(t, b, a)
	messagesUntil(t, a, "not open", func(m *MessageStatus) bool { return m.Problem == "" })
	if err := sendText(t, b, "A", "before").Wait(deadline(t)); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	if _, err := a.Send(deadline(t), b.ID(), nil, SendOptions{}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("Send: %v", err)
	}
	s := sendText(t, b, "A", "during")
	ctx := deadline(t)
	for {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		err := s.Wait(short)
		cancel()
		if u, ok := errors.AsType[*UndeliveredError](err); !ok || ctx.Err() != nil {
			t.Fatalf("Wait: %v", err)
		} else if strings.Contains(u.Why, "does not take it (full)") {
			break
		}
	}
	full.Store(false)
	messagesUntil(t, a, "nothing was taken", func(m *MessageStatus) bool { return m.Inbox == 1 })
}

// Bodies of every length arrive as they are.
func TestMessageLengths(t *testing.T) {
	a, b := lone(t, "A", nil), lone(t, "B", nil)
	joined(t, b, a)
	bodies := [][]byte{nil, {0x80}, bytes.Repeat([]byte{0}, 128), bytes.Repeat([]byte{0xff}, MaxMessageBytes)}
	for _, body := range bodies {
		s, err := b.Send(deadline(t), a.ID(), body, SendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for m, err := range a.Messages(deadline(t), "", false) {
		if err != nil || !bytes.Equal(m.Body, bodies[n]) {
			t.Fatalf("message %d has %d bytes, %v", n, len(m.Body), err)
		}
		n++
	}
}
