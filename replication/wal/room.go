package wal

import (
	"fmt"
	"path/filepath"

	r "vixp2p/replication"
)

// minOpenBytes must be free to open a store, besides what its memtables take
// when they become tables: a nearly full disk can still be read. Appends are
// refused until the whole reserve is free.
const minOpenBytes = 8 << 20

// roomToOpen refuses a disk so full that opening the store could fail half way.
func roomToOpen(o *Options) error {
	if o.ReserveBytes < 0 {
		return nil
	}
	free, err := o.FreeBytes(o.Dir)
	if err != nil {
		return fmt.Errorf("cannot tell how much room the disk of %s has: %w", o.Dir, err)
	}
	if free >= uint64(o.ReserveBytes) {
		return nil
	}
	need, err := memtableBytes(filepath.Join(o.Dir, dbDir))
	if err != nil {
		return err
	}
	if need += min(uint64(o.ReserveBytes), minOpenBytes); free < need {
		return fmt.Errorf("%w: %s has %s free and opening it needs %s: make room, then start again", r.ErrNoSpace, o.Dir, r.SizeText(free), r.SizeText(need))
	}
	return nil
}

// memtableBytes is about what the tables take that the memtables' logs become.
func memtableBytes(dir string) (uint64, error) {
	paths, err := listFiles(dir, ".mem")
	if err != nil {
		return 0, err
	}
	var total uint64
	for _, path := range paths {
		err := walkRecords(path, func(_ int64, rec *record) error {
			total += uint64(rec.size)
			return nil
		}, func(fileDamage) {})
		if err != nil {
			return 0, fmt.Errorf("cannot read the database: %w", err)
		}
	}
	return total, nil
}
