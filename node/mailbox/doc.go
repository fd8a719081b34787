// Package mailbox is the durable store of routed messages: what this node holds for
// others and of its own, what it has seen, and the inbox of its user. One file in a
// directory of its own, so that nothing that happens to it touches the logs.
//
// # Layout
//
// mail.journal is a header, twice, at 0 and at 4,096, and from 8,192 on a sequence of
// batches, each one transaction that was fsynced before anybody was told:
//
//	header:  "vix-mail" | format, 2 (1) | mark (16) | CRC-32C of these (4)
//	batch:   mark (16) | length of the payload (4) | CRC-32C of these and the payload (4) | payload
//	payload: number of the batch (8), from 1 without gaps, then records
//
// The mark is random and of this one file: a file that is written anew has another.
// After damage the next batch is looked for, and what lies between is partly what
// others wrote; without the mark, which they do not know, none of it is taken for a
// batch.
//
// A record is a byte that says what it is, and fields of fixed length; a text or
// message comes last, after its length (4). Numbers are big-endian.
//
//	1 begin      id (8) | last arrival (8) | read (8)
//	2 put held   sender (32) | id (16) | hops (1) | via (32) | order (8) | message
//	3 set hops   sender | id | hops | via
//	4 drop held  sender | id
//	5 put seen   sender | id | until, Unix ms (8)
//	6 drop seen  sender | id
//	7 put inbox  arrival (8) | sender | id | created, Unix ms (8) | text
//	8 drop inbox arrival
//	9 read       arrival up to which the inbox was read
//
// Keys and places are in memory, messages and texts on disk alone. When more than
// half of the file is of no use any more, what is left is written to a new file
// that takes its place. So is what is left when a part cannot be read any more, and
// so is the first file: whatever a crash leaves under the name is whole.
//
// Everything here is bounded to some ten thousand records, is read as a whole at the
// start and changes in small batches; for that a journal is the smallest thing that
// is right. A B+ tree file was tried first (bbolt): a flipped bit in its list of
// free pages made it write over pages in use, one in a root page made it go back a
// commit, both in silence, and one in another page ended the process from a
// goroutine of its own.
//
// # Bounds
//
// held and seen are bounded by package routing. The inbox holds at most
// Options.InboxCount texts of Options.InboxBytes together: the oldest that were
// read go first, and one that was not read never goes: then the box says that there
// is no room, the text stays with the hop before, and is offered again later. Of one
// sender it says so when a quarter of either is full of texts by that sender that
// were not read.
//
// # What the disk confirmed
//
// A batch counts when an fsync has confirmed it. After one that failed the box
// stores nothing more, because the system may take pages for written that are not;
// the batch is cut off, and whoever uses the box opens it again. Open relies on
// nothing before the disk has confirmed it: it writes the last batch once more, since
// no other can be in doubt, fsyncs, and makes the file's name durable. While the disk
// has no room for that it fails.
//
// # Damage
//
// An incomplete batch at the end is what a crash leaves: nobody was told of it. A
// wrong CRC before that, or a missing number, is damage: Open keeps what whole
// batches say, writes it anew, leaves the damaged file as mail.journal.damaged, and
// tells. What is read later is compared with its CRC in memory. A message that fails
// that, or that the disk does not give back, is given up alone: the log says whose it
// was, Recovered tells, and the file is written anew without it. Of the header one
// copy suffices; without any, nothing of a file can be told from what others wrote.
package mailbox
