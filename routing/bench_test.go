package routing_test

import (
	"testing"
	"time"

	"vixp2p/routing"
)

// BenchmarkLinkUp: a neighbour comes to a node whose custody is full, with 63 others
// there.
func BenchmarkLinkUp(b *testing.B) {
	w := newWorld(b, 1, 2)
	state := routing.State{}
	for i := range routing.DefaultHeld {
		m := w.text(1, 0, 8, 24*time.Hour)
		m.To = routing.PeerKey{1, byte(i), byte(i >> 8)} // to many, none of whom is there
		state.Held = append(state.Held, routing.Held{Msg: m, Hops: 2, Via: peer(200), Order: uint64(i)})
	}
	r := routing.NewRouter(routing.Config{Self: w.nodes[0].pub}, started, state)
	for i := range byte(63) {
		r.Step(started, routing.LinkUp{Peer: peer(i + 1)})
	}
	b.ResetTimer()
	for range b.N {
		r.Step(started, routing.LinkUp{Peer: peer(99)})
	}
	b.ReportMetric(float64(len(state.Held)), "held")
}
