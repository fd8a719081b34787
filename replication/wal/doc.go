// Package wal keeps logs durably in Badger: it implements replication.Store
// (design 4.3, 4.4, 4.6 to 4.8, guarantees G1 to G4 and G9).
//
//	Append ---> local queue --\                          /-> witness -> memory -> subscribers -> answers
//	                           > committer -> one synced transaction
//	Ingest ---> queue a source/
//
// One goroutine, the committer, writes. It gathers what waits, local appends
// first, then runs of the source that was served least, and commits all of it in
// one transaction: blocks, logs' records, arrival index and store head together.
// Only then is any of it visible in memory, told to subscribers and answered.
//
// While a large transaction is on its way to the disk the committer stages the next
// one on top of it, if enough waits for that (round.go): copying, hashing, sealing and
// signing then cost no time of the disk. The disk has one at a time, in their order,
// and each is answered once it is durable; where it fails, what was staged on top of
// it fails too. Writes of other kinds (limits, kept values, cursors, repairs) read the
// database while they are staged: they are not staged ahead, and nothing is staged on
// top of them.
//
// # Directory
//
//	FORMAT    version of this layout, checked before anything else is touched
//	lock      held by the process that has the store open
//	lease     16 random bytes, a new file at every open
//	witness   count and head hash of the last commit, written before it is answered
//	clean     there after a clean stop
//	repair    there after a read found damage: the next open repairs
//	db/       Badger
//	db.damaged-TIME/  the database before the last repair; removing it says that nothing is missed
//
// # Keys
//
// Numbers are big-endian. Local log numbers stand for 32-byte log ids; they,
// arrival numbers and cursor numbers come from counters in the head and are
// never given twice. The upper six bytes of a seq are its segment, so that
// pruning can drop a log's oldest 65,536 seqs by prefix.
//
//	'b' log number 8 | segment 6 | seq in it 2   a block, by its first seq
//	'x' log number 8 | segment 6 | seq in it 2   a block set aside: damage took one before it
//	'z' log number 8 | segment 6 | seq in it 2   a block set aside: it lies beyond a cut
//	'z' log number 8 | highest seq               the headers that were the log's tail then
//	'a' space 16 | arrival 8                     log number, first seq, arrival before in the space;
//	                                             for that block and up to 31 that follow it (arrival.go)
//	'l' log id 32                                number, space, origin, epoch, base, tip, HLC, sums, flags
//	                                             [, end, HLC and time of what a cut set aside]
//	't' log id 32                                headers beyond the tip up to a signature
//	'd' [log id 32]                              what repairs lost: the seq up to which the log was held; in general
//	'f' log id 32                                the first fork proof
//	'C' peer 32 | instance 16                    cursor number, time, digest of its entries
//	'c' cursor number 8 | log id 32 [| branch 32]  base, seq, hash
//	'm' name                                     a value of SetMeta
//	'n'                                          how many arrival numbers no block has any more because of cuts
//	'i'                                          network, self, instance, epoch, boot, lease, witness
//	'h'                                          head: counters, digest, hash of the head before
//
// Every value ends in a CRC-32C over key and value. A block's value is its bytes
// as sent, then the log's bytes up to its end (8), its arrival number (8) and the
// checksum; where a cut set it aside, the time of that (Unix milliseconds) and 0
// stand for the first two. The head's digest is a sum over 'l', 't', 'd', 'f', 'C',
// 'm', 'n' and 'i', so that an older version of one of them, which damage can bring back, is found;
// blocks prove each other by their hash chain and arrivals by theirs and by the
// blocks' trailers.
//
// Values of 64 KiB and more are in Badger's value log, written once: one block
// of a bulk load or of a peer's catch-up. Smaller ones are in the memtable's log
// alone, so that a commit of many small appends writes one file.
//
// # Who wrote last (design 4.7)
//
// An epoch goes on only with proof that this directory wrote last. The store
// records the boot id, the lease's inode and ctime and the witness's inode at
// each open.
//
//	boot     lease, witness file   witness compared with the head          epoch   instance
//	same     unchanged             equal                                   goes on goes on
//	same     unchanged             one behind, and it names the head       goes on goes on  (killed between commit and witness)
//	                               before this one
//	same     unchanged             further behind, or unreadable           new     new      (one of them was restored)
//	other    unchanged             equal, behind or unreadable             new     goes on  (reboot: the witness is not synced)
//	other    unchanged             the same, but relaxed and not closed    new     new      (unsynced commits may be lost)
//	any      any                   ahead, or another commit                new     new      acknowledged commits are lost: repair
//	any      changed or missing    any                                     new     new      (copied or restored)
//	any      any                   the store was repaired                  new     new
//
// A boot id alone that differs proves only that nothing proves the rest. Where
// the system has no boot id each open starts a new epoch; where it has no inodes
// and ctimes a copy keeps the instance of its original, never its epoch.
//
// With relaxed durability a power cut loses acknowledged commits and leaves holes
// before what reached the disk, and the witness, not synced either, need not show
// it. The instance is then new, since arrival numbers are given again, and
// everything that is stored is read once; what is missing is repaired like
// damage.
//
// Not proven: two ways of going back that nothing in the directory or the boot id
// shows, because all of it goes back together. A rollback of the whole file system
// within one boot (zfs rollback, the merge of an LVM snapshot) brings inode,
// ctime, lease, witness and head back as they were; and after a power cut on a
// drive that lied about fsync the witness, which nothing syncs, is seldom newer
// than the head. After the rollback this directory goes on with the epoch: a
// seq that a peer holds already is given again, and the log forks unless that
// peer's run arrives first. After the power cut the epoch is new, so that no seq
// is given twice, but the instance goes on and gives arrival numbers again. In
// both cases peers notice: what this node states is less than it stated before in
// the same instance (design 6.6). Remove the file lease before a start after a
// rollback: epoch and instance are then new.
//
// An epoch also ends while the store is open when a run of this node's current
// log arrives that goes beyond its tip, or contradicts it: a copy of this machine
// runs. The run is then stored like any other.
//
// # Cuts (design 9.4)
//
// Restrict moves blocks beyond a log's limit to keys of their own (cut.go): from
// the tip down, so that each transaction, of some 6 MiB or 2,500 small blocks, leaves
// a log that ends a little earlier, with the headers up to the next signature as
// its tail. Appends and runs commit between them. What a kill leaves undone the
// next Restrict does. Their entries leave the arrival index, whose chain is mended;
// the numbers are not given again. A lifted cut moves them back, from the tip up,
// under new numbers. Moving costs a write of each block and a read of it; a call that
// changes nothing costs no read but, in its first time, that of each log's first
// block (limit.go).
//
// Limits are in memory alone. After an open logs end where the last cut left them,
// and nothing is refused until the first Restrict: call it before peers come. An
// own log of which a cut took something is never continued, also when it is lifted.
// A repair keeps what is set aside so; where the log's record is lost, so is all that
// ever was set aside and is still in a file, until the next Restrict.
//
// # Damage (G9)
//
// Reads check checksum, header, body hash and place in the chain and give a
// *replication.DamageError; nothing damaged is served. A running store reports
// damage (Options.OnDamage, Damaged) and notes it in the file repair. The repair
// comes with the next Open: close the store and open it again.
//
// Badger makes some damage worse. It cuts its logs and its list of tables at the
// first bad record and removes what is not listed, and it ends the process at a
// damaged footer of a table. So Open reads Badger's files itself before it lets
// Badger open them (survey.go): the list of tables, the memtables' logs, the last
// value log, of each table what Badger reads at once, and the blocks of tables up
// to 32 MiB, after an unclean stop up to 512 MiB. On any sign of damage, an error
// of Badger or lost commits, it makes a new database of every record that is
// whole (rebuild.go, mend.go), of a table without its index up to its first
// damaged block (tablescan.go). Each log then ends before its first missing block;
// blocks beyond wait aside and join again when peers have sent what is missing
// (aside.go), so that also what no peer has yet is kept. The old database is set
// aside as a whole; one is kept.
//
// A block of a value log proves itself: where damage took the tables that name
// it, it is kept if its hash chain leads from what is kept, or from a genesis
// block of this network, to a signature of its origin (loose.go). Of two branches
// the one that tables name stays, else the longer.
//
// What a repair could not keep stays told (lost.go): Verify reports each log that
// ends before what it is known to have held, until peers have sent it, and what
// is missing without it being known where; Lost sums it up for a status. The
// user dismisses both by removing db.damaged-TIME.
//
// Damage in a place that no read needs (a filter, a superseded version) is no
// finding of a read, but Verify names it, since Badger's own checksums cover it.
//
// # Full disk
//
// Badger writes through memory maps, where a full disk ends the process. Before
// each commit the free space is compared with what the commit writes and a
// reserve; a commit that would touch it is refused with ErrNoSpace, and so on
// until there is room. Only the small commit of an open may, so that a nearly full
// disk can be read (room.go). A commit whose outcome is not known (an error of Badger or
// of its log, which is the only place where it tells of a failed sync of its
// value log) is never acknowledged and ends writing until the store is opened
// again.
//
// A close turns the memtable into a table, and merges the newest tables where there is
// room (mergeAtClose). Where others have taken the reserve,
// that can still end the process, which is then as a kill: the memtable's log is
// synced, and the part of a table is none (survey.go). A reserve in a file of our
// own, given back at a close, would cost every idle node what it needs only here,
// and not closing Badger would leave its goroutines to the next open.
package wal
