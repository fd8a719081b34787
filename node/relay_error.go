package node

import (
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
)

// endpointText is the guard's name of an endpoint as people write it: a way through a
// relay is the multiaddr that connect takes.
func endpointText(key string) string { return strings.TrimPrefix(key, schemeRelay+"://") }

// relaySays are the answers of a relay that makes no connection to the peer behind
// it, and what they mean.
var relaySays = []struct {
	status pbv2.Status
	text   string
}{
	{pbv2.Status_NO_RESERVATION, "the peer has no place at the relay now: it is not running, or others reach it in another way: start it, or take an address that its `status` shows"},
	{pbv2.Status_CONNECTION_FAILED, "the relay does not reach the peer now, which has a place there: it may have just ended; see whether it runs"},
	{pbv2.Status_RESOURCE_LIMIT_EXCEEDED, "the relay carries as many connections as it takes: try again later, or have its operator raise --relay-circuits"},
	{pbv2.Status_PERMISSION_DENIED, "the relay does not let this node connect to that peer: use another relay"},
}

// relayAnswer is what a relay answered to a dial through it; empty: it did not refuse.
// libp2p keeps no more of that than a text with the name of the status.
func relayAnswer(err error) string {
	var dial *swarm.DialError
	if !errors.As(err, &dial) {
		return ""
	}
	for i := range dial.DialErrors {
		last := &dial.DialErrors[i]
		for _, says := range relaySays {
			if isRelayed(last.Address) && strings.Contains(last.Cause.Error(), fmt.Sprintf("%s (%d)", says.status, says.status)) {
				return says.text
			}
		}
	}
	return ""
}
