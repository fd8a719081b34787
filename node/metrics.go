package node

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"vixp2p/replication"
)

// metrics shows the node's counters to Prometheus. They are read when asked for.
type metrics struct {
	n        *Node
	register prometheus.Registerer
	all      []metric
	ops      *prometheus.Desc // by space
	bytes    *prometheus.Desc

	messages []messageMetric
	held     *prometheus.Desc // by kind
	dropped  *prometheus.Desc // by reason
}

// metric is one counter or gauge of the node.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(c *Counters) float64
}

// messageMetric is one of routed messages. It is not shown while none are carried,
// unless it is always there.
type messageMetric struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	always bool
	read   func(st *MessageStatus) float64
}

// newMetrics registers the node's metrics, under the label peer_id so that
// several nodes of one process can share a registry.
func newMetrics(n *Node) (*metrics, error) {
	m := &metrics{n: n, register: prometheus.WrapRegistererWith(prometheus.Labels{"peer_id": n.ID()}, n.cfg.Registerer)}
	add := func(name, help string, kind prometheus.ValueType, read func(c *Counters) float64) {
		m.all = append(m.all, metric{prometheus.NewDesc("vix_"+name, help, nil, nil), kind, read})
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	add("peers_connected", "Peers with a session.", gauge, func(c *Counters) float64 { return float64(c.PeersConnected) })
	add("peers_known", "Peers that the node remembers.", gauge, func(c *Counters) float64 { return float64(c.PeersTotal) })
	add("handshakes_started_total", "Handshakes begun by either side.", counter, func(c *Counters) float64 { return float64(c.HandshakesStarted) })
	add("handshakes_completed_total", "Handshakes that became a session.", counter, func(c *Counters) float64 { return float64(c.HandshakesCompleted) })
	add("connect_attempts_total", "Dials made.", counter, func(c *Counters) float64 { return float64(c.ConnectAttempts) })
	add("connect_deduped_total", "Dials left out because the same was under way or just made.", counter, func(c *Counters) float64 { return float64(c.ConnectDeduped) })
	add("connect_failures_total", "Dials and handshakes that failed.", counter, func(c *Counters) float64 { return float64(c.ConnectFailures) })
	add("backoff_skips_total", "Dials left out because the endpoint was backing off.", counter, func(c *Counters) float64 { return float64(c.BackoffSkips) })
	add("tracked_endpoints", "Endpoints that the connection guard knows.", gauge, func(c *Counters) float64 { return float64(c.TrackedEndpoints) })
	add("replicated_ops_in_total", "Operations committed from peers.", counter, func(c *Counters) float64 { return float64(c.Replication.OpsIn) })
	add("replicated_ops_out_total", "Operations pushed to peers, repeats included.", counter, func(c *Counters) float64 { return float64(c.Replication.OpsOut) })
	add("replicated_bytes_in_total", "Bytes of runs received.", counter, func(c *Counters) float64 { return float64(c.Replication.BytesIn) })
	add("replicated_bytes_out_total", "Bytes of runs pushed.", counter, func(c *Counters) float64 { return float64(c.Replication.BytesOut) })
	add("replicated_duplicates_total", "Runs received of which everything was held.", counter, func(c *Counters) float64 { return float64(c.Replication.Duplicates) })
	add("replicated_refused_total", "Runs received and not taken.", counter, func(c *Counters) float64 { return float64(c.Replication.Refused) })
	m.ops = prometheus.NewDesc("vix_ops", "Operations held durably.", []string{"space"}, nil)
	m.bytes = prometheus.NewDesc("vix_log_bytes", "Stored bytes of the logs.", []string{"space"}, nil)
	m.addMessages()
	if err := m.register.Register(m); err != nil {
		return nil, fmt.Errorf("cannot register metrics: %w", err)
	}
	return m, nil
}

// addMessages describes what is shown of routed messages.
func (m *metrics) addMessages() {
	add := func(name, help string, kind prometheus.ValueType, read func(st *MessageStatus) float64) {
		m.messages = append(m.messages, messageMetric{
			desc: prometheus.NewDesc("vix_messages_"+name, help, nil, nil), kind: kind, always: name == "carried", read: read,
		})
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	add("carried", "1 while messages are sent, received and carried, else 0.", gauge, func(st *MessageStatus) float64 {
		if st.Carried {
			return 1
		}
		return 0
	})
	add("inbox", "Messages to this node that are kept.", gauge, func(st *MessageStatus) float64 { return float64(st.Inbox) })
	add("unread", "Messages to this node that were not read.", gauge, func(st *MessageStatus) float64 { return float64(st.Unread) })
	add("outbox", "Messages of this node that are not acknowledged.", gauge, func(st *MessageStatus) float64 { return float64(st.Outbox) })
	add("held_bytes", "Bytes of what is carried for others.", gauge, func(st *MessageStatus) float64 { return float64(st.TransitBytes) })
	add("sent_total", "Messages of this node that became durable.", counter, func(st *MessageStatus) float64 { return float64(st.Counters.Sent) })
	add("delivered_total", "Messages of this node that their recipients acknowledged.", counter, func(st *MessageStatus) float64 { return float64(st.Counters.Delivered) })
	add("undelivered_total", "Messages of this node that expired unacknowledged, or were lost.", counter, func(st *MessageStatus) float64 { return float64(st.Counters.Undelivered) })
	add("received_total", "Messages to this node.", counter, func(st *MessageStatus) float64 { return float64(st.Counters.Received) })
	add("forwarded_total", "Pushes of others' messages that neighbours stored.", counter, func(st *MessageStatus) float64 { return float64(st.Counters.Forwarded) })
	add("expired_total", "Messages that came or were held beyond their lifetime.", counter, func(st *MessageStatus) float64 { return float64(st.Counters.Expired) })
	add("ttl_used_up_total", "Messages whose TTL was used up here.", counter, func(st *MessageStatus) float64 { return float64(st.Counters.Spent) })
	add("evicted_total", "Texts of others that made room for those of other neighbours.", counter, func(st *MessageStatus) float64 { return float64(st.Counters.Evicted) })
	m.held = prometheus.NewDesc("vix_messages_held", "Messages that are carried for others: texts, and replies (acknowledgements and notices).", []string{"kind"}, nil)
	m.dropped = prometheus.NewDesc("vix_messages_dropped_total", "What neighbours pushed or answered that was refused or did not count.", []string{"reason"}, nil)
}

// collectMessages shows nothing where messages are switched off.
func (m *metrics) collectMessages(ch chan<- prometheus.Metric) {
	st := m.n.messages.status()
	if st == nil {
		return
	}
	for _, x := range m.messages {
		if st.Carried || x.always {
			ch <- prometheus.MustNewConstMetric(x.desc, x.kind, x.read(st))
		}
	}
	if st.Carried {
		ch <- prometheus.MustNewConstMetric(m.held, prometheus.GaugeValue, float64(st.Transit-st.Replies), "text")
		ch <- prometheus.MustNewConstMetric(m.held, prometheus.GaugeValue, float64(st.Replies), "reply")
	}
	for reason, n := range st.Dropped {
		ch <- prometheus.MustNewConstMetric(m.dropped, prometheus.CounterValue, float64(n), reason)
	}
}

func (m *metrics) close() { m.register.Unregister(m) }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, x := range m.all {
		ch <- x.desc
	}
	for _, x := range m.messages {
		ch <- x.desc
	}
	ch <- m.ops
	ch <- m.bytes
	ch <- m.held
	ch <- m.dropped
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	c := m.n.Counters()
	for _, x := range m.all {
		ch <- prometheus.MustNewConstMetric(x.desc, x.kind, x.read(&c))
	}
	m.collectMessages(ch)
	e := m.n.engines.get()
	if e == nil {
		return
	}
	for _, s := range m.n.names.list() {
		var ops, bytes uint64
		for _, l := range e.store.Logs(s.ID) {
			ops, bytes = ops+heldOps(l), bytes+l.Bytes
		}
		ch <- prometheus.MustNewConstMetric(m.ops, prometheus.GaugeValue, float64(ops), spaceLabel(s))
		ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(bytes), spaceLabel(s))
	}
}

// heldOps is how many operations of a log are held.
func heldOps(l replication.LogInfo) uint64 { return l.Tip.Seq + 1 - max(l.Base, 1) }
