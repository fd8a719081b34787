package mailbox

import (
	"errors"
	"io"
	"os"
)

// disk is what a box asks of a file system. The tests have one that forgets at a
// power cut what was not synced, and whose syncs fail.
type disk interface {
	makeDir(name string) error
	open(name string, flag int) (file, error)
	remove(name string) error
	rename(from, to string) error
	// keep makes what is under one name be under another too, where it replaces
	// what was there.
	keep(from, to string) error
	// syncDir makes the names in a directory durable, where that can be asked for.
	syncDir(name string) error
}

// file is an open file.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error
}

// osDisk is the system's.
type osDisk struct{}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (osDisk) makeDir(name string) error { return os.MkdirAll(name, 0o700) }

func (osDisk) open(name string, flag int) (file, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) remove(name string) error { return os.Remove(name) }

func (osDisk) rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) keep(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// A second name takes no room and reads nothing, which a bad sector would not
	// let happen; not every file system has them.
	if os.Link(from, to) == nil {
		return nil
	}
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

func (osDisk) syncDir(name string) error { return syncDir(name) }
