// Package routing carries messages to members that are not directly connected
// (design 8): hop by hop, along a known route where there is one, else by copies
// to everyone, stored at each hop until the recipient's acknowledgement comes past
// or the message expires.
//
//	Send -> Message (signed, sealed) -> Router -> Persist -> Push to neighbours
//	                                      ^                      |
//	                     Committed -------+                      v
//	                                                     their Router: Persist,
//	   Delivered <- Ack <- ... <- Ack <------------------ only then "stored"
//
// Four parts, all pure: no goroutine, no clock, no I/O, no randomness that is not
// passed in; standard library and protowire only.
//
//   - [Message] is the format: a canonical header, a signature of the sender over
//     header and body, and a body that only the recipient can open (package
//     routing/seal). Only the count of hops lies outside of the signature.
//   - [Table] knows which neighbour leads where: from live sessions, from hand, and
//     from the messages that came past.
//   - [Router] is the state machine: events in, effects out. What it says to a
//     neighbour about storing follows only from the event Committed, so that
//     "stored" is durable by construction.
//   - [Limiter] bounds what a neighbour may make this node look at, before any
//     signature is verified.
//
// The idea of copying to whoever is met until the message has arrived is epidemic
// routing (Vahdat and Becker, 2000); that acknowledgements chase the copies and
// make nodes immune against later ones is the "vaccine" of Haas and Small (2006).
package routing
