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

// tally is how many texts there are, and their bytes.
type tally struct{ n, bytes int }

// index is what the records of a file come to.
type index struct {
	id     [8]byte
	begun  bool
	held   map[routing.Key]heldRecord
	seen   map[routing.Key]int64
	inbox  []inboxRecord // by arrival, which grows strictly, from 1
	bytes  int           // of the inbox
	last   uint64        // newest arrival
	read   uint64        // arrival up to which the inbox was read
	unread tally         // of the texts in inbox after read
	// senders is unread by sender: who has none there has none here.
	senders map[routing.PeerKey]tally
	live    int64 // bytes of the records that are of use, about
}

func newIndex() index {
	return index{held: map[routing.Key]heldRecord{}, seen: map[routing.Key]int64{}, senders: map[routing.PeerKey]tally{}}
}

// What a record takes in a file beside its data, about.
const recordCost = 100

// apply takes in a record whose data lies at that place.
func (x *index) apply(r *record, at place) {
	switch r.kind {
	case recBegin:
		x.id, x.begun = r.id, true
		x.last = max(x.last, r.number)
		x.setRead(r.read)
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
		if n := len(x.inbox); r.number == 0 || n > 0 && x.inbox[n-1].arrival >= r.number {
			return // no box writes that
		}
		e := inboxRecord{at, r.number, r.key, r.time}
		x.inbox = append(x.inbox, e)
		x.bytes += at.size
		x.last = max(x.last, r.number)
		x.live += int64(at.size) + recordCost
		if e.arrival > x.read {
			x.count(&e, 1)
		}
	case recDropInbox:
		x.dropInbox(r.number)
	case recRead:
		x.setRead(r.number)
	}
}

func (x *index) dropInbox(arrival uint64) {
	i := sort.Search(len(x.inbox), func(i int) bool { return x.inbox[i].arrival >= arrival })
	if i == len(x.inbox) || x.inbox[i].arrival != arrival {
		return
	}
	e := &x.inbox[i]
	x.bytes -= e.size
	x.live -= int64(e.size) + recordCost
	if arrival > x.read {
		x.count(e, -1)
	}
	x.inbox = slices.Delete(x.inbox, i, i+1)
}

// setRead notes that the inbox was read up to an arrival.
func (x *index) setRead(arrival uint64) {
	if arrival <= x.read {
		return
	}
	for i := x.after(x.read); i < len(x.inbox) && x.inbox[i].arrival <= arrival; i++ {
		x.count(&x.inbox[i], -1)
	}
	x.read = arrival
}

// count adds a text to those that were not read, or takes it away.
func (x *index) count(e *inboxRecord, sign int) {
	of := x.senders[e.key.From]
	for _, t := range []*tally{&x.unread, &of} {
		t.n += sign
		t.bytes += sign * e.size
	}
	x.senders[e.key.From] = of
	if of.n == 0 {
		delete(x.senders, e.key.From)
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
