package members_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
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
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"vixp2p/protocols"
	"vixp2p/replication"
	"vixp2p/test/internal/proc"
	"vixp2p/trust"
)

// recorder is a secure transport that keeps every byte that arrives, decrypted: of
// all streams, and of what libp2p itself says.
type recorder struct {
	*noise.Transport
	mu  sync.Mutex
	got bytes.Buffer // guarded by mu
}

type recordedConn struct {
	sec.SecureConn
	r *recorder
}

func (r *recorder) record(c sec.SecureConn, err error) (sec.SecureConn, error) {
	if err != nil {
		return nil, err
	}
	return &recordedConn{c, r}, nil
}

func (r *recorder) SecureInbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return r.record(r.Transport.SecureInbound(ctx, c, p))
}

func (r *recorder) SecureOutbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return r.record(r.Transport.SecureOutbound(ctx, c, p))
}

func (c *recordedConn) Read(b []byte) (int, error) {
	n, err := c.SecureConn.Read(b)
	c.r.mu.Lock()
	c.r.got.Write(b[:n])
	c.r.mu.Unlock()
	return n, err
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.got.Bytes())
}

// stranger is a client of libp2p with a connection to a node.
type stranger struct {
	t    *testing.T
	host host.Host
	to   peer.ID
	rec  *recorder
}

// meet connects to a node as whoever has the key.
func meet(t *testing.T, n *proc.Node, raw ed25519.PrivateKey) *stranger {
	t.Helper()
	key, err := crypto.UnmarshalEd25519PrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	s := &stranger{t: t, rec: &recorder{}}
	secure := func(id protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (*recorder, error) {
		s.rec.Transport, err = noise.New(id, key, muxers)
		return s.rec, err
	}
	s.host, err = libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, secure), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.host.Close() })
	host, port, err := net.SplitHostPort(n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	addr, err := ma.NewMultiaddr("/ip4/" + host + "/tcp/" + port)
	if err != nil {
		t.Fatal(err)
	}
	if s.to, err = peer.Decode(n.PeerID); err != nil {
		t.Fatal(err)
	}
	if err := s.host.Connect(t.Context(), peer.AddrInfo{ID: s.to, Addrs: []ma.Multiaddr{addr}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// open opens a stream.
func (s *stranger) open(id protocol.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	st, err := s.host.NewStream(ctx, s.to, id)
	if err == nil {
		err = st.SetDeadline(time.Now().Add(5 * time.Second))
	}
	return st, err
}

// shout opens a stream, sends bytes and hears what comes.
func (s *stranger) shout(id protocol.ID, text []byte) {
	st, err := s.open(id)
	if err != nil {
		return
	}
	defer st.Reset()
	_, _ = st.Write(text)
	_ = st.CloseWrite()
	_, _ = io.Copy(io.Discard, st)
}

// hello says Hello, and returns how it ended.
func (s *stranger) hello(id protocol.ID, of replication.NetworkID, certificate []byte) error {
	st, err := s.open(id)
	if err != nil {
		s.t.Fatalf("%s: %v", id, err)
	}
	cfg := protocols.HelloConfig{Network: of, Self: s.host.ID(), Peer: s.to, Certificate: certificate, Label: "stranger", Attempt: 1}
	_, _ = rand.Read(cfg.Instance[:])
	_, _ = rand.Read(cfg.Boot[:])
	_, err = protocols.Initiate(st, cfg)
	if err == nil { // some time for what comes by itself
		_, _ = io.CopyN(io.Discard, st, 1)
	}
	st.Reset()
	return err
}

// join asks to join with a ticket of a network.
func (s *stranger) join(t *trust.Ticket) error {
	st, err := s.open(protocols.JoinProtocol)
	if err != nil {
		s.t.Fatal(err)
	}
	self, err := protocols.OriginOf(s.host.ID())
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = protocols.RequestJoin(st, protocols.JoinConfig{
		Peer: s.to, Issuer: t.Issuer, Network: t.Network, Invite: t.Public(), Label: "stranger",
		Sign: func(nonce [32]byte) []byte { return trust.SignJoin(t, self, nonce) },
	})
	return err
}

// keyOf is the identity of a data directory.
func keyOf(t *testing.T, n *proc.Node) ed25519.PrivateKey {
	t.Helper()
	parsed, err := x509.ParsePKCS8PrivateKey(pemOf(t, n, "identity.key"))
	if err != nil {
		t.Fatal(err)
	}
	return parsed.(ed25519.PrivateKey)
}

// chainOf is the certificate that a node shows.
func chainOf(t *testing.T, n *proc.Node) *trust.Chain {
	t.Helper()
	c, err := trust.DecodeChain(pemOf(t, n, "certificate.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pemOf(t *testing.T, n *proc.Node, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s of %s is no PEM", name, n.Label)
	}
	return block.Bytes
}

// secret is something that no stranger may learn, in the forms in which it could be
// sent.
type secret struct {
	what  string
	forms [][]byte
}

func secretText(what, s string) secret { return secret{what, [][]byte{[]byte(s)}} }

func secretBytes(what string, b []byte) secret {
	return secret{what, [][]byte{b, []byte(hex.EncodeToString(b)), []byte(strings.ToUpper(hex.EncodeToString(b)))}}
}

// learned are the secrets that a client has heard.
func (s *stranger) learned(secrets []secret) (out []string) {
	got := s.rec.bytes()
	for _, x := range secrets {
		if slices.ContainsFunc(x.forms, func(f []byte) bool { return bytes.Contains(got, f) }) {
			out = append(out, x.what)
		}
	}
	return out
}

// TestStranger: what a client of libp2p receives that knows an address and no more,
// byte by byte (G7).
func TestStranger(t *testing.T) {
	long(t)
	t.Parallel()
	a := found(t, "A-"+marker(), "--name", "name-"+marker()).Start()
	space := "space-" + marker()
	a.OK("space", "create", space)
	b := join(t, a, "B-"+marker())
	key, value := "key-"+marker(), "value-"+marker()
	a.OK("put", key, value)
	a.OK("put", key, value, "--space", space)
	b.Start()
	eventually(t, "B has what A wrote", has(b, key, value))
	b.Stop() // its key is used below

	// A member of another network, who has everything there.
	other := found(t, "O", "--name", "elsewhere").Start()
	foreign, err := trust.ParseTicket(invite(other))
	if err != nil {
		t.Fatal(err)
	}
	own, err := trust.ParseTicket(invite(a))
	if err != nil {
		t.Fatal(err)
	}
	networkName := statusOf(t, a).Membership.NetworkName
	chainA, chainB := chainOf(t, a), chainOf(t, b)
	bID, err := peer.Decode(idOf(b))
	if err != nil {
		t.Fatal(err)
	}
	bKey := chainB.Leaf.Subject
	var root struct{ Root string }
	text, err := os.ReadFile(filepath.Join(a.Dir, "network"))
	if err != nil || json.Unmarshal(text, &root) != nil || len(root.Root) != 64 {
		t.Fatalf("network file %q: %v", text, err)
	}
	rootKey, err := hex.DecodeString(root.Root)
	if err != nil {
		t.Fatal(err)
	}
	spaceID, defaultID, controlID := replication.SpaceOf(own.Network, space), replication.SpaceOf(own.Network, replication.DefaultSpace), trust.ControlSpace(own.Network)
	secrets := []secret{
		secretText("A's label", a.Label), secretText("B's label", b.Label), secretText("the network's name", networkName),
		secretBytes("the network id", own.Network[:]), secretBytes("the root key's public half", rootKey),
		secretText("the name of a space", space), secretBytes("a space's id", spaceID[:]),
		secretBytes("the id of the space default", defaultID[:]), secretBytes("the id of the control space", controlID[:]),
		secretBytes("A's certificate", chainA.Leaf.Encode()), secretBytes("B's certificate", chainB.Leaf.Encode()),
		secretBytes("A's chain", chainA.Encode()), secretBytes("B's key", bKey[:]), secretText("B's peer ID", bID.String()), secretBytes("B's peer ID as bytes", []byte(bID)),
		secretText("a key", key), secretText("a value", value),
	}

	_, nobody, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// Its ticket says that A is the issuer, or its own side would not ask.
	forged := *foreign
	forged.Issuer = own.Issuer
	guessed := *own
	_, _ = rand.Read(guessed.Seed[:])
	garbage := make([]byte, 4096)
	_, _ = rand.Read(garbage)
	for name, who := range map[string]struct {
		key         ed25519.PrivateKey
		certificate []byte
	}{"nobody": {nobody, nil}, "a member of another network": {keyOf(t, other), chainOf(t, other).Encode()}} {
		s := meet(t, a, who.key)
		names, err := s.host.Peerstore().GetProtocols(s.to)
		if err != nil || !slices.Contains(names, protocols.SyncProtocol) || !slices.Contains(names, protocols.JoinProtocol) || !slices.Contains(names, protocols.MsgProtocol) {
			t.Fatalf("%s: identify names %v, %v", name, names, err)
		}
		var shouting sync.WaitGroup
		for _, id := range names {
			shouting.Go(func() {
				for _, text := range [][]byte{nil, garbage, {0}, {5, 1, 2, 3, 4, 5}, []byte("GET / HTTP/1.1\r\n\r\n")} {
					s.shout(id, text)
				}
			})
		}
		shouting.Wait()
		for _, id := range []protocol.ID{protocols.SyncProtocol, protocols.HelloProtocol} {
			if err := s.hello(id, foreign.Network, who.certificate); err == nil {
				t.Errorf("%s is let in by %s", name, id)
			}
		}
		if err := s.join(&forged); err == nil {
			t.Errorf("%s joins with a ticket of another network", name)
		}
		if heard := s.learned(secrets); len(heard) > 0 {
			t.Errorf("%s learns %q", name, heard)
		}
		if n := len(s.rec.bytes()); n < 500 || !bytes.Contains(s.rec.bytes(), []byte(protocols.SyncProtocol)) {
			t.Errorf("only %d bytes were recorded", n)
		}
		t.Logf("%s received %d bytes on %d protocols", name, len(s.rec.bytes()), len(names))
	}

	// Who knows the network id, such as a member that was put out, and has no
	// certificate of it learns nothing either.
	s := meet(t, a, keyOf(t, other))
	if err := s.hello(protocols.SyncProtocol, own.Network, chainOf(t, other).Encode()); err == nil {
		t.Error("a certificate of another network is let in")
	}
	if err := s.hello(protocols.HelloProtocol, own.Network, nil); err == nil {
		t.Error("no certificate is let in")
	}
	if err := s.join(&guessed); err == nil {
		t.Error("a guessed ticket admits")
	}
	if heard := s.learned(secrets); len(heard) > 0 {
		t.Errorf("who knows the network id alone learns %q", heard)
	}

	// A member hears some of it, which shows that it would have been found.
	s = meet(t, a, keyOf(t, b))
	if err := s.hello(protocols.SyncProtocol, own.Network, chainB.Encode()); err != nil {
		t.Fatalf("a member is refused: %v", err)
	}
	if heard := s.learned(secrets); !slices.Contains(heard, "A's label") || !slices.Contains(heard, "A's certificate") {
		t.Errorf("a member hears %q", heard)
	}
}
