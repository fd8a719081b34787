package routing_test

import (
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"

	"vixp2p/node"
	"vixp2p/protocols"
	"vixp2p/routing"
)

// A member that answers what nobody asked loses its stream, and is counted; what it
// is sent still reaches others.
func TestUnaskedAnswers(t *testing.T) {
	a, b := newStation(t, "A"), newStation(t, "B")
	m := newIntruder(t, a)
	var answers atomic.Int64
	m.host.SetStreamHandler(protocols.MsgProtocol, func(st network.Stream) {
		defer st.Reset()
		s := protocols.AnswerStream(st)
		p, err := s.NextPush()
		if err != nil {
			return
		}
		for s.Answer(&protocols.MsgAnswer{Number: p.Number, Verdict: routing.Stored}) == nil { // until its end
			answers.Add(1)
		}
	})
	m.hello(protocols.FeatureMsg)
	sent, err := a.Send(within(t), b.ID(), []byte("hello"), node.SendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	holds(t, a, "the answers are not counted", func(m *node.MessageStatus) bool { return m.Dropped["unasked"] >= 1 })
	join(t, b, a)
	if err := sent.Wait(within(t)); err != nil {
		t.Errorf("after %d answers: %v", answers.Load(), err)
	}
}
