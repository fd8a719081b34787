package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// AccessError: this user lacks the permission to read and write everything in a
// data directory. It wraps the error of the system, which matches
// fs.ErrPermission.
type AccessError struct {
	Path  string // what cannot be written or read
	Owner string // the user it belongs to; empty where that is not known
	Err   error
}

func (e *AccessError) Error() string {
	if e.Owner == "" {
		return fmt.Sprintf("this user has no permission to write %s: run as the user who made it, or give this one write permission to it", e.Path)
	}
	return fmt.Sprintf("this user has no permission to write %s, which belongs to %s: run as %s, or give this user write permission to it", e.Path, e.Owner, e.Owner)
}

// Unwrap gives the error of the system.
func (e *AccessError) Unwrap() error { return e.Err }

// accessProblem makes an AccessError of a missing permission; others pass. path
// is named where the error names none, or a file that is yet to be made.
func accessProblem(path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		if _, statErr := os.Lstat(at.Path); statErr == nil {
			path = at.Path
		}
	}
	e := &AccessError{Path: path, Err: err}
	if fi, err := os.Stat(path); err == nil {
		e.Owner = ownerOf(fi)
	}
	return e
}

// checkAccess tells before anything is touched whether this user may read and
// write all files of a store. Later the database would take what it cannot read
// for damage.
func checkAccess(dir string) error {
	for _, d := range []string{dir, filepath.Join(dir, dbDir)} {
		paths, err := listFiles(d, "")
		if err != nil {
			return accessProblem(d, err)
		}
		for _, path := range paths {
			if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
				_ = f.Close()
			} else if errors.Is(err, fs.ErrPermission) {
				return accessProblem(path, err)
			}
		}
		// Only trying shows whether files can be made and removed.
		f, err := os.CreateTemp(d, "access-*")
		switch {
		case errors.Is(err, fs.ErrPermission):
			return accessProblem(d, err)
		case err == nil:
			_ = f.Close()
			if err := os.Remove(f.Name()); err != nil {
				return accessProblem(d, err)
			}
		}
	}
	return nil
}
