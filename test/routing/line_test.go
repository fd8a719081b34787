// Package routing_test sends messages through real nodes on loopback, of which only
// neighbours are connected.
package routing_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"vixp2p/node"
	"vixp2p/test/internal/proc"
)

// patience is far beyond what a busy machine needs.
const patience = 2 * time.Minute

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// station is a node of the line, which may be restarted. Its host is the test's
// own, so that all bytes on its streams can be looked at.
type station struct {
	*node.Node
	t     *testing.T
	label string
	dir   string
	key   crypto.PrivKey
	addr  string // multiaddr with its port
	seen  *tape
	host  host.Host
}

// tape keeps all that a host's streams carried, in the clear.
type tape struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (r *tape) add(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all.Write(b)
}

func (r *tape) has(b []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.all.Bytes(), b)
}

// tapped is a host whose streams are taped.
type tapped struct {
	host.Host
	seen *tape
}

func (h tapped) SetStreamHandler(id protocol.ID, fn network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(s network.Stream) { fn(tappedStream{s, h.seen}) })
}

func (h tapped) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return tappedStream{s, h.seen}, nil
}

type tappedStream struct {
	network.Stream
	seen *tape
}

func (s tappedStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	s.seen.add(b[:n])
	return n, err
}

func (s tappedStream) Write(b []byte) (int, error) {
	s.seen.add(b)
	return s.Stream.Write(b)
}

func newStation(t *testing.T, label string) *station {
	t.Helper()
	_, raw, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	s := &station{t: t, label: label, dir: t.TempDir(), key: key, addr: fmt.Sprint("/ip4/127.0.0.1/tcp/", proc.Port(t)), seen: &tape{}}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *station) start() {
	s.t.Helper()
	h, err := libp2p.New(libp2p.Identity(s.key), libp2p.ListenAddrStrings(s.addr), libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		s.t.Fatal(err)
	}
	s.host = h
	s.Node, err = node.Open(s.t.Context(), node.Config{
		DataDir: s.dir, Label: s.label, Host: tapped{h, s.seen}, NoDiscovery: true,
		Logger: slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", s.label),
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *station) stop() {
	if s.Node == nil {
		return
	}
	if err := s.Close(); err != nil {
		s.t.Errorf("close %s: %v", s.label, err)
	}
	s.Node = nil
	if err := s.host.Close(); err != nil {
		s.t.Errorf("close the host of %s: %v", s.label, err)
	}
}

// join connects neighbours.
func join(t *testing.T, a, b *station) {
	t.Helper()
	if _, _, err := a.Connect(within(t), b.addr); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*station{a, b} {
		if err := s.Wait(within(t), node.WaitOptions{Peers: 1}); err != nil {
			t.Fatal(err)
		}
	}
}

// line is A-B-C-D.
func line(t *testing.T) (a, b, c, d *station) {
	t.Helper()
	a, b, c, d = newStation(t, "A"), newStation(t, "B"), newStation(t, "C"), newStation(t, "D")
	join(t, b, a)
	join(t, c, b)
	join(t, d, c)
	return a, b, c, d
}

func send(t *testing.T, from *station, to string, text []byte, o node.SendOptions) *node.Sent {
	t.Helper()
	sent, err := from.Send(within(t), to, text, o)
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

// inbox is all that has arrived, in order.
func inbox(t *testing.T, s *station) (out []node.Message) {
	t.Helper()
	for m, err := range s.Messages(within(t), node.Start, false) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// expectOnce: a text is in the inbox once, and nothing else is.
func expectOnce(t *testing.T, at *station, from *station, sent *node.Sent, text []byte) {
	t.Helper()
	list := inbox(t, at)
	if len(list) != 1 || !bytes.Equal(list[0].Body, text) || list[0].ID != sent.ID() || list[0].From != from.ID() {
		t.Errorf("%s has %+v", at.label, list)
	}
}

// holds waits until a node carries so many messages of others, acks included.
func holds(t *testing.T, s *station, what string, ok func(*node.MessageStatus) bool) {
	t.Helper()
	ctx := within(t)
	for {
		st, err := s.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if ok(st.Messages) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %s: %+v", s.label, what, st.Messages)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// onDisk tells whether bytes are anywhere in a directory.
func onDisk(t *testing.T, dir string, text []byte) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // of a running node
			return nil
		}
		found = found || bytes.Contains(raw, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestLineOfFour(t *testing.T) {
	a, b, c, d := line(t)
	text := []byte("only D may read this: 6f1c0a")
	sent := send(t, a, d.ID(), text, node.SendOptions{})
	if err := sent.Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	expectOnce(t, d, a, sent, text)
	for _, hop := range []*station{b, c} {
		holds(t, hop, "the copy is not purged", func(m *node.MessageStatus) bool { return m.Transit == 1 }) // the ack
		if hop.seen.has(text) || onDisk(t, hop.dir, text) {
			t.Errorf("%s could read the text", hop.label)
		}
		if raw := idBytes(sent.ID()); !hop.seen.has(raw) || !onDisk(t, hop.dir, raw) {
			t.Errorf("%s did not carry the message: the test looks at the wrong place", hop.label)
		}
	}
	if !onDisk(t, d.dir, text) {
		t.Error("the text is not where it must be")
	}
	// The way back is known: B and C learned it from the message.
	for _, r := range c.Routes() {
		if r.Target == a.ID() && (r.NextHop != b.ID() || r.Source != "learned" || r.Hops != 2) {
			t.Errorf("C reaches A by %+v", r)
		}
	}
	back := send(t, d, a.ID(), []byte("and back"), node.SendOptions{})
	if err := back.Wait(within(t)); err != nil {
		t.Fatal(err)
	}
	expectOnce(t, a, d, back, []byte("and back"))
	holds(t, a, "nothing is under way", func(m *node.MessageStatus) bool { return m.Outbox == 0 && m.Counters.Delivered == 1 })
}

func idBytes(id string) []byte {
	raw := make([]byte, len(id)/2)
	if _, err := fmt.Sscanf(id, "%x", &raw); err != nil {
		panic(err)
	}
	return raw
}

// toldOf waits until a sender is told something of a message that has not arrived.
func toldOf(t *testing.T, sent *node.Sent, enough func(*node.UndeliveredError) bool) *node.UndeliveredError {
	t.Helper()
	ctx := within(t)
	for {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		err := sent.Wait(short)
		cancel()
		switch u, ok := asUndelivered(err); {
		case !ok:
			t.Fatalf("it arrived, or worse: %v", err)
		case enough(u):
			return u
		case ctx.Err() != nil:
			t.Fatalf("the sender is told %q", u.Why)
		}
	}
}

func TestHopIsDownForAWhile(t *testing.T) {
	a, b, c, d := line(t)
	c.stop()
	text := []byte("later")
	sent := send(t, a, d.ID(), text, node.SendOptions{})
	holds(t, b, "B does not carry it", func(m *node.MessageStatus) bool { return m.Transit == 1 })
	u := toldOf(t, sent, func(u *node.UndeliveredError) bool { return len(u.Holders) > 0 }) // B's answer follows
	if len(u.Holders) != 1 || u.Holders[0] != b.ID() || u.Expired {
		t.Errorf("what A is told: %v", u)
	}
	// B is restarted while it carries the message, and A is gone.
	b.stop()
	a.stop()
	b.start()
	holds(t, b, "B lost it", func(m *node.MessageStatus) bool { return m.Transit == 1 })
	c.start()
	join(t, c, b)
	join(t, d, c)
	holds(t, d, "it does not arrive", func(m *node.MessageStatus) bool { return m.Inbox == 1 })
	expectOnce(t, d, a2(t, a), sent, text)
	join(t, b, a)
	holds(t, a, "A is not told", func(m *node.MessageStatus) bool { return m.Outbox == 0 && m.Counters.Delivered == 1 })
	expectOnce(t, d, a, sent, text)
}

// a2 starts a station again.
func a2(t *testing.T, s *station) *station {
	t.Helper()
	s.start()
	return s
}

func TestTTLIsUsedUp(t *testing.T) {
	a, b, _, d := line(t)
	sent := send(t, a, d.ID(), []byte("too far"), node.SendOptions{TTL: 2})
	holds(t, b, "B does not tell", func(m *node.MessageStatus) bool { return m.Counters.Spent == 1 })
	_ = toldOf(t, sent, func(u *node.UndeliveredError) bool {
		return strings.Contains(u.Why, "its TTL of 2 is used up at B ("+b.ID()+")")
	})
	if list := inbox(t, d); len(list) != 0 {
		t.Errorf("D has %+v", list)
	}
	// With one link more it arrives.
	if err := send(t, a, d.ID(), []byte("just far enough"), node.SendOptions{TTL: 3}).Wait(within(t)); err != nil {
		t.Error(err)
	}
}
