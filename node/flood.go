package node

import (
	"errors"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A stream costs this node something before its protocol is known, and one that is
// refused costs it too. So a peer may begin streamBurst times what it may have at one
// time (peerStreams), and then as many a second as it may have: far more than an
// honest one needs, which has one for its session, one for messages, one for the DHT,
// and a few when it connects. One that has more of them refused by the resource
// manager is far beyond that too.
const streamBurst = 4

var errFlood = errors.New("it opens streams without end")

// meteredStreams is a resource manager that asks the gate about each stream that a peer
// begins, before anything is made for it.
type meteredStreams struct {
	network.ResourceManager
	gate *gate
}

// OpenStream implements network.ResourceManager.
func (m meteredStreams) OpenStream(id peer.ID, dir network.Direction) (network.StreamManagementScope, error) {
	if dir == network.DirInbound {
		ok, news := m.gate.stream(id)
		if news {
			m.gate.flooded(id)
		}
		if !ok {
			return nil, errFlood
		}
	}
	return m.ResourceManager.OpenStream(id, dir)
}

// flooded ends all that there is with a peer that opens streams without end, and keeps
// it away; it does not wait. A relay of this node stays: each of its streams is
// somebody who comes through it, and those that are too many were refused.
func (m *mesh) flooded(id peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.wg.Go(func() {
		defer m.gate.calm(id)
		if m.host.ConnManager().IsProtected(id, relayTag) {
			return
		}
		m.gate.flood(id)
		for i, c := range m.host.Network().ConnsToPeer(id) {
			if i == 0 {
				m.named("a peer broke the protocol", c, errFlood)
			}
			_ = c.CloseWithError(network.ConnRateLimited) // it is given up
		}
	})
}
