// Package replicator drives replication sessions: it carries out the effects of
// replication.Session (design 6.1) over a connection that carries messages and
// a store that holds logs. It knows neither libp2p nor protobuf.
//
// Every peer has one actor goroutine, which owns the session and never blocks on
// the network or on the disk, one goroutine that reads the connection and one
// that writes it. Work that takes time runs beside the actor, in order, and its
// answer comes back as an event; what is quicker than the way there and back, a run that
// is still in memory or one small run to verify, the actor does itself:
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
//
//	replicator.go   Options, Replicator: sessions, spaces, fan-out, Close
//	conn.go         Conn and PeerInfo, which the caller provides; EndError
//	peer.go         the actor of a session and its end
//	effects.go      what the session says, carried out
//	mesh.go         who pushes which log to this node (design 6.4)
//	commit.go       runs from the peer: verified, ingested, answered in order
//	mailbox.go      what reaches an actor besides messages
//	writer.go       messages to the peer, without blocking the actor
//	lane.go         jobs beside the actor, in order
//	budget.go       memory for received runs, shared fairly
//	holding.go      which received bytes are still needed
//	partials.go     interrupted runs, from one session to the next
//	receipts.go     WaitReplicated: who stated what (design 6.8)
//	peer_report.go  what a session answers to those who wait
//	synced.go       WaitSynced
//	totals.go       the sums of status, every second
//	status.go       where replication stands; counters.go what it did
//	warnings.go     warnings that peers cause, not too many
//	codes.go        errors -> refusal codes
package replicator
