package protocols

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Design 7.3: every pair of sessions of two processes, seen from both sides, with
// every order in which each side may have accepted them, gives one survivor.
func TestBothSidesKeepTheSame(t *testing.T) {
	low, high := peer.ID("low"), peer.ID("zzz")
	bootL, bootH := BootNonce{1}, BootNonce{2}
	dial := func(by peer.ID, attempt uint64) SessionMeta {
		if by == low {
			return SessionMeta{Initiator: low, Responder: high, InitiatorBoot: bootL, ResponderBoot: bootH, Attempt: attempt}
		}
		return SessionMeta{Initiator: high, Responder: low, InitiatorBoot: bootH, ResponderBoot: bootL, Attempt: attempt}
	}
	for _, c := range []struct {
		name string
		a, b SessionMeta
		want SessionMeta
	}{
		{"two dials of the lower", dial(low, 1), dial(low, 2), dial(low, 2)},
		{"two dials of the higher", dial(high, 7), dial(high, 3), dial(high, 7)},
		{"crossed, lower first", dial(low, 1), dial(high, 1), dial(low, 1)},
		{"crossed, higher is later", dial(low, 1), dial(high, 9), dial(low, 1)},
		{"crossed, higher is earlier", dial(low, 9), dial(high, 1), dial(low, 9)},
	} {
		for _, order := range [][2]uint64{{1, 2}, {2, 1}} {
			a, b := c.a, c.b
			a.Order, b.Order = order[0], order[1]
			kept := a
			if KeepWhich(a, b) == KeepSecond {
				kept = b
			}
			swapped := b
			if KeepWhich(b, a) == KeepSecond {
				swapped = a
			}
			if kept != swapped {
				t.Errorf("%s, order %v: the answer depends on who is asked about first", c.name, order)
			}
			kept.Order = 0
			if kept != c.want {
				t.Errorf("%s, order %v: kept %+v", c.name, order, kept)
			}
		}
	}
}

// Where one side restarted only the other knows of both sessions; it keeps the
// one that it accepted later, whoever dialled.
func TestARestartReplacesTheSession(t *testing.T) {
	low, high := peer.ID("low"), peer.ID("zzz")
	old := SessionMeta{Initiator: low, Responder: high, InitiatorBoot: BootNonce{1}, ResponderBoot: BootNonce{2}, Attempt: 9, Order: 1}
	for name, fresh := range map[string]SessionMeta{
		"the dialer restarted":         {Initiator: low, Responder: high, InitiatorBoot: BootNonce{3}, ResponderBoot: BootNonce{2}, Attempt: 1, Order: 2},
		"the responder restarted":      {Initiator: low, Responder: high, InitiatorBoot: BootNonce{1}, ResponderBoot: BootNonce{3}, Attempt: 10, Order: 2},
		"it restarted and dialled":     {Initiator: high, Responder: low, InitiatorBoot: BootNonce{3}, ResponderBoot: BootNonce{1}, Attempt: 1, Order: 2},
		"the dialer restarted, called": {Initiator: high, Responder: low, InitiatorBoot: BootNonce{2}, ResponderBoot: BootNonce{3}, Attempt: 1, Order: 2},
	} {
		if KeepWhich(old, fresh) != KeepSecond || KeepWhich(fresh, old) != KeepFirst {
			t.Errorf("%s: the old session stays", name)
		}
	}
}
