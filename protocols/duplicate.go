package protocols

import "github.com/libp2p/go-libp2p/core/peer"

// SessionMeta is what decides between two live sessions of one pair. Both sides
// of a session know the same, but for Order.
type SessionMeta struct {
	Initiator, Responder         peer.ID
	InitiatorBoot, ResponderBoot BootNonce
	// Attempt counts the handshakes that the initiator's process began.
	Attempt uint64
	// Order counts sessions in the order in which this node accepted them. It
	// decides only where one side restarted, and then the restarted side knows
	// of one session alone.
	Order uint64
}

// sameProcesses tells whether neither side restarted between two sessions.
func (a SessionMeta) sameProcesses(b SessionMeta) bool {
	if a.Initiator == b.Initiator {
		return a.InitiatorBoot == b.InitiatorBoot && a.ResponderBoot == b.ResponderBoot
	}
	return a.InitiatorBoot == b.ResponderBoot && a.ResponderBoot == b.InitiatorBoot
}

// Keep tells which of two live sessions of one pair stays.
type Keep int

const (
	KeepFirst  Keep = 1
	KeepSecond Keep = 2
)

// KeepWhich decides between two live sessions of one pair (design 7.3):
//
//   - a different boot nonce: a side restarted, the newer stays;
//   - the same initiator: its later attempt stays;
//   - crossed dials: the one that the lower peer ID dialled stays.
//
// It depends on neither the side that asks nor the order of a and b. The loser
// is closed with CodeDuplicate, and nobody backs off.
func KeepWhich(a, b SessionMeta) Keep {
	var first bool
	switch {
	case !a.sameProcesses(b):
		first = a.Order > b.Order
	case a.Initiator == b.Initiator:
		first = a.Attempt > b.Attempt
	default:
		first = a.Initiator < b.Initiator
	}
	if first {
		return KeepFirst
	}
	return KeepSecond
}
