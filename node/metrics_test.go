package node

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// gathered are the values of one node's metrics, by name, and kind or reason if
// there is one.
func gathered(t *testing.T, reg prometheus.Gatherer, n *Node) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name, mine := f.GetName(), false
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "peer_id":
					mine = l.GetValue() == n.ID()
				case "kind", "reason":
					name += " " + l.GetValue()
				}
			}
			if mine {
				values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return values
}

func TestMessageMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	shown := func(c *Config) { c.Registerer = reg }
	a, b := lone(t, "A", shown), lone(t, "B", shown)
	silent := lone(t, "C", func(c *Config) { c.Registerer, c.NoMessages = reg, true })
	joined(t, a, b)
	if err := sendText(t, a, "B", "to B").Wait(deadline(t)); err != nil {
		t.Fatal(err)
	}
	sendText(t, a, peerName(t), "to somebody who is away")
	// A holds B's acknowledgement, B its own and the other text.
	messagesUntil(t, b, "it is not carried", func(m *MessageStatus) bool { return m.Transit == 1 })
	for _, c := range []struct {
		n    *Node
		want map[string]float64
	}{{a, map[string]float64{
		"carried": 1, "sent_total": 2, "delivered_total": 1, "undelivered_total": 0, "outbox": 1, "inbox": 0, "held reply": 1, "held text": 0,
		"dropped_total unasked": 0, "dropped_total forged": 0,
	}}, {b, map[string]float64{
		"carried": 1, "sent_total": 0, "received_total": 1, "inbox": 1, "unread": 1, "held text": 1, "held reply": 0, "evicted_total": 0,
	}}} {
		got := gathered(t, reg, c.n)
		for name, want := range c.want {
			if value, there := got["vix_messages_"+name]; !there || value != want {
				t.Errorf("%s: %s is %v (there: %v), want %v", c.n.Label(), name, value, there, want)
			}
		}
		if got["vix_messages_held_bytes"] < 100 {
			t.Errorf("%s: %v bytes are held", c.n.Label(), got["vix_messages_held_bytes"])
		}
	}
	for name := range gathered(t, reg, silent) {
		if strings.HasPrefix(name, "vix_messages_") {
			t.Errorf("a node that takes no part shows %s", name)
		}
	}
}
