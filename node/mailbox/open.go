package mailbox

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"vixp2p/routing"
)

// FileName is the file in Options.Dir.
const FileName = "mail.journal"

// Open opens or makes a box and reads the state that a Router begins with; all of
// it is durable then. A damaged one is made anew from what can be read; Recovered
// tells. It fails with replication.ErrTooNew if a later version wrote the file, and
// with replication.ErrNoSpace if there is no room to make one. The directory must
// not be in use by another process: the lock of the data directory sees to that.
func Open(o Options) (*Box, routing.State, error) {
	o.InboxCount, o.InboxBytes = cmp.Or(o.InboxCount, DefaultInboxCount), cmp.Or(o.InboxBytes, DefaultInboxBytes)
	if o.FreeBytes == nil {
		o.FreeBytes = freeBytes
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.disk == nil {
		o.disk = osDisk{}
	}
	b := &Box{opts: o, path: filepath.Join(o.Dir, FileName), index: newIndex(), changed: make(chan struct{})}
	state, err := b.open()
	if err != nil {
		if b.file.f != nil {
			_ = b.file.f.Close() // it is given up
		}
		return nil, routing.State{}, err
	}
	return b, state, nil
}

func (b *Box) open() (state routing.State, err error) {
	if err := b.opts.disk.makeDir(b.opts.Dir); err != nil {
		return state, fmt.Errorf("cannot make the directory of messages: %w", err)
	}
	b.file.f, err = b.opts.disk.open(b.path, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return state, b.create()
	}
	if err != nil {
		return state, fmt.Errorf("cannot open the file of messages: %w", err)
	}
	mark, ok, worn, err := readHeader(b.file.f)
	if err != nil {
		return state, b.unreadable(err)
	}
	damage := "its header is not what was written"
	messages := map[routing.Key]*routing.Message{}
	if ok {
		b.file.mark = mark
		if damage, err = b.load(messages); err != nil {
			return state, b.unreadable(err)
		}
	}
	if err := b.settle(damage, worn); err != nil {
		return state, err
	}
	for key, h := range b.index.held {
		state.Held = append(state.Held, routing.Held{Msg: messages[key], Hops: h.hops, Via: h.via, Order: h.order})
	}
	for key, until := range b.index.seen {
		state.Seen = append(state.Seen, routing.Seen{Key: key, Until: time.UnixMilli(until)})
	}
	return state, nil
}

// unreadable says that the file cannot be read, and what to do. That the disk gives
// back nothing is not taken for damage here: it may be over in a moment, and what is
// given up is lost.
func (b *Box) unreadable(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return fmt.Errorf("cannot read the file of messages: %w: mend the disk, or move the file away, which loses the messages in it", err)
	}
	return fmt.Errorf("cannot read the file of messages %s: %w", b.path, err)
}

// create makes a new file. It takes its name when it is whole: no crash leaves
// less of it.
func (b *Box) create() error {
	if err := b.checkRoom(); err != nil {
		return err
	}
	if _, err := rand.Read(b.index.id[:]); err != nil {
		return err
	}
	if err := b.rewrite(false); err != nil {
		return err
	}
	return b.settleNames()
}

// load reads the file into the index, and its messages. damage tells what is wrong
// with it.
func (b *Box) load(messages map[routing.Key]*routing.Message) (damage string, err error) {
	unfit := 0
	damage, err = b.file.scan(func(r *record, at place) {
		if r.kind == recPutHeld {
			m, err := routing.Parse(r.data)
			if err != nil || m.Key() != r.key {
				unfit++
				return
			}
			messages[r.key] = m
		}
		b.index.apply(r, at)
	})
	switch {
	case err != nil || damage != "":
	case unfit > 0:
		damage = fmt.Sprintf("%d messages do not parse", unfit)
	case !b.index.begun:
		damage = "its beginning is missing"
	}
	return damage, err
}

// settle brings the file into order after it was read, and makes it durable.
func (b *Box) settle(damage string, worn bool) error {
	switch {
	case damage != "":
		held, texts := len(b.index.held), len(b.index.inbox)
		b.recovered = fmt.Sprintf("the file of messages was damaged (%s): %d messages in the inbox and %d on their way could be read and were kept; the rest is lost, and what this node had sent and is lost must be sent again; the damaged file is kept as %s", damage, texts, held, b.aside())
		if !b.index.begun {
			if _, err := rand.Read(b.index.id[:]); err != nil { // cursors of the history that was lost do not count
				return err
			}
		}
		if err := b.rewrite(true); err != nil {
			return err
		}
	case worn:
		b.opts.Log.Warn("one of the two headers of the file of messages was damaged; nothing is lost, and the file is written anew", "file", b.path)
		err := b.rewrite(false)
		if err == nil {
			break
		}
		if b.file.broken != nil {
			return err
		}
		b.opts.Log.Warn("the file of messages cannot be written anew now; one header suffices", "err", err)
		fallthrough
	default:
		if err := b.file.settle(); err != nil {
			return explain(err, "the file of messages once more, as it must be before it is relied on")
		}
	}
	return b.settleNames()
}

// settleNames makes the names of the file and of its directory durable: a file that
// has no name after a power cut is lost.
func (b *Box) settleNames() error {
	for _, dir := range []string{b.opts.Dir, filepath.Dir(b.opts.Dir)} {
		if err := b.opts.disk.syncDir(dir); err != nil {
			return explain(err, "the name of the file of messages")
		}
	}
	return nil
}

// begin is the first record of a file.
func (b *Box) begin() record {
	return record{kind: recBegin, id: b.index.id, number: b.index.last, read: b.index.read}
}

// aside is the name under which a damaged file is kept.
func (b *Box) aside() string { return b.path + ".damaged" }

// rewriteBatch is about how many bytes of data a batch has when the file is
// written anew.
const rewriteBatch = 1 << 20

const freshSuffix = ".new"

// rewrite writes what is of use to a new file that takes the place of the old one,
// if there is one; that is kept aside if it is damaged. If it fails the old one is
// as it was, or broken says why not.
func (b *Box) rewrite(damaged bool) error {
	err := b.tryRewrite(damaged)
	if err != nil {
		_ = b.opts.disk.remove(b.path + freshSuffix) // it may not be there
	}
	return explain(err, "a new file of messages")
}

func (b *Box) tryRewrite(damaged bool) error {
	d := b.opts.disk
	f, err := d.open(b.path+freshSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	next, x := journal{f: f}, newIndex()
	if err = next.begin(); err == nil {
		err = b.copyTo(&next, &x)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	kept := damaged || b.spoiled
	if kept {
		if err := d.keep(b.path, b.aside()); err != nil {
			return fmt.Errorf("cannot keep the damaged file as %s: %w", b.aside(), err)
		}
	}
	// Where a system does not rename what is open: from here on the box is on the
	// new file or, after an error, on none.
	if b.file.f != nil {
		_ = b.file.f.Close() // it was only read since the last sync
	}
	b.file.broken = d.rename(b.path+freshSuffix, b.path)
	if b.file.broken != nil && kept {
		_ = d.remove(b.aside()) // it may be a second name of the file that goes on
	}
	if b.file.broken == nil {
		// Until its name is durable, what is written to it may be lost with it.
		b.file.broken = d.syncDir(b.opts.Dir)
	}
	if b.file.broken == nil {
		if next.f, b.file.broken = d.open(b.path, os.O_RDWR); b.file.broken == nil {
			b.file, b.index, b.spoiled, b.tooSoon = next, x, false, 0
			return nil
		}
	}
	return b.file.broken
}

// copyTo writes what is of use to another journal, and its index. What cannot be
// read any more is left out and told.
func (b *Box) copyTo(to *journal, x *index) error {
	batch, size := []record{b.begin()}, 0
	flush := func() error {
		places, err := to.write(batch)
		if err != nil {
			return err
		}
		for i := range batch {
			x.apply(&batch[i], places[i])
		}
		batch, size = batch[:0], 0
		return nil
	}
	add := func(r record, p place) error {
		if p.size > 0 {
			var err error
			if r.data, err = b.file.read(p); errors.Is(err, ErrDamaged) {
				b.lose(r.kind, r.key, r.number, err)
				return nil
			} else if err != nil {
				return err
			}
		}
		batch, size = append(batch, r), size+p.size+recordCost
		if size >= rewriteBatch {
			return flush()
		}
		return nil
	}
	for key, h := range b.index.held {
		if err := add(record{kind: recPutHeld, key: key, hops: h.hops, via: h.via, number: h.order}, h.place); err != nil {
			return err
		}
	}
	for key, until := range b.index.seen {
		if err := add(record{kind: recPutSeen, key: key, time: until}, place{}); err != nil {
			return err
		}
	}
	for _, e := range slices.Clone(b.index.inbox) { // lose takes from it
		if err := add(record{kind: recPutInbox, key: e.key, number: e.arrival, time: e.created}, e.place); err != nil {
			return err
		}
	}
	return flush()
}

// isFull tells whether the system says that the disk is full.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
