package mailbox

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"vixp2p/replication"
	"vixp2p/routing"
)

// The defaults of Options.
const (
	DefaultInboxCount = 10000
	DefaultInboxBytes = 64 << 20
)

// senderFraction: texts of one sender that were not read have at most this part of
// the inbox, one quarter of its count and of its bytes, so that no sender keeps the
// others out.
const senderFraction = 4

// Options say where a Box is and what it may take.
type Options struct {
	// Dir is the box's own directory; it is made if there is none.
	Dir string
	// InboxCount and InboxBytes bound the inbox. Defaults 10,000 and 64 MiB.
	InboxCount, InboxBytes int
	// ReserveBytes of the disk are left free: below that nothing is taken in and
	// Apply fails with replication.ErrNoSpace. Negative: no check.
	ReserveBytes int64
	// FreeBytes tells how many bytes are free where path is. Default: statfs on
	// Unix, no check elsewhere.
	FreeBytes func(path string) (uint64, error)
	// Log is told what is lost while the box is open. Default: nobody is told.
	Log *slog.Logger

	disk disk // of the tests; default: the system's
}

// Box is an open mailbox. Its methods are safe for concurrent use.
type Box struct {
	opts Options
	path string

	mu        sync.Mutex // guards all below, and is held while the disk works
	file      journal
	index     index
	recovered string // what Open found damaged
	// lostTexts and lostHeld count what was damaged since Open, and spoiled says
	// that it is still in the file, which is to be written anew.
	lostTexts, lostHeld int
	spoiled             bool
	tooSoon             int64         // the file is not written anew below this size: it failed a moment ago
	changed             chan struct{} // closed and replaced when a text arrives
}

// ID names the box's history in cursors, as hex.
func (b *Box) ID() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return hex.EncodeToString(b.index.id[:])
}

// Recovered tells what was found damaged, by Open and since then, and what became of
// it; empty: nothing.
func (b *Box) Recovered() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lostTexts+b.lostHeld == 0 {
		return b.recovered
	}
	told := fmt.Sprintf("%d messages in the inbox and %d on their way were damaged on the disk since the file of messages was opened and are lost: they must be sent again, the log says by whom; all others are kept, and the damaged file is kept as %s", b.lostTexts, b.lostHeld, b.aside())
	if b.recovered != "" {
		told = b.recovered + "; after that, " + told
	}
	return told
}

// lose gives up a message in the inbox or in custody that is damaged, tells, and
// goes on without it; mu is held.
func (b *Box) lose(kind recordKind, key routing.Key, arrival uint64, err error) {
	b.spoiled = true
	if kind == recPutInbox {
		b.lostTexts++
		b.index.dropInbox(arrival)
		b.opts.Log.Error("a message in the inbox is damaged on the disk and lost: its sender must send it again", "from", key.From.String(), "id", key.ID.String(), "err", err)
		return
	}
	b.lostHeld++
	b.index.dropHeld(key)
	b.opts.Log.Error("a message that is carried is damaged on the disk and given up: it arrives only if another member holds it", "from", key.From.String(), "id", key.ID.String(), "err", err)
}

// Close releases the file.
func (b *Box) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errors.Is(b.file.broken, replication.ErrClosed) {
		return nil
	}
	b.file.broken = fmt.Errorf("the messages of this node are closed: %w", replication.ErrClosed)
	return b.file.f.Close()
}

// Apply makes changes durable in one transaction: it returns after an fsync, or
// with an error and nothing changed. It fails with replication.ErrNoSpace on a full
// disk. After an error the box may be of no further use, which Broken tells: open it
// again.
func (b *Box) Apply(ops []routing.StoreOp) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.ContainsFunc(ops, adds) {
		if err := b.checkRoom(); err != nil {
			return err
		}
	}
	var records []record
	last, texts := b.index.last, slices.Clip(b.index.inbox)
	bytes := b.index.bytes
	for _, op := range ops {
		r := recordOf(op)
		if r.kind == recPutInbox {
			last++
			r.number = last
			texts = append(texts, inboxRecord{arrival: last, place: place{size: len(r.data)}})
			bytes += len(r.data)
		}
		records = append(records, r)
		for len(texts) > 0 && texts[0].arrival <= b.index.read && (len(texts) > b.opts.InboxCount || bytes > b.opts.InboxBytes) {
			records = append(records, record{kind: recDropInbox, number: texts[0].arrival})
			bytes -= texts[0].size
			texts = texts[1:]
		}
	}
	if err := b.write(records); err != nil {
		return explain(err, "the change to the stored messages")
	}
	if slices.ContainsFunc(records, func(r record) bool { return r.kind == recPutInbox }) {
		close(b.changed)
		b.changed = make(chan struct{})
	}
	return nil
}

// write makes records durable and takes them in; mu is held.
func (b *Box) write(records []record) error {
	places, err := b.file.write(records)
	if err != nil {
		return err
	}
	for i := range records {
		b.index.apply(&records[i], places[i])
	}
	b.tidy() // the change is durable, whatever becomes of this
	return nil
}

// tidy writes the file anew when more than half of it is of no use, or a part of it
// is damaged. If that fails the journal goes on, and gets longer, or broken tells
// why not. mu is held.
func (b *Box) tidy() {
	size := b.file.size
	if b.file.broken != nil || size < b.tooSoon || !b.spoiled && size <= max(minRewrite, 2*b.index.live) {
		return
	}
	err := b.checkRoom()
	if err == nil {
		err = b.rewrite(false)
	}
	if err != nil {
		b.tooSoon = size + max(size/4, minRetry)
		b.opts.Log.Warn("the file of messages cannot be written anew and gets longer; this is tried again", "bytes", size, "err", err)
	}
}

// minRetry is by how many bytes a file has grown, at least, before it is written
// anew again after that failed.
const minRetry = 1 << 16

// minRewrite is the size below which a file is not worth writing anew.
const minRewrite = 1 << 20

// adds tells whether an operation needs room.
func adds(op routing.StoreOp) bool {
	switch op.(type) {
	case routing.PutHeld, routing.PutSeen, routing.PutInbox:
		return true
	}
	return false
}

func (b *Box) checkRoom() error {
	if b.opts.ReserveBytes < 0 {
		return nil
	}
	free, err := b.opts.FreeBytes(b.opts.Dir)
	if err != nil {
		return fmt.Errorf("cannot tell how much room the disk of %s has: %w", b.opts.Dir, err)
	}
	if free < uint64(b.opts.ReserveBytes) {
		return fmt.Errorf("%w: %s are free for messages in %s and %s are kept in reserve: make room", replication.ErrNoSpace, replication.SizeText(free), b.opts.Dir, replication.SizeText(uint64(b.opts.ReserveBytes)))
	}
	return nil
}

// explain adds what failed; nil stays nil.
func explain(err error, what string) error {
	switch {
	case err == nil, errors.Is(err, ErrDamaged), errors.Is(err, replication.ErrNoSpace), errors.Is(err, replication.ErrClosed):
		return err
	case isFull(err):
		return fmt.Errorf("%w: %s did not fit: make room", replication.ErrNoSpace, what)
	}
	return fmt.Errorf("cannot write %s: %w", what, err)
}

// Broken is why the box is of no further use until it is opened again; nil: it is
// well.
func (b *Box) Broken() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.file.broken
}

// Room tells whether the inbox takes a text of that size from a sender: neither all
// texts that were not read nor a quarter of their room is used up by it. Texts that
// were not applied yet do not count, so that the bound may be exceeded by as many as
// are asked about together.
func (b *Box) Room(from routing.PeerKey, size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	all, of := b.index.unread, b.index.senders[from]
	if all.n >= b.opts.InboxCount || all.bytes+size > b.opts.InboxBytes {
		return false
	}
	return of.n == 0 || of.n < b.opts.InboxCount/senderFraction && of.bytes+size <= b.opts.InboxBytes/senderFraction
}

// Held reads a message in custody: nil if there is none, ErrDamaged if it is not
// what was written; then the box gives it up.
func (b *Box) Held(key routing.Key) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.index.held[key]
	if !ok {
		return nil, nil
	}
	raw, err := b.file.read(h.place)
	if errors.Is(err, ErrDamaged) {
		b.lose(recPutHeld, key, 0, err)
		b.tidy()
	}
	return raw, err
}

// Inbox reads up to n texts after an arrival number, in the order of arrival. One
// that is damaged is left out, and told.
func (b *Box) Inbox(after uint64, n int) ([]Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Entry
	for len(out) < n {
		i := b.index.after(after)
		if i == len(b.index.inbox) {
			break
		}
		r := b.index.inbox[i]
		after = r.arrival
		text, err := b.file.read(r.place)
		if errors.Is(err, ErrDamaged) {
			b.lose(recPutInbox, r.key, r.arrival, err)
			continue
		}
		if err != nil {
			return out, err
		}
		out = append(out, Entry{Arrival: r.arrival, From: r.key.From, ID: r.key.ID, Created: time.UnixMilli(r.created), Text: text})
	}
	if b.spoiled {
		b.tidy()
	}
	return out, nil
}

// Last is the newest arrival.
func (b *Box) Last() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.index.last
}

// Changed is closed when a text arrives. Fetch it before looking.
func (b *Box) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// MarkRead says that the inbox was read up to an arrival: from now on these texts
// may go when there is no room for new ones.
func (b *Box) MarkRead(arrival uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if arrival = min(arrival, b.index.last); arrival <= b.index.read {
		return nil
	}
	return explain(b.write([]record{{kind: recRead, number: arrival}}), "how far messages were read")
}

// Sizes are the texts in the inbox.
type Sizes struct{ Inbox, Unread, InboxBytes int }

// Sizes tells how full the inbox is.
func (b *Box) Sizes() Sizes {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Sizes{Inbox: len(b.index.inbox), Unread: b.index.unread.n, InboxBytes: b.index.bytes}
}
