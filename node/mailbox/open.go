package mailbox

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"vixp2p/replication"
	"vixp2p/routing"
)

// FileName is the file in Options.Dir.
const FileName = "mail.journal"

// Open opens or makes a box and reads the state that a Router begins with. A
// damaged one is made anew from what can be read; Recovered tells. It fails with
// replication.ErrTooNew if a later version wrote the file, and with
// replication.ErrNoSpace if there is no room to make one. The directory must not be
// in use by another process: the lock of the data directory sees to that.
func Open(o Options) (*Box, routing.State, error) {
	o.InboxCount, o.InboxBytes = cmp.Or(o.InboxCount, DefaultInboxCount), cmp.Or(o.InboxBytes, DefaultInboxBytes)
	if o.FreeBytes == nil {
		o.FreeBytes = freeBytes
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
	if err := os.MkdirAll(b.opts.Dir, 0o700); err != nil {
		return state, fmt.Errorf("cannot make the directory of messages: %w", err)
	}
	if b.file.f, err = os.OpenFile(b.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return state, fmt.Errorf("cannot open the file of messages: %w", err)
	}
	messages := map[routing.Key]*routing.Message{}
	unfit := 0
	damage, err := b.file.scan(func(r *record, at place) error {
		if r.kind == recBegin && r.version > formatVersion {
			return &replication.VersionError{What: "file of messages", Got: uint64(r.version), Want: formatVersion}
		}
		if r.kind == recPutHeld {
			m, err := routing.Parse(r.data)
			if err != nil || m.Key() != r.key {
				unfit++
				return nil
			}
			messages[r.key] = m
		}
		b.index.apply(r, at)
		return nil
	})
	if err != nil {
		return state, fmt.Errorf("cannot read the file of messages: %w", err)
	}
	if damage == "" && unfit > 0 {
		damage = fmt.Sprintf("%d messages do not parse", unfit)
	}
	if damage == "" && !b.index.begun && b.file.size > 0 {
		damage = "its beginning is missing"
	}
	if err := b.settle(damage); err != nil {
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

// settle brings the file into order after it was read.
func (b *Box) settle(damage string) error {
	switch {
	case damage != "":
		held, texts := len(b.index.held), len(b.index.inbox)
		aside := b.path + ".damaged"
		b.recovered = fmt.Sprintf("the file of messages was damaged (%s): %d messages in the inbox and %d on their way could be read and were kept; the rest is lost, and what this node had sent and is lost must be sent again; the damaged file is kept as %s", damage, texts, held, aside)
		if !b.index.begun {
			if _, err := rand.Read(b.index.id[:]); err != nil { // cursors of the history that was lost do not count
				return err
			}
		}
		return b.rewrite(aside)
	case !b.index.begun:
		if err := b.checkRoom(); err != nil {
			return err
		}
		if _, err := rand.Read(b.index.id[:]); err != nil {
			return err
		}
		if err := b.file.f.Truncate(0); err != nil {
			return explain(err, "a new file of messages")
		}
		if _, err := b.file.write([]record{b.begin()}); err != nil {
			return explain(err, "a new file of messages")
		}
		syncDir(b.opts.Dir)
		return nil
	}
	// What a crash left at the end would be taken for damage later.
	if err := b.file.f.Truncate(b.file.size); err != nil {
		return explain(err, "the file of messages")
	}
	return nil
}

// begin is the first record of a file.
func (b *Box) begin() record {
	return record{kind: recBegin, version: formatVersion, id: b.index.id, number: b.index.last, read: b.index.read}
}

// rewriteBatch is about how many bytes of data a batch has when the file is
// written anew.
const rewriteBatch = 1 << 20

// rewrite writes what is of use to a new file that takes the place of the old one,
// of which a copy is kept under the name aside, if that is not empty. If it fails
// the old one is as it was.
func (b *Box) rewrite(aside string) error {
	err := b.tryRewrite(aside)
	if err != nil {
		_ = os.Remove(b.path + freshSuffix) // it may not be there
	}
	return explain(err, "a new file of messages")
}

const freshSuffix = ".new"

func (b *Box) tryRewrite(aside string) error {
	if aside != "" {
		if err := copyFile(aside, b.path); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(b.path+freshSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	next, x := journal{f: f}, newIndex()
	err = b.copyTo(&next, &x)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	// Where a system does not rename what is open: from here on the box is on the
	// new file or, after an error, on none.
	_ = b.file.f.Close() // it was only read since the last sync
	b.file.broken = os.Rename(b.path+freshSuffix, b.path)
	if b.file.broken == nil {
		syncDir(b.opts.Dir)
		if next.f, b.file.broken = os.OpenFile(b.path, os.O_RDWR, 0); b.file.broken == nil {
			b.file, b.index = next, x
			return nil
		}
	}
	return b.file.broken
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// copyTo writes what is of use to another journal, and its index.
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
			if r.data, err = b.file.read(p); err != nil {
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
	for _, e := range b.index.inbox {
		if err := add(record{kind: recPutInbox, key: e.key, number: e.arrival, time: e.created}, e.place); err != nil {
			return err
		}
	}
	return flush()
}

// syncDir makes the name of a new file durable, where directories can be synced.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // not everywhere
		_ = d.Close()
	}
}

// isFull tells whether the system says that the disk is full.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
