package mailbox

import (
	"slices"
	"sort"

	"vixp2p/routing"
)

// place is where a message or text lies in the file.
type place struct {
	at   int64
	size int
	sum  uint32
}

// heldRecord is a message in custody.
type heldRecord struct {
	place
	hops  uint8
	via   routing.PeerKey
	order uint64
}

// inboxRecord is a text in the inbox.
type inboxRecord struct {
	place
	arrival uint64
	key     routing.Key
	created int64
}

// index is what the records of a file come to.
type index struct {
	id    [8]byte
	begun bool
	held  map[routing.Key]heldRecord
	seen  map[routing.Key]int64
	inbox []inboxRecord // by arrival
	bytes int           // of the inbox
	last  uint64        // newest arrival
	read  uint64        // arrival up to which the inbox was read
	live  int64         // bytes of the records that are of use, about
}

func newIndex() index {
	return index{held: map[routing.Key]heldRecord{}, seen: map[routing.Key]int64{}}
}

// What a record takes in a file beside its data, about.
const recordCost = 100

// apply takes in a record whose data lies at that place.
func (x *index) apply(r *record, at place) {
	switch r.kind {
	case recBegin:
		x.id, x.begun = r.id, true
		x.last, x.read = max(x.last, r.number), max(x.read, r.read)
	case recPutHeld:
		x.dropHeld(r.key)
		x.held[r.key] = heldRecord{at, r.hops, r.via, r.number}
		x.live += int64(at.size) + recordCost
	case recSetHops:
		if h, ok := x.held[r.key]; ok {
			h.hops, h.via = r.hops, r.via
			x.held[r.key] = h
		}
	case recDropHeld:
		x.dropHeld(r.key)
	case recPutSeen:
		if _, known := x.seen[r.key]; !known {
			x.live += recordCost
		}
		x.seen[r.key] = r.time
	case recDropSeen:
		if _, known := x.seen[r.key]; known {
			x.live -= recordCost
		}
		delete(x.seen, r.key)
	case recPutInbox:
		x.inbox = append(x.inbox, inboxRecord{at, r.number, r.key, r.time})
		x.bytes += at.size
		x.last = max(x.last, r.number)
		x.live += int64(at.size) + recordCost
	case recDropInbox:
		if i := x.after(r.number - 1); i < len(x.inbox) && x.inbox[i].arrival == r.number {
			x.bytes -= x.inbox[i].size
			x.live -= int64(x.inbox[i].size) + recordCost
			x.inbox = slices.Delete(x.inbox, i, i+1)
		}
	case recRead:
		x.read = max(x.read, r.number)
	}
}

func (x *index) dropHeld(key routing.Key) {
	if h, ok := x.held[key]; ok {
		x.live -= int64(h.size) + recordCost
		delete(x.held, key)
	}
}

// after is the first place in the inbox beyond an arrival.
func (x *index) after(arrival uint64) int {
	return sort.Search(len(x.inbox), func(i int) bool { return x.inbox[i].arrival > arrival })
}

// unread counts the texts that were not read, and their bytes.
func (x *index) unread() (n, bytes int) {
	for _, r := range x.inbox[x.after(x.read):] {
		n++
		bytes += r.size
	}
	return n, bytes
}
