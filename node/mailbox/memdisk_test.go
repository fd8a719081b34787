package mailbox

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
)

// memDisk is a disk with a page cache as Linux has it: a power cut takes what was
// not synced, and a sync that fails takes the pages for written that it could not
// write.
type memDisk struct {
	names   map[string]*memInode // as processes see them
	durable map[string]*memInode // as they are after a power cut
	// dirDurable: so is the directory of the box.
	dirDurable bool
	// syncErr is what each Sync of a file fails with, and dirErr each of a directory.
	syncErr, dirErr error
	// createErr is what making a file fails with.
	createErr error
	// onWrite runs after each write and each change of a name; it may let the process
	// die.
	onWrite func()
	// dead: the process was killed; nothing that it does has an effect.
	dead bool
	// bad are places that cannot be read.
	bad func(off int64, size int) bool
}

type memInode struct {
	cache, disk []byte
	dirty       map[int]bool // pages
}

const (
	memPage   = 4096
	memParent = "data"              // where directories are durable
	memDir    = memParent + "/mail" // if it is synced
	memName   = memDir + "/" + FileName
)

var errKilled = errors.New("the process was killed")

func newMemDisk() *memDisk {
	return &memDisk{names: map[string]*memInode{}, durable: map[string]*memInode{}}
}

// powerCut leaves what was synced.
func (d *memDisk) powerCut() {
	if !d.dirDurable {
		clear(d.durable)
	}
	d.names = maps.Clone(d.durable)
	for _, n := range d.names {
		n.cache, n.dirty = bytes.Clone(n.disk), map[int]bool{}
	}
}

func (d *memDisk) makeDir(string) error { return d.alive() }

func (d *memDisk) alive() error {
	if d.dead {
		return errKilled
	}
	return nil
}

func (d *memDisk) open(name string, flag int) (file, error) {
	n := d.names[name]
	switch {
	case d.dead:
		return nil, errKilled
	case flag&os.O_CREATE != 0 && d.createErr != nil:
		return nil, d.createErr
	case n == nil && flag&os.O_CREATE == 0:
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	case n == nil:
		n = &memInode{dirty: map[int]bool{}}
		d.names[name] = n
	}
	if flag&os.O_TRUNC != 0 {
		n.cache, n.dirty = nil, map[int]bool{}
	}
	return &memFile{disk: d, n: n}, nil
}

func (d *memDisk) remove(name string) error {
	if d.dead || d.names[name] == nil {
		return os.ErrNotExist
	}
	delete(d.names, name)
	return nil
}

func (d *memDisk) rename(from, to string) error {
	if err := d.alive(); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	d.wrote()
	return nil
}

func (d *memDisk) wrote() {
	if d.onWrite != nil {
		d.onWrite()
	}
}

func (d *memDisk) keep(from, to string) error {
	if err := d.alive(); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	return nil
}

func (d *memDisk) syncDir(dir string) error {
	if err := errors.Join(d.alive(), d.dirErr); err != nil {
		return err
	}
	if dir == memParent {
		d.dirDurable = true
	}
	in := func(name string, _ *memInode) bool { return filepath.Dir(name) == dir }
	maps.DeleteFunc(d.durable, in)
	for name, n := range d.names {
		if in(name, n) {
			d.durable[name] = n
		}
	}
	return nil
}

type memFile struct {
	disk   *memDisk
	n      *memInode
	closed bool
}

func (f *memFile) check() error {
	if f.closed {
		return os.ErrClosed
	}
	return f.disk.alive()
}

func (f *memFile) Size() (int64, error) { return int64(len(f.n.cache)), f.check() }

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	if f.disk.bad != nil && f.disk.bad(off, len(b)) {
		return 0, errors.New("input/output error")
	}
	n := copy(b, f.n.cache[min(off, int64(len(f.n.cache))):])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	f.n.cache = resize(f.n.cache, max(len(f.n.cache), int(off)+len(b)))
	copy(f.n.cache[off:], b)
	for page := int(off) / memPage; page*memPage < int(off)+len(b); page++ {
		f.n.dirty[page] = true
	}
	f.disk.wrote()
	return len(b), nil
}

func (f *memFile) Truncate(size int64) error {
	if err := f.check(); err != nil {
		return err
	}
	f.n.cache = resize(f.n.cache, int(size))
	f.n.dirty[int(size)/memPage] = true
	return nil
}

func (f *memFile) Sync() error {
	if err := f.check(); err != nil {
		return err
	}
	dirty := f.n.dirty
	f.n.dirty = map[int]bool{}
	if f.disk.syncErr != nil {
		return f.disk.syncErr
	}
	f.n.disk = resize(f.n.disk, len(f.n.cache))
	for page := range dirty {
		if from := page * memPage; from < len(f.n.cache) {
			copy(f.n.disk[from:], f.n.cache[from:min(from+memPage, len(f.n.cache))])
		}
	}
	return nil
}

func (f *memFile) Close() error {
	if f.closed {
		return os.ErrClosed
	}
	f.closed = true
	return nil
}

// resize cuts or adds zeros; it never shares memory with b.
func resize(b []byte, size int) []byte {
	out := make([]byte, size)
	copy(out, b)
	return out
}
