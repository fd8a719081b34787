// Package replication is the pure core of the node: what a log is, and how two
// members bring each other up to date.
//
// Nothing in it starts a goroutine, reads a clock, draws a random number or
// touches a disk or a socket; what it needs of these is passed in, so that the
// same input always gives the same output. It imports the standard library,
// protowire, and package canonical: the subset of protobuf's format in which
// signed bytes are kept (design 12).
//
//	append -> block -> log (fsync) -> outbox -> push -> peer verifies -> peer's log (fsync) -> ack -> receipt
//
//	ids.go       NetworkID, SpaceID, LogID, Epoch, Instance, Dot, Position
//	hlc.go       hybrid logical clock
//	block.go     header, signature and body as one run of bytes (design 4.1)
//	body.go      operations inside a block (design 4.2)
//	run.go       the unit of trust: blocks up to a signature (design 4.4)
//	frontier.go  what a node holds, and its digest
//	store.go     the interface that package wal (Badger) and memlog implement
//	message.go   what two sessions say to each other
//	session.go   the per-peer state machine (design 6.1)
//	mesh.go      which session pushes which log (design 6.4)
//	errors.go    sentinels and small error types
package replication
