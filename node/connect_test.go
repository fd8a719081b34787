package node

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"

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
