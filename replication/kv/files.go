package kv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vixp2p/replication"
)

// The files of a generation that was closed cleanly are compared with what they
// were then. Reading all of them would make every command on a large view wait,
// so that most of a large one is compared while it is open already. Before
// anything is read from the view, these are:
//
//   - every file by name and size;
//   - the content of all files that are no tables, and of those whose stamp is
//     another: whoever copied, restored or wrote to a file changed that;
//   - the content of as much more as Options.checkFirst allows, beginning with
//     what was compared longest ago, so that short commands get round too;
//   - of tables that are left, footer and index, which Badger trusts.
//
// Damage that leaves the stamp alone is the disk's own. In a table that is left
// it can be met before it is found: then a value fails its checksum, which is
// found by the read; a key that is damaged looks absent until the comparison
// comes to it.

// fileSum identifies the content of one file.
type fileSum struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	CRC  uint32 `json:"crc32c"`
	// Stamp is what the file system told of the file before it was read.
	Stamp fileStamp `json:"stamp,omitzero"`
	// Checked is when the content was compared or computed, in Unix seconds.
	Checked int64 `json:"checked,omitempty"`
}

// fileStamp changes when a file is written to or is another one.
type fileStamp struct {
	Modified int64  `json:"mtime"` // Unix nanoseconds
	Changed  int64  `json:"ctime"` // the same; 0 where there is none
	Inode    uint64 `json:"inode"` // 0 where there is none
}

// same tells whether two files have the same content.
func (s fileSum) same(o fileSum) bool { return s.Name == o.Name && s.Size == o.Size && s.CRC == o.CRC }

// sumFiles reads a closed generation's directory. known gives sums that need no
// second reading: tables never change under one name. Their stamps stay those of
// before, so that a change since is seen at the next Open.
func sumFiles(dir string, known map[string]fileSum) ([]fileSum, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []fileSum
	for _, e := range entries {
		if isLock(e.Name()) {
			continue
		}
		s, ok := known[e.Name()]
		if !ok || !isTable(e.Name()) {
			if s, err = sumFile(context.Background(), dir, e.Name()); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// sumFile reads one file, until ctx ends.
func sumFile(ctx context.Context, dir, name string) (fileSum, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return fileSum{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fileSum{}, err
	}
	s := fileSum{Name: name, Stamp: stampOf(fi), Checked: time.Now().Unix()}
	buf := make([]byte, 256<<10)
	for {
		n, err := f.Read(buf)
		s.Size += int64(n)
		s.CRC = crc32.Update(s.CRC, castagnoli, buf[:n])
		switch {
		case errors.Is(err, io.EOF):
			return s, nil
		case err != nil:
			return s, err
		case ctx.Err() != nil:
			return s, ctx.Err()
		}
	}
}

// isLock names the file that Badger makes and removes with its lock.
func isLock(name string) bool { return name == "LOCK" }

// isTable names a file that Badger writes once.
func isTable(name string) bool { return strings.HasSuffix(name, ".sst") }

// compareFiles says where a directory differs from what was closed, as far as it
// must be known before the view is opened. It returns what is known of each file
// now, and the tables whose content is to be compared later, in that order.
func compareFiles(dir string, want []fileSum, checkFirst int64) (known map[string]fileSum, later []fileSum, err error) {
	have, err := statFiles(dir)
	if err != nil {
		return nil, nil, &replication.DamageError{File: dir, Problem: "the view's files cannot be read: " + err.Error()}
	}
	want = slices.Clone(want)
	slices.SortStableFunc(want, func(a, b fileSum) int { return cmp.Compare(a.Checked, b.Checked) })
	known = make(map[string]fileSum, len(want))
	for _, w := range want {
		path := filepath.Join(dir, w.Name)
		fi, ok := have[w.Name]
		switch {
		case !ok:
			return nil, nil, &replication.DamageError{File: path, Problem: "the file is missing"}
		case fi.Size() != w.Size:
			return nil, nil, &replication.DamageError{File: path, Problem: fmt.Sprintf("the file has %d bytes, not the %d that it was closed with", fi.Size(), w.Size)}
		}
		delete(have, w.Name)
		known[w.Name] = w
		if isTable(w.Name) && w.Stamp == stampOf(fi) {
			if checkFirst <= 0 {
				later = append(later, w)
				continue
			}
			checkFirst -= w.Size
		}
		now, err := compareFile(context.Background(), dir, w)
		if err != nil {
			return nil, nil, err
		}
		known[w.Name] = now
	}
	for name := range have {
		return nil, nil, &replication.DamageError{File: filepath.Join(dir, name), Problem: "the file was not there when the view was closed"}
	}
	for _, w := range later {
		if err := checkIndex(filepath.Join(dir, w.Name)); err != nil {
			return nil, nil, err
		}
	}
	return known, later, nil
}

// compareFile reads one file and compares its content.
func compareFile(ctx context.Context, dir string, want fileSum) (fileSum, error) {
	now, err := sumFile(ctx, dir, want.Name)
	switch {
	case err != nil && ctx.Err() != nil:
		return now, ctx.Err()
	case err != nil:
		return now, &replication.DamageError{File: filepath.Join(dir, want.Name), Problem: "the file cannot be read: " + err.Error()}
	case !now.same(want):
		return now, &replication.DamageError{File: filepath.Join(dir, want.Name), Problem: "the file's content is not what it was closed with"}
	}
	return now, nil
}

func statFiles(dir string) (map[string]fs.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make(map[string]fs.FileInfo, len(entries))
	for _, e := range entries {
		if isLock(e.Name()) {
			continue
		}
		if out[e.Name()], err = e.Info(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// compareOpen compares the tables of an open database that Open left, and has it
// rebuilt if one is not what it was. Of a table that was merged into others
// before it could be compared the others may have the damage: then every record
// is checked, and that all add up.
func (v *View) compareOpen(ctx context.Context, d *database, tables []fileSum) {
	merged := false
	for _, w := range tables {
		now, err := compareFile(ctx, d.dir, w)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			d.compared(now)
		case d.uses(w.Name):
			v.askRebuild(rebuild{generation: d.generation, why: err})
			return
		default:
			merged = true
		}
	}
	if !merged {
		return
	}
	snap, ok := d.snapshot()
	if !ok {
		return
	}
	switch err := v.checkRecords(ctx, snap); {
	case ctx.Err() != nil:
	case err != nil:
		v.askRebuild(rebuild{generation: d.generation, why: err})
	default:
		d.provenAll()
	}
}

// checkRecords checks every record of a snapshot, which it closes.
func (v *View) checkRecords(ctx context.Context, snap snapshot) (err error) {
	defer snap.close()
	defer faultsPanic()()
	defer guard(&err, snap.d.dir)
	return scanAll(ctx, snap.Txn, v.rank)
}
