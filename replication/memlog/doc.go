// Package memlog is a replication.Store in memory, for tests and simulation. It
// does what package wal does on Badger, and both pass the suite of package
// logtest.
//
// It starts no goroutine, reads no clock and draws no random number but those of
// its Options, so that a simulation replays from its seed. What survives a crash
// is a Disk:
//
//	Append, Ingest -> queue -> transaction -> Disk -> Resolver, Subscribe, answer
//	                  |-- lost in a crash --|  |-- survives ------------------|
//
// Without Options.Manual the caller that queues a request also commits it, and
// whatever others have queued meanwhile. With Manual nothing becomes durable, and
// nothing is answered, before the test calls Flush or FlushOne: the time between
// is where a crash hurts.
//
// The queue is not bounded: its users are tests that know what they queue.
package memlog
