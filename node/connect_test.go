package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"vixp2p/replication/replicator"
)

// TestKnownPeerIsGone: of a peer that was connected QUIC addresses are known too,
// which say nothing when it is gone; the refusal of its TCP port does.
func TestKnownPeerIsGone(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A"})
	b := open(t, Config{Label: "B", Connect: []string{hostPort(t, a)}})
	converge(t, 0, a, b)
	until(t, "they are connected", func() bool { return peerState(t, b, a.ID()).State == Connected })
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the refusal is told", func() bool {
		return slices.ContainsFunc(b.endpoints(), func(e EndpointStatus) bool {
			return strings.Contains(e.Error, "nothing listens at tcp://")
		})
	})
	if at := peerState(t, b, a.ID()); !strings.Contains(at.LastError, "nothing listens at tcp://") {
		t.Errorf("status says %q", at.LastError)
	}
}

// dyingHost loses its connections to peers whenever it is asked to use one, as if
// they had just been killed.
type dyingHost struct{ host.Host }

func (h dyingHost) Connect(ctx context.Context, at peer.AddrInfo) error {
	if h.Network().Connectedness(at.ID) != network.Connected {
		return h.Host.Connect(ctx, at)
	}
	return h.Network().ClosePeer(at.ID)
}

// TestConnectionDiesWhileItIsUsed: that a connection ended which was there before
// says nothing of who answers now.
func TestConnectionDiesWhileItIsUsed(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A", NoQUIC: true, NoConnect: true})
	b := open(t, Config{Label: "B", NoQUIC: true, NoConnect: true})
	addr := hostPort(t, a)
	if _, _, err := b.Connect(deadline(t), addr); err != nil {
		t.Fatal(err)
	}
	c := b.mesh.connector
	c.host = dyingHost{c.host}
	at := mustTarget(t, addr)
	if conn, err := c.connect(deadline(t), at, a.id, time.Now().Add(patience)); err != nil || conn.IsClosed() {
		t.Errorf("a peer that is there: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.connect(deadline(t), at, a.id, time.Now().Add(patience)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a peer that is gone: %v", err)
	}
}

// TestNamesAreResolvedAgain: a name is looked up for every dial, so that a peer is
// found again where its name leads now; one that leads nowhere is told as such.
func TestNamesAreResolvedAgain(t *testing.T) {
	t.Parallel()
	a := open(t, Config{Label: "A", NoConnect: true})
	b := open(t, Config{Label: "B", NoConnect: true}) // remembers no addresses of A
	var at atomic.Pointer[string]
	b.mesh.connector.resolve = func(ctx context.Context, scheme, host string, _ uint16) ([]ma.Multiaddr, error) {
		if host != "a.example" {
			t.Errorf("%s is resolved", host)
		}
		if at.Load() == nil {
			return nil, fmt.Errorf("no: %w", &net.DNSError{Err: "no such host", Name: host})
		}
		host, port, err := splitHostPort(*at.Load())
		if err != nil {
			return nil, err
		}
		return resolveHost(ctx, scheme, host, port)
	}
	_, _, err := b.Connect(deadline(t), "a.example:9001")
	if err == nil || !strings.Contains(err.Error(), "the name a.example cannot be resolved (no such host)") {
		t.Errorf("a name that leads nowhere: %v", err)
	}
	first := hostPort(t, a)
	at.Store(&first)
	if _, _, err := b.Connect(deadline(t), "a.example:9001"); err != nil {
		t.Fatal(err)
	}
	dir := a.DataDir()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, Config{Label: "A", DataDir: dir, NoConnect: true})
	second := hostPort(t, a)
	at.Store(&second)
	connected(t, a, b)
}

// TestBroken: libp2p's layers each say that a stream was reset; people read it
// once.
func TestBroken(t *testing.T) {
	cause := fmt.Errorf("%w: stream reset: connection closed: %w", network.ErrReset, &net.OpError{Op: "read", Net: "tcp4", Err: syscall.ECONNRESET})
	err := error(&replicator.EndError{Peer: "B", Cause: broken(cause)})
	if want := "session with B ended: the connection broke: the peer is gone without a goodbye"; err.Error() != want || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want %s", err, want)
	}
	if other := errors.New("another"); broken(nil) != nil || broken(other).Error() != "another" {
		t.Errorf("%v, %v", broken(nil), broken(other))
	}
}

// A network that is not there is told as that, whichever transport met it first.
func TestDialErrorWithoutANetwork(t *testing.T) {
	addr := ma.StringCast("/ip4/192.0.2.1/udp/4001/quic-v1")
	for _, cause := range []error{
		&quic.TransportError{ErrorCode: quic.InternalError, ErrorMessage: "write udp4: sendmsg: network is unreachable"},
		&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ENETUNREACH},
	} {
		err := &DialError{"quic://192.0.2.1:4001", &swarm.DialError{DialErrors: []swarm.TransportError{{Address: addr, Cause: cause}}}}
		if want := "quic://192.0.2.1:4001 cannot be reached from here (no route): check the address and the network"; err.Error() != want {
			t.Errorf("%T: %s", cause, err)
		}
	}
}
