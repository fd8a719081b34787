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
}

// metric is one counter or gauge of the node.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(c *Counters) float64
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
	if err := m.register.Register(m); err != nil {
		return nil, fmt.Errorf("cannot register metrics: %w", err)
	}
	return m, nil
}

func (m *metrics) close() { m.register.Unregister(m) }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, x := range m.all {
		ch <- x.desc
	}
	ch <- m.ops
	ch <- m.bytes
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	c := m.n.Counters()
	for _, x := range m.all {
		ch <- prometheus.MustNewConstMetric(x.desc, x.kind, x.read(&c))
	}
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
