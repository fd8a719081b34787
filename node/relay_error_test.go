package node

import (
	"strings"
	"testing"
)

// TestPeerLeftTheRelay: of a peer that has ended the relay says that it has no place,
// which is told as that, with an address that connect takes.
func TestPeerLeftTheRelay(t *testing.T) {
	t.Parallel()
	relay := openRelay(t, RelayConfig{})
	a := open(t, Config{Label: "A", Open: true, Listen: []string{"127.0.0.1:0"}, Relays: []string{at(t, relay)}, NoTCP: true})
	addr := place(t, a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the relay knows that A has gone", func() bool { return relay.Status().Reservations == 0 })
	b := open(t, Config{Label: "B", Connect: []string{addr}, NoQUIC: true})
	until(t, "the endpoint shows why", func() bool {
		for _, e := range b.endpoints() {
			if e.Endpoint == addr && strings.Contains(e.Error, "no connection to "+addr+": the peer has no place at the relay now") {
				return true
			}
			if e.Error != "" {
				t.Logf("%s: %s", e.Endpoint, e.Error)
			}
		}
		return false
	})
}
