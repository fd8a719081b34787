// Package replicator drives replication sessions: it carries out the effects of
// replication.Session (design 6.1) over a connection that carries messages and
// a store that holds logs. It knows neither libp2p nor protobuf.
//
// Every peer has one actor goroutine, which owns the session and never blocks on
// the network or on the disk, one goroutine that reads the connection and one
// that writes it. Work that takes time runs beside the actor, in order, and its
// answer comes back as an event:
//
//	            +------------------------------ Peer ------------------------------+
//	Conn.Read --> reader --> actor (Session.Step) --> writer -------------> Conn.Write
//	            |             ^   |         |                                      |
//	            |     events  |   |         +--> reads   (frontiers, runs) -+      |
//	            |             |   +------------> commits (verify, ingest) --+      |
//	            |             +--- mailbox <-------------------------------+       |
//	            +---------------------^--------------------------------------------+
//	                                  |  Advance, one entry per log that moved
//	                        Store.Subscribe: whatever became durable, from whom ever
//
// Forwarding is nothing special: what one session commits reaches the others by
// Store.Subscribe, after its fsync.
package replicator
