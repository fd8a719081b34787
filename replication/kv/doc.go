// Package kv is the built-in key-value view (design 5): a register per key that
// keeps concurrent writes as siblings, built by applying the logs in the order
// in which their blocks became durable here.
//
//	replication.Store --Subscribe--> apply goroutine --> Badger (unsynced)
//	       ^                                                  |
//	   committer <--Resolve-- overlay + snapshot <------------+--> Get, List, Watch
//
// The view has its own Badger, which it does not sync: everything in it follows
// from the logs. The cursor of a space is the arrival number of the last block
// applied and stands in the same transaction as the state, so a crash of the
// process loses nothing and one of the machine costs a rebuild.
//
// A space that is written all the time is applied every 5 ms, many blocks in one
// transaction, so that the view takes little from the writers; whoever waits for
// the view makes it go on at once. The first change after a pause, and a long
// backlog, are applied without one.
//
// # Commits
//
// While one transaction is being written, the blocks after it are applied and the next
// one is made. There is one commit under way at most, and they land in order; what it
// changes is kept in memory or waited for. Readers see a commit, and its own operations
// leave the overlay, once it has landed. One that fails takes with it what was staged
// since, and the space goes on from its cursor (commit.go). Only within a turn of a
// space is a commit under way: retreats, rebuilds and other spaces find none.
//
// # Layout
//
// Every record ends in the CRC-32C of its key and itself. Space ids have 16
// bytes, log ids and hashes 32, a dot is log and seq (8 bytes, big endian).
//
//	c space              cursor, counts and digest of the space
//	s space key          the key's siblings, winner first; absent without any
//	o space hash dot     one sibling of a key (hash) that has more than 32
//	v space dot          the value of a sibling, if longer than 4 KiB
//	e space              the space is encrypted; absent where it is not
//	p space dot hash     the dot is named on a key (hash) but not here yet
//	a space log          seq and block hash applied; number of p records
//	r space arrival op   a key that a retreat changed, for watchers
//
// A delete leaves nothing once what it names has arrived: the record of the key
// goes with its last sibling, and a p record with its dot.
//
// # Memory
//
// Records of keys that were read or written lately are kept in memory, 64 MiB by
// default (cache.go). The writer puts in what it changes before any reader sees the
// commit, and a hit is right for every state from the one on that it is of, so that a
// read from memory is the read that a transaction would have given. What is found there
// was checked when it was read. What callers get is a copy.
//
// # Own writes
//
// The committer asks Resolve what a write supersedes. Between Resolve and the
// apply goroutine an operation is in the overlay, so that a program reads its
// own writes and does not conflict with itself. Operations of others count, and
// are seen, from when they are applied: before, nobody here can have meant to
// replace them.
//
// # Cuts
//
// What lies beyond a cut (design 5.5, 9.4) never influences the state: after a
// retreat of the store the view is what one built anew from the retained blocks is.
// The keys of the dropped operations are worked out from them, in one pass over
// the space and with at most 32 MiB in memory; beyond that, or where the dropped
// blocks cannot be read any more, the view is rebuilt (retreat.go). Reads, Resolve
// and WaitApplied wait for every retreat that the store told of before; Open
// compares what is applied with what the store holds, so that a retreat that a
// killed process did not finish, or did not hear of, is taken up before anything is
// read.
//
// Pending records are kept for dots beyond a cut too: the view does not know cuts,
// and a cut that is lifted lets those come yet.
//
// For each key whose siblings a retreat changes there is a record for watchers, at
// the place in arrival order where it happened, until the next rebuild. A cursor
// of before goes on without a gap.
//
// # Damage
//
// Nothing that was damaged is served (G9). Four checks see to it:
//
//   - Closed cleanly, the view records size, time stamps, inode and CRC-32C of
//     each of its files; at Open they must be the same. Of a view beyond 64 MiB
//     the content of tables that seem unchanged is compared while it is open
//     already (files.go).
//   - After a process was killed, Open verifies Badger's manifest and all block
//     checksums of its tables, and then every record, before any read is
//     answered: the checksums, that a read finds what a scan meets, and that the
//     hashes of all siblings and the positions of all logs add up to the stored
//     sums. BenchmarkVerify tells how long that takes: seconds per million keys.
//   - Every record that is read is checked, and a panic of Badger on damaged
//     files is caught.
//   - Verify does all of this on demand, and can compute the state again from
//     the logs.
//
// Each failure starts a new generation: the view is built again from the logs,
// and reads wait for it; after the first, with a pause that grows while damage
// keeps coming, and reads fail until then. A space that fails at the same place
// in a view that was built anew is not rebuilt again: the store of the logs is at
// fault, and reads of that space say so (StuckError).
//
// What remains is damage in places where Badger keeps keys, that happens to the
// files while they are open, or that a disk does on its own to a table of a large
// view while it is closed: until Verify, the next unclean start or, of the second
// kind, the comparison at the start, such a key can look absent. A damaged table
// can also make Badger panic in its compaction, in a goroutine of its own: that
// ends the process, and the next Open finds the damage.
package kv
