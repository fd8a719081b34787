package routing_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/node"
	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/routing"
	"vixp2p/routing/seal"
)

func asUndelivered(err error) (*node.UndeliveredError, bool) {
	return errors.AsType[*node.UndeliveredError](err)
}

var openNetwork = routing.Network(replication.OpenNetwork(node.DefaultNetworkName))

// intruder is a member that follows the protocol until it wants to cheat.
type intruder struct {
	t    *testing.T
	host host.Host
	key  ed25519.PrivateKey
	to   peer.ID
	next uint64
}

func newIntruder(t *testing.T, to *station) *intruder {
	t.Helper()
	_, raw, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.Transport(tcp.NewTCPTransport), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	addr, err := ma.NewMultiaddr(to.addr)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.Decode(to.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Connect(within(t), peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{addr}}); err != nil {
		t.Fatal(err)
	}
	return &intruder{t: t, host: h, key: raw, to: id}
}

// hello makes a session, which lasts for the test.
func (i *intruder) hello(features ...string) {
	i.t.Helper()
	st, err := i.host.NewStream(within(i.t), i.to, protocols.SyncProtocol)
	if err != nil {
		i.t.Fatal(err)
	}
	sess, err := protocols.Initiate(st, protocols.HelloConfig{
		Network: replication.OpenNetwork(node.DefaultNetworkName), Self: i.host.ID(), Peer: i.to,
		Instance: replication.Instance{1}, Boot: protocols.BootNonce{1}, Attempt: 1, Label: "M", Features: features,
	})
	if err != nil {
		i.t.Fatal(err)
	}
	conn := protocols.NewConn(sess)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, release, err := conn.Read()
			release()
			if err != nil {
				return
			}
			if ping, ok := m.(*replication.Ping); ok && conn.Write(&replication.Pong{Nonce: ping.Nonce}) != nil {
				return
			}
		}
	}()
	i.t.Cleanup(func() {
		_ = conn.Close(replication.CodeShutdown, "")
		<-done
	})
}

// stream opens a stream of messages.
func (i *intruder) stream() *protocols.MsgStream {
	i.t.Helper()
	st, err := i.host.NewStream(within(i.t), i.to, protocols.MsgProtocol)
	if err != nil {
		i.t.Fatal(err)
	}
	_ = st.SetReadDeadline(time.Now().Add(patience)) // a failure of the test, not a hang
	return protocols.PushStream(st)
}

// push pushes a message and returns the verdict.
func (i *intruder) push(s *protocols.MsgStream, hops uint8, raw []byte) routing.Verdict {
	i.t.Helper()
	i.next++
	if err := s.Push(&protocols.MsgPush{Number: i.next, Hops: hops, Data: raw}); err != nil {
		i.t.Fatal(err)
	}
	a, err := s.NextAnswer()
	if err != nil || a.Number != i.next {
		i.t.Fatalf("the answer is %+v, %v", a, err)
	}
	return a.Verdict
}

func keyOf(t *testing.T, id string) routing.PeerKey {
	t.Helper()
	p, err := peer.Decode(id)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := p.ExtractPublicKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := pub.Raw()
	if err != nil {
		t.Fatal(err)
	}
	return routing.PeerKey(raw)
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

func (i *intruder) text(network routing.Network, from, to routing.PeerKey, created time.Time, sealTo routing.PeerKey) []byte {
	i.t.Helper()
	h := routing.Header{
		Kind: routing.Text, From: from, To: to, TTL: 8,
		Created: uint64(created.UnixMilli()), Lifetime: uint64(time.Hour.Milliseconds()),
	}
	if _, err := rand.Read(h.ID[:]); err != nil {
		i.t.Fatal(err)
	}
	m, err := routing.New(network, i.key, h, func(header []byte) ([]byte, error) {
		return seal.Seal(network, sealTo, header, []byte("from the intruder"))
	})
	if err != nil {
		i.t.Fatal(err)
	}
	return m.Raw
}

// What a member makes up, alters, repeats or misdirects is dropped, and counted by
// its reason.
func TestForgedAndRepeated(t *testing.T) {
	b, d := newStation(t, "B"), newStation(t, "D")
	join(t, d, b)
	m := newIntruder(t, b)
	m.hello(protocols.FeatureMsg)
	s := m.stream()
	self := routing.PeerKey(m.key.Public().(ed25519.PublicKey))
	bKey, dKey := keyOf(t, b.ID()), keyOf(t, d.ID())
	now := time.Now()

	good := m.text(openNetwork, self, dKey, now, dKey)
	altered := append([]byte{}, good...)
	altered[len(altered)-1] ^= 1
	for name, c := range map[string]struct {
		raw  []byte
		hops uint8
		want routing.Verdict
	}{
		"garbage":                    {[]byte("garbage"), 1, routing.Invalid},
		"altered":                    {altered, 1, routing.Invalid},
		"signed as somebody else":    {m.text(openNetwork, bKey, dKey, now, dKey), 1, routing.Invalid},
		"of another network":         {m.text(routing.Network{1}, self, dKey, now, dKey), 1, routing.Invalid},
		"to B and sealed to another": {m.text(openNetwork, self, bKey, now, dKey), 1, routing.Invalid},
		"two hours old":              {m.text(openNetwork, self, dKey, now.Add(-2*time.Hour), dKey), 1, routing.Expired},
		"of next month":              {m.text(openNetwork, self, dKey, now.AddDate(0, 1, 0), dKey), 1, routing.Expired},
		"more hops than its TTL":     {m.text(openNetwork, self, dKey, now, dKey), 9, routing.Invalid},
		"at the end of its TTL":      {m.text(openNetwork, self, dKey, now, dKey), 8, routing.Spent},
	} {
		if got := m.push(s, c.hops, c.raw); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if list := inbox(t, b); len(list) != 0 {
		t.Errorf("B has %+v", list)
	}
	st, err := b.Status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if dropped := st.Messages.Dropped; dropped["malformed"] != 1 || dropped["forged"] != 3 || dropped["unreadable"] != 1 || dropped["expired"] != 2 || st.Messages.Transit != 0 {
		t.Errorf("dropped %v, %+v", dropped, st.Messages)
	}

	// A good one arrives, once, however often it comes, also after a restart of D.
	if got := m.push(s, 1, good); got != routing.Stored {
		t.Fatalf("a good one: %s", got)
	}
	holds(t, d, "it does not arrive", func(m *node.MessageStatus) bool { return m.Inbox == 1 })
	for range 3 {
		if got := m.push(s, 1, good); got != routing.Duplicate && got != routing.Acked {
			t.Errorf("again: %s", got)
		}
	}
	d.stop()
	d.start()
	direct := newIntruder(t, d)
	direct.hello(protocols.FeatureMsg)
	s2 := direct.stream()
	if got := direct.push(s2, 1, good); got != routing.Acked {
		t.Errorf("replayed to D: %s", got)
	}
	if list := inbox(t, d); len(list) != 1 || list[0].From != m.host.ID().String() {
		t.Errorf("D has %+v", list)
	}
}

// Messages are taken from peers with a session alone, and from those that named the
// feature; what floods is slowed down.
func TestWhoMayPush(t *testing.T) {
	b := newStation(t, "B")
	stranger := newIntruder(t, b)
	s := stranger.stream()
	if err := s.Push(&protocols.MsgPush{Number: 1, Hops: 1, Data: []byte("x")}); err == nil {
		if a, err := s.NextAnswer(); err == nil {
			t.Errorf("a stranger is answered %+v", a)
		}
	}
	stranger.hello() // without the feature
	s = stranger.stream()
	if err := s.Push(&protocols.MsgPush{Number: 1, Hops: 1, Data: []byte("x")}); err == nil {
		if a, err := s.NextAnswer(); err == nil {
			t.Errorf("a peer that takes none is answered %+v", a)
		}
	}

	m := newIntruder(t, b)
	m.hello(protocols.FeatureMsg)
	s = m.stream()
	// The burst, and whatever a slow machine adds to it by its rate.
	for i := 1; m.push(s, 1, []byte("garbage")) != routing.Busy; i++ {
		if i == 100*routing.MessageBurst {
			t.Fatal("a flood is not slowed down")
		}
	}
	// A second stream takes the place of the first.
	s2 := m.stream()
	m.push(s2, 1, []byte("x"))
	if _, err := s.NextAnswer(); err == nil || errors.Is(err, protocols.ErrStale) || isTimeout(err) {
		t.Errorf("the first stream goes on: %v", err)
	}
}
