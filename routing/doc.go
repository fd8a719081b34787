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
// # What is kept, and why it is bounded
//
// Identities cost nothing in an open network, sessions and signatures do. What
// others make a node keep is therefore counted in shares, by [Limits]:
//
//   - Texts of others: Held and HeldBytes in all; of these 1/8 for a sender, 1/16
//     for a sender to one recipient, so that one who is away does not shut out its
//     others, and 1/4 from a neighbour, whose own texts do not wait for what it
//     carries. What exceeds one of the last three is refused and stays with the hop
//     before. When all is full the neighbour with the largest
//     share gives way to those with less, the oldest that it carried first, its own
//     last: one that floods loses only its own.
//   - Acks of others, and all notices: half as many as Held, each of at most 578
//     bytes; of these 1/16 for a pair of sender and recipient and 1/4 from a
//     neighbour. They have no share of texts, and none by sender alone: whoever sends
//     somebody texts makes it sign acks, as many as it likes. In a full share the
//     newest takes the place of one that was passed on, else of the oldest. What is
//     lost by that comes again: a recipient keeps its own acks until their texts
//     expire, and answers each copy of a text with its ack.
//   - Notices of this node count as if they came from a neighbour, and are made only
//     where nothing gives way to them. A notice ends with its text.
//   - Texts to this node are remembered, and each has one ack of this node: Seen in
//     all, of these 1/4 of a sender. Beyond that texts are refused.
//   - Texts of this node: Own.
//
// What gives way does so in the transaction that stores the newcomer. What is known
// of neighbours' copies of a message is bounded by a number for each message, routes
// by those of [Table], and what is said about time by [MaxLifetime].
//
// The idea of copying to whoever is met until the message has arrived is epidemic
// routing (Vahdat and Becker, 2000); that acknowledgements chase the copies and
// make nodes immune against later ones is the "vaccine" of Haas and Small (2006).
package routing
